"""The search finds what a plain scan finds, for many contexts at a time."""

from __future__ import annotations

import torch

from f2l_fed.generator import nearest_records
from f2l_fed.generator.candidates import FittedRecords
from f2l_fed.generator.nearest_records import NearestRecords
from tests.support.devices import on_devices
from tests.support.small import rng


def stored(count=300, size=40, offset=0.0):
    contexts = torch.randn(count, size, generator=rng(1)) + offset
    return FittedRecords(contexts=contexts, weights=torch.arange(float(count))[:, None])


def rows(found):
    return [None if one is None else int(one) for one in found]


@on_devices
def test_it_finds_what_a_scan_finds(device):
    records = stored()
    asked = torch.randn(50, 40, generator=rng(2))
    found = NearestRecords.of(records, device).weights_for(asked, [range(0)] * len(asked))
    assert rows(found) == [int(records.nearest(one, 1)[0]) for one in asked]
    assert len(set(rows(found))) > 20


def test_rounding_of_the_product_decides_nothing():
    # Lengths are a million times the distances, which a product of float32 can't tell apart.
    records = stored(offset=1e3)
    asked = records.contexts[::10] + 1e-2 * torch.randn(30, 40, generator=rng(2))
    found = NearestRecords.of(records).weights_for(asked, [range(0)] * len(asked))
    assert rows(found) == list(range(0, 300, 10))


def test_the_records_of_the_own_site_do_not_count():
    records = stored()
    asked = records.contexts[:8] + 1e-3
    own = [range(row // 4 * 4, row // 4 * 4 + 4) for row in range(8)]
    found = rows(NearestRecords.of(records).weights_for(asked, own))
    for one, left_out, row in zip(asked, own, found, strict=True):
        others = records.contexts.clone()
        others[left_out.start : left_out.stop] = 1e6
        assert row == int((others - one).norm(dim=1).argmin())


def test_without_another_record_there_is_none():
    few = stored(3)
    found = NearestRecords.of(few).weights_for(few.contexts[:2], [range(3), range(1, 3)])
    assert rows(found) == [None, 0]
    nothing = FittedRecords(contexts=torch.zeros(0, 4), weights=torch.zeros(0, 4))
    assert NearestRecords.of(nothing).weights_for(torch.ones(2, 4), [range(0)] * 2) == [None, None]


def test_many_contexts_are_taken_some_at_a_time(monkeypatch):
    records = stored()
    asked = torch.randn(50, 40, generator=rng(2))
    search, own = NearestRecords.of(records), [range(row, row + 3) for row in range(50)]
    whole = rows(search.weights_for(asked, own))
    monkeypatch.setattr(nearest_records, "_NUMBERS", 2_000)
    assert rows(NearestRecords.of(records).weights_for(asked, own)) == whole
