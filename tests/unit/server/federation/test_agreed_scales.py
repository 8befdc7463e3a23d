"""The server's side of the agreement on scales: whose figures count, and what is refused."""

from __future__ import annotations

import json

import pytest

from f2l_fed.data.readers.agreed_scales import ScalingConfig
from f2l_fed.errors import ConfigError, UsageError, WireError
from server.federation.agreed_scales import (
    SCALES_FILE,
    agreed_scales,
    forget_figures,
    require_agreed,
    take_figures,
)
from server.federation.folder import Federation
from server.federation.settings import create, refresh

FOUR = ScalingConfig(sites=4)
SITES = ("a", "b", "c", "d", "e")


def told(root, site, *, mean=1.0, sites=SITES, config=FOUR):
    return take_figures(root, config, site, {"figures": {"x": [mean, 2.0]}}, sites)


def test_figures_of_registered_sites_count_and_are_removed_once_they_are_combined(tmp_path):
    assert told(tmp_path, "a") == told(tmp_path, "a", mean=3.0) == 1
    # Removed in the meantime.
    assert told(tmp_path, "gone", sites=(*SITES, "gone")) == 2
    assert told(tmp_path, "b") == 2
    with pytest.raises(UsageError, match="those of 2: a, b"):
        require_agreed(tmp_path, FOUR, SITES)
    assert told(tmp_path, "c") == 3
    assert agreed_scales(tmp_path, FOUR) == {}
    assert told(tmp_path, "d") == 4
    scales = agreed_scales(tmp_path, FOUR)
    assert scales["x"][0] == 1.0
    require_agreed(tmp_path, FOUR, SITES)
    assert not (tmp_path / "scales").exists()
    # They are final: a later site's say nothing more.
    assert told(tmp_path, "e", mean=1e6) == 4
    assert agreed_scales(tmp_path, FOUR) == scales
    (tmp_path / SCALES_FILE).write_text("{")
    with pytest.raises(ConfigError, match="Restore the file"):
        agreed_scales(tmp_path, FOUR)


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        {"figures": {}},
        {"figures": {"x": [1.0]}},
        {"figures": {"x": [1.0, -1.0]}},
        {"figures": {"x": [1.0, float("nan")]}},
        {"figures": {"x": [float("inf"), 1.0]}},
        {"figures": {"x": [True, 1.0]}},
        {"figures": {"x": ["1", 1.0]}},
        {"figures": {"x" * 200: [1.0, 1.0]}},
        {"figures": {"x": [10**400, 1]}},
        {"figures": {f"x{n}": [1.0, 1.0] for n in range(1001)}},
    ],
)
def test_what_is_no_figures_is_refused_and_leaves_nothing(tmp_path, values):
    with pytest.raises(WireError, match="no figures"):
        take_figures(tmp_path, FOUR, "a", values, SITES)
    assert list(tmp_path.rglob("*.json")) == []


def test_nobody_is_asked_where_each_site_fits_its_own_or_scales_are_known(tmp_path):
    known = ScalingConfig(agreed={"x": (1.0, 2.0)})
    for config in (ScalingConfig(), known):
        with pytest.raises(UsageError, match="not asked for scales"):
            told(tmp_path, "a", config=config)
        require_agreed(tmp_path, config, SITES)
    assert agreed_scales(tmp_path, known) == {"x": (1.0, 2.0)}


def test_scaling_is_for_vectors_and_fixed_once_it_is_settled(tmp_path):
    root = tmp_path / "fed"
    with pytest.raises(ConfigError, match="for columns of numbers alone"):
        create(root, {}, ["target.input_shape=[1,8,8]", "scaling.sites=4"], {}, "--set")
    vectors = ["target.input_shape=[2]", "target.name=mlp"]
    known = 'scaling.agreed={"a b" = [1.5, 2]}'
    create(root, {}, [*vectors, "scaling.sites=4", known], {}, "--set")
    # The file of settings holds them as TOML.
    assert refresh(root)[0].scales == Federation.open(root).scales == {"a b": (1.5, 2.0)}
    (root / "registry").mkdir(exist_ok=True)
    (root / "registry/a.json").write_text(json.dumps({"state": "active", "key": "k"}))
    settings = root / "federation.toml"
    settings.write_text(settings.read_text().replace("sites = 4", "sites = 5"))
    with pytest.raises(ConfigError, match="scaling is fixed"):
        refresh(root)


def test_a_column_of_most_sites_is_waited_for_and_a_lower_number_is_enough_at_once(tmp_path):
    most, less = {"x": [1.0, 2.0], "y": [3.0, 1.0]}, {"x": [1.0, 2.0]}
    for site, figures in zip("abcd", (most, most, most, less), strict=True):
        take_figures(tmp_path, FOUR, site, {"figures": figures}, SITES)
    assert agreed_scales(tmp_path, FOUR) == {}
    with pytest.raises(UsageError, match="fewer than 4 name 'y'"):
        require_agreed(tmp_path, FOUR, SITES)
    take_figures(tmp_path, FOUR, "e", {"figures": most}, SITES)
    assert set(agreed_scales(tmp_path, FOUR)) == {"x", "y"}

    other = tmp_path / "other"
    other.mkdir()
    for site in SITES:
        told(other, site, config=ScalingConfig(sites=6))
    forget_figures(other, "e")
    require_agreed(other, FOUR, SITES)
    assert agreed_scales(other, FOUR)["x"][0] == 1.0
