from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from flwr.app import RecordDict

from clients.site.limits import LimitsConfig, within
from clients.site.policy import PolicyConfig, allow_answer, allow_request
from clients.site.sent_log import SentLog
from f2l_fed.errors import ConfigError, PolicyRefusal
from f2l_fed.local_training.config import Recipe

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
LOOK = """
import json, os, resource
from clients.site import limits
limits.apply(os.environ)
print(json.dumps([len(os.sched_getaffinity(0)), os.getpriority(os.PRIO_PROCESS, 0),
                  resource.getrlimit(resource.RLIMIT_DATA)[0]]))
"""


def test_a_process_keeps_its_limits_and_hands_them_on():
    told = LimitsConfig(cpus=1, memory_mb=1000, niceness=7).environment()
    child = [sys.executable, "-c", LOOK]
    done = subprocess.run(child, env={**os.environ, **told}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    nice = max(7, os.getpriority(os.PRIO_PROCESS, 0))
    assert json.loads(done.stdout) == [1, nice, 1000 * 2**20]


def test_what_takes_too_long_is_refused_with_a_code():
    with pytest.raises(PolicyRefusal, match="took-too-long"), within(1):
        time.sleep(30)
    with within(1):
        pass


@pytest.mark.parametrize(
    "value", [{"cpus": -1}, {"memory_mb": 5}, {"niceness": 20}, {"task_seconds": -1}]
)
def test_limits_that_can_not_stand_are_refused(value):
    with pytest.raises(ConfigError, match=f"{next(iter(value))} is out of range"):
        LimitsConfig(**value)


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


def test_rounds_of_one_day_are_counted_once_each(tmp_path):
    log, policy = SentLog(tmp_path / "sent.jsonl"), PolicyConfig(rounds_per_day=2)
    log.record("update", 1, RecordDict(), NOW - timedelta(hours=25))
    for number in (2, 2, 3):
        log.allow_round(policy, number, NOW)
        log.record("update", number, RecordDict(), NOW)
    log.allow_round(policy, 3, NOW)
    with pytest.raises(PolicyRefusal, match="too-many-rounds-today"):
        log.allow_round(policy, 4, NOW)
    log.allow_round(policy, 4, NOW + timedelta(hours=25))
