"""YAML documents: where the named ones lie, how they are read, and error lines that say where and what to type instead."""

import os
import shlex
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from allocsearch.core.errors import InputError, line_of, quoted, shown

Folder = Literal["search_spaces", "studies"]
_Model = TypeVar("_Model", bound=BaseModel)
FOLDERS: Final = "ALLOCSEARCH_FOLDERS"
_MAX_BYTES: Final = 4_000_000
_KEY_TAGS: Final = (yaml.resolver.BaseResolver.DEFAULT_SCALAR_TAG, "tag:yaml.org,2002:merge")
# What PyYAML's constructors raise beside their own errors, as for `!!int ''` or a 13th month.
_UNREADABLE: Final = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, ArithmeticError, RecursionError)

_UNION_TAGS: Final = ("function-", "literal[", "constrained-", "tuple[")  # pydantic's own parts of a location
_LONGEST_SHOWN: Final = 10**18


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, of which YAML would silently keep the last, and a key that is not text."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen = set()
    for key_node, _ in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _KEY_TAGS:
            what = quoted(key_node.value) if isinstance(key_node, yaml.ScalarNode) else f"a {key_node.id}"
            raise yaml.MarkedYAMLError(problem=f"each key must be text, but got {what}", problem_mark=key_node.start_mark)
        if key_node.value in seen:
            raise yaml.MarkedYAMLError(problem=f"the key `{key_node.value[:60]}` is given twice", problem_mark=key_node.start_mark)
        seen.add(key_node.value)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def named(folder: Folder) -> dict[str, Path]:
    """The shipped documents of a folder by name; inside the wheel, or beside the package in a source tree."""
    packaged = Path(str(files("allocsearch") / folder))
    home = packaged if packaged.is_dir() else Path(__file__).parent.parent / folder
    return {path.stem: path for path in sorted(home.glob("*.yaml"))}


@dataclass(frozen=True, slots=True)
class Beside:
    """Where the document stands that names another: what it names is relative to its folder.

    Attributes:
        folder: its own.
        confined: whether what it names must lie there, or in a folder that `ALLOCSEARCH_FOLDERS` names.
    """

    folder: Path
    confined: bool = True


def find(source: str, folder: Folder, *, beside: Beside | None = None, given_as: str | None = None) -> Path:
    """The document that `source` names: a shipped name, or a path, relative to what it stands `beside` where that is given.

    An error begins with what the source was `given_as`, such as an option; without it, with the folder.
    """
    shipped = named(folder)
    if source in shipped:
        return shipped[source]
    path = located(source, beside)
    if path is not None and path.is_file():
        return path
    near = get_close_matches(source, shipped, n=1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    raise InputError(f"{given_as or folder}: {quoted(source)} must be a file or one of {shown(shipped)}, but it is neither{hint}")


def located(name: str, beside: Beside | None = None) -> Path | None:
    """The file or folder that `name` means on the command line or, with `beside`, in a document; None where nothing is there.

    Raises:
        InputError: where a document may not name it.
    """
    try:
        path = (beside.folder if beside else Path()) / Path(name).expanduser()
        place, is_there = path.resolve(), path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # such as a link to itself, or the home of an unknown user
        if beside is None:
            return None
        raise InputError(f"what a document names must be a path that this system knows, but {quoted(name)} is none: {error}") from error
    if beside is not None and not _is_inside(place, beside):
        raise InputError(
            f"what a document names must lie in its own folder or in one that {FOLDERS} names, but {quoted(name)} does not: "
            f"put it there{_or_allow(place)}"
        )
    return path if is_there else None


def _is_inside(place: Path, beside: Beside) -> bool:
    """Whether the document may point to `place`, whose links have been followed."""
    own = beside.folder.resolve()
    return not beside.confined or place.is_relative_to(own) or any(map(place.is_relative_to, _allowed()))


def _allowed() -> Iterator[Path]:
    """Where documents may point beside their own folders."""
    for each in filter(None, os.environ.get(FOLDERS, "").split(os.pathsep)):
        try:
            yield Path(each).expanduser().resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{FOLDERS} must name folders, but {quoted(each)} is none: {error}") from error


def _or_allow(place: Path) -> str:
    """What to type. One whose name would be taken for two cannot be allowed."""
    if os.pathsep in str(place):
        return ""
    allowed = os.pathsep.join(filter(None, [os.environ.get(FOLDERS), str(place)]))
    return f", or allow it: export {FOLDERS}={shlex.quote(allowed)}"


def read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: the file must be readable, but: {error.strerror}") from error
    if len(content) > _MAX_BYTES:
        raise InputError(f"{path}: a document must be at most {_MAX_BYTES:,} bytes, but it has {len(content):,}")
    try:
        document = yaml.load(content.decode("utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader that also refuses duplicate keys
    except _UNREADABLE as error:
        raise InputError(f"{path}: {_yaml_problem(error)}") from error
    if not isinstance(document, dict):
        kind = "empty" if document is None else type(document).__name__
        raise InputError(f"{path}: the document must be a mapping of keys to values, but it is {kind}")
    return document


def option(key: str) -> str:
    """How a key is given on the command line."""
    return f"--{key.replace('_', '-')}"


def validated(model: type[_Model], data: Mapping[str, Any], *, where: str, path: Path | None = None, given: Collection[str] = ()) -> _Model:
    """`data` as `model`.

    Args:
        model: what it must be.
        data: the document, or a part of one.
        where: what an error calls it.
        path: its file, in which an error names the line.
        given: keys whose values came as options, which an error names instead.

    Raises:
        InputError: the most telling of pydantic's findings as one line: file, line, key, what is wrong and the nearest key.
    """
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        raise _invalid(error, model, where=where, path=path, given=given) from error


def _invalid(error: ValidationError, model: type[BaseModel], *, where: str, path: Path | None, given: Collection[str]) -> InputError:
    found = error.errors(include_url=False)
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])  # a mistyped key is missing, too
    loc = tuple(part for part in first["loc"] if isinstance(part, int) or not part.startswith(_UNION_TAGS))
    key = ".".join(part if (part := str(each)).isprintable() else repr(part) for each in loc)  # a key may hold a line's end
    if loc and loc[0] in given and first["type"] != "extra_forbidden":
        where, path, key = option(str(loc[0])), None, ".".join(map(str, loc[1:]))
    line = _line_of(path, loc) if path is not None else None
    place = f"{where}, line {line}" if line else where
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, loc[:-1])
        near = get_close_matches(str(loc[-1]), known, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known keys: {shown(known, limit=30)}"
        return InputError(f"{place}: `{key}` is not a key here: {hint}")
    if first["type"] == "missing":
        return InputError(f"{place}: the key `{key}` must be given, but it is missing")
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    literal = _literal(first.get("input"))
    shown_input = f" (got {literal})" if literal and literal not in message else ""
    return InputError(f"{place}: `{key}`: {message}{shown_input}" if key else f"{place}: {message}{shown_input}")


def _literal(value: Any) -> str:
    """A scalar as the user wrote it; empty where it is none, or a number with more digits than a line has room for."""
    if isinstance(value, str):
        return quoted(value)
    return repr(value) if isinstance(value, int | float) and abs(value) < _LONGEST_SHOWN else ""


def _fields_at(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """The keys that `model` takes at a location; empty where the location is not a model's."""
    current: type[BaseModel] | None = model
    for part in loc:
        field = None if current is None else next((f for n, f in current.model_fields.items() if part in {n, f.alias}), None)
        if field is not None:
            current = _model_in(field.annotation)
    return [] if current is None else [field.alias or name for name, field in current.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None


def _line_of(path: Path, loc: Sequence[int | str]) -> int | None:
    """The line (from 1) of the deepest key of `loc` that the file holds."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, OSError):
        return None
    line = None
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(part)), None)
            if found is None:
                continue
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _yaml_problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return f"the file must be one YAML document in UTF-8, but: {line_of(error)}"
