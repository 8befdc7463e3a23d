"""Checks of what costs nothing to look at: shapes, types and declared numbers."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite, log

import torch
from torch import Tensor

from f2l_fed.admission.evidence import Evidence
from f2l_fed.admission.verdict import Finding

_LOSSES = {"accuracy_before": "loss_before", "accuracy_after": "loss_after"}
# Sites measure in float32 and over many examples.
_SLACK = 1e-3


def form(case: Evidence) -> Iterator[Finding]:
    """Tensors of another shape, type or number than was asked."""
    one, size = case.submission, case.anatomy.size
    networks, probes = len(one.weights), len(one.probes)
    shaped: dict[str, tuple[Tensor, int]] = {
        "weights": (one.weights, networks),
        "starts": (one.starts, networks),
        "probes": (one.probes, case.episodes),
    }
    for name, (tensor, rows) in shaped.items():
        if tensor.shape != (rows, size) or tensor.dtype != torch.float32:
            figures = {"values": float(tensor.numel()), "expected": float(rows * size)}
            yield Finding(code="form", action="reject", figures=figures, about=name)
    if networks not in (1, probes):
        figures = {"networks": float(networks), "probes": float(probes)}
        yield Finding(code="form", action="reject", figures=figures, about="networks")


def numbers(case: Evidence) -> Iterator[Finding]:
    """Declared numbers that can't be true, each by itself."""
    given = case.submission.numbers
    most = {"examples": case.config.examples, "steps": float(case.submission.steps)}
    least = {"examples": 1.0}
    for name, value in given.items():
        low = least.get(name, 0.0)
        high = most.get(name, 1.0 if name.startswith("accuracy") else float("inf"))
        whole = name not in most or value == int(value) if isfinite(value) else False
        if not (whole and low <= value <= high):
            figures = {"value": value, "least": low, "most": high}
            yield Finding(code="number", action="reject", figures=figures, about=name)


def contradictions(case: Evidence) -> Iterator[Finding]:
    """Declared numbers that can't be true together.

    Where a prediction is wrong its probability is at most 1/2, so the mean loss is at least
    (1 - accuracy) ln 2. An anchor's output layer is zero, so its loss is ln K.
    """
    given = case.submission.numbers
    for accuracy, loss in _LOSSES.items():
        if accuracy in given and loss in given:
            least = (1 - given[accuracy]) * log(2) * (1 - _SLACK) - _SLACK
            if given[loss] < least:
                figures = {"loss": given[loss], "least": least, "accuracy": given[accuracy]}
                yield Finding(code="contradiction", action="reject", figures=figures, about=loss)
    anchored = not bool(case.submission.starts[:, case.anatomy.output].any())
    if anchored and "loss_before" in given:
        expected = log(len(case.anatomy.output))
        if abs(given["loss_before"] - expected) > _SLACK * expected:
            figures = {"loss": given["loss_before"], "expected": expected}
            yield Finding(
                code="contradiction", action="reject", figures=figures, about="loss_before"
            )
