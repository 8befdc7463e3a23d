"""The bodies that a site goes along with, and every reason to refuse one."""

from __future__ import annotations

import json
import stat

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from clients.site.site import open_site
from clients.training.accepted_body import ACCEPTED_BODY, allow_body
from f2l_fed.errors import PolicyRefusal
from f2l_fed.targets.body import body_digest
from f2l_fed.wire.messages import ProbeRequest
from tests.support.sites import BODY, FIRST_BODY, body_frame, digits_site
from tests.support.small import rng

LENGTH = float(FIRST_BODY.norm())


def step(body, share=0.5, seed=0):
    """A body that is further by a share of the first one's length, in a direction by the seed."""
    way = torch.randn(body.shape, generator=rng(seed))
    return body + share * LENGTH * way / way.norm()


def chain_of(*bodies):
    return tuple(map(body_digest, bodies))


@pytest.fixture
def ask(tmp_path):
    """Asks with the last of some bodies: the code of the refusal, or "" if it is accepted."""
    more = "[policy]\nmaximum_body_change = 1.0\n"
    site = open_site(digits_site(tmp_path, more=more))

    def asked(*bodies, sent=None, chain=None, lineage="test/0"):
        request = ProbeRequest(
            frame=body_frame(lineage=lineage),
            anchor=bodies[-1] if sent is None else sent,
            chain=chain_of(*bodies) if chain is None else chain,
        )
        try:
            allow_body(site, request, BODY)
        except PolicyRefusal as refusal:
            return refusal.what
        return ""

    asked.path = site.state / ACCEPTED_BODY
    return asked


ONE, TWO = step(FIRST_BODY, seed=1), step(step(FIRST_BODY, seed=1), seed=2)
FORK = step(FIRST_BODY, seed=3)


def kept(ask):
    with safe_open(ask.path, framework="pt") as file:
        return tuple(json.loads(file.metadata()["chain"])), file.get_tensor("body")


def test_a_lineage_is_followed_and_the_last_body_kept_for_the_owner_alone(ask):
    for bodies in ((FIRST_BODY,), (FIRST_BODY, ONE), (FIRST_BODY, ONE, TWO)):
        assert ask(*bodies) == ask(*bodies) == ""
        chain, body = kept(ask)
        assert chain == chain_of(*bodies)
        assert torch.equal(body, bodies[-1])
    assert stat.S_IMODE(ask.path.stat().st_mode) == 0o600


def test_a_request_without_a_body_or_its_chain_is_refused(ask, tmp_path):
    assert ask(FIRST_BODY, chain=()) == "body-missing"
    request = ProbeRequest(frame=body_frame(), anchor=None, chain=chain_of(FIRST_BODY))
    with pytest.raises(PolicyRefusal, match="body-missing"):
        allow_body(open_site(tmp_path / "site.toml"), request, BODY)


def test_a_body_that_its_chain_does_not_end_with_is_refused(ask):
    assert ask(FIRST_BODY, sent=ONE) == "body-not-in-its-chain"
    assert ask(FIRST_BODY, ONE, sent=FIRST_BODY) == "body-not-in-its-chain"
    assert ask(FIRST_BODY, chain=("0" * 64,)) == "body-not-in-its-chain"
    assert not ask.path.exists()


def test_a_first_body_is_rebuilt_up_to_another_processors_rounding(ask):
    assert ask(FIRST_BODY * (1 + 1e-6)) == ""
    assert ask(FIRST_BODY + 0.01) == "body-not-rebuilt"
    assert ask(FIRST_BODY, lineage="test/1") == "body-not-rebuilt"
    assert ask(torch.zeros_like(FIRST_BODY)) == "body-not-rebuilt"


def test_a_newcomer_measures_from_the_first_body_by_the_length_of_the_chain(ask):
    far = step(FIRST_BODY, 1.9, seed=4)
    assert ask(FIRST_BODY, far) == "body-changed-too-much"
    assert not ask.path.exists()
    assert ask(FIRST_BODY, ONE, far) == ""


def test_a_body_far_from_the_last_one_is_refused_and_not_kept(ask):
    assert ask(FIRST_BODY, ONE) == ""
    for bad in (step(ONE, 2.0), -3 * ONE, 1e30 * ONE):
        assert ask(FIRST_BODY, ONE, bad) == "body-changed-too-much"
    assert torch.equal(kept(ask)[1], ONE)
    assert ask(FIRST_BODY, ONE, TWO) == ""


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_far_away(ask, number):
    assert ask(FIRST_BODY, ONE) == ""
    bad = ONE.clone()
    bad[3] = number
    assert ask(FIRST_BODY, ONE, bad) == "body-changed-too-much"


def test_after_missed_rounds_a_body_may_be_as_far_as_they_allow(ask):
    assert ask(FIRST_BODY, ONE) == ""
    later = step(ONE, 1.9, seed=5)
    assert ask(FIRST_BODY, ONE, later) == "body-changed-too-much"
    assert ask(FIRST_BODY, ONE, TWO, later) == ""


def test_a_fork_and_a_rollback_are_followed_from_their_common_beginning(ask):
    assert ask(FIRST_BODY, ONE, TWO) == ""
    # The federation has gone back one release.
    assert ask(FIRST_BODY, ONE) == ""
    assert ask(FIRST_BODY, ONE, TWO) == ""
    # Another second body: two links back and one forth.
    assert ask(FIRST_BODY, FORK) == ""
    assert kept(ask)[0] == chain_of(FIRST_BODY, FORK)
    assert ask(FIRST_BODY) == ""


def test_a_fork_that_is_far_is_refused(ask):
    assert ask(FIRST_BODY, ONE, TWO) == ""
    assert ask(FIRST_BODY, step(TWO, 9.0, seed=6)) == "body-changed-too-much"


def test_a_chain_with_nothing_in_common_is_of_another_lineage(ask):
    assert ask(FIRST_BODY, ONE) == ""
    other = step(ONE, 0.1, seed=7)
    assert ask(other, step(other, 0.1, seed=8)) == "body-of-another-lineage"
    # The first body of another name is none of this chain either.
    assert ask(FIRST_BODY, ONE, lineage="test/0") == ""


@pytest.mark.parametrize("damage", ["torn", "other size", "no chain"])
def test_a_kept_body_that_cant_be_read_makes_a_newcomer(ask, damage):
    assert ask(FIRST_BODY, ONE) == ""
    if damage == "torn":
        ask.path.write_bytes(ask.path.read_bytes()[:50])
    elif damage == "other size":
        save_file({"body": torch.zeros(3)}, ask.path, {"chain": json.dumps(chain_of(ONE))})
    else:
        save_file({"body": ONE}, ask.path)
    assert ask(FIRST_BODY, step(FIRST_BODY, 1.9, seed=9)) == "body-changed-too-much"
    assert ask(FIRST_BODY, ONE) == ""


def test_the_policy_sets_the_largest_change(tmp_path):
    site = open_site(digits_site(tmp_path, more="[policy]\nmaximum_body_change = 0.3\n"))
    near = step(FIRST_BODY, 0.2)
    for body, refused in ((ONE, True), (near, False)):
        request = ProbeRequest(frame=body_frame(), anchor=body, chain=chain_of(FIRST_BODY, body))
        if refused:
            with pytest.raises(PolicyRefusal, match="body-changed-too-much"):
                allow_body(site, request, BODY)
        else:
            allow_body(site, request, BODY)
