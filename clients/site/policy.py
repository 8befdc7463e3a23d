"""A site's policy: what it does for the server and what may leave, whatever the server asks.

A refusal's text is a code, and the code is all that leaves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from f2l_fed.core.validation import positive, require, share
from f2l_fed.errors import PolicyRefusal
from f2l_fed.local_training.config import Recipe
from f2l_fed.wire.messages import NUMBERS

ANSWERS = ("probe", "update", "body")
"""Kinds of answers that hold parameters."""

SCALES = "scales"
"""Kind of the answer with mean and spread of columns, which leaves only where it is named."""

_TARGETS = ("mlp", "cnn-xs", "cnn-s", "cnn-m", "adapter")
"""Networks that a site builds unless its operator says otherwise."""

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """The limits of a site, which only its operator can change.

    Args:
        targets: Networks the site is willing to build, by name and separated by spaces; one
            written ``module:factory`` runs that code here. "adapter" is a head on the backbone that
            the site itself names.
        numbers: Numbers that may leave, separated by spaces.
        minimum_examples: Smallest number of training examples with which the site takes part.
        maximum_steps: Largest number of gradient steps of one network, and of one probe.
        maximum_total_steps: Largest number of gradient steps of a message, those of all its
            networks and probes together.
        maximum_episodes: Largest number of episodes, each with a probe and a network.
        minimum_batch: Smallest number of examples in a gradient of the fine-tuning; where the site
            has fewer, all of them. No matter with a privacy budget.
        minimum_head_examples: Smallest number of examples of a head that leaves, and of a probe
            from an anchor whose output layer is not zero, which shared labels alone allow.
        maximum_lr: Highest learning rate.
        maximum_momentum: Highest momentum.
        maximum_parameters: Largest number of parameters of a network, which is not built before.
        maximum_download_bytes: Largest request.
        maximum_upload_bytes: Largest answer.
        answers_per_day: Largest number of answers in 24 hours.
        rounds_per_day: Largest number of updates in 24 hours.
        shared_labels: Whether label k means the same at every site of the federation, as the
            server said at the registration.
        nearest: Whether the site takes part in a federation that hands out exact networks, those of
            this site too, to other sites.
        release_to_sites: Whether the site takes part in a federation that gives its compact
            generator, made of this site's networks too, to all of its sites; and fetches it.
        answers: Kinds of answers that may leave, separated by spaces: "probe" holds the change
            that a few steps from a common start make to the parameters, "update" the fine-tuned
            parameters and probes again. Where all sites share a body, "probe" and "update" are
            output layers on it, and "body" is the body after training on the site's examples.
            "scales", mean and spread of each column of numbers, has to be named.
        maximum_body_change: Largest change of the body from one to the next, relative to its
            length or to 1 where that is more, that the site goes along with.
        apps: SHA-256 of the Flower apps on whose behalf the site answers, separated by spaces;
            "" for any, since what the server sends is never run here.
    """

    targets: str = " ".join(_TARGETS)
    numbers: str = " ".join(NUMBERS)
    minimum_examples: int = 10
    maximum_steps: int = 1000
    maximum_total_steps: int = 20_000
    maximum_episodes: int = 64
    minimum_batch: int = 8
    minimum_head_examples: int = 10
    maximum_lr: float = 1.0
    maximum_momentum: float = 0.99
    maximum_parameters: int = 2**24
    maximum_download_bytes: int = 2**30
    maximum_upload_bytes: int = 2**28
    answers_per_day: int = 1000
    rounds_per_day: int = 100
    shared_labels: bool = False
    nearest: bool = True
    release_to_sites: bool = True
    answers: str = " ".join(ANSWERS)
    maximum_body_change: float = 3.0
    apps: str = ""

    def __post_init__(self) -> None:
        positive(
            self,
            "minimum_examples",
            "maximum_steps",
            "maximum_total_steps",
            "maximum_episodes",
            "minimum_batch",
            "minimum_head_examples",
            "maximum_lr",
            "maximum_body_change",
            "maximum_parameters",
            "maximum_download_bytes",
            "maximum_upload_bytes",
            "answers_per_day",
            "rounds_per_day",
        )
        share(self, "maximum_momentum")
        known_kinds = (*ANSWERS, SCALES)
        kinds = set(self.answers.split()) <= set(known_kinds)
        require(kinds, self, "answers", f"some of {' '.join(known_kinds)}")
        hashes = all(_HASH.fullmatch(app) for app in self.apps.split())
        require(hashes, self, "apps", "64 hexadecimal digits each")
        known = set(self.numbers.split()) <= set(NUMBERS)
        require(known, self, "numbers", f"some of {' '.join(NUMBERS)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work that a request asks for, all of it together.

    Args:
        episodes: Number of probes.
        networks: Number of networks to fine-tune.
        steps: Gradient steps of all of them.
        examples: Smallest number of examples in a gradient of the fine-tuning; 0 for no gradient.
        anchor: First digits of the SHA-256 of the start of the probes; "first" for the lineage's
            first anchor, which the site rebuilds.
    """

    episodes: int
    networks: int
    steps: int
    examples: int
    anchor: str


def allow_request(policy: PolicyConfig, target: str, recipe: Recipe, examples: int) -> None:
    """Raises PolicyRefusal if a request is outside the limits.

    Args:
        policy: The site's policy.
        target: Name of the network that it is about.
        recipe: Gradient steps that it asks for, of a network or a probe.
        examples: Number of the site's training examples.
    """
    for code in refused_of(policy, target, recipe, examples):
        raise PolicyRefusal(code)


def refused_of(policy: PolicyConfig, target: str, recipe: Recipe, examples: int) -> Iterator[str]:
    """The codes of all that is outside the limits; arguments as of `allow_request`."""
    if target not in policy.targets.split():
        yield "target-not-allowed"
    if recipe.steps > policy.maximum_steps:
        yield "too-many-steps"
    if not recipe.lr <= policy.maximum_lr:
        yield "learning-rate-too-high"
    if not recipe.momentum <= policy.maximum_momentum:
        yield "momentum-too-high"
    if examples < policy.minimum_examples:
        yield "too-few-examples"


def allow_work(policy: PolicyConfig, work: Work) -> None:
    """Raises PolicyRefusal if a request asks for too much work in all."""
    if max(work.episodes, work.networks) > policy.maximum_episodes:
        raise PolicyRefusal("too-many-episodes")
    if work.steps > policy.maximum_total_steps:
        raise PolicyRefusal("too-many-steps-in-all")


def allow_batch(policy: PolicyConfig, work: Work, examples: int) -> None:
    """Raises PolicyRefusal if a gradient of the fine-tuning would be on too few of the examples."""
    if 0 < work.examples < min(policy.minimum_batch, examples):
        raise PolicyRefusal("too-few-examples-a-step")


def allow_network(policy: PolicyConfig, parameters: int, work: Work) -> None:
    """Raises PolicyRefusal if a network is too large, or an answer of so many would be."""
    if parameters > policy.maximum_parameters:
        raise PolicyRefusal("network-too-large")
    if 4 * parameters * (work.episodes + work.networks) > policy.maximum_upload_bytes:
        raise PolicyRefusal("upload-too-large")


def allow_download(policy: PolicyConfig, size_bytes: int) -> None:
    """Raises PolicyRefusal if a request is too large to be unpacked."""
    if size_bytes > policy.maximum_download_bytes:
        raise PolicyRefusal("request-too-large")


def allow_answer(policy: PolicyConfig, kind: str, app: str | None) -> None:
    """Raises PolicyRefusal if such an answer may not leave, or not on behalf of this app.

    Args:
        policy: The site's policy.
        kind: One of `ANSWERS`.
        app: SHA-256 of the Flower app that asks; "" where it is not known, None for none.
    """
    if policy.apps and app is not None and app not in policy.apps.split():
        raise PolicyRefusal("app-not-allowed")
    if kind not in policy.answers.split():
        raise PolicyRefusal("answer-not-allowed")


def allowed_numbers(policy: PolicyConfig, numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that may leave."""
    allowed = policy.numbers.split()
    return {name: value for name, value in numbers.items() if name in allowed}
