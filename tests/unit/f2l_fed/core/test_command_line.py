"""The end of a program: errors and Ctrl-C in one line each, whatever the terminal's encoding."""

from __future__ import annotations

import io
import sys

import pytest

from f2l_fed.core.command_line import interruption_told, run_program
from f2l_fed.errors import F2LError, UsageError


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
