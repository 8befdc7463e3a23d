"""Requests for the release: who gets it, and downloads that are damaged, cut off or too large."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clients.onboarding.network_requests import ServerUnavailable
from clients.onboarding.release_requests import _receive, fetch_release
from clients.site.release_store import KeptRelease, kept_release
from clients.site.site_folder import SiteFolder
from f2l_fed.core.locks import locked
from f2l_fed.errors import F2LError, ReleaseError, UsageError, WireError
from tests.support.commands import in_process
from tests.support.conducted import after_rounds
from tests.support.gateway import require_registered
from tests.support.relay import relay
from tests.support.served import (
    ENOUGH,
    OF_ALL,
    OF_HEADS,
    SETTINGS,
    TO_SITES,
    Served,
    behind_gateway,
    generate,
    served,
)

ASK = b"GET /v1/site/release HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def center(tmp_path_factory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served") / "central"
    with served(root, adapt=(*OF_ALL, *TO_SITES), sites=ENOUGH) as center:
        yield center


def fetch(site: Path, **more):
    return fetch_release(SiteFolder.read(site), now=datetime.now(UTC), **more)


def files(site: Path) -> list[str]:
    return sorted(path.suffix for path in (site.parent / "state").glob("release-*"))


def test_only_a_registered_site_gets_it(center, tmp_path):
    gateway, site = center.gateway, center.joined("known")
    assert gateway.status(site.parent, ASK) == 200
    assert gateway.status(site.parent, ASK.replace(b"GET", b"POST")) == 404
    require_registered(gateway, tmp_path, ASK, "known")


def test_a_removed_site_gets_nothing_and_generates_nothing_with_the_server(center):
    site = center.joined("removed")
    fetch(site)
    center.gateway.membership.remove("removed", "admin")
    with pytest.raises(F2LError, match="does not know this site, or has removed it"):
        fetch(site)
    done = in_process("f2l-site", "generate", str(site))
    assert done.returncode == 1
    assert "does not know this site, or has removed it" in done.stderr


@pytest.mark.parametrize(
    ("sites", "to_sites", "reason"),
    [
        (ENOUGH, "false", "keeps its generator at the centre"),
        (6, "true", "of too few sites to be given away"),
    ],
)
def test_a_federation_that_keeps_its_generator_says_so(tmp_path, sites, to_sites, reason):
    own = (*SETTINGS, *OF_HEADS, f"release.to_sites={to_sites}")
    with behind_gateway(after_rounds(tmp_path / "out", sites=sites, settings=own)) as center:
        site = center.joined("curious")
        done = in_process("f2l-site", "release", "fetch", str(site))
        assert done.returncode == 1
        assert reason in done.stderr
        assert done.stderr.count("\n") == 1
        assert files(site) == []
        assert not list(center.federation.root.glob("releases/*/to-sites*"))
        assert generate(site)["model"]["release"] == "00001"


def test_a_download_that_is_cut_off_goes_on_where_it_ended(center):
    site = center.joined("cut-off")
    text = site.read_text()
    with relay(center.gateway.port, most=30_000) as wire:
        site.write_text(text.replace(f":{center.gateway.port}", f":{wire.port}"))
        with pytest.raises(ServerUnavailable, match=r"it goes on where it ended|can't be reached"):
            fetch(site)
    assert files(site) == [".part"]
    assert kept_release(site.parent / "state") is None
    (part,) = (site.parent / "state").glob("*.part")
    begun = part.stat().st_size
    assert 0 < begun < 30_000
    assert part.stat().st_mode & 0o077 == 0
    site.write_text(text)
    told = []
    release, fetched = fetch(site, told=lambda done, size: told.append((done, size)))
    assert fetched
    assert told[0][0] > begun
    assert told[-1][0] == told[-1][1] == release.path.stat().st_size
    assert files(site) == [".safetensors"]
    assert release.checked()


def halved(site: Path) -> tuple[Path, bytes]:
    """The part of a release of which half has arrived, and all of it."""
    release, _ = fetch(site)
    whole = release.path.read_bytes()
    release.path.unlink()
    release.part.write_bytes(whole[: len(whole) // 2])
    return release.part, whole


def test_a_damaged_part_is_refused_and_fetched_anew(center):
    site = center.joined("damaged")
    part, whole = halved(site)
    part.write_bytes(whole[:100] + b"\0" + whole[101 : len(whole) // 2])
    with pytest.raises(ReleaseError, match=r"the release is damaged.*Run it again"):
        fetch(site)
    assert files(site) == []
    assert fetch(site)[0].path.read_bytes() == whole


def test_a_part_of_another_release_or_one_that_is_whole_does_no_harm(center):
    site = center.joined("mixed")
    part, whole = halved(site)
    other = part.with_name(f"release-00007-{'ab' * 32}.part")
    part.rename(other)
    assert fetch(site)[0].path.read_bytes() == whole
    assert files(site) == [".safetensors"]
    part, _ = halved(site)
    part.write_bytes(whole)
    assert fetch(site)[0].path.read_bytes() == whole
    part, _ = halved(site)
    part.write_bytes(whole + whole)
    assert fetch(site)[0].path.read_bytes() == whole


def test_what_is_damaged_at_the_centre_takes_the_place_of_nothing(center):
    site, fresh = center.joined("keeper"), center.joined("fresh")
    before = fetch(site)[0]
    served_file = center.service.release_file().path
    whole = served_file.read_bytes()
    served_file.write_bytes(whole[:-20] + b"U" * 20)
    try:
        assert fetch(site) == (before, False)
        with pytest.raises(ReleaseError, match="another digest than the server has named"):
            fetch(fresh)
        assert files(fresh) == []
        # A release that is damaged here is asked for anew, and is not lost before another is there.
        before.path.write_bytes(whole[:-20] + b"U" * 20)
        with pytest.raises(ReleaseError):
            fetch(site)
        assert files(site) == [".safetensors"]
    finally:
        served_file.write_bytes(whole)
    done = in_process("f2l-site", "generate", str(site), "--json")
    assert done.returncode == 0
    assert "the fetched release is damaged" in done.stderr
    assert "Fetch it again: f2l-site release fetch. The server is asked." in done.stderr
    assert fetch(site) == (before, True)
    assert before.checked().read_bytes() == whole


def test_a_site_bounds_what_it_takes(center):
    site = center.joined("small")
    text = site.read_text()
    site.write_text(
        re.sub(r"(?m)^maximum_download_bytes = .*$", "maximum_download_bytes = 1000", text)
    )
    with pytest.raises(F2LError, match=r"larger than this site takes.*at most 1000 B"):
        fetch(site)
    assert files(site) == []


def test_one_process_fetches_at_a_time(center):
    site = center.joined("twice")
    fetch(site)
    state = site.parent / "state"
    with (
        locked(state / "release.lock"),
        pytest.raises(UsageError, match="another process fetches the release"),
    ):
        fetch(site)


def test_an_answer_that_goes_on_beyond_the_size_it_tells_is_cut_off(tmp_path):
    release = KeptRelease(folder=tmp_path, id="00001", digest="0" * 64)
    with pytest.raises(WireError, match="more than the size"):
        _receive(io.BytesIO(b"x" * 40), release, 0, 5, lambda *_: None)
