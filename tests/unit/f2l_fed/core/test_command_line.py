"""The end of a program: errors and Ctrl-C in one line each, whatever the terminal's encoding."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from f2l_fed.core.command_line import interruption_told, run_program, run_until_interrupted
from f2l_fed.errors import F2LError, UsageError


@pytest.fixture(autouse=True)
def _interruptions() -> Iterator[None]:
    """A program's end ignores further ones; those of the tests go on."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def ended(work) -> int:
    with pytest.raises(SystemExit) as end:
        run_program(work)
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("this can't be done"), 2, "error: this can't be done.\n"),
        (F2LError("it broke"), 1, "error: it broke.\n"),
        (OSError(28, "No space left on device", "x"), 1, "error: x: No space left on device.\n"),
        (KeyboardInterrupt(), 130, "interrupted: what was not finished can be started again\n"),
        # Typer's own end after Ctrl-C.
        (SystemExit(130), 130, "interrupted: what was not finished can be started again\n"),
        (SystemExit(3), 3, ""),
    ],
)
def test_every_end_has_one_line_and_a_code(capsys, error, code, said):
    def work() -> None:
        raise error

    assert ended(work) == code
    assert capsys.readouterr() == ("", said)


def test_ctrl_c_within_a_block_says_what_goes_on_and_nothing_else(capsys):
    def work() -> None:
        with interruption_told("the rounds go on"):
            raise KeyboardInterrupt

    assert ended(work) == 130
    assert capsys.readouterr().err == "interrupted: the rounds go on\n"


def test_an_error_shows_its_traceback_on_request(monkeypatch):
    def work() -> None:
        raise UsageError("this can't be done")

    monkeypatch.setenv("F2L_DEBUG", "1")
    with pytest.raises(UsageError):
        run_program(work)


def test_a_character_that_the_terminal_lacks_is_shown_as_an_escape(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", terminal)
    run_program(lambda: print("90 ± 2 in größe"))
    assert terminal.buffer.getvalue() == b"90 \\xb1 2 in gr\\xf6\\xdfe\n"


def test_a_second_ctrl_c_has_no_effect_while_a_command_closes_and_ends(capsys):
    done = []

    async def watched() -> None:
        try:
            interrupt()
            await asyncio.Event().wait()
        finally:
            interrupt()
            await asyncio.sleep(0.01)
            done.append("closed")

    def work() -> None:
        with interruption_told("the rounds go on"):
            run_until_interrupted(watched())

    assert ended(work) == 130
    interrupt()
    assert done == ["closed"]
    assert capsys.readouterr().err == "interrupted: the rounds go on\n"


def test_what_ends_by_itself_is_returned_and_ctrl_c_still_works():
    async def two() -> int:
        return 2

    assert run_until_interrupted(two()) == 2
    with pytest.raises(KeyboardInterrupt):
        interrupt()
