"""The file of a release for sites: when there is one, and when it is made anew."""

from __future__ import annotations

import hashlib
import stat

import pytest

from f2l_fed.generator.release_file import ReleaseFile
from server.erasure import erase_site
from server.federation.folder import Federation
from server.generator.compact_release import NotForSites
from server.generator.network_service import NetworkService, NoRelease
from tests.support.conducted import after_rounds
from tests.support.served import ENOUGH, OF_ALL, OF_HEADS, SETTINGS, TO_SITES
from tests.support.small_federation import events, prepared


def federation_of(root, *more, sites=ENOUGH, rounds=1) -> Federation:
    return after_rounds(root, rounds, sites=sites, settings=(*SETTINGS, *more))


def test_without_a_release_there_is_no_file(tmp_path):
    federation, _ = prepared(tmp_path / "out", *TO_SITES)
    with pytest.raises(NoRelease, match="no release yet"):
        NetworkService(federation.root).release_file()


@pytest.mark.parametrize(
    ("sites", "more", "reason"),
    [
        (ENOUGH, OF_HEADS, "keeps its generator at the centre"),
        (6, (*OF_HEADS, *TO_SITES), "at least 8, got 6"),
        (ENOUGH, (*OF_ALL, *TO_SITES, "codec.kind=pca-vae"), "expected pca"),
    ],
)
def test_some_federations_keep_their_generator(tmp_path, sites, more, reason):
    federation = federation_of(tmp_path / "out", *more, sites=sites)
    with pytest.raises(NotForSites, match=reason):
        NetworkService(federation.root).release_file()
    assert events(federation.root, "release.fetched") == []


@pytest.mark.parametrize("adapt", [OF_HEADS, OF_ALL], ids=["head", "all"])
def test_the_file_is_that_of_the_promoted_release(tmp_path, adapt):
    federation = federation_of(tmp_path / "out", *adapt, *TO_SITES, rounds=2)
    service = NetworkService(federation.root)
    file = service.release_file()
    content = file.path.read_bytes()
    assert (file.size, file.digest) == (len(content), hashlib.sha256(content).hexdigest())
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    read = ReleaseFile.read(file.path)
    config = federation.config
    assert (read.id, file.release) == ("00002", "00002")
    assert (read.task.frame, read.task.recipe) == (federation.service_frame, config.local)
    assert read.task.frame.to_sites
    assert (read.candidates.samples, read.candidates.keep) == (1024, config.candidates.keep)
    # Another process makes the same bits, and a rollback another file.
    assert NetworkService(federation.root).release_file().tag == file.tag
    federation.releases.rollback()
    assert service.release_file().release == "00001"
    federation.releases.promote("00002")
    assert service.release_file().tag == file.tag


def test_it_is_one_event_for_each_site(tmp_path):
    federation = federation_of(tmp_path / "out", *OF_HEADS, *TO_SITES)
    service = NetworkService(federation.root)
    file = service.release_file()
    assert events(federation.root, "release.fetched") == []
    for site in ("new", "new", "other"):
        service.note_fetched(site, file)
    told = [event["site"] for event in events(federation.root, "release.fetched")]
    assert told == ["new", "other"]


def test_an_erased_site_is_in_none_of_the_centroids_and_the_file_is_another(tmp_path):
    federation = federation_of(tmp_path / "out", *OF_HEADS, *TO_SITES)
    service = NetworkService(federation.root)
    before = service.release_file()
    gone = federation.releases.read("00001").sites[2]
    erase_site(gone, zoo=federation.zoo, releases=federation.releases, federations=[federation])
    after = service.release_file()
    assert (after.release, after.digest == before.digest) == (before.release, False)
    other = federation.releases.read("00001").sites[3]
    erase_site(other, zoo=federation.zoo, releases=federation.releases, federations=[federation])
    with pytest.raises(NotForSites, match="at least 8, got 7"):
        service.release_file()
