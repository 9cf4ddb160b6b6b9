"""The command line. Strings end here: commands parse, call the typed core, and print.

Results go to standard output (tables, or JSON with --json), progress and errors to standard error. Exit codes: 0 well,
1 a supported claim was lost, 2 bad input (one line says what, where, and what to do).
"""

from __future__ import annotations

import errno
import os
import sys

import typer

from reprise.cli.added import Commands
from reprise.errors import UserError

# Errors that these packages raise are about their input; each is one line by our own rule, so it is shown as such.
_OWN_PACKAGES = frozenset(
    {"circuits", "function_vectors", "interventions", "replications", "reprise", "steering", "training", "zoo"}
)

# What a file system says that has no place left, or none for us.
_NO_PLACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR})

# Typer converts a value that is absent with pydantic, which takes longer to import than `reprise list` takes in all:
# --help, the only option that every command has, is given as false instead.
_NO_HELP = {"help": False, "list": {"help": False}}

app = typer.Typer(
    name="reprise",
    cls=Commands,
    help="Papers on the inner workings of neural networks, reproduced claim by claim.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _register() -> None:
    from reprise.cli import authoring, reporting, running, teamwork  # noqa: F401 (importing registers the commands)


def main() -> None:
    """Run the command line and exit."""
    _register()
    try:
        code = app(sys.argv[1:] or ["--help"], default_map=_NO_HELP, standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        _fail(f"{error.format_message().rstrip('.')}; see `reprise --help` or `reprise COMMAND --help`")
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except UserError as error:
        _fail(str(error))
    except BrokenPipeError:
        _drop_output()  # what reads it has read enough
        sys.exit(141)
    except Exception as error:
        if (refused := _no_place(error)) is not None:
            _drop_output()
            where = refused.filename or "output"
            _fail(f"{where}: {refused.strerror}; free some space, check permissions or write elsewhere")
        if not _is_about_input(error):
            raise
        _fail(str(error))
    sys.exit(code if isinstance(code, int) else 0)


def _is_about_input(error: Exception) -> bool:
    """Whether an error is of a class of ours, or a ValueError raised by a line of ours (and not of a library)."""
    if type(error).__module__.split(".", 1)[0] in _OWN_PACKAGES:
        return True
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    raised_in = frame.tb_frame.f_globals.get("__name__", "") if frame is not None else ""
    return isinstance(error, ValueError) and str(raised_in).split(".", 1)[0] in _OWN_PACKAGES


def _no_place(error: Exception) -> OSError | None:
    """The file system's refusal that an error is, or (torch's, when it writes to a file) comes from."""
    refused = error.__context__ if isinstance(error, RuntimeError) else error
    return refused if isinstance(refused, OSError) and refused.errno in _NO_PLACE else None


def _drop_output() -> None:
    """Let Python not try again, when it ends, to write what could not be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def _fail(message: str) -> None:
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    sys.exit(2)
