"""Cost of the admission of one answer as the federation grows.

`python -m tests.benchmarks.admission_growth [--quick] [--json OUT.json]`

A history of n sites is made of random networks around an anchor: two of a site, with the figures
and sketches that the screening takes of them. Then new sites are screened and admitted one by one,
as a round does it (judged, looked up, its part made, remembered). ``answer`` is the median of one
thread's milliseconds of CPU for that; ``index`` the part of it that depends on the history, with
the features of the answer known; ``growth`` is the ratio to half the sites. ``bound`` is what the
features and outputs of one submission cost by themselves, without any history. In the last two
columns every network has a near one, another of the same site's or of another site: then the
least distance that is allowed has to be known. ``memory`` is what the process holds for the
history, a remembered network.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
from torch import Tensor

from f2l_fed.admission import AdmissionConfig, History, Screen, Submission
from f2l_fed.admission.features import SPREAD, extract_features, output_spread
from f2l_fed.admission.history_file import to_bytes
from f2l_fed.admission.site_statistics import SiteStatistics
from f2l_fed.admission.submission import SubmissionId
from f2l_fed.targets import Target, build_target
from tests.benchmarks.common import memory_mib, write_json

NETWORKS = 2
ANSWERS = 48
SIZES = (1_250, 2_500, 5_000, 10_000, 20_000, 40_000)
RANK = 24


class Fleet:
    """Random sites around one anchor, whose networks have a common part of low rank."""

    def __init__(self, target: Target, near: float) -> None:
        rng = torch.Generator().manual_seed(0)
        size = target.layout.size
        self.target, self.near = target, near
        self.anchor = torch.randn(size, generator=rng) / 100
        self.base = torch.randn(RANK, size, generator=rng) / size**0.5
        self.noise = 1 / size**0.5

    def updates(self, sites: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """(sites, 2, D) probes and updates."""
        size = len(self.anchor)
        common = torch.randn(sites, 1, RANK, generator=rng) / RANK**0.5 @ self.base
        common = common + self.base[0]
        probes = common + self.noise / 2 * torch.randn(sites, NETWORKS, size, generator=rng)
        noise = self.noise * torch.randn(sites, NETWORKS, size, generator=rng)
        if self.near:
            return probes, self.base[0] + self.near * noise
        return probes, common + noise

    def submission(self, number: int) -> Submission:
        """Of a site that is in no history."""
        probes, updates = self.updates(1, torch.Generator().manual_seed(1_000_000 + number))
        return Submission(
            site=f"new-{number:06d}",
            round=1,
            parent="",
            weights=self.anchor + updates[0],
            starts=self.anchor.expand(NETWORKS, -1),
            probes=probes[0],
            numbers={"examples": 40.0, "steps": 30.0, "loss_before": 1.4, "loss_after": 0.4},
            steps=30,
        )


def history_of(sites: int, fleet: Fleet, screen: Screen) -> History:
    """The history after so many sites' first answers."""
    ids: list[SubmissionId] = []
    signatures, directions, values, names = [], [], [], ()
    rng, chunk = torch.Generator().manual_seed(1), 500
    spread = float(extract_spread(fleet, screen))
    for start in range(0, sites, chunk):
        probes, updates = fleet.updates(min(chunk, sites - start), rng)
        weights = fleet.anchor + updates
        signatures.append(screen.sketch.signature(weights.flatten(0, 1)))
        sketches = screen.sketch.count_sketch(updates.flatten(0, 1))
        directions.append(sketches / sketches.norm(dim=1, keepdim=True))
        for number in range(len(updates)):
            ids += [SubmissionId(f"site-{start + number:06d}", 1, "")] * NETWORKS
            one = Submission(
                site=ids[-1].site,
                round=1,
                parent="",
                weights=weights[number],
                starts=fleet.anchor.expand(NETWORKS, -1),
                probes=probes[number],
                numbers={},
                steps=30,
            )
            found = {
                **extract_features(one, screen.sketch).values,
                SPREAD: torch.tensor([spread]).double(),
            }
            names = tuple(found)
            each = [torch.stack([v.quantile(0.5), *v.aminmax()]) for v in found.values()]
            values.append(torch.stack(each))
    statistics = SiteStatistics(
        names=names,
        sites=tuple(one.site for one in ids[::NETWORKS]),
        parents=("",) * sites,
        values=torch.stack(values),
    )
    return History(
        statistics={"first": statistics},
        signature_ids=tuple(ids),
        signatures=torch.cat(signatures),
        direction_ids=tuple(ids),
        directions=torch.cat(directions),
    )


def extract_spread(fleet: Fleet, screen: Screen) -> Tensor:
    """The usual spread of outputs."""
    with torch.no_grad():
        logits = screen.logits(fleet.submission(0).weights[0], screen.inputs)
    return output_spread(logits[None])[0].log()


def milliseconds(some: Callable[[int], object], count: int) -> float:
    """Median over calls of one thread's CPU."""
    spent = []
    for number in range(count):
        start = process_time()
        some(number)
        spent.append(process_time() - start)
    return 1e3 * median(spent)


def measured(sites: int, name: str, near: float) -> dict[str, Any]:
    """The figures of one size."""
    torch.set_num_threads(1)
    target = build_target(name, (1, 8, 8) if name == "mlp" else (1, 28, 28), 5)
    fleet, config = Fleet(target, near), AdmissionConfig()
    screen = Screen.of(target, "growth/0", NETWORKS, config)
    sent = [fleet.submission(number) for number in range(2 * ANSWERS)]
    alone = milliseconds(lambda number: screen.judge(sent[number], History()), ANSWERS)
    before = memory_mib("VmRSS")
    history = history_of(sites, fleet, screen)
    codes = set[str]()

    def answer(number: int) -> None:
        one = sent[number]
        history.networks_of(one.id)
        judged = screen.judge(one, history)
        codes.update(finding.code for finding in judged.verdict.findings)
        if judged.verdict.admitted:
            to_bytes(judged.part)
            judged.remember(history)

    warm = milliseconds(answer, 8)
    spent = milliseconds(lambda number: answer(8 + number), ANSWERS)
    memory = (memory_mib("VmRSS") - before) * 2**20 / (NETWORKS * sites)
    return {
        "sites": sites,
        "parameters": target.layout.size,
        "first": warm,
        "answer": spent,
        "alone": alone,
        "memory": memory,
        "found": sorted(codes),
    }


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run a small version")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args()
    sizes = SIZES[:2] if chosen.quick else SIZES
    found = []
    for case, near in (("apart", 0.0), ("nearly equal", 0.05)):
        last = None
        print(
            f"\nnetworks {case}\n{'networks':>9}{'answer':>10}{'growth':>8}{'alone':>9}{'ratio':>7}"
            f"{'memory':>10}"
        )
        for sites in sizes:
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                row = pool.submit(measured, sites, "mlp", near).result()
            growth = row["answer"] / last if last else float("nan")
            last = row["answer"]
            found.append({"case": case, "growth": growth, **row})
            print(
                f"{NETWORKS * sites:>9}{row['answer']:>7.2f} ms{growth:>8.2f}"
                f"{row['alone']:>6.2f} ms{row['answer'] / row['alone']:>7.1f}"
                f"{row['memory']:>8.0f} B {row['found']}"
            )
    write_json(chosen.json, {"rows": found})


if __name__ == "__main__":
    main()
