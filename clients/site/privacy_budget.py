"""The site's privacy budget: its size, the record of what is spent, the noise of an answer.

``privacy.json`` in the state folder is the ledger of everything that was ever made from the
site's examples to be sent. It is written before an answer is made: a crash may cost a part of the
budget but never hides one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.core.locks import locked
from f2l_fed.core.validation import positive, require
from f2l_fed.errors import ConfigError, F2LError, PolicyRefusal, UsageError
from f2l_fed.privacy.accountant import Ledger, Spending, noise_multiplier_for

LEDGER = "privacy.json"
"""Name of the record in the state folder."""

_LOCK = "privacy.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyConfig:
    """Differential privacy of what leaves the site.

    Args:
        epsilon: ε of all that is ever sent, with every example as a unit; 0 sends plain updates.
        delta: δ; well below one over the number of examples.
        answers: Number of answers that share the budget evenly; afterwards the site refuses.
        max_norm: Bound on the gradient of one example; a longer one is clipped to it.
    """

    epsilon: float = 0.0
    delta: float = 1e-5
    answers: int = 10
    max_norm: float = 1.0

    def __post_init__(self) -> None:
        require(0 <= self.epsilon < math.inf, self, "epsilon", ">= 0, finite")
        require(0 < self.delta < 1, self, "delta", "> 0 and < 1")
        positive(self, "answers", "max_norm")


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
        """The spent ε, the whole ε and δ, as "spent", "epsilon" and "delta".

        Raises:
            ConfigError: If the record can't be read; then nothing may be sent.
        """
        used = self._read()[0].epsilon(self.config.delta)
        return {"spent": used, "epsilon": self.config.epsilon, "delta": self.config.delta}

    def spend(self, parts: Sequence[tuple[float, int]]) -> float:
        """Takes one answer off the budget, durably.

        Args:
            parts: Sampling rate and number of steps of each descent of the answer.

        Returns:
            The noise multiplier with which the remaining answers, if all are like this one,
            spend the rest of the budget.

        Raises:
            PolicyRefusal: If nothing is left.
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
            for rate, steps in parts:
                ledger = ledger.spend(noise, rate, steps)
            record = {"answers": made + 1, "spent": [asdict(spending) for spending in ledger.spent]}
            path = self.state / LEDGER
            write_atomically(path, json.dumps(record, indent=1) + "\n", mode=0o600)
        return noise

    def _read(self) -> tuple[Ledger, int]:
        """Everything that was spent, and the number of answers that it has paid for."""
        path = self.state / LEDGER
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            spent = tuple(
                from_mapping(Spending, spending, where=str(path)) for spending in record["spent"]
            )
            return Ledger(spent=spent), int(record["answers"])
        except FileNotFoundError:
            return Ledger(), 0
        except (ValueError, KeyError, TypeError, F2LError) as error:
            raise ConfigError(
                "the record of the privacy budget is damaged",
                where=str(path),
                remedy="Restore it from a backup: without it nobody knows what is left.",
            ) from error

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.state / _LOCK, mode=0o666, create_folder=False)
