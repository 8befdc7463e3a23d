"""The authentication of Ray's connections: every process of a Ray shows the same token.

Ray's GCS, raylets, workers, agents and job server run whatever they are told. With
``RAY_AUTH_MODE=token`` they refuse each call without the token. Ray takes mode and token from the
environment of a process; in this one they stand there only while a connection is made, since an
embedded Ray and a remote job server have different tokens.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import urlopen

import grpc

from f2l_fed.config import RayConfig
from f2l_fed.errors import ConfigError

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
HOW_TO_PROTECT = (
    "Start all of its nodes with RAY_AUTH_MODE=token and the same token; deploy/README.md says how."
)
_PATIENCE_S = 60.0


def cluster_token(config: RayConfig) -> str:
    """The token of the cluster, or job server, that the settings name.

    It is in the file ``token_file``, else where Ray looks for it: in ``RAY_AUTH_TOKEN``, in the
    file ``RAY_AUTH_TOKEN_PATH``, or in ``~/.ray/auth_token``.

    Raises:
        ConfigError: If there is none.
    """
    if not config.token_file and (token := os.environ.get(TOKEN, "").strip()):
        return token
    path = Path(
        config.token_file or os.environ.get(TOKEN_PATH) or Path.home() / ".ray" / "auth_token"
    )
    try:
        if token := path.read_text(encoding="ascii").strip():
            return token
        got = f"nothing in {path}"
    except (OSError, ValueError) as error:
        got = f"{path}: {getattr(error, 'strerror', None) or 'not a text'}"
    raise ConfigError(
        "the token of the Ray cluster can't be read",
        where="ray.token_file",
        expected="a file that holds it",
        got=got,
        remedy="Name it there or in RAY_AUTH_TOKEN_PATH; deploy/README.md says how to make it.",
    )


@contextmanager
def token_mode(**where: str) -> Iterator[None]:
    """Makes a Ray that is started or joined within the block use a token.

    Args:
        where: Either `TOKEN` or `TOKEN_PATH`.
    """
    names = (MODE, TOKEN, TOKEN_PATH)
    before = {name: value for name in names if (value := os.environ.pop(name, None)) is not None}
    os.environ.update({MODE: "token", **where})
    reload()
    try:
        yield
    finally:
        for name in names:
            os.environ.pop(name, None)
        os.environ.update(before)


def reload() -> None:
    """Makes Ray read mode and token from the environment again."""
    from ray import _raylet

    native: Any = _raylet
    native.Config.initialize("")
    native.AuthenticationTokenLoader.instance().reset_cache()


def answer_of(address: str, token: str = "") -> Literal["given", "refused", "none"]:
    """The kind of answer that a GCS gives to a call, "none" where it can't be reached.

    Args:
        address: ``host:port``.
        token: Shown with the call; "" shows none.
    """
    shown = (("authorization", f"Bearer {token}"),) if token else ()
    # A proxy would get the token.
    direct = (("grpc.enable_http_proxy", 0),)
    with grpc.insecure_channel(address, options=direct) as channel:
        ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            ask(b"", timeout=_PATIENCE_S, metadata=shown)
        except grpc.RpcError as error:
            code = error.code()
            return "refused" if code == grpc.StatusCode.UNAUTHENTICATED else "none"
    return "given"


def job_server_is_open(address: str) -> bool:
    """Whether the job server at an address takes jobs without a token.

    Raises:
        OSError: If it can't be reached.
    """
    try:
        where = f"{address.rstrip('/')}/api/authentication_mode"
        with urlopen(where, timeout=_PATIENCE_S) as answer:
            found = json.loads(answer.read(1024))
    except (HTTPError, ValueError):
        # A Ray that knows nothing of tokens.
        return True
    return not (isinstance(found, dict) and found.get("authentication_mode") == "token")
