"""Lines are broken for a terminal alone."""

from __future__ import annotations

from f2l_fed.core.terminal import console


def test_lines_for_a_pipe_are_not_broken(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    console().print("word " * 100)
    assert len(capsys.readouterr().out.splitlines()) == 1
    console(stderr=True).print("word " * 100)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_width_that_is_asked_for_is_kept(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    console().print("word " * 100)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert len(lines) > 1
