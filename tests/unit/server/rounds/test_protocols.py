"""A site is asked in the highest version that both sides speak; with a body in the latest."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, RecordDict

from f2l_fed.wire.messages import Refusal
from f2l_fed.wire.packing import pack_refusal
from server.rounds.messaging import RequestHeader, SiteReply
from server.rounds.protocols import UnregisteredSites, asked_in, note_answer, too_old
from tests.support.golden import message
from tests.support.messages import FRAME, HEADS


class Kept:
    """Versions by site, with all that was noted."""

    coded = True

    def __init__(self, **spoken):
        self.spoken = spoken

    def of(self, site):
        return self.spoken[site]

    def note(self, site, spoken):
        self.spoken[site] = spoken


def reply(content, site="a"):
    return SiteReply(RequestHeader(7, site, 1, ""), content, "" if content else "timeout")


@pytest.mark.parametrize(("spoken", "asked"), [(3, 3), (4, 4), (9, 4), (0, 3)])
def test_a_site_is_asked_in_the_highest_common_version(spoken, asked):
    assert asked_in(Kept(a=spoken), "a", FRAME) == asked
    assert asked_in(Kept(a=spoken), "a", HEADS) == 4
    assert asked_in(UnregisteredSites(), "a", FRAME) == 4


def test_an_answer_changes_the_version_and_its_absence_does_not():
    kept = Kept(a=3)
    note_answer(kept, reply(pack_refusal(Refusal(site="b", code="failed"))))
    assert kept.spoken == {"a": 4}
    note_answer(kept, reply(None))
    assert kept.spoken == {"a": 4}
    note_answer(kept, reply(message("refusal")))
    assert kept.spoken == {"a": 3}
    note_answer(kept, reply(pack_refusal(Refusal(site="b", code="failed")), site=""))
    assert kept.spoken == {"a": 3}


def test_an_older_site_that_was_asked_with_a_body_is_told_apart():
    older = RecordDict({"refusal": ConfigRecord({"site": "a", "code": "WireError"})})
    assert too_old(reply(older), HEADS) == (
        "the site speaks protocol 3, which has no messages with a body; update F2L-Fed at the site"
    )
    assert too_old(reply(older), FRAME) == ""
    assert too_old(reply(pack_refusal(Refusal(site="a", code="failed"))), HEADS) == ""
    assert too_old(reply(None), HEADS) == ""
