"""Copies and collusion: the same findings as by comparing everything with everything."""

from __future__ import annotations

import types
from math import inf, sqrt

import pytest
import torch

from f2l_fed.admission import AdmissionConfig, History
from f2l_fed.admission.checks import duplicates
from f2l_fed.admission.features import Features
from f2l_fed.admission.submission import SubmissionId

CONFIG = AdmissionConfig()
WIDTH = 40


def evidence(new, history, solved=False):
    submission = types.SimpleNamespace(solved=solved)
    return types.SimpleNamespace(
        features=new, history=history, config=CONFIG, submission=submission
    )


def features(one, signatures, lengths, directions):
    unit = directions / directions.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return Features(id=one, values={}, signatures=signatures, lengths=lengths, directions=unit)


def typical(vectors, sites):
    """The median over a sample of the distance to the second nearest other site, plainly."""
    order = sorted(range(len(sites)), key=sites.__getitem__)
    found = []
    for row in order[:: max(1, len(sites) // 64)]:
        nearest = {}
        for distance, site in zip(
            (vectors - vectors[row]).norm(dim=1).tolist(), sites, strict=True
        ):
            nearest[site] = min(distance, nearest.get(site, inf))
        nearest[sites[row]] = inf
        found.append(sorted(nearest.values())[min(2, len(nearest)) - 1])
    return sorted(found)[(len(found) - 1) // 2]


def expected_copies(new, history):
    """The codes of copies, with everything compared."""
    ids, codes = history.signature_ids, set()
    apart = torch.cdist(
        new.signatures, history.signatures, compute_mode="donot_use_mm_for_euclid_dist"
    )
    shares = (apart / new.lengths[:, None].clamp(min=1e-12)).amin(0).tolist()
    mine, limit = new.id, CONFIG.copy / 10
    for number in (mine.round, mine.round - 1):
        rows = [
            row
            for row, other in enumerate(ids)
            if (other.round, bool(other.parent)) == (number, bool(mine.parent))
            and other.site != mine.site
        ]
        if len({ids[row].site for row in rows}) >= CONFIG.minimum:
            distance = typical(history.signatures[rows].double(), [ids[row].site for row in rows])
            limit = min(CONFIG.copy, distance / 4 / max(float(new.lengths.min()), 1e-12))
            break
    for share, other in zip(shares, ids, strict=True):
        if other.site != mine.site and share < limit:
            codes.add("copy")
        earlier = other.site == mine.site and other.round < mine.round
        if earlier and other.parent != mine.parent and share < CONFIG.copy:
            codes.add("stale")
    return codes


def expected_collusion(new, history):
    rows = [
        row
        for row, other in enumerate(history.direction_ids)
        if other.site != new.id.site and other[1:] == new.id[1:]
    ]
    sites = [history.direction_ids[row].site for row in rows]
    if len(set(sites)) < CONFIG.minimum:
        return set()
    known = history.directions[rows].double()
    nearest = min(sqrt(2 * (1 - CONFIG.alike)), typical(known, sites) / 4)
    alike = float((new.directions.double() @ known.T).max()) > 1 - nearest**2 / 2
    return {"alike"} if alike else set()


def codes(check, *about):
    return {finding.code for finding in check(evidence(*about))}


def fleet(seed, sites, spread, rounds=2, networks=2):
    """Admitted submissions of some sites, and new ones: honest, copied, near, alike, stale."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=rng)

    history, base = History(), normal(WIDTH)
    for number in range(1, rounds + 1):
        parent = f"{number:05d}" if number > 1 else ""
        for site in range(sites):
            one = SubmissionId(f"site-{site * 7919 % 10_007:05d}", number, parent)
            vectors = number * base + spread * normal(networks, WIDTH)
            directions = base + 5 * spread * normal(networks, WIDTH)
            history.admit(features(one, vectors, torch.ones(networks), directions))
    known, sent = history.signatures, []
    for number in range(20):
        kind, round_ = number % 5, 1 + number % rounds
        parent = f"{round_:05d}" if round_ > 1 else ""
        site = f"new-{number}" if kind else history.signature_ids[0].site
        vectors = round_ * base + spread * normal(networks, WIDTH)
        directions = base + 5 * spread * normal(networks, WIDTH)
        row = int(torch.randint(len(known), (), generator=rng))
        if kind != 1:
            near = 10 ** -float(torch.rand((), generator=rng) * 6)
            vectors[0] = known[row] + spread * near * normal(WIDTH)
            updates = history.directions
            some = updates[row % len(updates)]
            directions[0] = some + near * normal(WIDTH) / WIDTH**0.5
        lengths = torch.rand(networks, generator=rng) * 10 ** float(kind - 2) + 1e-3
        sent.append(features(SubmissionId(site, round_, parent), vectors, lengths, directions))
    return history, sent


@pytest.mark.parametrize("spread", [0.001, 0.03, 1.0])
@pytest.mark.parametrize("sites", [3, 12, 150, 500])
def test_the_same_submissions_are_found_as_by_comparing_all(sites, spread):
    history, sent = fleet(sites, sites, spread)
    found, expected = set(), set()
    for new in sent:
        found = codes(duplicates.copies, new, history)
        assert found == expected_copies(new, history)
        assert codes(duplicates.collusion, new, history) == expected_collusion(new, history)
        # What is in the table, in the tree and behind it, goes on changing.
        history.admit(new)
        expected |= found
    assert expected


def test_copies_are_found_wherever_they_are_among_networks_of_any_size():
    rng = torch.Generator().manual_seed(1)
    history = History()
    for number in range(1200):
        vectors = 10 ** float(number % 9 - 3) * torch.randn(1, WIDTH, generator=rng)
        one = SubmissionId(f"site-{number:04d}", 1, "")
        history.admit(features(one, vectors, torch.ones(1), vectors))
        if number % 100 == 99:
            for row in range(0, number, 37):
                copied = history.signatures[row : row + 1]
                assert row in history.networks.near(copied * (1 + 1e-7), 1e-6 * copied.norm(dim=1))


def test_updates_in_no_direction_are_not_alike():
    history, nothing = History(), torch.zeros(1, WIDTH)
    rng = torch.Generator().manual_seed(2)
    for number in range(600):
        one = SubmissionId(f"site-{number:04d}", 1, "")
        history.admit(features(one, torch.randn(1, WIDTH, generator=rng), torch.ones(1), nothing))
    new = features(SubmissionId("new", 1, ""), nothing, torch.ones(1), nothing)
    assert not codes(duplicates.collusion, new, history)
