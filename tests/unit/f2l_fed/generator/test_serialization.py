"""A generator read from its file makes the same bits; a file that is not whole is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from f2l_fed.errors import ReleaseError
from f2l_fed.generator.serialization import (
    load_generator,
    load_matrix,
    load_part,
    save_generator,
    save_matrix,
    tensors_of,
)
from f2l_fed.prior.likeness import LikenessGate
from tests.support.small import records, rng, small_generator


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "generator.safetensors"
    save_generator(small_generator(), path)
    return path


def about(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def rewritten(path, *, without=(), **changes):
    """The file with some tensors removed or replaced."""
    tensors = {name: t for name, t in load_file(path).items() if name not in without}
    save_file(tensors | changes, path, about(path))


def test_one_tensor_is_read_alone(saved):
    for name, tensor in tensors_of(small_generator()).items():
        assert torch.equal(load_part(saved, name), tensor)
    with pytest.raises(ReleaseError, match="can't read the generator"):
        load_part(saved, "nonsense")
    rewritten(saved, without=("anchor",))
    with pytest.raises(ReleaseError, match="can't read the generator"):
        load_part(saved, "anchor")
    saved.write_bytes(saved.read_bytes()[:100])
    with pytest.raises(ReleaseError, match="can't read the generator"):
        load_part(saved, "mean")


def test_a_likeness_gate_comes_back(tmp_path):
    generator = small_generator()
    rows = generator.prior.symmetry.output.shape[1]
    gate = LikenessGate(
        centroids=torch.eye(rows)[:3],
        likeness=torch.tensor([0.2, 0.7]),
        factors=torch.tensor([0.4, 1.1]),
    )
    gated = replace(generator, prior=replace(generator.prior, gate=gate))
    path = tmp_path / "generator.safetensors"
    save_generator(gated, path)
    contexts = torch.randn(5, generator.prior.symmetry.size, generator=rng(3))
    expected = gated.prior(contexts)
    assert torch.equal(load_generator(path).prior(contexts), expected)
    assert not torch.equal(generator.prior(contexts), expected)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("source", ["prior", "gaussian"])
def test_a_loaded_generator_makes_the_same_bits(tmp_path, symmetric, source):
    generator = small_generator(symmetric=symmetric, source=source)
    path = tmp_path / "generator.safetensors"
    save_generator(generator, path)
    loaded = load_generator(path)
    assert loaded.config == generator.config
    assert torch.equal(loaded.mean, generator.mean)
    contexts, _ = records(generator.codec.symmetry.size, 5, seed=3)
    expected = generator.expect(contexts)
    assert torch.equal(loaded.expect(contexts), expected)
    assert torch.equal(loaded.sample(expected, rng(1)), generator.sample(expected, rng(1)))
    assert not any(parameter.requires_grad for parameter in loaded.velocity.parameters())


def test_equal_generators_are_equal_files(saved, tmp_path):
    again = tmp_path / "again.safetensors"
    save_generator(load_generator(saved), again)
    assert again.read_bytes() == saved.read_bytes()


def test_a_matrix_that_is_not_whole_is_named(tmp_path):
    path = tmp_path / "expected.safetensors"
    with pytest.raises(ReleaseError, match=r"expected\.safetensors: can't read"):
        load_matrix(path)
    save_matrix(torch.ones(4, 3), path)
    for size in (90, 5, 0):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(ReleaseError, match=r"expected\.safetensors: can't read.*roll back"):
            load_matrix(path)
    for tensors in ({"other": torch.ones(4, 3)}, {"w": torch.ones(4)}):
        save_file(tensors, path)
        with pytest.raises(ReleaseError, match="can't read"):
            load_matrix(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ReleaseError, match=r"absent\.safetensors"):
        load_generator(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_a_file_that_ends_early_is_refused(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    with pytest.raises(ReleaseError, match="can't read the generator"):
        load_generator(saved)


def test_bytes_that_are_no_generator_are_refused(saved):
    saved.write_bytes(b"\x00" * 500)
    with pytest.raises(ReleaseError, match="can't read the generator"):
        load_generator(saved)


def test_another_version_is_refused_by_number(saved):
    value = json.loads(about(saved)["f2l"]) | {"format": 7}
    save_file(load_file(saved), saved, {"f2l": json.dumps(value)})
    with pytest.raises(ReleaseError, match="expected 4 or 5, got 7"):
        load_generator(saved)


def test_a_file_of_tensors_that_says_nothing_about_itself_is_refused(saved):
    save_file(load_file(saved), saved)
    with pytest.raises(ReleaseError, match="an unknown format"):
        load_generator(saved)


@pytest.mark.parametrize(
    "name", ["mean", "spread", "symmetry.output", "codec.rows.basis", "prior.common.left",
             "velocity.row_in.weight"]
)  # fmt: skip
def test_a_missing_tensor_is_named(saved, name):
    rewritten(saved, without=[name])
    with pytest.raises(ReleaseError, match="incomplete or damaged") as caught:
        load_generator(saved)
    assert name.removeprefix("velocity.").removeprefix("codec.rows.") in str(caught.value)


def test_a_tensor_of_another_shape_is_refused(saved):
    rewritten(saved, **{"velocity.row_in.bias": torch.zeros(3)})
    with pytest.raises(ReleaseError, match=r"row_in\.bias"):
        load_generator(saved)


def test_settings_of_another_age_are_refused(saved):
    value = json.loads(about(saved)["f2l"])
    value["config"]["flow"]["colour"] = "red"
    save_file(load_file(saved), saved, {"f2l": json.dumps(value)})
    with pytest.raises(ReleaseError, match=r"flow\.colour"):
        load_generator(saved)


def test_a_matrix_is_written_and_read_row_by_row_as_it_was(tmp_path):
    rows = torch.randn(4, 7, generator=rng()).T
    save_matrix(rows, tmp_path / "rows.safetensors")
    assert torch.equal(load_matrix(tmp_path / "rows.safetensors"), rows)
