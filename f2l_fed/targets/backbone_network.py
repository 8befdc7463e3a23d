"""The network of a backbone, built by a name that the machine's own operator gives."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from f2l_fed.errors import TargetError
from f2l_fed.targets.imports import imported
from f2l_fed.targets.inspection import as_network, told
from f2l_fed.targets.transformer import transformer

_WHERE = "[backbone] network"
_TIMM, _FOLDER = "timm", "hf"


def network_in(folder: Path, name: str) -> str:
    """The name of a network with a folder in it made absolute.

    Args:
        folder: What the name's folder is relative to.
        name: As in a configuration.
    """
    kind, _, rest = name.partition(":")
    return f"{kind}:{(folder / rest).absolute()}" if kind == _FOLDER and rest else name


def for_site(name: str) -> str:
    """The name of a network as a site has it that keeps a folder beside its configuration.

    >>> for_site("hf:models/minilm"), for_site("timm:resnet18")
    ('hf:minilm', 'timm:resnet18')
    """
    kind, _, rest = name.partition(":")
    return f"{kind}:{Path(rest).absolute().name}" if kind == _FOLDER and rest else name


def backbone_network(name: str, *, weights: bool = False) -> nn.Module:
    """Builds a network without a head, ready to predict; nothing is ever downloaded.

    Args:
        name: ``module:factory``, whose factory takes nothing; ``timm:NAME``, where timm is
            installed; or ``hf:FOLDER``, a transformer of texts, where transformers is.
        weights: Whether the weights in a folder are wanted, too.

    Raises:
        TargetError: If there is no such network.
    """
    kind, separator, rest = name.partition(":")
    if not separator or not rest:
        raise TargetError(
            "no network is named for the backbone's file",
            where=_WHERE,
            expected="module:factory, timm:NAME or hf:FOLDER",
            got=repr(name),
            remedy="The administrator knows which; only you name code that runs here.",
        )
    # A factory may draw weights at random; the file's replace them.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            if kind == _FOLDER:
                network: object = transformer(Path(rest), weights=weights, where=_WHERE)
            elif kind == _TIMM:
                create = imported("timm:create_model", where=_WHERE)
                network = create(rest, pretrained=False, num_classes=0)
            else:
                network = imported(name, where=_WHERE)()
        except TargetError:
            raise
        except Exception as error:
            raise TargetError(
                "the backbone's network can't be built",
                where=_WHERE,
                got=f"{name!r} ({told(error)})",
                remedy=""
                if kind in (_TIMM, _FOLDER)
                else "Its factory is called without arguments.",
            ) from error
    return as_network(network, where=_WHERE).eval()
