"""Inputs for predictions: the same files as for training, without labels, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import FloatArray
from f2l_fed.data.readers.arrays import read_npz
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.feature_encoding import FeatureEncoding
from f2l_fed.data.readers.files import kind_of, require_readable
from f2l_fed.data.readers.findings import Findings
from f2l_fed.data.readers.raw_examples import RawExamples
from f2l_fed.data.readers.reading import no_texts, table_parts, unknown_kind, without_gaps
from f2l_fed.errors import DataError

BATCH = 256
"""Number of inputs in a batch."""


def read_inputs(
    path: Path,
    config: ReadingConfig,
    encoding: FeatureEncoding,
    input_shape: tuple[int, ...],
    findings: Findings,
) -> tuple[int, Iterator[tuple[list[str], FloatArray]]]:
    """Reads inputs as a network takes them.

    Images that can't be read are left out and remarked; they are only held a batch at a time.

    Args:
        path: A table or its parts, an ``.npz`` with x, an image, or a folder of images.
        config: Settings, those of the training.
        encoding: The preprocessing of the training.
        input_shape: Shape of one input.
        findings: Takes remarks.

    Returns:
        The number of inputs, and batches of their places and (b, *input_shape) float32.

    Raises:
        DataError: If the inputs can't be read, or are none of this network's.
    """
    require_readable(path)
    if parts := table_parts(path, findings):
        from f2l_fed.data.readers.tables import read_tables

        raw = read_tables(
            parts, config, findings, where=str(path), labelled=False, encoding=encoding
        )
        raw = _with_gaps_treated(raw, config, encoding, findings)
        return len(raw), _rows(raw, encoding, input_shape, findings)
    if encoding.text_bytes:
        raise no_texts(path)
    if kind_of(path) == "npz":
        raw = read_npz(path, config, findings, labelled=False)
        raw = _with_gaps_treated(raw, config, encoding, findings)
        return len(raw), _rows(raw, encoding, input_shape, findings)
    if len(input_shape) != 3:
        if path.is_dir():
            raise DataError(
                "the network takes no images", where=str(path), expected="a table or an .npz file"
            )
        raise unknown_kind(path)
    from f2l_fed.data.readers.image_folder import image_inputs

    mode = "RGB" if input_shape[0] == 3 else "L"
    size = (input_shape[2], input_shape[1])
    count, batches = image_inputs(path, mode, size, findings, BATCH, white=encoding.white)
    return count, ((places, encoding.encode_images(images)) for places, images in batches)


def _with_gaps_treated(
    raw: RawExamples, config: ReadingConfig, encoding: FeatureEncoding, findings: Findings
) -> RawExamples:
    """The inputs without those that the settings leave out; what will be filled in is remarked."""
    raw = without_gaps(raw, config, findings)
    findings.require_none()
    told = {column.name for column in encoding.columns if column.values or column.indicator}
    for place, column in enumerate(raw.columns):
        gaps = int(np.isnan(raw.inputs[:, place]).sum())
        if gaps == len(raw):
            findings.remark_empty(column.name)
        elif gaps and column.name not in told:
            filled = number_of(gaps, "missing value is", "missing values are")
            findings.remark(
                f"In column {column.name!r} {filled} filled in; at training none were missing, or "
                "nothing told where."
            )
    return raw


def _rows(
    raw: RawExamples,
    encoding: FeatureEncoding,
    input_shape: tuple[int, ...],
    findings: Findings,
) -> Iterator[tuple[list[str], FloatArray]]:
    x = encoding.encode(raw, findings)
    findings.require_none()
    if x.shape[1:] != input_shape:
        raise DataError(
            "the inputs have another shape than the network's",
            where=raw.where,
            expected=str(input_shape),
            got=str(x.shape[1:]),
        )
    for start in range(0, len(raw), BATCH):
        rows = range(start, min(start + BATCH, len(raw)))
        yield [raw.places[row] for row in rows], x[start : start + BATCH]
