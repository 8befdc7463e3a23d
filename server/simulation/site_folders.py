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

_TRAIN, _VALIDATION = "train", "validation"
"""Names of the files, without their suffix."""

_LIMITS = {"minimum_examples": 10, "minimum_head_examples": 10, "minimum_batch": 8}
"""The limits of a site's policy on small numbers of examples, with their defaults."""


def site_folder(root: Path, number: int) -> Path:
    """The folder of a site of a federation's folder; the runtime knows its sites by number."""
    return root / "sites" / f"site-{number:03d}"


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
    write_examples(folder, site, divided)
    columns = _named(divided)
    suffix = ".parquet" if columns else ".npz"
    data = {"path": f"{_TRAIN}{suffix}"}
    if columns and site.own.groups is not None:
        data["group"] = _free_name("group", columns)
    fraction = config.split.validation_fraction
    top = {
        "name": site.name,
        **({"validation_fraction": fraction} if fraction else {"validation": _VALIDATION + suffix}),
    }
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


def write_examples(folder: Path, site: SiteData, divided: Partition) -> None:
    """Writes a site's examples into its folder, in the place of those there.

    Args:
        folder: The folder.
        site: The examples.
        divided: The data that they are part of.
    """
    columns = _named(divided)
    _write(folder / _TRAIN, site.own, columns)
    if len(site.further.y):
        _write(folder / _VALIDATION, site.further, columns)


def _named(divided: Partition) -> Sequence[Column]:
    """The columns of a table; none for images, and for vectors without names, which are arrays."""
    unnamed = divided.columns == numbered_columns(len(divided.columns))
    return () if unnamed else divided.columns


def _data_keys(divided: Partition, columns: Sequence[Column]) -> dict[str, Any]:
    """The keys of ``[data]`` that are not as by default."""
    reading = divided.reading
    if not divided.columns:
        return {"image_scale": reading.image_scale} if reading.image_scale else {}
    keys: dict[str, Any] = {"gaps": reading.gaps, "scale": reading.scale}
    if reading.text:
        keys |= {"text": reading.text, "text_bytes": reading.text_bytes}
    if reading.indicators:
        keys["indicators"] = list(reading.indicators)
    for name, pair in reading.scales.items():
        keys[f"scales.{json.dumps(name, ensure_ascii=False)}"] = list(pair)
    if columns:
        keys["label"] = _free_name("label", columns)
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


def _free_name(name: str, columns: Sequence[Column]) -> str:
    """A name that none of the columns has."""
    taken = {column.name.casefold() for column in columns}
    while name in taken:
        name += "_"
    return name


def _write(path: Path, file: SiteFile, columns: Sequence[Column]) -> None:
    """Writes examples as a table if their columns have names, else as arrays."""
    if not columns:
        save_npz(path.with_suffix(".npz"), file.x, file.y, file.groups)
        return
    # Packages that only tables need.
    import pyarrow as pa
    from pyarrow import parquet

    arrays = {column.name: _values(file.x[:, n], column) for n, column in enumerate(columns)}
    arrays[_free_name("label", columns)] = pa.array(file.y)
    if file.groups is not None:
        arrays[_free_name("group", columns)] = pa.array(file.groups)
    parquet.write_table(pa.table(arrays), path.with_suffix(".parquet"))


def _values(values: np.ndarray[Any, Any], column: Column) -> Any:
    """A column as pyarrow's array: numbers, or texts; gaps are nulls."""
    import pyarrow as pa

    gaps = np.isnan(values)
    if not column.values:
        return pa.array(values, pa.float64(), mask=gaps)
    texts = np.array(column.values, object)[np.where(gaps, 0, values).astype(int)]
    return pa.array(texts, pa.string(), mask=gaps)
