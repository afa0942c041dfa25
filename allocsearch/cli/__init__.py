"""The command line: documented exit codes, one line per error, no traceback."""

import atexit
import gc
import os
import sys
import traceback
from typing import Annotated, Any, cast

import typer

from allocsearch import __version__, logs

# They register their commands.
from allocsearch.cli import calibration, catalogue, comparing, operations, reading, reporting, search, training  # noqa: F401
from allocsearch.cli.app import app
from allocsearch.cli.interrupts import in_two_steps
from allocsearch.core.errors import InfeasibleError, InputError, LostLeaseError, line_of
from allocsearch.core.plugins import PROBLEMS


def _print_versions(wanted: bool) -> None:
    if not wanted:
        return
    from allocsearch.core.versions import version_of  # noqa: PLC0415 - takes its time

    others = (f"{package} {version_of(package)}" for package in ("torch", "ray", "optuna", "peft", "transformers"))
    typer.echo(", ".join((f"allocsearch {__version__}", *others)))
    raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_versions, help="Print versions.")] = False,
) -> None:
    logs.check()


def main() -> None:
    """The entry point: documented exit codes, one line per error, no traceback."""
    code = 1
    atexit.register(gc.freeze)  # an interpreter that ends looks for garbage among all that PyTorch and Ray brought: seconds, for nothing
    try:
        _check_plugins()
        with in_two_steps():
            result = app(prog_name="allocsearch", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except (typer.Exit, SystemExit) as stop:
        found = getattr(stop, "exit_code", getattr(stop, "code", 0))
        code = found if isinstance(found, int) else 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except InfeasibleError as error:
        code = _complain(error, 3)
    except InputError as error:
        code = _complain(error, 2)
    except LostLeaseError as error:
        code = _complain(error, 5)
    except BrokenPipeError:
        sys.stderr.close()
    except Exception as error:  # noqa: BLE001 - the last line of defence
        code = _unexpected(error)
    sys.stdout.flush()
    sys.exit(code)


def _check_plugins() -> None:
    if PROBLEMS:
        raise InputError(PROBLEMS[0])


def _complain(error: Exception | str, code: int) -> int:
    line = line_of(error)
    if logs.as_json():
        logs.log("error", level="error", message=line, exit_code=code)
    else:
        typer.echo(f"error: {line}", err=True)
    return code


def _complain_of_usage(error: Any) -> int:
    if type(error).__name__ == "NoArgsIsHelpError" and not logs.as_json():
        error.show()
        return 2
    where = getattr(getattr(error, "ctx", None), "command_path", None) or _typed()
    said = error.format_message() if hasattr(error, "format_message") else str(error)
    return _complain(f"{said.replace('Value error, ', '').rstrip('.')}: see {where} --help", 2)


def _typed() -> str:
    """The command that was typed: an error of its parser, such as an option without its value, does not know it."""
    path, command = ["allocsearch"], cast("Any", typer.main.get_command(app))
    for word in sys.argv[1:]:
        command = getattr(command, "commands", {}).get(word)
        if command is None:
            break
        path.append(word)
    return " ".join(path)


def _unexpected(error: Exception) -> int:
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error, of click's or of typer's own copy of it
        return _complain_of_usage(error)
    if type(error).__name__ == "TooManyFailuresError":
        return _complain(error, 4)
    if os.environ.get("ALLOCSEARCH_DEBUG"):
        traceback.print_exc()
    return _complain(f"unexpected {type(error).__name__}: {error} (ALLOCSEARCH_DEBUG=1 shows where)", 1)
