"""Predictions of the site's network, and their measurement on labelled examples."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn

from clients.site.model_store import Model, whole_module
from clients.site.site_examples import Examples, part_of, read_site_examples
from clients.site.site_folder import SiteFolder
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.feature_encoding import FeatureEncoding
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.inputs import read_inputs
from f2l_fed.data.readers.numbering import number_labels
from f2l_fed.data.readers.raw_examples import TEST
from f2l_fed.data.readers.reading import read_raw
from f2l_fed.data.readers.text_format import is_numeral
from f2l_fed.errors import DataError, F2LError
from f2l_fed.evaluation.confidence import calibration_error, predictions
from f2l_fed.targets.backbone import InstalledBackbone

GOAL = 0.95
"""Accuracy on the validation examples that are kept, from which the threshold follows."""


_AT_A_TIME = 64
"""Inputs that pass the network together: those of a backbone need megabytes each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The prediction for one input.

    Args:
        source: Place of the input: a file, or a row in one.
        label: Name of the most probable output.
        probability: Its probability.
        abstain: Whether that is below the threshold.
    """

    source: str
    label: str
    probability: float
    abstain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A network ready to predict, with the preprocessing that it was made with.

    Args:
        model: The network and its description.
        reading: Settings of the site's data.
        backbone: The frozen part, where the network takes features.
    """

    model: Model
    reading: ReadingConfig
    backbone: InstalledBackbone | None = None

    @property
    def encoding(self) -> FeatureEncoding:
        """The encoding of a table's columns."""
        facts = self.model.facts
        return FeatureEncoding.of_text(facts.encoding, where=f"the network of {facts.site}")

    def module(self) -> nn.Module:
        """The network itself, for the data's inputs."""
        return whole_module(self.model, self.backbone)

    def predict(
        self, path: Path, findings: Findings, *, threshold: float
    ) -> tuple[int, Iterator[list[Prediction]]]:
        """Predicts for everything at a path, a batch at a time.

        Returns:
            The number of inputs, and batches of predictions.

        Raises:
            DataError: If the inputs can't be read, or are none of this network's.
        """
        facts, module = self.model.facts, self.module()
        total, batches = read_inputs(path, self.reading, self.encoding, facts.input_shape, findings)

        def predicted() -> Iterator[list[Prediction]]:
            for places, x in batches:
                found = _logits(module, torch.from_numpy(x)).softmax(1).max(dim=1)
                yield [
                    Prediction(
                        source=place,
                        label=facts.output_names[number],
                        probability=round(probability, 6),
                        abstain=probability < threshold,
                    )
                    for place, number, probability in zip(
                        places, found.indices.tolist(), found.values.tolist(), strict=True
                    )
                ]

        return total, predicted()

    def labelled(self, path: Path, findings: Findings) -> Examples:
        """Labelled examples in the form of this network; raises DataError if they have none."""
        facts = self.model.facts
        reading = self.reading
        if len(facts.input_shape) == 3:
            mode = "rgb" if facts.input_shape[0] == 3 else "grey"
            reading = replace(reading, resize=facts.input_shape[:0:-1], mode=mode)
        raw = read_raw(path, reading, self.encoding)
        here = Findings(raw.where)
        raw = part_of(raw, TEST, here)
        y = number_labels(raw, facts.labels, here, remedy="Correct them, or leave them out.")
        x = self.encoding.encode(raw, here)
        here.require_none()
        for remark in (*raw.remarks, *here.remarks):
            findings.remark(remark)
        if x.shape[1:] != facts.input_shape or int(y.max()) >= facts.classes:
            raise DataError(
                "the examples do not suit the network",
                where=str(path),
                expected=f"inputs of shape {facts.input_shape}, {facts.classes} classes",
                got=f"{x.shape[1:]}, {int(y.max()) + 1} classes",
            )
        return Examples(x=torch.from_numpy(x), y=torch.from_numpy(y))


def site_threshold(folder: SiteFolder, predictor: Predictor, goal: float) -> float:
    """The threshold of a site's network, from the validation examples that the site has now.

    Raises:
        DataError: If these can't be used.
    """
    examples = read_site_examples(folder.path, folder.config)
    facts, y = predictor.model.facts, examples.validation.y
    names = examples.labels or tuple(map(str, range(int(y.max()) + 1)))
    place: dict[str, int] = {}
    for number, name in enumerate(facts.output_names):
        place.setdefault(name, number)
    outputs = torch.tensor([place.get(name, -1) for name in names])[y]
    if examples.encoding != predictor.encoding or int(outputs.min()) < 0:
        raise DataError(
            "the data of the site are no longer those of the network",
            where=str(folder.file),
            remedy="Make it again (f2l-site generate), or name a --threshold.",
        )
    logits = _logits(predictor.module(), examples.validation.x)
    return threshold_for(logits.softmax(1), outputs, goal)


def threshold_for(probabilities: Tensor, y: Tensor, goal: float) -> float:
    """The lowest probability from which predictions are right often enough.

    Args:
        probabilities: (n, K) of validation examples.
        y: (n,) int64, their labels.
        goal: Share of right ones among those that are kept.

    Returns:
        In [0, 1], 0 where all may be kept; infinity where no threshold reaches the goal, so that
        even a prediction of probability 1 abstains.

    >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    >>> round(threshold_for(p, torch.tensor([0, 0, 1]), 0.9), 3)
    0.8
    """
    found = probabilities.max(dim=1)
    order = found.values.argsort(descending=True, stable=True)
    right = (found.indices == y)[order].double()
    share = right.cumsum(0) / torch.arange(1, len(y) + 1)
    # Equal probabilities are kept or not together, so only the last of them counts.
    falls = torch.ones(len(y), dtype=torch.bool)
    falls[:-1] = found.values[order].diff() < 0
    enough = torch.nonzero((share >= goal) & falls).flatten()
    if not len(enough):
        return math.inf
    last = int(enough[-1])
    return 0.0 if last == len(y) - 1 else float(found.values[order[last]])


def write_predictions(batch: list[Prediction], file: TextIO, *, lines: bool, first: bool) -> None:
    """Writes predictions as CSV, or as a JSON object a line."""
    rows = [
        {
            "source": one.source,
            "label": one.label,
            "probability": one.probability,
            "abstain": one.abstain,
        }
        for one in batch
    ]
    if lines:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return
    writer = csv.writer(file)
    if first:
        writer.writerow(("source", "label", "probability", "abstain"))
    writer.writerows(
        (
            _cell(one.source),
            _cell(one.label),
            one.probability,
            "yes" if one.abstain else "no",
        )
        for one in batch
    )


def _cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: with an apostrophe before it if need be."""
    risky = text.startswith(("=", "+", "-", "@", "\t", "\r")) and not is_numeral(text, ".")
    return f"'{text}" if risky else text


def evaluate(predictor: Predictor, examples: Examples) -> dict[str, Any]:
    """Measures a network on labelled examples.

    Returns:
        ``examples``, ``accuracy`` with a 95% interval (Wilson), ``labels``, ``confusion`` (rows are
        the true labels), ``loss``, ``calibration_error`` and ``calibration``: for each range of
        probabilities with predictions their number, mean probability and accuracy.
    """
    logits = _logits(predictor.module(), examples.x)
    y, classes = examples.y, predictor.model.facts.classes
    found = predictions(logits, y)
    chosen = logits.argmax(1)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    confusion.index_put_((y, chosen), torch.ones_like(y), accumulate=True)
    right, count = int((chosen == y).sum()), len(y)
    filled = found.bins[found.bins[:, 0] > 0]
    return {
        "examples": count,
        "accuracy": right / count,
        "interval": list(wilson_interval(right, count)),
        "labels": list(predictor.model.facts.output_names),
        "confusion": confusion.tolist(),
        "loss": found.loss,
        "calibration_error": calibration_error(found.bins),
        "calibration": [
            {"predictions": int(n), "probability": p / n, "accuracy": a / n}
            for n, p, a in filled.tolist()
        ],
    }


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """The 95% interval of a share by Wilson's score.

    >>> low, high = wilson_interval(9, 10)
    >>> round(low, 3), round(high, 3)
    (0.596, 0.982)
    """
    z = 1.959964
    share, scale = right / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / scale
    half = z * ((share * (1 - share) + z * z / (4 * count)) / count) ** 0.5 / scale
    return min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share)


@torch.no_grad()
def _logits(module: nn.Module, x: Tensor) -> Tensor:
    logits = torch.cat([module(part) for part in x.split(_AT_A_TIME)])
    if not np.isfinite(logits.numpy()).all():
        raise F2LError("the network overflows on these inputs")
    return logits
