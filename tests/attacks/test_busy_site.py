"""Tasks on a machine where imports take longer than Flower waits for a task's first heartbeat."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from clients.site.sent_log import SentLog
from tests.attacks.peers.busy_machine import BusyMachine, slowed
from tests.integration.test_site_daemon import PYPROJECT, SENT_SERVER, daemon, running
from tests.support.central import prepare
from tests.support.central import running as central_running
from tests.support.deployment import RunResult, deployment
from tests.support.sites import digits_site
from tests.support.waiting import holds

pytestmark = [pytest.mark.deployment, pytest.mark.slow]

LONG_S = 35.0
"""Flower ends the token of a task that has sent no heartbeat after 30 s."""


@contextmanager
def asked(folder: Path, busy: BusyMachine) -> Iterator[tuple[Path, Future[RunResult]]]:
    """A site on a busy machine that has been asked something; yields its file and the run."""
    (app := folder / "app").mkdir()
    (app / "pyproject.toml").write_text(textwrap.dedent(PYPROJECT))
    (app / "sent_client.py").write_text("from flwr.clientapp import ClientApp\napp = ClientApp()\n")
    (app / "sent_server.py").write_text(textwrap.dedent(SENT_SERVER))
    with (
        ThreadPoolExecutor(max_workers=1) as pool,
        deployment(folder / "flower", sites=[], app_dir=app, env={}) as link,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PYTHONPATH", busy.environment["PYTHONPATH"])
        server = f'[server]\naddress = "127.0.0.1:{link.ports[0]}"\ninsecure = true\n'
        site = digits_site(folder / "site", more=server)
        with daemon(site) as process:
            assert holds(lambda: running(site) > 0)
            yield site, pool.submit(link.run, {})
            process.send_signal(signal.SIGTERM)
            process.wait()


def recorded(site: Path) -> list[str]:
    entries = SentLog.in_folder(site.parent / "state").entries()
    return [entry["fields"]["code"] for entry in entries]


@contextmanager
def starting(folder: Path, busy: BusyMachine) -> Iterator[Callable[[], str]]:
    """A run of a centre on a busy machine; yields what tells its status."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", busy.environment["PYTHONPATH"])
            central = stack.enter_context(central_running(folder, *prepare(folder)))
            link = central.superlink
            run = link.start({"workdir": str(central.root), "rounds": 1, "sites": 1})
        yield lambda: link.run(run).status


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern")
def test_a_slow_site_answers_once_and_a_slow_centre_conducts_a_run_each_with_one_process(tmp_path):
    busy = slowed(tmp_path, seconds=LONG_S, words=("clients.daemon.clientapp_main",))
    centre = slowed(tmp_path / "of_centre", seconds=LONG_S, words=("serverapp",))
    # Both wait at the same time.
    with starting(tmp_path / "central", centre) as status, asked(tmp_path, busy) as (site, run):
        assert holds(lambda: run.done() or len(busy.starts()) > 1)
        assert len(busy.starts()) == 1
        assert run.result().log_text.count("REPLY") == 1
        assert "'code': 'message-not-understood'" in run.result().log_text
        assert recorded(site) == ["message-not-understood"]
        assert holds(lambda: status() == "running" or len(centre.starts()) > 1)
        assert len(centre.starts()) == 1


def test_a_task_whose_process_is_killed_before_it_begins_fails_and_the_record_says_so(tmp_path):
    busy = slowed(tmp_path, seconds=3600, words=("clients.daemon.clientapp_main",))
    with asked(tmp_path, busy) as (site, run):
        assert holds(lambda: len(busy.starts()) == 1)
        os.kill(busy.starts()[0], signal.SIGKILL)
        assert holds(lambda: run.done() or len(busy.starts()) > 1)
        assert len(busy.starts()) == 1
        assert run.result().log_text.count("REPLY") == 1
        assert recorded(site) == ["task-ended"]
        assert "its process ended (signal 9)" in (site.parent / "state/daemon.log").read_text()
