"""A real central service on loopback for tests: `f2l-server run` in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from f2l_fed.wire.enrolment import AUTHORITY
from server.control.client import Connection, connect
from server.processes import end_strays, strays
from server.superlink.client import SuperLink
from tests.support.deployment import free_ports
from tests.support.waiting import PATIENCE_S

BIN = Path(sys.executable).parent
START_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Central:
    """A running service.

    Args:
        root: The federation's folder.
        gateway: Port for sites.
        control: Port for administrators.
        process: The server.
    """

    root: Path
    gateway: int
    control: int
    process: subprocess.Popen[str]

    @property
    def certificates(self) -> Path:
        return self.root / "certificates"

    @property
    def mark(self) -> str:
        return f"FLWR_HOME={self.root / 'flower'}"

    def admin(self, *words: str, name: str = "admin") -> subprocess.CompletedProcess[str]:
        """Runs f2l-admin as an administrator would from another machine."""
        environment = {
            **os.environ,
            "F2L_SERVER": f"localhost:{self.control}",
            "F2L_CERTIFICATES": str(self.certificates),
            "F2L_NAME": name,
        }
        return command("f2l-admin", *words, environment=environment)

    def ask(self, question: Callable[[Connection], Awaitable[Any]], *, name: str = "admin") -> Any:
        """The control service's answer to someone."""

        async def conversation() -> Any:
            address = f"localhost:{self.control}"
            async with connect(address, self.certificates, name, timeout_s=PATIENCE_S) as to:
                return await question(to)

        return asyncio.run(conversation())

    @property
    def superlink(self) -> SuperLink:
        """Its SuperLink as the server itself speaks to it."""
        (port,) = [
            int(words[words.index("--port") + 1])
            for pid in strays(self.mark)
            if "--port" in (words := Path(f"/proc/{pid}/cmdline").read_text().split("\0"))
        ]
        authority = (self.certificates / AUTHORITY).read_bytes()
        secret = (self.root / "flower" / "secret").read_text().strip()
        return SuperLink(port=port, authority=authority, secret=secret)

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in (self.root / "flower").glob("*.log*"))


def command(
    *words: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / words[0], *words[1:]],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment,
        stdin=subprocess.DEVNULL,
    )


def prepare(root: Path, *more: str) -> tuple[int, int]:
    """Lays a federation out on free ports; returns those of gateway and control."""
    gateway, control, page = free_ports(3)
    done = command(
        "f2l-server", "init", str(root), "--address", f"localhost:{gateway}",
        "--listen", f"127.0.0.1:{gateway}", "--control", f"127.0.0.1:{control}",
        "--set", "target.name=mlp", "--set", "target.input_shape=[1,8,8]",
        "--set", "target.classes=3", *more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = root / "federation.toml"
    text = settings.read_text()
    assert "# dashboard = 8765" in text
    text = text.replace("# dashboard = 8765", f"dashboard = {page}")
    settings.write_text(text.replace("# connections_per_host = 100", "connections_per_host = 60"))
    return gateway, control


@contextmanager
def running(root: Path, gateway: int, control: int) -> Iterator[Central]:
    """Runs it until the block ends, and checks that it ends well."""
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(
            [BIN / "f2l-server", "run", str(root)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    try:
        said = [process.stdout.readline() for _ in range(3)] if process.stdout else []
        assert said[-1].startswith("dashboard"), (root / "server.log").read_text()
        yield Central(root=root, gateway=gateway, control=control, process=process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()
        # After a failure, what it had started is still there.
        end_strays(f"FLWR_HOME={root / 'flower'}")
        if process.stdout:
            process.stdout.close()


def exchange(
    port: int,
    request: bytes,
    *,
    tls: ssl.SSLContext,
    source: str = "127.0.0.1",
    timeout_s: float = PATIENCE_S,
) -> bytes:
    """The gateway's answer to some bytes; b"" where it only closes the connection."""
    answer = b""
    try:
        with (
            socket.create_connection(
                ("127.0.0.1", port), timeout=timeout_s, source_address=(source, 0)
            ) as plain,
            tls.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(request)
            while piece := secure.recv(65536):
                answer += piece
    except (ConnectionError, ssl.SSLError):
        pass
    return answer


def status_of(answer: bytes) -> int:
    """0 where there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0
