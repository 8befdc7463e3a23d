"""The settings by which the tables of all sites make the same features."""

from __future__ import annotations

import json
from collections.abc import Sequence

from f2l_fed.data.readers.feature_encoding import FeatureEncoding


def agreed_settings(encoding: FeatureEncoding) -> list[str]:
    """The lines of a ``site.toml`` that give another table the features of this one.

    Only numbers are different then: scales are each site's own.

    Args:
        encoding: Of a table; there are no lines for vectors without names, and for images.

    >>> from f2l_fed.data.readers.feature_encoding import EncodedColumn
    >>> columns = EncodedColumn(name="width"), EncodedColumn(name="kind", values=("a", "b"))
    >>> print("\\n".join(agreed_settings(FeatureEncoding(columns=columns))))
    [data]
    columns = ["width", "kind"]
    indicators = []
    [data.categories]
    "kind" = ["a", "b"]
    """
    if not encoding.is_table:
        return []
    names = [column.name for column in encoding.columns]
    told = [column.name for column in encoding.columns if column.indicator]
    lines = ["[data]", f"columns = {_listed(names)}", f"indicators = {_listed(told)}"]
    texts = [
        f"{json.dumps(column.name, ensure_ascii=False)} = {_listed(column.values)}"
        for column in encoding.columns
        if column.values
    ]
    return [*lines, "[data.categories]", *texts] if texts else lines


def _listed(names: Sequence[str]) -> str:
    # JSON's strings are TOML's too.
    return json.dumps(names, ensure_ascii=False)
