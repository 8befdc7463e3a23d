from __future__ import annotations

import pytest

from f2l_fed.errors import ZooError
from f2l_fed.zoo import Query, Zoo
from tests.unit.f2l_fed.zoo.samples import keys_of, new_record


@pytest.fixture
def filled(zoo: Zoo) -> Zoo:
    zoo.append(
        [
            new_record("0/a/0", metrics={"accuracy": 0.25, "loss": 2.0}),
            new_record("0/b/0", metrics={"accuracy": 0.5}),
        ]
    )
    zoo.append([new_record("1/a/0", parent="00001", metrics={"accuracy": 0.75, "loss": 1.0})])
    zoo.append(
        [
            new_record("1/b/0", parent="00001", status="quarantined", reason="odd"),
            new_record("2/a/0", parent="00002", metrics={'x"y$': -1.0}),
        ]
    )
    return zoo


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, ["0/a/0", "0/b/0", "1/a/0", "2/a/0"]),
        ({"site": "b", "status": None}, ["0/b/0", "1/b/0"]),
        ({"round": 1, "status": None}, ["1/a/0", "1/b/0"]),
        ({"parent": "00001"}, ["1/a/0"]),
        ({"parent": ""}, ["0/a/0", "0/b/0"]),
        ({"keys": ["2/a/0", "0/b/0", "none"]}, ["0/b/0", "2/a/0"]),
        ({"keys": []}, []),
        ({"metrics": {"accuracy": (0.5, 1.0)}}, ["0/b/0", "1/a/0"]),
        ({"metrics": {"accuracy": (0.0, 0.75), "loss": (1.0, 1.5)}}, ["1/a/0"]),
        ({"metrics": {'x"y$': (-1.0, -1.0)}}, ["2/a/0"]),
        ({"metrics": {"x": (-9.0, 9.0)}}, []),
        ({"latest_per_site": True}, ["0/b/0", "2/a/0"]),
        ({"latest_per_site": True, "status": None}, ["1/b/0", "2/a/0"]),
        ({"latest_per_site": True, "metrics": {"accuracy": (0.0, 1.0)}}, ["0/b/0", "1/a/0"]),
    ],
)
def test_conditions_choose_records(filled: Zoo, conditions: dict, expected: list[str]):
    assert keys_of(filled.snapshot().select(Query(**conditions))) == expected
    assert keys_of(filled.snapshot().records(**conditions)) == expected


def test_a_query_is_about_its_snapshot(filled: Zoo):
    assert keys_of(filled.snapshot(1).select(Query(latest_per_site=True))) == ["0/a/0", "0/b/0"]
    filled.forget("a")
    assert keys_of(filled.snapshot().select(Query())) == ["0/b/0"]
    assert keys_of(filled.snapshot(2).select(Query(parent="00001"))) == ["1/a/0"]
    with pytest.raises(ZooError, match="no such commit"):
        filled.snapshot(9)
