"""The dashboard shows a federation folder as it is, and changes nothing."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from f2l_fed import events
from f2l_fed.admission.verdict import REASONS
from f2l_fed.errors import UsageError
from f2l_fed.events import EventLog
from f2l_fed.wire.refusals import CATALOGUE
from server.dashboard import create_app, serve_dashboard
from server.dashboard.state import read_view
from server.rounds.journal import Journal, JournalEntry
from tests.support.waiting import PATIENCE_S


def write_round(workdir, number, step="done", **more):
    state = {
        "number": number,
        "step": step,
        "sites": 3,
        "accepted": ["site-0", "site-1"],
        "rejected": {"site-2": "norm too large"},
        "release": f"{number:05d}",
        "reason": "",
    }
    path = workdir / "rounds" / f"{number:05d}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(state | more))


def write_release(workdir, id, state, **more):
    release = {
        "id": id,
        "state": state,
        "parent": "",
        "snapshot": 7,
        "figures": {"dispersion": 0.97},
        "reasons": [],
    }
    path = workdir / "releases" / id / "release.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(release | more))


@pytest.fixture
def workdir(tmp_path):
    write_round(tmp_path, 1)
    write_round(tmp_path, 2, "retrain")
    write_release(tmp_path, "00001", "promoted")
    log = EventLog(path=tmp_path / "events.jsonl", clock=lambda: 0.0)
    log.emit("round.started", round=1, sites=3)
    log.emit("site.rejected", round=1, site="site-2", reason="norm too large")
    return tmp_path


@contextmanager
def served(workdir):
    """The address of a dashboard that really listens."""
    config = uvicorn.Config(create_app(workdir), log_level="error", ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


def ask(address, method="GET"):
    request = urllib.request.Request(address, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


def shown(workdir):
    with served(workdir) as address:
        status, _, page = ask(f"{address}/")
    assert status == 200
    return page


def scraped(workdir):
    with served(workdir) as address:
        _, _, text = ask(f"{address}/metrics")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_page_shows_rounds_releases_and_events(workdir):
    page = shown(workdir)
    assert "Round 2 is at step retrain." in page
    assert "norm too large: site-2" in page
    assert ">promoted</span>" in page
    assert "1970-01-01 00:00:00 UTC" in page
    assert page.index("site.rejected</span>") < page.index("round.started")


def test_the_page_refreshes_itself_without_a_script(workdir):
    page = shown(workdir)
    assert '<meta http-equiv="refresh" content="5">' in page
    assert "<script" not in page


def test_an_empty_folder_is_a_page(tmp_path):
    assert "No round has started yet." in shown(tmp_path)


def test_a_failed_round_says_why(workdir):
    write_round(workdir, 3, "failed", reason="updates of 1 of 3 sites were accepted")
    assert re.search(r"Round 3 failed\.</h1>\s*<p[^>]*>updates of 1 of 3 sites", shown(workdir))


def test_text_from_the_folder_is_escaped(workdir):
    evil = "<script>alert(1)</script>"
    write_round(workdir, 3, evil, reason=evil, rejected={evil: evil})
    write_release(workdir, "00003", evil, figures={evil: 1}, reasons=[evil])
    with (workdir / "events.jsonl").open("a") as file:
        file.write(json.dumps({"event": evil, "time": evil, evil: evil}) + "\n")
    assert "<script" not in shown(workdir)


def test_a_line_that_is_being_written_is_not_shown_yet(workdir):
    with (workdir / "events.jsonl").open("a") as file:
        file.write('{"event": "round.fini')
    view = read_view(workdir)
    assert [event["event"] for event in view.events] == ["site.rejected", "round.started"]
    assert view.unreadable == ()


def test_an_event_of_an_earlier_version_has_its_present_name(workdir):
    with (workdir / "events.jsonl").open("a") as file:
        file.write('{"event": "release.held", "time": 0, "release": "00001"}\n')
    assert read_view(workdir).events[0]["event"] == "release.rejected"
    assert '<span class="chip warn">release.rejected</span>' in shown(workdir)


def test_quarantined_sites_are_shown_with_the_rejected_ones(workdir):
    write_round(workdir, 3, quarantined={"site-7": "a copy"})
    assert len(read_view(workdir).rounds[0]["rejected"]) == 2
    assert "in quarantine: a copy: site-7" in shown(workdir)


def test_each_site_is_shown_with_what_its_operator_can_do(workdir):
    (workdir / "registry").mkdir()
    for name, state in {"site-0": "active", "site-9": "invited", "gone": "removed"}.items():
        (workdir / f"registry/{name}.json").write_text(json.dumps({"state": state}))
    (workdir / "registry/odd.json").write_text("{")
    for number, entries in {
        1: [("site-0", "unable", "data-unusable"), ("site-2", "accepted", "")],
        2: [
            ("site-0", "accepted", ""),
            ("site-1", "unable", "scales-not-agreed"),
            ("site-2", "admission", "not-finite"),
            ("<b>", "silent", ""),
        ],
    }.items():
        for site, code, finding in entries:
            entry = JournalEntry(site=site, code=code, finding=finding, reason="as told")
            Journal.of(workdir / "rounds", number).append(entry)
    view = read_view(workdir)
    assert [site.name for site in view.sites] == ["<b>", "site-1", "site-2", "site-0", "site-9"]
    silent, refused, rejected, accepted, invited = view.sites
    assert (silent.end, silent.remedy) == ("no answer", CATALOGUE["silent"].remedy)
    assert (refused.end, refused.round, refused.accepted) == ("refused", 2, 2)
    assert refused.remedy == CATALOGUE["scales-not-agreed"].remedy
    assert rejected.reason == f"{CATALOGUE['admission'].text}: {REASONS['not-finite']}"
    assert (accepted.end, accepted.reason, accepted.remedy) == ("accepted", "", "")
    assert (invited.state, invited.end) == ("invited", "")
    assert view.unreadable == ("registry/odd.json",)
    page = shown(workdir)
    assert "run f2l-site data scales" in page
    assert "has not registered yet" in page
    assert "<b>" not in page.partition("<h2>Sites</h2>")[2].partition("<h2>Releases</h2>")[0]
    assert "gone" not in page


def test_damaged_files_are_named_and_the_rest_is_shown(workdir):
    (workdir / "rounds" / "00002.json").write_text("{")
    (workdir / "releases" / "00001" / "release.json").write_text("[]")
    with (workdir / "events.jsonl").open("a") as file:
        file.write("not json\n")
    view = read_view(workdir)
    assert [state["number"] for state in view.rounds] == [1]
    assert view.unreadable == (
        "rounds/00002.json",
        "releases/00001/release.json",
        "events.jsonl (1 of its last lines)",
    )
    assert "rounds/00002.json" in shown(workdir)


def test_only_the_end_of_a_long_log_is_read(workdir):
    log = EventLog(path=workdir / "events.jsonl", clock=lambda: 1.0)
    for number in range(3000):
        log.emit("site.accepted", round=1, site=f"site-{number}", chosen="generated")
    view = read_view(workdir, last_events=5)
    assert [event["site"] for event in view.events] == [f"site-{n}" for n in range(2999, 2994, -1)]
    assert view.unreadable == ()


def test_metrics_count_rounds_updates_and_the_promoted_release(workdir):
    write_release(workdir, "00002", "candidate", figures={"dispersion": 0.1})
    metrics = scraped(workdir)
    assert metrics["f2l_rounds", "done"] == metrics["f2l_rounds", "retrain"] == 1
    assert metrics["f2l_updates_accepted",] == 4
    assert metrics["f2l_updates_rejected",] == 2
    figures = {k: v for k, v in metrics.items() if k[0] == "f2l_release_figure"}
    assert figures == {("f2l_release_figure", "dispersion", "00001"): 0.97}


def test_metrics_follow_the_folder(workdir):
    with served(workdir) as address:
        before = ask(f"{address}/metrics")[2]
        write_round(workdir, 3)
        after = ask(f"{address}/metrics")[2]
    assert "f2l_updates_accepted 4.0" in before
    assert "f2l_updates_accepted 6.0" in after


def test_health_follows_the_folder(tmp_path):
    folder = tmp_path / "federation"
    with served(folder) as address:
        assert ask(f"{address}/health")[0] == 503
        folder.mkdir()
        status, _, text = ask(f"{address}/health")
    assert (status, json.loads(text)) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/", "/metrics", "/health", "/missing"])
def test_every_answer_carries_the_security_headers(workdir, path):
    with served(workdir) as address:
        _, headers, _ = ask(address + path)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "script-src" not in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_written(workdir, method):
    with served(workdir) as address:
        codes = {ask(address + path, method)[0] for path in ("/", "/metrics", "/health")}
    assert codes == {405}


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/rounds/00001.json", "/../rounds"])
def test_there_is_nothing_else_to_see(workdir, path):
    with served(workdir) as address:
        assert ask(address + path)[0] == 404


def test_a_dashboard_of_no_folder_is_refused(tmp_path):
    with pytest.raises(UsageError, match="the folder is missing"):
        asyncio.run(answer_of(tmp_path / "missing"))


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match="port is not available") as caught:
            asyncio.run(answer_of(tmp_path, port))
    assert caught.value.where == f"127.0.0.1:{port}"


def test_the_dashboard_serves_until_the_block_ends(workdir):
    status, port = asyncio.run(answer_of(workdir))
    assert status == 200
    with pytest.raises(urllib.error.URLError):
        ask(f"http://127.0.0.1:{port}/health")


async def answer_of(folder: Path, port: int = 0) -> tuple[int, int]:
    async with serve_dashboard(folder, port) as bound:
        answer = await asyncio.to_thread(ask, f"http://127.0.0.1:{bound}/health")
        return answer[0], bound


def test_quarantined_sites_and_rejected_releases_look_alike_in_files_of_all_versions(tmp_path):
    reason = "norm too large"
    write_round(tmp_path, 1, rejected={"site-2": f"in quarantine: {reason}"})
    write_round(tmp_path, 2, rejected={}, quarantined={"site-2": reason})
    log = EventLog(path=tmp_path / "events.jsonl", clock=lambda: 0.0)
    log.emit("release.held", release="00001", reasons=[reason])
    log.emit(events.RELEASE_REJECTED, release="00002", reasons=[reason])
    view = read_view(tmp_path)
    assert view.rounds[0]["rejected"] == view.rounds[1]["rejected"]
    assert {event["event"] for event in view.events} == {"release.rejected"}
