"""The service of networks: which release it opens, and for how long."""

from __future__ import annotations

import pytest
import torch

from f2l_fed.local_training.candidate_kinds import PRIOR
from f2l_fed.wire.messages import ProbeReply
from f2l_fed.wire.packing import pack_probe_reply, unpack_probe_request, unpack_task
from f2l_fed.wire.serialization import from_bytes, to_bytes
from server.erasure import erase_site
from server.federation.folder import Federation
from server.generator.network_service import NetworkService, NoRelease, NotPromoted
from tests.support.conducted import after_rounds
from tests.support.inline import conductor
from tests.support.served import OF_ALL, OF_HEADS, SETTINGS
from tests.support.small_federation import ANY_RELEASE, events, prepared


def reply(federation: Federation, value: float = 0.5) -> bytes:
    layout = federation.target.layout
    probes = torch.full((1, layout.size), value)
    return to_bytes(pack_probe_reply(ProbeReply(site="new", probes=probes), layout))


def test_without_a_release_there_is_nothing_to_ask(tmp_path):
    federation, _ = prepared(tmp_path / "out")
    service = NetworkService(federation.root)
    with pytest.raises(NoRelease, match="no release yet"):
        service.context_request()
    with pytest.raises(NoRelease):
        service.task("new", "00001", reply(federation))


@pytest.mark.parametrize("adapt", [OF_HEADS, OF_ALL], ids=["head", "all"])
def test_a_task_is_what_the_release_makes_of_a_context(tmp_path, adapt):
    federation = after_rounds(tmp_path / "out", settings=(*SETTINGS, *adapt))
    service = NetworkService(federation.root)
    release, request = service.context_request()
    asked = unpack_probe_request(from_bytes(request))
    promoted = federation.releases.read(release)
    assert torch.equal(asked.anchor, federation.anchor(promoted))
    assert asked.chain == promoted.chain[:1]
    task = unpack_task(from_bytes(service.task("new", release, reply(federation))))
    assert (task.frame, task.recipe) == (asked.frame, federation.config.local)
    assert (task.round, task.release, task.chain) == (0, "00001", asked.chain)
    (candidates,) = task.candidates
    context = torch.full((1, federation.target.layout.size), 0.5)
    expected = federation.releases.generator(release).expect(context)[0]
    torch.testing.assert_close(candidates[PRIOR], expected)
    draws = 0 if federation.body else 1 + federation.config.candidates.samples
    assert len(candidates) == 1 + draws
    with pytest.raises(NotPromoted):
        service.task("new", "00002", reply(federation))


def test_an_erased_site_is_no_longer_known_to_an_open_release(tmp_path):
    federation = after_rounds(tmp_path / "out", settings=SETTINGS)
    service, gone = NetworkService(federation.root), federation.releases.read("00001").sites[2]

    def prior() -> torch.Tensor:
        task = unpack_task(from_bytes(service.task(gone, "00001", reply(federation))))
        return task.candidates[0][PRIOR]

    known = federation.releases.expected("00001")[2, 0]
    torch.testing.assert_close(prior(), known)
    erase_site(gone, zoo=federation.zoo, releases=federation.releases, federations=[federation])
    assert not torch.allclose(prior(), known)


def test_a_head_for_a_known_site_follows_from_its_context_like_any_other(tmp_path):
    federation = after_rounds(tmp_path / "out", settings=(*SETTINGS, *OF_HEADS))
    service, known = NetworkService(federation.root), federation.releases.read("00001").sites[2]
    heads = [
        unpack_task(from_bytes(service.task(site, "00001", reply(federation)))).candidates[0][PRIOR]
        for site in (known, "new")
    ]
    assert torch.equal(*heads)


def test_a_site_that_asks_again_and_again_is_one_event(tmp_path):
    federation = after_rounds(tmp_path / "out", settings=(*SETTINGS, *OF_HEADS))
    service = NetworkService(federation.root)
    for site in ("new", "new", "other"):
        service.task(site, "00001", reply(federation))
    told = [event["site"] for event in events(federation.root, "site.served")]
    assert told == ["new", "other"]


def test_a_release_without_heads_serves_its_body(tmp_path):
    federation, files = prepared(tmp_path / "out", *ANY_RELEASE, *OF_HEADS)
    for path in files:
        path.write_text(
            path.read_text() + "\n[privacy]\nepsilon = 8.0\ndelta = 1e-4\nanswers = 3\n"
        )
    (state,) = conductor(federation, files).run(1, len(files))
    assert (state.step, federation.releases.read("00001").sites) == ("done", ())
    service = NetworkService(federation.root)
    silent = unpack_task(from_bytes(service.task("new", "00001", reply(federation, 0.0))))
    assert silent.candidates == ()
    assert torch.equal(silent.anchor, federation.anchor(federation.releases.promoted()))
    task = unpack_task(from_bytes(service.task("new", "00001", reply(federation))))
    assert bool(task.candidates[0][PRIOR].isfinite().all())
