"""Round files: what is saved is loaded, and files of earlier versions are still read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from f2l_fed.errors import RoundError
from server.rounds.state import RoundState, with_quarantined
from server.rounds.state_files import find_state, load_state, load_states, save_state

GOLDEN = Path(__file__).parents[3] / "golden/v3/federation/rounds"


def test_a_saved_round_is_loaded_as_it_was(tmp_path):
    state = RoundState(
        number=3,
        step="done",
        parent="00002",
        sites=4,
        accepted=("a", "b"),
        rejected={"c": "timeout"},
        quarantined={"d": "in quarantine: not a mark"},
        seconds={"exchange": 0.5},
    )
    save_state(tmp_path, state)
    assert load_state(tmp_path, 3) == find_state(tmp_path, 3) == state
    assert load_states(tmp_path) == [state]
    assert find_state(tmp_path, 4) is None


def test_rounds_of_earlier_versions_keep_their_quarantined_sites():
    states = {state.number: state for state in load_states(GOLDEN)}
    assert sorted(states) == [1, 2, 3, 4]
    assert states[2].rejected == {"elm": "refused: too-many-steps"}
    assert states[2].quarantined.keys() == {"fir"}
    assert states[2].quarantined["fir"].startswith("an update longer than")
    stored = json.loads((GOLDEN / "00002.json").read_text())["rejected"]
    assert with_quarantined(states[2].rejected, states[2].quarantined) == stored


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"accepted": [], "rejected": {"a": 1}}'])
def test_a_damaged_round_is_an_error_with_a_remedy(tmp_path, content):
    (tmp_path / "00001.json").write_text(content)
    with pytest.raises(RoundError, match="the round's file is damaged"):
        load_states(tmp_path)
