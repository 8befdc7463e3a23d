"""Summaries of measured arms over sites: means, 95% intervals, local steps to a target accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from f2l_fed.evaluation.arm_names import RANDOM
from f2l_fed.local_training.finetune import STEPS


def summarise(
    curves: Sequence[Mapping[str, Sequence[float]]], steps: Sequence[int] = STEPS
) -> dict[str, Any]:
    """Mean accuracy over sites with the half-width of its 95% interval, for every arm.

    Args:
        curves: One result of `f2l_fed.evaluation.arms.measure` per site.
        steps: The numbers of local steps in it.

    Returns:
        ``{"steps": […], "arms": {arm: {"accuracy": […], "ci95": […]}}}``; the interval is
        Student's over sites.
    """
    table = {}
    for arm in curves[0]:
        values = torch.tensor([list(curve[arm]) for curve in curves], dtype=torch.float64)
        table[arm] = {
            "accuracy": [round(v, 4) for v in values.mean(0).tolist()],
            "ci95": [round(v, 4) for v in half_width(values).tolist()],
        }
    return {"steps": list(steps), "arms": table}


def half_width(values: Tensor) -> Tensor:
    """Half-width of Student's 95% interval of the mean along dimension 0; 0 for one value."""
    n = len(values)
    if n < 2:
        return torch.zeros(values.shape[1:], dtype=torch.float64)
    quantile = float(stdtrit(n - 1, 0.975))
    error: Tensor = values.std(0) * (quantile / n**0.5)
    return error


def steps_to_target(part: Mapping[str, Any]) -> dict[str, Any]:
    """Local steps of each arm to the target accuracy: the random start's after the last step.

    Args:
        part: The result of `summarise`.

    Returns:
        ``{"target": {"arm", "steps", "accuracy"}, "arms": {arm: steps or None}}``.
    """
    steps, arms = part["steps"], part["arms"]
    goal = arms[RANDOM]["accuracy"][-1]
    reached = {
        arm: next((n for n, a in zip(steps, row["accuracy"], strict=True) if a >= goal), None)
        for arm, row in arms.items()
    }
    return {"target": {"arm": RANDOM, "steps": steps[-1], "accuracy": goal}, "arms": reached}
