"""Puts a document on disk: a text as a file, others as a folder. A reader never sees half of it."""

import shutil
import tempfile
from pathlib import Path

from allocsearch.core.errors import InputError
from allocsearch.formats.recipe import Document


def write(document: Document, where: Path) -> None:
    """Write the document's text to the file `where`, or, where it has none, its files into the new or empty folder `where`.

    Raises:
        InputError: where that cannot be written, or the folder has something in it.
    """
    try:
        where.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=where.absolute().parent, prefix=f".{where.name}-") as scratch:
            draft = Path(scratch) / where.name
            if document.text is not None:
                draft.write_text(document.text, encoding="utf-8")
                draft.replace(where)
            else:
                _write_folder(document, draft, where)
    except OSError as error:
        raise InputError(f"the output must be a place that can be written, but {where}: {error.strerror}") from error


def _write_folder(document: Document, draft: Path, where: Path) -> None:
    if where.exists() and (not where.is_dir() or any(where.iterdir())):
        raise InputError(f"the output must be a new or empty folder, but {where} exists: choose another with -o")
    draft.mkdir()
    for name, content in document.files.items():
        (draft / name).write_bytes(content.encode() if isinstance(content, str) else content)
    if where.exists():
        where.rmdir()
    shutil.move(draft, where)
