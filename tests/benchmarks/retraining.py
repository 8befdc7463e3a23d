"""Cost of the parts of a retraining, and the value of a warm start from the one before.

`python -m tests.benchmarks.retraining [--quick] [--seeds N] [--json OUT.json] [--recorded DIR]`

First, seconds of CPU on one thread for prior, codec, latents and flow, on random records of rank
100 with noise. The codec is fitted twice: its round trip is measured on records that it never saw.

Then rounds 2 to 4 of real federations, recorded as for `tests.benchmarks.admission`. ``explained``
is the share of the variance of networks that neither codec was fitted on: by a codec fitted on the
others of the round, and by the one of the round before. ``cold`` and ``warm`` are the flow's error
on sites kept aside, in the latents of the round before, relative to the field that moves normal
targets exactly, which is where a cold fit begins; a warm one begins with the field of the round
before (``begins``). Both draw the same examples. ``at`` is the best gradient step.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from f2l_fed.aggregate import aggregate
from f2l_fed.codec import CODECS, Codec, unseen_copies
from f2l_fed.flow import FlowFit, VelocityField, fit_flow, flow_matching, pooled_rms
from f2l_fed.flow.velocity_regression import seeded
from f2l_fed.generator.config import GeneratorConfig
from f2l_fed.local_training.probe import anchor, recentred
from f2l_fed.prior.linear_prior import fit_prior
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target, build_target
from tests.benchmarks.admission import record, recordings, target_of
from tests.benchmarks.common import side_by_side, write_json
from tests.support.recorded import load

CONFIG = GeneratorConfig()
SIZES = ((200, "mlp"), (1_000, "mlp"), (10_000, "mlp"), (200, "resnet20"))
RANK = 100
ANCHORS = 3


def fitted_codec(weights: Tensor, target: Target, symmetry: OutputSymmetry) -> Codec:
    """As a retraining fits it."""
    size = {"common": CONFIG.codec.common, "rows": CONFIG.codec.rows}
    rng = torch.Generator().manual_seed(1)
    return CODECS[CONFIG.codec.kind].fit(weights, symmetry, target, rng, **size)


def fitted_flow(codec: Codec, weights: Tensor, expected: Tensor, group: int) -> FlowFit:
    """As a retraining fits it; equal arguments draw equal examples."""
    targets, centres = codec.encode(weights), codec.encode(expected)
    spread, rng = pooled_rms(targets - centres, codec.shape), torch.Generator().manual_seed(2)
    return fit_flow(targets, centres, spread, codec.shape, CONFIG.flow, rng, group=group)


def parts(records: int, name: str) -> dict[str, Any]:
    """Seconds of CPU for each part of a retraining."""
    target = build_target(name, (1, 8, 8) if name == "mlp" else (1, 28, 28), 5)
    symmetry, size = OutputSymmetry.of(target, enabled=True), target.layout.size
    rng = torch.Generator().manual_seed(0)
    base = torch.randn(RANK, size, generator=rng)
    contexts = torch.randn(records, RANK, generator=rng) @ base / 8
    contexts += torch.randn(records, size, generator=rng)
    weights = contexts + torch.randn(records, size, generator=rng) / 2
    at = [process_time()]
    prior = fit_prior(contexts[:, None], weights[:, None], symmetry, torch.zeros(size))
    at.append(process_time())
    codec = fitted_codec(weights, target, symmetry)
    at.append(process_time())
    codec.encode(weights)
    at.append(process_time())
    fitted_flow(codec, weights, prior.held_out[:, 0], 1)
    at.append(process_time())
    spent = [after - before for before, after in pairwise(at)]
    figures = dict(zip(("prior", "codec", "encoding", "flow"), spent, strict=True))
    figures["codec"] *= 2
    return {"records": records, "parameters": size, **figures}


def beginning_with(field: VelocityField) -> Callable[..., VelocityField]:
    """A substitute for `seeded` that starts from a field, with the same random draws."""

    def build(rng: torch.Generator, make: Callable[[], VelocityField]) -> VelocityField:
        made = seeded(rng, make)
        made.load_state_dict(field.state_dict())
        return made

    return build


def explained(codec: Codec, weights: Tensor) -> float:
    """Share of the variance that is left after encoding and decoding."""
    return share(codec.decode(codec.encode(weights)), weights)


def share(copies: Tensor, weights: Tensor) -> float:
    """1 minus what copies miss, relative to the variance."""
    lost = (copies - weights).square().sum() / (weights - weights.mean(0)).square().sum()
    return 1 - float(lost)


def inherited(path: Path) -> list[dict[str, float]]:
    """The value of the previous round's codec and field, for each round after the first."""
    target = target_of(path)
    symmetry = OutputSymmetry.of(target, enabled=True)
    found, before, start = [], None, anchor(target, path.stem)
    for number, submissions in enumerate(load(path), 1):
        contexts = torch.stack([one.probes for one in submissions])
        # In a first round all episodes of a site share its network.
        weights = torch.stack([one.weights for one in submissions]).expand_as(contexts)
        group = contexts.shape[1]
        expected = fit_prior(contexts, weights, symmetry, start).held_out.flatten(0, 1)
        weights = weights.flatten(0, 1)

        def fit_codec(some: Tensor) -> Codec:
            return fitted_codec(some, target, symmetry)

        if before is not None:
            codec, field = before
            unseen, copies = unseen_copies(fit_codec, weights, group=group)
            cold = fitted_flow(codec, weights, expected, group)
            with patch.object(flow_matching, "seeded", beginning_with(field)):
                warm = fitted_flow(codec, weights, expected, group)
            found.append(
                {
                    "round": number,
                    "explained_again": share(copies, unseen),
                    "explained_before": explained(codec, unseen),
                    "cold": cold.loss / cold.normal_loss,
                    "cold_step": cold.step,
                    "begins": warm.normal_loss / cold.normal_loss,
                    "warm": warm.loss / cold.normal_loss,
                    "warm_step": warm.step,
                }
            )
        codec = fit_codec(weights)
        before = codec, fitted_flow(codec, weights, expected, group).field
        if number < ANCHORS:
            start = recentred(target, aggregate("mean", weights, torch.ones(len(weights))))
    return found


def main() -> None:
    """Both parts."""
    chosen, jobs = recordings(__doc__ or "")
    sizes = side_by_side(parts, SIZES[:1] if chosen.quick else SIZES)
    names = ("prior", "codec", "encoding", "flow")
    print(f"{'records':>8}{'parameters':>12}" + "".join(f"{name:>11}" for name in names))
    for row in sizes:
        cells = "".join(f"{row[name]:>9.3f} s" for name in names)
        print(f"{row['records']:>8,}{row['parameters']:>12,}{cells}")
    paths = side_by_side(record, jobs)
    runs = side_by_side(inherited, [(path,) for path in paths])
    print("\n                    explained          cold        warm")
    print("scenario  seed round  again  before   best   at  begins   best   at")
    for (scenario, seed, *_), found in zip(jobs, runs, strict=True):
        for row in found:
            print(
                f"{scenario:<10}{seed:>4}{row['round']:>6}{row['explained_again']:>7.3f}"
                f"{row['explained_before']:>8.3f}{row['cold']:>7.3f}{row['cold_step']:>5}"
                f"{row['begins']:>8.3f}{row['warm']:>7.3f}{row['warm_step']:>5}"
            )
    inheritance = [
        {"scenario": scenario, "seed": seed, "rounds": found}
        for (scenario, seed, *_), found in zip(jobs, runs, strict=True)
    ]
    write_json(chosen.json, {"sizes": sizes, "inherited": inheritance})


if __name__ == "__main__":
    main()
