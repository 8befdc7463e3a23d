"""An event is one JSON object a line, in the order of emission, and one call of the listener."""

from __future__ import annotations

import json

import pytest

from f2l_fed import events
from f2l_fed.events import EventLog


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_event_is_one_line_with_its_name_first(tmp_path):
    ticks = iter([100.12345, 101.0])
    log = EventLog(path=tmp_path / "events.jsonl", clock=lambda: next(ticks))
    log.emit(events.SITE_ACCEPTED, site="a\nb", round=1)
    log.emit(events.ROUND_FINISHED, round=1, reached={"sites": [1, 2]})
    found = lines(log.path)
    assert found == [
        {"event": "site.accepted", "time": 100.123, "site": "a\nb", "round": 1},
        {"event": "round.finished", "time": 101.0, "round": 1, "reached": {"sites": [1, 2]}},
    ]
    assert all(next(iter(line)) == "event" for line in found)


def test_a_new_log_appends_to_the_same_file(tmp_path):
    for number in range(3):
        EventLog(path=tmp_path / "events.jsonl", clock=lambda: 0.0).emit("x", round=number)
    assert [line["round"] for line in lines(tmp_path / "events.jsonl")] == [0, 1, 2]


def test_a_name_of_an_earlier_version_is_read_as_the_present_one():
    assert events.current_name("release.held") == events.RELEASE_REJECTED == "release.rejected"
    assert events.current_name("a.b") == "a.b"


def test_a_listener_hears_of_an_event_once_it_is_written(tmp_path):
    heard = []
    path = tmp_path / "events.jsonl"

    def listener(event, fields):
        heard.append((event, fields, len(lines(path))))

    log = EventLog(path=path, clock=lambda: 0.0, listener=listener)
    log.emit("a", site="s")
    log.emit("b")
    assert heard == [("a", {"site": "s"}, 1), ("b", {}, 2)]


def test_event_names_are_distinct():
    values = [value for name, value in vars(events).items() if name.isupper()]
    declared = [value for value in values if isinstance(value, str)]
    assert len(declared) == len(set(declared)) > 8


def test_a_figure_that_is_not_finite_is_still_json(tmp_path):
    log = EventLog(path=tmp_path / "events.jsonl", clock=lambda: 1.0)
    log.emit("retraining.finished", explained=float("nan"))
    line = json.loads((tmp_path / "events.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["explained"] == "nan"
