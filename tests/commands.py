"""The command line as it is declared."""

import typer

_GROUPS = ("db", "models")


def commands():
    """Each command by what a user types for it, groups included."""
    from allocsearch.cli import app

    return dict(_walk(typer.main.get_command(app)))


def _walk(command, path=()):
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk(inner, (*path, name))
    yield " ".join(path), command


def command_of(arguments):
    """`db check` of `db check --json`, `run --dry-run` of `run study.yaml --dry-run`."""
    words = [str(argument) for argument in arguments]
    if words[0] in _GROUPS and words[1:2] and not words[1].startswith("-"):
        return " ".join(words[:2])
    return f"{words[0]} --dry-run" if "--dry-run" in words else words[0]
