"""The command line, `sotto`.

What goes wrong with an input ends in one line on stderr and exit code 1 (2 for a command typed
wrongly, 130 for Ctrl-C, 143 for SIGTERM). torch is imported by the commands that need it, so that
help is quick.
"""

import contextlib
import errno
import io
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from codec.errors import SottoError
from codec.extras import needing
from infer.commands_audio import decode, encode
from infer.commands_codes import codes
from infer.commands_curves import curves
from infer.commands_export import export
from infer.commands_live import receive, send, stream
from infer.commands_model import evaluate, schema, tables
from infer.commands_report import report
from infer.commands_sc import cut, info, trim, verify
from infer.commands_shrink import shrink
from infer.commands_usage import usage
from infer.partial import NoReaderError
from infer.workers import Terminated, raise_on_signals, system_error


class Commands(TyperGroup):
    """A group of commands that turns the errors of users and systems into one line."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; raises typer.Exit for what is no bug."""
        try:
            with needing("torch"):
                return super().invoke(ctx)
        except NoReaderError:
            _forget_stdout()
            raise typer.Exit(1) from None
        except SottoError as error:
            message, code = str(error), 1
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader went away, as `head` does
                raise
            message, code = system_error(error), 1
        except KeyboardInterrupt:
            message, code = "interrupted", 130
        except Terminated as error:
            message, code = f"ended by {error}", 143
        typer.echo("error: " + " ".join(message.splitlines()), err=True)
        raise typer.Exit(code)


def _forget_stdout() -> None:
    """Lets what Python still wants to flush to a closed pipe go nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stdout without a number, in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=Commands,
    help="Sotto, a speech codec: audio to a few kilobits per second and back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    *(encode, decode, info, trim, cut, verify, codes),
    *(evaluate, report, usage, curves, tables, shrink, export, schema),
):
    app.command()(command)
for live in (stream, send, receive):
    app.command()(live)


def main() -> None:
    """Runs the command that was typed."""
    for output in (sys.stdout, sys.stderr):
        if isinstance(output, io.TextIOWrapper):  # a name that the terminal lacks letters for
            output.reconfigure(errors="backslashreplace")
    raise_on_signals()
    app()
