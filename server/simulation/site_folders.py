"""The folders of a simulation's sites, laid out like those of real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from f2l_fed.config import FederationConfig
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.data import Partition, SiteData, SplitConfig, save_npz
from f2l_fed.data.readers.matching import numbered_columns
from f2l_fed.data.readers.raw_examples import Column
from f2l_fed.data.scenarios.site_data import SiteFile
from f2l_fed.targets.backbone import InstalledBackbone

_LIMITS = {"minimum_examples": 10, "minimum_head_examples": 10, "minimum_batch": 8}
"""The limits of a site's policy on small numbers of examples, with their defaults."""


def write_site_folder(
    folder: Path,
    site: SiteData,
    divided: Partition,
    config: FederationConfig,
    backbone: InstalledBackbone | None = None,
) -> None:
    """Writes a site's examples and its ``site.toml``, which leaves all else as by default.

    Args:
        folder: The new folder.
        site: The examples.
        divided: The data that they are part of.
        config: The federation's configuration.
        backbone: The frozen network that the site has; None for none.
    """
    folder.mkdir(parents=True)
    # Columns without names of their own are the rows of an array.
    unnamed = divided.columns == numbered_columns(len(divided.columns))
    columns = () if unnamed else divided.columns
    top: dict[str, Any] = {"name": site.name}
    data = {"path": _write(folder / "train", site.own, columns)}
    if config.split.validation_fraction:
        top["validation_fraction"] = config.split.validation_fraction
    else:
        top["validation"] = _write(folder / "validation", site.further, columns)
    lines = [
        *_keys(top),
        "",
        "[data]",
        *_keys({**data, **_data_keys(divided, columns)}),
        "",
        *(["[backbone]", *_keys(asdict(backbone.config)), ""] if backbone else []),
        "[policy]",
        *_keys(
            {
                "targets": config.target.name,
                "shared_labels": config.shared_labels,
                **_lowered_limits(config.split),
                # A simulation runs many rounds within one day.
                "rounds_per_day": 1_000_000,
                "answers_per_day": 1_000_000,
            }
        ),
    ]
    write_atomically(folder / "site.toml", "\n".join(lines) + "\n")


def _data_keys(divided: Partition, columns: Sequence[Column]) -> dict[str, Any]:
    """The keys of ``[data]`` that are not as by default."""
    reading = divided.reading
    if not divided.columns:
        return {"image_scale": reading.image_scale} if reading.image_scale else {}
    keys: dict[str, Any] = {"gaps": reading.gaps, "scale": reading.scale}
    if reading.indicators:
        keys["indicators"] = list(reading.indicators)
    for name, pair in reading.scales.items():
        keys[f"scales.{json.dumps(name, ensure_ascii=False)}"] = list(pair)
    if columns:
        keys["label"] = _label_name(columns)
        keys["columns"] = list(reading.columns)
        keys |= {
            f"categories.{json.dumps(name)}": list(v) for name, v in reading.categories.items()
        }
    return keys


def _lowered_limits(split: SplitConfig) -> dict[str, int]:
    """The policy's limits on small numbers of examples, where an experiment has fewer."""
    least = split.minimum_examples
    if least >= _LIMITS["minimum_examples"]:
        return {"minimum_examples": least}
    return {name: min(least, default) for name, default in _LIMITS.items()}


def _keys(values: dict[str, Any]) -> list[str]:
    """Lines of TOML, whose texts, lists and booleans are JSON's too."""
    return [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]


def _label_name(columns: Sequence[Column]) -> str:
    """A name of the column of labels that no other column has."""
    taken, name = {column.name.casefold() for column in columns}, "label"
    while name in taken:
        name += "_"
    return name


def _write(path: Path, file: SiteFile, columns: Sequence[Column]) -> str:
    """Writes examples as a table if their columns have names, else as arrays; the file's name."""
    if not columns:
        path = path.with_suffix(".npz")
        save_npz(path, file.x, file.y)
        return path.name
    # Packages that only tables need.
    import pyarrow as pa
    from pyarrow import parquet

    arrays = {column.name: _values(file.x[:, n], column) for n, column in enumerate(columns)}
    path = path.with_suffix(".parquet")
    parquet.write_table(pa.table({**arrays, _label_name(columns): pa.array(file.y)}), path)
    return path.name


def _values(values: np.ndarray[Any, Any], column: Column) -> Any:
    """A column as pyarrow's array: numbers, or texts; gaps are nulls."""
    import pyarrow as pa

    gaps = np.isnan(values)
    if not column.values:
        return pa.array(values, pa.float64(), mask=gaps)
    texts = np.array(column.values, object)[np.where(gaps, 0, values).astype(int)]
    return pa.array(texts, pa.string(), mask=gaps)
