"""Puts texts and folders on disk, and nothing but them: a reader never sees half of one, and what is no file or folder stays as it is."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from allocsearch.core.errors import InputError
from allocsearch.formats.recipe import Document


def write(document: Document, where: Path) -> None:
    """Write the document's text to the file `where`, or, where it has none, its files into the new or empty folder `where`.

    Raises:
        InputError: as `write_text` and `new_folder`.
    """
    if document.text is not None:
        write_text(document.text, where)
        return
    with new_folder(where) as draft, explained(where):
        for name, content in document.files.items():
            (draft / name).write_bytes(content.encode() if isinstance(content, str) else content)


def write_text(text: str, where: Path) -> None:
    """Write `text` to the file `where`, in place of one that is there.

    Raises:
        InputError: where that is a folder, a device or a pipe, or cannot be written.
    """
    with explained(where):
        target = Path(os.path.realpath(where))  # a link stays one; were it a device's, its own place would be taken
        if target.exists() and not target.is_file():
            what = "a folder" if target.is_dir() else "no regular file"
            raise InputError(f"the output must be a new file or one to replace, but {where} is {what}: choose another with -o")
        with _scratch_beside(target) as scratch:
            draft = scratch / target.name
            draft.write_text(text, encoding="utf-8")
            draft.replace(target)


@contextmanager
def new_folder(where: Path) -> Iterator[Path]:
    """Yields a draft that becomes the new or empty folder `where` on success. What fails within is the caller's to explain.

    Raises:
        InputError: where something is there, or that cannot be made.
    """
    with ExitStack() as drafting:
        with explained(where):
            target = Path(os.path.realpath(where))
            if target.exists() and (not target.is_dir() or any(target.iterdir())):
                raise InputError(f"the output must be a new or empty folder, but {where} exists: choose another with -o")
            draft = drafting.enter_context(_scratch_beside(target)) / target.name
            draft.mkdir()
        yield draft
        with explained(where):
            draft.rename(target)  # which takes the place of an empty folder


@contextmanager
def _scratch_beside(target: Path) -> Iterator[Path]:
    """A folder on the same file system, gone afterwards, so that what was drafted in it takes its place at once or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".allocsearch-") as scratch:
        yield Path(scratch)


@contextmanager
def explained(where: Path) -> Iterator[None]:
    """Within it, something is written to `where`, and nothing else is read or written.

    Raises:
        InputError: in place of the system's errors.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"the output must be a place that can be written, but {where}: {error.strerror or error}") from error
