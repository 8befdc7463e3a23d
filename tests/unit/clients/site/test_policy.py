from __future__ import annotations

import pytest

from clients.site.policy import PolicyConfig, allow_answer, allow_request, allowed_numbers
from f2l_fed.errors import ConfigError, PolicyRefusal
from f2l_fed.local_training.config import Recipe


@pytest.mark.parametrize(
    ("target", "steps", "examples", "code"),
    [
        ("resnet", 1, 50, "target-not-allowed"),
        ("evil:factory", 1, 50, "target-not-allowed"),
        ("mlp", 101, 50, "too-many-steps"),
        ("mlp", 1, 9, "too-few-examples"),
    ],
)
def test_a_request_outside_the_policy_is_refused_with_a_code(target, steps, examples, code):
    policy = PolicyConfig(maximum_steps=100)
    with pytest.raises(PolicyRefusal, match=f"^{code}\\.$"):
        allow_request(policy, target, Recipe(steps=steps), examples)


def test_a_request_at_the_limits_is_allowed():
    allow_request(PolicyConfig(maximum_steps=100), "mlp", Recipe(steps=100), 10)


def test_only_listed_numbers_leave():
    policy = PolicyConfig(numbers="steps accuracy_after")
    numbers = {"examples": 9.0, "steps": 4.0, "accuracy_after": 0.5}
    assert allowed_numbers(policy, numbers) == {"steps": 4.0, "accuracy_after": 0.5}
    assert allowed_numbers(PolicyConfig(numbers=""), numbers) == {}


def test_a_number_that_does_not_exist_is_refused_in_the_configuration():
    with pytest.raises(ConfigError, match="got 'accurcy_after'"):
        PolicyConfig(numbers="accurcy_after")


def test_only_listed_apps_and_kinds_of_answers_are_served():
    app = "ab" * 32
    allow_answer(PolicyConfig(), "update", "")
    allow_answer(PolicyConfig(apps=app), "update", app)
    for other in ("", "cd" * 32):
        with pytest.raises(PolicyRefusal, match="app-not-allowed"):
            allow_answer(PolicyConfig(apps=app), "update", other)
    with pytest.raises(PolicyRefusal, match="answer-not-allowed"):
        allow_answer(PolicyConfig(answers="probe"), "update", "")
    with pytest.raises(ConfigError, match="answers is out of range"):
        PolicyConfig(answers="data")
    with pytest.raises(ConfigError, match="apps is out of range"):
        PolicyConfig(apps="abc")


@pytest.mark.parametrize("lr", [1.5, float("nan"), float("inf")])
def test_a_learning_rate_beyond_the_policy_is_refused(lr):
    with pytest.raises(PolicyRefusal, match="learning-rate-too-high"):
        allow_request(PolicyConfig(), "mlp", _recipe(lr), 100)


def _recipe(lr: float) -> Recipe:
    recipe = Recipe(steps=1)
    object.__setattr__(recipe, "lr", lr)  # what a message could claim
    return recipe
