"""Contexts of sites that sent several and of those that were asked for one go to one task."""

from __future__ import annotations

import torch

from server.cluster.backend import stacked


def test_as_many_contexts_are_taken_as_every_site_has():
    several, one = torch.randn(4, 5), torch.randn(1, 5)
    assert torch.equal(stacked([several, one]), torch.stack([several[:1], one]))
    assert torch.equal(stacked([several, several]), torch.stack([several, several]))
