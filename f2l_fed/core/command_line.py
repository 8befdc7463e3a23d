"""The end of a command line program: errors and interruptions in one line each, and exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from f2l_fed.core.private_files import private_files
from f2l_fed.errors import F2LError, sentence

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C has ended."""

DEBUG_VARIABLE = "F2L_DEBUG"
"""Environment variable with which an error shows its traceback."""


class CommandInterrupted(SystemExit):
    """The end of a command by Ctrl-C that has told what goes on."""


@contextmanager
def interruption_told(what_goes_on: str) -> Iterator[None]:
    """Ends the program with one line, and exit code 130, where Ctrl-C comes within the block.

    Args:
        what_goes_on: Clause that tells what goes on all the same, or what is kept.
    """
    try:
        yield
    except KeyboardInterrupt:
        tell_interruption(what_goes_on)
        raise CommandInterrupted(INTERRUPTED) from None


def run_program(app: Callable[[], object]) -> None:
    """Runs a program's commands; all files that they make are for this account alone.

    Args:
        app: The commands; ends by SystemExit.

    Raises:
        SystemExit: With the error's exit code after an F2LError, 1 after an error of the system,
            130 after Ctrl-C.
    """
    _tolerate_missing_characters()
    try:
        with private_files():
            app()
    except F2LError as error:
        _end(str(error), error.exit_code)
    except (OSError, UnicodeEncodeError) as error:
        _end(sentence(error), 1)
    except KeyboardInterrupt:
        tell_interruption()
        sys.exit(INTERRUPTED)
    except CommandInterrupted:
        raise
    except SystemExit as end:
        # Typer ends a command after Ctrl-C without a word.
        if end.code == INTERRUPTED:
            tell_interruption()
        raise


def tell_interruption(what_goes_on: str = "what was not finished can be started again") -> None:
    """Prints the line that ends a command after Ctrl-C."""
    print(f"interrupted: {what_goes_on}", file=sys.stderr, flush=True)


def _end(text: str, code: int) -> None:
    """Ends the program after the error that is being handled."""
    if os.environ.get(DEBUG_VARIABLE):
        raise
    print(f"error: {text}", file=sys.stderr, flush=True)
    sys.exit(code)


def _tolerate_missing_characters() -> None:
    """Shows characters that the terminal's encoding lacks as escapes, in place of an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
