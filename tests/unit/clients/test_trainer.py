from __future__ import annotations

import torch

from clients import trainer
from clients.site import open_site
from f2l_fed.evaluate import select
from f2l_fed.finetune import Recipe, loss_and_accuracy
from f2l_fed.probe import anchor
from f2l_fed.seeds import generator_for
from f2l_fed.wire import NUMBERS, Task
from tests.support.sites import digits_site, frame


def task(candidates: dict[str, torch.Tensor] | None = None, steps: int = 30) -> Task:
    return Task(
        frame=frame(),
        round=2,
        release="00001",
        recipe=Recipe(steps=steps, lr=0.1, batch=10),
        candidates=candidates or {},
    )


def test_work_is_the_same_every_time(tmp_path):
    site = open_site(digits_site(tmp_path))
    target = trainer.target_of(frame())
    one, two = (trainer.work(site, task(), target) for _ in range(2))
    assert torch.equal(one.weights, two.weights)
    assert torch.equal(one.probe, two.probe)
    assert one.numbers == two.numbers


def test_work_improves_the_start_and_measures_it_on_validation_examples(tmp_path):
    site = open_site(digits_site(tmp_path))
    target = trainer.target_of(frame())
    update = trainer.work(site, task(), target)
    assert set(update.numbers) == set(NUMBERS)
    assert (update.chosen, update.round, update.numbers["examples"]) == ("anchor", 2, 30)
    assert update.numbers["accuracy_before"] < 0.5 < 0.9 <= update.numbers["accuracy_after"]
    measured = loss_and_accuracy(target, update.weights, site.validation.x, site.validation.y)
    assert (update.numbers["loss_after"], update.numbers["accuracy_after"]) == measured


def test_the_best_start_is_chosen_on_the_sites_own_training_examples(tmp_path):
    site = open_site(digits_site(tmp_path))
    target = trainer.target_of(frame())
    trained = trainer.work(site, task(), target).weights
    worse = target.initialise(generator_for("worse"))
    update = trainer.work(site, task({"prior": worse, "sample-0": trained}, steps=0), target)
    assert (
        update.chosen
        == select(target, {"prior": worse, "sample-0": trained}, site.train.x, site.train.y)[0]
    )
    assert update.chosen == "sample-0"
    assert torch.equal(update.weights, trained)


def test_the_probe_moves_the_anchor_towards_the_task(tmp_path):
    site = open_site(digits_site(tmp_path))
    target = trainer.target_of(frame())
    probe = trainer.probe_of(site, frame(), target)
    start = anchor(target, frame().lineage)
    before, _ = loss_and_accuracy(target, start, site.train.x, site.train.y)
    after, _ = loss_and_accuracy(target, start + probe, site.train.x, site.train.y)
    assert after < before
    assert torch.equal(probe, trainer.probe_of(site, frame(), target))
