"""A site fetches the release once and makes its network itself; the centre would make the same."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clients.site.model_store import load_model, load_start
from clients.site.release_store import kept_release
from clients.site.sent_log import SentLog
from clients.site.site import open_site
from clients.training.local_network import network_from_release, task_from_release
from clients.training.task import respond_to_probe
from f2l_fed.generator.candidates import candidates_of_site
from f2l_fed.generator.compact import SITES_PER_CENTROID, compact
from f2l_fed.generator.release_file import ReleaseFile, pack_release
from f2l_fed.generator.serialization import save_generator
from f2l_fed.local_training.candidate_kinds import PRIOR
from f2l_fed.local_training.selection import select
from f2l_fed.targets.backbone import InstalledBackbone
from f2l_fed.wire.messages import ProbeRequest
from server.federation.folder import Federation
from server.generator.candidates import CandidateFactory
from server.generator.network_service import NetworkService
from server.generator.release_records import release_records
from tests.support.backbones import installed
from tests.support.commands import in_process
from tests.support.conducted import after_rounds
from tests.support.deployment import free_ports
from tests.support.inline import run_inline
from tests.support.served import (
    ENOUGH,
    OF_ALL,
    OF_HEADS,
    SETTINGS,
    TO_SITES,
    Served,
    close,
    generate,
    served,
)
from tests.support.small_federation import events, small_federation

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-3, "int8": 3e-2}
"""Largest distance from what the centre makes, relative to its distance from the sites' mean."""


@pytest.fixture(scope="module", params=[OF_HEADS, OF_ALL], ids=["head", "all"])
def center(request, tmp_path_factory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served") / "central"
    with served(root, adapt=(*request.param, *TO_SITES), rounds=2, sites=ENOUGH) as center:
        yield center


def fetch(site: Path):
    return in_process("f2l-site", "release", "fetch", str(site))


def edited(site: Path, **settings: str) -> None:
    text = site.read_text()
    for key, value in settings.items():
        text = re.sub(rf"(?m)^{key} = .*$", f"{key} = {value}", text, count=1)
    site.write_text(text)


def test_a_network_is_made_without_anything_that_leaves(center):
    site = center.joined("newcomer")
    done = fetch(site)
    assert (done.returncode, done.stderr) == (0, "")
    assert "release 00002 is here" in done.stdout
    state = site.parent / "state"
    kept = kept_release(state)
    assert stat.S_IMODE(kept.path.stat().st_mode) == 0o600
    shown = generate(site)
    assert (shown["model"]["release"], shown["model"]["round"]) == ("00002", 0)
    assert SentLog.in_folder(state).entries() == []
    told = events(center.federation.root, "site.served")
    assert not [event for event in told if event["site"] == "newcomer"]
    # The network that the same release makes of the same examples, kept with its start.
    _, start, network = network_from_release(open_site(site), ReleaseFile.read(kept.checked()))
    assert close(load_start(state).model.weights, start.model.weights)
    assert close(load_model(state).weights, network.weights)
    if center.federation.body is not None:
        assert shown["model"]["chosen"] == PRIOR


def test_it_is_fetched_once(center):
    site = center.joined("again")
    assert "is here" in fetch(site).stdout
    assert "was already here" in fetch(site).stdout
    told = events(center.federation.root, "release.fetched")
    assert [event["release"] for event in told if event["site"] == "again"] == ["00002"]
    names = [path.name for path in (site.parent / "state").glob("release-*")]
    assert len(names) == 1


def test_a_site_with_a_privacy_budget_spends_nothing(center):
    site = center.joined("private")
    edited(site, epsilon="8.0", answers='""')
    assert fetch(site).returncode == 0
    shown = generate(site)
    state = site.parent / "state"
    assert SentLog.in_folder(state).entries() == []
    assert not (state / "privacy.json").exists()
    assert (shown["model"]["chosen"] == PRIOR) or center.federation.body is None


def test_the_policy_of_a_site_may_forbid_it(center):
    site = center.joined("closed")
    assert fetch(site).returncode == 0
    edited(site, release_to_sites="false")
    done = fetch(site)
    assert done.returncode == 1
    assert "release-not-allowed" in done.stderr
    done = in_process("f2l-site", "generate", str(site))
    assert "release-not-allowed" in done.stderr
    told = in_process("f2l-site", "check", str(site))
    assert "release-not-allowed" in told.stdout + told.stderr
    assert "(release.to_sites)" in told.stdout + told.stderr


def test_a_release_that_was_replaced_is_not_used_and_another_is_fetched(center):
    site, releases = center.joined("late"), center.federation.releases
    root = center.federation.root

    def told() -> list[str]:
        found = events(root, "release.fetched")
        return [event["release"] for event in found if event["site"] == "late"]

    assert fetch(site).returncode == 0
    releases.rollback()
    try:
        done = in_process("f2l-site", "generate", str(site), "--json")
        assert done.returncode == 0
        assert "not used: release 00002 was replaced. The server is asked." in done.stderr
        state = site.parent / "state"
        assert load_model(state).facts.release == "00001"
        assert [entry["kind"] for entry in SentLog.in_folder(state).entries()] == ["probe"]
        assert told() == ["00002"]
        assert "release 00001 is here" in fetch(site).stdout
        assert told() == ["00002", "00001"]
        generate(site)
        assert len(SentLog.in_folder(state).entries()) == 1
    finally:
        releases.promote("00002")


def test_without_the_server_the_release_is_used_with_a_remark(center):
    site = center.joined("cut-off")
    text = site.read_text()
    assert fetch(site).returncode == 0
    (port,) = free_ports(1)
    site.write_text(text.replace(f":{center.gateway.port}", f":{port}"))
    done = in_process("f2l-site", "generate", str(site), "--json")
    assert done.returncode == 0
    assert "Whether release 00002 is still current is not known." in done.stderr
    assert '"release": "00002"' in done.stdout


def at_centre(federation: Federation, name: str, context: torch.Tensor):
    """The full generator and what it makes of a context."""
    factory = CandidateFactory.open(federation, federation.releases.promoted().id)
    return factory.generator, factory.served(name, context)


def all_of(federation: Federation, path: Path, precision: str, *, gate=None):
    """A file with everything that the release knows, as if it were of many sites."""
    service = NetworkService(federation.root)
    served = service._promoted()
    release = federation.releases.promoted()
    generator = served.factory.generator
    small = compact(
        generator, release_records(federation, release), sites=len(release.sites), rank=99
    )
    whole = replace(
        small, prior=replace(generator.prior, gate=small.prior.gate if gate is None else gate)
    )
    if federation.body is None:
        whole = replace(whole, codec=generator.codec)
    path.write_bytes(pack_release(whole, served.task, federation.config.candidates, precision))
    return small, ReleaseFile.read(path)


def same_in_both_places(federation: Federation, site, path: Path, *, gate=None) -> None:
    for precision, tolerance in TOLERANCE.items():
        _, file = all_of(federation, path, precision, gate=gate)
        request = ProbeRequest(
            frame=file.task.frame, anchor=file.task.anchor, chain=file.task.chain
        )
        (context,) = respond_to_probe(site, request, app=None).probes
        full, theirs = at_centre(federation, site.config.name, context)
        task = task_from_release(site, file)
        (ours,) = task.candidates
        far = theirs[PRIOR] - full.mean[: len(theirs[PRIOR])]
        if federation.body is not None:
            assert list(ours) == [PRIOR]
            assert float((ours[PRIOR] - theirs[PRIOR]).norm() / theirs[PRIOR].norm()) < tolerance
            continue
        generator = file.generator(federation.target)
        parts = candidates_of_site(
            generator, file.task.frame, site.config.name, context,
            generator.expect(context[None])[0], file.candidates, federation.target.layout,
        )  # fmt: skip
        made = {kind: weights for part in parts for kind, weights in part.items()}
        assert list(made) == list(theirs)
        for kind, weights in theirs.items():
            assert float((made[kind] - weights).norm() / far.norm()) < tolerance, kind
        kind, start = select(federation.target, made, site.train.x, site.train.y, keep=task.keep)
        assert (list(ours), ours[kind].tolist()) == ([kind], start.tolist())


@pytest.mark.parametrize("adapt", [OF_HEADS, OF_ALL], ids=["head", "all"])
def test_site_and_centre_make_the_same(tmp_path, adapt):
    federation = after_rounds(
        tmp_path / "out", sites=ENOUGH, settings=(*SETTINGS, *adapt, *TO_SITES)
    )
    site = open_site(federation.root / "sites/site-001/site.toml")
    # By another name: of a known site the centre leaves its own records out.
    site = replace(site, config=replace(site.config, name="new"))
    gate = federation.releases.generator("00001").prior.gate
    same_in_both_places(federation, site, tmp_path / "file", gate=gate)


def test_site_and_centre_make_the_same_head_on_a_frozen_backbone(tmp_path):
    config = InstalledBackbone.of(installed(tmp_path), tmp_path).config
    federation, _ = small_federation(
        tmp_path / "out",
        sites=12,
        settings=("target.name=adapter", "target.adapt=head", "head.pairs=3", "later.steps=3",
                  *TO_SITES),
        backbone=config,
    )  # fmt: skip
    run_inline(federation, 1)
    site = open_site(federation.root / "sites/site-001/site.toml")
    full = federation.releases.generator("00001").prior.gate
    assert len(full.centroids)
    same_in_both_places(federation, site, tmp_path / "file", gate=full)
    # The centroids that leave are of several sites each, and none is a row of a site's head.
    small, _ = all_of(federation, tmp_path / "file", "fp16")
    release = federation.releases.read("00001")
    weights = release_records(federation, release).weights
    rows = federation.symmetry.split(weights).rows.unflatten(0, (len(release.sites), -1))
    units = torch.nn.functional.normalize(rows, dim=3)
    cosines = units @ small.prior.gate.centroids.T
    members = torch.nn.functional.one_hot(cosines.argmax(3), cosines.shape[3]).amax((1, 2)).sum(0)
    assert int(members.min()) >= SITES_PER_CENTROID
    assert float(cosines.max()) < 0.9999
    # With them the head differs by what the gate says, and by nothing else.
    same_in_both_places(
        _with_gate(federation, small.prior.gate), site, tmp_path / "file", gate=small.prior.gate
    )


def _with_gate(federation: Federation, gate) -> Federation:
    """The federation, in whose release the gate is another one."""
    generator = federation.releases.generator("00001")
    path = federation.releases.path / "00001/generator.safetensors"
    other = replace(generator, prior=replace(generator.prior, gate=gate))
    save_generator(other, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    return federation
