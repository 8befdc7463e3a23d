"""``federation.toml``: written with meanings, read again, refreshed after edits, checked."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from f2l_fed.errors import ConfigError
from server.federation import settings
from server.federation.server_settings import ServerSettings
from server.federation.settings import create, read_settings, refresh

SMALL = ["target.name=mlp", "target.input_shape=[1,8,8]"]


def test_the_file_has_given_values_as_keys_and_defaults_as_comments(tmp_path: Path) -> None:
    federation, server = create(
        tmp_path / "f", {}, [*SMALL, "seed=7"], {"address": "hub:1"}, "--set"
    )
    text = (tmp_path / "f/federation.toml").read_text()
    values = tomllib.loads(text)
    assert values["seed"] == 7
    assert values["server"]["address"] == server.address == "hub:1"
    assert values["target"] == {"adapt": "head", "name": "mlp", "input_shape": [1, 8, 8]}
    assert "# timeout_s = 600.0" in text
    again, same = refresh(tmp_path / "f")
    assert (again.config, same) == (federation.config, server)


@pytest.mark.parametrize(("shape", "name"), [("[12]", "mlp"), ("[3, 32, 32]", "cnn-xs")])
def test_a_new_federation_gets_a_network_that_suits_its_inputs(tmp_path, shape, name) -> None:
    federation, _ = create(tmp_path / "f", {}, [f"target.input_shape={shape}"], {}, "--set")
    assert federation.config.target.name == name
    assert refresh(tmp_path / "f")[0].config == federation.config


def test_an_edit_takes_effect_and_an_invalid_one_is_named(tmp_path: Path) -> None:
    create(tmp_path / "f", {}, SMALL, {}, "--set")
    path = tmp_path / "f/federation.toml"
    text = path.read_text()
    path.write_text(text.replace("# timeout_s = 600.0", "timeout_s = 5.0"))
    assert refresh(tmp_path / "f")[0].config.round.timeout_s == 5.0
    assert settings.Federation.open(tmp_path / "f").config.round.timeout_s == 5.0
    registry = tmp_path / "f/registry"
    registry.mkdir()
    (registry / "north.json").write_text('{"name": "north", "state": "active", "key": "k"}')
    path.write_text(text.replace('name = "mlp"', 'name = "cnn-xs"'))
    with pytest.raises(ConfigError, match="target is fixed since a site has registered"):
        refresh(tmp_path / "f")
    path.write_text(text.replace("[server]", "[server]\nlistn = 'x:1'"))
    with pytest.raises(ConfigError, match=r"unknown key: got listn\. Did you mean listen\?"):
        refresh(tmp_path / "f")


def test_features_are_named_for_each_number_of_the_inputs(tmp_path: Path) -> None:
    names = 'features=["width","height"]'
    federation, _ = create(tmp_path / "f", {}, ["target.input_shape=[2]", names], {}, "--set")
    assert federation.config.features == ("width", "height")
    for shape in ("[3]", "[2,8,8]"):
        with pytest.raises(ConfigError, match="features are named that the inputs do not have"):
            create(tmp_path / "g", {}, [f"target.input_shape={shape}", names], {}, "--set")


def test_until_a_site_has_registered_the_task_may_change(tmp_path: Path) -> None:
    create(tmp_path / "f", {}, SMALL, {}, "--set")
    registry = tmp_path / "f/registry"
    registry.mkdir()
    (registry / "south.json").write_text('{"name": "south", "state": "invited", "key": ""}')
    path = tmp_path / "f/federation.toml"
    text = path.read_text().replace("[1, 8, 8]", "[12]").replace("# classes = 5", "classes = 2")
    path.write_text(
        text.replace("# shared_labels = false", 'shared_labels = true\nlabels = ["a", "b"]')
    )
    changed = refresh(tmp_path / "f")[0]
    assert changed.config.labels == ("a", "b")
    opened = settings.Federation.open(tmp_path / "f")
    assert opened.zoo.manifest.layout_digest == changed.target.layout.digest
    path.write_text(path.read_text().replace('labels = ["a", "b"]', 'labels = ["a"]'))
    with pytest.raises(ConfigError, match="a name for each of 2 classes"):
        refresh(tmp_path / "f")


def test_a_server_section_alone_leaves_the_federation_unchanged(tmp_path: Path) -> None:
    federation, _ = create(tmp_path / "f", {}, [*SMALL, "seed=7"], {}, "--set")
    (tmp_path / "f/federation.toml").write_text("[server]\ndashboard = 0\n")
    again, server = refresh(tmp_path / "f")
    assert again.config == federation.config
    assert server.dashboard == 0


def test_the_former_name_of_the_gateways_key_is_read(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_text('[server]\nfront = "external"\nsuperlink = 1\nenrolment = 2\n')
    assert read_settings(tmp_path).gateway == "external"
    path.write_text('[server]\nfront = "external"\ngateway = "built-in"\n')
    with pytest.raises(ConfigError, match=r"unknown key: .*got front"):
        read_settings(tmp_path)


def test_the_default_addresses_are_loopback() -> None:
    server = ServerSettings()
    assert server.listen.startswith("127.0.0.1:")
    assert server.control.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"listen": "8443"}, "listen: not a valid address: expected host:port"),
        ({"gateway": "nginx"}, "gateway is out of range"),
        ({"gateway": "external"}, "superlink is out of range: expected a fixed port"),
        ({"connections": 0}, "connections is out of range"),
        ({"dashboard": 70000}, "dashboard is out of range"),
    ],
)
def test_an_invalid_value_is_refused(value: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        create(tmp_path / "f", {"server": value}, SMALL, {}, "here")
    assert not (tmp_path / "f").exists()
    assert read_settings(tmp_path) == ServerSettings()
