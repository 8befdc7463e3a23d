"""The gate says why it rejects a release, and whether any other start is better."""

from __future__ import annotations

from math import nan

import pytest

from f2l_fed.audit.release_limits import GateConfig, decide
from f2l_fed.errors import ConfigError

GOOD = {"explained": 0.4, "conditioning": 0.6, "dispersion": 0.95}


def test_good_figures_pass_without_reasons_and_limits_themselves_are_good_enough():
    assert decide(GOOD, GateConfig()).passed
    edge = {"explained": -0.1, "conditioning": -0.1, "dispersion": 1.5, "memorisation_z": -3.0}
    assert decide(edge, GateConfig()).reasons == ()


@pytest.mark.parametrize(
    ("name", "figure", "reason"),
    [
        ("explained", -0.25, "explained is -0.25, below the limit of -0.1."),
        ("conditioning", -0.11, "conditioning is -0.11, below the limit of -0.1."),
        ("dispersion", 0.1, "dispersion is 0.1, below the limit of 0.5."),
        ("dispersion", 2.0, "dispersion is 2, above the limit of 1.5."),
        ("flow_speed", 0.02, "flow_speed is 0.02, below the limit of 0.1."),
        ("flow_speed", 3.5, "flow_speed is 3.5, above the limit of 2."),
        ("accuracy_gain", -0.2, "accuracy_gain is -0.2, below the limit of -0.1."),
        ("memorisation_z", -7.123, "memorisation_z is -7.12, below the limit of -3."),
        ("flow_loss", nan, "flow_loss is nan, which is not a finite number."),
        ("dispersion", nan, "dispersion is nan, which is not a finite number."),
    ],
)
def test_every_limit_holds_a_release_with_a_sentence_of_its_own(name, figure, reason):
    found = decide(GOOD | {name: figure}, GateConfig())
    assert not found.passed
    assert found.reasons == (reason,)


def test_a_figure_that_was_not_taken_holds_a_release():
    found = decide({"explained": 0.5, "dispersion": 1.0}, GateConfig())
    assert found.reasons == ("conditioning was not measured.",)


def test_limits_can_be_set():
    assert decide(GOOD | {"dispersion": 2.0}, GateConfig(max_dispersion=3)).passed
    assert not decide(GOOD, GateConfig(min_explained=0.5)).passed
    with pytest.raises(ConfigError, match="min_dispersion"):
        GateConfig(min_dispersion=2.0)
    with pytest.raises(ConfigError, match="min_flow_speed"):
        GateConfig(min_flow_speed=5.0)


def part(ci=0.02, **arms):
    """What `summarise` gives for starts measured after 0 and 1 steps."""
    found = {"generated": (0.8, 0.85), "prior": (0.78, 0.85), "wrong_context": (0.3, 0.5)} | arms
    return {
        "steps": [0, 1],
        "arms": {
            arm: {"accuracy": list(accuracy), "ci95": [ci, ci]} for arm, accuracy in found.items()
        },
    }


def test_held_out_sites_where_nothing_is_clearly_better_pass_and_say_by_how_much():
    found = decide(GOOD, GateConfig(), {"seen": part(), "unseen": None})
    assert found.passed
    assert found.figures["seen_margin_prior"] == pytest.approx(2**0.5 * 0.02)
    assert found.figures["seen_context_cost"] == pytest.approx(0.48)
    assert "seen_margin_generated" not in found.figures
    assert GOOD.items() <= found.figures.items()


def test_a_start_that_is_clearly_better_after_any_number_of_steps_holds_the_release():
    better = part(nearest=(0.2, 0.9))
    found = decide(GOOD, GateConfig(), {"seen": part(), "unseen": better})
    assert found.reasons == ("unseen_margin_nearest is -0.0217, below the limit of 0.",)
    doubtful = part(ci=0.04, nearest=(0.2, 0.9))
    assert decide(GOOD, GateConfig(), {"seen": doubtful}).passed


def test_a_wrong_context_has_to_cost_something():
    dead = part(wrong_context=(0.74, 0.84))
    found = decide(GOOD, GateConfig(), {"seen": dead})
    assert found.reasons == ("seen_context_cost is 0.04, below the limit of 0.05.",)
    assert decide(GOOD, GateConfig(min_context_cost=0.0), {"seen": dead}).passed


def test_around_a_shared_network_a_map_that_explains_nothing_is_no_objection():
    limits = GateConfig().of_accuracy()
    nothing = {"explained": -3.0, "conditioning": -1.0, "dispersion": 30.0, "flow_speed": 0.0}
    assert decide(nothing, limits).passed
    assert decide(nothing | {"accuracy_gain": 0.0}, limits).passed
    assert not decide(nothing | {"accuracy_gain": -0.2}, limits).passed
    assert not decide(nothing | {"explained": nan}, limits).passed
