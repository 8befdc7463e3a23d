"""The end of a command line program: errors and interruptions in one line each, and exit codes."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from f2l_fed.core.private_files import private_files
from f2l_fed.errors import F2LError, sentence

T = TypeVar("T")

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


def run_until_interrupted(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine, which the first Ctrl-C cancels; until the program's end it is the last.

    Args:
        work: The coroutine; what it closes is closed without haste.

    Raises:
        KeyboardInterrupt: After Ctrl-C, when all is closed.
    """

    async def watched() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def interrupt() -> None:
            # The loop would give SIGINT back to Python where it still handles it.
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            interrupted.append(True)
            if task is not None:
                task.cancel()

        loop.add_signal_handler(signal.SIGINT, interrupt)
        return await work

    interrupted: list[bool] = []
    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        if not interrupted:
            raise
        raise KeyboardInterrupt from None


def tell_interruption(what_goes_on: str = "what was not finished can be started again") -> None:
    """Prints the line that ends a command after Ctrl-C; a further one has no effect."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
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
