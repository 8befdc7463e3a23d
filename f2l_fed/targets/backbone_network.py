"""The network of a backbone, built by a name that the machine's own operator gives."""

from __future__ import annotations

import torch
from torch import nn

from f2l_fed.errors import TargetError
from f2l_fed.targets.imports import imported
from f2l_fed.targets.inspection import as_network, told

_WHERE = "[backbone] network"
_TIMM, _FOLDER = "timm", "hf"


def backbone_network(name: str) -> nn.Module:
    """Builds a network without a head, ready to predict; nothing is ever downloaded.

    Args:
        name: ``module:factory``, whose factory takes nothing, or ``timm:NAME``, where timm is
            installed.

    Raises:
        TargetError: If there is no such network.
    """
    kind, separator, rest = name.partition(":")
    if not separator or not rest:
        raise TargetError(
            "no network is named for the backbone's file",
            where=_WHERE,
            expected="module:factory or timm:NAME",
            got=repr(name),
            remedy="The administrator knows which; only you name code that runs here.",
        )
    if kind == _FOLDER:
        raise TargetError(
            "folders of transformers are not read",
            where=_WHERE,
            got=repr(name),
            remedy="Name a module:factory that builds the network and returns its features.",
        )
    # A factory may draw weights at random; the file's replace them.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            if kind == _TIMM:
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
                remedy="" if kind == _TIMM else "Its factory is called without arguments.",
            ) from error
    return as_network(network, where=_WHERE).eval()
