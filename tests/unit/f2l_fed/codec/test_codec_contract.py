"""The laws that every codec keeps; see `f2l_fed.codec.Codec`."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from f2l_fed.codec import CODECS, LatentShape
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.support.codecs import KINDS, LEARNED, fit_codec, fitted_codec, trained_networks
from tests.support.small import rng, small_target

every = pytest.mark.parametrize("kind", KINDS)
both = pytest.mark.parametrize("symmetric", [True, False])
learned = pytest.mark.parametrize("kind", LEARNED)


def test_the_suite_covers_every_codec():
    assert set(KINDS) == set(CODECS)


def share_kept(codec, weights, centre):
    lost = (codec.decode(codec.encode(weights)) - weights).square().sum()
    return 1 - float(lost / (weights - centre).square().sum())


@every
@both
def test_latents_and_weights_have_the_announced_shapes(kind, symmetric):
    codec, weights = fitted_codec(kind, symmetric), trained_networks()
    assert codec.kind == kind
    classes, width = (3, 3) if symmetric else (0, 0)
    assert codec.shape == LatentShape(common=8, classes=classes, width=width)
    latents = codec.encode(weights)
    assert latents.shape == (len(weights), codec.shape.size)
    assert codec.decode(latents).shape == weights.shape
    assert latents.dtype == codec.decode(latents).dtype == torch.float32


@every
@both
def test_a_displacement_is_the_difference_of_two_decoded_latents(kind, symmetric):
    codec = fitted_codec(kind, symmetric)
    start, end = codec.encode(trained_networks()[:20]).split(10)
    expected = codec.decode(end) - codec.decode(start)
    torch.testing.assert_close(codec.displacement(start, end), expected, rtol=1e-4, atol=1e-5)


@every
@both
def test_latents_are_white_over_the_fitted_networks(kind, symmetric):
    codec = fitted_codec(kind, symmetric)
    parts = codec.shape.split(codec.encode(trained_networks()[:30]))
    torch.testing.assert_close(parts.common.mean(0), torch.zeros(8), rtol=0, atol=1e-4)
    for latents in (parts.common, parts.rows.flatten(0, 1)):
        if latents.numel():
            torch.testing.assert_close(
                latents.T @ latents / len(latents), torch.eye(latents.shape[1]), rtol=0, atol=2e-3
            )


@every
@both
def test_fitted_networks_come_back_and_others_come_back_nearly(kind, symmetric):
    weights = trained_networks()
    seen, unseen, centre = weights[:30], weights[30:], weights[:30].mean(0)
    wide = fit_codec(kind, symmetric, seen, common=100, rows=100)
    assert share_kept(wide, seen, centre) > 0.97
    assert share_kept(fitted_codec(kind, symmetric), seen, centre) > 0.7
    assert share_kept(fitted_codec(kind, symmetric), unseen, centre) > 0.3


@every
@both
def test_a_codec_comes_back_from_a_file_to_the_bit(kind, symmetric, tmp_path):
    codec, fresh = fitted_codec(kind, symmetric), trained_networks()[30:]
    save_file(codec.tensors(), tmp_path / "codec.safetensors")
    loaded = CODECS[kind].from_tensors(codec.symmetry, load_file(tmp_path / "codec.safetensors"))
    assert loaded.shape == codec.shape
    latents = codec.encode(fresh)
    assert torch.equal(loaded.encode(fresh), latents)
    assert torch.equal(loaded.decode(latents), codec.decode(latents))


@every
@both
def test_a_vector_jacobian_product_goes_through_both_directions(kind, symmetric):
    codec, draws = fitted_codec(kind, symmetric), rng(2)
    weights = trained_networks()[:2]
    for apply, x in ((codec.decode, codec.encode(weights)), (codec.encode, weights)):
        x = x.clone().requires_grad_()
        y = apply(x)
        pull, push = torch.randn(y.shape, generator=draws), torch.randn(x.shape, generator=draws)
        (gradient,) = torch.autograd.grad(y, x, pull)
        with torch.no_grad():
            slope = (apply(x + 5e-3 * push) - apply(x - 5e-3 * push)) / 1e-2
        expected = float((slope * pull).sum())
        assert float((gradient * push).sum()) == pytest.approx(expected, rel=0.02, abs=0.05)


@every
def test_nothing_of_a_fitted_codec_asks_for_gradients(kind):
    codec = fitted_codec(kind, True)
    assert not codec.decode(codec.encode(trained_networks())).requires_grad
    assert not any(tensor.requires_grad for tensor in codec.tensors().values())


@every
def test_equal_seeds_fit_equal_codecs(kind):
    again = fit_codec(kind, True, trained_networks()[:30]).tensors()
    for name, tensor in fitted_codec(kind, True).tensors().items():
        assert torch.equal(again[name], tensor), name


@learned
def test_another_seed_fits_another_codec_and_touches_no_global_randomness(kind):
    state = torch.random.get_rng_state()
    other = fit_codec(kind, True, trained_networks()[:30], seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    latents = fitted_codec(kind, True).encode(trained_networks())
    assert not torch.equal(other.encode(trained_networks()), latents)


@every
@both
def test_equal_networks_have_an_empty_latent_and_decode_to_themselves(kind, symmetric):
    weights = trained_networks()[:1].expand(4, -1)
    codec = fit_codec(kind, symmetric, weights)
    if symmetric:
        # Their output rows differ from each other, so only these have coordinates.
        assert codec.shape.common == 0
    else:
        assert codec.shape.size == 0
    torch.testing.assert_close(codec.decode(codec.encode(weights)), weights, rtol=0, atol=0.05)


@every
def test_one_record_more_than_one_is_enough(kind):
    codec = fit_codec(kind, True, trained_networks()[:2])
    assert codec.decode(codec.encode(trained_networks())).isfinite().all()
    assert codec.symmetry.size == OutputSymmetry.of(small_target(), enabled=True).size
