"""The compact generator of a release: its size, its cost at a site, its worth, what it tells.

`python -m tests.benchmarks.compact_release [--quick] [--seeds N] [--json OUT.json] [--data SETS]`

Bytes of the file by rank and precision, of generators fitted on random records. Seconds of CPU and
memory of a site that makes candidates of them and chooses, in a process of its own. Then real
federations: accuracy at held-out sites of what the full generator makes, and in points the lead of
compact ones over it, paired by site, with half of the 95% interval; bytes between site and centre,
and seconds of CPU at the centre. Last, membership: a generator is fitted on the records of half of
a first round's sites, and tells them from the other half by three scores (the area under the ROC
curve; 0.5 is chance): distance from what its latent space spans, error of its prediction, distance
of heads' rows from the gate's centroids.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor

from f2l_fed.codec.pca import PcaCodec
from f2l_fed.evaluation.arm_names import GENERATED
from f2l_fed.evaluation.arms import HeldOutSite, ServedRelease, measure
from f2l_fed.flow import FlowConfig
from f2l_fed.generator.candidates import FittedRecords, candidates_of_site
from f2l_fed.generator.compact import compact
from f2l_fed.generator.config import PRECISIONS, CandidatesConfig, GeneratorConfig
from f2l_fed.generator.fit import fit_generator
from f2l_fed.generator.generator import Generator
from f2l_fed.generator.release_file import ReleaseFile, pack_release
from f2l_fed.generator.serialization import save_generator
from f2l_fed.local_training.adapted_network import adapted_head, site_context
from f2l_fed.local_training.config import Recipe
from f2l_fed.local_training.selection import select_in_parts
from f2l_fed.prior.likeness import mean_likeness
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target, build_target
from f2l_fed.targets.head_rows import cut, padded, with_classes
from f2l_fed.wire.messages import Frame, ProbeReply, Task
from f2l_fed.wire.packing import pack_probe_reply
from f2l_fed.wire.serialization import to_bytes
from server.federation.folder import Federation
from server.generator.network_service import NetworkService
from server.generator.release_records import release_records
from server.simulation.setup import held_out_sites
from tests.benchmarks.common import memory_mib, options, paired, side_by_side, write_json
from tests.benchmarks.federated import laid_out, promoted
from tests.support.inline import run_inline

ANY = 10_000
"""Sites enough for every rank."""

RANKS = (8, 16, 32, 64)
NETWORKS = {"mlp": (1, 8, 8), "resnet20": (3, 32, 32)}
DRAWS = (100, 1024)
STEPS = (0, 20)
ARMS = {"32 fp16": (32, "fp16"), "32 int8": (32, "int8"), "8 int8": (8, "int8")}
KINDS = {"heads": ("target.adapt=head",), "whole": ("target.adapt=all", "flow.steps=0")}
"""Of the federations; draws are normal around the prior, as in most releases."""
SPLITS = 5
_RECIPE = Recipe(steps=10)


def random_generator(name: str, records: int) -> tuple[Target, Generator, FittedRecords]:
    """A generator fitted on random records of rank 100, without a flow."""
    target = build_target(name, NETWORKS[name], 5)
    size, rng = target.layout.size, torch.Generator().manual_seed(0)
    contexts = torch.randn(records, 100, generator=rng) @ torch.randn(100, size, generator=rng)
    weights = contexts / 2 + torch.randn(records, size, generator=rng)
    fit = fit_generator(
        contexts[:, None],
        weights[:, None],
        target,
        OutputSymmetry.of(target, enabled=True),
        GeneratorConfig(flow=FlowConfig(steps=0)),
        rng,
        anchor=torch.zeros(size),
    )
    return target, fit.generator, FittedRecords(contexts=contexts, weights=weights)


def task_of(target: Target, name: str) -> Task:
    """A task of whole networks, with which a file is packed."""
    config = CandidatesConfig()
    frame = Frame(
        lineage=f"{name}/0",
        target=name,
        classes=target.classes,
        input_shape=target.input_shape,
        layout=target.layout.digest,
        episodes=1,
        shots=5,
        probe=_RECIPE,
    )
    return Task(
        frame=frame,
        anchor=torch.zeros(target.layout.size),
        round=0,
        release="00001",
        recipe=_RECIPE,
        candidates=(),
        keep=config.keep,
    )


def sizes(name: str, records: int) -> dict[str, Any]:
    """Bytes of the whole generator, of all networks, and of the compact one's files."""
    target, generator, fitted = random_generator(name, records)
    found: dict[str, Any] = {"network": name, "parameters": target.layout.size, "records": records}
    with tempfile.TemporaryDirectory() as folder:
        save_generator(generator, Path(folder) / "whole")
        found["whole"] = (Path(folder) / "whole").stat().st_size
    for rank in RANKS:
        small = compact(generator, fitted, sites=ANY, rank=rank)
        for precision in PRECISIONS:
            packed = pack_release(small, task_of(target, name), CandidatesConfig(), precision)
            found[f"{rank} {precision}"] = len(packed)
    return found


def written(name: str, records: int, path: Path) -> None:
    """Writes a file of rank 32."""
    target, generator, fitted = random_generator(name, records)
    small = compact(generator, fitted, sites=ANY, rank=32)
    path.write_bytes(pack_release(small, task_of(target, name), CandidatesConfig(), "fp16"))


def local_cost(name: str, path: Path, draws: int) -> dict[str, Any]:
    """Seconds of CPU and memory in MiB of a site that opens a file, draws, and chooses."""
    target = build_target(name, NETWORKS[name], 5)
    rng = torch.Generator().manual_seed(1)
    x, y = torch.randn(25, *target.input_shape, generator=rng), torch.arange(25) % 5
    target.logits(torch.zeros(target.layout.size), x)
    before, began = memory_mib("VmRSS"), process_time()
    file = ReleaseFile.read(path)
    generator = file.generator(target)
    opened = process_time() - began
    context = torch.randn(1, target.layout.size, generator=rng)
    parts = candidates_of_site(
        generator,
        file.task.frame,
        "new",
        context[0],
        generator.expect(context)[0],
        replace(file.candidates, samples=draws),
        target.layout,
    )
    select_in_parts(target, parts, x, y, keep=8)
    return {
        "network": name,
        "draws": draws,
        "open_s": opened,
        "all_s": process_time() - began,
        "mib": memory_mib("VmHWM") - before,
    }


def compacted(
    federation: Federation, released: ServedRelease, rank: int, precision: str
) -> Generator:
    """The generator that a site reads from a file of this rank and precision."""
    generator, release = released.generator, federation.releases.promoted()
    assert release is not None
    small = compact(generator, released.records, sites=len(release.sites), rank=rank)
    task = replace(NetworkService(federation.root)._promoted().task, release=release.id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(pack_release(small, task, released.candidates, precision))
        read = ReleaseFile.read(path).generator(released.target)
    return replace(read, bodies=generator.bodies, mean=generator.mean)


def start_at(release: ServedRelease, site: HeldOutSite) -> Tensor:
    """(D,) float32, the start that a release makes for a site, as `f2l_fed.evaluation.arms`."""
    generator = release.generator
    if release.body is None:
        context = release.context(site)
        return release.chosen(site, context, generator.expect(context[None])[0])
    assert generator.bodies is not None
    weights, (x, y) = generator.bodies.own, site.train
    largest, body = release.body.head.layout, with_classes(release.body, site.classes)
    context = padded(site_context(body, weights, x, y, release.head)[None], largest)
    expected = cut(generator.expect(context)[0], largest, site.classes)
    return body.join(weights, adapted_head(body, weights, expected, x, y, release.head))


def accuracy_of(
    federation: Federation, release: ServedRelease, sites: Sequence[HeldOutSite]
) -> Tensor:
    """(sites, steps) float64, accuracy in % of what a release makes."""
    config, found = federation.config, []
    for site in sites:
        start = {GENERATED: start_at(release, site)}
        curve = measure(
            release.network_of(site), start, site, config.local, config.lineage, STEPS,
            pulls=release.pulls(site),
        )  # fmt: skip
        found.append([100 * value for value in curve[GENERATED]])
    return torch.tensor(found, dtype=torch.float64)


def federation_of(
    kind: str, seed: int, sites: int, held_out: int, rounds: int, data: str
) -> dict[str, Any]:
    """Accuracies of the full and of compact generators, and the traffic of a federation."""
    settings = (*KINDS[kind], "release.to_sites=true")
    with laid_out(seed, sites, held_out, data, settings) as (federation, divided):
        states = run_inline(federation, rounds)
        assert states[-1].step == "done"
        release = promoted(federation)
        arms = {"full": release}
        for arm, (rank, precision) in ARMS.items():
            small = compacted(federation, release, rank, precision)
            arms[arm] = replace(release, generator=small)
        if kind == "whole":
            many = replace(release.candidates, samples=DRAWS[-1])
            arms["32 fp16, 1,024 draws"] = replace(arms["32 fp16"], candidates=many)
        found = {
            sort: {arm: accuracy_of(federation, one, group).tolist() for arm, one in arms.items()}
            for sort, group in held_out_sites(divided).items()
            if group
        }
        return {"kind": kind, "accuracy": found, "traffic": traffic(federation, release)}


def traffic(federation: Federation, release: ServedRelease) -> dict[str, float]:
    """Bytes and seconds of the centre's CPU: of a request for a network, and of the file."""
    service, layout = NetworkService(federation.root), federation.target.layout
    id, request = service.context_request()
    context = release.records.contexts[:1]
    reply = to_bytes(pack_probe_reply(ProbeReply(site="new", probes=context), layout))
    began = process_time()
    task = service.task("new", id, reply)
    seconds = process_time() - began
    began = process_time()
    file = service.release_file()
    return {
        "request_bytes": len(request) + len(reply) + len(task),
        "request_s": seconds,
        "file_bytes": file.size,
        "file_s": process_time() - began,
    }


def membership(kind: str, seed: int, sites: int, data: str) -> dict[str, list[float]]:
    """Areas under the ROC curve by score and generator, for some divisions of a round's sites."""
    with laid_out(seed, sites, 1, data, KINDS[kind]) as (federation, _):
        run_inline(federation, 1)
        release = federation.releases.read("00001")
        records = release_records(federation, release)
        count, anchor = len(release.sites), federation.releases.generator("00001").prior.anchor
        contexts, weights = (
            w.unflatten(0, (count, -1)) for w in (records.contexts, records.weights)
        )
        config = replace(federation.config.generator, flow=FlowConfig(steps=0))
        found: dict[str, list[float]] = {}
        for split in range(SPLITS):
            rng = torch.Generator().manual_seed(1000 * seed + split)
            order = torch.randperm(count, generator=rng)
            members, others = order[: count // 2], order[count // 2 :]
            fit = fit_generator(
                contexts[members], weights[members], federation.target, federation.symmetry,
                config, rng, anchor=anchor,
            )  # fmt: skip
            own = FittedRecords(
                contexts=contexts[members].flatten(0, 1), weights=weights[members].flatten(0, 1)
            )
            small = compact(fit.generator, own, sites=len(members), rank=32)
            for name, generator in (("full", fit.generator), ("compact", small)):
                for score, value in scores(generator, contexts, weights, kind):
                    area = area_under(value[members], value[others])
                    found.setdefault(f"{score}, {name}", []).append(area)
        return found


def scores(
    generator: Generator, contexts: Tensor, weights: Tensor, kind: str
) -> Iterator[tuple[str, Tensor]]:
    """(n,) float for each score, lower for sites that seem to be members."""
    flat, (n, *_) = weights.flatten(0, 1), weights.shape
    missed = (flat - generator.expect(contexts.flatten(0, 1))).square().sum(1)
    yield "prediction", missed.view(n, -1).mean(1)
    if kind == "heads":
        rows = generator.prior.symmetry.split(flat).rows
        if len(centroids := generator.prior.gate.centroids):
            yield "centroids", -mean_likeness(rows, centroids).view(n, -1).mean(1)
        return
    codec = generator.codec
    assert isinstance(codec, PcaCodec)
    off = flat - codec.common.mean
    left = off - (off @ codec.common.basis.T) @ codec.common.basis
    yield "span", (left.square().sum(1) / off.square().sum(1)).view(n, -1).mean(1)


def area_under(members: Tensor, others: Tensor) -> float:
    """Share of pairs in which the member's score is the lower one; ties count half."""
    less = (members[:, None] < others).double() + (members[:, None] == others).double() / 2
    return float(less.mean())


def show_accuracy(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Prints accuracy and leads over all seeds; returns them."""
    figures: dict[str, Any] = {}
    for kind in KINDS:
        own = [run for run in runs if run["kind"] == kind]
        for sort in own[0]["accuracy"] if own else ():
            by_arm = {
                arm: torch.cat(
                    [torch.tensor(run["accuracy"][sort][arm], dtype=torch.float64) for run in own]
                )
                for arm in own[0]["accuracy"][sort]
            }
            print(f"\n{kind}, {sort}, {len(by_arm['full'])} sites: after {STEPS} steps")
            for arm, values in by_arm.items():
                told = paired(values, by_arm["full"])
                cells = "  ".join(
                    f"{a:6.2f} ({d:+.2f} ±{e:.2f})"
                    for a, d, e in zip(
                        told["accuracy"], told["difference"], told["ci95"], strict=True
                    )
                )
                print(f"  {arm:<22}{cells}")
                figures[f"{kind}, {sort}, {arm}"] = told
    for kind in KINDS:
        for run in [run for run in runs if run["kind"] == kind][:1]:
            print(f"\n{kind}: " + ", ".join(f"{k} {v:,.4g}" for k, v in run["traffic"].items()))
    return figures


def main() -> None:
    """All parts."""
    chosen = options(__doc__ or "")
    names = list(NETWORKS)[: 1 if chosen.quick else 2]
    sized = side_by_side(sizes, [(name, 100) for name in names])
    for row in sized:
        print(f"{row['network']}, {row['parameters']:,} parameters, {row['records']} records: "
              f"whole {row['whole']:,} B")  # fmt: skip
        for rank in RANKS:
            cells = "".join(f"{p} {row[f'{rank} {p}']:>12,} B   " for p in PRECISIONS)
            print(f"  rank {rank:>2}  {cells}")
    costs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / name for name in names}
        side_by_side(written, [(name, 100, paths[name]) for name in names])
        for name in names:
            for draws in DRAWS:
                # One pool for each: memory is measured in a fresh process.
                tries = [side_by_side(partial(local_cost, name, paths[name]), [(draws,)])[0]
                         for _ in range(1 if chosen.quick else 3)]  # fmt: skip
                row = sorted(tries, key=lambda one: float(one["all_s"]))[len(tries) // 2]
                costs.append(row)
                print(f"{name:<10}{draws:>6} draws: opened in {row['open_s']:.3f} s, "
                      f"{row['all_s']:.2f} s in all, {row['mib']:.0f} MiB")  # fmt: skip
    sites, held_out, rounds = (16, 6, 1) if chosen.quick else (24, 20, 2)
    jobs = [
        (kind, seed, sites, held_out, rounds, chosen.data)
        for kind in KINDS
        for seed in range(chosen.seeds)
    ]
    figures = show_accuracy(runs := side_by_side(federation_of, jobs))
    asked = [(kind, seed, sites, chosen.data) for kind in KINDS for seed in range(chosen.seeds)]
    areas: dict[str, list[float]] = {}
    for (kind, *_), found in zip(asked, side_by_side(membership, asked), strict=True):
        for score, values in found.items():
            areas.setdefault(f"{kind}, {score}", []).extend(values)
    for score, values in areas.items():
        many = torch.tensor(values, dtype=torch.float64)
        print(f"{score:<34}{float(many.mean()):.3f} ±{float(many.std()):.3f}")
    write_json(
        chosen.json,
        {"sizes": sized, "costs": costs, "accuracy": figures, "runs": runs, "membership": areas},
    )


if __name__ == "__main__":
    main()
