"""Users' own data in simulations: the readers of sites, pooled or a file for each site."""

from __future__ import annotations

import numpy as np
import pytest

from f2l_fed.data.own_data import read_pool, read_sites
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.scenarios.config import SplitConfig
from f2l_fed.data.scenarios.partition import partition
from f2l_fed.errors import DataError
from tests.support.checked_site import opened, write_picture, write_rows

PLAIN = ReadingConfig()


def table(path, header, *rows):
    path.write_text("\n".join([header, *rows, ""]))
    return path


def test_a_site_and_a_simulation_read_the_same_examples_from_the_same_file(tmp_path):
    text = write_rows(tmp_path / "t.csv", rows=30).read_text()
    text = text.replace("3,1.5", ",1.5").replace(",", ";").replace(".", ",")
    path = write_rows(tmp_path / "t.csv", text=text)
    pooled, remarks = read_pool(path, PLAIN)
    site = opened(path)
    both = np.concatenate([site.train.x.numpy(), site.validation.x.numpy()])
    # A site fills gaps in, which a pool leaves to its sites.
    whole = both[both[:, 1] == 0][:, [0, 2]]
    pool = pooled.x[~np.isnan(pooled.x[:, 0])]
    assert len(pool) == 29
    assert sorted(map(tuple, whole.tolist())) == sorted(map(tuple, pool.tolist()))
    assert pooled.classes == len(site.labels) == 2
    assert any("semicolons" in remark for remark in remarks)


def test_settings_of_the_reading_are_those_of_a_site(tmp_path):
    path = table(
        tmp_path / "t.csv", "width,value,result", *(f"{n},{n % 7},{n % 3}" for n in range(30))
    )
    pooled, _ = read_pool(path, ReadingConfig(label="result", ignore=("value",)))
    assert pooled.x[:, 0].tolist() == list(range(30))
    with pytest.raises(DataError, match="no column of labels"):
        read_pool(path, PLAIN)


def test_copies_are_counted_and_left_out_by_the_division(tmp_path):
    path = table(tmp_path / "t.csv", "a,label", *(f"{n % 10},{n % 2}" for n in range(30)))
    _, remarks = read_pool(path, PLAIN)
    assert "20 exact copies of other examples are left out." in remarks


def test_a_folder_of_images_is_a_pool(tmp_path):
    for label in ("b", "a"):
        for n in range(4):
            write_picture(tmp_path / "d" / label / f"{n}.png", seed=n + 10 * (label == "a"))
    pooled, _ = read_pool(tmp_path / "d", ReadingConfig(resize=(4, 4)))
    assert pooled.x.shape == (8, 1, 4, 4)
    assert pooled.y.tolist() == [0] * 4 + [1] * 4


def test_sites_are_matched_by_names_of_labels_and_columns(tmp_path):
    north = table(
        tmp_path / "n.csv", "a,colour,label", *(f"{n},red,ok" for n in range(9)), "9,,Riß"
    )
    south = table(
        tmp_path / "s.csv", "label,colour,a", *(f"OK,blue,{n}" for n in range(9)), "Delle,red,"
    )
    data, _ = read_sites([("north", north), ("south", south)], PLAIN)
    assert data.classes == 3
    assert data.y.tolist() == [2] * 9 + [1] + [2] * 9 + [0]
    assert [column.name for column in data.columns] == ["a", "colour"]
    assert data.columns[1].values == ("blue", "red")
    assert data.x[0].tolist() == [0, 1]
    assert data.x[10].tolist() == [0, 0]
    assert np.isnan(data.x[19]).tolist() == [True, False]
    assert data.groups is not None
    assert data.groups.tolist() == [0] * 10 + [1] * 10
    assert data.group_names == ("north", "south")


def test_sites_that_do_not_fit_together_are_told(tmp_path):
    north = table(tmp_path / "n.csv", "a,b,label", "1,2,x", "2,3,y")
    south = table(tmp_path / "s.csv", "a,c,label", "1,2,x", "2,3,y")
    with pytest.raises(DataError, match=r"s\.csv: columns are missing.*'b'"):
        read_sites([("north", north), ("south", south)], PLAIN)
    np.savez(tmp_path / "i.npz", x=np.zeros((2, 4, 4)), y=[0, 1])
    np.savez(tmp_path / "j.npz", x=np.zeros((2, 5, 4)), y=[0, 1])
    with pytest.raises(DataError, match=r"different shapes: got a \(1, 4, 4\), b \(1, 5, 4\)"):
        read_sites([("a", tmp_path / "i.npz"), ("b", tmp_path / "j.npz")], PLAIN)
    with pytest.raises(DataError, match="named twice"):
        read_sites([("a", north), ("a", north)], PLAIN)


def test_the_natural_scenario_keeps_the_names_of_sites(tmp_path):
    rng = np.random.default_rng(0)
    sites = []
    for name in ("north", "south", "west"):
        rows = (f"{rng.random()},{n % 2}" for n in range(24))
        sites.append((name, table(tmp_path / f"{name}.csv", "a,label", *rows)))
    data, _ = read_sites(sites, PLAIN)
    divided = partition("natural", [data], sites=40, held_out=1, seed=0, config=SplitConfig())
    seen = divided.held_out["seen"]
    assert seen is not None
    names = [site.name for site in (*divided.sites, *seen)]
    assert sorted(names) == ["north", "south", "west"]
    assert len(divided.sites) == 2


def test_a_simulation_keeps_the_differences_of_times_in_seconds(tmp_path):
    rows = [(1_760_000_000 + n, n % 7, "xy"[n % 2]) for n in range(100)]
    table(tmp_path / "a.csv", "stamp,b,label", *(f"{a},{b},{y}" for a, b, y in rows))
    pool, _ = read_pool(tmp_path / "a.csv", ReadingConfig())
    assert np.diff(pool.x[:, 0]).tolist() == [1] * 99
    table(tmp_path / "b.csv", "stamp,b,label", *(f"{a + 1000},{b},{y}" for a, b, y in rows))
    both, _ = read_sites([("a", tmp_path / "a.csv"), ("b", tmp_path / "b.csv")], ReadingConfig())
    assert np.unique(both.x[100:, 0] - both.x[:100, 0]).tolist() == [1000]
