"""Rows as their files hold them: the built-in data, local files, and the hub's data sets."""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from allocsearch.core.errors import InputError, gist, shown
from allocsearch.core.task import TaskSource
from allocsearch.hub import hub_reachable, without_hub

SUFFIXES: Final = (".csv", ".tsv", ".json", ".jsonl", ".parquet")

_MAX_FIELD: Final = 2**24  # characters; csv's own limit of 2^17 is short of a long document


@dataclass(frozen=True, slots=True)
class Records:
    """Rows with `where` they come from, for messages; `label_names` per column that the source itself gives names to."""

    rows: Sequence[Mapping[str, Any]]
    where: str
    label_names: Mapping[str, tuple[str, ...]]


def read_builtin(file_name: str) -> Records:
    """Rows of a data file that ships with the package."""
    resource = files("allocsearch.training").joinpath("data", file_name)
    text = gzip.decompress(resource.read_bytes()).decode("utf-8")
    return Records(_delimited(text, where=file_name, tab=True), file_name, {})


def read_file(path: str) -> Records:
    """Rows of a CSV, TSV, JSON, JSONL or Parquet file; the text formats also gzipped.

    TSV is read without quoting, as GLUE's files need it: a quotation mark is a character.

    Raises:
        InputError: for a file that is missing, empty, damaged, not UTF-8, or of another kind.
    """
    file = Path(path).expanduser()
    suffixes = [suffix.lower() for suffix in file.suffixes]
    zipped = suffixes[-1:] == [".gz"]
    kind = (suffixes[-2:-1] if zipped else suffixes[-1:]) or [""]
    if kind[0] not in SUFFIXES or (zipped and kind[0] == ".parquet"):
        raise InputError(f"a data file must end in one of {shown(SUFFIXES)}, or .gz after a text format, but got {path!r}")
    try:
        content = file.read_bytes()
        if zipped:
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"a data file must be whole, but {path!r} is a damaged gzip file ({error}): fetch it again") from error
    except OSError as error:
        raise InputError(f"a data file must be readable, but {path!r} is not ({error.strerror or error}): check the path") from error
    rows = _parquet(content, where=path) if kind[0] == ".parquet" else _text_rows(content, kind[0], where=path)
    if not rows:
        raise InputError(f"a data file must have at least one row, but {path!r} has none")
    return Records(rows, path, {})


def read_hub(source: TaskSource, split: str) -> Records:
    """Rows of one split of a hub data set, from its cache where the hub is out of reach. Code in the repository is never run.

    Raises:
        InputError: for an unknown data set, configuration, revision or split, where there is no way to reach the hub, and where the
            id is also a folder's name, or a format's, for which the client would read what lies here instead.
    """
    import datasets  # noqa: PLC0415 - seconds to import, and local files do not need it
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES as FORMATS  # noqa: PLC0415 - the only list of them

    if source.hub in FORMATS:
        raise InputError(f"`hub` must be the id of a data set, but {source.hub!r} is a format: give the file as `path`")
    if Path(str(source.hub)).exists():
        raise InputError(
            f"`hub` must be the id of a data set, but {source.hub!r} lies here: give its file as `path`, or call from elsewhere"
        )
    where = "/".join(part for part in (source.hub, source.config, split) if part)
    online = hub_reachable()
    bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        if online:
            data = datasets.load_dataset(source.hub, source.config, split=split, revision=source.revision)
        else:
            with without_hub():
                data = datasets.load_dataset(source.hub, source.config, split=split, revision=source.revision)
    except Exception as error:  # the reason: the client raises errors of four libraries
        remedy = "check its name, config, revision and split" if online else "connect and unset HF_HUB_OFFLINE, or give a `path`"
        raise InputError(f"the hub data set {where!r} cannot be loaded ({gist(error)}): {remedy}") from error
    finally:
        if bars:
            datasets.enable_progress_bars()
    if not len(data):
        raise InputError(f"a data set must have at least one row, but {where!r} has none")
    names = {column: tuple(feature.names) for column, feature in data.features.items() if isinstance(feature, datasets.ClassLabel)}
    return Records(data.to_list(), where, names)


def _text_rows(content: bytes, kind: str, *, where: str) -> list[dict[str, Any]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"a data file must be UTF-8, but {where!r} has byte 0x{content[error.start]:02x} at offset {error.start:,}: "
            "convert it, for instance with `iconv -f cp1252 -t utf-8`"
        ) from error
    if kind in {".csv", ".tsv"}:
        return _delimited(text, where=where, tab=kind == ".tsv")
    if kind == ".jsonl":
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        return [_object(_json(line, where=f"line {number} of {where}"), where=f"line {number} of {where}") for number, line in lines]
    found = _json(text, where=where)
    if not isinstance(found, list):
        raise InputError(f"a .json data file must be a list of objects, but {where!r} is {type(found).__name__}: or give .jsonl")
    return [_object(row, where=f"row {number} of {where}") for number, row in enumerate(found, start=1)]


def _delimited(text: str, *, where: str, tab: bool) -> list[dict[str, Any]]:
    options: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if tab else {"strict": True}
    limit = csv.field_size_limit(_MAX_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), **options)
    rows: list[dict[str, Any]] = []
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise InputError(f"the columns of a data file must have distinct names, but the first line of {where!r} is {shown(header)}")
        for fields in reader:
            if fields and len(fields) != len(header):
                raise InputError(
                    f"each line must have the header's {len(header)} fields, but line {reader.line_num} of {where!r} has {len(fields)}: "
                    f"{'remove tabs inside fields' if tab else 'quote fields that hold commas'}"
                )
            if fields:
                rows.append(dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise InputError(f"a data file must be well formed, but line {reader.line_num} of {where!r} is not: {error}") from error
    finally:
        csv.field_size_limit(limit)
    return rows


def _parquet(content: bytes, *, where: str) -> list[dict[str, Any]]:
    import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415 - as above
    from pyarrow import parquet  # noqa: PLC0415

    try:
        return list(parquet.read_table(pa.BufferReader(content)).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"a data file must be whole, but {where!r} is no Parquet file ({gist(error)})") from error


def _json(text: str, *, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"a data file must be well formed, but {where} is not JSON: {error}") from error


def _object(value: Any, *, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"each row must be a JSON object with columns, but {where} is {type(value).__name__}")
    return value
