"""A flipped bit anywhere in the index: reading notices it, or it changes nothing that is read."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from f2l_fed.zoo import NewRecord, Query, Reader, Zoo

LAYOUT = {"tensors": [{"name": "a", "shape": [3], "dtype": "float32"}]}
FLIPS = 200


def answers(place: Path) -> list[Any]:
    """What a process that has just opened a zoo is told about all of it."""
    zoo = Zoo.open(place)
    seen = zoo.snapshot()
    chosen = [
        Query(status=None),
        Query(),
        Query(latest_per_site=True),
        Query(parent="00001"),
        Query(status="quarantined"),
        Query(metrics={"accuracy": (0.2, 0.8)}),
        *(Query(site=site) for site in ("north", "south", "west")),
        *(Query(round=number) for number in range(4)),
    ]
    found: list[Any] = [seen.select(query) for query in chosen]
    earlier = [zoo.snapshot(commit).select(Query(status=None)) for commit in range(seen.commit)]
    plan = [batch.records for batch in Reader(seen, Query(), batch_size=64).epoch()]
    return [*found, *earlier, plan, seen.rounds(), zoo.stats(), zoo.erasures()]


def a_zoo(place: Path) -> Zoo:
    zoo = Zoo.create(place, lineage="x", layout_digest="d", layout=LAYOUT, context_dim=2)
    for number in range(4):
        zoo.append(
            [
                NewRecord(
                    key=f"{number}/{site}/0",
                    site=site,
                    round=number,
                    parent=f"{number:05d}" if number else "",
                    weights=np.full(3, number, np.float32),
                    context=np.ones(2, np.float32),
                    metrics={"accuracy": number / 4},
                    status="quarantined" if number == 2 and site == "west" else "accepted",
                    reason="odd" if number == 2 and site == "west" else "",
                )
                for site in ("north", "south", "west", "gone")
            ]
        )
    zoo.compact()
    zoo.forget("gone")
    return zoo


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("zoo") / "zoo"
    a_zoo(place).stats()
    return place


def flipped(place: Path, sound: Path, position: int, bit: int) -> None:
    data = bytearray((sound / "index.sqlite").read_bytes())
    data[position] ^= 1 << bit
    (place / "index.sqlite").write_bytes(data)


def test_no_flipped_bit_changes_what_a_process_reads(sound, tmp_path):
    place = tmp_path / "zoo"
    shutil.copytree(sound, place)
    expected, data = answers(sound), (sound / "index.sqlite").read_bytes()
    draws = random.Random(0)
    used = [position for position, byte in enumerate(data) if byte]
    wrong = []
    for position in draws.sample(used, FLIPS):
        bit = draws.randrange(8)
        flipped(place, sound, position, bit)
        if answers(place) != expected:
            wrong.append((position, bit))
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "query"),
    [
        (b"accepted", Query()),
        (b"quarantined", Query(status="quarantined")),
        (b"00001", Query(parent="00001")),
        (b'"accuracy"', Query(metrics={"accuracy": (0.2, 0.8)})),
    ],
)
def test_a_record_is_not_hidden_by_a_flip_in_what_it_is_chosen_by(sound, tmp_path, text, query):
    def chosen(zoo: Path) -> Any:
        # One question: another one might meet the damaged row and have the index made again.
        return Zoo.open(zoo).snapshot().select(query)

    place = tmp_path / "zoo"
    shutil.copytree(sound, place)
    expected, data = chosen(sound), (sound / "index.sqlite").read_bytes()
    position = data.find(text)
    assert position > 0
    while position > 0:
        flipped(place, sound, position + 1, 1)
        assert chosen(place) == expected
        position = data.find(text, position + 1)


def test_the_index_of_an_earlier_version_is_made_again_and_read_by_it(sound, tmp_path):
    place = tmp_path / "zoo"
    shutil.copytree(sound, place)
    expected = answers(sound)
    path = place / "index.sqlite"
    with closing(sqlite3.connect(path)) as db:
        # As 80a4fc7 made it, with a record that a flipped bit hides.
        for name in ("records_by_query", "records_by_shard", "moves_by_all", "forgotten_by_all"):
            db.execute(f"DROP INDEX {name}")
        db.execute("CREATE INDEX records_by_site ON records (site)")
        db.execute("UPDATE records SET status = 'acceptee' WHERE key = '1/north/0'")
        db.commit()
    assert answers(place) == expected
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
