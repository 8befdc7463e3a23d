"""A generator that commit 80a4fc7 wrote is read and makes the same networks."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from f2l_fed.generator.serialization import load_generator

FOLDER = Path(__file__).parents[3] / "golden" / "v3" / "generator"


@pytest.fixture(scope="module")
def generator():
    return load_generator(FOLDER / "generator.safetensors")


@pytest.fixture(scope="module")
def golden():
    return load_file(FOLDER / "expected.safetensors")


def seeded():
    return torch.Generator().manual_seed(123)


def test_it_expects_draws_and_encodes_as_it_did(generator, golden):
    expected = generator.expect(golden["contexts"])
    noise = generator.noise(len(expected), seeded())
    assert torch.equal(noise, golden["noise"])
    made = {
        "expected": expected,
        "sampled": generator.sample(expected, seeded()),
        "carried": generator.carry(expected, noise),
        "encoded": generator.codec.encode(expected),
        "mean": generator.mean,
        "anchor": generator.prior.anchor,
        "spread": generator.spread,
    }
    for name, tensor in made.items():
        # Another build of torch may sum in another order.
        torch.testing.assert_close(tensor, golden[name], rtol=0, atol=1e-5, msg=name)
