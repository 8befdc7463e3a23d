"""Our own method in the personalised benchmark: the product's rounds, in this process without Ray.

A site makes its network from a release in the task of the following round, so the network after
round r is what its folder holds at the end of round r + 1.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from clients.site.model_store import load_model
from clients.site.sent_log import SentLog
from f2l_fed.data import save_npz
from f2l_fed.evaluation.baselines.personalised.accuracy import personalised_accuracy
from f2l_fed.events import ROUND_FINISHED
from server.cluster.personalised import own_examples_of
from server.simulation.setup import Simulation, prepare
from tests.benchmarks.personalised_data import Setting, config_of, divide, drawn, held_out_of
from tests.support.inline import run_inline


def own_rounds(setting: Setting, seed: int) -> dict[str, Any]:
    """The accuracies by round, and the cost, of a federation as `f2l-admin simulate` runs it."""
    divided = divide(setting, seed)
    tests = own_examples_of(divided)
    rounds: dict[str, Any] = {}
    steps: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        examples = Path(folder) / "examples.npz"
        data = drawn(setting, seed)
        save_npz(examples, data.x, data.y, data.groups)
        simulation = Simulation(
            data=(str(examples),),
            scenario=setting.scenario,
            sites=setting.sites,
            held_out=held_out_of(setting),
            rounds=setting.rounds + 1,
            out=Path(folder) / "out",
            config=config_of(divided, seed),
        )
        federation, same = prepare(simulation, force=False)
        if any(
            (one.y_test != other.y_test).any()
            for one, other in zip(same.sites, divided.sites, strict=True)
        ):
            raise SystemExit("the federation has other examples than the baselines")
        folders = [federation.root / "sites" / site.name / "state" for site in divided.sites]

        def listen(event: str, fields: dict[str, Any]) -> None:
            number = fields.get("round", 0) - 1
            if event == ROUND_FINISHED and number in setting.measured:
                models = [load_model(one) for one in folders]
                networks = torch.stack([model.weights for model in models if model is not None])
                found = personalised_accuracy(federation.network, networks, tests)
                rounds[str(number)] = asdict(found)
                steps.append(fmean(model.facts.steps for model in models if model is not None))

        began = time.process_time()
        states = run_inline(federation, simulation.rounds, listener=listen)
        spent = time.process_time() - began
        if any(state.step != "done" for state in states):
            raise SystemExit(f"a round failed: {states[-1].reason}")
        messages = len(divided.sites) * len(states)
        cost = {
            "bytes_up": sum(state.bytes_up for state in states) / messages,
            "bytes_down": sum(state.bytes_down for state in states) / messages,
            "steps": fmean(all_steps(one, states[-1].number) for one in folders) - steps[-1],
            "own_steps": steps[-1],
            "cpu_seconds": round(spent, 2),
        }
    return {"rounds": rounds, "cost": cost}


def all_steps(state: Path, number: int) -> int:
    """Gradient steps of all that a site has sent in a round, by its own record."""
    entries = SentLog.in_folder(state).entries()
    return sum(one["work"]["steps"] for one in entries if one["round"] == number and "work" in one)
