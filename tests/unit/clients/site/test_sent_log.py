from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from clients.site import sent_log
from clients.site.policy import PolicyConfig
from clients.site.sent_log import SentLog
from f2l_fed.errors import PolicyRefusal

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def answer() -> RecordDict:
    return RecordDict(
        {
            "update": ConfigRecord({"site": "north", "round": 3}),
            "weights": ArrayRecord({"w": Array(np.zeros((2, 5), np.float32))}),
            "numbers": MetricRecord({"steps": 4.0}),
        }
    )


def test_the_record_says_all_that_leaves(tmp_path):
    log = SentLog(tmp_path / "sent.jsonl")
    assert log.entries() == []
    log.record("update", 3, answer(), NOW)
    (entry,) = log.entries()
    assert entry["time"] == "2026-01-02T12:00:00+00:00"
    assert (entry["kind"], entry["round"]) == ("update", 3)
    assert entry["fields"] == {"site": "north", "round": 3}
    assert entry["tensors"] == {"weights": {"w": [2, 5]}}
    assert entry["numbers"] == {"steps": 4.0}
    assert entry["norms"] == {"weights": 0.0}
    assert entry["changes"] == []
    assert entry["bytes"] > 40


def test_the_norm_is_that_of_all_tensors_of_a_record_together(tmp_path):
    content = RecordDict(
        {
            "probe.0": ArrayRecord({"a": Array(np.full((1, 1), 3.0)), "b": Array(np.array([4.0]))}),
            "probe.1": ArrayRecord({"a": Array(np.array([np.nan], np.float32))}),
        }
    )
    log = SentLog(tmp_path / "sent.jsonl")
    log.record("probe", 0, content, NOW, changes=(0.5, float("inf")))
    (entry,) = log.entries()
    assert entry["norms"] == {"probe.0": 5.0, "probe.1": None}
    assert entry["changes"] == [0.5, None]
    assert "NaN" not in log.path.read_text()


def test_a_torn_line_is_left_out_and_does_not_swallow_the_next(tmp_path):
    log = SentLog(tmp_path / "sent.jsonl")
    log.record("update", 1, answer(), NOW)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + whole[: len(whole) // 2])
    assert [entry["round"] for entry in log.entries()] == [1]
    log.record("update", 2, answer(), NOW)
    assert [entry["round"] for entry in log.entries()] == [1, 2]


def test_answers_of_one_day_are_counted_without_refusals(tmp_path):
    log, policy = SentLog(tmp_path / "sent.jsonl"), PolicyConfig(answers_per_day=2)
    log.record("update", 1, answer(), NOW - timedelta(hours=25))
    log.record("refusal", 0, answer(), NOW)
    log.record("update", 2, answer(), NOW - timedelta(hours=23))
    log.allow(policy, answer(), NOW)
    log.record("probe", 0, answer(), NOW)
    with pytest.raises(PolicyRefusal, match="too-many-answers-today"):
        log.allow(policy, answer(), NOW)
    log.allow(policy, answer(), NOW + timedelta(hours=2))


def test_a_large_answer_is_refused(tmp_path):
    with pytest.raises(PolicyRefusal, match="upload-too-large"):
        SentLog(tmp_path / "sent.jsonl").allow(PolicyConfig(maximum_upload_bytes=40), answer(), NOW)


@pytest.mark.parametrize("block_bytes", [1, 7, 300, 4096, 2**16])
def test_late_entries_are_found_from_the_end_whatever_the_blocks(
    tmp_path, monkeypatch, block_bytes
):
    monkeypatch.setattr(sent_log, "_BLOCK_BYTES", block_bytes)
    log = SentLog(tmp_path / "sent.jsonl")
    assert log.after(NOW) == []
    for number in range(12):
        log.record("update", number, answer(), NOW + timedelta(hours=number))
        with log.path.open("ab") as file:
            file.write(b'{"torn": ' * (number % 3))
    for hours in (-1, 0, 5.5, 10, 11, 20):
        since = NOW + timedelta(hours=hours)
        expected = [entry for entry in log.entries() if entry["time"] > since.isoformat()]
        assert log.after(since) == expected
        assert len(expected) == sum(number > hours for number in range(12))


def test_what_is_older_than_a_day_is_not_read_for_an_answer(tmp_path):
    log = SentLog(tmp_path / "sent.jsonl")
    log.record("update", 1, answer(), NOW - timedelta(days=2))
    # The first line would end the test if it was read: it is no JSON.
    log.path.write_bytes(b"old}\n" + 1000 * log.path.read_bytes())
    log.record("update", 300, answer(), NOW)
    assert [entry["round"] for entry in log.after(NOW - timedelta(days=1))] == [300]
    log.allow(PolicyConfig(answers_per_day=2), answer(), NOW)
    with pytest.raises(PolicyRefusal, match="too-many-answers-today"):
        log.allow(PolicyConfig(answers_per_day=1), answer(), NOW)


def test_updates_of_one_day_are_counted_whatever_their_rounds(tmp_path):
    log, policy = SentLog(tmp_path / "sent.jsonl"), PolicyConfig(rounds_per_day=3)
    log.record("update", 1, RecordDict(), NOW - timedelta(hours=25))
    for number in (2, 2, 3):
        log.allow_round(policy, NOW)
        log.record("update", number, RecordDict(), NOW)
    with pytest.raises(PolicyRefusal, match="too-many-rounds-today"):
        log.allow_round(policy, NOW)
    log.allow_round(policy, NOW + timedelta(hours=25))
