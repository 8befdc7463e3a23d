from __future__ import annotations

import numpy as np
import pytest

from f2l_fed.config import load_config
from f2l_fed.zoo import NewRecord
from server.federation.folder import Federation
from server.generator.training_set import newest_records


@pytest.fixture
def federation(tmp_path):
    overrides = ("target.name=mlp", "target.input_shape=[1, 8, 8]", "probe.episodes=2")
    return Federation.create(tmp_path / "out", load_config(None, overrides))


def sent(
    federation: Federation, site: str, round: int, episodes: int = 2, parent: str = ""
) -> None:
    values = np.full(federation.target.layout.size, round, dtype=np.float32)
    federation.zoo.append(
        [
            NewRecord(
                key=f"{round}/{site}/{episode}",
                site=site,
                round=round,
                parent=parent,
                weights=values + episode,
                context=values,
                metrics={},
            )
            for episode in range(episodes)
        ]
    )


def newest(federation: Federation) -> dict[str, list[str]]:
    found = newest_records(federation, federation.zoo.snapshot(), None)
    return {site: [record.key for record in records] for site, records in found.items()}


def test_of_every_site_its_newest_round_is_taken(federation):
    assert newest(federation) == {}
    sent(federation, "stays", 1)
    sent(federation, "gone", 1)
    sent(federation, "stays", 3)
    sent(federation, "late", 3)
    # Of an earlier round, but it came last.
    sent(federation, "late", 2)
    assert newest(federation) == {
        "gone": ["1/gone/0", "1/gone/1"],
        "late": ["3/late/0", "3/late/1"],
        "stays": ["3/stays/0", "3/stays/1"],
    }


def test_records_whose_probes_started_elsewhere_give_way_to_older_ones(federation):
    sent(federation, "back", 1)
    sent(federation, "back", 2, parent="00001")
    sent(federation, "new", 2, parent="00001")
    # The release that made them is not there, so where their probes started is not known.
    assert newest(federation) == {"back": ["1/back/0", "1/back/1"]}


def test_a_round_without_all_networks_gives_way_to_an_older_one(federation):
    sent(federation, "half", 1)
    sent(federation, "half", 2, episodes=1)
    sent(federation, "never", 2, episodes=1)
    sent(federation, "whole", 1)
    assert newest(federation) == {
        "half": ["1/half/0", "1/half/1"],
        "whole": ["1/whole/0", "1/whole/1"],
    }
