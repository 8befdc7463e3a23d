"""A compact generator as one file for sites: safetensors, with JSON as metadata.

::

    task            uint8, the packed task outside of rounds, with anchor or body, and no candidates
    prior.…, mean   the expectation of a network
    codec.…, spread, velocity.…   the draws around it, where networks are drawn

Matrices are stored by rows in the units of each row's largest number (``NAME:scale``), in half
precision or as whole numbers from -127 to 127; everything else as it is. A site builds the network
and its symmetry itself, so that they are not in the file.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from f2l_fed.codec.pca import PcaCodec
from f2l_fed.codec.tensor_names import with_prefix, without_prefix
from f2l_fed.core.config_parsing import from_mapping
from f2l_fed.errors import ConfigError, ReleaseError, WireError
from f2l_fed.flow.velocity_field import VelocityField
from f2l_fed.generator.compact import draws, empty_codec, unused_field
from f2l_fed.generator.config import MOST_SAMPLES, CandidatesConfig, GeneratorConfig
from f2l_fed.generator.generator import Generator
from f2l_fed.generator.generator_shapes import require_shapes
from f2l_fed.prior.likeness import LikenessGate
from f2l_fed.prior.linear_prior import Prior
from f2l_fed.prior.ridge_map import RidgeMap
from f2l_fed.symmetry.output_permutation import OutputSymmetry
from f2l_fed.targets.target import Target
from f2l_fed.wire.messages import Task
from f2l_fed.wire.packing import pack_task, unpack_task
from f2l_fed.wire.serialization import from_bytes, to_bytes

_FORMAT = 1
_SCALE, _TRANSPOSED = ":scale", ".left"
_WHOLE = 127
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFile:
    """A file that was read.

    Args:
        path: The file.
        id: Of the release.
        task: Its task outside of rounds, without candidates.
        candidates: How candidates are made.
        config: The generator's settings.
        tensors: The generator's, as they are stored.
    """

    path: Path
    id: str
    task: Task
    candidates: CandidatesConfig
    config: GeneratorConfig
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> ReleaseFile:
        """Reads a file.

        Raises:
            ReleaseError: If it is missing, damaged or of another version.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about: dict[str, Any] = json.loads((file.metadata() or {})["f2l"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if about["format"] != _FORMAT:
                raise ValueError(f"format {about['format']!r}")
            task = unpack_task(from_bytes(tensors.pop("task").numpy().tobytes()))
            where = path.name
            read = cls(
                path=path,
                id=task.release,
                task=task,
                candidates=from_mapping(CandidatesConfig, about["candidates"], where=where),
                config=from_mapping(GeneratorConfig, about["generator"], where=where),
                tensors=tensors,
            )
        except _DAMAGES as error:
            raise _damaged(path, error) from error
        if task.round or task.candidates or _ID.fullmatch(task.release) is None:
            raise _damaged(path, "another task than one outside of rounds")
        if read.candidates.samples > MOST_SAMPLES:
            raise _damaged(path, f"{read.candidates.samples} draws")
        return read

    def generator(self, target: Target) -> Generator:
        """The generator for a target that was built for the task's frame.

        Raises:
            ReleaseError: If its tensors are not those of a generator for this target.
        """
        frame, size = self.task.frame, target.layout.size
        symmetry = OutputSymmetry.of(target, enabled=not frame.shared_labels)
        start = self.task.anchor
        if frame.body_layout or start is None:
            start = torch.zeros(size)
        try:
            tensors = _restored(self.tensors)
            made = _generator(self.config, symmetry, start, tensors)
            require_shapes(made)
        except _DAMAGES as error:
            raise _damaged(self.path, error) from error
        return made


def pack_release(
    generator: Generator, task: Task, candidates: CandidatesConfig, precision: str
) -> bytes:
    """The content of a file.

    Args:
        generator: The compact generator.
        task: The task of its release outside of rounds, without candidates.
        candidates: How a site makes candidates.
        precision: One of `f2l_fed.generator.config.PRECISIONS`.
    """
    prior = generator.prior
    tensors = with_prefix("prior.common.", _fields(prior.common))
    tensors |= with_prefix("prior.rows.", _fields(prior.rows))
    if len(prior.gate.centroids):
        tensors |= with_prefix("prior.gate.", _fields(prior.gate))
    if prior.around is not None:
        tensors["prior.around"] = prior.around
    if not prior.symmetry.rows_alone:
        tensors["mean"] = generator.mean
    if draws(generator):
        tensors |= {"spread": generator.spread, **with_prefix("codec.", generator.codec.tensors())}
        if generator.config.sample.evaluations:
            tensors |= with_prefix("velocity.", generator.velocity.state_dict())
    about = {
        "format": _FORMAT,
        "generator": dataclasses.asdict(generator.config),
        "candidates": dataclasses.asdict(candidates),
    }
    packed = {
        "task": torch.frombuffer(bytearray(to_bytes(pack_task(task))), dtype=torch.uint8),
        **_reduced(tensors, precision),
    }
    return save(packed, {"f2l": json.dumps(about, sort_keys=True)})


def _reduced(tensors: Mapping[str, Tensor], precision: str) -> dict[str, Tensor]:
    """Tensors with their matrices in a precision, by rows; a left factor's are its columns."""
    found = {}
    for name, tensor in tensors.items():
        whole = tensor.detach()
        if whole.ndim == 2 and precision != "fp32":
            rows = whole.T if name.endswith(_TRANSPOSED) else whole
            scale = rows.abs().amax(1) if rows.numel() else rows.new_zeros(len(rows))
            units = rows / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
            found[name + _SCALE] = scale
            whole = (units * _WHOLE).round().to(torch.int8) if precision == "int8" else units.half()
        # A copy each: a file takes no memory twice.
        found[name] = whole.contiguous().clone()
    return found


def _restored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `_reduced`."""
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(_SCALE):
            continue
        if name + _SCALE in tensors:
            step = 1 / _WHOLE if tensor.dtype == torch.int8 else 1.0
            rows = tensor.float() * (tensors[name + _SCALE] * step)[:, None]
            tensor = rows.T.contiguous() if name.endswith(_TRANSPOSED) else rows
        if tensor.dtype != torch.float32 or not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} is not made of finite numbers")
        found[name] = tensor
    return found


def _generator(
    config: GeneratorConfig, symmetry: OutputSymmetry, anchor: Tensor, tensors: Mapping[str, Tensor]
) -> Generator:
    gate = without_prefix("prior.gate.", tensors)
    prior = Prior(
        symmetry=symmetry,
        anchor=anchor,
        common=RidgeMap(**without_prefix("prior.common.", tensors)),
        rows=RidgeMap(**without_prefix("prior.rows.", tensors)),
        gate=LikenessGate(**gate) if gate else LikenessGate.open(),
        around=tensors.get("prior.around"),
    )
    parts, source = without_prefix("codec.", tensors), config.flow.source
    codec = PcaCodec.from_tensors(symmetry, parts) if parts else empty_codec(symmetry)
    spread = tensors["spread"] if parts else torch.ones(codec.shape.size)
    field = unused_field(codec, spread, source)
    if state := without_prefix("velocity.", tensors):
        flow = config.flow
        with torch.device("meta"):
            # No number in the file makes anything alone: the weights have to be there.
            field = VelocityField(codec.shape, spread, source, width=flow.width, depth=flow.depth)
        field.load_state_dict(state, assign=True)
        field.requires_grad_(False)
    elif parts and config.sample.evaluations:
        raise ValueError("the flow is missing")
    mean = torch.zeros(symmetry.size) if symmetry.rows_alone else tensors["mean"]
    return Generator(
        prior=prior, codec=codec, velocity=field, spread=spread, mean=mean, config=config
    )


def _fields(value: RidgeMap | LikenessGate) -> dict[str, Tensor]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


_DAMAGES = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    RuntimeError,
    RecursionError,
    SafetensorError,
    ConfigError,
    WireError,
)


def _damaged(path: Path, why: object) -> ReleaseError:
    return ReleaseError(
        "the release can't be read",
        where=str(path),
        got=str(why),
        remedy="Fetch it again: f2l-site release fetch.",
    )
