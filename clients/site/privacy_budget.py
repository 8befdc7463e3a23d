"""The site's privacy budget: its size, the record of what is spent, the noise of an answer.

``privacy.json`` in the state folder is the ledger of everything that was ever made from the
site's examples to be sent. It is written before an answer is made: a crash may cost a part of the
budget but never hides one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from clients.site.sent_log import SENT, SentLog
from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.core.validation import positive, require
from f2l_fed.errors import ConfigError, F2LError, PolicyRefusal, UsageError
from f2l_fed.privacy.accountant import Ledger, Spending, noise_multiplier_for

LEDGER = "privacy.json"
"""Name of the record in the state folder."""

_LOCK = "privacy.lock"

_ROUNDING = 1e-6
"""Share by which another version of torch may compute another ε."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyConfig:
    """Differential privacy of what leaves the site.

    Args:
        epsilon: ε of all that is ever sent, with every example as a unit; 0 sends plain updates.
        delta: δ; well below one over the number of examples.
        answers: Number of answers that share the budget evenly; afterwards the site refuses.
        max_norm: Bound on the gradient of one example, or where all sites share a body of one
            episode; a longer one is clipped to it.
        body_steps: Largest number of steps of the body in an answer, however many are asked for.
        body_lr: Their learning rate.
    """

    epsilon: float = 0.0
    delta: float = 1e-5
    answers: int = 10
    max_norm: float = 1.0
    body_steps: int = 3
    body_lr: float = 0.1

    def __post_init__(self) -> None:
        require(0 <= self.epsilon < math.inf, self, "epsilon", ">= 0, finite")
        require(0 < self.delta < 1, self, "delta", "> 0 and < 1")
        positive(self, "answers", "max_norm", "body_steps", "body_lr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A budget with the record of what is spent.

    Args:
        config: Size of the budget.
        state: The site's state folder.
    """

    config: PrivacyConfig
    state: Path

    def spent(self) -> dict[str, float]:
        """The spent ε, the whole ε and δ, as "spent", "epsilon" and "delta"; and "answers" so far.

        Raises:
            ConfigError: If the ledger can't be read; then nothing may be sent.
        """
        ledger, made = self._read()
        used, config = ledger.epsilon(self.config.delta), self.config
        return {"spent": used, "epsilon": config.epsilon, "delta": config.delta, "answers": made}

    def spend(self, parts: Sequence[tuple[float, int]], *, most: float = math.inf) -> float:
        """Takes one answer off the budget, durably.

        Args:
            parts: Sampling rate and number of steps of each descent of the answer.
            most: Largest noise multiplier with which it still says something.

        Returns:
            The noise multiplier with which the remaining answers, if all are like this one,
            spend the rest of the budget.

        Raises:
            PolicyRefusal: If nothing is left, or the noise would be larger; then nothing is taken.
            ConfigError: If the record can't be read.
        """
        config = self.config
        with locked(self.state / _LOCK):
            ledger, made = self._read()
            left = config.answers - made
            planned = [(rate, steps * left) for rate, steps in parts]
            try:
                if left < 1:
                    raise PolicyRefusal("privacy-budget-spent")
                noise = noise_multiplier_for(config.epsilon, config.delta, planned, ledger)
            except UsageError as error:
                # The budget was made smaller than what had been spent.
                raise PolicyRefusal("privacy-budget-spent") from error
            if noise > most:
                raise PolicyRefusal("scales-below-noise")
            for rate, steps in parts:
                ledger = ledger.spend(noise, rate, steps)
            record = {"answers": made + 1, "spent": [asdict(spending) for spending in ledger.spent]}
            path = self.state / LEDGER
            write_atomically(path, json.dumps(record, indent=1) + "\n", mode=0o600)
        return noise

    def _read(self) -> tuple[Ledger, int]:
        """Everything that was spent, and the number of answers that it has paid for.

        Compared with the record of what has left, which says what was spent by then: the ledger is
        written first, so it never says less.
        """
        path = self.state / LEDGER
        ledger, made = Ledger(), 0
        if path.exists():
            try:
                ledger, made = _parsed(path.read_text(encoding="utf-8"))
            except (ValueError, KeyError, TypeError, OSError, F2LError) as error:
                raise ConfigError(
                    "the ledger of the privacy budget is damaged",
                    where=str(path),
                    remedy="Restore it from a backup: without it nobody knows what is left.",
                ) from error
        told = SentLog.in_folder(self.state).latest_budget()
        if told is None:
            return ledger, made
        used, answers = float(told["spent"]), int(told.get("answers", 0))
        if ledger.epsilon(float(told["delta"])) < used * (1 - _ROUNDING) or made < answers:
            raise ConfigError(
                "the ledger of the privacy budget says less than has left",
                where=str(path),
                expected=f"at least ε {used:.4g} of {SENT}",
                got=f"ε {ledger.epsilon(float(told['delta'])):.4g}" if path.exists() else "no file",
                remedy="Restore the latest ledger from a backup; without one the budget counts as "
                "spent, and another state folder is for other examples only.",
            )
        return ledger, made


def _parsed(text: str) -> tuple[Ledger, int]:
    """The ledger in a text, and the number of answers that it has paid for."""
    record = json.loads(text)
    spent, made = record["spent"], record["answers"]
    if type(made) is not int or made < 0 or not isinstance(spent, list):
        raise ValueError("not a ledger")
    if not all(isinstance(spending, dict) for spending in spent) or (spent and not made):
        raise ValueError("not a ledger")
    return Ledger(spent=tuple(from_mapping(Spending, one, where=LEDGER) for one in spent)), made
