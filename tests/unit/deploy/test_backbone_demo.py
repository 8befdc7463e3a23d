"""The demonstration of a backbone: its pictures, on packages that are made up, and its digests."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from f2l_fed.data.own_data import read_pool
from f2l_fed.data.readers.config import ReadingConfig

BACKBONE = Path(__file__).parents[3] / "deploy" / "backbone"
VENDORS = ("google", "twitter")


def picture(number: int) -> bytes:
    """A picture that lets its ground through, as emoji do."""
    pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def package(folder: Path, vendor: str, first: int, *, cut: int = 0) -> Path:
    """A package with 22 birds, 22 fruits, 21 drinks, 22 skin tones, and more than was listed."""
    listed, pictures = [], {}
    kinds = (("animal-bird", 22), ("food & fruit", 22), ("drink", 21), ("skin-tone", 22))
    for kind, count in kinds:
        for number in range(count):
            name = f"{kind[:3]}{number}.png"
            category = "Component" if kind == "skin-tone" else "Any"
            listed.append({"image": name, "category": category, "subcategory": kind})
            pictures[f"img/{vendor}/64/{name}"] = picture(first + len(pictures))
    pictures[f"img/{vendor}/64/bird-1f3fb.png"] = picture(0)
    pictures[f"img/{vendor}/sheets/128.png"] = picture(0)
    pictures["emoji.json"] = json.dumps(listed).encode()
    path = folder / f"emoji-datasource-{vendor}-16.0.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in pictures.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    path.write_bytes(path.read_bytes()[: -cut or None])
    return path


def prepare(packages: Path, out: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, BACKBONE / "emoji_pictures.py", packages, out]
    return subprocess.run(words, capture_output=True, text=True)


def test_a_class_has_the_pictures_of_both_vendors_and_the_reader_takes_them(tmp_path):
    for place, vendor in enumerate(VENDORS):
        package(tmp_path, vendor, 1 + 1000 * place)
    done = prepare(tmp_path, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("88 pictures of 2 classes are in ")
    names = {folder.name: len(list(folder.iterdir())) for folder in (tmp_path / "out").iterdir()}
    assert names == {"animal-bird": 44, "food & fruit": 44}
    vendors = [path.name.split("-")[0] for path in (tmp_path / "out/animal-bird").iterdir()]
    assert {vendor: vendors.count(vendor) for vendor in VENDORS} == {"google": 22, "twitter": 22}
    dataset, _ = read_pool(tmp_path / "out", ReadingConfig(mode="rgb"))
    assert dataset.x.shape == (88, 3, 64, 64)


def test_a_missing_or_damaged_package_is_one_sentence_and_leaves_no_folder(tmp_path):
    package(tmp_path, "google", 1)
    done = prepare(tmp_path, tmp_path / "out")
    assert done.returncode == 1
    assert "npm package emoji-datasource-twitter is missing. Run npm pack" in done.stderr
    package(tmp_path, "twitter", 1, cut=5000)
    done = prepare(tmp_path, tmp_path / "out")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the package is damaged" in done.stderr
    assert not (tmp_path / "out").exists()
    package(tmp_path, "twitter", 1)
    assert prepare(tmp_path, tmp_path / "out").returncode == 0


def test_what_is_fetched_has_its_digest_and_only_of_two_vendors():
    lines = (BACKBONE / "emoji.sha256").read_text().splitlines()
    files = [f"emoji-datasource-{vendor}-16.0.0.tgz" for vendor in VENDORS]
    assert [line.split("  ")[1] for line in lines] == files
    assert all(re.fullmatch(r"[0-9a-f]{64}  .*", line) for line in lines)
    pins = (BACKBONE / "requirements.txt").read_text()
    assert len(re.findall(r"^[a-z0-9-]+==\S+ \\$", pins, re.M)) == 2
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}$", pins, re.M)) == 2
    for script in ("demo.sh", "backbone/demo.sh"):
        assert subprocess.run(["bash", "-n", BACKBONE.parent / script]).returncode == 0
