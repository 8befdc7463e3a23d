"""A real Flower deployment on loopback: one SuperLink, and one SuperNode for each site.

Every process inherits a ``FLWR_HOME`` that only this deployment uses, and strays are found by it:
the SuperLink detaches its executor into a session of its own, outside its process group.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.proto.control_pb2 import ListRunsRequest
from flwr.supercore.control import ControlHttpClient

from tests.support.waiting import PATIENCE_S, holds

_BIN = Path(sys.executable).parent
# Below the range Linux hands out for outgoing connections: none can take a port found free
_PORTS = range(20_000, 32_000)
_CLAIMS: list[socket.socket] = []


class DeploymentError(RuntimeError):
    """A daemon or a ``flwr`` command did not do its part; the message ends with the logs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """How one run ended; ``status`` is Flower's, such as ``finished:completed``."""

    run_id: str
    status: str
    log_text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A running deployment; ``open_ports`` and ``stray_processes`` also answer after its end."""

    folder: Path
    app_dir: Path
    env: dict[str, str]
    ports: Sequence[int]
    daemons: dict[str, subprocess.Popen[bytes]]

    def run(
        self, run_config: Mapping[str, str | int], *, timeout_s: float = PATIENCE_S
    ) -> RunResult:
        """Runs the app with these ``[tool.flwr.app.config]`` values, for at most ``timeout_s``."""
        overrides = _write_toml(self.folder / "run-config.toml", run_config)
        started = self._flwr("run", str(self.app_dir), "loopback", "--run-config", str(overrides))
        run_id = str(started["run-id"])

        def ended() -> bool:
            return self._status(run_id).startswith("finished")

        self.wait_until(ended, f"end of run {run_id}", timeout_s=timeout_s)
        log_text = self._command("log", run_id, "loopback", "--show").stdout
        return RunResult(run_id=run_id, status=self._status(run_id), log_text=log_text)

    def open_ports(self) -> list[int]:
        """Returns those of its ports that accept a connection."""
        return [port for port in self.ports if _accepts(port)]

    def stray_processes(self) -> dict[int, str]:
        """Returns every living process of this deployment, id to command line."""
        marker = f"FLWR_HOME={self.env['FLWR_HOME']}".encode()
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # ended meanwhile, or another user's
                if marker in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(entry.name)] = command.decode()
        return found

    def logs(self) -> str:
        """Returns the end of what each daemon, and so each app, has written."""
        texts = {name: (self.folder / f"{name}.log").read_text() for name in self.daemons}
        return "\n".join(f"--- {name}\n{text[-3000:]}" for name, text in texts.items())

    def start(self, name: str, *command: str, env: Mapping[str, str] | None = None) -> None:
        """Starts a daemon at the head of its own process group, writing to ``name``.log."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.daemons[name] = subprocess.Popen(
                [str(_BIN / command[0]), *command[1:]],
                cwd=self.folder,
                env={**self.env, **(env or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self) -> None:
        """Ends every process: TERM to each group, then KILL to whatever is left."""
        for daemon in self.daemons.values():
            if daemon.poll() is None:
                os.killpg(daemon.pid, signal.SIGTERM)
        if not holds(self._all_ended, timeout_s=10.0):
            for pid in self.stray_processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            holds(self._all_ended)

    def wait_until(
        self, true: Callable[[], bool], what: str, *, timeout_s: float = PATIENCE_S
    ) -> None:
        """Waits until ``true()``; raises when a daemon ends before it, or the time is over."""

        def ended() -> list[str]:
            return [name for name, daemon in self.daemons.items() if daemon.poll() is not None]

        if not holds(lambda: true() or bool(ended()), timeout_s=timeout_s) or ended():
            problem = f"no {what} within {timeout_s:g} s; ended daemons: {ended()}"
            raise DeploymentError(f"{problem}\n{self.logs()}")

    def _all_ended(self) -> bool:
        # poll() reaps: a dead daemon would otherwise stay in the process table
        living = [daemon for daemon in self.daemons.values() if daemon.poll() is None]
        return not living and not self.stray_processes()

    def _status(self, run_id: str) -> str:
        """As ``flwr list`` says it; a process for each look would take longer than the run."""
        with ControlHttpClient.from_server_address(
            f"127.0.0.1:{self.ports[0]}", insecure=True, root_certificates=None, interceptors=[]
        ) as client:
            answer = client.ListRuns(ListRunsRequest(run_id=int(run_id)))
        status = answer.run_dict[int(run_id)].status
        return f"{status.status}:{status.sub_status}" if status.sub_status else status.status

    def _command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(_BIN / "flwr"), *arguments]
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=PATIENCE_S
        )

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        done = self._command(*arguments, "--format", "json")
        # The exit status is 0 even when the command failed
        answer: dict[str, Any] = json.loads(done.stdout or "{}")
        if not answer.get("success"):
            raise DeploymentError(f"flwr {arguments}: {done.stdout}{done.stderr}\n{self.logs()}")
        return answer


@contextmanager
def deployment(
    tmp_path: Path,
    *,
    sites: Sequence[Path],
    app_dir: Path,
    env: Mapping[str, str],
    commands: Path | None = None,
) -> Iterator[Deployment]:
    """Starts a SuperLink and one SuperNode for each site, and ends them all.

    Each of ``sites`` is a configuration file, which the ClientApp finds as
    ``context.node_config["site"]``; ``env`` is added to every process's environment. SuperNodes
    look for commands in the folder ``commands`` first.
    """
    (home := tmp_path / "flwr-home").mkdir(parents=True)
    link_port, *node_ports = ports = free_ports(1 + len(sites))
    link = f"127.0.0.1:{link_port}"
    (home / "config.toml").write_text(f'superlink.loopback = {{address="{link}", insecure=true}}\n')
    offline = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    quick = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}
    own = {"FLWR_HOME": str(home), "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}"}
    everything = {**os.environ, **offline, **quick, **env, **own}
    running = Deployment(folder=tmp_path, app_dir=app_dir, env=everything, ports=ports, daemons={})
    try:
        running.start(
            "superlink",
            *("flower-superlink", "--insecure", "--disable-runtime-dependency-installation"),
            *("--host", "127.0.0.1", "--port", str(link_port)),
        )
        running.wait_until(lambda: _accepts(link_port), "open port of the SuperLink")
        for number, (site, port) in enumerate(zip(sites, node_ports, strict=True)):
            node_config = _write_toml(tmp_path / f"node-{number}.toml", {"site": str(site)})
            running.start(
                f"supernode-{number}",
                *("flower-supernode", "--insecure", "--superlink", link, "--port", str(port)),
                *("--node-config", str(node_config)),
                env={"PATH": f"{commands}{os.pathsep}{everything['PATH']}"} if commands else None,
            )
        running.wait_until(lambda: running.open_ports() == ports, "open ports of the SuperNodes")
        yield running
    finally:
        running.stop()


def _write_toml(path: Path, values: Mapping[str, str | int]) -> Path:
    # Flower takes a file too, and its command line quoting can't carry every string
    path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    return path


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now and that no other test run gets while this one lives."""
    # Not seeded: two test runs on one machine must not choose alike
    drawn = random.SystemRandom().sample(_PORTS, 10 * count)
    return list(itertools.islice(filter(_claimed, drawn), count))


def _claimed(port: int) -> bool:
    # Between the look and the service's start another worker may look too. An abstract name
    # lives as long as this process, in the same network namespace as the port.
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0f2l-test-port-{port}")
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        claim.close()
        return False
    _CLAIMS.append(claim)
    return True


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
