"""The client of Flower's SuperLink: registered keys, nodes and runs.

The one file that uses Flower's Control protocol. The ``flwr`` command does the same but keeps its
settings in the home folder and can't send the secret that `server.superlink.process` requires.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto import control_pb2 as pb
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors.http.utils import add_headers

import server
from f2l_fed.errors import F2LError
from f2l_fed.flower.inner_access import SECRET_HEADER
from server.pki.site_keys import pem_of

BUNDLE = Path(server.__path__[0]) / "bundle"
"""The app; every round is a run of it."""


class SuperLinkError(F2LError):
    """A request that the SuperLink refused or did not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A registered SuperNode.

    Args:
        id: Flower's number of it.
        name: Of the site.
        key: Its public key, PEM.
        online: Whether it has sent a heartbeat lately.
    """

    id: int
    name: str
    key: bytes
    online: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of the app.

    Args:
        id: Flower's number of it.
        status: "pending", "starting", "running" or "finished".
        outcome: "completed", "failed" or "stopped" once it has finished.
        details: Flower's text about the outcome.
    """

    id: int
    status: str
    outcome: str
    details: str

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self.status == "finished"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SuperLink:
    """A SuperLink on loopback. Every call blocks; errors are SuperLinkError.

    Args:
        port: Its port.
        authority: PEM, of its certificate.
        secret: Secret that its Control routes require.
    """

    port: int
    authority: bytes
    secret: str

    def healthy(self) -> bool:
        """Whether it answers."""
        try:
            self.nodes()
        except SuperLinkError:
            return False
        return True

    def nodes(self) -> list[Node]:
        """All registered nodes."""
        with self._client() as client:
            answer = client.ListNodes(pb.ListNodesRequest())
        return [
            Node(
                id=node.node_id,
                name=node.name,
                key=bytes(node.public_key),
                online=node.status == "online",
            )
            for node in answer.nodes_info
            if node.status != "unregistered"
        ]

    def register_only(self, keys: Mapping[str, str]) -> dict[str, str]:
        """Registers these sites and unregisters all others; one that fails stops no other.

        Args:
            keys: Public key of each site, OpenSSH format, by name. The first site has a key that
                stands there twice.

        Returns:
            The sites that are not registered, and why.
        """
        failed: dict[str, str] = {}
        wanted: dict[str, bytes] = {}
        owners: dict[bytes, str] = {}
        for name, key in keys.items():
            pem = pem_of(key)
            if pem is None:
                failed[name] = "its key is not a public key that Flower accepts"
            elif pem in owners:
                failed[name] = f"its key is that of site {owners[pem]}"
            else:
                wanted[name], owners[pem] = pem, name
        nodes = self.nodes()
        known = {node.name for node in nodes if wanted.get(node.name) == node.key}
        with self._client() as client:
            for node in nodes:
                if wanted.get(node.name) != node.key:
                    client.UnregisterNode(pb.UnregisterNodeRequest(node_id=node.id))
            for name in wanted.keys() - known:
                try:
                    client.RegisterNode(pb.RegisterNodeRequest(public_key=wanted[name], name=name))
                except httpx.HTTPStatusError as error:
                    failed[name] = f"the SuperLink does not take its key ({_reason(error)})"
        return failed

    def start(self, settings: Mapping[str, str | int]) -> int:
        """Starts a run of the app with a run configuration; returns its number."""
        content = build_fab_from_disk(BUNDLE)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        request = pb.StartRunRequest(
            fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(settings))
        )
        with self._client() as client:
            answer = client.StartRun(request)
        if not answer.HasField("run_id"):
            raise SuperLinkError("the SuperLink did not start the run", got=str(answer.note))
        return int(answer.run_id)

    def run(self, id: int) -> Run:
        """The state of a run."""
        with self._client() as client:
            answer = client.ListRuns(pb.ListRunsRequest(run_id=id))
        status = answer.run_dict[id].status
        return Run(id=id, status=status.status, outcome=status.sub_status, details=status.details)

    def stop(self, id: int) -> None:
        """Ends a run; one that has finished stays as it is."""
        try:
            with self._client() as client:
                client.StopRun(pb.StopRunRequest(run_id=id))
        except SuperLinkError:
            if not self.run(id).finished:
                raise

    @contextmanager
    def _client(self) -> Iterator[ControlHttpClient]:
        client = _DirectClient.from_server_address(
            f"localhost:{self.port}",
            insecure=False,
            root_certificates=self.authority,
            interceptors=[_WithSecret(self.secret)],
        )
        try:
            with client:
                yield client
        except (httpx.HTTPError, ValueError) as error:
            raise SuperLinkError(
                "the SuperLink refused the request or can't be reached",
                where=f"localhost:{self.port}",
                got=_reason(error),
                remedy="The log flower/superlink.log says more.",
            ) from error


class _DirectClient(ControlHttpClient):
    """Flower's client of the Control routes, without a proxy: it would get the secret."""

    def __init__(self, base_url: str, **settings: Any) -> None:
        super().__init__(base_url, **settings)
        timeout = self._client.timeout
        self._client.close()
        self._client = httpx.Client(
            verify=settings.get("verify", True), timeout=timeout, trust_env=False
        )


class _WithSecret:
    """An interceptor that adds the secret to every request."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def intercept(self, context: Any, call_next: Any) -> Any:
        add_headers(context.request, {SECRET_HEADER: self._secret})
        return call_next(context)


def app_hash() -> str:
    """SHA-256 of the app that sites receive, for the list in a site's policy."""
    return hashlib.sha256(build_fab_from_disk(BUNDLE)).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError):
        return f"status {error.response.status_code}: {error.response.text[:200]}"
    return type(error).__name__
