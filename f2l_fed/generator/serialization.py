"""A generator as one safetensors file: named tensors, and its configuration as metadata."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from f2l_fed.codec import CODECS
from f2l_fed.codec.tensor_names import with_prefix, without_prefix
from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.errors import ConfigError, ReleaseError
from f2l_fed.flow import VelocityField
from f2l_fed.generator.config import GeneratorConfig
from f2l_fed.generator.generator import Bodies, Fleet, Generator
from f2l_fed.matrices.workspace import MATRIX, file_of
from f2l_fed.prior.families import FamilyShares
from f2l_fed.prior.likeness import LikenessGate
from f2l_fed.prior.linear_prior import Prior
from f2l_fed.prior.ridge_map import RidgeMap
from f2l_fed.symmetry.output_permutation import OutputSymmetry

_VERSION, _FLEET_VERSION = 4, 5
"""Of files with one family, and with several, which earlier versions would take for one."""
_GATE = "prior.gate."
_SHARES, _FAMILY = "families.shares.", "family."
_COMMON = ("anchor", "symmetry.")
"""Tensors that all families have in common."""

BODY, NEXT_BODY = "body", "next_body"
"""Names of a generator's bodies among its tensors; absent where sites share nothing."""

_AROUND = "prior.around"


def save_generator(generator: Generator, path: Path) -> None:
    """Writes a generator; the caller makes the file durable."""
    tensors = tensors_of(generator)
    version = _VERSION if generator.fleet is None else _FLEET_VERSION
    about = {"format": version, "config": dataclasses.asdict(generator.config)}
    # One entry only: safetensors writes several in any order, and equal generators would differ.
    metadata = {"f2l": json.dumps(about, sort_keys=True)}
    save_file({name: value.contiguous() for name, value in tensors.items()}, path, metadata)


def tensors_of(generator: Generator) -> dict[str, Tensor]:
    """The tensors of a generator by name; nothing is copied."""
    return {
        **with_prefix("prior.common.", _fields(generator.prior.common)),
        **with_prefix("prior.rows.", _fields(generator.prior.rows)),
        **_gate(generator.prior.gate),
        **with_prefix("codec.", generator.codec.tensors()),
        **with_prefix("velocity.", generator.velocity.state_dict(keep_vars=True)),
        "anchor": generator.prior.anchor,
        "spread": generator.spread,
        "mean": generator.mean,
        "symmetry.hidden": generator.codec.symmetry.hidden,
        "symmetry.output": generator.codec.symmetry.output,
        **_bodies(generator),
        **({} if generator.prior.around is None else {_AROUND: generator.prior.around}),
        **_fleet(generator.fleet),
    }


def _fleet(fleet: Fleet | None) -> dict[str, Tensor]:
    if fleet is None:
        return {}
    found = with_prefix(_SHARES, _fields(fleet.shares.map))
    for number, member in enumerate(fleet.others, start=1):
        own = {k: v for k, v in tensors_of(member).items() if not k.startswith(_COMMON)}
        found |= with_prefix(f"{_FAMILY}{number}.", own)
    return found


def _gate(gate: LikenessGate) -> dict[str, Tensor]:
    return with_prefix(_GATE, _fields(gate)) if len(gate.centroids) else {}


def _bodies(generator: Generator) -> dict[str, Tensor]:
    bodies = generator.bodies
    return {} if bodies is None else {BODY: bodies.own, NEXT_BODY: bodies.next}


def load_generator(path: Path) -> Generator:
    """Reads what `save_generator` wrote.

    Raises:
        ReleaseError: If the file is missing, damaged or of another version.
    """
    about, tensors = _read(path, None)
    try:
        return _assemble(about["config"], tensors)
    except (KeyError, ValueError, RuntimeError, ConfigError) as error:
        raise ReleaseError(
            "the generator is incomplete or damaged",
            where=str(path),
            got=str(error),
            remedy="Roll back.",
        ) from error


def load_part(path: Path, name: str) -> Tensor:
    """Reads one tensor of what `save_generator` wrote, by its name in `tensors_of`.

    Raises:
        ReleaseError: As `load_generator`.
    """
    return _read(path, name)[1][name]


def _read(path: Path, part: str | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("f2l", "{}"))
            names = file.keys() if part is None else [part]
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, ValueError, SafetensorError) as error:
        raise ReleaseError(
            "can't read the generator", where=str(path), got=str(error), remedy="Roll back."
        ) from error
    if about.get("format") not in (_VERSION, _FLEET_VERSION):
        raise ReleaseError(
            "the generator is of an unknown format",
            where=str(path),
            expected=f"{_VERSION} or {_FLEET_VERSION}",
            got=str(about.get("format")),
        )
    return about, tensors


def _assemble(settings: dict[str, Any], tensors: dict[str, Tensor]) -> Generator:
    config = from_mapping(GeneratorConfig, settings, where="config")
    generator = _member(config, tensors)
    if f"{_SHARES}left" not in tensors:
        return generator
    shares = _ridge(_SHARES, tensors)
    common = {name: value for name, value in tensors.items() if name.startswith(_COMMON)}
    others = [
        _member(config, {**common, **without_prefix(f"{_FAMILY}{number}.", tensors)})
        for number in range(1, len(shares.y_mean))
    ]
    symmetry = generator.prior.symmetry
    fleet = Fleet(shares=FamilyShares(symmetry=symmetry, map=shares), others=tuple(others))
    return replace(generator, fleet=fleet)


def _member(config: GeneratorConfig, tensors: dict[str, Tensor]) -> Generator:
    """The generator of one family."""
    hidden, output = tensors["symmetry.hidden"], tensors["symmetry.output"]
    symmetry = OutputSymmetry(hidden, output, len(hidden) + output.numel())
    codec = CODECS[config.codec.kind].from_tensors(symmetry, without_prefix("codec.", tensors))
    field = VelocityField(
        codec.shape,
        tensors["spread"],
        config.flow.source,
        width=config.flow.width,
        depth=config.flow.depth,
    )
    field.load_state_dict(without_prefix("velocity.", tensors))
    gate = without_prefix(_GATE, tensors)
    return Generator(
        prior=Prior(
            symmetry=symmetry,
            anchor=tensors["anchor"],
            common=_ridge("prior.common.", tensors),
            rows=_ridge("prior.rows.", tensors),
            gate=LikenessGate(**gate) if gate else LikenessGate.open(),
            around=tensors.get(_AROUND),
        ),
        codec=codec,
        velocity=field.requires_grad_(False),
        spread=tensors["spread"],
        mean=tensors["mean"],
        config=config,
        bodies=Bodies(own=tensors[BODY], next=tensors[NEXT_BODY]) if BODY in tensors else None,
    )


def save_matrix(rows: Tensor, path: Path) -> None:
    """Writes one (n, D) float32 matrix; one that lies in a file of its own gets a second name."""
    own = file_of(rows)
    if own is None:
        save_file({MATRIX: rows.contiguous()}, path)
        return
    try:
        path.hardlink_to(own)
    except OSError:
        # Of another file system.
        shutil.copyfile(own, path)


def load_matrix(path: Path) -> Tensor:
    """Reads what `save_matrix` wrote.

    Raises:
        ReleaseError: If the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            matrix: Tensor = file.get_tensor(MATRIX)
    except (OSError, ValueError, SafetensorError) as error:
        raise damaged_matrix(path, got=str(error)) from error
    if matrix.dim() != 2:
        raise damaged_matrix(path, got=f"the shape {tuple(matrix.shape)}")
    return matrix


def damaged_matrix(path: Path, *, got: str) -> ReleaseError:
    """The error about a damaged matrix."""
    return ReleaseError(
        "can't read the predictions of the release",
        where=str(path),
        got=got,
        remedy="Restore this file from a backup, or roll back.",
    )


def _fields(value: RidgeMap | LikenessGate) -> dict[str, Tensor]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _ridge(prefix: str, tensors: dict[str, Tensor]) -> RidgeMap:
    return RidgeMap(**{f.name: tensors[prefix + f.name] for f in dataclasses.fields(RidgeMap)})
