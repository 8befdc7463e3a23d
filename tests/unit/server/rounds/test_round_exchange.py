"""The bookkeeping of an exchange: who is asked again, and what a round that goes on knows."""

from __future__ import annotations

from f2l_fed.events import EventLog
from server.rounds.journal import Journal, JournalEntry
from server.rounds.round_exchange import RoundExchange
from server.rounds.state import begun


def exchange(tmp_path, *stored: str) -> RoundExchange:
    log = EventLog(path=tmp_path / "events.jsonl", clock=lambda: 0.0)
    journal = Journal.of(tmp_path, 1)
    return RoundExchange(begun(1, "", 4), journal=journal, log=log, stored=stored)


def test_sites_are_settled_unless_they_were_silent_or_broke(tmp_path):
    current = exchange(tmp_path, "stored")
    for site, code in [("a", "accepted"), ("q", "quarantined"), ("r", "refused")]:
        current.end(JournalEntry(site=site, code=code, reason="why"))
    for site, code in [("s", "silent"), ("b", "failed")]:
        current.end(JournalEntry(site=site, code=code, reason="why"))
    assert current.accepted == {"stored", "a"}
    assert current.settled == {"stored", "a", "q", "r"}
    assert current.broken == {"b"}
    assert current.quarantined == {"q": "why"}
    assert current.rejected == {"r": "why", "s": "why", "b": "why"}
    assert current.asked == 6
    assert [line.site for line in Journal.of(tmp_path, 1).read()] == ["a", "q", "r", "s", "b"]


def test_a_site_that_broke_may_end_better_when_it_is_asked_again(tmp_path):
    current = exchange(tmp_path)
    for site, code in [("a", "accepted"), ("q", "quarantined")]:
        current.end(JournalEntry(site=site, code="failed", reason="error 3"))
        current.end(JournalEntry(site=site, code=code, reason="why"))
    assert current.rejected == {}
    assert current.quarantined == {"q": "why"}


def test_a_task_that_is_out_counts_as_asked_until_it_ends(tmp_path):
    current = exchange(tmp_path)
    current.send("a", (), 12)
    assert current.asked == 1
    assert current.sent("a") == ((), 12)
    assert current.asked == 0


def test_a_site_that_failed_at_the_check_in_is_named_and_may_still_come(tmp_path):
    current = exchange(tmp_path)
    gone = JournalEntry(site="u", code="unable", reason="no classes", finding="too-few-classes")
    silent = JournalEntry(site="s", code="silent", reason="no answer")
    for _ in range(2):
        current.end_check_in([gone, silent])
    assert current.rejected == {"u": "no classes", "s": "no answer"}
    assert (current.unable, current.settled, current.asked) == ({"u"}, set(), 2)
    assert [line.site for line in Journal.of(tmp_path, 1).read()] == ["u", "s"]
    current.end(JournalEntry(site="u", code="accepted"))
    assert (current.unable, current.rejected) == (set(), {"s": "no answer"})


def test_a_site_with_nothing_left_to_learn_has_done_its_part(tmp_path):
    current = exchange(tmp_path)
    current.end(JournalEntry(site="a", code="unchanged", reason="nothing left to learn"))
    assert current.accepted == current.settled == current.unchanged == {"a"}
    assert current.rejected == {}
