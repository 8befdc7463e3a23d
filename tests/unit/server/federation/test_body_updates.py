"""The updates of the body that wait for the next release."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.errors import ZooError
from server.federation.body_updates import BodyUpdate, BodyUpdates
from server.federation.file_names import site_digest


def update(site="north", round=1, value=1.0):
    return BodyUpdate(site=site, round=round, body=torch.full((5,), value))


@pytest.fixture
def bodies(tmp_path):
    return BodyUpdates.of(tmp_path)


def test_without_a_folder_there_are_none(bodies):
    assert bodies.read("") == []
    assert bodies.sites("00001", 2) == set()
    assert not bodies.holds("north")
    bodies.forget("north")
    bodies.drop_all_but("")


def test_they_come_back_by_name(bodies):
    for site in ("west", "ost/../x", "nord ümlaut"):
        bodies.keep("00001", update(site))
    found = bodies.read("00001")
    assert [one.site for one in found] == ["nord ümlaut", "ost/../x", "west"]
    assert all(torch.equal(one.body, update().body) for one in found)
    assert {path.parent for path in bodies.folder.rglob("*.safetensors")} == {
        bodies.folder / "00001"
    }


def test_a_later_update_replaces_an_earlier_one_of_the_same_release_alone(bodies):
    bodies.keep("", update(value=1.0))
    bodies.keep("00001", update(round=2, value=2.0))
    bodies.keep("00001", update(round=3, value=3.0))
    assert [float(one.body[0]) for one in bodies.read("")] == [1.0]
    assert [(one.round, float(one.body[0])) for one in bodies.read("00001")] == [(3, 3.0)]
    assert bodies.sites("00001", 2) == set()
    assert bodies.sites("00001", 3) == {"north"}


def test_a_view_is_kept_as_its_own_numbers(bodies):
    matrix = torch.arange(20.0).view(5, 4)
    bodies.keep("", BodyUpdate(site="north", round=1, body=matrix[:, 1]))
    (found,) = bodies.read("")
    assert found.body.tolist() == [1.0, 5.0, 9.0, 13.0, 17.0]


def test_an_erased_site_leaves_nothing_not_even_a_draft(bodies):
    for release in ("", "00001"):
        bodies.keep(release, update())
        bodies.keep(release, update("south"))
    draft = bodies.folder / "00001" / f".{site_digest('north')}.draft"
    draft.write_bytes(b"half")
    assert bodies.holds("north")
    bodies.forget("north")
    assert not bodies.holds("north")
    assert not draft.exists()
    assert [one.site for one in bodies.read("00001")] == ["south"]


def test_those_of_other_releases_go_when_they_are_in_one(bodies):
    for release in ("", "00001", "00002"):
        bodies.keep(release, update())
    bodies.drop_all_but("00002")
    assert [len(bodies.read(release)) for release in ("", "00001", "00002")] == [0, 0, 1]
    bodies.keep("", update())
    bodies.drop_all_but("")
    assert [len(bodies.read(release)) for release in ("", "00002")] == [1, 0]


@pytest.mark.parametrize("damage", [b"", b"no tensors", None])
def test_a_damaged_file_is_named(bodies, damage):
    bodies.keep("", update())
    (path,) = bodies.folder.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-3] if damage is None else damage)
    with pytest.raises(ZooError, match="can't be read"):
        bodies.read("")


def test_only_the_owner_may_read_them(bodies):
    bodies.keep("", update())
    (path,) = bodies.folder.rglob("*.safetensors")
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_who_has_returned_one_is_told_without_the_bodies(bodies):
    bodies.keep("", update())
    bodies.keep("", update("south", round=2))
    assert bodies.sites("", 1) == {"north"}
    (path,) = bodies.folder.glob(f"*/{site_digest('north')}*")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ZooError, match="can't be read"):
        bodies.sites("", 1)
