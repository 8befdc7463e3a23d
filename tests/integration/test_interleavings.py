"""Rounds that meet an erasure, an import, a lost store or huge numbers while they are at work."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor

from clients.client_app import app as honest_app
from f2l_fed.errors import F2LError, RecordErased, ReleaseError, RoundError, ZooError
from f2l_fed.local_training.selection import CandidateSet
from f2l_fed.wire.packing import pack_probe_reply, unpack_probe_reply
from f2l_fed.zoo import NewRecord
from server.federation.folder import Federation
from server.federation.release import Release
from server.generator.gate import objections
from server.generator.release_records import while_erasing
from server.generator.retrain import retrain
from server.generator.training_set import newest_records
from server.rounds import state as round_state
from server.rounds.run_cache import RunCache
from server.rounds.state import Interrupted, is_transient
from tests.support.conducted import after_quick_round
from tests.support.inline import InlineBackend, conductor, nodes
from tests.support.loopback import LoopbackGrid
from tests.support.small_federation import ANY_RELEASE, prepared


def conducted(
    federation: Federation, files: list[Path], backend: InlineBackend, count: int = 1
) -> round_state.RoundState:
    return conductor(federation, files, backend=backend).run(count, 6)[-1]


class ErasingBackend(InlineBackend):
    """A site is erased after the snapshot was chosen and before its records are read."""

    def retrain(self, id: str, commit: int) -> Release:
        self._federation.zoo.forget("site-000")
        return super().retrain(id, commit)


def test_a_site_may_be_erased_while_a_retraining_begins(tmp_path):
    federation, files = prepared(tmp_path / "out", *ANY_RELEASE)
    state = conducted(federation, files, ErasingBackend(federation))
    assert (state.step, state.promoted) == ("done", True)
    release = federation.releases.read("00001")
    assert release.sites == tuple(f"site-00{number}" for number in range(1, 6))


def test_what_reads_records_is_repeated_after_an_erasure_and_only_then(tmp_path):
    federation, _ = after_quick_round(tmp_path / "out")
    snapshot = federation.zoo.snapshot()
    records = snapshot.records()
    tried = []

    def read() -> int:
        tried.append(len(tried))
        if len(tried) == 1:
            federation.zoo.forget("site-000")
        erased = federation.zoo.erasures()
        return len(
            snapshot.weights([r for r in records if len(tried) == 1 or r.site not in erased])
        )

    assert while_erasing(federation, read) == len(records) - 2
    assert len(tried) == 2
    with pytest.raises(RecordErased):
        while_erasing(federation, lambda: snapshot.weights(records))


def test_imported_networks_neither_break_a_retraining_nor_hide_what_a_site_sent(tmp_path):
    federation, _ = after_quick_round(tmp_path / "out")
    zoo = federation.zoo
    (sent,) = zoo.snapshot().records(keys=["1/site-000/0"])
    network = NewRecord(
        key="7/site-000/3fa9c0d2e1b45678",
        site="site-000",
        round=7,
        weights=zoo.snapshot().weights([sent])[0],
        context=zoo.snapshot().contexts([sent])[0],
    )
    zoo.append([network, replace(network, key="7/site-000/aaaac0d2e1b45678")])
    newest = newest_records(federation, zoo.snapshot(), federation.releases.promoted())
    keys = [record.key for record in newest["site-000"]]
    assert keys == ["1/site-000/0", "1/site-000/1"]
    assert len(retrain(federation.root, "00002", zoo.snapshot().commit).sites) == 6


def test_a_site_with_huge_probes_is_left_out_and_the_round_goes_on(tmp_path):
    federation, files = after_quick_round(tmp_path / "out")
    app = ClientApp()

    @app.query("probe")
    def probe(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        told = unpack_probe_reply(reply.content, federation.target.layout)
        if told.site == "site-003":
            huge = replace(told, probes=torch.full_like(told.probes, 3e38))
            reply.content = pack_probe_reply(huge, federation.target.layout)
        return reply

    @app.train("task")
    def task(message: Message, context: Context) -> Message:
        return honest_app(message, context)

    grid = LoopbackGrid(app, nodes(files))
    (state,) = conductor(federation, files, grid=grid).run(1, 6)
    assert (state.step, len(state.accepted), "site-003" in state.accepted) == ("done", 5, False)


class LostStore(InlineBackend):
    """The store is away once, as seen by a task in another process."""

    def __init__(self, federation: Federation) -> None:
        super().__init__(federation)
        self._away = True

    def retrain(self, id: str, commit: int) -> Release:
        if self._away:
            self._away = False
            error = ZooError("the request to the object store failed", transient=True)
            raise pickle.loads(pickle.dumps(error))
        return super().retrain(id, commit)


def test_a_store_that_is_away_interrupts_a_round_and_does_not_end_it(tmp_path):
    federation, files = prepared(tmp_path / "out", *ANY_RELEASE)
    backend = LostStore(federation)
    with pytest.raises(Interrupted, match="object store failed"):
        conducted(federation, files, backend)
    state = conducted(federation, files, backend, 0)
    assert (state.step, state.promoted, len(state.accepted)) == ("done", True, 6)


def test_the_gate_rejects_nothing_because_a_disk_refused(tmp_path):
    federation, _ = after_quick_round(tmp_path / "out")
    file = federation.releases.path / "00001/generator.safetensors"
    file.unlink()
    # What can't be read although it is there, for root too.
    file.mkdir()
    with pytest.raises(F2LError) as error:
        objections(federation, federation.releases.read("00001"))
    assert is_transient(error.value)
    # And as it comes back from a task in another process.
    assert is_transient(pickle.loads(pickle.dumps(error.value)))


class FailingBackend(InlineBackend):
    """Makes candidates for three sites and fails then."""

    def candidates(
        self, release: str, probes: Mapping[str, Tensor]
    ) -> Iterator[tuple[str, CandidateSet]]:
        for number, made in enumerate(super().candidates(release, probes)):
            if number == 3:
                raise RoundError("a task failed on the cluster")
            yield made


def test_what_was_measured_before_an_exchange_failed_is_not_lost(tmp_path):
    federation, files = after_quick_round(tmp_path / "out", "round.in_flight=1")
    state = conducted(federation, files, FailingBackend(federation))
    assert (state.step, state.reason) == ("failed", "a task failed on the cluster.")
    screened = RunCache.beside(federation.root).screened
    accepted = {record.site for record in federation.zoo.snapshot().records(round=2)}
    assert len(list(screened.iterdir())) == len(accepted) > 0
    following = conducted(federation, files, InlineBackend(federation))
    assert (following.number, following.step, len(following.accepted)) == (3, "done", 6)
    assert not screened.exists()


def test_what_is_left_of_a_round_needs_no_site(tmp_path):
    federation, files = prepared(tmp_path / "out", *ANY_RELEASE)
    with pytest.raises(Interrupted):
        conducted(federation, files, LostStore(federation))
    (state,) = conductor(federation, files, grid=LoopbackGrid(honest_app, {})).run(0, 6)
    assert (state.step, state.promoted) == ("done", True)


def test_an_older_candidate_replaces_no_newer_one_nor_what_was_judged(tmp_path):
    federation, _ = after_quick_round(tmp_path / "out", "round.in_flight=3")
    registry, commit = federation.releases, federation.zoo.snapshot().commit
    older = retrain(federation.root, "00002", commit - 1)
    newer = retrain(federation.root, "00002", commit)
    with pytest.raises(ReleaseError, match="newer candidate"):
        retrain(federation.root, "00002", commit - 1)
    with pytest.raises(ReleaseError, match="replaced while it was judged"):
        registry.promote("00002", judged=older)
    assert registry.promote("00002", judged=registry.read("00002")).snapshot == newer.snapshot
