"""Sites with 3, 5 and 12 classes in one federation: from a round to the networks that they get."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict

from clients.client_app import app as honest_app
from clients.site.exported_program import export_model
from clients.site.model_store import load_model, load_start, save_model
from clients.site.sent_log import utc_now
from clients.site.site import open_site
from clients.training.fine_tuning import fine_tune_again
from clients.training.requested_network import request_network
from f2l_fed.config import load_config
from f2l_fed.data import load_dataset, save_npz
from f2l_fed.errors import DataError
from f2l_fed.local_training.candidate_kinds import ANCHOR, PRIOR
from f2l_fed.targets.head_rows import class_counts
from f2l_fed.wire.serialization import from_bytes, to_bytes
from server.federation.folder import Federation
from server.generator.explanation import explain_site
from server.generator.network_service import NetworkService
from server.rounds.journal import Journal
from server.simulation.run import simulation_facts
from server.simulation.setup import Simulation, prepare
from tests.integration.test_rounds_on_a_body import ON_A_BODY
from tests.support.inline import answering, conductor, nodes, run_inline
from tests.support.loopback import LoopbackGrid
from tests.support.served import close, measured
from tests.support.small_federation import FEW, SETTINGS, events

COUNTS = (3, 5, 12, 3, 5, 12)


def federation_of(folder: Path, counts: tuple[int, ...] = COUNTS) -> Federation:
    """A federation for 12 classes at most, whose sites keep so many of theirs."""
    digits = load_dataset("digits")
    save_npz(folder / "negatives.npz", 1 - digits.x, digits.y)
    settings = (*SETTINGS, *FEW, *ON_A_BODY, "split.ways=12", "local.steps=3", "seed=3")
    simulation = Simulation(
        data=("digits", str(folder / "negatives.npz")),
        scenario="few-shot",
        sites=len(counts),
        held_out=1,
        rounds=1,
        out=folder / "out",
        config=load_config(None, settings),
    )
    federation, _ = prepare(simulation, force=False)
    for file, classes in zip(files_of(federation), counts, strict=True):
        keep_classes(file.parent, range(classes))
    return federation


def files_of(federation: Federation) -> list[Path]:
    return sorted((federation.root / "sites").glob("*/site.toml"))


def keep_classes(folder: Path, kept: range) -> None:
    """Leaves a site with the examples of some of its labels."""
    for name in ("train", "validation"):
        with np.load(folder / f"{name}.npz") as arrays:
            x, y = arrays["x"], arrays["y"]
        mine = np.isin(y, list(kept))
        save_npz(folder / f"{name}.npz", x[mine], y[mine])


class Direct:
    """The service of a server, without the network between."""

    def __init__(self, service: NetworkService, site: str) -> None:
        self._service, self._site = service, site

    def context_request(self) -> tuple[str, RecordDict]:
        release, packed = self._service.context_request()
        return release, from_bytes(packed)

    def task(self, release: str, context: RecordDict) -> RecordDict:
        return from_bytes(self._service.task(self._site, release, to_bytes(context)))


@pytest.fixture(scope="module")
def conducted(tmp_path_factory) -> Federation:
    """After two rounds."""
    federation = federation_of(tmp_path_factory.mktemp("counts"))
    states = run_inline(federation, 2)
    assert [(state.step, len(state.accepted)) for state in states] == [("done", 6)] * 2
    return federation


def test_heads_leave_with_the_rows_of_their_site_and_are_padded_in_the_zoo(conducted):
    row = conducted.target.layout.size // 12
    for file, classes in zip(files_of(conducted), COUNTS, strict=True):
        last = open_site(file).sent.entries()[-1]
        assert last["tensors"]["arrays"]["weights"] == [3, classes * row]
        assert last["tensors"]["arrays"]["probes"] == [3, classes * row]
    snapshot = conducted.zoo.snapshot()
    weights = torch.as_tensor(snapshot.weights(snapshot.records(round=2)))
    assert weights.shape == (18, 12 * row)
    counts = class_counts(weights, conducted.target.layout)
    assert counts.view(-1, 3)[:, 0].tolist() == list(COUNTS)
    assert conducted.releases.read("00002").left_out == {}


def test_every_site_keeps_a_network_for_its_own_classes(conducted, tmp_path):
    for file, classes in zip(files_of(conducted), COUNTS, strict=True):
        site = open_site(file)
        model, start = load_model(site.state), load_start(site.state)
        assert model is not None
        assert start is not None
        assert (model.facts.classes, model.facts.chosen) == (classes, PRIOR)
        assert model.facts.accuracy > 1.5 / classes
        export_model(model, tmp_path / site.config.name)
        program = torch.export.load(tmp_path / site.config.name / "model.pt2").module()
        assert program(site.validation.x).shape == (len(site.validation.y), classes)
        again, _ = fine_tune_again(site, start, utc_now())
        assert again.facts.classes == classes


@pytest.mark.parametrize("classes", [3, 5, 12])
def test_a_newcomer_gets_the_network_that_evaluation_measures(conducted, tmp_path, classes):
    source = files_of(conducted)[COUNTS.index(classes)].parent
    folder = tmp_path / "newcomer"
    folder.mkdir()
    for name in ("train.npz", "validation.npz", "site.toml"):
        (folder / name).write_bytes((source / name).read_bytes())
    file = folder / "site.toml"
    file.write_text(file.read_text().replace(source.name, "newcomer"))
    site = open_site(file)
    service = NetworkService(conducted.root)
    model, start, network = request_network(site, Direct(service, "newcomer"))
    expected_start, expected = measured(conducted, file, "00002")
    assert close(start.model.weights, expected_start)
    assert close(model.weights, expected)
    assert (model.facts.classes, network.chosen) == (classes, PRIOR)


def test_the_head_of_a_site_with_few_classes_is_explained(conducted):
    found = explain_site(conducted, conducted.releases.read("00002"), "site-000")
    assert found.origin.remainder == pytest.approx(0, abs=1e-5)
    assert len(found.origin.shares) == 6


def test_a_site_whose_classes_change_is_asked_for_heads_of_those_it_has(tmp_path):
    federation = federation_of(tmp_path)
    run_inline(federation, 1)
    file = files_of(federation)[2]
    keep_classes(file.parent, range(2, 6))
    site = open_site(file)
    (state,) = run_inline(federation, 1)
    assert len(state.accepted) == 6
    model, start = load_model(site.state), load_start(site.state)
    assert model is not None
    assert start is not None
    # A new check-in has asked for its context of now.
    assert (model.facts.classes, model.facts.labels) == (4, ("2", "3", "4", "5"))
    assert (model.facts.chosen, model.facts.accuracy > 0.5) == (PRIOR, True)
    keep_classes(file.parent, range(3, 6))
    with pytest.raises(DataError, match="classes are not those that the start was made for"):
        fine_tune_again(open_site(file), start, utc_now())
    save_model(site.state, model)


def test_a_head_for_classes_of_before_is_left_aside(tmp_path):
    federation = federation_of(tmp_path)
    run_inline(federation, 1)
    files = files_of(federation)

    def task(message: Message, context: Context) -> Message:
        if context.node_id == 3:
            # Between its context and its task.
            keep_classes(files[2].parent, range(7))
        return honest_app(message, context)

    grid = LoopbackGrid(answering(task), nodes(files))
    (state,) = conductor(federation, files, grid=grid).run(1, len(files))
    assert len(state.accepted) == 6
    model = load_model(open_site(files[2]).state)
    assert model is not None
    assert (model.facts.classes, model.facts.chosen) == (7, ANCHOR)


def test_a_site_whose_heads_have_no_number_of_classes_is_left_out_alone(tmp_path):
    federation = federation_of(tmp_path)
    files = files_of(federation)

    def task(message: Message, context: Context) -> Message:
        reply = honest_app(message, context)
        if context.node_id == 2:
            arrays = dict(reply.content["arrays"])
            for name in ("weights", "probes"):
                rows = arrays[name].numpy()
                arrays[name] = Array(np.ascontiguousarray(rows[:, :-1]))
            content = {**dict(reply.content), "arrays": ArrayRecord(arrays)}
            reply.content = RecordDict(content)
        return reply

    grid = LoopbackGrid(answering(task), nodes(files))
    (state,) = conductor(federation, files, grid=grid).run(1, len(files))
    assert (state.step, len(state.accepted)) == ("done", 5)
    (line,) = [one for one in Journal.of(federation.root / "rounds", 1).read() if one.reason]
    assert (line.site, line.code) == ("site-001", "garbage")
    assert "33 numbers for each of 2 to 12 classes" in line.reason


def test_a_site_of_one_class_is_told_by_the_kind_of_its_error(tmp_path):
    federation = federation_of(tmp_path, counts=(3, 5, 12, 5, 1))
    (state,) = run_inline(federation, 1)
    assert len(state.accepted) == 4
    (failed,) = events(federation.root, "site.failed")
    assert "(too-few-classes)" in failed["reason"]


def test_a_simulation_s_result_says_how_many_classes_its_sites_have(tmp_path):
    simulation = Simulation(
        data=("digits",),
        scenario="few-shot",
        sites=12,
        held_out=1,
        rounds=1,
        out=tmp_path / "out",
        config=load_config(None, [*SETTINGS, *ON_A_BODY, "split.ways=3", "split.most_ways=5"]),
    )
    _, divided = prepare(simulation, force=False)
    notes = simulation_facts(simulation, divided)["data_notes"]
    assert "The training sites have 3 to 5 classes." in notes
