"""The SuperLink on loopback is asked directly, whatever proxies the environment names."""

from __future__ import annotations

import socket

from server.pki.certificate_store import create_authority
from server.superlink.client import SuperLink


def test_its_secret_goes_to_no_proxy(tmp_path, monkeypatch):
    create_authority(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.2)
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        link = SuperLink(port=9, authority=(tmp_path / "ca.crt").read_bytes(), secret="s")
        assert not link.healthy()
        try:
            proxy.accept()
        except TimeoutError:
            return
    raise AssertionError("the proxy was asked")
