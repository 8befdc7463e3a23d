"""The store of a site's network, the latest fine-tuned on its examples, and of its start.

::

    model.safetensors   the parameters under their names, and as metadata what model.json says
    model.json          the same facts, for reading
    start.safetensors   the start that the site had in its latest task or request, and its recipe
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from clients.site.model_facts import METADATA, WEIGHTS, ModelFacts, damaged
from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.core.durable_files import write_atomically
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets import build_target
from f2l_fed.targets.backbone import InstalledBackbone
from f2l_fed.targets.layout import WeightLayout

FACTS = "model.json"
START = "start.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A fine-tuned network: (D,) float32 weights in a layout, and its description."""

    weights: Tensor
    layout: WeightLayout
    facts: ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStart:
    """The start of a fine-tuned network.

    Args:
        model: The start itself, after 0 steps.
        recipe: The fine-tuning that the task asked for.
        pull: Strength of the steps' pull to their start, divided by the number of examples.
        temperature: Divisor of the network's logits, which the start does not have.
        own_classes: Whether its outputs are the classes that the site has, numbered from 0.
        falling: Whether the learning rate falls to zero.
    """

    model: Model
    recipe: Recipe
    pull: float = 0.0
    temperature: float = 1.0
    own_classes: bool = False
    falling: bool = False


def save_model(folder: Path, model: Model, start: ModelStart | None = None) -> None:
    """Replaces the network in a folder, and where one is given its start.

    A crash leaves the old or the new one of each.
    """
    files = {WEIGHTS: _packed(model, {}), FACTS: model.facts.text.encode()}
    if start is not None:
        more = {
            "pull": start.pull,
            "temperature": start.temperature,
            "own_classes": start.own_classes,
            "falling": start.falling,
        }
        steps = {"recipe": json.dumps({**asdict(start.recipe), **more})}
        files[START] = _packed(start.model, steps)
    # A disk makes several files durable in little more than the time of one.
    with ThreadPoolExecutor(len(files)) as pool:
        for done in [
            pool.submit(write_atomically, folder / name, packed, mode=0o600)
            for name, packed in files.items()
        ]:
            done.result()


def load_model(folder: Path) -> Model | None:
    """Reads the network in a folder; None where none has been made yet.

    Raises:
        DataError: If it is damaged.
    """
    path = folder / WEIGHTS
    return _read(path)[0] if path.exists() else None


def load_start(folder: Path) -> ModelStart | None:
    """Reads the start in a folder; None where none has arrived yet.

    Raises:
        DataError: If it is damaged.
    """
    path = folder / START
    if not path.exists():
        return None
    model, recipe = _read(path, "recipe")
    pull, temperature = recipe.pop("pull", 0.0), recipe.pop("temperature", 1.0)
    own_classes = recipe.pop("own_classes", False)
    falling = recipe.pop("falling", False)
    return ModelStart(
        model=model,
        recipe=from_mapping(Recipe, recipe, where=str(path)),
        pull=float(pull),
        temperature=float(temperature),
        own_classes=bool(own_classes),
        falling=bool(falling),
    )


def whole_module(
    model: Model, backbone: InstalledBackbone | None, *, preprocessed: bool = False
) -> nn.Module:
    """A network that takes the data's inputs, behind its frozen part where it has one.

    Args:
        model: The network.
        backbone: The frozen part; None without one.
        preprocessed: Whether it takes what the backbone's preprocessing makes of inputs instead,
            such as tokens of texts.
    """
    facts = model.facts
    frozen = None if backbone is None else backbone.installed
    target = build_target(facts.target, facts.input_shape, facts.classes, frozen)
    module = target.module(model.weights)
    if backbone is None:
        return module
    front = backbone.front()
    return nn.Sequential(front.after_preprocessing() if preprocessed else front, module).eval()


def _packed(model: Model, more: dict[str, str]) -> bytes:
    tensors = model.layout.unflatten(model.weights)
    return save(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        {METADATA: model.facts.text, **more},
    )


def _read(path: Path, key: str = "") -> tuple[Model, dict[str, Any]]:
    """The network in a file, and the part of its metadata under one more key."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values: dict[str, Any] = json.loads(metadata[METADATA])
        further: dict[str, Any] = json.loads(metadata[key]) if key else {}
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise damaged(path, error) from error
    facts = from_mapping(ModelFacts, values, where=str(path))
    layout = build_target(facts.target, facts.input_shape, facts.classes, facts.frozen).layout
    return Model(weights=layout.flatten(tensors), layout=layout, facts=facts), further
