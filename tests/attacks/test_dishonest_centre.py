"""A centre that cheats: what a site refuses to do for it, and what it could still read."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict

from clients.site.model_store import load_model, load_start
from clients.site.site import open_site
from f2l_fed.errors import WireError
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.probe import anchor, recentred
from f2l_fed.wire.messages import PROBE_ACTION, ProbeRequest
from f2l_fed.wire.packing import pack_probe_request, unpack_refusal, unpack_task
from tests.attacks.peers.dishonest_centre import (
    FRAME,
    ONE_STEP,
    TARGET,
    ask,
    ask_probe,
    ask_task,
    images_in,
    probes_in,
    read_at,
    reading_network,
    weights_in,
)
from tests.support.commands import in_process
from tests.support.sites import digits_site

NETWORK = TARGET.initialise(torch.Generator().manual_seed(3))
ZERO_HEAD = recentred(TARGET, NETWORK)
ESCAPE = "mlp\x1b[2J/0"


def code(content: RecordDict) -> str:
    refused = unpack_refusal(content)
    return refused.code if refused else ""


def images_of(site) -> torch.Tensor:
    return open_site(site).train.x.flatten(1)


@pytest.mark.parametrize("episodes", [1, 50])
def test_no_image_is_read_through_an_anchor_with_an_output_layer(tmp_path, episodes):
    site = digits_site(tmp_path, per_class=40)
    network = reading_network(head=1.0)
    content = ask_probe(site, network, episodes=episodes, shots=5, probe=ONE_STEP)
    refused = code(content)
    read = 0 if refused else read_at(images_in(probes_in(content)), images_of(site), 100)
    assert (refused, read) == ("anchor-with-head", 0)


def test_shared_labels_allow_a_head_where_both_say_so_and_enough_examples_take_part(tmp_path):
    told = {"shared_labels": True, "episodes": 1}
    own = digits_site(tmp_path / "own")
    shared = digits_site(tmp_path / "shared", more="[policy]\nshared_labels = true\n")
    assert code(ask_probe(own, NETWORK, **told)) == "anchor-with-head"
    assert code(ask_probe(shared, NETWORK, episodes=1)) == "anchor-with-head"
    assert code(ask_probe(shared, NETWORK, **told)) == "too-few-examples-a-step"
    assert code(ask_probe(shared, NETWORK, **told, shots=4)) == ""


def test_a_round_without_a_release_starts_from_the_rebuilt_anchor(tmp_path):
    site, first = digits_site(tmp_path), anchor(TARGET, FRAME.lineage)
    assert code(ask_task(site, release="", anchor=ZERO_HEAD)) == "anchor-not-rebuilt"
    assert code(ask_task(site, NETWORK, release="", anchor=first)) == "candidates-without-release"
    assert code(ask_task(site, release="", anchor=first)) == ""
    assert code(ask_task(site, NETWORK, anchor=ZERO_HEAD)) == ""
    assert [code(ask_probe(site, start)) for start in (None, first, ZERO_HEAD)] == ["", "", ""]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"probe": Recipe(steps=5000)}, "too-many-steps"),
        ({"probe": Recipe(steps=1, lr=1e30)}, "learning-rate-too-high"),
        ({"probe": Recipe(steps=1, momentum=0.999999)}, "momentum-too-high"),
        ({"episodes": 20_000}, "too-many-episodes"),
        ({"episodes": 60, "probe": Recipe(steps=900)}, "too-many-steps-in-all"),
        ({"episodes": 0}, "message-not-understood"),
        ({"shots": 0}, "message-not-understood"),
        ({"shots": -1}, "message-not-understood"),
        ({"classes": 10_000_000}, "network-too-large"),
        ({"input_shape": (1, 5000, 5000)}, "inputs-of-another-shape"),
        ({"lineage": ESCAPE}, "message-not-understood"),
        ({"target": ESCAPE}, "message-not-understood"),
        ({"lineage": "a" * 1000}, "message-not-understood"),
    ],
)
def test_the_frame_is_bounded_in_probes_and_in_tasks(tmp_path, changes, expected):
    site, frame = digits_site(tmp_path), dataclasses.replace(FRAME, **changes)
    assert code(ask_probe(site, None, **changes)) == expected
    assert code(ask_task(site, NETWORK, frame=frame)) == expected


def test_gradients_on_few_examples_and_many_networks_are_refused(tmp_path):
    site = digits_site(tmp_path)
    few = dataclasses.replace(ONE_STEP, batch=1)
    assert code(ask_task(site, NETWORK, recipe=few)) == "too-few-examples-a-step"
    assert code(ask_task(site, *[NETWORK] * 65)) == "too-many-episodes"
    many = Recipe(steps=900)
    assert code(ask_task(site, *[NETWORK] * 40, recipe=many)) == "too-many-steps-in-all"
    small = digits_site(tmp_path / "small", more="[policy]\nmaximum_download_bytes = 5000\n")
    assert code(ask_task(small, NETWORK)) == "request-too-large"
    assert code(ask_task(site, *[NETWORK] * 50)) == ""


def test_the_same_round_for_ever_uses_up_the_rounds_of_a_day(tmp_path):
    site = digits_site(tmp_path, more="[policy]\nrounds_per_day = 2\n")
    codes = [code(ask_task(site, NETWORK)) for _ in range(3)]
    assert codes == ["", "", "too-many-rounds-today"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("more", ["", "[privacy]\nepsilon = 8.0\ndelta = 1e-3\n"])
def test_networks_that_are_not_finite_never_replace_the_sites_own(tmp_path, number, more):
    site = digits_site(tmp_path, more=more)
    assert code(ask_task(site, NETWORK)) == ""
    kept, start = load_model(tmp_path / "state"), load_start(tmp_path / "state")
    bad = NETWORK.clone()
    bad[7] = number
    assert code(ask_task(site, bad)) == "not-finite"
    assert code(ask_task(site, NETWORK, anchor=recentred(TARGET, bad))) == "not-finite"
    overflowing = 1e30 * NETWORK
    assert code(ask_task(site, overflowing)) == ("" if more else "diverged")
    now, start_now = load_model(tmp_path / "state"), load_start(tmp_path / "state")
    assert None not in (kept, start, now, start_now)
    assert torch.equal(kept.weights, now.weights)
    assert torch.equal(start.model.weights, start_now.model.weights)


def test_no_name_of_a_task_brings_control_characters(tmp_path):
    site = digits_site(tmp_path)
    assert code(ask_task(site, NETWORK, release="1\x1b[2J")) == "message-not-understood"
    assert (
        code(ask_task(site, candidates=({"prior\x1b]0;x": NETWORK},))) == "message-not-understood"
    )
    assert code(ask_task(site, candidates=({},))) == "message-not-understood"
    assert code(ask_task(site, NETWORK, round=-1)) == "message-not-understood"


def test_a_federation_that_hands_out_exact_networks_can_be_refused(tmp_path):
    site = digits_site(tmp_path, more="[policy]\nnearest = false\n")
    assert code(ask_probe(site, None, nearest=True)) == "nearest-not-allowed"
    nearest = ({"prior": NETWORK, "nearest": NETWORK},)
    assert code(ask_task(site, candidates=nearest)) == "nearest-not-allowed"
    assert code(ask_task(site, NETWORK)) == ""
    willing = digits_site(tmp_path / "willing")
    assert code(ask_task(willing, candidates=nearest)) == ""


@pytest.mark.parametrize(("key", "value"), [("labels", "both"), ("nearest", "yes")])
def test_the_optional_keys_of_the_frame_are_checked(tmp_path, key, value):
    content = pack_probe_request(ProbeRequest(frame=FRAME, anchor=None))
    content["frame"] = ConfigRecord({**content.config_records["frame"], key: value})
    assert code(ask(digits_site(tmp_path), content, PROBE_ACTION)) == "message-not-understood"
    with pytest.raises(WireError):
        unpack_task(content)


def test_the_record_tells_the_work_of_every_answer(tmp_path):
    site = digits_site(tmp_path)
    ask_probe(site, ZERO_HEAD, episodes=4)
    ask_task(site, NETWORK, NETWORK, recipe=Recipe(steps=5, batch=10))
    probe, update = open_site(site).sent.entries()
    assert probe["work"].items() >= {"episodes": 4, "networks": 0, "steps": 12}.items()
    told = {"episodes": 2, "networks": 2, "steps": 16, "examples": 10, "anchor": "first"}
    assert update["work"] == told
    shown = in_process("f2l-site", "sent", str(site), "--json")
    assert '"work"' in shown.stdout
    assert len(probe["work"]["anchor"]) == 12


def test_a_privacy_budget_alone_hides_every_image_from_a_centre_that_keeps_the_rules(tmp_path):
    """Networks need an output layer to be fine-tuned, so their biases can be apart as well."""
    networks = [reading_network(head=1e-3, seed=seed) for seed in range(50)]
    read = {}
    for name, more in (("plain", ""), ("noised", "[privacy]\nepsilon = 8.0\ndelta = 1e-3\n")):
        site = digits_site(tmp_path / name, per_class=40, more=more)
        recipe = dataclasses.replace(ONE_STEP, batch=8)
        changes = weights_in(ask_task(site, *networks, recipe=recipe)) - torch.stack(networks)
        read[name] = read_at(images_in(changes), images_of(site), 40)
    assert read["noised"] == 0 < read["plain"]
