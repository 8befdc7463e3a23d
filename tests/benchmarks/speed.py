"""Cost of sampling and of retraining, as ratios within one run.

`python -m tests.benchmarks.speed [--quick] [--seeds N] [--json OUT.json]`

**Sampling**: 100 networks of 784-32-32-10 (26,506 parameters) from 128 latents, against the bare
product (100 x 128)(128 x 26,506) that decodes them, and against what the published sampler costs
(`tests.benchmarks.published`). ``field + decode`` goes from latents to networks, ``one site`` is
`Generator.sample` with 100 draws for one site, ``100 sites`` one draw for each: there the
predictions have to be encoded first, which is a second product of the same size. Everything is run
in turn, round after round; a ratio is the median over the rounds.

**Retraining**: 500 records (125 sites, 4 episodes each) of the same network, low-rank with noise,
and dependent on their contexts in part. ``cold`` is `fit_generator` as after a lineage's first
rounds, ``warm`` the same with ``before``.

**A site's round**: what a site of the demo computes for a task after the first release, on the body
of cnn-xs (250 images of 5 classes): its eight pairs of heads, against the same heads one by one;
30 episodic steps, against torch's forward and backward passes alone on as many images; its own
network, a head and 15 pulled steps. And the prior on the heads of 100 sites, with the filter before
it, against a filter that does not hand its last fit on.

Times are of one thread, and CPU time, so that other work on the machine counts for little.

**Quality**: one draw at the held-out sites of a federation of 20 sites after three rounds, no local
step and no choice, with the same noise for 1, 4 and 16 evaluations. Means over sites and seeds
with Student's 95% intervals.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from f2l_fed.codec import CODECS
from f2l_fed.codec.config import CodecConfig
from f2l_fed.config import FederationConfig, load_config
from f2l_fed.core.random_streams import generator_for
from f2l_fed.evaluation.summary import half_width
from f2l_fed.flow import draw, fit_flow, guided, pooled_rms, solve
from f2l_fed.generator.config import GeneratorConfig, SampleConfig
from f2l_fed.generator.fit import fit_generator
from f2l_fed.generator.generator import Generator
from f2l_fed.generator.residual_filter import filter_sites
from f2l_fed.local_training.adapted_network import adapted_head, adapted_network, head_pairs
from f2l_fed.local_training.episodic import train_body
from f2l_fed.local_training.finetune import loss_and_accuracy
from f2l_fed.local_training.logistic_head import logistic_head
from f2l_fed.local_training.probe import support_set
from f2l_fed.local_training.turns import fixed_turns, turned
from f2l_fed.prior.linear_prior import Expectation, fit_prior
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets import Target
from server.simulation.setup import Simulation, held_out_sites, prepare
from tests.benchmarks.common import SEPARATE, SEPARATE_SPLIT, options, write_json
from tests.benchmarks.federated import promoted
from tests.benchmarks.published import COMPONENTS, STEPS, PublishedField, runge_kutta_step
from tests.support.inline import run_inline

DRAWS = 100
EPISODES = 4
EVALUATIONS = {
    1: SampleConfig(solver="euler", evaluations=1),
    4: SampleConfig(evaluations=4),
    16: SampleConfig(evaluations=16),
}
LATENTS = {
    "shared labels": (False, CodecConfig(common=128)),
    "own labels": (True, CodecConfig()),
}
"""Whether labels are exchangeable, and the codec: 128 latents, and the default with its
64 + 10 x 32."""


def perceptron() -> nn.Module:
    """784-32-32-10, the network of the published figures."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def records(sites: int, size: int) -> tuple[Tensor, Tensor]:
    """(sites, EPISODES, size) contexts, and weights of which they tell a part."""
    draws = generator_for("speed", sites)
    task = torch.randn(sites, 1, 32, generator=draws) + 0.3 * torch.randn(
        sites, EPISODES, 32, generator=draws
    )

    def spread(factors: Tensor) -> Tensor:
        noise = torch.randn(sites, EPISODES, size, generator=draws)
        return 0.01 * (factors @ torch.randn(32, size, generator=draws)) + 0.01 * noise

    return spread(task), spread(task + 0.7 * (task.square() - 1))


def seconds(job: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    job()
    return time.process_time() - start


def in_turn(jobs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every job in every round, after one round that does not count."""
    found = [{name: seconds(job) for name, job in jobs.items()} for _ in range(1 + rounds)][1:]
    return {name: [round[name] for round in found] for name in jobs}


def retraining(kind: str, sites: int, rounds: int) -> tuple[Generator, dict[str, float]]:
    """A generator, and the median seconds of fitting it and its parts."""
    symmetric, codec = LATENTS[kind]
    target = Target.of("perceptron", perceptron, (1, 28, 28), 10)
    symmetry, size = OutputSymmetry.of(target, enabled=symmetric), target.layout.size
    config, anchor = GeneratorConfig(codec=codec), torch.zeros(size)
    contexts, weights = records(sites, size)
    rng = generator_for("speed", kind)
    fit = partial(fit_generator, contexts, weights, target, symmetry, config, rng, anchor=anchor)
    first = fit()
    before = Expectation(prior=first.generator.prior, expected=first.held_out)
    coded = partial(
        CODECS[codec.kind].fit,
        weights.flatten(0, 1),
        symmetry,
        target,
        rng,
        common=codec.common,
        rows=codec.rows,
    )
    coder = first.generator.codec
    ends, centres = (coder.encode(some.flatten(0, 1)) for some in (weights, first.held_out))
    flow = partial(
        fit_flow,
        ends,
        centres,
        pooled_rms(ends - centres, coder.shape),
        coder.shape,
        replace(config.flow, patience=config.flow.steps),
        rng,
        group=EPISODES,
    )
    jobs = {
        "prior": partial(fit_prior, contexts, weights, symmetry, anchor),
        "codec": coded,
        "flow, all its steps": flow,
        "cold": fit,
        "warm": partial(fit, before=before),
    }
    found = {name: median(seconds(job) for _ in range(rounds)) for name, job in jobs.items()}
    return first.generator, found


def site_round(data: str, repeats: int) -> dict[str, list[float]]:
    """Seconds of the parts of a site's round, and of what they are compared with, by name."""
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(
            data=tuple(data.split(",")),
            scenario="few-shot",
            sites=4,
            held_out=2,
            rounds=1,
            out=Path(folder) / "out",
            config=load_config(None, (*SEPARATE, "target.name=auto", "target.adapt=head")),
        )
        federation, divided = prepare(simulation, force=False)
        run_inline(federation, 1)
        weights = federation.next_anchor(federation.releases.promoted())
    config, body, site = federation.config, federation.body, divided.sites[0]
    assert body is not None
    x, y = torch.from_numpy(site.x_train), torch.from_numpy(site.y_train)
    episodes, head = config.episodes, config.head
    recipe, chance = config.recipe("00001"), partial(generator_for, "speed")

    @torch.no_grad()
    def one_by_one() -> None:
        solved = partial(logistic_head, classes=body.network.classes)
        for pair, turn in enumerate(fixed_turns(body.network.input_shape, True, True)):
            features = body.features(weights, turned(x, *turn))
            solved(features, y, strength=head.target)
            few = support_set(y, config.probe.shots, chance(pair))
            solved(features[few], y[few], strength=head.context / len(few))

    def passes() -> None:
        theta = weights.clone().requires_grad_()
        images = x[: body.network.classes * (episodes.support + episodes.query)]
        for _ in range(episodes.steps):
            torch.autograd.grad(body.training_features(theta, images).sum(), theta)

    def own_network() -> None:
        generated = adapted_head(body, weights, None, x, y, head)
        start = adapted_head(body, weights, generated, x, y, head)
        adapted_network(body, weights, start, x, y, head, recipe, chance())

    anchor = torch.zeros(body.head.layout.size)
    few = torch.randn(100, head.pairs, len(anchor), generator=chance())
    whole = 2 * few + 0.2 * torch.randn(few.shape, generator=chance("noise"))
    symmetry = OutputSymmetry.of(body.head, enabled=True)
    jobs: dict[str, Callable[[], object]] = {
        "heads": partial(
            head_pairs, body, weights, x, y, head, episodes, config.probe.shots, chance
        ),
        "heads, one by one": one_by_one,
        "episodes": lambda: train_body(body, weights, x, y, episodes, episodes.steps, chance()),
        "episodes, torch's passes": passes,
        "own network": own_network,
        "prior": lambda: filter_sites(few, whole, symmetry).fit,
        "prior, fitted again": lambda: (
            filter_sites(few, whole, symmetry),
            fit_prior(few, whole, symmetry, anchor),
        ),
    }
    return in_turn(jobs, repeats)


def print_site_round(times: Mapping[str, list[float]]) -> dict[str, Any]:
    """The table of a site's round, and its figures."""
    figures = {}
    print(f"\n{'a round':<36}{'ms':>10}{'of the row above':>20}")
    for name, values in times.items():
        above = times.get(name.partition(",")[0]) if "," in name else None
        ratio = median(a / b for a, b in zip(values, above, strict=True)) if above else float("nan")
        figures[name] = {"median_ms": 1e3 * median(values), "of_row_above": ratio}
        shown = f"{ratio:.2f}" if above else ""
        print(f"{name:<36}{1e3 * median(values):>10.1f}{shown:>20}")
    return figures


@torch.no_grad()
def generate(generator: Generator, context: Tensor, rng: torch.Generator, config: SampleConfig):
    """Generates networks from the latents of predictions."""
    codec = generator.codec
    start = draw("prior", context, generator.spread, codec.shape, rng)
    velocity = guided(generator.velocity, context)
    return codec.decode(
        solve(velocity, start, solver=config.solver, evaluations=config.evaluations)
    )


def sampling(generators: Mapping[str, Generator], rounds: int) -> dict[str, list[float]]:
    """Seconds of everything that is compared, by name."""
    rng = generator_for("speed", "sampling")
    plain = generators["shared labels"]
    size = len(plain.mean)
    factor, basis = torch.randn(DRAWS, 128, generator=rng), torch.randn(128, size, generator=rng)
    jobs: dict[str, Callable[[], object]] = {"bare product": lambda: factor @ basis}
    for kind, generator in generators.items():
        contexts, _ = records(DRAWS // EPISODES, size)
        contexts = contexts.flatten(0, 1)
        expected = generator.expect(contexts)
        latents = generator.codec.encode(expected)
        for count, config in EVALUATIONS.items():
            jobs[f"{kind}: field + decode, {count}"] = partial(
                generate, generator, latents, rng, config
            )
        for count, config in EVALUATIONS.items():
            jobs[f"{kind}: one site, {count}"] = partial(
                generator.sample, expected[:1].expand(DRAWS, -1), rng, config
            )
        jobs[f"{kind}: 100 sites, 4"] = partial(generator.sample, expected, rng)
    found = in_turn(jobs, rounds)
    for name, width in (("weight space", size), (f"PCA-{COMPONENTS}", COMPONENTS)):
        step = partial(runge_kutta_step, PublishedField(width), torch.zeros(DRAWS, width))
        steps = in_turn({"step": step}, max(3, rounds // 4))["step"]
        found[f"published, {name}"] = [STEPS * value for value in steps]
    return found


def quality(seed: int, sites: int, held_out: int, draws: int, data: str) -> dict[int, list[float]]:
    """Mean accuracy of one draw at every held-out site, by number of evaluations."""
    with tempfile.TemporaryDirectory() as folder:
        simulation = Simulation(
            data=tuple(data.split(",")),
            scenario="few-shot",
            sites=sites,
            held_out=held_out,
            rounds=3,
            out=Path(folder) / "out",
            config=replace(FederationConfig(), seed=seed, split=SEPARATE_SPLIT),
        )
        federation, divided = prepare(simulation, force=False)
        run_inline(federation, simulation.rounds)
        release = promoted(federation)
    target, generator = release.target, release.generator
    found: dict[int, list[float]] = {count: [] for count in EVALUATIONS}
    for site in [site for part in held_out_sites(divided).values() for site in part or ()]:
        context = release.context(site)
        expected = generator.expect(context[None]).expand(draws, -1)
        for count, sample in EVALUATIONS.items():
            rng = generator_for(release.lineage, site.name, "speed")
            networks = generator.sample(expected, rng, sample)
            hits = [loss_and_accuracy(target, network, *site.test)[1] for network in networks]
            found[count].append(sum(hits) / draws)
    return found


def print_sampling(times: Mapping[str, list[float]]) -> dict[str, Any]:
    """The table of sampling, and its figures."""
    product = times["bare product"]
    ours = median(times["shared labels: one site, 4"])
    print(f"\n{'100 networks':<36}{'ms':>10}{'of product':>12}{'quartiles':>16}{'of ours':>10}")
    figures = {}
    for name, values in times.items():
        # The published sampler is not timed in turn with the product.
        own = product if len(values) == len(product) else [median(product)] * len(values)
        ratios = torch.tensor(values) / torch.tensor(own)
        low, middle, high = ratios.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
        figures[name] = {
            "median_ms": 1e3 * median(values),
            "of_product": middle,
            "of_product_quartiles": [low, high],
            "of_ours": median(values) / ours,
        }
        print(
            f"{name:<36}{1e3 * median(values):>10.1f}{middle:>12.2f}"
            f"{f'{low:.2f} … {high:.2f}':>16}{median(values) / ours:>10.1f}"
        )
    return figures


def print_quality(found: Mapping[int, list[float]]) -> dict[str, Any]:
    """The table of quality, and its figures."""
    last = torch.tensor(found[max(found)], dtype=torch.float64)
    print(f"\n{'evaluations':<16}{'accuracy':>12}{'above 16':>20}")
    figures = {}
    for count, values in found.items():
        gain = torch.tensor(values, dtype=torch.float64) - last
        mean, above, error = sum(values) / len(values), float(gain.mean()), float(half_width(gain))
        figures[str(count)] = {"accuracy": mean, "above_16": above, "ci95": error}
        print(f"{count:<16}{100 * mean:>11.2f}%{f'{100 * above:+.2f} ±{100 * error:.2f}':>20}")
    return figures


def main() -> None:
    """Runs the parts and prints a table of each."""
    chosen = options(__doc__ or "")
    torch.set_num_threads(1)
    sites, repeats, rounds = (15, 1, 5) if chosen.quick else (125, 3, 40)
    generators, fits = {}, {}
    for kind in LATENTS:
        generators[kind], fits[kind] = retraining(kind, sites, repeats)
    print(f"{f'{EPISODES * sites} records, seconds':<28}" + "".join(f"{kind:>16}" for kind in fits))
    for name in fits["own labels"]:
        print(f"{name:<28}" + "".join(f"{found[name]:>16.2f}" for found in fits.values()))
    site = print_site_round(site_round(chosen.data, rounds))
    figures = {
        "retraining_s": fits,
        "site_round": site,
        "sampling": print_sampling(sampling(generators, rounds)),
    }
    shape = (20, 3, 8) if chosen.quick else (20, 30, 32)
    seeds = 1 if chosen.quick else chosen.seeds
    parts = [quality(seed, *shape, chosen.data) for seed in range(seeds)]
    pooled = {count: [v for part in parts for v in part[count]] for count in EVALUATIONS}
    write_json(chosen.json, {**figures, "quality": print_quality(pooled)})


if __name__ == "__main__":
    main()
