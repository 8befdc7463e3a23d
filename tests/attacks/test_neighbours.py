"""Other accounts of the machine at the interfaces between Flower's processes, with real ones."""

from __future__ import annotations

import signal
import textwrap
from pathlib import Path

import pytest

from clients.site.sent_log import SentLog
from server.processes import strays
from tests.attacks.peers.listeners import listening
from tests.attacks.peers.other_account import as_nobody, needs_root, public_folder
from tests.attacks.peers.task_thief import stealing
from tests.integration.test_site_daemon import PYPROJECT, SENT_SERVER, daemon, living, running
from tests.support.central import Central, prepare
from tests.support.central import running as central_running
from tests.support.deployment import deployment
from tests.support.sites import digits_site
from tests.support.waiting import holds

pytestmark = [needs_root, pytest.mark.deployment, pytest.mark.slow]

ATTACK_S = 8.0


def test_another_account_of_a_site_neither_takes_its_task_nor_answers_for_it(tmp_path):
    (app := tmp_path / "app").mkdir()
    (app / "pyproject.toml").write_text(textwrap.dedent(PYPROJECT))
    (app / "sent_client.py").write_text("from flwr.clientapp import ClientApp\napp = ClientApp()\n")
    (app / "sent_server.py").write_text(textwrap.dedent(SENT_SERVER))
    with (
        deployment(tmp_path / "flower", sites=[], app_dir=app, env={}) as link,
        public_folder() as folder,
    ):
        server = f'[server]\naddress = "127.0.0.1:{link.ports[0]}"\ninsecure = true\n'
        site = digits_site(folder / "site", more=server)
        with daemon(site) as process:
            assert holds(lambda: any("superexec" in words for words in living(site).values()))
            ports = listening([running(site), *living(site)])
            places = [f"http://127.0.0.1:{port}" for port in ports]
            socket = site.parent / "state/flower/runtime"
            with stealing(*places, str(socket), seconds=ATTACK_S) as theft:
                result = link.run({})
                taken = theft.result()
            assert "TAKEN" not in taken.stdout, taken.stdout
            assert "PermissionError" in taken.stdout or "Permission denied" in taken.stdout, taken
            assert ports == []
            # The site has answered itself, and recorded it.
            assert "'code': 'message-not-understood'" in result.log_text, result.log_text
            (entry,) = SentLog.in_folder(site.parent / "state").entries()
            assert entry["fields"]["code"] == "message-not-understood"
            process.send_signal(signal.SIGTERM)


def app_of(central: Central) -> list[int]:
    """The processes that conduct a round."""
    return [
        pid
        for pid in strays(central.mark)
        if b"serverapp" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern")
def test_another_account_of_the_centre_does_not_take_the_task_of_a_run(tmp_path):
    gateway, control = prepare(tmp_path / "central")
    with central_running(tmp_path / "central", gateway, control) as central:
        link = central.superlink
        place = f"https://127.0.0.1:{link.port}"
        with stealing(place, seconds=ATTACK_S) as theft:
            run = link.start({"workdir": str(central.root), "rounds": 1, "sites": 1})
            taken = theft.result()
        assert "TAKEN" not in taken.stdout, taken.stdout
        assert f"'{place}': '401'" in taken.stdout, taken
        # The run goes on, in the process that is meant for it.
        assert holds(lambda: bool(app_of(central)))
        assert holds(lambda: link.run(run).status == "running")


ASK = """
import sys, httpx
for path in sys.argv[2:]:
    print(httpx.get(sys.argv[1] + path, verify=False).status_code)
"""
PATHS = ("/v1/fleet/pull-messages", "/v1/runtime/pull-object", "/v1/control/list-runs", "/docs")


def test_another_account_of_the_centre_does_not_pass_the_gateway_by(tmp_path):
    gateway, control = prepare(tmp_path / "central")
    with central_running(tmp_path / "central", gateway, control) as central:
        link = central.superlink.port
        asked = as_nobody(ASK, f"https://127.0.0.1:{link}", *PATHS)
        assert asked.stdout.split() == ["401"] * len(PATHS), asked
        # No other port is open, but that of the dashboard: enrolment has none.
        everything = listening([central.process.pid, *strays(central.mark)])
        others = set(everything) - {gateway, control, link}
        (dashboard,) = others
        shown = as_nobody(ASK, f"http://127.0.0.1:{dashboard}", "/metrics")
        assert shown.stdout.split() == ["200"], shown
        closed = [central.root / "flower", central.root / "flower/enrolment"]
        assert [path.stat().st_mode & 0o077 for path in closed] == [0, 0]
