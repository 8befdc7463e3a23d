"""The preparation of a backbone's file from a network and its pretrained weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from f2l_fed.core.wording import file_fault
from f2l_fed.errors import DataError, TargetError
from f2l_fed.targets.backbone import Backbone, cut_backbone, features_of, fill
from f2l_fed.targets.backbone_file import BackboneFacts, BackboneFile
from f2l_fed.targets.backbone_network import backbone_network
from f2l_fed.targets.config import HEAD
from f2l_fed.targets.inspection import called
from f2l_fed.targets.synthetic_inputs import synthetic_inputs
from f2l_fed.targets.transformer import Transformer

_SYNTHETIC = 512


def prepare_backbone(
    network: str,
    weights: Path | None,
    description: BackboneFacts,
    like: Tensor | None = None,
    *,
    tokens: int = 0,
) -> BackboneFile:
    """Prepares a backbone: takes its tensors, and centres and scales its features.

    Args:
        network: ``module:factory``, ``timm:NAME`` or ``hf:FOLDER``, a network without a head.
        weights: The safetensors file of its tensors; None takes those of the factory, or folder.
        description: The facts, whatever number of features they say.
        like: (n, *input_shape) float32, public inputs whose features become centred with length 1
            at the mean; synthetic ones if None.
        tokens: T, the tokens that a text becomes, where the network takes texts.

    Raises:
        DataError: If the weights can't be read.
        TargetError: If network and weights or inputs don't suit each other.
    """
    where = f"backbone {network!r}"
    module = backbone_network(network, weights=weights is None)
    if isinstance(module, Transformer):
        if like is None or not tokens:
            raise TargetError(
                "the network takes texts, of which there are no synthetic ones",
                where=where,
                remedy="Name a table of public ones with --like, and their column with --text.",
            )
        if weights is not None:
            raise TargetError("a transformer's weights are those in its folder", where=str(weights))
        description = replace(description, tokens=tokens, tokenizer=module.digest)
    elif tokens:
        raise TargetError(
            "the network takes no texts", where=where, remedy="Leave out --text, or name hf:FOLDER."
        )
    if weights is not None:
        fill(module, _weights(weights), network, str(weights))
    draws = torch.Generator().manual_seed(0)
    like = synthetic_inputs(description.input_shape, _SYNTHETIC, draws) if like is None else like
    none = BackboneFile(
        facts=description,
        network={},
        centre=torch.zeros(()),
        scale=torch.ones(()),
        inputs=like[:2],
        expected=like[:2],
    )
    raw = Backbone(module, none)
    if (pooled := called(raw, like[:2], where=where)).dim() != 2:
        raise TargetError(
            "the network makes no features of an input",
            where=where,
            expected="(batch, features), or maps (batch, features, height, width)",
            got=str(tuple(pooled.shape)),
        )
    before = {name: value.clone() for name, value in _tensors(module).items()}
    alone, again = called(raw, like[:1], where=where), called(raw, like[:2], where=where)
    after = _tensors(module)
    if not torch.equal(again, pooled) or any(
        not torch.equal(value, after[name]) for name, value in before.items()
    ):
        raise TargetError(
            "the network is random, or changes when it is called",
            where=where,
            remedy="Make it answer alike in eval mode.",
        )
    if not torch.allclose(alone, pooled[:1], rtol=1e-3, atol=1e-3):
        raise TargetError(
            "an example's features depend on the others of its batch",
            where=where,
            remedy="Use a network whose eval mode treats examples apart.",
        )
    found = features_of(raw, like)
    centre = found.mean(0)
    length = (found - centre).square().sum(1).mean().sqrt()
    if not bool(found.isfinite().all()) or float(length) <= 0:
        raise TargetError("the features are all the same, or not finite", where=where)
    facts, tensors = replace(description, features=found.shape[1]), _tensors(module)
    if facts.adapt != HEAD:
        cut = cut_backbone(raw, facts, like[:2], where=where)
        facts = replace(facts, adapted=cut.adapted)
    return BackboneFile(
        facts=facts,
        network=tensors,
        centre=centre,
        scale=1 / length,
        inputs=like[:2].clone(),
        expected=(found[:2] - centre) / length,
    )


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: one for name, one in module.state_dict().items() if isinstance(one, Tensor)}


def _weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            "the weights can't be read",
            where=str(path),
            expected="a .safetensors file",
            got=file_fault(error),
        ) from error
