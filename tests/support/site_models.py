"""Untrained networks of sites, as they would be kept."""

from __future__ import annotations

import torch

from clients.site.model_facts import ModelFacts
from clients.site.model_store import Model
from clients.site.site import Site
from f2l_fed.core.random_streams import generator_for
from f2l_fed.targets import build_target


def network_of(site: Site, labels: tuple[str, ...], draw: str) -> Model:
    """Some network on the site's inputs for these labels, drawn by a name."""
    shape = tuple(site.train.x.shape[1:])
    target = build_target("cnn-xs" if len(shape) == 3 else "mlp", shape, len(labels))
    facts = ModelFacts(
        site=site.config.name,
        time="",
        target=target.name,
        classes=len(labels),
        labels=labels,
        input_shape=shape,
        lineage="",
        round=1,
        release="",
        chosen="prior",
        layout=target.layout.digest,
        steps=0,
        accuracy_before=0,
        accuracy=0,
        encoding=site.encoding.text,
    )
    weights = torch.randn(target.layout.size, generator=generator_for(draw)) / 3
    return Model(weights=weights, layout=target.layout, facts=facts)
