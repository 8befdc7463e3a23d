"""The compact generator, its file, and one function for the candidates of both places."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from f2l_fed.errors import ReleaseError
from f2l_fed.generator import candidates
from f2l_fed.generator.candidates import FittedRecords, candidates_of_site
from f2l_fed.generator.compact import PER_DIRECTION, compact, rank_of
from f2l_fed.generator.config import CandidatesConfig
from f2l_fed.generator.generator import Fleet
from f2l_fed.generator.release_file import ReleaseFile, pack_release
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.selection import select, select_in_parts
from f2l_fed.wire.messages import Frame, Task
from tests.support.small import (
    examples,
    records,
    small_fit,
    small_generator,
    small_target,
)

MANY = 10_000
TOLERANCE = {"fp32": 1e-5, "fp16": 2e-3, "int8": 3e-2}
"""Largest distance of a candidate from the centre's, relative to its distance from the mean."""

TARGET = small_target()
CONFIG = CandidatesConfig(samples=12)


def known():
    contexts, weights = records(TARGET.layout.size)
    return FittedRecords(contexts=contexts, weights=weights)


def task():
    frame = Frame(
        lineage="small/1",
        target="small",
        classes=TARGET.classes,
        input_shape=TARGET.input_shape,
        layout=TARGET.layout.digest,
        episodes=1,
        shots=5,
        probe=Recipe(steps=2),
    )
    anchor = torch.zeros(TARGET.layout.size)
    recipe = Recipe(steps=3)
    return Task(
        frame=frame, anchor=anchor, round=0, release="00001", recipe=recipe, candidates=(), keep=4
    )


def written(path, generator, precision="fp16"):
    path.write_bytes(pack_release(generator, task(), CONFIG, precision))
    return path


def offered(generator, config=CONFIG, context=None):
    context = records(TARGET.layout.size, 3, seed=4)[0][:1] if context is None else context
    parts = candidates_of_site(
        generator,
        task().frame,
        "new",
        context[0],
        generator.expect(context)[0],
        config,
        TARGET.layout,
    )
    return {kind: weights for part in parts for kind, weights in part.items()}


def worst(ours, theirs, mean):
    """Largest relative distance of candidates, but for the mean itself."""
    return max(
        float((ours[kind] - theirs[kind]).norm() / (theirs[kind] - mean).norm())
        for kind in theirs
        if kind != "global_mean"
    )


@pytest.mark.parametrize("evaluations", [0, 4])
@pytest.mark.parametrize("precision", sorted(TOLERANCE))
def test_site_and_centre_make_the_same_candidates(tmp_path, precision, evaluations):
    full = small_generator()
    sample = replace(full.config.sample, evaluations=evaluations)
    full = replace(full, config=replace(full.config, sample=sample))
    small = compact(full, known(), sites=MANY, rank=64)
    file = ReleaseFile.read(written(tmp_path / "file", small, precision))
    theirs, ours = offered(full), offered(file.generator(TARGET))
    assert list(ours) == list(theirs)
    assert len(ours) == 2 + CONFIG.samples
    assert torch.equal(ours["global_mean"], theirs["global_mean"])
    assert worst(ours, theirs, full.mean) < TOLERANCE[precision]


def test_a_lower_rank_keeps_the_principal_part_and_the_draws_around_it():
    full = small_generator()
    theirs = offered(full)
    distances = []
    for rank in (1, 2, 4, 16):
        small = compact(full, known(), sites=MANY, rank=rank)
        assert small.prior.common.left.shape[1] <= rank
        assert len(small.codec.common.basis) <= rank
        assert small.codec.shape == full.codec.shape
        distances.append(worst(offered(small), theirs, full.mean))
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.1


def test_the_rank_is_never_more_than_a_share_of_the_sites():
    assert [rank_of(n, 32) for n in (1, 8, 40, 128, 4000)] == [1, 2, 10, 32, 32]
    small = compact(small_generator(), known(), sites=12, rank=32)
    assert small.prior.common.left.shape[1] == 12 // PER_DIRECTION
    assert len(small.codec.common.basis) == 12 // PER_DIRECTION


def test_a_flow_that_is_not_evaluated_is_not_in_the_file(tmp_path):
    fit = small_fit().generator
    still = replace(
        fit, config=replace(fit.config, sample=replace(fit.config.sample, evaluations=0))
    )
    small = compact(still, known(), sites=MANY, rank=8)
    path = written(tmp_path / "file", small)
    assert not [name for name in load_file(path) if name.startswith("velocity")]
    assert offered(ReleaseFile.read(path).generator(TARGET))


def test_draws_do_not_depend_on_how_many_are_made_at_a_time(monkeypatch):
    full = small_generator()
    at_once = offered(full)
    monkeypatch.setattr(candidates, "_PART_NUMBERS", 5 * TARGET.layout.size)
    some = offered(full)
    assert list(some) == list(at_once)
    for kind, weights in at_once.items():
        torch.testing.assert_close(some[kind], weights, rtol=1e-4, atol=1e-5)


def test_a_choice_among_parts_is_that_among_all():
    full = small_generator()
    x, y = examples(TARGET, 12)
    offers = offered(full)
    parts = [dict(list(offers.items())[i : i + 3]) for i in range(0, len(offers), 3)]
    for keep in (1, 4):
        kind, weights = select_in_parts(TARGET, parts, x, y, keep=keep)
        best, wanted = select(TARGET, offers, x, y, keep=keep)
        assert (kind, weights.tolist()) == (best, wanted.tolist())


def test_several_families_have_no_compact_form():
    full = small_generator()
    mixed = replace(full, fleet=Fleet(shares=None, others=(full,)))
    with pytest.raises(ReleaseError, match="several families"):
        compact(mixed, known(), sites=MANY, rank=8)


def about(path):
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["f2l"])


@pytest.mark.parametrize(
    "change",
    [
        {"prior.common.left": torch.zeros(3, 2, dtype=torch.float16)},
        {"prior.common.right:scale": torch.tensor([float("inf")])},
        {"mean": torch.zeros(3)},
        {"mean": torch.zeros(TARGET.layout.size, dtype=torch.int64)},
        {"codec.common.basis": torch.zeros(9, TARGET.layout.size)},
        {"spread": torch.zeros(1)},
        {"prior.common.more": torch.zeros(1)},
        {"mean": None},
        {"prior.rows.left": None},
    ],
)
def test_a_file_whose_tensors_are_not_a_generators_is_refused(tmp_path, change):
    path = written(tmp_path / "file", compact(small_generator(), known(), sites=MANY, rank=8))
    told = {"f2l": json.dumps(about(path))}
    changed = {**load_file(path), **change}
    kept = {name: t.clone() for name, t in changed.items() if t is not None}
    save_file(kept, path, told)
    with pytest.raises(ReleaseError, match=r"the release can't be read.*Fetch it again"):
        ReleaseFile.read(path).generator(TARGET)


def test_what_is_no_release_is_refused(tmp_path):
    path = written(tmp_path / "file", compact(small_generator(), known(), sites=MANY, rank=8))
    whole = path.read_bytes()
    # Copies: what is loaded is mapped from the file, which is written anew.
    tensors, told = {name: t.clone() for name, t in load_file(path).items()}, about(path)
    for content in (b"", whole[:-5], whole[: len(whole) // 2], pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(ReleaseError, match="can't be read"):
            ReleaseFile.read(path)
    for key, value in (
        ("format", 2),
        ("candidates", {"samples": -1}),
        ("candidates", {"samples": 10**9}),
        ("generator", []),
    ):
        save_file(tensors, path, {"f2l": json.dumps({**told, key: value})})
        with pytest.raises(ReleaseError, match="can't be read"):
            ReleaseFile.read(path)
    for packed in (torch.zeros(4, dtype=torch.uint8), torch.zeros(0, dtype=torch.uint8)):
        save_file({**tensors, "task": packed}, path, {"f2l": json.dumps(told)})
        with pytest.raises(ReleaseError, match="can't be read"):
            ReleaseFile.read(path)
    with pytest.raises(ReleaseError, match="can't be read"):
        ReleaseFile.read(tmp_path / "none")


def test_equal_generators_make_equal_files(tmp_path):
    small = compact(small_generator(), known(), sites=MANY, rank=8)
    one, other = (written(tmp_path / name, small).read_bytes() for name in ("a", "b"))
    assert one == other
