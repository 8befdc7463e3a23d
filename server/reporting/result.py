"""The result of a simulated federation as one JSON value (schema 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from f2l_fed.audit.release_limits import decide
from f2l_fed.evaluation.summary import steps_to_target
from server.federation.folder import Federation
from server.rounds.state import RoundState


def result_of(
    facts: Mapping[str, Any],
    federation: Federation,
    states: Sequence[RoundState],
    held_out: Mapping[str, Any],
    *,
    training: Sequence[Mapping[str, Any]],
    baselines: Mapping[str, Any],
    personalised: Mapping[str, Any],
    wall_seconds: float,
) -> dict[str, Any]:
    """Builds the content of ``result.json``.

    Args:
        facts: Facts about data and machine.
        federation: The federation.
        states: Its rounds.
        held_out: Measured arms by kind of held-out site.
        training: Accuracy at training sites after each round, oldest first.
        baselines: Cost of each baseline that was measured beside the arms, by its key.
        personalised: What baselines give to training sites, where labels are shared.
        wall_seconds: Duration of the whole run.
    """
    target = federation.target
    measured = federation.releases.measured()
    judged = decide(measured.figures, federation.config.limits, held_out)
    verdicts, notes = [], list(facts["data_notes"])
    if federation.releases.promoted() is None:
        notes.append(
            "No release passed the gate, so none would have been served; the newest was measured."
        )
    for state in states:
        if state.release:
            release = federation.releases.read(state.release)
            verdicts.append(
                {
                    "round": state.number,
                    "release": release.id,
                    "promoted": state.promoted,
                    "reasons": list(release.reasons) if not state.promoted else [],
                    "left_out": dict(release.left_out),
                    "model": release.model,
                    "figures": {name: round(v, 6) for name, v in release.figures.items()},
                }
            )
    return {
        "schema": 1,
        **facts,
        "data_notes": notes,
        "target": {
            "name": target.name,
            "parameters": target.layout.size,
            "layout": target.layout.digest,
        },
        "rounds": [_round(state) for state in states],
        "verdicts": verdicts,
        "training_sites": [dict(row) for row in training],
        "held_out": dict(held_out),
        "held_out_verdict": {
            "release": measured.id,
            "passed": judged.passed,
            "reasons": list(judged.reasons),
            "figures": {name: round(figure, 6) for name, figure in judged.figures.items()},
        },
        **({"baselines": dict(baselines)} if baselines else {}),
        **({"personalised": dict(personalised)} if personalised else {}),
        "steps_to_target": {
            kind: None if part is None else steps_to_target(part) for kind, part in held_out.items()
        },
        "settings": federation.config.to_json(),
        "wall_seconds": round(wall_seconds, 2),
    }


def _round(state: RoundState) -> dict[str, Any]:
    return {
        "round": state.number,
        "release": state.release,
        "sites": state.sites,
        "accepted": len(state.accepted),
        "rejected": len(state.rejected) + len(state.quarantined),
        "seconds": round(sum(state.seconds.values()), 2),
        "bytes_up": state.bytes_up,
        "bytes_down": state.bytes_down,
        "accuracy_before": round(state.accuracy_before, 4),
        "accuracy_after": round(state.accuracy_after, 4),
    }
