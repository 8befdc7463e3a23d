"""Few sites with ordinary settings, one without a class: every round ends with a release."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from clients.onboarding.site_template import create_site
from clients.site.model_store import load_model
from f2l_fed.config import config_of, new_values
from f2l_fed.data import load_dataset
from server.federation.folder import Federation
from server.generator import retrain
from server.rounds.journal import Journal
from tests.support.inline import conductor
from tests.support.small_federation import ANY_RELEASE, events, prepared

ROUNDS = 4
QUICK = ("episodes.first=6", "episodes.steps=4", "head.pairs=3", "flow.steps=20", "flow.width=16")
DIGITS, EASY = "digits", "easy"


def data_of(kind: str, draws: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """40 rows of each of three classes: digits, or vectors that nothing is simpler than."""
    y = np.repeat(np.arange(3), 40)
    if kind == EASY:
        return (20 * np.eye(3, 6)[y] + draws.normal(size=(120, 6))).astype(np.float32), y
    pool = load_dataset("digits")
    rows = [draws.permutation(np.flatnonzero(pool.y == label))[:40] for label in range(3)]
    return pool.x[np.concatenate(rows)], y


def sites_of(folder: Path, kind: str, count: int, *, shared: bool) -> list[Path]:
    """Sites of which the last one lacks the second class."""
    draws, files = np.random.default_rng(0), []
    for number in range(count):
        x, y = data_of(kind, draws)
        kept = y != 1 if number == count - 1 else y >= 0
        data = folder / f"data-{number}.npz"
        np.savez(data, x=x[kept], y=y[kept])
        files.append(create_site(folder / f"s{number}", f"s{number}", data, shared_labels=shared))
    return files


def federation_of(
    folder: Path, *settings: str, kind: str = DIGITS, shared: bool = False
) -> Federation:
    """A new federation of such sites, with the defaults but for the time that they take."""
    values = new_values({"shared_labels": shared})
    shape = [6] if kind == EASY else [1, 8, 8]
    values["target"] |= {"name": "mlp", "input_shape": shape, "classes": 3}
    config = config_of(values, [*QUICK, *settings], where="test")
    return Federation.create(folder / "fed", config)


@pytest.mark.parametrize(
    ("kind", "count", "shared"),
    [(DIGITS, 4, False), (DIGITS, 2, False), (EASY, 4, False), (DIGITS, 4, True), (EASY, 4, True)],
)
def test_every_round_of_a_few_sites_is_promoted_and_serves_all(tmp_path, kind, count, shared):
    federation = federation_of(tmp_path, kind=kind, shared=shared)
    files = sites_of(tmp_path, kind, count, shared=shared)
    names = tuple(file.parent.name for file in files)
    for state in conductor(federation, files).run(ROUNDS, count):
        assert (state.step, state.promoted, state.reason) == ("done", True, "")
        assert (state.accepted, state.rejected, state.quarantined) == (names, {}, {})
    for file in files:
        model = load_model(file.parent / "state")
        assert model is not None
        assert (model.facts.release, model.facts.chosen) == ("00003", "prior")
        assert model.facts.accuracy > 0.7
    assert not events(federation.root, "site.failed")


def test_few_sites_do_without_a_map_of_heads_that_explains_too_little(tmp_path, monkeypatch):
    federation = federation_of(tmp_path, "gate.min_explained=0.999")
    files = sites_of(tmp_path, DIGITS, 4, shared=False)
    states = conductor(federation, files).run(2, 4)
    assert [state.promoted for state in states] == [True, True]
    release = federation.releases.read("00002")
    assert release.sites == ()
    assert release.body_sites == ("s0", "s1", "s2", "s3")
    assert release.model.startswith("The heads of the sites' own few examples: 4 sites are too few")
    assert "below the limit of 0.999" in release.model
    context = torch.randn(1, federation.target.layout.size)
    head = federation.releases.generator("00002").expect(context)[0]
    assert float((head - context[0]).norm()) < 0.02 * float(context.norm())

    monkeypatch.setattr(retrain, "FEW_SITES", 4)
    (state,) = conductor(federation, files).run(1, 4)
    assert (state.step, state.promoted) == ("done", False)
    assert "explained is" in state.reason


def test_sites_that_can_not_take_part_are_named_and_do_not_count_for_the_quorum(tmp_path):
    federation = federation_of(tmp_path, "round.quorum=0.9")
    files = sites_of(tmp_path, DIGITS, 4, shared=False)
    for file, key in ((files[0], "minimum_examples"), (files[1], "minimum_head_examples")):
        file.write_text(re.sub(rf"{key} = \d+", f"{key} = 5000", file.read_text()))
    (state,) = conductor(federation, files).run(1, 4)
    assert (state.step, state.sites, state.accepted) == ("done", 4, ("s2", "s3"))
    assert state.rejected == {
        "s0": "refused: the site has too few examples (too-few-examples)",
        "s1": "refused: an output layer would be made on fewer examples than allowed "
        "(too-few-examples-a-head)",
    }
    ends = {line.site: line.code for line in Journal.of(federation.root / "rounds", 1).read()}
    assert ends == {"s0": "unable", "s1": "unable", "s2": "accepted", "s3": "accepted"}
    told = {event["site"]: event["finding"] for event in events(federation.root, "site.failed")}
    assert told == {"s0": "too-few-examples", "s1": "too-few-examples-a-head"}
    for file in files[2:]:
        file.write_text(
            re.sub(r"minimum_examples = \d+", "minimum_examples = 5000", file.read_text())
        )
    (state,) = conductor(federation, files).run(1, 4)
    assert state.step == "failed"
    assert state.reason.startswith("no site can take part as things are; s0: refused: ")


def test_sites_with_nothing_left_to_learn_have_done_their_part(tmp_path):
    # Without a step every network of a release comes back as it was sent.
    federation, files = prepared(tmp_path / "out", *ANY_RELEASE, "later.steps=0", sites=3)
    first, second = conductor(federation, files).run(2, 3)
    assert first.promoted, first.reason
    names = ("site-000", "site-001", "site-002")
    assert (second.step, second.accepted, second.rejected) == ("done", names, {})
    assert federation.zoo.snapshot().records(round=2) == ()
    accepted = [one for one in events(federation.root, "site.accepted") if one["round"] == 2]
    assert {one["reason"] for one in accepted} == {"nothing left to learn"}
