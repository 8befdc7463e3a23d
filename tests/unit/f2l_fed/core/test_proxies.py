"""The proxy on the way to a server, by the variables of the environment."""

from __future__ import annotations

import pytest

from f2l_fed.core.proxies import Proxy, proxy_to
from f2l_fed.errors import ConfigError

FOUND = Proxy(host="proxy.example", port=3128, user="ann", password="p@ss")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_each_variable_names_it_with_its_user(monkeypatch, variable, scheme):
    monkeypatch.setenv(variable, f"{scheme}ann:p%40ss@proxy.example:3128")
    assert proxy_to("fed.example.org", 8443) == FOUND
    assert FOUND.headers == {"proxy-authorization": "Basic YW5uOnBAc3M="}
    assert "p@ss" not in repr(FOUND)


def test_a_proxy_for_plain_http_is_not_for_tls(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    assert proxy_to("fed.example.org", 8443) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.1.1", "::1"])
def test_this_machine_is_reached_directly(monkeypatch, host):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert proxy_to(host, 8443) is None


@pytest.mark.parametrize(
    ("host", "exceptions", "direct"),
    [
        ("fed.example.org", "example.org", True),
        ("fed.example.org", ".example.org, other.test", True),
        ("fed.example.org", "fed.example.org:8443", True),
        ("fed.example.org", "*", True),
        ("badexample.org", "example.org", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "192.168.0.0/16,10.1.2.3", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("fd00::7", "fd00::/8", True),
        ("fed.example.org", "10.0.0.0/8", False),
    ],
)
def test_exceptions_are_names_addresses_and_networks(monkeypatch, host, exceptions, direct):
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", exceptions)
    assert (proxy_to(host, 8443) is None) == direct


@pytest.mark.parametrize(
    "url",
    [
        "socks5://ann:secret@proxy:1080",
        "https://proxy:1",
        "http://",
        "http://ann:p@secret/w0rd@proxy:3128",
        "http://ann:[secret@proxy",
    ],
)
def test_another_kind_of_proxy_is_refused_without_its_password(monkeypatch, url):
    monkeypatch.setenv("https_proxy", url)
    with pytest.raises(ConfigError, match="the proxy can't be used") as refusal:
        proxy_to("fed.example.org", 8443)
    assert "secret" not in str(refusal.value)
