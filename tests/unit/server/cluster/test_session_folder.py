"""The folder of an embedded Ray is closed to others, and goes with its process or after it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from f2l_fed.errors import ConfigError
from server.cluster import session_folder as session_folders
from server.cluster.session_folder import RAY_FOLDER, TOKEN_FILE, session_folder

HOLDING = """
import sys
from server.cluster.session_folder import session_folder
with session_folder() as folder:
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder for temporary ones."""
    with tempfile.TemporaryDirectory(prefix="f2l-t-", dir="/tmp") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


@contextmanager
def holding(place: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a session folder, and the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDING],
        env={**os.environ, "TMPDIR": str(place)},
        cwd=Path(__file__).parents[4],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        yield process, Path(process.stdout.readline().strip())


def test_folder_and_token_are_closed_to_others_whatever_the_umask_and_gone_after_a_failure(place):
    tokens = set()

    def fail() -> None:
        with session_folder() as folder:
            assert folder.parent == place
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert stat.S_IMODE((folder / TOKEN_FILE).stat().st_mode) == 0o600
            tokens.add((folder / TOKEN_FILE).read_text())
            (folder / RAY_FOLDER).mkdir()
            (folder / RAY_FOLDER / "log").write_text("a line")
            raise InterruptedError

    before = os.umask(0)
    try:
        for _ in range(2):
            with pytest.raises(InterruptedError):
                fail()
            assert not list(place.iterdir())
    finally:
        os.umask(before)
    assert {len(token) for token in tokens} == {64}
    assert len(tokens) == 2


def test_a_start_removes_what_killed_processes_left_and_nothing_else(place):
    with holding(place) as (process, left), holding(place) as (_, used):
        process.kill()
        process.wait()
        other = place / "f2l-ray-another"
        other.symlink_to(used)
        with session_folder() as own:
            assert set(place.iterdir()) == {own, used, other}
        assert not left.exists()
        assert (used / TOKEN_FILE).exists()


def test_a_place_whose_sockets_would_have_too_long_names_is_not_used(place, monkeypatch):
    deep = place / "a-name-of-some-length"
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with session_folder() as folder:
        assert folder.parent == Path("/tmp")
        session = "session_2026-11-29_05-26-40_919837_4194304"
        assert len(str(folder / RAY_FOLDER / session / "sockets/plasma_store")) < 107
    assert not folder.exists()


def test_it_lies_where_a_short_folder_can_be_written_in(monkeypatch, place):
    monkeypatch.setattr(tempfile, "tempdir", f"/tmp/{'x' * 100}")
    monkeypatch.setattr(session_folders, "_PLACES", ("/nowhere", str(place)))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    with session_folder() as folder:
        assert folder.parent == place
    monkeypatch.setattr(session_folders, "_PLACES", ("/nowhere",))
    with pytest.raises(ConfigError, match=r"TMPDIR: .* at most 23 characters.* Set TMPDIR to one"):
        with session_folder():
            pass
