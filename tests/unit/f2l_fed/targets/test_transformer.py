"""Tests of transformers of texts in folders; they run where transformers is installed."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from f2l_fed.core.text_bytes import bytes_of
from f2l_fed.errors import TargetError
from f2l_fed.targets.backbone import Backbone, InstalledBackbone
from f2l_fed.targets.backbone_file import BackboneFacts, BackboneFile
from f2l_fed.targets.backbone_network import backbone_network, for_site
from f2l_fed.targets.backbone_preparation import prepare_backbone
from f2l_fed.targets.config import BackboneConfig
from tests.support.backbones import NETWORK
from tests.support.texts import HIDDEN, TOKENS, topic_texts, transformer_folder

LENGTH = 64
FACTS = BackboneFacts(input_shape=(LENGTH,), features=1)
PARTS = {
    "lora": {"layers": ("model.encoder.layer.1",), "rank": 2},
    "norm-bias": {"layers": ("model",)},
    "last-block": {"layers": ("model.encoder.layer.1",)},
}


def rows(*texts):
    return torch.from_numpy(bytes_of(texts, LENGTH))


LIKE = rows(*(text for text, _ in topic_texts(4)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    return transformer_folder(tmp_path_factory.mktemp("model") / "small")


def prepared(folder, **more):
    facts = replace(FACTS, **more)
    return prepare_backbone(f"hf:{folder}", None, facts, LIKE, tokens=TOKENS)


def test_features_are_the_mean_of_the_states_of_a_text_s_own_tokens(folder):
    file = prepared(folder)
    assert (file.facts.features, file.facts.tokens) == (HIDDEN, TOKENS)
    network = backbone_network(f"hf:{folder}", weights=True)
    backbone = Backbone(network, file)
    texts = ("t0w0 common1", "t1w1 t1w2 t1w3 t1w4 t1w5 t1w6 t1w7 t1w8 t1w9", "t1w1 unknown")
    ids = backbone.preprocessing(rows(*texts))
    assert ids.shape == (3, TOKENS)
    assert ids[0, :5].tolist() == [2, 4, 101, 3, 0]
    # The end is cut before the closing token.
    assert ids[1, -1] == 3
    states = network.model(
        input_ids=ids[:1, :4].long(), attention_mask=torch.ones(1, 4)
    ).last_hidden_state
    expected = (states.mean(1) - file.centre) * file.scale
    torch.testing.assert_close(backbone(rows(*texts))[:1], expected, rtol=1e-4, atol=1e-5)
    found = backbone(LIKE)
    assert found.mean(0).abs().max() < 1e-4
    assert found.square().sum(1).mean().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_it_is_adapted_behind_a_cut(folder, tmp_path, part):
    prepared(folder, adapt=part, **PARTS[part]).write(tmp_path / "b.safetensors")
    # A site has the folder beside its configuration, and no weights in it.
    site = tmp_path / "small"
    site.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (site / name).write_bytes((folder / name).read_bytes())
    config = BackboneConfig(file="b.safetensors", network=for_site(f"hf:{folder}"))
    backbone = InstalledBackbone.of(config, tmp_path)
    values, tail = backbone.front()(LIKE), backbone.installed.tail()
    whole = Backbone(backbone_network(f"hf:{folder}", weights=True), prepared(folder))
    torch.testing.assert_close(tail(values), whole(LIKE), rtol=1e-4, atol=1e-5)
    tail(values[:3]).square().sum().backward()
    # Rounded to float32 as in the site's file, the ids still name the same tokens.
    assert torch.isfinite(tail.change.grad).all()
    assert tail.change.grad.abs().sum() > 0
    assert len(tail.change) == backbone.part.adapted


def test_the_digest_holds_tokenizer_and_length_and_other_backbones_keep_theirs(folder, tmp_path):
    file = prepared(folder)
    other = transformer_folder(tmp_path / "other", lower=True)
    digests = {
        file.part.digest,
        prepared(other).part.digest,
        replace(file, facts=replace(file.facts, tokens=TOKENS - 1)).part.digest,
    }
    assert len(digests) == 3
    file.write(tmp_path / "b.safetensors")
    config = BackboneConfig(file="b.safetensors", network="hf:other")
    with pytest.raises(TargetError, match="another tokenizer") as caught:
        InstalledBackbone.of(config, tmp_path).front()
    assert file.facts.tokenizer in str(caught.value)
    config = BackboneConfig(file="b.safetensors", network=NETWORK)
    with pytest.raises(TargetError, match=r"weights|network"):
        InstalledBackbone.of(config, tmp_path).front()


def test_what_is_no_transformer_of_texts_is_told_in_a_sentence(folder, tmp_path):
    with pytest.raises(TargetError, match=r"--like.*--text"):
        prepare_backbone(f"hf:{folder}", None, FACTS)
    with pytest.raises(TargetError, match="more than 2, got 2"):
        prepare_backbone(f"hf:{folder}", None, FACTS, LIKE, tokens=2)
    with pytest.raises(TargetError, match="inputs"):
        # More tokens than the model has places for.
        prepare_backbone(f"hf:{folder}", None, FACTS, LIKE, tokens=8 * TOKENS)
    with pytest.raises(TargetError, match="those in its folder"):
        prepare_backbone(f"hf:{folder}", folder / "model.safetensors", FACTS, LIKE, tokens=TOKENS)
    with pytest.raises(TargetError, match="no token that fills texts up"):
        backbone_network(f"hf:{transformer_folder(tmp_path / 'unpadded', pad=None)}")
    own = transformer_folder(tmp_path / "own")
    (own / "model.safetensors").unlink()
    with pytest.raises(TargetError, match="weights as safetensors"):
        backbone_network(f"hf:{own}", weights=True)
    facts = json.loads((own / "config.json").read_text())
    facts |= {"model_type": "strange", "auto_map": {"AutoModel": "code.Model"}}
    (own / "config.json").write_text(json.dumps(facts))
    (own / "code.py").write_text("raise SystemExit('code in the folder has run')")
    with pytest.raises(TargetError, match="can't be built"):
        backbone_network(f"hf:{own}")


def test_a_folder_that_is_not_there_is_told_without_any_package(tmp_path):
    with pytest.raises(TargetError, match=r"no config\.json in .*nothing is downloaded"):
        backbone_network(f"hf:{tmp_path}")


def test_the_digest_of_other_backbones_says_nothing_of_texts():
    known = {"cut", "features", "input_shape", "mean", "resize", "std"}
    assert json.loads(FACTS.text).keys() == known


def test_a_network_of_pictures_takes_no_texts():
    facts = replace(FACTS, tokens=TOKENS, tokenizer="0" * 64)
    with pytest.raises(TargetError, match="takes no texts"):
        Backbone(nn.Linear(LENGTH, 2), file_of(facts))
    with pytest.raises(TargetError, match="takes no texts"):
        prepare_backbone(NETWORK, None, FACTS, LIKE, tokens=TOKENS)


def file_of(facts):
    """A file of these facts whose network is of no account."""
    zeros = torch.zeros(2, LENGTH)
    return BackboneFile(
        facts=facts,
        network={},
        centre=torch.zeros(1),
        scale=torch.ones(()),
        inputs=zeros,
        expected=zeros,
    )
