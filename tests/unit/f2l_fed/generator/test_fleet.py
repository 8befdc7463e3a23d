"""A generator of a mixed fleet: every network stays within its family."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from f2l_fed.generator.candidates import candidates_for_service, candidates_for_training
from f2l_fed.generator.config import CandidatesConfig
from f2l_fed.generator.fit import fit_generator
from f2l_fed.generator.serialization import load_generator, save_generator, tensors_of
from f2l_fed.local_training.candidate_kinds import group_of
from tests.support.fleets import CONFIG, mixed_fit, mixed_records
from tests.support.small import rng, small_generator, small_target


def by_family(offered):
    found = {}
    for kind in offered:
        if kind.startswith("sample-"):
            found[group_of(kind)] = found.get(group_of(kind), 0) + 1
    return found


def test_a_fit_keeps_the_order_of_sites():
    fit = mixed_fit()
    contexts, weights, labels = mixed_records(2, 30)
    kept = (labels == 0) | (torch.arange(60) < 40)
    weights, labels = weights[kept], labels[kept]
    assert fit.figures()["families"] == 2
    assert "families" not in replace(fit, generator=small_generator()).figures()
    found = fit.generator.family_of
    assert torch.equal(found(weights[:, 0]), labels)
    assert torch.equal(found(fit.held_out[:, 1]), labels)
    assert torch.equal(found(fit.drawn).bincount(), labels.bincount())
    assert torch.equal(found(fit.generator.expect(contexts[kept][:, 0])), labels)


def test_families_predict_unseen_networks_better_than_one_prior():
    contexts, weights, labels = mixed_records(2, 30)
    kept = (labels == 0) | (torch.arange(60) < 40)
    contexts, weights = contexts[kept], weights[kept]
    one = fit_generator(
        contexts,
        weights,
        small_target(),
        mixed_fit().generator.prior.symmetry,
        replace(CONFIG, prior=replace(CONFIG.prior, families=1)),
        rng(1),
        anchor=torch.zeros(weights.shape[2]),
    )
    assert one.generator.fleet is None
    missed = [(weights - fit.held_out).square().mean() for fit in (mixed_fit(), one)]
    assert missed[0] < 0.5 * missed[1]


def test_a_new_site_has_the_family_of_its_context_and_a_known_one_that_of_its_network():
    told, untold = mixed_fit(), mixed_fit(told=False)
    assert torch.equal(told.held_out_as_new, told.held_out)
    found = untold.families
    assert found is not None
    assert torch.equal(untold.generator.family_of(untold.held_out[:, 0]), found.labels)
    guessed = untold.generator.family_of(untold.held_out_as_new[:, 0])
    assert 10 < int((guessed != found.labels).sum()) < 40


def test_draws_stay_in_the_family_that_they_are_made_around():
    generator = mixed_fit().generator
    each = torch.stack([member.mean for member in generator.members])
    drawn = generator.sample(each[torch.tensor([1, 0, 1, 1])], rng())
    assert generator.family_of(drawn).tolist() == [1, 0, 1, 1]
    assert torch.equal(drawn, generator.sample(each[torch.tensor([1, 0, 1, 1])], rng()))


def test_draws_follow_the_share_that_a_context_says():
    contexts, _, labels = mixed_records(2, 30)
    settings = CandidatesConfig(samples=20)
    told, untold = mixed_fit().generator, mixed_fit(told=False).generator
    for family in (0, 1):
        context = contexts[labels == family][0, 0]
        expected = told.expect(context[None])[0]
        counted = by_family(candidates_for_service(told, None, context, expected, settings, rng()))
        assert counted.get("sample-1" if family else "sample", 0) >= 18
        assert sum(counted.values()) == 20
    context = mixed_records(2, 30, told=False)[0][0, 0]
    expected = untold.expect(context[None])[0]
    counted = by_family(candidates_for_service(untold, None, context, expected, settings, rng()))
    assert min(counted["sample"], counted["sample-1"]) >= 4


def test_draws_of_a_fleet_have_a_temperature_of_their_own():
    generator = mixed_fit().generator
    context = mixed_records(2, 30)[0][0, 0]
    expected = generator.expect(context[None])[0]

    def drawn(**settings):
        choice = CandidatesConfig(samples=20, **settings)
        return candidates_for_service(generator, None, context, expected, choice, rng())

    half = drawn(fleet_temperature=0.5)["sample-0"]
    assert torch.equal(drawn(fleet_temperature=0.5, temperature=9.0)["sample-0"], half)
    assert not torch.equal(drawn(fleet_temperature=0.6)["sample-0"], half)


def test_a_known_site_is_offered_its_own_expectation_and_family():
    fit, settings = mixed_fit(), CandidatesConfig(samples=20)
    own, context = fit.held_out[1, 0], torch.zeros(fit.held_out.shape[2])
    draws = (
        candidates_for_service(fit.generator, None, context, own, settings, rng()),
        *candidates_for_training(fit.generator, [None, None], own.expand(2, -1), settings, rng()),
    )
    for offered in draws:
        assert torch.equal(offered["prior"], own)
        assert torch.equal(offered["global_mean"], fit.generator.members[1].mean)
    assert all(set(by_family(offered)) == {"sample-1"} for offered in draws[1:])
    assert not torch.equal(draws[1]["sample-1-0"], draws[2]["sample-1-0"])


def test_it_comes_back_from_its_file(tmp_path):
    generator = mixed_fit().generator
    save_generator(generator, tmp_path / "fleet")
    again = load_generator(tmp_path / "fleet")
    named = tensors_of(again)
    assert named.keys() == tensors_of(generator).keys()
    for name, tensor in tensors_of(generator).items():
        assert torch.equal(named[name], tensor), name
    context = mixed_records(2, 30)[0][:5, 0]
    assert torch.equal(again.expect(context), generator.expect(context))
    assert torch.equal(
        again.sample(again.expect(context), rng()),
        generator.sample(generator.expect(context), rng()),
    )


@pytest.mark.parametrize("families", [1, 2])
def test_the_format_tells_a_fleet_from_one_family(families, tmp_path):
    generator = small_generator() if families == 1 else mixed_fit().generator
    save_generator(generator, tmp_path / "made")
    with safe_open(tmp_path / "made", framework="pt") as file:
        about = json.loads(file.metadata()["f2l"])
    assert about["format"] == (4 if families == 1 else 5)
