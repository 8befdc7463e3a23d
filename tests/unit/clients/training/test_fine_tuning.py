from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch

from clients.site.site import Site, open_site
from clients.training import fine_tuning
from clients.training.accepted_request import AcceptedRequest, accept, target_of
from f2l_fed.core.random_streams import generator_for
from f2l_fed.errors import ConfigError, LayoutMismatch
from f2l_fed.local_training.candidate_kinds import BLEND
from f2l_fed.local_training.config import LOSSES, Recipe
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.local_training.selection import select
from f2l_fed.wire.messages import NUMBERS, Task
from tests.support.devices import on_devices
from tests.support.sites import digits_site, frame


def task(candidates: tuple[dict[str, torch.Tensor], ...] = (), steps: int = 30) -> Task:
    return Task(
        frame=frame(),
        anchor=None,
        round=2,
        release="00001",
        recipe=Recipe(steps=steps, lr=0.1, batch=10),
        candidates=candidates,
    )


def accepted(site: Site, request: Task) -> AcceptedRequest[Task]:
    return AcceptedRequest(site=site, request=request, target=target_of(frame()))


def test_work_is_the_same_every_time(tmp_path):
    request = accepted(open_site(digits_site(tmp_path)), task())
    one, two = (
        fine_tuning.plain_update(request, fine_tuning.fine_tune_episodes(request)) for _ in range(2)
    )
    assert torch.equal(one.weights, two.weights)
    assert torch.equal(one.probes, two.probes)
    assert one.numbers == two.numbers


def test_work_improves_the_start_and_measures_it_on_validation_examples(tmp_path):
    site = open_site(digits_site(tmp_path))
    request = accepted(site, task())
    (best,) = networks = fine_tuning.fine_tune_episodes(request)
    update = fine_tuning.plain_update(request, networks)
    assert set(update.numbers) == set(NUMBERS) - set(LOSSES)
    assert (update.chosen, update.round, update.numbers["examples"]) == (("anchor",), 2, 30)
    assert update.numbers["accuracy_before"] < 0.5 < 0.9 <= update.numbers["accuracy_after"]
    assert torch.equal(update.weights[0], best.weights)
    measured = loss_and_accuracy(request.target, best.weights, site.validation.x, site.validation.y)
    assert (update.numbers["loss_after"], update.numbers["accuracy_after"]) == measured


def test_the_best_start_is_chosen_on_the_sites_own_training_examples(tmp_path):
    site = open_site(digits_site(tmp_path))
    target = target_of(frame())
    trained = fine_tuning.fine_tune_episodes(accepted(site, task()))[0].weights
    worse = target.initialise(generator_for("worse"))
    candidates = {"prior": worse, "sample-0": trained}
    request = accepted(site, task((candidates, {"prior": worse}), steps=0))
    networks = fine_tuning.fine_tune_episodes(request)
    update = fine_tuning.plain_update(request, networks)
    assert select(target, candidates, site.train.x, site.train.y)[0] == "sample-0"
    assert update.chosen == ("sample-0", "prior")
    assert torch.equal(update.weights, torch.stack([trained, worse]))
    assert torch.equal(fine_tuning.lowest_loss(networks).weights, trained)
    assert [torch.equal(one.start, one.weights) for one in networks] == [True, True]


def test_a_kept_start_becomes_the_same_network_again_or_another_with_other_steps(tmp_path):
    site = open_site(digits_site(tmp_path))
    request = accepted(site, replace(task(), recipe=Recipe(steps=30, lr=0.1)))
    (best,) = fine_tuning.fine_tune_episodes(request)
    now = datetime(2026, 1, 2, tzinfo=UTC)
    made, start = fine_tuning.model_of(request, best, now)
    assert (start.model.facts.steps, start.model.facts.accuracy) == (0, best.before[1])
    again, _ = fine_tuning.fine_tune_again(site, start, now)
    assert torch.equal(again.weights, made.weights)
    assert again.facts == made.facts
    none, network = fine_tuning.fine_tune_again(site, start, now, steps=0)
    assert torch.equal(none.weights, start.model.weights)
    assert none.facts.accuracy == network.before[1] == best.before[1]


def test_an_anchor_of_another_size_is_refused(tmp_path):
    site = open_site(digits_site(tmp_path))
    with pytest.raises(LayoutMismatch, match="anchor"):
        accept(site, replace(task(), anchor=torch.zeros(3)), app="")


def test_a_kept_start_becomes_a_network_of_its_temperature(tmp_path):
    site = open_site(digits_site(tmp_path))
    request = accepted(site, replace(task(), recipe=Recipe(steps=5, lr=0.1)))
    (best,) = fine_tuning.fine_tune_episodes(request)
    now = datetime(2026, 1, 2, tzinfo=UTC)
    made, start = fine_tuning.model_of(request, best, now)
    warm, network = fine_tuning.fine_tune_again(site, replace(start, temperature=0.5), now)
    assert torch.equal(warm.weights, request.target.tempered(made.weights, 0.5))
    assert network.after[0] != best.after[0]
    assert network.after[1] == best.after[1]


def test_the_mean_of_the_best_draws_is_a_start_where_the_task_says_so(tmp_path):
    site = open_site(digits_site(tmp_path))
    trained = fine_tuning.fine_tune_episodes(accepted(site, task()))[0].weights
    noise = torch.randn(len(trained), generator=generator_for("noise"))
    draws = {"sample-0": trained + noise, "sample-1": trained - noise}
    one, both = (
        fine_tuning.fine_tune_episodes(accepted(site, replace(task((draws,), steps=0), keep=keep)))
        for keep in (1, 2)
    )
    assert one[0].chosen in draws
    assert both[0].chosen == BLEND
    torch.testing.assert_close(both[0].start, trained, rtol=0, atol=1e-6)


@on_devices
def test_a_site_makes_on_its_device_what_the_cpu_makes(tmp_path, device):
    site = open_site(digits_site(tmp_path / "a", more=f'device = "{device.type}"\n'))
    request = accept(site, task(), app="")
    assert request.target.device == device
    plain = accepted(open_site(digits_site(tmp_path / "b")), task())
    made, wanted = (
        fine_tuning.plain_update(one, fine_tuning.fine_tune_episodes(one))
        for one in (request, plain)
    )
    assert made.weights.device == made.probes.device == torch.device("cpu")
    torch.testing.assert_close(made.weights, wanted.weights, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(made.probes, wanted.probes, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_site_that_is_to_use_a_gpu_and_has_none_answers_nothing(tmp_path):
    site = open_site(digits_site(tmp_path, more='device = "cuda"\n'))
    with pytest.raises(ConfigError, match="device: there is no GPU to compute on"):
        accept(site, task(), app="")
