"""The record of a run's end: whose it is, and whether a repetition may succeed."""

from __future__ import annotations

import pytest

from f2l_fed.errors import RoundError, ZooError
from server.rounds.run_end import RunEnd
from server.rounds.state import Interrupted


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (RoundError("too few sites", remedy="Add sites."), "failed", "too few sites. Add sites."),
        (Interrupted("the cluster was lost"), "interrupted", "the cluster was lost."),
        (ZooError("the store is away", transient=True), "interrupted", "the store is away."),
        (OSError(28, "full"), "interrupted", "OSError: [Errno 28] full"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
    ],
)
def test_an_error_ends_a_run_for_good_or_for_now(tmp_path, error, outcome, reason):
    RunEnd.of("7", error).write(tmp_path / "end")
    assert RunEnd.read(tmp_path / "end", "7") == RunEnd(run="7", outcome=outcome, reason=reason)


def test_a_record_counts_for_its_own_run_alone(tmp_path):
    path = tmp_path / "end"
    assert RunEnd.read(path, "7") is None
    RunEnd(run="7", outcome="completed").write(path)
    assert RunEnd.read(path, "8") is None
    path.write_text("torn")
    assert RunEnd.read(path, "7") is None


def test_a_record_that_can_not_be_written_hides_no_error(tmp_path):
    RunEnd(run="7", outcome="completed").write(tmp_path / "nowhere" / "end")
    assert list(tmp_path.iterdir()) == []
