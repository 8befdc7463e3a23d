"""Backbones: what is in their digest, and what is noticed about file and code."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from f2l_fed.errors import ConfigError, DataError, TargetError
from f2l_fed.targets.backbone import Backbone, InstalledBackbone, features_of
from f2l_fed.targets.backbone_file import BackboneFacts, BackboneFile
from f2l_fed.targets.backbone_network import backbone_network
from f2l_fed.targets.backbone_preparation import prepare_backbone
from f2l_fed.targets.build import build_target, parameter_count
from f2l_fed.targets.config import PARTS, BackboneConfig, TargetConfig
from f2l_fed.targets.frozen_part import FrozenPart
from tests.support.backbones import (
    FEATURES,
    NETWORK,
    SHAPE,
    SmallBackbone,
    backbone_file,
    installed,
    opened,
    small_backbone,
)
from tests.support.small import rng


def facts(**more):
    return BackboneFacts(input_shape=SHAPE, features=1, **more)


def test_a_file_is_read_back_with_the_same_digest(tmp_path):
    file = backbone_file()
    file.write(tmp_path / "one")
    assert BackboneFile.read(tmp_path / "one").part == file.part
    assert file.part.features == FEATURES
    assert file.part == backbone_file().part


def test_features_are_centred_and_of_length_one_on_public_examples():
    public = torch.rand(200, *SHAPE, generator=rng())
    file = prepare_backbone(NETWORK, None, facts(), public)
    found = features_of(Backbone(_filled(file), file), public)
    torch.testing.assert_close(found.mean(0), torch.zeros(FEATURES), atol=1e-5, rtol=0)
    assert float(found.square().sum(1).mean().sqrt()) == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(found[:2], file.expected)


def _filled(file):
    network = small_backbone()
    network.load_state_dict(dict(file.network))
    return network.eval()


def test_preprocessing_is_that_of_the_facts():
    file = prepare_backbone(NETWORK, None, facts(resize=(4, 4), mean=(0.2,), std=(0.5,)))
    backbone = Backbone(_filled(file), file)
    x = torch.rand(3, *SHAPE, generator=rng())
    small = torch.nn.functional.interpolate(x, [4, 4], mode="bilinear", antialias=True)
    by_hand = backbone.network((small - 0.2) / 0.5).mean((2, 3))
    torch.testing.assert_close(backbone(x), (by_hand - file.centre) * file.scale)


def changed_weight(file):
    name = "second.weight"
    return replace(file, network={**file.network, name: file.network[name] + 1e-6})


@pytest.mark.parametrize(
    "change",
    [
        changed_weight,
        lambda file: replace(file, centre=file.centre + 1e-6),
        lambda file: replace(file, scale=file.scale * 1.001),
        lambda file: replace(file, facts=replace(file.facts, mean=(0.31,))),
        lambda file: replace(file, facts=replace(file.facts, std=())),
        lambda file: replace(file, facts=replace(file.facts, resize=(4, 4))),
        lambda file: replace(
            file, network={name: tensor.double() for name, tensor in file.network.items()}
        ),
    ],
)
def test_weights_constants_preprocessing_and_type_are_in_the_digest(change):
    file = backbone_file()
    assert change(file).part.digest != file.part.digest


def test_a_changed_file_is_noticed(tmp_path):
    config = installed(tmp_path)
    before = InstalledBackbone.of(config, tmp_path)
    changed_weight(backbone_file()).write(tmp_path / config.file)
    after = InstalledBackbone.of(config, tmp_path)
    assert after.part != before.part
    with pytest.raises(TargetError, match="another backbone") as caught:
        after.require(before.part)
    assert before.part.digest in str(caught.value)
    assert after.part.digest in str(caught.value)


def test_other_code_under_the_file_is_noticed(tmp_path):
    config = replace(installed(tmp_path), network=NETWORK.replace("small_backbone", "other_code"))
    with pytest.raises(TargetError, match=r"other features.*other_code"):
        InstalledBackbone.of(config, tmp_path).front()


def test_an_installed_backbone_is_frozen_and_predicts(tmp_path):
    module = opened(tmp_path).front()
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert module(torch.rand(3, *SHAPE)).shape == (3, FEATURES)


def test_weights_come_from_a_file_that_may_hold_a_head_too(tmp_path):
    path = tmp_path / "pretrained.safetensors"
    tensors = {
        name: tensor + 0.1
        for name, tensor in small_backbone().state_dict().items()
        if tensor.is_floating_point()
    }
    save_file({**tensors, "mask": small_backbone().mask, "classifier.weight": torch.ones(2)}, path)
    file = prepare_backbone(NETWORK, path, facts())
    torch.testing.assert_close(file.network["first.weight"], tensors["first.weight"])
    tensors["mask"] = small_backbone().mask
    del tensors["second.weight"]
    save_file(tensors, path)
    with pytest.raises(TargetError, match=r"weights of the network are missing.*'second\.weight'"):
        prepare_backbone(NETWORK, path, facts())
    save_file({**tensors, "second.weight": torch.ones(3)}, path)
    with pytest.raises(TargetError, match=r"other shapes.*second\.weight"):
        prepare_backbone(NETWORK, path, facts())
    with pytest.raises(DataError, match="weights can't be read"):
        prepare_backbone(NETWORK, tmp_path / "none.safetensors", facts())


def test_a_file_that_is_no_prepared_backbone_is_refused(tmp_path):
    path = tmp_path / "backbone.safetensors"
    for content in (None, b"junk"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match="f2l-admin target prepare"):
            BackboneFile.read(path)
    save_file({"w": torch.ones(2)}, path)
    with pytest.raises(DataError, match="f2l-admin target prepare"):
        BackboneFile.read(path)
    backbone_file().write(path)
    tensors = load_file(path)
    save_file({**tensors, "centre": torch.ones(2)}, path)
    with pytest.raises(DataError, match="f2l-admin target prepare"):
        BackboneFile.read(path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "expected module:factory, timm:NAME or hf:FOLDER"),
        ("hf:folder", r"no config\.json in .*nothing is downloaded"),
        ("nowhere_at_all:make", "can't be imported"),
        ("builtins:int", "does not return a network.*got int"),
        ("torch.nn:Linear", "can't be built.*without arguments"),
    ],
)
def test_a_network_that_cannot_be_built_gets_one_sentence(name, told):
    with pytest.raises(TargetError, match=told):
        backbone_network(name)


def test_features_that_say_nothing_are_refused():
    with pytest.raises(TargetError, match="all the same"):
        prepare_backbone(NETWORK, None, facts(), torch.zeros(4, *SHAPE))
    with pytest.raises(TargetError, match="does not accept"):
        prepare_backbone(NETWORK, None, BackboneFacts(input_shape=(3, 8, 8), features=1))
    with pytest.raises(TargetError, match="no features of an input"):
        prepare_backbone(
            "torch.nn:Identity", None, BackboneFacts(input_shape=(3, 4, 5, 6), features=1)
        )


class Unfit(SmallBackbone):
    """A network that no site could agree with."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        made = super().forward(x)
        if self.kind == "random":
            return made + torch.rand(())
        if self.kind == "counting":
            self.seen += 1
        if self.kind == "of its batch":
            return made - made.mean(0)
        return {"features": made} if self.kind == "dict" else made


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("random", "random, or changes"),
        ("counting", "random, or changes"),
        ("of_its_batch", "depend on the others of its batch"),
        ("as_dict", "returns no tensor"),
    ],
)
def test_a_backbone_that_sites_could_not_agree_on_is_not_prepared(kind, told):
    with pytest.raises(TargetError, match=told):
        prepare_backbone(f"{__name__}:{kind}", None, facts())


random, counting, of_its_batch, as_dict = (
    partial(Unfit, kind) for kind in ("random", "counting", "of its batch", "dict")
)


def test_a_network_s_own_scale_is_in_the_digest():
    file = backbone_file()
    own = {**file.network, "scale": torch.ones(3)}
    other = {**own, "scale": torch.full((3,), 2.0)}
    assert replace(file, network=own).part != replace(file, network=other).part


def test_none_named_is_one_sentence(tmp_path):
    with pytest.raises(TargetError, match=r"\[backbone\] file: no backbone is named"):
        InstalledBackbone.of(BackboneConfig(), tmp_path)
    with pytest.raises(ConfigError, match="expected a file for the network"):
        BackboneConfig(network=NETWORK)
    # As a kit leaves it.
    unnamed = replace(installed(tmp_path), network="")
    with pytest.raises(TargetError, match="no network is named for the backbone's file"):
        InstalledBackbone.of(unnamed, tmp_path).front()


def test_the_federation_s_settings_hold_digests_and_no_names():
    digest = "a" * 64
    config = TargetConfig(name="adapter", adapt="head", backbone=digest, features=3)
    assert config.frozen == FrozenPart(digest, 3)
    for wrong in ({"backbone": "nets:make"}, {"features": 0}, {"name": "mlp"}, {"adapt": "all"}):
        with pytest.raises(ConfigError):
            replace(config, **wrong)
    for part in PARTS:
        assert replace(config, adapt=part, adapted=7).frozen == FrozenPart(digest, 3, 7)
        with pytest.raises(
            ConfigError, match=r"adapted is out of range: expected .*backbone's file"
        ):
            replace(config, adapt=part)
        with pytest.raises(ConfigError):
            TargetConfig(name="mlp", adapt=part)
    with pytest.raises(ConfigError):
        replace(config, adapted=7)


def test_only_an_adapter_sits_on_a_backbone():
    part = FrozenPart("a" * 64, 3)
    assert build_target("adapter", SHAPE, 4, part).input_shape == (3,)
    assert parameter_count("adapter", SHAPE, 4, part) == 16
    for build in (build_target, parameter_count):
        with pytest.raises(TargetError, match=r"sits on a backbone.*prints both"):
            build("adapter", SHAPE, 4)
        with pytest.raises(TargetError, match="sits on a backbone: expected none, got 'mlp'"):
            build("mlp", SHAPE, 4, part)


def test_an_exported_backbone_brings_images_to_its_size():
    file = prepare_backbone(NETWORK, None, facts(resize=(6, 5), mean=(0.2,)))
    backbone = Backbone(_filled(file), file)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(
        backbone, (torch.zeros(2, *SHAPE),), dynamic_shapes=({0: batch},)
    )
    x = torch.rand(5, *SHAPE, generator=rng())
    torch.testing.assert_close(exported.module()(x), backbone(x))
