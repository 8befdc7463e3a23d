"""The rows of a result on training sites' own networks: the federation's own and baselines'."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from f2l_fed.evaluation.arm_names import THIS_FEDERATION


def personalised_rows(result: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rows by method: "weighted" and "plain" accuracy by measured round, and mostly a "cost".

    Args:
        result: Content of ``result.json`` with ``personalised``; where it says what its own
            training sites have after each of these rounds, that is the first row.

    Returns:
        Accuracies from 0 to 1.
    """
    part = result["personalised"]
    told = {row["round"]: row for row in result.get("training_sites") or ()}
    if not all(number in told for number in part["rounds"]):
        return dict(part["methods"])
    own = [told[number] for number in part["rounds"]]
    row = {"weighted": [one["weighted"] for one in own], "plain": [one["accuracy"] for one in own]}
    return {THIS_FEDERATION: row, **part["methods"]}
