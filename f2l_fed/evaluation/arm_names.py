"""TODO."""

from __future__ import annotations

ARMS = (
    "random",
    "global_mean",
    "nearest",
    "soup",
    "probe",
    "prior",
    "wrong_context",
    "gaussian",
    "generated",
)


LABELS = {
    "random": "random",
    "global_mean": "mean of all",
    "nearest": "nearest",
    "soup": "mean of 8",
    "probe": "probe itself",
    "prior": "linear prior",
    "wrong_context": "wrong context",
    "gaussian": "Gaussian",
    "generated": "generated",
}


STARTS = {
    "random": "an untrained network, as a site would begin today",
    "global_mean": "one average of all networks for every site, as in federated averaging",
    "nearest": "the stored network of the site most like this one",
    "probe": "the network that the probe's own gradient steps end at",
    "soup": "the average of the stored networks of the sites most like this one",
    "prior": "a linear prediction from the site's probe, without the flow",
    "wrong_context": "the linear prediction from the probe of a stranger",
    "gaussian": "plain noise around the linear prediction, with the same choice at the site",
    "generated": "what a site gets from this release",
}


def label(name: str) -> str:
    """An arm's name for people.

    >>> label("global_mean")
    'global mean'
    """
    return name.replace("_", " ")
