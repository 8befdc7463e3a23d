"""Retraining as a job: a real job server, its answers and its absence."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from f2l_fed.config import RayConfig
from f2l_fed.errors import RoundError
from server.cluster.authentication import cluster_token
from server.cluster.backend import EngineBackend
from server.cluster.local_engine import LocalEngine
from server.federation.folder import Federation
from server.rounds.state import Interrupted
from tests.support.conducted import after_rounds
from tests.support.deployment import free_ports
from tests.support.ray_nodes import MARKS, job_server
from tests.support.waiting import PATIENCE_S, holds

pytestmark = MARKS


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayConfig]:
    with job_server(tmp_path_factory.mktemp("head"), free_ports(6)) as config:
        yield config


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return after_rounds(tmp_path / "out", settings=("probe.anchors=1",))


def backend_of(federation: Federation, config: RayConfig) -> EngineBackend:
    return EngineBackend(root=federation.root, engine=LocalEngine(config))


def bearer(config: RayConfig) -> dict[str, str]:
    return {"Authorization": f"Bearer {cluster_token(config)}"}


def jobs_of(config: RayConfig, federation: Federation) -> list[str]:
    root = str(federation.root.absolute())
    jobs = JobSubmissionClient(config.jobs, headers=bearer(config)).list_jobs()
    return [str(job.status) for job in jobs if root in job.entrypoint]


def test_a_job_makes_the_release_that_the_process_itself_would(config, federation):
    commit = federation.zoo.snapshot().commit
    backend = backend_of(federation, config)
    file = federation.releases.path / "00002/generator.safetensors"
    release = backend.retrain("00002", commit)
    made = file.read_bytes()
    assert (release.state, release.snapshot) == ("candidate", commit)
    assert jobs_of(config, federation) == ["SUCCEEDED"]
    # Whoever asks again gets what that job has made, and a folder without it a new one.
    assert backend.retrain("00002", commit) == release
    assert jobs_of(config, federation) == ["SUCCEEDED"]
    shutil.rmtree(file.parent)
    assert backend.retrain("00002", commit) == release
    assert jobs_of(config, federation) == ["SUCCEEDED"] * 2
    assert file.read_bytes() == made


def test_what_can_not_be_done_is_told_and_not_tried_again(config, federation):
    backend = backend_of(federation, config)
    with pytest.raises(RoundError, match="too few sites for a retraining") as error:
        backend.retrain("00002", 0)
    assert not isinstance(error.value, Interrupted)
    assert jobs_of(config, federation) == ["FAILED"]


def test_what_the_disk_refused_the_job_is_done_when_there_is_room(config, federation):
    backend = backend_of(federation, config)
    in_the_way = federation.releases.path / ".00002.draft"
    in_the_way.write_bytes(b"")
    commit = federation.zoo.snapshot().commit
    with pytest.raises(Interrupted, match="can't be read or written by the job"):
        backend.retrain("00002", commit)
    in_the_way.unlink()
    made = []

    def goes_on() -> bool:
        # Ray may note the end of the job that was deleted once more, and its reason is told again.
        with suppress(Interrupted):
            made.append(backend.retrain("00002", commit))
        return made != []

    assert holds(goes_on)
    assert made[0].snapshot == commit
    assert sorted(set(jobs_of(config, federation)) - {"FAILED"}) == ["SUCCEEDED"]


def test_the_job_server_runs_nothing_for_whoever_has_not_its_token(config, federation, tmp_path):
    done = tmp_path / "done"
    for shown in ({}, {"Authorization": f"Bearer {'0' * 64}"}):
        with pytest.raises(AuthenticationError):
            JobSubmissionClient(config.jobs, headers=shown).submit_job(entrypoint=f"touch {done}")
        asked = requests.post(
            f"{config.jobs}/api/jobs/",
            json={"entrypoint": f"touch {done}", "submission_id": "foreign"},
            headers=shown,
            timeout=PATIENCE_S,
        )
        assert asked.status_code in (401, 403)
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    backend = backend_of(federation, replace(config, token_file=str(wrong)))
    with pytest.raises(Interrupted, match="the job server refuses the token"):
        backend.retrain("00002", federation.zoo.snapshot().commit)
    jobs = JobSubmissionClient(config.jobs, headers=bearer(config)).list_jobs()
    assert not [job for job in jobs if "touch" in job.entrypoint]
    assert not done.exists()


def test_without_a_job_server_the_round_is_interrupted(config, federation):
    config = replace(config, jobs="http://127.0.0.1:9")
    backend = backend_of(federation, config)
    with pytest.raises(Interrupted, match="job server can't be reached"):
        backend.retrain("00002", 1)
