"""Other accounts of the machine, and whoever reaches it, against the Ray of a round."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.cluster.session_folder import session_folder
from tests.attacks.peers.other_account import as_nobody, needs_root
from tests.attacks.peers.ray_intruder import family, gcs_of, intrude, listeners_of
from tests.support.ray_nodes import MARKS, end_session
from tests.support.small_federation import FEW, SETTINGS, small_federation
from tests.support.waiting import holds

pytestmark = MARKS

_SIZE = ("--data", "digits", "--sites", "4", "--held-out", "2", "--rounds", "1000")
_KEY = "of the certificate authority"
_LOOK = """
import os, sys
for top, folders, files in os.walk(sys.argv[1], onerror=print):
    print("seen", *folders, *files)
open(f"/proc/{sys.argv[2]}/environ").read()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A process that conducts rounds on a Ray of its own.

    Args:
        process: In a session of its own.
        place: Its folder for temporary files; every account may enter it.
        key: A file that only its account may read.
    """

    process: subprocess.Popen[bytes]
    place: Path
    key: Path

    @property
    def folder(self) -> Path:
        """The one of its Ray."""
        (found,) = self.place.glob("*ray*")
        return found

    @property
    def token(self) -> str:
        return (self.folder / "token").read_text()


@contextmanager
def conducting(root: Path, words: list[str]) -> Iterator[Victim]:
    """Runs a command until the block ends; within, it is in a round."""
    with tempfile.TemporaryDirectory(prefix="f2l-t-", dir="/tmp") as name:
        (place := Path(name)).chmod(0o755)
        (key := place / "ca.key").touch(0o600)
        key.write_text(_KEY)
        with (root.parent / f"{place.name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *words],
                env={**os.environ, "TMPDIR": name},
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Whoever was started in the background ignores it, and so do its children.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        try:
            begun = (root / "rounds/00001.json").exists
            assert holds(lambda: begun() or process.poll() is not None)
            assert process.poll() is None, Path(log.name).read_text()
            yield Victim(process=process, place=place, key=key)
        finally:
            end_session(process.pid)
            process.wait()


@pytest.fixture(scope="module", params=["round", "simulation"])
def victim(request, tmp_path_factory) -> Iterator[Victim]:
    root = tmp_path_factory.mktemp(request.param) / "out"
    if request.param == "round":
        small_federation(root, sites=4, settings=FEW)
        words = ["-m", "tests.support.on_cluster", str(root), "1000", "1"]
    else:
        settings = (
            word for setting in (*SETTINGS, *FEW, "ray.engine=ray") for word in ("--set", setting)
        )
        words = [str(Path(sys.executable).parent / "f2l-admin"), "simulate", *_SIZE, *settings]
        words += ["--out", str(root)]
    with conducting(root, words) as victim:
        yield victim


@needs_root
def test_a_foreign_node_and_driver_without_the_token_run_nothing(victim):
    gcs = gcs_of(victim.process.pid)
    assert gcs is not None
    refused = intrude(gcs, victim.key)
    assert _KEY not in refused.stdout
    assert "InvalidAuthToken" in refused.stderr
    guessed = intrude(gcs, victim.key, "0" * 64)
    assert _KEY not in guessed.stdout
    assert "InvalidAuthToken" in guessed.stderr
    assert victim.process.poll() is None


@needs_root
def test_only_the_token_keeps_them_out(victim):
    gcs = gcs_of(victim.process.pid)
    assert gcs is not None
    # Ray gives the foreign node 30 seconds; on a busy machine it may take several starts.
    assert any(_KEY in intrude(gcs, victim.key, victim.token).stdout for _ in range(6))


def test_ray_listens_on_loopback_only(victim):
    assert {host for host, _ in listeners_of(victim.process.pid)} == {"127.0.0.1"}


@needs_root
def test_no_other_account_sees_token_sockets_or_logs(victim):
    done = as_nobody(_LOOK, str(victim.folder), str(victim.process.pid))
    assert "seen" not in done.stdout
    assert f"Permission denied: '{victim.folder}'" in done.stdout
    assert "PermissionError" in done.stderr.splitlines()[-1]


def test_the_token_is_in_no_command_line_environment_or_log(victim):
    token = victim.token.encode()
    for pid in family(victim.process.pid):
        for name in ("cmdline", "environ"):
            try:
                assert token not in Path(f"/proc/{pid}/{name}").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
    files = [path for path in victim.folder.rglob("*") if path.is_file()]
    assert [path for path in files if token in path.read_bytes()] == [victim.folder / "token"]


def test_nothing_is_left_of_it_on_disk_after_an_end_or_a_kill(victim, request, monkeypatch):
    folder, process = victim.folder, victim.process
    if "simulation" in request.node.name:
        process.send_signal(signal.SIGINT)
        assert holds(lambda: process.poll() is not None)
    else:
        process.kill()
        process.wait()
        assert folder.exists()
        monkeypatch.setattr(tempfile, "tempdir", str(victim.place))
        with session_folder():
            pass
    assert not folder.exists()
    assert not list(victim.place.glob("*ray*"))
