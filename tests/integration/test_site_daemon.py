"""The site's daemon with real SuperNodes: without a server, and in a federation on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.daemon.status import Status, read_status
from tests.support.deployment import deployment
from tests.support.sites import digits_site
from tests.support.waiting import PATIENCE_S, holds

pytestmark = [pytest.mark.deployment, pytest.mark.slow]

PYPROJECT = """
    [project]
    name = "sent-app"
    version = "1.0.0"
    license = "Apache-2.0"
    dependencies = []

    [tool.flwr.app]
    publisher = "test"

    [tool.flwr.app.components]
    serverapp = "sent_server:app"
    clientapp = "sent_client:app"

    [tool.flwr.app.config]
    message = ""
"""

SENT_CLIENT = """
    import pathlib
    from flwr.clientapp import ClientApp

    pathlib.Path("{ran}").touch()
    app = ClientApp()
"""

SENT_SERVER = """
    import time
    from flwr.app import ConfigRecord, Message, RecordDict
    from flwr.serverapp import ServerApp

    app = ServerApp()

    @app.main()
    def main(grid, context):
        while not (nodes := list(grid.get_node_ids())):
            time.sleep(0.2)
        content = RecordDict({"task": ConfigRecord({"nothing": "of use"})})
        messages = [Message(content, node, "train.task") for node in nodes]
        for reply in grid.send_and_receive(messages, timeout=300):
            print("REPLY", dict(reply.content["refusal"]) if reply.has_content() else reply.error)
"""


def standing(site: Path) -> Status:
    status = read_status(site.parent / "state")
    assert status is not None, "the daemon has not begun"
    return status


def running(site: Path) -> int:
    """Process id of the SuperNode, 0 while there is none."""
    status = read_status(site.parent / "state")
    return status.supernode if status and status.state == "running" else 0


def living(site: Path) -> dict[int, str]:
    """All processes of a site's SuperNode, by the folder that only they are given."""
    mark = f"FLWR_HOME={site.parent / 'state/flower'}".encode()
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().decode()
        except OSError:
            continue
    return found


def starter(site: Path) -> int:
    """Process id of what starts the tasks; 0 while there is none."""
    return next((pid for pid, words in living(site).items() if "superexec_main" in words), 0)


@contextmanager
def daemon(site: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "clients.cli", "run", str(site)]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            for pid in living(site):
                os.kill(pid, signal.SIGKILL)


def test_a_daemon_restarts_its_supernode_until_it_is_stopped(tmp_path):
    # Flower gives up at once: the root certificates are no file.
    more = '[server]\naddress = "127.0.0.1:1"\nroot_certificates = "absent.crt"\n'
    site = digits_site(tmp_path, more=more)
    with daemon(site) as first:
        assert holds(lambda: running(site) > 0 and standing(site).restarts > 0)
        assert standing(site).last_end.startswith("exit code 1, after saying: ")
        command = [sys.executable, "-m", "clients.cli", "run", str(site)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
        assert second.returncode == 2
        assert "a daemon runs for this site already" in second.stderr
        first.send_signal(signal.SIGTERM)
        assert first.wait(PATIENCE_S) == 0
    status = standing(site)
    assert (status.state, status.supernode, status.daemon) == ("stopped", 0, first.pid)
    assert "root-certificates" in (tmp_path / "state/daemon.log").read_text()
    assert living(site) == {}


def test_a_killed_daemon_stands_as_stopped_and_the_next_one_clears_up(tmp_path):
    site = digits_site(tmp_path, more='[server]\naddress = "127.0.0.1:1"\ninsecure = true\n')
    with daemon(site) as first:
        assert holds(lambda: running(site) > 0)
        orphan = running(site)
        first.kill()
        first.wait()
        assert standing(site).state == "stopped"
        assert f"SuperNode {orphan} may still run" in standing(site).last_end
        with daemon(site) as second:
            assert holds(lambda: running(site) not in (0, orphan))
            assert orphan not in living(site)
            second.send_signal(signal.SIGINT)
            assert second.wait(PATIENCE_S) == 0
        assert living(site) == {}


def test_a_site_answers_with_its_own_code_survives_a_kill_and_ends_as_a_whole(tmp_path):
    app_dir, ran = tmp_path / "app", tmp_path / "ran"
    app_dir.mkdir()
    (app_dir / "pyproject.toml").write_text(textwrap.dedent(PYPROJECT))
    (app_dir / "sent_client.py").write_text(textwrap.dedent(SENT_CLIENT).format(ran=ran))
    (app_dir / "sent_server.py").write_text(textwrap.dedent(SENT_SERVER))
    with deployment(tmp_path / "flower", sites=[], app_dir=app_dir, env={}) as link:
        more = f'[server]\naddress = "127.0.0.1:{link.ports[0]}"\ninsecure = true\n'
        site = digits_site(tmp_path / "site", more=more)
        with daemon(site) as process:
            assert holds(lambda: running(site) > 0)
            first = running(site)
            os.kill(first, signal.SIGKILL)
            assert holds(lambda: running(site) not in (0, first))
            assert standing(site).restarts == 1
            assert standing(site).last_end.startswith("signal 9")
            # Without the process that starts its tasks, a SuperNode is of no use.
            second = running(site)
            assert holds(lambda: starter(site) > 0)
            os.kill(starter(site), signal.SIGKILL)
            assert holds(lambda: running(site) not in (0, second))
            assert standing(site).restarts == 2
            result = link.run({})
            assert "'code': 'message-not-understood'" in result.log_text, result.log_text
            assert "'site': 'north'" in result.log_text
            assert not ran.exists(), "the code that the server sent was run"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        assert living(site) == {}
    assert (link.open_ports(), link.stray_processes()) == ([], {})
    assert standing(site).state == "stopped"
