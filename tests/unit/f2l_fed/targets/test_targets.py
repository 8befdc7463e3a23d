"""Built-in, registered and imported targets, and why a network can't be one."""

from __future__ import annotations

import sys
from functools import partial
from textwrap import dedent

import pytest
import torch
from torch import nn

from f2l_fed.errors import TargetError
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.finetune import finetune, loss_and_accuracy
from f2l_fed.targets import Target, build_target, known_targets
from tests.support.small import examples, rng, small_target


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Writes importable modules that are forgotten after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(module, text):
        (tmp_path / f"{module}.py").write_text(dedent(text))
        return tmp_path

    yield write
    for module in set(sys.modules) - before:
        del sys.modules[module]


def of(factory, input_shape=(4,), classes=3):
    return Target.of("mine", factory, input_shape, classes)


@pytest.mark.parametrize(
    ("name", "classes", "parameters"), [("cnn-xs", 5, 1_973), ("cnn-s", 10, 2_464)]
)
def test_built_in_networks_have_their_published_size(name, classes, parameters):
    assert build_target(name, (1, 28, 28), classes).layout.size == parameters


@pytest.mark.parametrize("name", ["cnn-xs", "cnn-s", "cnn-m"])
def test_the_output_layer_fits_images_of_any_size_that_is_large_enough(name):
    least = {"cnn-xs": 5, "cnn-s": 20, "cnn-m": 5}[name]
    with pytest.raises(TargetError, match="too small"):
        build_target(name, (2, least - 1, least), 3)
    for side in range(least, least + 12):
        target, x = build_target(name, (2, side, side + 1), 3), torch.zeros(2, 2, side, side + 1)
        assert target.logits(torch.zeros(target.layout.size), x).shape == (2, 3)


def test_the_medium_network_has_about_eleven_thousand_parameters():
    assert 10_500 < build_target("cnn-m", (1, 28, 28), 10).layout.size < 11_500


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet8", (77_000, 79_000)), ("resnet20", (270_000, 274_000))]
)
def test_residual_networks_have_their_size(name, parameters):
    assert parameters[0] < build_target(name, (3, 32, 32), 10).layout.size < parameters[1]


def test_a_residual_network_learns():
    target = build_target("resnet8", (1, 8, 8), 3)
    x, y = examples(target, 30)
    weights = target.initialise(rng())
    before, _ = loss_and_accuracy(target, weights, x, y)
    after = finetune(target, weights, x, y, Recipe(steps=10, lr=0.05), rng())
    loss, accuracy = loss_and_accuracy(target, after, x, y)
    assert loss < 0.5 * before
    assert accuracy > 0.9


@pytest.mark.parametrize("name", ["mlp", "cnn-xs", "cnn-s", "cnn-m", "resnet8", "resnet20"])
@pytest.mark.parametrize("input_shape", [(1, 28, 28), (3, 32, 32)])
def test_every_built_in_target_takes_grey_and_colour_images(name, input_shape):
    assert name in known_targets()
    target = build_target(name, input_shape, 7)
    logits = target.logits(target.initialise(rng()), torch.randn(3, *input_shape))
    assert logits.shape == (3, 7)
    assert dict(zip(target.layout.names, target.layout.shapes, strict=True))[
        target.output_bias
    ] == (7,)


def test_logits_are_those_of_the_network_with_these_weights():
    target = small_target()
    module = target.factory()
    weights = target.layout.flatten(dict(module.named_parameters()))
    x = torch.randn(6, 4, generator=rng())
    torch.testing.assert_close(target.logits(weights, x), module(x))


def test_initial_weights_depend_on_the_seed_alone():
    target = small_target()
    torch.manual_seed(1)
    first, state = target.initialise(rng(3)), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(target.initialise(rng(3)), first)
    assert not torch.equal(target.initialise(rng(4)), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_output_layer_is_the_last_linear_one_of_the_right_width():
    target = of(lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3, bias=False)))
    assert (target.output_weight, target.output_bias) == ("2.weight", None)
    bare = of(lambda: nn.Linear(4, 3))
    assert (bare.output_weight, bare.output_bias) == ("weight", "bias")


def test_dropout_does_not_make_a_target_random():
    target = of(lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 3)))
    weights, x = target.initialise(rng()), torch.randn(8, 4, generator=rng())
    assert torch.equal(target.logits(weights, x), target.logits(weights, x))


def test_a_factory_is_imported_from_any_module_on_the_path(installed):
    installed(
        "my_networks",
        """
        from torch import nn

        def wide(input_shape, classes):
            return nn.Linear(input_shape[0], classes)
        """,
    )
    target = build_target("my_networks:wide", (6,), 4)
    assert target.name == "my_networks:wide"
    assert target.layout.shapes == ((4, 6), (4,))


def test_an_installed_package_may_register_a_name(installed):
    folder = installed(
        "my_plugin",
        """
        from torch import nn

        def make(input_shape, classes):
            return nn.Linear(input_shape[0], classes, bias=False)
        """,
    )
    about = folder / "my_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[f2l_fed.targets]\nplugged = my_plugin:make\n")
    assert "plugged" in known_targets()
    assert build_target("plugged", (6,), 4).layout.size == 24


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(TargetError, match=r"'cnn_xs'.*Did you mean 'cnn-xs'\?"):
        build_target("cnn_xs", (1, 28, 28), 5)
    with pytest.raises(TargetError, match=r"cnn-m.*mlp") as caught:
        build_target("transformer", (1, 28, 28), 5)
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["no_such_module_here:make", "math:no_such_name", ":make", "broken_module:make"]
)
def test_a_factory_that_cannot_be_imported_is_named(name, installed):
    installed("broken_module", "def make(:\n")
    with pytest.raises(TargetError, match="can't be imported") as caught:
        build_target(name, (4,), 3)
    assert name in str(caught.value)


def test_a_factory_must_be_callable_and_return_a_network():
    with pytest.raises(TargetError, match="not callable"):
        build_target("math:pi", (4,), 3)
    with pytest.raises(TargetError, match=r"expected a torch\.nn\.Module, got int"):
        of(lambda: 3)


def test_parameters_of_another_type_are_refused():
    with pytest.raises(TargetError, match=r"weight torch\.float64"):
        of(partial(nn.Linear, 4, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    ("network", "got"),
    [
        (nn.Linear(4, 2), r"got \(batch, 2\)"),
        (nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (3, 1))), r"got \(batch, 3, 1\)"),
    ],
)
def test_outputs_of_another_shape_are_refused(network, got):
    with pytest.raises(TargetError, match=r"expected \(batch, 3\), " + got):
        of(lambda: network)


def test_a_network_must_accept_the_inputs_and_end_in_a_linear_layer():
    with pytest.raises(TargetError, match="does not accept"):
        of(lambda: nn.Linear(5, 3))
    with pytest.raises(TargetError, match="no linear output layer"):
        of(lambda: nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 3, 1), nn.Flatten()))


@pytest.mark.parametrize("name", ["cnn-xs", "cnn-s", "cnn-m", "resnet8", "resnet20"])
def test_image_targets_refuse_vectors(name):
    with pytest.raises(TargetError, match=rf"'{name}'.*works on images.*'mlp'"):
        build_target(name, (10,), 3)


@pytest.mark.parametrize("name", ["cnn-xs", "cnn-s", "cnn-m"])
def test_targets_that_shrink_images_refuse_tiny_ones(name):
    with pytest.raises(TargetError, match=r"too small.*'mlp'"):
        build_target(name, (1, 4, 4), 3)
