"""The privacy accountant: ε of everything a site has sent, and the noise a budget takes.

The protected unit is the origin of one clipped vector: one example where per-example gradients
are clipped, the whole site where its update is. Neighbouring data differ by the
presence of one unit. The accounting is Rényi differential privacy, which adds up over steps.

References:
    [M17] Mironov: Rényi differential privacy. CSF 2017, proposition 7 and corollary 3.
    [MTZ19] Mironov, Talwar, Zhang: Rényi differential privacy of the sampled Gaussian mechanism.
        arXiv 1908.10530, section 3.3.
    [B20] Balle et al.: Hypothesis testing interpretations and Rényi differential privacy.
        AISTATS 2020, theorem 21.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite, log, sqrt

from f2l_fed.errors import UsageError

# Small orders serve large budgets, large ones small budgets.
ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)

_MIN_NOISE, _MAX_NOISE = 0.1, 1e6


def renyi(order: int, *, noise_multiplier: float, sampling_rate: float) -> float:
    """Rényi divergence of one step of the sampled Gaussian mechanism, in nats.

    Every unit takes part in a step with probability ``sampling_rate``, independently (Poisson
    sampling). Without sampling this is order / (2 noise_multiplier²) [M17]; with it, by [MTZ19],
    log(sum_k C(a, k) (1 - q)^(a - k) q^k exp((k² - k) / (2 s²))) / (a - 1).

    Args:
        order: a >= 2.
        noise_multiplier: s > 0.
        sampling_rate: q in (0, 1].

    >>> renyi(4, noise_multiplier=2.0, sampling_rate=1.0)
    0.5
    """
    # Divided twice instead of squared, because the square of a legal multiplier may underflow.
    rate = 0.5 / noise_multiplier / noise_multiplier
    if sampling_rate == 1:
        return order * rate
    # Only this case takes the second that the import does.
    import torch

    a = torch.tensor(order, dtype=torch.float64)
    k = torch.arange(2, order + 1, dtype=torch.float64)
    chance = (
        (a + 1).lgamma()
        - (k + 1).lgamma()
        - (a - k + 1).lgamma()
        + (a - k) * torch.tensor(-sampling_rate, dtype=torch.float64).log1p()
        + k * log(sampling_rate)
    )
    growth = (k**2 - k) * rate
    # The chances of all k add up to 1, so the sum is 1 plus terms in exp(growth) - 1, from k = 2
    # on: in this form small divergences keep their digits.
    excess = torch.logsumexp(chance + growth + torch.log(-torch.expm1(-growth)), dim=0)
    return float(torch.logaddexp(excess, torch.zeros_like(excess))) / (order - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """Steps of one mechanism.

    Args:
        noise_multiplier: Standard deviation of the noise over the clipping length.
        sampling_rate: Probability in (0, 1] that a unit takes part in a step.
        steps: Number of steps.
    """

    noise_multiplier: float
    sampling_rate: float
    steps: int

    def __post_init__(self) -> None:
        require_positive("noise_multiplier", self.noise_multiplier)
        if not 0 < self.sampling_rate <= 1:
            raise UsageError(
                "sampling_rate is not a probability",
                expected="> 0 and <= 1",
                got=str(self.sampling_rate),
            )
        if self.steps < 0:
            raise UsageError("steps is negative", expected="0 or more", got=str(self.steps))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Everything spent on the same data; a value, so that it can be stored and replayed.

    Args:
        spent: One entry for each mechanism, in the order of first use.
    """

    spent: tuple[Spending, ...] = ()

    def spend(self, noise_multiplier: float, sampling_rate: float, steps: int) -> Ledger:
        """The ledger after further steps.

        Raises:
            UsageError: If a number is out of range.

        >>> Ledger().spend(1.0, 0.1, 5).spend(1.0, 0.1, 2).spent[0].steps
        7
        """
        new = Spending(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps)
        for index, old in enumerate(self.spent):
            if replace(old, steps=steps) == new:
                more = replace(old, steps=old.steps + steps)
                return Ledger(spent=(*self.spent[:index], more, *self.spent[index + 1 :]))
        return Ledger(spent=(*self.spent, new))

    def renyi(self, order: int) -> float:
        """Rényi divergence of everything together, in nats."""
        return sum(
            spending.steps
            * renyi(
                order,
                noise_multiplier=spending.noise_multiplier,
                sampling_rate=spending.sampling_rate,
            )
            for spending in self.spent
        )

    def epsilon(self, delta: float) -> float:
        """The ε of (ε, δ) differential privacy, by [B20] at the best of `ORDERS`.

        Args:
            delta: δ in (0, 1); well below one over the number of units.

        Returns:
            ε >= 0; 0 before anything is spent.

        Raises:
            UsageError: If δ is out of range.
        """
        if not 0 < delta < 1:
            raise UsageError("delta is out of range", expected="> 0 and < 1", got=str(delta))
        if not any(spending.steps for spending in self.spent):
            return 0.0
        return _epsilon([self.renyi(order) for order in ORDERS], delta)


def noise_multiplier_for(
    epsilon: float, delta: float, parts: Sequence[tuple[float, int]], before: Ledger | None = None
) -> float:
    """The smallest noise multiplier with which steps stay within a budget, to a thousandth.

    Args:
        epsilon: ε > 0.
        delta: δ in (0, 1).
        parts: Sampling rate in (0, 1] and number of steps of each mechanism.
        before: The ledger of everything the budget has paid for already.

    Raises:
        UsageError: If no noise is enough.

    >>> few, many = [(1.0, 1)], [(1.0, 2)]
    >>> noise_multiplier_for(1.0, 1e-5, few) < noise_multiplier_for(1.0, 1e-5, many)
    True
    """
    require_positive("epsilon", epsilon)
    base = [(before or Ledger()).renyi(order) for order in ORDERS]

    def spent(noise: float) -> float:
        more = Ledger(
            spent=tuple(
                Spending(noise_multiplier=noise, sampling_rate=rate, steps=steps)
                for rate, steps in parts
            )
        )
        return _epsilon(
            [b + more.renyi(order) for b, order in zip(base, ORDERS, strict=True)], delta
        )

    low, high = _MIN_NOISE, 2 * _MIN_NOISE
    while spent(high) > epsilon:
        low, high = high, 2 * high
        if high > _MAX_NOISE:
            raise UsageError(
                "no noise is enough for the rest of the budget",
                got=f"epsilon {epsilon}, delta {delta}",
            )
    while high > 1.001 * low:
        middle = sqrt(low * high)
        low, high = (middle, high) if spent(middle) > epsilon else (low, middle)
    return high


def _epsilon(divergences: Sequence[float], delta: float) -> float:
    """ε from the Rényi divergences of all `ORDERS`, by [B20]."""
    best: float = min(
        divergence + log(1 - 1 / order) - (log(delta) + log(order)) / (order - 1)
        for order, divergence in zip(ORDERS, divergences, strict=True)
    )
    return max(best, 0.0)


def require_positive(name: str, value: float) -> None:
    """Raises UsageError unless a value is above zero and finite."""
    if not (value > 0 and isfinite(value)):
        raise UsageError(f"{name} is not positive", expected="> 0, finite", got=str(value))
