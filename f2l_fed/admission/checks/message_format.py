"""Checks of shapes, types and declared numbers, which cost nothing."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, log

import torch
from torch import Tensor

from f2l_fed.admission.evidence import Evidence
from f2l_fed.admission.verdict import Finding

_LOSSES = {"accuracy_before": "loss_before", "accuracy_after": "loss_after"}
# Sites measure in float32 and over many examples.
_TOLERANCE = 1e-3


def shapes(evidence: Evidence) -> Iterator[Finding]:
    """Finds tensors of another shape, type or number than was asked for."""
    one, size = evidence.submission, evidence.sketch.size
    networks, probes = len(one.weights), len(one.probes)
    expected: dict[str, tuple[Tensor, int]] = {
        "weights": (one.weights, networks),
        "starts": (one.starts, networks),
        "probes": (one.probes, evidence.episodes),
    }
    for name, (tensor, rows) in expected.items():
        if tensor.shape != (rows, size) or tensor.dtype != torch.float32:
            figures = {"values": float(tensor.numel()), "expected": float(rows * size)}
            yield Finding(code="form", action="reject", figures=figures, about=name)
    if networks not in (1, probes):
        figures = {"networks": float(networks), "probes": float(probes)}
        yield Finding(code="form", action="reject", figures=figures, about="networks")


def declared_numbers(evidence: Evidence) -> Iterator[Finding]:
    """Finds declared numbers that are impossible, each by itself."""
    one = evidence.submission
    counts = {"examples": evidence.config.examples, "steps": float(one.steps)}
    for name, value in one.numbers.items():
        low = 1.0 if name == "examples" else 0.0
        high = counts.get(name, 1.0 if name.startswith("accuracy") else evidence.config.loss)
        whole = isfinite(value) and (name not in counts or value == int(value))
        if not (whole and low <= value <= high):
            figures = {"value": value, "min_allowed": low, "max_allowed": high}
            yield Finding(code="number", action="reject", figures=figures, about=name)


def contradictions(evidence: Evidence) -> Iterator[Finding]:
    """Finds declared numbers that contradict each other.

    Where a prediction is wrong its probability is at most 1/2, so the mean loss is at least
    (1 - accuracy) ln 2. An anchor's output layer is zero, so its loss is ln K.
    """
    numbers, output = evidence.submission.numbers, evidence.sketch.output
    for accuracy, loss in _LOSSES.items():
        if accuracy in numbers and loss in numbers:
            lowest = (1 - numbers[accuracy]) * log(2) * (1 - _TOLERANCE) - _TOLERANCE
            if numbers[loss] < lowest:
                figures = {
                    "loss": numbers[loss],
                    "min_allowed": lowest,
                    "accuracy": numbers[accuracy],
                }
                yield Finding(code="contradiction", action="reject", figures=figures, about=loss)
    anchored = not bool(evidence.submission.starts[:, output].any())
    if anchored and not evidence.submission.solved and "loss_before" in numbers:
        expected = log(len(output))
        if abs(numbers["loss_before"] - expected) > _TOLERANCE * expected:
            figures = {"loss": numbers["loss_before"], "expected": expected}
            yield Finding(
                code="contradiction", action="reject", figures=figures, about="loss_before"
            )
