"""The settings by which the tables of all sites make the same features."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

_EQUALS, _MISSING = " = ", " is missing"

MOST_FEATURES = 1000
"""Largest number of named features of a federation."""

LONGEST_FEATURE = 160
"""Largest number of characters of such a name."""


def agreed_settings(features: Sequence[str]) -> list[str]:
    """The lines of a ``site.toml`` that make these features of a table that has their columns.

    Only numbers differ between sites then: scales are each site's own.

    Args:
        features: Names as of `f2l_fed.data.readers.feature_encoding.FeatureEncoding.features`.

    >>> print("\\n".join(agreed_settings(["width", "width is missing", "kind = a", "kind = b"])))
    columns = ["width", "kind"]
    indicators = ["width"]
    gaps = "indicator"
    <BLANKLINE>
    [data.categories]
    "kind" = ["a", "b"]
    """
    columns: dict[str, list[str]] = {}
    told = []
    for feature in features:
        name, equals, value = feature.partition(_EQUALS)
        if equals:
            columns.setdefault(name, []).append(value)
        elif (number := feature.removesuffix(_MISSING)) in columns:
            told.append(number)
        else:
            columns[feature] = []
    # Where no feature tells of gaps, they may add none either.
    gaps = "indicator" if told or not features else "median"
    lines = [
        f"columns = {_listed(columns)}",
        f"indicators = {_listed(told)}",
        f"gaps = {_text(gaps)}",
    ]
    texts = [f"{_text(name)} = {_listed(values)}" for name, values in columns.items() if values]
    return [*lines, "", "[data.categories]", *texts] if texts else lines


def _listed(names: Iterable[str]) -> str:
    return "[" + ", ".join(map(_text, names)) + "]"


def _text(name: str) -> str:
    # JSON's strings are TOML's too.
    return json.dumps(name, ensure_ascii=False)
