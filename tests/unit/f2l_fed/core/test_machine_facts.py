"""Facts about this machine: the proxies of the environment, without secrets."""

from __future__ import annotations

import pytest

from f2l_fed.core.machine_facts import proxy_section


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("http://ann:p@sw0rd@proxy:3128", "http://…@proxy:3128"),
        ("http://ann:p@ss/w0rd@proxy:3128", "http://…@proxy:3128"),
        ("http://tokenghp1234@proxy:3128", "http://…@proxy:3128"),
        ("ann:x://y@proxy:3128", "…@proxy:3128"),
        ("http://proxy:3128", "http://proxy:3128"),
    ],
)
def test_of_a_proxy_only_scheme_and_place_are_shown(monkeypatch, url, seen):
    monkeypatch.setenv("http_proxy", url)
    assert dict(proxy_section("", 0).rows) == {"http_proxy": seen}


def test_the_way_to_the_server_is_the_one_that_connections_take(monkeypatch):
    monkeypatch.setenv("https_proxy", "http://ann:pw@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8")

    def way(host: str) -> str:
        return dict(proxy_section(host, 8443).rows)["to the server"]

    assert way("127.0.0.1") == way("10.1.2.3") == "direct"
    assert way("fed.example.org") == "through the proxy proxy.example:3128"
    monkeypatch.setenv("https_proxy", "http://ann:p@ss/w0rd@proxy.example:3128")
    assert "the proxy can't be used" in way("fed.example.org")
