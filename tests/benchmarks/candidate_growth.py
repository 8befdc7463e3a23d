"""Cost of the candidates of one site as the federation grows.

`python -m tests.benchmarks.candidate_growth [--quick] [--before FOLDER] [--json OUT.json]`

A release is fitted on a few random records of a small network and then said to be of n records,
half of whose sites ask for candidates as a round asks for them: chunks of sites, four contexts of
each, two draws around every prediction. ``plain`` makes them as a new federation does, ``drawn``
by the flow as well, ``nearest`` also adds the stored network with the nearest context.

Figures are the median milliseconds of one thread's CPU for a site, all but the first chunk, which
reads and prepares the release; ``growth`` is the ratio to half the records. ``bound`` is one
matrix product of a chunk's contexts with those of all records, a site. ``--before`` measures
``nearest`` by an earlier version as well, whose files are in another folder (`git archive`), in the
same run, and ``gain`` is the ratio to it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import torch
from torch import Tensor

SIZES = (1_000, 2_000, 4_000, 8_000, 16_000)
CASES = ("plain", "drawn", "nearest")
EPISODES, CHUNK, CHUNKS = 4, 16, 4
FITTED = 256


def first_of(*names: str) -> Any:
    """The first of some modules that there is: names have changed since the version before."""
    for name in names:
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    raise ModuleNotFoundError(names[0])


def small_release(root: Path) -> tuple[Any, Any]:
    """A federation in an empty folder, and a generator with a flow, fitted on random records."""
    config = first_of("f2l_fed.config")
    folder = first_of("server.federation.folder", "server.federation").Federation
    settings = ("target.name=mlp", "target.input_shape=[1, 8, 8]", "flow.steps=100")
    federation = folder.create(root / "federation", config.load_config(None, settings))
    size, rng = federation.target.layout.size, torch.Generator().manual_seed(0)
    contexts = torch.randn(FITTED, 64, generator=rng) @ torch.randn(64, size, generator=rng) / 8
    weights = contexts / 2 + torch.randn(FITTED, size, generator=rng)
    fit = first_of("f2l_fed.generator.fit", "f2l_fed.generator").fit_generator(
        contexts[:, None],
        weights[:, None],
        federation.target,
        federation.symmetry,
        federation.config.generator,
        rng,
        anchor=torch.zeros(size),
    )
    return federation, fit.generator


def factory_of(federation: Any, generator: Any, records: int, case: str) -> Any:
    """The release as one of so many random records, open to make candidates."""
    size, rng = federation.target.layout.size, torch.Generator().manual_seed(1)
    contexts = torch.randn(records, size, generator=rng)
    sample = generator.config.sample
    evaluations = 0 if case == "plain" else 4
    generator = replace(
        generator,
        config=replace(generator.config, sample=replace(sample, evaluations=evaluations)),
    )
    try:
        kinds = replace(federation.config.candidates, nearest=case == "nearest")
        federation = replace(federation, config=replace(federation.config, candidates=kinds))
    except TypeError:
        # The version before has no such choice.
        pass
    known = first_of("f2l_fed.generator.candidates", "f2l_fed.candidates")
    opened = first_of("server.generator.candidates", "server.offers")
    opening = {
        "federation": federation,
        "id": "00001",
        "generator": generator,
        "sites": tuple(f"site-{number:06d}" for number in range(records // EPISODES)),
        "expected": contexts.view(-1, EPISODES, size),
        "erased": {},
    }
    if hasattr(opened, "Workshop"):
        stored = known.Records(contexts=contexts, weights=contexts)
        return opened.Workshop(records=stored, **opening)
    stored = known.FittedRecords(contexts=contexts, weights=contexts)
    search = first_of("f2l_fed.generator.nearest_records").NearestRecords.of(stored)
    return opened.CandidateFactory(
        maker=generator, nearest=search if case == "nearest" else None, **opening
    )


def chunks(factory: Any) -> Iterator[tuple[list[str], Tensor]]:
    """Names of sites and their contexts, half of them known to the release."""
    rng = torch.Generator().manual_seed(2)
    size = factory.expected.shape[2]
    for number in range(CHUNKS + 1):
        known = [f"site-{number * CHUNK + index:06d}" for index in range(CHUNK // 2)]
        new = [f"new-{number * CHUNK + index:06d}" for index in range(CHUNK // 2)]
        yield known + new, torch.randn(CHUNK, EPISODES, size, generator=rng)


def measured(records: int, case: str) -> float:
    """Milliseconds for a site in this process's version."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        factory = factory_of(*small_release(Path(folder)), records, case)
        make = getattr(factory, "candidates", None) or factory.offers
        spent = []
        for sites, probes in chunks(factory):
            start = process_time()
            made = dict(make(sites, probes))
            spent.append((process_time() - start) / CHUNK)
            assert all("nearest" in kinds or case != "nearest" for kinds in made[sites[0]])
    return 1e3 * median(spent[1:])


def bound(records: int, size: int) -> float:
    """Milliseconds for a site of one matrix product of a chunk's contexts and all records."""
    torch.set_num_threads(1)
    stored, asked = torch.randn(records, size), torch.randn(CHUNK * EPISODES, size)
    spent = []
    for _ in range(5):
        start = process_time()
        torch.mm(stored, asked.T)
        spent.append((process_time() - start) / CHUNK)
    return 1e3 * median(spent[1:])


def in_folder(folder: Path, records: int, case: str) -> float:
    """`measured` in a process of its own, by the version whose files are in a folder."""
    script = f"import runpy; print(runpy.run_path({__file__!r})['measured']({records}, {case!r}))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(done.stdout.split()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="run a small version")
    parser.add_argument("--before", type=Path, help="folder with the files of an earlier version")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    chosen = parser.parse_args(arguments)
    here, rows = Path(__file__).parents[2], list[dict[str, float]]()
    names = [*CASES, "bound", *(["before", "gain"] if chosen.before else [])]
    print(f"{'records':>8}" + "".join(f"{name:>10}{'growth':>8}" for name in names[:3]), *names[3:])
    for records in SIZES[:2] if chosen.quick else SIZES:
        row = {case: in_folder(here, records, case) for case in CASES}
        row = {"records": records, **row, "bound": bound(records, 2_245)}
        if chosen.before:
            row["before"] = in_folder(chosen.before, records, "nearest")
            row["gain"] = row["before"] / row["nearest"]
        last = rows[-1] if rows else row
        print(
            f"{records:>8}"
            + "".join(f"{row[case]:>7.2f} ms{row[case] / last[case]:>8.2f}" for case in CASES)
            + "".join(f"{row[name]:>9.2f}" for name in names[3:]),
            flush=True,
        )
        rows.append(row)
    if chosen.json:
        chosen.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
