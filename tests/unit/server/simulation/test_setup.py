"""The setup of simulations on users' own data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clients.site.site import open_site
from f2l_fed.config import load_simulation_config
from f2l_fed.errors import ConfigError, DataError, TargetError
from server.simulation.setup import Simulation, prepare
from tests.support.checked_site import write_picture


def simulation(out: Path, *overrides: str, **changes: object) -> Simulation:
    config, reading, _ = load_simulation_config(None, overrides)
    plain = Simulation(
        data=(),
        scenario="dirichlet",
        sites=3,
        held_out=1,
        rounds=1,
        out=out,
        config=config,
        reading=reading,
    )
    return replace(plain, **changes)


def table(path: Path, rows: int = 240, *, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    lines = ["Nr;größe;Farbe;Ergebnis"]
    for n in range(rows):
        size = f"{rng.normal(n % 3):.3f}".replace(".", ",")
        lines.append(f"{n};{size};{['rot', 'blau'][n % 2]};{['gut', 'Riß', 'Kratzer'][n % 3]}")
    path.write_bytes("\r\n".join(lines).encode("cp1252"))
    return path


def test_a_table_is_divided_and_gets_a_network_of_its_own_without_a_word_about_it(tmp_path):
    said: list[str] = []
    plan = simulation(
        tmp_path / "out", "data.label=Ergebnis", data=(str(table(tmp_path / "t.csv")),)
    )
    federation, divided = prepare(plan, force=False, remark=said.append)
    assert federation.config.target.name == "mlp"
    assert divided.input_shape == (3,)
    assert divided.classes == 3
    assert any("decimal mark" in text for text in said)
    site = open_site(tmp_path / "out/sites/site-000/site.toml")
    assert site.config.policy.targets == "mlp"


def test_a_folder_of_images_gets_a_small_convolutional_network(tmp_path):
    for number, label in enumerate(("a", "b")):
        for n in range(60):
            write_picture(tmp_path / "d" / label / f"{n}.png", size=(20, 10), seed=n + 99 * number)
    plan = simulation(tmp_path / "out", "data.resize=[12, 9]", data=(str(tmp_path / "d"),))
    federation, divided = prepare(plan, force=False)
    assert federation.config.target.name == "cnn-xs"
    assert divided.input_shape == (1, 9, 12)


def test_large_images_get_a_sentence_with_the_remedy_before_anything_is_written(tmp_path):
    np.savez(
        tmp_path / "d.npz", x=np.random.default_rng(0).random((90, 80, 80)), y=np.arange(90) % 2
    )
    with pytest.raises(TargetError, match="resize"):
        prepare(simulation(tmp_path / "out", data=(str(tmp_path / "d.npz"),)), force=False)
    assert not (tmp_path / "out").exists()


def test_every_site_has_its_own_file_and_name(tmp_path):
    own = tuple(
        (name, table(tmp_path / f"{name}.csv", 60, seed=seed))
        for seed, name in enumerate(("north", "south", "west", "east"))
    )
    plan = simulation(
        tmp_path / "out", "data.label=Ergebnis", own_sites=own, scenario="natural", sites=40
    )
    said: list[str] = []
    _, divided = prepare(plan, force=False, remark=said.append)
    names = {site.name for site in divided.sites}
    assert len(names) == 3
    assert names < {"north", "south", "west", "east"}
    sites = [open_site(path) for path in (tmp_path / "out/sites").glob("site-00?/site.toml")]
    assert {site.config.name for site in sites} == names
    assert said.count("The decimal mark is a comma.") == 1


def test_settings_of_the_reading_are_strict(tmp_path):
    with pytest.raises(ConfigError, match=r"got seperator\. Did you mean separator\?"):
        load_simulation_config(None, ["data.seperator=;"])
    file = tmp_path / "federation.toml"
    file.write_bytes(b'\xef\xbb\xbfseed = 3\n[data]\nlabel = "kind"\nignore = ["a, b"]\n')
    config, reading, _ = load_simulation_config(file, ["data.mode=grey"])
    assert config.seed == 3
    assert (reading.label, reading.ignore, reading.mode) == ("kind", ("a, b",), "grey")


def test_data_that_are_neither_a_name_nor_a_file_are_refused(tmp_path):
    with pytest.raises(DataError, match="mnist5k"):
        prepare(simulation(tmp_path / "out", data=("minst5k",)), force=False)
    with pytest.raises(DataError, match=r"nowhere\.csv: the data do not exist"):
        prepare(simulation(tmp_path / "out", data=(str(tmp_path / "nowhere.csv"),)), force=False)
