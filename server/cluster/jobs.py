"""The retraining as a job of a remote Ray cluster.

The job runs

    python -m server.cluster.jobs FOLDER RELEASE COMMIT

on a node with F2L-Fed installed and the federation's folder mounted; a RayJob on Kubernetes does
the same. A job that fails leaves a record of its end in the folder; see `server.rounds.run_end`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from f2l_fed.config import RayConfig
from f2l_fed.core.private_files import private_files
from f2l_fed.errors import F2LError, RoundError, UsageError
from server.cluster.authentication import HOW_TO_PROTECT, cluster_token, job_server_is_open
from server.cluster.connection import connect
from server.cluster.gpu_share import GPU_SHARE
from server.cluster.tasks import retrain_here
from server.federation.folder import Federation
from server.rounds.run_end import RunEnd, retraining_end_path
from server.rounds.state import Interrupted

_POLL_S = 1.0


def retrain_as_job(config: RayConfig, root: Path, id: str, commit: int, attempts: int = 3) -> None:
    """Runs a retraining as a job, and waits until the release is there.

    The job's name follows from its arguments: a call that is repeated while the job runs, after a
    crash for instance, waits for the same job. Ray does not repeat jobs, so this function does.

    Args:
        config: Address of Ray's job server and its token.
        root: The federation's folder, under the same path there.
        id: Id of the release.
        commit: The snapshot of the zoo.
        attempts: How often the job may be tried.

    Raises:
        Interrupted: If the job server can't be reached, refuses the token or asks for none, or the
            job's disk refused something.
        ConfigError: If no token is known.
        RoundError: If the retraining can't be done, or the job was lost so many times.
        UsageError: If Ray's job client is not installed.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobStatus

    address = config.jobs
    releases, end_path = Federation.open(root).releases, retraining_end_path(root, id)
    line = shlex.join(
        ["python", "-m", "server.cluster.jobs", str(root.absolute()), id, str(commit)]
    )
    status: Any = None
    for attempt in range(attempts):
        name = f"f2l-{sha256(f'{line} {attempt}'.encode()).hexdigest()[:16]}"
        try:
            client = _client(config)
            if name not in {job.submission_id for job in client.list_jobs()}:
                end_path.unlink(missing_ok=True)
                client.submit_job(
                    entrypoint=line,
                    submission_id=name,
                    entrypoint_num_gpus=GPU_SHARE if config.device == "cuda" else None,
                )
            while not (status := client.get_job_status(name)).is_terminal():
                time.sleep(_POLL_S)
            exit_code = client.get_job_info(name).driver_exit_code
        except AuthenticationError as error:
            raise Interrupted(
                "the job server refuses the token",
                where=address,
                remedy="Name the file with the cluster's token in ray.token_file or "
                "RAY_AUTH_TOKEN_PATH, then go on with the round.",
            ) from error
        except (OSError, RuntimeError) as error:
            raise Interrupted(
                "the job server can't be reached or has lost the job",
                where=address,
                got=type(error).__name__,
                remedy="See that the cluster runs, then go on with the round.",
            ) from error
        release = releases.find(id)
        # A job of this name may be one of an earlier folder in the same place.
        if status == JobStatus.SUCCEEDED and release is not None and release.snapshot == commit:
            return
        if status == JobStatus.SUCCEEDED:
            continue
        end = RunEnd.read(end_path, _run_of(id, commit))
        reason = end.reason.rstrip(".") if end is not None else ""
        if end is not None and end.outcome == "failed":
            raise RoundError("the retraining failed as a job", where=address, got=reason)
        if end is not None or exit_code == os.EX_TEMPFAIL:
            # The next job gets the same name.
            client.delete_job(name)
            raise Interrupted(
                "a file can't be read or written by the job",
                where=address,
                got=reason,
                remedy="Make room, or mend what is wrong, and go on with the round.",
            )
    raise RoundError(
        "the retraining failed as a job",
        where=address,
        got=f"{status}, {attempts} times",
        remedy="Ray's dashboard has the jobs' logs.",
    )


def _client(config: RayConfig) -> Any:
    if find_spec("aiohttp") is None:
        raise UsageError(
            "Ray's job client is not installed",
            where="ray.jobs",
            remedy="Install f2l-fed with the extra 'jobs'.",
        )
    from ray.job_submission import JobSubmissionClient

    token = cluster_token(config)
    if job_server_is_open(config.jobs):
        raise Interrupted(
            "the job server takes jobs from anyone who reaches it",
            where=config.jobs,
            expected="one that asks for a token",
            remedy=f"{HOW_TO_PROTECT} Then go on with the round.",
        )
    # An embedded Ray of this process has another token, so this one is shown by hand.
    return JobSubmissionClient(config.jobs, headers={"Authorization": f"Bearer {token}"})


def _run_of(id: str, commit: int) -> str:
    return f"release {id} from commit {commit}"


@private_files()
def main() -> None:
    """Retrains once, on the cluster that this process belongs to."""
    parser = argparse.ArgumentParser(prog="python -m server.cluster.jobs")
    parser.add_argument("folder", type=Path)
    parser.add_argument("release")
    parser.add_argument("commit", type=int)
    arguments = parser.parse_args()
    try:
        federation = Federation.open(arguments.folder)
        # Ray gives its jobs the token in their environment.
        config = replace(
            federation.config.ray, engine="auto", jobs="", address="auto", token_file=""
        )
        if config.train_workers or config.part_workers:
            connect(config)
        retrain_here(arguments.folder, arguments.release, arguments.commit, config)
    except Interrupted as error:
        # Without a record: the job is tried again.
        sys.exit(str(error))
    except (F2LError, OSError, SafetensorError) as error:
        end = RunEnd.of(_run_of(arguments.release, arguments.commit), error)
        end.write(retraining_end_path(arguments.folder, arguments.release))
        print(error, file=sys.stderr)
        # The code tells what a full disk keeps the record from telling.
        sys.exit(os.EX_TEMPFAIL if end.outcome == "interrupted" else 1)


if __name__ == "__main__":
    main()
