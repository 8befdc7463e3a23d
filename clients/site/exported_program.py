"""A site's network as a program of its own, with the preprocessing that it was made with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from clients.site.model_facts import WEIGHTS
from clients.site.model_store import FACTS, Model, save_model, whole_module
from f2l_fed.data.readers.feature_encoding import FeatureEncoding
from f2l_fed.errors import UsageError
from f2l_fed.targets.backbone import InstalledBackbone

PROGRAM = "model.pt2"

_NUMBER, _TEXT, _GAP = range(3)


def export_model(model: Model, folder: Path, backbone: InstalledBackbone | None = None) -> None:
    """Writes a network as ``model.safetensors``, ``model.json`` and ``model.pt2``.

    The last is a program for ``torch.export.load`` that needs nothing of F2L-Fed and takes any
    number of inputs at a time: (n, C, H, W) float32 images in [0, 1]; or (n, F) float64, the
    columns of a table in the order of ``encoding`` in ``model.json``, numbers in their own units,
    texts as places among the column's values, NaN for what is missing or unknown. Float64, since a
    time in seconds or the like has more digits than float32 keeps; or of texts (n, T) int64, token
    ids of the tokenizer whose digest ``model.json`` has, with its padding, since a tokenizer is no
    program of torch's. It contains the frozen backbone, of which the other two files have the
    digest alone.

    Args:
        model: The network.
        folder: Folder for the files; created where absent.
        backbone: The frozen part, where the network takes features.

    Raises:
        UsageError: If the folder holds one of these files already.
    """
    for name in (WEIGHTS, FACTS, PROGRAM):
        if (folder / name).exists():
            raise UsageError(
                "the file exists already", where=str(folder / name), remedy="Choose another folder."
            )
    folder.mkdir(parents=True, exist_ok=True)
    facts = model.facts
    tokens = 0 if backbone is None else backbone.facts.tokens
    module = whole_module(model, backbone, preprocessed=tokens > 0)
    encoding = FeatureEncoding.of_text(facts.encoding, where=str(folder))
    example = torch.zeros(2, *facts.input_shape)
    if backbone is not None and tokens:
        example = torch.zeros(2, tokens, dtype=torch.int64)
        facts = replace(facts, tokens=tokens, tokenizer=backbone.facts.tokenizer)
    elif encoding.columns:
        module = EncodedColumns(module, encoding)
        example = torch.zeros(2, len(encoding.columns), dtype=torch.float64)
    elif encoding.channels:
        module = ScaledChannels(module, encoding)
    program = torch.export.export(
        module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, folder / PROGRAM)
    save_model(folder, replace(model, facts=facts))


class EncodedColumns(nn.Module):
    """A network behind the encoding of a table's columns.

    Args:
        module: The network, for encoded features.
        encoding: The encoding.
    """

    column: Tensor
    kind: Tensor
    text: Tensor
    scales: Tensor

    def __init__(self, module: nn.Module, encoding: FeatureEncoding) -> None:
        super().__init__()
        self.module = module
        features = [
            (place, kind, text, column.fill, column.mean, column.spread)
            for place, column in enumerate(encoding.columns)
            for kind, text in (
                [(_TEXT, text) for text in range(len(column.values))]
                or [(_NUMBER, 0), (_GAP, 0)][: len(column.features)]
            )
        ]
        place, kind, text, *scales = zip(*features, strict=True)
        self.register_buffer("column", torch.tensor(place))
        self.register_buffer("kind", torch.tensor(kind))
        self.register_buffer("text", torch.tensor(text))
        self.register_buffer("scales", torch.tensor(scales, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, K) for columns (n, F) as `export_model` says."""
        fill, mean, spread = self.scales
        written = x[:, self.column]
        gaps = written.isnan()
        numbers = (torch.where(gaps, fill, written) - mean) / spread
        others = torch.where(self.kind == _TEXT, written == self.text, gaps)
        features = torch.where(self.kind == _NUMBER, numbers, others.double())
        logits: Tensor = self.module(features.float())
        return logits


class ScaledChannels(nn.Module):
    """A network behind the scaling of images' channels.

    Args:
        module: The network, for scaled images.
        encoding: The scaling.
    """

    means: Tensor
    spreads: Tensor

    def __init__(self, module: nn.Module, encoding: FeatureEncoding) -> None:
        super().__init__()
        self.module = module
        means = torch.tensor([channel.mean for channel in encoding.channels])
        spreads = torch.tensor([channel.spread for channel in encoding.channels])
        self.register_buffer("means", means[:, None, None])
        self.register_buffer("spreads", spreads[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n, K) for images (n, C, H, W) in [0, 1]."""
        logits: Tensor = self.module((x - self.means) / self.spreads)
        return logits
