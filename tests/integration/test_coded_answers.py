"""Rounds whose answers are coded: what is kept is what was read, whenever an answer comes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.client_app import app as site_of_today
from clients.site.site import open_site
from f2l_fed.wire.messages import TASK_ACTION, Update
from f2l_fed.wire.packing import unpack_update
from server.federation.body_updates import BodyUpdates
from server.federation.folder import Federation
from tests.support.inline import CodingSites, conductor, nodes
from tests.support.loopback import LoopbackGrid
from tests.support.small_federation import FEW, events, small_federation

BODY = ("target.adapt=head", "episodes.first=6", "episodes.steps=4", "head.pairs=3")
SHARED = ("target.adapt=head", "split.dirichlet_alpha=0.3", "shared.early_rounds=2")
KINDS = {"a body": (BODY, "few-shot"), "a shared network": (SHARED, "dirichlet")}
SITES, OLDER = 5, 2


class Sites:
    """Sites of which one, of an older version, knows no coding; their answers by round and node."""

    def __init__(self, root: Path, kind: str, *more: str) -> None:
        settings, scenario = KINDS[kind]
        self.federation, _ = small_federation(
            root, sites=SITES, settings=(*FEW, *settings, *more), scenario=scenario
        )
        self.files = sorted((root / "sites").glob("*/site.toml"))
        self.answers: dict[tuple[int, int], RecordDict] = {}
        self.bytes_up = 0
        self.app = ClientApp()
        self.app.query("probe")(site_of_today)
        self.app.train("task")(self.answer)

    def answer(self, message: Message, context: Context) -> Message:
        frame = message.content["frame"]
        assert frame["coding"] == 1
        if context.node_id == OLDER:
            del frame["coding"]
        reply = site_of_today(message, context)
        self.answers[frame["round"], context.node_id] = reply.content
        return reply

    def run(self, rounds: int, *, grid: LoopbackGrid | None = None, **options: Any) -> Any:
        return conductor(
            Federation.open(self.federation.root),
            self.files,
            grid=grid or LoopbackGrid(self.app, nodes(self.files)),
            protocols=CodingSites(),
            **options,
        ).run(rounds, SITES)

    def name(self, node: int) -> str:
        return self.files[node - 1].parent.name

    def anchor(self, number: int) -> torch.Tensor:
        """What the tasks of a round were sent with."""
        before = f"{number - 1:05d}"
        releases = self.federation.releases
        return self.federation.next_anchor(releases.read(before) if number > 1 else None)

    def read(self, number: int, node: int) -> Update:
        """An answer, with what was sent in its round."""
        return unpack_update(
            self.answers[number, node],
            self.federation.target.layout,
            body=self.federation.body_layout,
            known=self.anchor(number),
        )

    def kept(self, number: int, node: int) -> torch.Tensor:
        """The networks that the zoo has of an answer; a shared one is in all of its records."""
        snapshot = self.federation.zoo.snapshot()
        records = snapshot.records(round=number, site=self.name(node))
        return torch.from_numpy(snapshot.weights(records))


@pytest.fixture(scope="module", params=KINDS)
def conducted(tmp_path_factory, request):
    sites = Sites(tmp_path_factory.mktemp("coded") / "out", request.param)
    states = sites.run(2)
    assert [state.step for state in states] == ["done", "done"]
    assert all(len(state.accepted) == SITES for state in states), states
    sites.bytes_up = states[-1].bytes_up
    return sites


def kinds_of_arrays(content: RecordDict) -> set[str]:
    return {array.dtype for array in content["arrays"].values()}


def test_a_site_that_knows_no_coding_takes_part_without(conducted):
    for (_, node), content in conducted.answers.items():
        assert kinds_of_arrays(content) == ({"float32"} if node == OLDER else {"uint8"})
    for number in (1, 2):
        plain = conducted.answers[number, OLDER]["arrays"].count_bytes()
        coded = conducted.answers[number, 1]["arrays"].count_bytes()
        assert coded < plain / 2


def test_the_zoo_has_the_numbers_that_were_read(conducted):
    for number, node in conducted.answers:
        read, kept = conducted.read(number, node), conducted.kept(number, node)
        assert torch.equal(kept, read.weights.expand_as(kept))
        assert bool(kept.isfinite().all())
    bodies = {one.site: one.body for one in BodyUpdates.of(conducted.federation.root).read("00001")}
    assert len(bodies) == (SITES if conducted.federation.body else 0)
    for node, name in ((n, conducted.name(n)) for n in range(1, SITES + 1)):
        if bodies:
            assert torch.equal(bodies[name], conducted.read(2, node).body)


def test_a_site_records_the_bytes_that_leave_and_the_lengths_that_are_read(conducted):
    for node in range(1, SITES + 1):
        entry = open_site(conducted.files[node - 1]).sent.entries()[-1]
        content, read = conducted.answers[2, node], conducted.read(2, node)
        assert entry["bytes"] == sum(record.count_bytes() for record in content.values())
        told = {"weights": read.weights, "probes": read.probes}
        assert entry["tensors"]["arrays"]["probes"][0] == len(read.probes)
        for name, rows in told.items():
            lengths = [entry["norms"][f"{name}.{index}"] for index in range(len(rows))]
            np.testing.assert_allclose(lengths, rows.double().norm(dim=1), rtol=1e-6)
        if read.body is not None:
            assert entry["norms"]["body.0"] == pytest.approx(float(read.body.double().norm()))


def test_bytes_up_are_those_that_came(conducted):
    sent = [c for (number, _), c in conducted.answers.items() if number == 2]
    arrays = sum(content["arrays"].count_bytes() for content in sent)
    numbers = sum(content["numbers"].count_bytes() for content in sent)
    assert conducted.bytes_up == arrays + numbers


class LateGrid(LoopbackGrid):
    """Keeps back what one node says to its first task until a release is there."""

    def __init__(self, app: ClientApp, files: list[Path], until: Path) -> None:
        super().__init__(app, nodes(files))
        self._until = until

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        def ready(identifier: str) -> bool:
            message = self._waiting.get(identifier)
            about = message.metadata if message else None
            return (
                self._until.exists()
                or about is None
                or ((about.dst_node_id, about.message_type) != (1, TASK_ACTION))
            )

        return super().pull_messages([one for one in message_ids if ready(one)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_late_answer_is_read_with_what_its_own_round_was_sent(tmp_path, kind):
    sites = Sites(tmp_path / "out", kind, "round.timeout_s=0.5", "round.quorum=0.5")
    until = tmp_path / "out/releases/00001/release.json"
    sites.run(2, grid=LateGrid(sites.app, sites.files, until))
    (late,) = events(tmp_path / "out", "site.late")
    assert (late["round"], late["site"], late["code"]) == (1, sites.name(1), "accepted")
    assert not torch.equal(sites.anchor(1), sites.anchor(2))
    kept = sites.kept(1, 1)
    assert torch.equal(kept, sites.read(1, 1).weights.expand_as(kept))


class Killed(BaseException):
    """The end of the conducting process."""


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_accepted_before_the_end_of_the_process_is_there_after_it(tmp_path, kind):
    whole = Sites(tmp_path / "whole", kind)
    # Two answers come together, and are one commit.
    cut = Sites(tmp_path / "cut", kind, "round.in_flight=2")
    whole.run(2)
    accepted = []

    def until_the_third_of_the_second_round(event: str, fields: object) -> None:
        accepted.extend([fields] if event == "site.accepted" else [])
        if len(accepted) == SITES + 3:
            raise Killed

    with pytest.raises(Killed):
        cut.run(2, listener=until_the_third_of_the_second_round)
    asked = set(cut.answers)
    cut.answers.clear()
    cut.run(0)
    again = set(cut.answers)
    # Those that were accepted are not asked again.
    assert 0 < len(again) < SITES
    assert asked.isdisjoint(again)
    assert asked | again == set(whole.answers)
    for number, node in whole.answers:
        assert torch.equal(cut.kept(number, node), whole.kept(number, node))
    assert torch.equal(whole.anchor(3), cut.anchor(3))
