"""The end of a round whose sites are too few names those that are missing."""

from __future__ import annotations

from server.rounds.state import RoundState, failed

REASON = "too few sites for a retraining: expected at least 2, got 1."


def test_a_retraining_without_enough_sites_names_the_others():
    rejected = {f"s{number}": "the budget is spent" for number in range(7)}
    state = RoundState(
        number=1, step="retrain", parent="", sites=8, accepted=("a",), rejected=rejected
    )
    ended = failed(state, REASON, 2)
    assert ended.step == "failed"
    assert ended.reason.startswith(REASON[:-1] + "; s0: the budget is spent; s1: ")
    assert ended.reason.endswith("; s4: the budget is spent; and others")
    # With enough updates the others are not why it failed.
    assert failed(state, REASON, 1).reason == REASON
