"""Clusters and job servers are used with their token, and refused where they ask for none."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from ray._private import services

from f2l_fed.config import RayConfig
from f2l_fed.errors import ConfigError
from server.cluster.authentication import answer_of, cluster_token
from server.cluster.connection import connect
from server.cluster.jobs import retrain_as_job
from server.federation.folder import Federation
from server.rounds.state import Interrupted
from server.supervision.supervisor import central
from tests.support.deployment import free_ports
from tests.support.small_federation import small_federation
from tests.support.waiting import holds

NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture(autouse=True)
def nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@contextmanager
def head(folder: Path, **environment: str) -> Iterator[str]:
    """Ray's GCS alone, and its address: what a driver and a node speak to first."""
    (port,) = free_ports(1)
    folder.mkdir()
    log = folder / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [
                services.GCS_SERVER_EXECUTABLE,
                f"--log_dir={folder}",
                f"--config_list={base64.b64encode(b'{}').decode()}",
                f"--gcs_server_port={port}",
                "--metrics-agent-port=-1",
                "--node-ip-address=127.0.0.1",
                "--session-name=session",
                f"--session-dir={folder}",
                f"--node-id={'0' * 56}",
            ],
            env={**os.environ, **environment},
            stdout=said,
            stderr=said,
        )
    address = f"127.0.0.1:{port}"
    try:
        answers = ("given", "refused")
        came = holds(lambda: answer_of(address) in answers or process.poll() is not None)
        assert came, log.read_text()
        assert process.poll() is None, log.read_text()
        yield address
    finally:
        process.kill()
        process.wait()


def test_a_cluster_is_joined_only_if_it_asks_for_the_token_and_takes_it(tmp_path):
    token = tmp_path / "token"
    token.write_text("a-token\n")
    protected = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    with head(tmp_path / "open") as address:
        config = RayConfig(address=address, token_file=str(token))
        with pytest.raises(ConfigError, match="takes commands from anyone") as refused:
            connect(config)
        assert "RAY_AUTH_MODE=token" in refused.value.remedy
    with head(tmp_path / "protected", **protected) as address:
        assert answer_of(address) == "refused"
        assert answer_of(address, "a-token") == "given"
        wrong = tmp_path / "wrong"
        wrong.write_text("another-token")
        with pytest.raises(ConfigError, match="the Ray cluster refuses the token"):
            connect(RayConfig(address=address, token_file=str(wrong)))
        with pytest.raises(ConfigError, match=r"ray\.token_file: the token .* can't be read"):
            connect(RayConfig(address=address))
    assert not set(NAMES) & os.environ.keys()


def test_a_round_with_jobs_does_not_start_without_their_token():
    with pytest.raises(ConfigError, match=r"ray\.token_file: the token"):
        connect(RayConfig(jobs="http://127.0.0.1:8265"))


def test_a_server_does_not_start_without_it(tmp_path):
    federation, _ = small_federation(tmp_path / "out", settings=("ray.jobs=http://127.0.0.1:8265",))

    async def start() -> None:
        async with central(federation.root):
            return

    with pytest.raises(ConfigError, match=r"ray\.token_file: the token"):
        asyncio.run(start())


def test_the_token_is_taken_from_the_settings_the_environment_or_rays_own_file(
    tmp_path, monkeypatch
):
    own = Path.home() / ".ray" / "auth_token"
    own.parent.mkdir(parents=True)
    own.write_text("of the user")
    assert cluster_token(RayConfig()) == "of the user"
    (tmp_path / "named").write_text("of the environment's file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
    assert cluster_token(RayConfig()) == "of the environment's file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the environment")
    assert cluster_token(RayConfig()) == "of the environment"
    (tmp_path / "set").write_text("of the settings")
    assert cluster_token(RayConfig(token_file=str(tmp_path / "set"))) == "of the settings"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"", "nothing in"), (b"\xff\xfe", "not a text")],
    ids=["missing", "empty", "bytes"],
)
def test_a_token_that_can_not_be_read_is_told_with_its_file(tmp_path, content, said):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as error:
        cluster_token(RayConfig(token_file=str(path)))
    assert str(path) in error.value.got


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b'{"authentication_mode": "disabled"}'), (404, b""), (200, b"<html>")],
    ids=["open", "older", "another"],
)
def test_an_open_job_server_gets_no_job(tmp_path, status, body):
    asked = []

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    federation: Federation = small_federation(tmp_path / "out")[0]
    (tmp_path / "token").write_text("a-token")
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        config = RayConfig(
            jobs=f"http://127.0.0.1:{server.server_port}", token_file=str(tmp_path / "token")
        )
        try:
            with pytest.raises(Interrupted, match="takes jobs from anyone"):
                retrain_as_job(config, federation.root, "00001", 1)
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/api/authentication_mode"]
