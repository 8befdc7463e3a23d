"""A site's policy: what it does for the server and what may leave, whatever the server asks.

A refusal's text is a code, and the code is all that leaves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from f2l_fed.core.validation import positive, require
from f2l_fed.errors import PolicyRefusal
from f2l_fed.local_training.config import Recipe
from f2l_fed.wire.messages import NUMBERS

ANSWERS = ("probe", "update")
"""Kinds of answers that hold parameters."""

_TARGETS = ("mlp", "cnn-xs", "cnn-s", "cnn-m")
"""Networks that a site builds unless its operator says otherwise."""

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """The limits of a site, which only its operator can change.

    Args:
        targets: Networks the site is willing to build, by name and separated by spaces; one
            written ``module:factory`` runs that code here.
        numbers: Numbers that may leave, separated by spaces.
        minimum_examples: Smallest number of training examples with which the site takes part.
        maximum_steps: Largest number of gradient steps in one task.
        maximum_lr: Highest learning rate.
        maximum_upload_bytes: Largest answer.
        answers_per_day: Largest number of answers in 24 hours.
        rounds_per_day: Largest number of rounds with an update in 24 hours.
        shared_labels: Whether label k means the same at every site of the federation, as the
            server said at the registration.
        answers: Kinds of answers that may leave, separated by spaces: "probe" holds the change
            that a few steps from a common start make to the parameters, "update" the fine-tuned
            parameters and probes again.
        apps: SHA-256 of the Flower apps on whose behalf the site answers, separated by spaces;
            "" for any, since what the server sends is never run here.
    """

    targets: str = " ".join(_TARGETS)
    numbers: str = " ".join(NUMBERS)
    minimum_examples: int = 10
    maximum_steps: int = 1000
    maximum_lr: float = 1.0
    maximum_upload_bytes: int = 2**28
    answers_per_day: int = 1000
    rounds_per_day: int = 100
    shared_labels: bool = False
    answers: str = " ".join(ANSWERS)
    apps: str = ""

    def __post_init__(self) -> None:
        positive(
            self,
            "minimum_examples",
            "maximum_steps",
            "maximum_lr",
            "maximum_upload_bytes",
            "answers_per_day",
            "rounds_per_day",
        )
        kinds = set(self.answers.split()) <= set(ANSWERS)
        require(kinds, self, "answers", f"some of {' '.join(ANSWERS)}")
        hashes = all(_HASH.fullmatch(app) for app in self.apps.split())
        require(hashes, self, "apps", "64 hexadecimal digits each")
        known = set(self.numbers.split()) <= set(NUMBERS)
        require(known, self, "numbers", f"some of {' '.join(NUMBERS)}")


def allow_request(policy: PolicyConfig, target: str, recipe: Recipe, examples: int) -> None:
    """Raises PolicyRefusal if a request is outside the limits.

    Args:
        policy: The site's policy.
        target: Name of the network that it is about.
        recipe: The gradient steps that it asks for.
        examples: Number of the site's training examples.
    """
    if target not in policy.targets.split():
        raise PolicyRefusal("target-not-allowed")
    if recipe.steps > policy.maximum_steps:
        raise PolicyRefusal("too-many-steps")
    if not recipe.lr <= policy.maximum_lr:
        raise PolicyRefusal("learning-rate-too-high")
    if examples < policy.minimum_examples:
        raise PolicyRefusal("too-few-examples")


def allow_answer(policy: PolicyConfig, kind: str, app: str) -> None:
    """Raises PolicyRefusal if such an answer may not leave, or not on behalf of this app.

    Args:
        policy: The site's policy.
        kind: One of `ANSWERS`.
        app: SHA-256 of the Flower app that asks; "" where it is not known.
    """
    if policy.apps and app not in policy.apps.split():
        raise PolicyRefusal("app-not-allowed")
    if kind not in policy.answers.split():
        raise PolicyRefusal("answer-not-allowed")


def allowed_numbers(policy: PolicyConfig, numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers that may leave."""
    allowed = policy.numbers.split()
    return {name: value for name, value in numbers.items() if name in allowed}
