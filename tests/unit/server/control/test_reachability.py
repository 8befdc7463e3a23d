"""Faults of a connection to a control service are told apart."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from f2l_fed.errors import ConfigError
from server.control.reachability import fault
from server.pki.certificate_store import create_authority, issue


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates") / "own"
    create_authority(folder)
    return issue(folder, "admin", "admin")


def test_a_port_at_which_nothing_listens(identity):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert fault(f"127.0.0.1:{port}", identity)[0] == "nothing listens there"


def test_a_service_that_is_another_one(identity):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def greet() -> None:
            caller, _ = other.accept()
            with caller:
                caller.recv(4096)
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        what, remedy = fault(f"127.0.0.1:{port}", identity)
        thread.join()
    assert what == "another service listens there"
    assert "[server] control" in remedy


def test_a_name_of_no_machine(identity):
    assert fault("nowhere.invalid:8770", identity)[0] == "no machine of this name is known"


def test_a_proxy_that_does_not_let_through_is_named(identity, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://ann:secret@127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "")
    what, _ = fault("fed.invalid:8770", identity)
    assert what == f"no connection (Connection refused, through the proxy 127.0.0.1:{port})"


@pytest.mark.parametrize("address", ["fed", "fed:", ":8770", "fed:99999", "fed:8770/x"])
def test_a_malformed_address(identity, address):
    with pytest.raises(ConfigError, match="--server: not a valid address: expected host:port"):
        fault(address, identity)
