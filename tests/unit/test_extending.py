"""The skeletons of docs/extending.md run and keep the laws of their part."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from f2l_fed.admission.verdict import Verdict
from f2l_fed.codec import LatentShape
from f2l_fed.data import SplitConfig, load_dataset
from f2l_fed.data.scenarios.pool import merge_datasets
from f2l_fed.errors import DataError
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target
from tests.support.codecs import trained_networks
from tests.support.small import rng, small_target

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
BLOCKS = {
    title.lower().replace(" ", "_"): block
    for title, block in re.findall(r"^## An? (.*?)\n.*?```python\n(.*?)```", PAGE, re.M | re.S)
}


@pytest.fixture
def skeleton(request, monkeypatch):
    module = ModuleType(f"skeleton_{request.param}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(BLOCKS[request.param], request.param, "exec"), module.__dict__)
    return module


def of(name: str):
    return pytest.mark.parametrize("skeleton", [name], indirect=True)


def test_every_part_has_a_skeleton_and_a_test():
    tested = {name.split("_", 3)[3] for name in globals() if name.startswith("test_the_new_")}
    assert set(BLOCKS) == tested
    assert len(BLOCKS) == PAGE.count("```python")


@of("codec")
def test_the_new_codec(skeleton):
    target, weights = small_target(), trained_networks()
    symmetry = OutputSymmetry.of(target, enabled=True)
    codec = skeleton.INVARIANT.fit(weights, symmetry, target, rng(), common=6, rows=4)
    latents = codec.encode(weights)
    assert codec.shape.size == latents.shape[1] == 6
    torch.testing.assert_close(latents.T @ latents / len(latents), torch.eye(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(codec.encode(codec.decode(latents)), latents, atol=1e-3, rtol=0)
    again = skeleton.INVARIANT.from_tensors(symmetry, codec.tensors())
    assert torch.equal(again.encode(weights), latents)


@of("source")
def test_the_new_source(skeleton):
    expected = skeleton.DiagonalNormal(torch.ones(2, 3), torch.full((3,), 0.5))
    start = skeleton.WIDE_PRIOR.start(expected, None)
    assert start.width.tolist() == [1, 1, 1]
    shape = LatentShape(common=3, classes=0, width=0)
    assert skeleton.WIDE_PRIOR.noise(2, shape, rng(), None).shape == (2, 3)


@of("coupling")
def test_the_new_coupling(skeleton):
    starts, ends = torch.randn(8, 3, generator=rng()), torch.randn(8, 3, generator=rng(1))
    plan = skeleton.monotone(starts, ends, ends, torch.ones(8), batch=8)
    assert sorted(plan.tolist()) == list(range(8))
    assert starts[plan][ends[:, 0].argsort()][:, 0].diff().min() >= 0


@of("aggregator")
def test_the_new_aggregator(skeleton):
    rows = torch.tensor([[1.0], [2.0], [3.0], [4.0], [1e9]])
    rule = skeleton.winsorised_mean(1)
    assert rule.finalise(rule.accumulate(rule.init(1), rows, torch.ones(5))).item() == 3.0


@of("admission_check")
def test_the_new_admission_check(skeleton, monkeypatch):
    def verdict(weights):
        evidence = SimpleNamespace(submission=SimpleNamespace(weights=weights))
        return Verdict.of(list(skeleton.mostly_zero(evidence)))

    assert verdict(torch.ones(2, 4)).admitted
    assert verdict(torch.eye(2, 4)).code == "mostly-zero"


@of("scenario")
def test_the_new_scenario(skeleton):
    pool = merge_datasets([load_dataset("digits")])
    plan = skeleton.plan_even(pool, sites=5, held_out=2, seed=0, config=SplitConfig())
    rows = np.concatenate([np.r_[site.train, site.test] for site in plan.training + plan.seen])
    assert sorted(rows) == list(range(len(pool.x)))


@of("target")
def test_the_new_target(skeleton):
    target = Target.of("mlp-deep", lambda: skeleton.mlp_deep((2, 2), 3), (2, 2), 3)
    assert target.layout.size == 4 * 32 + 32 + 32 * 32 + 32 + 32 * 3 + 3


@of("named_data_set")
def test_the_new_named_data_set(skeleton):
    data = skeleton.WINE.parse("wine", skeleton.WINE.find())
    assert data.x.shape == (178, 13)
    assert data.classes == 3


@of("data_reader")
def test_the_new_data_reader(skeleton, tmp_path):
    np.save(tmp_path / "own.npy", np.arange(6.0).reshape(2, 3))
    x, y = skeleton.read_npy(tmp_path / "own.npy")
    assert (x.shape, y.tolist()) == ((2, 2), [2, 5])
    (tmp_path / "bad.npy").write_bytes(b"no table")
    with pytest.raises(DataError):
        skeleton.read_npy(tmp_path / "bad.npy")
