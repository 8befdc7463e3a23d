from __future__ import annotations

import pytest

from f2l_fed.errors import TargetError
from f2l_fed.targets import build_target
from f2l_fed.targets.auto import chosen_target, fitting_target
from f2l_fed.targets.config import TargetConfig


@pytest.mark.parametrize(
    "shape", [(1,), (784,), (4096,), (1, 1, 1), (3, 8, 8), (1, 7, 64), (3, 64, 64), (1, 28, 28)]
)
def test_the_chosen_target_can_be_built(shape):
    assert build_target(fitting_target(shape), shape, 5).layout.size > 0


@pytest.mark.parametrize(
    ("shape", "remedy"), [((1, 65, 8), "resize"), ((3, 480, 640), "resize"), ((4097,), "ignore")]
)
def test_large_inputs_get_a_sentence_with_the_remedy(shape, remedy):
    with pytest.raises(TargetError, match=remedy):
        fitting_target(shape)


def test_a_named_target_stays():
    named = TargetConfig(name="cnn-m", input_shape=(12,))
    assert chosen_target(named) is named
    assert chosen_target(TargetConfig(name="auto", input_shape=(12,))).name == "mlp"
