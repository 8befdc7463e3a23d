"""Retraining as a job of a remote Ray cluster.

    python -m server.cluster.jobs FOLDER RELEASE COMMIT

is what the job runs, on a node that has F2L-Fed installed and the federation's folder mounted;
a RayJob on Kubernetes runs the same line.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import replace
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from f2l_fed.errors import F2LError, RoundError, UsageError
from server.federation.folder import Federation
from server.rounds.state import Interrupted, is_passing

_POLL_S, _SAYS, _FOR_NOW = 1.0, "error: ", "refused: "


def retrain_as_job(address: str, root: Path, id: str, commit: int, attempts: int = 3) -> None:
    """Runs a retraining as a job, and waits until the release is there.

    The job's name follows from what it is for: whoever asks again while it runs, after a crash for
    instance, waits for the same job. Ray does not repeat jobs, so this does.

    Args:
        address: Of Ray's job server.
        root: The federation's folder, under the same path there.
        id: Of the release.
        commit: The snapshot.
        attempts: How often the job may be tried.

    Raises:
        Interrupted: If the job server can't be reached, or the job's disk refused something.
        RoundError: If the retraining can't be done, or the job has died so many times.
        UsageError: If Ray's job client is not installed.
    """
    from ray.job_submission import JobStatus

    releases = Federation.open(root).releases
    line = shlex.join(
        ["python", "-m", "server.cluster.jobs", str(root.absolute()), id, str(commit)]
    )
    status: Any = None
    for attempt in range(attempts):
        name = f"f2l-{sha256(f'{line} {attempt}'.encode()).hexdigest()[:16]}"
        try:
            client = _client(address)
            if name not in {job.submission_id for job in client.list_jobs()}:
                client.submit_job(entrypoint=line, submission_id=name)
            while not (status := client.get_job_status(name)).is_terminal():
                time.sleep(_POLL_S)
            said = _said(client, name, status)
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
        if reason := _reason(said, _SAYS):
            raise RoundError("the retraining failed as a job", where=address, got=reason)
        if reason := _reason(said, _FOR_NOW):
            # The next one has its name.
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


def _said(client: Any, name: str, status: Any) -> str:
    """A job's log; nothing if it failed, and the log is gone with its node."""
    try:
        return str(client.get_job_logs(name))
    except RuntimeError:
        if status == "FAILED":
            return ""
        raise


def _client(address: str) -> Any:
    if find_spec("aiohttp") is None:
        raise UsageError(
            "Ray's job client is not installed",
            where="ray.jobs",
            remedy="Install f2l-fed with the extra 'jobs'.",
        )
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(address)


def _reason(log: str, mark: str) -> str:
    """What the job said of itself at its end behind a mark, or ""."""
    said = [line for line in log.splitlines() if line.startswith(mark)]
    return said[-1].removeprefix(mark).rstrip(".") if said else ""


def main() -> None:
    """One retraining, on the cluster that this process belongs to."""
    parser = argparse.ArgumentParser(prog="python -m server.cluster.jobs")
    parser.add_argument("folder", type=Path)
    parser.add_argument("release")
    parser.add_argument("commit", type=int)
    asked = parser.parse_args()
    # Here, because the jobs module is imported by it.
    from server.cluster.connection import connect
    from server.cluster.tasks import retrain_here

    try:
        federation = Federation.open(asked.folder)
        config = replace(federation.config.ray, jobs="", address="auto")
        if config.train_workers:
            connect(config)
        retrain_here(asked.folder, asked.release, asked.commit, config)
    except Interrupted as error:
        # The job is tried again.
        sys.exit(str(error))
    except (F2LError, OSError, SafetensorError) as error:
        # A word on what would be the same the next time; what the disk refused may not be.
        sys.exit(f"{_FOR_NOW if is_passing(error) else _SAYS}{error}")


if __name__ == "__main__":
    main()
