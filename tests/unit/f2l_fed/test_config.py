"""Every key can be set, nothing unknown is taken, and what is wrong is named."""

from __future__ import annotations

import dataclasses
import json

import pytest

from f2l_fed.config import FederationConfig, load_config
from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.errors import ConfigError
from f2l_fed.local_training.config import Recipe

DEFAULT = FederationConfig()
WORDS = {
    "ray.device": "cuda",
    "target.adapt": "head",
    "target.name": "mlp",
    "target.backbone": "ab" * 32,
    "aggregate.rule": "median",
    "release.precision": "int8",
    "flow.source": "gaussian",
    "sample.solver": "heun",
    "codec.kind": "pca-vae",
    "flow.coupling": "ot",
    "ray.engine": "ray",
    "ray.address": "ray.example:6379",
    "ray.jobs": "http://ray.example:8265",
    "ray.token_file": "/run/secrets/ray",
}

ON_A_BACKBONE = {
    "target.name": "adapter",
    "target.adapt": "head",
    "target.backbone": "cd" * 32,
    "target.features": 2,
}
"""Keys that are only set together."""

WITH = {
    "target.backbone": ON_A_BACKBONE,
    "target.features": ON_A_BACKBONE,
    "target.adapted": ON_A_BACKBONE | {"target.adapt": "lora"},
}
"""The keys that have to be set with a key."""


def leaves(value, prefix=""):
    """Every settable key with its value, as in ``section.key``."""
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from leaves(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, inner


def another(key, value):
    """A legal value that is not the default, and how it is written."""
    match value:
        case bool():
            return not value, str(not value).lower()
        case int() if key == "scaling.sites":
            return 4, "4"
        case dict():
            return {"a": (1.0, 2.0)}, "{a = [1.0, 2]}"
        case int() if key == "split.ways":
            return 3, "3"
        case int():
            return value + 1, str(value + 1)
        case float():
            return value / 2 + 0.01, str(value / 2 + 0.01)
        case tuple() if key in ("labels", "features"):
            return ("ok", "a,b"), '["ok", "a,b"]'
        case tuple():
            return (3, 8, 8), "[3, 8, 8]"
        case str():
            return WORDS.get(key, "word"), WORDS.get(key, "word")


def as_toml(value):
    return json.dumps(list(value) if isinstance(value, tuple) else value)


KEYS = dict(leaves(DEFAULT))


def test_there_are_keys_of_every_section():
    sections = {key.partition(".")[0] for key in KEYS}
    assert sections == {field.name for field in dataclasses.fields(DEFAULT)}
    assert len(KEYS) > 50


@pytest.mark.parametrize("key", KEYS)
def test_every_key_can_be_set_and_sets_nothing_else(key):
    value, text = another(key, KEYS[key])
    others = WITH.get(key, {})
    overrides = [f"{other}={given}" for other, given in others.items()]
    found = dict(leaves(load_config(None, [*overrides, f"{key}={text}"])))
    assert found == KEYS | others | {key: value}
    assert found[key] != KEYS[key]


@pytest.mark.parametrize("key", KEYS)
def test_every_key_can_be_set_to_its_own_default(key):
    assert load_config(None, [f"{key}={as_toml(KEYS[key])}"]) == DEFAULT


def test_an_empty_file_is_the_default(tmp_path):
    path = tmp_path / "federation.toml"
    path.write_text("")
    assert load_config(path) == load_config(None) == DEFAULT


def test_a_file_sets_sections_and_overrides_come_last(tmp_path):
    path = tmp_path / "federation.toml"
    path.write_text("seed = 3\n[target]\nclasses = 10\nname = 'mlp'\n[first]\nsteps = 7\n")
    config = load_config(path, ["target.classes=4", "seed=5", "seed = 6"])
    assert (config.seed, config.target.classes, config.target.name) == (6, 4, "mlp")
    assert config.lineage == "mlp/6"


def test_a_recipe_that_is_set_in_part_keeps_the_rest_of_its_default():
    assert load_config(None, ["later.lr=0.01"]).later == dataclasses.replace(DEFAULT.later, lr=0.01)


def test_whole_numbers_stand_for_floats_but_not_the_other_way_round():
    lr = load_config(None, ["flow.lr=1"]).flow.lr
    assert lr == 1
    assert isinstance(lr, float)
    with pytest.raises(ConfigError, match=r"probe\.steps has the wrong type.*int.*10\.0"):
        load_config(None, ["probe.steps=10.0"])


@pytest.mark.parametrize(
    ("text", "name", "remedy"),
    [
        ("sed=1", "sed", "Did you mean seed?"),
        ("flow.widht=8", "flow.widht", "Did you mean flow.width?"),
        ("flows.width=8", "flows", "Did you mean flow?"),
        ("codec.common.x=8", "codec.common", ""),
        ("gate.zzz=8", "gate.zzz", "min_explained"),
        ("=3", "=3", "section.key=value"),
        ("seed", "seed", "section.key=value"),
        ("seed..x=1", "seed", ""),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(text, name, remedy):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [text])
    assert name in str(caught.value)
    assert remedy in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_value_and_then_a_section_of_the_same_name_is_refused():
    with pytest.raises(ConfigError, match=r"not a section.*seed"):
        load_config(None, ["seed=1", "seed.x=2"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed=word", "type int"),
        ("seed=true", "type int"),
        ("seed=1.5", "type int"),
        ("seed=", "type int"),
        ("seed=1979-05-27", "type int"),
        ("flow.lr=false", "type float"),
        ("flow.lr='0.1'", "type float"),
        ("gate.max_drift=inf", "type float"),
        ("gate.max_drift=nan", "type float"),
        ("shared_labels=1", "type bool"),
        ("target.name=3", "type str"),
        ("target.input_shape=28", "type list of int"),
        ("target.input_shape=[1, 2.0]", "type list of int"),
        ("target.input_shape=[true]", "type list of int"),
        ("target=3", "a section"),
        ("flow=[1]", "a section"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(text, expected):
    with pytest.raises(ConfigError, match="wrong type") as caught:
        load_config(None, [text])
    assert expected in str(caught.value)
    assert text.partition("=")[0] in str(caught.value)


@pytest.mark.parametrize("labels", [["ok", " "], ["a" * 81], [f"part {n}" for n in range(1001)]])
def test_label_names_are_few_and_short(labels):
    with pytest.raises(ConfigError, match="at most 1000 names of 1 to 80 characters"):
        load_config(None, [f"labels={json.dumps(labels)}"])


@pytest.mark.parametrize("names", [["a", "a"], [""], ["a" * 161], [f"f{n}" for n in range(1001)]])
def test_feature_names_are_few_short_and_different(names):
    with pytest.raises(ConfigError, match="at most 1000 different names of 1 to 160 characters"):
        load_config(None, [f"features={json.dumps(names)}"])


@pytest.mark.parametrize(
    "text",
    [
        "target.input_shape=[]",
        "target.input_shape=[1, 0]",
        "target.classes=1",
        "split.ways=1",
        "split.held_out_fraction=1.0",
        "probe.shots=0",
        "probe.momentum=1.0",
        "first.steps=-1",
        "later.lr=0",
        "later.lr=nan",
        "local.batch=-1",
        "codec.rows=0",
        "flow.source=kaimin",
        "flow.width=1",
        "flow.dropout=1.5",
        "sample.solver=rk45",
        "sample.evaluations=-1",
        "candidates.samples=-1",
        "admission.floor=0",
        "gate.min_dispersion=2.0",
        "round.quorum=1.0",
        "round.minimum=1",
        "round.timeout_s=0",
        "ray.threads=0",
        "ray.cpus=-1",
    ],
)
def test_a_value_out_of_range_is_refused_by_name(text):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [text])
    section, key = text.partition("=")[0].split(".")
    assert f"{section}." in str(caught.value)
    assert key in str(caught.value)


def test_an_error_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[flow]\nwidth = 0\n")
    with pytest.raises(ConfigError, match=r"mine\.toml: flow\.width.*got 0"):
        load_config(path)


@pytest.mark.parametrize("content", [b"seed = ", b"seed = 1\nseed = 2", b"seed = '\xff'"])
def test_a_file_that_is_not_toml_is_refused(tmp_path, content):
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine\.toml: the configuration can't be read"):
        load_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config(tmp_path / "absent.toml")


def test_a_configuration_survives_json():
    overrides = [f"{key}={another(key, value)[1]}" for key, value in KEYS.items()]
    config = load_config(None, [*overrides, "target.name=adapter", "target.adapt=lora"])
    assert config != DEFAULT
    text = json.dumps(config.to_json())
    assert from_mapping(FederationConfig, json.loads(text), where="test") == config


def test_a_key_without_a_default_must_be_there():
    with pytest.raises(ConfigError, match=r"a key is missing.*steps"):
        from_mapping(Recipe, {"lr": 0.1}, where="test")


def test_the_generator_gets_its_sections():
    config = load_config(None, ["codec.rows=3", "flow.depth=1", "sample.guidance=2"])
    assert config.generator.codec is config.codec
    assert config.generator.flow is config.flow
    assert config.generator.sample is config.sample


def test_the_probes_recipe_takes_all_examples_in_every_step():
    config = load_config(None, ["probe.steps=3", "probe.lr=0.2", "probe.momentum=0.5"])
    assert config.probe.recipe == Recipe(steps=3, lr=0.2, momentum=0.5, batch=0)


@pytest.mark.parametrize(
    "text",
    [
        "flow.source=kaiming",
        "ray.address=host",
        "ray.address=http://host:6379",
        "ray.jobs=host:8265",
        "ray.token_file=token",
        "admission.times=1",
    ],
)
def test_what_would_fail_in_the_first_round_is_refused_at_once(text):
    name = text.partition("=")[0].rpartition(".")[2]
    with pytest.raises(ConfigError, match=f"{name} is out of range"):
        load_config(None, [text])
