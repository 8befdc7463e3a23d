"""The chunk VAE, alone and on principal components: where it starts and what it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from f2l_fed.codec import Behaviour, LatentShape, fit_chunk_vae, fit_pca
from f2l_fed.codec.behavioural_loss import divergence
from f2l_fed.codec.config import ChunkVaeConfig
from f2l_fed.codec.pca_vae import latent_symmetry
from f2l_fed.errors import ConfigError
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import build_target
from f2l_fed.targets.layout import layer_numbers
from tests.support.codecs import LEARNED, fit_codec, trained_networks
from tests.support.small import rng, small_target

learned = pytest.mark.parametrize("kind", LEARNED)
SYMMETRY = OutputSymmetry.of(small_target(), enabled=True)


def copies(codec, weights):
    return codec.decode(codec.encode(weights))


def test_what_has_learned_nothing_on_components_is_their_pca():
    seen, unseen = trained_networks()[:30], trained_networks()[30:]
    codec = fit_codec("pca-vae", True, seen, steps=0)
    pca = fit_pca(seen, SYMMETRY, common=8, rows=3)
    torch.testing.assert_close(copies(codec, unseen), copies(pca, unseen), rtol=0, atol=1e-4)
    # White coordinates stay white under any rotation, so only lengths can be compared.
    torch.testing.assert_close(
        codec.encode(unseen).norm(dim=1), pca.encode(unseen).norm(dim=1), rtol=1e-3, atol=0
    )


def test_alone_it_starts_at_the_pca_of_weights_standardised_by_layer():
    seen, unseen = trained_networks()[:30], trained_networks()[30:]
    symmetry = OutputSymmetry.of(small_target(), enabled=False)
    layers = layer_numbers(small_target().layout)
    codec = fit_codec("chunk-vae", False, seen, steps=0)
    spread = (seen - seen.mean(0)).square().mean(0)
    scale = torch.stack([spread[layers == layer].mean().sqrt() for layer in (0, 1)])[layers]
    pca = fit_pca(seen / scale, symmetry, common=8, rows=1)
    torch.testing.assert_close(
        copies(codec, unseen), copies(pca, unseen / scale) * scale, rtol=0, atol=1e-4
    )


@learned
def test_training_brings_the_copies_closer_to_what_the_networks_do(kind):
    seen, unseen = trained_networks()[:30], trained_networks()[30:]
    behaviour = Behaviour.of(small_target())
    x = behaviour.draw(200, rng(7))

    def lost(steps):
        codec = fit_codec(kind, True, seen, common=3, rows=2, steps=steps)
        return [
            float(divergence(behaviour.predict(w, x), behaviour.predict(copies(codec, w), x)))
            for w in (seen, unseen)
        ]

    before, after = lost(0), lost(60)
    assert after[0] < 0.8 * before[0]
    assert after[1] < 0.9 * before[1]


def test_without_the_behavioural_loss_predictions_are_kept_less_well():
    weights, behaviour = trained_networks()[:30], Behaviour.of(small_target())
    config = ChunkVaeConfig(common=3, rows=2, hidden=16, steps=60, batch=16, inputs=16, lr=2e-3)
    x = behaviour.draw(200, rng(7))
    deaf, hearing = (
        fit_chunk_vae(weights, SYMMETRY, behaviour, replace(config, behaviour=strength), rng())
        for strength in (0.0, 1.0)
    )
    found = [
        float(
            divergence(behaviour.predict(weights, x), behaviour.predict(copies(codec, weights), x))
        )
        for codec in (deaf, hearing)
    ]
    assert found[1] < 0.8 * found[0]


def test_a_dearer_latent_has_less_to_tell():
    weights, behaviour = trained_networks()[:30], Behaviour.of(small_target())
    config = ChunkVaeConfig(common=3, rows=2, hidden=16, steps=60, batch=16, inputs=16, lr=2e-3)
    free, dear = (
        fit_chunk_vae(weights, SYMMETRY, behaviour, replace(config, kl=kl), rng()).common.scale
        for kl in (0.0, 1.0)
    )
    assert dear.max() < 0.95 * free.max()


def test_coordinates_are_measured_by_their_own_spread_without_the_rows_mean_that_never_varies():
    weights = trained_networks()[:30]
    codec = fit_codec("pca-vae", True, weights)
    coordinates = codec.pca.encode(weights)[:, : codec.pca.shape.common]
    torch.testing.assert_close(
        codec.vae.network.common.scale[: codec.pca.shape.common],
        coordinates.square().mean().sqrt().expand(codec.pca.shape.common),
    )


@learned
def test_weights_that_only_rounding_moved_do_not_blow_up_where_they_move(kind):
    weights = trained_networks()[:30].clone()
    weights[:, :3] = 1 + 1e-7 * torch.randn(30, 3, generator=rng())
    codec = fit_codec(kind, True, weights)
    moved = weights.clone()
    moved[:, :3] += 1e-3
    assert (codec.encode(moved) - codec.encode(weights)).abs().max() < 0.1


def test_the_trained_part_of_the_composition_does_not_grow_with_the_weights():
    def trained(hidden):
        target = small_target(hidden=hidden)
        symmetry = OutputSymmetry.of(target, enabled=True)
        weights = torch.randn(12, symmetry.size, generator=rng())
        config = ChunkVaeConfig(common=2, rows=2, steps=1, batch=2, inputs=2)
        codec = LEARNED["pca-vae"](weights, symmetry, Behaviour.of(target), config, rng())
        return sum(tensor.numel() for tensor in codec.vae.tensors().values())

    assert trained(hidden=8) == trained(hidden=80)


def test_coordinates_are_relabelled_like_weights():
    shape = LatentShape(common=3, classes=4, width=2)
    latents, order = torch.randn(5, shape.size, generator=rng()), torch.tensor([3, 1, 0, 2])
    symmetry = latent_symmetry(shape)
    torch.testing.assert_close(
        symmetry.join(symmetry.split(latents).permuted(order)),
        shape.join(shape.split(latents).permuted(order)),
    )


def test_weight_and_bias_share_a_layer_in_a_convolutional_network():
    layout = build_target("cnn-xs", (1, 12, 12), 5).layout
    layers = layer_numbers(layout)
    assert layers.unique_consecutive().tolist() == [0, 1, 2]
    assert (layers == 0).sum() == 8 * 9 + 8


def test_a_convolutional_network_goes_through():
    target = build_target("cnn-xs", (1, 12, 12), 5)
    symmetry = OutputSymmetry.of(target, enabled=True)
    weights = torch.stack([target.initialise(rng(seed)) for seed in range(6)])
    config = ChunkVaeConfig(common=3, rows=3, steps=2, batch=3, inputs=4)
    codec = fit_chunk_vae(weights, symmetry, Behaviour.of(target), config, rng())
    assert copies(codec, weights).shape == weights.shape
    assert copies(codec, weights).isfinite().all()


@pytest.mark.parametrize(
    "bad", [{"chunk": 0}, {"common": 0}, {"steps": -1}, {"kl": -0.1}, {"lr": 0.0}]
)
def test_settings_that_cannot_stand_are_named(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        ChunkVaeConfig(**bad)
