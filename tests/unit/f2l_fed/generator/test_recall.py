"""A task that was just shown is recalled, whatever the order of its labels, and no other is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from f2l_fed.errors import ConfigError
from f2l_fed.generator.candidates import FittedRecords, candidates_for_service
from f2l_fed.generator.config import CandidatesConfig
from f2l_fed.generator.generator import Generator
from f2l_fed.generator.recall import RecallConfig, RecallingGenerator, RememberedTask, remember
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.local_training.probe import anchor, probe_update
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from tests.support.small import examples, records, rng, small_generator, small_target

both = pytest.mark.parametrize("symmetric", [True, False])
ORDER = torch.tensor([2, 0, 1])
PROBE, LOCAL = Recipe(steps=10), Recipe(steps=40)


def relabelled(network, order=ORDER):
    """The network, or probe, of the same task with label k where label order[k] was."""
    index = OutputSymmetry.of(small_target(), enabled=True).output
    network = network.clone()
    network[..., index] = network[..., index[order]]
    return network


def memory(seed=3):
    draws = rng(seed)
    size = small_target().layout.size
    context, weights = torch.randn(2, size, generator=draws)
    return RememberedTask(context=context, weights=weights)


def adapted(*memories, symmetric=True, **config):
    generator = small_generator(symmetric=symmetric)
    return RecallingGenerator(generator=generator, memories=memories, config=RecallConfig(**config))


def away_from(context):
    """A probe whose output rows have nothing to do with another's, whatever their order."""
    index = OutputSymmetry.of(small_target(), enabled=True).output
    other = torch.randn(context.shape, generator=rng(9))
    other[index] = 0
    return other - context * (other @ context) / (context @ context)


def test_a_task_with_permuted_labels_is_recalled_exactly():
    shown = memory()
    found = adapted(shown, share=1).expect(relabelled(shown.context)[None])
    torch.testing.assert_close(found[0], relabelled(shown.weights), rtol=0, atol=1e-6)


def test_where_labels_are_shared_they_stay_where_they_are():
    shown = memory()
    whole = adapted(shown, symmetric=False, share=1, low=-1, high=-0.99)
    found = whole.expect(torch.stack([shown.context, relabelled(shown.context)]))
    torch.testing.assert_close(found, shown.weights.expand(2, -1), rtol=0, atol=1e-6)
    cosine = whole.recall(relabelled(shown.context)[None]).cosine
    expected = torch.cosine_similarity(relabelled(shown.context), shown.context, dim=0)
    torch.testing.assert_close(cosine[0], expected)


def test_permuting_the_labels_of_a_probe_permutes_what_is_expected():
    shown = memory()
    near = shown.context + 0.5 * torch.randn(shown.context.shape, generator=rng(4))
    generator = adapted(shown)
    expected = generator.expect(near[None])
    assert not torch.equal(expected, generator.generator.expect(near[None]))
    torch.testing.assert_close(
        generator.expect(relabelled(near)[None]), relabelled(expected), rtol=0, atol=1e-5
    )


@both
def test_an_unrelated_probe_is_answered_as_before_bit_for_bit(symmetric):
    shown = memory()
    other = away_from(shown.context)[None]
    changed = adapted(shown, symmetric=symmetric)
    assert torch.equal(changed.expect(other), changed.generator.expect(other))
    assert not torch.equal(
        changed.expect(shown.context[None]), changed.generator.expect(shown.context[None])
    )


def test_a_probe_halfway_through_the_gate_moves_by_half_the_share():
    shown = memory()
    across = away_from(shown.context)
    unit = shown.context / shown.context.norm()
    probe = 0.625 * unit + (1 - 0.625**2) ** 0.5 * across / across.norm()
    changed = adapted(shown)
    assert changed.recall(probe[None]).cosine.item() == pytest.approx(0.625, abs=1e-5)
    before = changed.generator.expect(probe[None])[0]
    moved = changed.expect(probe[None])[0] - before
    torch.testing.assert_close(moved, 0.375 * (shown.weights - before), rtol=0, atol=1e-4)


def test_of_several_memories_each_probe_gets_its_own():
    shown = [memory(seed) for seed in (3, 5, 7)]
    probes = torch.stack([relabelled(shown[2].context), shown[0].context])
    found = adapted(*shown, share=1).expect(probes)
    expected = torch.stack([relabelled(shown[2].weights), shown[0].weights])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_generator_that_was_shown_nothing_is_as_it_was():
    contexts = memory().context[None]
    assert torch.equal(adapted().expect(contexts), small_generator().expect(contexts))


@pytest.mark.parametrize(
    "values",
    [{"share": 0.0}, {"share": 1.1}, {"low": 0.75}, {"low": -1.5}, {"low": 1.0}, {"high": 1.2}],
)
def test_what_cannot_stand_is_refused(values):
    with pytest.raises(ConfigError):
        RecallConfig(**values)


def anchored() -> Generator:
    """A generator whose probes start from a network that tells examples apart."""
    generator = small_generator()
    prior = replace(generator.prior, anchor=anchor(small_target(), "test"))
    return replace(generator, prior=prior)


def remembered(generator: Generator) -> RememberedTask:
    """What a site with one cloud of points for each class has remembered."""
    target = small_target()
    x, y = examples(target, 30)
    context = probe_update(target, generator.prior.anchor, x, y, PROBE)
    contexts, weights = records(len(context))
    offered = candidates_for_service(
        generator,
        FittedRecords(contexts=contexts, weights=weights),
        context,
        generator.expect(context[None])[0],
        CandidatesConfig(samples=6, keep=2),
        rng(2),
    )
    return remember(target, context, offered, x, y, LOCAL, rng(6), keep=2)


def test_a_site_remembers_a_network_that_is_better_for_its_task_than_what_was_expected():
    """So the next site with that task, which numbers its labels otherwise, starts better too."""
    generator = anchored()
    x, y = examples(small_target(), 30)
    theirs = ORDER.argsort()[y]
    context = probe_update(small_target(), generator.prior.anchor, x, theirs, PROBE)[None]
    changed = RecallingGenerator(generator=generator, memories=(remembered(generator),))
    torch.testing.assert_close(changed.recall(context).cosine, torch.ones(1))
    before, after = (
        loss_and_accuracy(small_target(), one.expect(context)[0], x, theirs)[0]
        for one in (generator, changed)
    )
    assert after < 0.9 * before


def test_the_same_examples_are_remembered_as_the_same_bits():
    one, other = remembered(anchored()), remembered(anchored())
    assert torch.equal(one.context, other.context)
    assert torch.equal(one.weights, other.weights)
    changed = adapted(one)
    again = replace(changed, memories=(other,))
    assert torch.equal(changed.expect(one.context[None]), again.expect(one.context[None]))


def test_the_mean_of_draws_is_the_draw_of_their_mean_latent():
    """The decoder is linear: a site that averages weights averages in latent coordinates."""
    codec = small_generator().codec
    expected = memory().weights[None]
    origin = codec.encode(expected)
    latents = origin + torch.randn(8, codec.shape.size, generator=rng(5))
    drawn = expected + codec.displacement(origin.expand(8, -1), latents)
    of_mean = expected + codec.displacement(origin, latents.mean(0, keepdim=True))
    torch.testing.assert_close(drawn.mean(0, keepdim=True), of_mean, rtol=0, atol=1e-5)
