"""f2l-admin target: a user's own network is looked at, a backbone is prepared."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest

from f2l_fed.config import config_of, new_values
from f2l_fed.targets.backbone_file import BackboneFile
from f2l_fed.targets.config import BackboneConfig
from server.federation.folder import Federation
from tests.support.backbones import FEATURES, NETWORK
from tests.support.commands import in_process


def test_a_network_is_told_with_layout_head_symmetries_and_bytes():
    done = in_process("f2l-admin", "target", "check", "cnn-xs", "--input", "1,28,28")
    assert done.returncode == 0
    for part in (
        "0.weight                         8x1x3x3",
        "head        6.weight",
        "numbers     1973 trained, 0 frozen",
        "may change places: 8, 16",
        "a body of 1249 numbers and 8 pairs of heads of 725",
        # 4 bytes each: the body, and a head on few and one on all examples of every pair.
        f"a round     {4 * (1249 + 16 * 725)} bytes up",
    ):
        assert part in done.stdout


@pytest.fixture
def own_networks(tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(
        "from torch import nn\n"
        "def partly(shape, classes):\n"
        "    network = nn.Sequential(nn.Linear(shape[0], 7), nn.GELU(), nn.Linear(7, classes))\n"
        "    network[0].requires_grad_(False)\n"
        "    return network\n"
        "def bounded(shape, classes):\n"
        "    return nn.Sequential(nn.Linear(shape[0], classes), nn.Tanh())\n"
        "def certain(shape, classes):\n"
        "    return nn.Sequential(nn.Linear(shape[0], classes), nn.Softmax(1))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_what_is_not_possible_with_a_network_is_said(own_networks):
    words = ("--input", "6", "--classes", "3")
    frozen = in_process("f2l-admin", "target", "check", "own_networks:partly", *words)
    assert "numbers     24 trained, 49 frozen" in frozen.stdout
    assert "places: none" in frozen.stdout
    assert "remark" not in frozen.stdout
    bounded = in_process("f2l-admin", "target", "check", "own_networks:bounded", *words)
    assert bounded.returncode == 0
    assert "remark: target 'own_networks:bounded': the network's head can't be" in bounded.stdout
    refused = in_process("f2l-admin", "target", "check", "own_networks:certain", *words)
    assert refused.returncode == 2
    assert "Leave the final softmax out" in refused.stderr


def prepared(*more):
    return in_process("f2l-admin", "target", "prepare", NETWORK, *more)


def test_a_prepared_backbone_comes_with_the_settings_of_federation_and_sites(tmp_path):
    out = tmp_path / 'the "best"\\\x7f.safetensors'
    done = prepared(str(out), "--input", "1,8,8", "--mean", "0.3", "--std", "0.4")
    assert done.returncode == 0, done.stderr
    of_federation, of_sites = done.stdout.split("number of classes:\n")[1].split(
        "Each site, which has the file and the network's code:\n"
    )
    part = BackboneFile.read(out).part
    config = config_of(new_values(tomllib.loads(of_federation)), where="here")
    assert config.target.frozen == part
    federation = Federation.create(tmp_path / "federation", config)
    assert federation.target.layout.shapes == ((5, FEATURES), (5,))
    site = tomllib.loads(of_sites)["backbone"]
    assert BackboneConfig(**site) == BackboneConfig(file=out.name, network=NETWORK)
    again = prepared(str(out), "--input", "1,8,8")
    assert again.returncode == 2
    assert "exists already" in again.stderr


def test_an_adapted_part_is_a_number_of_the_federation_s_settings(tmp_path):
    out = tmp_path / "backbone.safetensors"
    more = ("--input", "1,8,8", "--adapt", "lora", "--layer", "second", "--rank", "3")
    done = prepared(str(out), *more)
    assert done.returncode == 0, done.stderr
    text = done.stdout.split("number of classes:\n")[1].split("Each site")[0]
    config = config_of(new_values(tomllib.loads(text)), where="here")
    part = BackboneFile.read(out).part
    assert config.target.frozen == part
    assert part.adapted == 3 * FEATURES
    plain = prepared(str(tmp_path / "plain"), "--input", "1,8,8")
    assert part.digest not in plain.stdout
    federation = Federation.create(tmp_path / "federation", config)
    assert federation.body.layout.sizes == (3 * FEATURES, 1)


def test_features_are_centred_on_public_examples(tmp_path):
    public = tmp_path / "public.npz"
    draws = np.random.default_rng(0)
    np.savez(public, x=draws.random((40, 8, 8), np.float32), y=np.arange(40) % 2)
    done = prepared(str(tmp_path / "one"), "--like", str(public))
    assert done.returncode == 0, done.stderr
    synthetic = prepared(str(tmp_path / "other"), "--input", "1,8,8")
    assert synthetic.returncode == 0, synthetic.stderr
    one, other = (BackboneFile.read(tmp_path / name) for name in ("one", "other"))
    assert one.part.digest != other.part.digest
    refused = prepared(str(tmp_path / "third"), "--like", str(public), "--input", "1,9,9")
    assert "the examples have another shape" in refused.stderr


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((), "no shape of inputs is named"),
        *(
            (("--input", text), "--input: no sizes")
            for text in ("one", "nan", "1,8.5,8", "-1,8,8", "1,,8", ",")
        ),
        (("--input", "1,8,8", "--resize", "inf,4"), "--resize: no sizes"),
        (("--input", "1,8,8", "--std", "0"), "std is out of range"),
        (("--input", "1,8,8", "--mean", "0.1,0.2"), "mean is out of range"),
        (("--input", "8", "--resize", "4,4"), "resize is out of range"),
        (("--input", "1,8,8", "--adapt", "lora"), "name the --layer"),
        (("--input", "1,8,8", "--layer", "second"), "name a part with --adapt"),
        (("--input", "1,8,8", "--adapt", "half", "--layer", "second"), "adapt is out of range"),
        (("--input", "1,8,8", "--adapt", "lora", "--layer", "third"), "no such layer"),
        (("--input", "1,8,8", "--adapt", "lora", "--layer", "norm"), "nothing to adapt"),
    ],
)
def test_unusable_options_get_one_sentence(tmp_path, more, told):
    done = prepared(str(tmp_path / "out"), *more)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert not (tmp_path / "out").exists()
