"""Arms by name: key, label and description of every start that is measured at held-out sites.

The list is the only place for names: tables, reports and charts read it. An arm that is added here
gets its start in `f2l_fed.evaluation.arms.starts`, or in a baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

GENERATED = "generated"
"""Key of the served start, which all others are compared with."""

RANDOM = "random"
"""Key of the baseline: its accuracy after the last step is the target accuracy."""

PRIOR = "prior"
"""Key of the prior's start for the site's own context."""

PROBE = "probe"
"""Key of the start after the probe's own steps."""

WRONG_CONTEXT = "wrong_context"
"""Key of the prior's start for the context of another site."""


ALONE = "local"
"""Key of the network that a site without a federation trains to the end."""

LOGISTIC = "logistic"
"""Key of the head that a site solves on the body by itself: what has to be beaten."""

SHARED = "shared"
"""Key of the shared network with the site's label mix: what a map around it has to beat."""


THIS_FEDERATION = "this_federation"
"""Key of the federation itself among the own networks of training sites."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One arm of the comparison.

    Args:
        key: Its name in ``result.json``, never changed.
        label: Its name for people, at most 13 characters.
        description: The start in a phrase.
        adapt: The adapted part that it is of, "head", "all" or, around a network that all sites
            share, "shared"; "" for each.
    """

    key: str
    label: str
    description: str
    adapt: str = ""


ARMS = (
    Arm(
        key=RANDOM,
        label="random",
        description="an untrained network, as in training from scratch",
    ),
    Arm(
        key=ALONE,
        label="trained alone",
        description="an untrained network after 300 steps on the site's examples",
    ),
    Arm(
        key="global_mean",
        label="mean of all",
        description="one average of all networks for every site, as in federated averaging",
    ),
    Arm(
        key="nearest",
        label="nearest",
        description="the stored network of the site with the nearest context",
    ),
    Arm(
        key="soup",
        label="mean of 8",
        description="the average of the 8 stored networks with the nearest contexts",
    ),
    Arm(
        key=SHARED,
        label="shared + mix",
        description="the network that all sites share, with the site's own label frequencies",
        adapt="shared",
    ),
    Arm(
        key=PROBE,
        label="probe itself",
        description="the network at the end of the probe's own gradient steps",
        adapt="all",
    ),
    Arm(
        key="class_means",
        label="class means",
        description="the federation's body and the nearest mean of a class, as in ProtoNet",
        adapt="head",
    ),
    Arm(
        key=LOGISTIC,
        label="logistic head",
        description="the federation's body and a logistic head that the site solves by itself",
        adapt="head",
    ),
    Arm(
        key="common_prior",
        label="without rows",
        description="the linear prediction of what all classes have in common, without the rest",
        adapt="head",
    ),
    Arm(
        key=PRIOR,
        label="linear prior",
        description="a linear prediction from the site's probe, without the flow",
    ),
    Arm(
        key=WRONG_CONTEXT,
        label="wrong context",
        description="the linear prediction from the probe of another site",
    ),
    Arm(
        key="gaussian",
        label="Gaussian",
        description="normal noise around the linear prediction, with the same choice at the site",
        adapt="all",
    ),
    Arm(
        key=GENERATED,
        label="generated",
        description="the start that a site gets from this release",
    ),
)
"""In the order in which they are measured and shown."""


BASELINE_ARMS = (
    Arm(
        key="protonet",
        label="ProtoNet",
        description="federated class means: a body of episodes for them, and the nearest mean",
    ),
    Arm(
        key="protonet_logistic",
        label="ProtoNet + LR",
        description="the same body, and a logistic head that the site solves by itself",
    ),
    Arm(
        key="fedavg",
        label="FedAvg",
        description="one average of networks that were trained on their sites' own labels",
    ),
    Arm(
        key="fedavg_logistic",
        label="FedAvg + LR",
        description="the body of that average, and a logistic head of the site's own",
    ),
    Arm(
        key="fedper_logistic",
        label="FedPer + LR",
        description="a body trained under heads that stay at sites, and a logistic head",
    ),
    Arm(
        key="per_fedavg",
        label="Per-FedAvg",
        description="a start that was trained to be good after local steps, by first-order MAML",
    ),
    Arm(
        key="alone_to_end",
        label="alone to end",
        description="an untrained network after steps until nothing is left to learn",
    ),
)
"""Arms of `f2l_fed.evaluation.baselines`, which are measured on demand."""


PERSONALISED_ARMS = (
    Arm(
        key=THIS_FEDERATION,
        label="F2L-Fed",
        description="what a site makes of the round's release",
    ),
    Arm(
        key="local_only",
        label="local only",
        description="a network that goes on learning at its site, without a federation",
    ),
    Arm(
        key="plain_fedavg",
        label="FedAvg",
        description="the mean network of all sites, weighted by examples",
    ),
    Arm(
        key="fedavg_epochs",
        label="FedAvg + 5",
        description="that mean after five local epochs with a learning rate that falls to zero",
    ),
    Arm(
        key="fedavg_accelerated",
        label="accelerated+5",
        description="the same, with a server that goes further the way of its last change",
    ),
    Arm(
        key="fedper",
        label="FedPer",
        description="an averaged body, and a head that stays at its site",
    ),
    Arm(
        key="fedrep",
        label="FedRep",
        description="an averaged body, trained under a head that was trained before it",
    ),
    Arm(
        key="ditto",
        label="Ditto",
        description="a network of the site's own, pulled to the mean of all",
    ),
    Arm(
        key="fedala",
        label="FedALA",
        description="a head mixed from the site's own and the mean's, number by number",
    ),
    Arm(
        key="pfedhn",
        label="pFedHN",
        description="a network that the server makes from a learnt description of the site",
    ),
)
"""Arms of `f2l_fed.evaluation.baselines.personalised`: own networks of training sites."""

FEWEST_SITES = 5
"""Number of sites from which an interval is shown; with fewer it says nothing."""


def keys(adapt: str) -> tuple[str, ...]:
    """The keys of the arms of an adapted part, in their order."""
    return tuple(arm.key for arm in ARMS if arm.adapt in ("", adapt))


_BY_KEY = {arm.key: arm for arm in (*ARMS, *BASELINE_ARMS, *PERSONALISED_ARMS)}


def label(key: str) -> str:
    """An arm's name for people; an unknown key in words.

    >>> label("soup"), label("of_another_release")
    ('mean of 8', 'of another release')
    """
    return _BY_KEY[key].label if key in _BY_KEY else key.replace("_", " ")


def description(key: str) -> str:
    """An arm's start in a phrase; empty for an unknown key.

    >>> description("nearest")
    'the stored network of the site with the nearest context'
    """
    return _BY_KEY[key].description if key in _BY_KEY else ""
