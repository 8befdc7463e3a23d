"""Sites that are slow, vanish, come back, join, answer twice or send garbage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message

from clients.client_app import app as honest_app
from f2l_fed.admission import load_history
from f2l_fed.core.locks import locked
from f2l_fed.errors import UsageError
from f2l_fed.events import SITE_ACCEPTED
from f2l_fed.wire.messages import PROBE_ACTION, TASK_ACTION
from server.federation.folder import Federation
from server.rounds import ingest
from server.rounds.coordinator import Coordinator
from server.rounds.journal import Journal
from tests.support.inline import answering, conductor, nodes
from tests.support.loopback import LoopbackGrid
from tests.support.small_federation import ANY_RELEASE, events, prepared
from tests.support.waiting import PATIENCE_S


def over(federation: Federation, files: list[Path], grid: LoopbackGrid) -> Coordinator:
    return conductor(federation, files, grid=grid)


def codes(root: Path, number: int) -> dict[str, str]:
    return {line.site: line.code for line in Journal.of(root / "rounds", number).read()}


class WithholdingGrid(LoopbackGrid):
    """Keeps back what one node says to tasks, as long as it is asked to."""

    def __init__(self, files: list[Path], slow: int, while_: Callable[[], bool]) -> None:
        super().__init__(honest_app, nodes(files))
        self._slow, self._while = slow, while_

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        def ready(identifier: str) -> bool:
            message = self._waiting.get(identifier)
            return message is not None and not (
                message.metadata.dst_node_id == self._slow
                and message.metadata.message_type == TASK_ACTION
                and self._while()
            )

        return super().pull_messages([i for i in message_ids if ready(i)])


def test_answers_that_come_together_are_one_commit_before_any_of_them_is_told(tmp_path):
    federation, files = prepared(tmp_path / "out", "round.in_flight=4")
    commits: list[int] = []

    def listen(event: str, fields: dict[str, Any]) -> None:
        if event == SITE_ACCEPTED:
            stored = {record.site for record in federation.zoo.snapshot().records()}
            assert fields["site"] in stored
            commits.append(federation.zoo.snapshot().commit)

    (state,) = conductor(federation, files, listener=listen).run(1, len(files))
    assert len(state.accepted) == len(files)
    # Four sites have a task at first, and the other two come together.
    assert commits == [1] * 4 + [2] * 2
    assert len(list((federation.root / "zoo" / "shards").iterdir())) == 2


def test_much_that_comes_together_is_written_before_all_of_it_is_read(tmp_path, monkeypatch):
    federation, files = prepared(tmp_path / "out")
    monkeypatch.setattr(ingest, "_MOST_WAITING", 1)
    (state,) = over(federation, files, LoopbackGrid(honest_app, nodes(files))).run(1, len(files))
    assert len(state.accepted) == len(files)
    assert federation.zoo.snapshot().commit == len(files)


@pytest.mark.parametrize(
    "limit", ["round.timeout_s=0.5", "round.deadline_s=0.5", "round.enough=0.8"]
)
def test_a_round_ends_without_a_site_that_is_too_slow(tmp_path, limit):
    federation, files = prepared(tmp_path / "out", limit)
    finished = tmp_path / "out/releases/00001/release.json"
    grid = WithholdingGrid(files, slow=3, while_=lambda: not finished.exists())
    first = over(federation, files, grid).run(1, 6)
    assert first[0].rejected == {"site-002": "no answer has come in time (timeout)"}
    assert codes(tmp_path / "out", 1)["site-002"] == "silent"
    assert "site-002" not in federation.releases.read("00001").sites


def test_a_late_update_of_a_site_that_is_gone_is_in_the_next_release(tmp_path):
    federation, files = prepared(tmp_path / "out", "round.timeout_s=0.5")
    root = tmp_path / "out"
    finished = root / "releases/00001/release.json"

    class LastWords(WithholdingGrid):
        """The slow site answers the first task in the second round and is gone before its task."""

        def get_node_ids(self) -> Iterable[int]:
            return [n for n in super().get_node_ids() if n != 3 or not finished.exists()]

    grid = LastWords(files, slow=3, while_=lambda: not finished.exists())
    first, second = over(federation, files, grid).run(2, 6)
    assert (first.step, first.rejected) == (
        "done",
        {"site-002": "no answer has come in time (timeout)"},
    )
    assert (second.step, second.rejected, second.sites) == ("done", {}, 5)
    assert "site-002" not in federation.releases.read("00001").sites
    assert "site-002" in federation.releases.read("00002").sites
    (late,) = events(root, "site.late")
    assert (late["round"], late["site"], late["code"]) == (1, "site-002", "accepted")
    keys = [record.key for record in federation.zoo.snapshot().records(site="site-002")]
    assert keys == ["1/site-002/0", "1/site-002/1"]


def test_an_answer_to_a_first_round_that_comes_in_a_later_one_gets_a_second_look_too(tmp_path):
    federation, files = prepared(
        tmp_path / "out", "round.timeout_s=0.5", "probe.anchors=1", "admission.minimum=3"
    )
    finished = tmp_path / "out/releases/00001/release.json"
    grid = WithholdingGrid(files, slow=3, while_=lambda: not finished.exists())
    over(federation, files, grid).run(2, 6)
    (late,) = events(tmp_path / "out", "site.late")
    assert (late["round"], late["code"]) == (1, "accepted")
    memory = load_history(federation.screening)
    assert memory.statistics_on("first").sites
    assert not memory.unreviewed


class TwiceGrid(LoopbackGrid):
    """Delivers every reply twice at once, and once more at the next occasion."""

    def __init__(self, files: list[Path]) -> None:
        super().__init__(honest_app, nodes(files))
        self._again: list[Message] = []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(super().pull_messages(message_ids))
        again, self._again = self._again, replies
        return [*replies, *replies, *again]


def test_an_answer_that_comes_twice_counts_once(tmp_path):
    federation, files = prepared(tmp_path / "out")
    (state,) = over(federation, files, TwiceGrid(files)).run(1, 6)
    assert len(state.accepted) == 6
    assert len(events(tmp_path / "out", "site.accepted")) == 6
    assert set(Counter(r.key for r in federation.zoo.snapshot().records()).values()) == {1}


class HeldUpGrid(LoopbackGrid):
    """The first answer takes longer to come than any may; the others lie there meanwhile."""

    def __init__(self, files: list[Path]) -> None:
        super().__init__(honest_app, nodes(files))
        self._lying: list[Message] = []
        self.held_up = 0

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        came = [*self._lying, *super().pull_messages(message_ids)]
        tasks = [one for one in came if one.metadata.message_type == "train.task"]
        if not tasks or self.held_up:
            self._lying = []
            return came
        time.sleep(1.0)
        self.held_up = len(tasks) - 1
        self._lying = tasks[1:]
        return [one for one in came if one not in self._lying]


def test_answers_that_lie_there_while_a_slow_one_comes_are_not_too_late(tmp_path):
    federation, files = prepared(tmp_path / "out", "round.timeout_s=0.5")
    grid = HeldUpGrid(files)
    (state,) = over(federation, files, grid).run(1, 6)
    assert grid.held_up == 5
    assert (len(state.accepted), state.rejected) == (6, {})
    assert events(tmp_path / "out", "site.late") == []


class ChangingGrid(LoopbackGrid):
    """Some nodes are there only from a number of pulled task replies on, others only until then."""

    def __init__(
        self, configs: dict[int, dict[str, str]], *, later: set[int], gone: set[int], after: int
    ) -> None:
        super().__init__(honest_app, configs)
        self._later, self._gone, self._left = later, gone, after

    def get_node_ids(self) -> Iterable[int]:
        away = self._later if self._left > 0 else self._gone
        return [node for node in super().get_node_ids() if node not in away]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        waiting = [i for i in message_ids if i in self._waiting]
        there = set(self.get_node_ids())
        ready = [i for i in waiting if self._waiting[i].metadata.dst_node_id in there]
        kinds = [self._waiting[i].metadata.message_type for i in ready]
        self._left -= kinds.count(TASK_ACTION)
        return super().pull_messages(ready)


def test_a_site_that_joins_during_a_round_takes_part_in_it(tmp_path):
    federation, files = prepared(tmp_path / "out")
    grid = ChangingGrid(nodes(files), later={6}, gone=set(), after=3)
    (state,) = over(federation, files, grid).run(1, 5)
    assert (state.sites, len(state.accepted)) == (6, 6)


def test_a_site_that_is_restarted_during_a_round_is_asked_again_as_its_new_node(tmp_path):
    federation, files = prepared(tmp_path / "out", "round.timeout_s=0.5", "round.in_flight=2")
    # Node 6 vanishes with its task after four answers; its site comes back as node 7.
    configs = {**nodes(files), 7: {"site": str(files[5])}}
    grid = ChangingGrid(configs, later={7}, gone={6}, after=4)
    (state,) = over(federation, files, grid).run(1, 6)
    assert state.rejected == {}
    assert len(state.accepted) == 6


def test_with_half_of_the_sites_broken_the_round_ends_at_the_quorum(tmp_path):
    federation, files = prepared(tmp_path / "out", "round.timeout_s=0.5", "round.quorum=0.9")

    def task(message: Message, context: Context) -> Message:
        if context.node_id > 3:
            raise RuntimeError("private text")
        return honest_app(message, context)

    grid = LoopbackGrid(answering(task), nodes(files))
    (state,) = over(federation, files, grid).run(1, 6)
    assert state.step == "failed"
    assert state.reason.startswith("updates of 3 of 6 sites were accepted, 6 are the quorum; ")
    assert set(codes(tmp_path / "out", 1).values()) == {"accepted", "failed"}
    assert "private" not in json.dumps(dict(state.rejected))
    assert len({r.site for r in federation.zoo.snapshot().records()}) == 3


def test_a_bound_name_counts_and_not_what_the_update_says(tmp_path):
    federation, files = prepared(tmp_path / "out")

    def task(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        head = reply.content.config_records["update"]
        reply.content["update"] = ConfigRecord({**head, "site": "site-000"})
        return reply

    bound = {node: f"key-{node}" for node in nodes(files)}
    grid = LoopbackGrid(answering(task), nodes(files))
    (state,) = conductor(federation, files, grid=grid, names=lambda: bound).run(1, 6)
    assert state.accepted == tuple(f"key-{node}" for node in range(1, 7))


def test_a_node_without_a_bound_name_is_not_asked_until_it_has_one(tmp_path):
    federation, files = prepared(tmp_path / "out")
    bound = {node: f"key-{node}" for node in list(nodes(files))[:-1]}
    grid = LoopbackGrid(honest_app, nodes(files))
    base = conductor(federation, files, grid=grid, names=lambda: bound)
    (without,) = base.run(1, 6)
    bound[6] = "key-6"
    (all_of_them,) = base.run(1, 6)
    assert without.accepted == tuple(f"key-{node}" for node in range(1, 6))
    assert all_of_them.accepted == tuple(f"key-{node}" for node in range(1, 7))
    record = federation.root / "sites" / files[-1].parent.name / "state/sent.jsonl"
    assert {json.loads(line)["round"] for line in record.read_text().splitlines()} == {0, 2}


def test_a_site_that_breaks_in_its_task_is_asked_once_more(tmp_path):
    federation, files = prepared(tmp_path / "out")
    asked: Counter[str] = Counter()

    def task(message: Message, context: Context) -> Message:
        site = Path(str(context.node_config["site"])).parent.name
        asked[site] += 1
        if site == "site-001" or (site == "site-002" and asked[site] == 1):
            raise RuntimeError("killed")
        return honest_app(message, context)

    (state,) = over(federation, files, LoopbackGrid(answering(task), nodes(files))).run(1, 6)
    names = {file.parent.name for file in files}
    assert asked == {**dict.fromkeys(names, 1), "site-001": 2, "site-002": 2}
    assert set(state.accepted) == names - {"site-001"}
    assert set(state.rejected) == {"site-001"}


def test_two_processes_do_not_conduct_one_federation(tmp_path):
    federation, files = prepared(tmp_path / "out")
    with locked(tmp_path / "out/rounds/lock"), pytest.raises(UsageError, match="another process"):
        conductor(federation, files).run(1, 6)


def test_contexts_are_asked_for_once_and_then_come_with_the_updates(tmp_path):
    federation, files = prepared(tmp_path / "out")
    asked: Counter[str] = Counter()

    class CountingGrid(LoopbackGrid):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            messages = list(messages)
            asked.update(message.metadata.message_type for message in messages)
            return super().push_messages(messages)

    over(federation, files, CountingGrid(honest_app, nodes(files))).run(3, 6)
    assert asked == {PROBE_ACTION: 6, TASK_ACTION: 18}


def test_a_retraining_takes_no_more_sites_than_it_may(tmp_path):
    federation, files = prepared(tmp_path / "out", "round.most=5")
    (state,) = conductor(federation, files).run(1, 6)
    assert len(state.accepted) == 6
    assert len(federation.releases.read("00001").sites) == 5


def test_what_a_job_runs_makes_the_same_release(tmp_path):
    federation, files = prepared(tmp_path / "out")
    conductor(federation, files).run(1, 6)
    file = federation.releases.path / "00001/generator.safetensors"
    made = file.read_bytes()
    # As it was before the retraining.
    shutil.rmtree(federation.releases.path)
    commit = str(federation.zoo.snapshot().commit)
    done = subprocess.run(
        [sys.executable, "-m", "server.cluster.jobs", str(federation.root), "00001", commit],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    assert file.read_bytes() == made
    assert federation.releases.read("00001").state == "candidate"


def test_a_silent_node_is_waited_for_once_in_a_round(tmp_path):
    federation, files = prepared(tmp_path / "out", "round.timeout_s=0.5")
    grid = LoopbackGrid(honest_app, nodes(files), silent={2})
    first, second = over(federation, files, grid).run(2, 6)
    # It counts among those that were asked.
    assert (first.sites, len(first.accepted), second.sites) == (6, 5, 6)
    failed = events(tmp_path / "out", "site.failed")
    assert [(line["node"], line["code"]) for line in failed] == [("2", "silent")] * 2


def test_an_exchange_that_ends_early_hears_other_sites_in_the_next_round(tmp_path):
    federation, files = prepared(
        tmp_path / "out",
        *ANY_RELEASE,
        *("round.in_flight=1", "round.enough=0.34", "round.quorum=0.3"),
        sites=12,
    )
    states = over(federation, files, LoopbackGrid(honest_app, nodes(files))).run(2, len(files))
    assert [state.step for state in states] == ["done"] * 2
    heard = [set(state.accepted) for state in states]
    assert [len(sites) for sites in heard] == [5, 5]
    assert heard[0] != heard[1]
    names = sorted(path.parent.name for path in files)
    assert names[:5] not in (sorted(heard[0]), sorted(heard[1]))
