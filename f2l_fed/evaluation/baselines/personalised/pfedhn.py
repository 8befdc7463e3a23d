"""pFedHN: networks that a network at the server makes from a learnt description of each site.

Reference:
    Shamsian et al.: Personalized federated learning using hypernetworks, arXiv 2103.04628.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from f2l_fed.core.random_streams import seed_for
from f2l_fed.evaluation.baselines.personalised.local_epochs import calibrated, descend_side_by_side
from f2l_fed.evaluation.baselines.personalised.method import (
    Networks,
    PersonalisedBaseline,
    PersonalisedSettings,
    PersonalisedWork,
    all_numbers,
)

_KEY = "pfedhn"

_HIDDEN = 100


class Hypernetwork(nn.Module):
    """A network from the descriptions of S sites to their networks; all begin near one start.

    Args:
        sites: S.
        start: (D,) float32.
    """

    def __init__(self, sites: int, start: Tensor) -> None:
        super().__init__()
        size = 1 + sites // 4
        self.descriptions = nn.Parameter(torch.randn(sites, size))
        self.layers = nn.Sequential(
            *(nn.Linear(size, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU())
        )
        self.last = nn.Linear(_HIDDEN, len(start))
        with torch.no_grad():
            self.last.weight.mul_(0.1)
            self.last.bias.copy_(start)

    def forward(self) -> Tensor:
        """(S, D) float32, the network of every site."""
        found: Tensor = self.last(self.layers(self.descriptions))
        return found


def _train(work: PersonalisedWork, settings: PersonalisedSettings) -> Networks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(work.lineage, "personalised", _KEY))
        server = Hypernetwork(len(work.sites), work.start)
    optimiser = torch.optim.Adam(server.parameters(), settings.server_lr)
    for number in range(1, work.rounds + 1):
        sent = server().detach()
        made = descend_side_by_side(work, sent, settings.lr, _KEY, number)
        learn(server, optimiser, made, settings.server_steps)
        if number in work.measured:
            yield number, calibrated(work, server().detach()) if settings.received else made


def learn(server: Hypernetwork, optimiser: torch.optim.Optimizer, made: Tensor, steps: int) -> None:
    """Steps of the server towards the networks that the sites returned.

    The first step's gradient is that of the paper: the sites' changes, through the hypernetwork.

    Args:
        server: The hypernetwork; changed.
        optimiser: Of its parameters.
        made: (S, D) float32.
        steps: Number of steps.
    """
    for _ in range(steps):
        optimiser.zero_grad()
        loss: Tensor = (server() - made).square().sum(1).mean() / 2
        loss.backward()
        optimiser.step()


PFEDHN = PersonalisedBaseline(
    key=_KEY,
    settings=PersonalisedSettings(lr=0.2, server_lr=0.003, server_steps=1),
    train=_train,
    epochs=1,
    sent=all_numbers,
)
"""All sites take part in every round."""
