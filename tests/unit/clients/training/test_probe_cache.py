from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clients.site.site import Site, open_site
from clients.training.accepted_request import AcceptedRequest, target_of
from clients.training.probe_cache import probes_of
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.local_training.probe import anchor
from f2l_fed.wire.messages import ProbeRequest
from tests.support.sites import digits_site, frame

REQUEST = ProbeRequest(frame=frame(), anchor=None)


def probes(site: Site, request: ProbeRequest = REQUEST) -> torch.Tensor:
    return probes_of(AcceptedRequest(site=site, request=request, target=target_of(frame())))


def test_the_probe_moves_the_anchor_towards_the_task(tmp_path):
    site = open_site(digits_site(tmp_path))
    target = target_of(frame())
    start = anchor(target, frame().lineage)
    before, _ = loss_and_accuracy(target, start, site.train.x, site.train.y)
    made = probes(site)
    assert not torch.equal(made[0], made[1])
    for probe in made:
        after, _ = loss_and_accuracy(target, start + probe, site.train.x, site.train.y)
        assert after < before
    assert torch.equal(made, probes(site))


def test_probes_start_from_the_anchor_that_was_sent(tmp_path):
    site = open_site(digits_site(tmp_path))
    target = target_of(frame())
    first = anchor(target, frame().lineage)
    other = anchor(target, "another")
    sent = probes(site, replace(REQUEST, anchor=first))
    assert torch.equal(sent, probes(site))
    assert not torch.equal(sent, probes(site, replace(REQUEST, anchor=other)))


def marked(path: Path) -> None:
    """Makes kept probes differ from those that would be made."""
    with safe_open(path, framework="pt") as file:
        made_from = {"made_from": str(file.metadata()["made_from"])}
    save_file({name: t + 1 for name, t in load_file(path).items()}, path, made_from)


def test_probes_are_made_once_for_the_same_examples_and_anchor(tmp_path):
    site = open_site(digits_site(tmp_path))
    made = probes(site)
    path = site.state / "probes.safetensors"
    assert path.stat().st_mode & 0o777 == 0o600
    marked(path)
    assert torch.equal(probes(site), made + 1)


@pytest.mark.parametrize("change", ["anchor", "steps", "episodes", "examples", "labels", "damage"])
def test_probes_are_made_again_when_anything_differs(tmp_path, change):
    file = digits_site(tmp_path)
    site = open_site(file)
    request, target = REQUEST, target_of(frame())
    probes(site, request)
    path = site.state / "probes.safetensors"
    marked(path)
    if change == "anchor":
        request = replace(request, anchor=anchor(target, "another"))
    elif change == "steps":
        request = replace(request, frame=replace(frame(), probe=replace(frame().probe, steps=4)))
    elif change == "episodes":
        request = replace(request, frame=replace(frame(), episodes=1))
    elif change == "damage":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        with np.load(tmp_path / "train.npz") as data:
            x, y = data["x"], data["y"]
        np.savez(
            tmp_path / "train.npz",
            **({"x": 1 - x, "y": y} if change == "examples" else {"x": x, "y": 2 - y}),
        )
        site = open_site(file)
    found = probes(site, request)
    path.unlink()
    assert torch.equal(found, probes(site, request))
