"""Pictures of emoji as a folder for `f2l-admin simulate`, from the packages of two vendors.

`python deploy/backbone/emoji_pictures.py PACKAGES OUT`

PACKAGES holds the files (.tgz) of the npm packages ``emoji-datasource-google`` and
``emoji-datasource-twitter``. A sub-category with enough emoji is a class, a folder in OUT; skin
tones are left out, and a vendor is the first part of a picture's name.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

VENDORS = ("google", "twitter")
FEWEST = 22
"""Least number of emoji of a class; each is a picture of every vendor."""

_DAMAGED = (OSError, tarfile.TarError, EOFError, KeyError, ValueError, TypeError)


def package_of(folder: Path, vendor: str) -> Path:
    """The package of a vendor; raises SystemExit, with a sentence, where there is none."""
    name = f"emoji-datasource-{vendor}"
    found = sorted(folder.glob(f"{name}-*.tgz"))
    if not found:
        raise SystemExit(
            f"error: {folder}: the file of the npm package {name} is missing. "
            f"Run npm pack {name}@16.0.0 there."
        )
    return found[-1]


def classes_of(package: Path, fewest: int) -> dict[str, str]:
    """The class of each picture by its name: the sub-category, where that has enough emoji."""
    with tarfile.open(package) as archive:
        listed = json.load(archive.extractfile("package/emoji.json"))  # type: ignore[arg-type]
    plain = [one for one in listed if one["category"] != "Component"]
    sizes = Counter(one["subcategory"] for one in plain)
    return {
        one["image"]: one["subcategory"] for one in plain if sizes[one["subcategory"]] >= fewest
    }


def pictures_of(package: Path, vendor: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each picture of 64 pixels in a package."""
    start = f"package/img/{vendor}/64/"
    with tarfile.open(package) as archive:
        for member in archive:
            if member.isfile() and member.name.startswith(start):
                content = archive.extractfile(member).read()  # type: ignore[union-attr]
                yield member.name.removeprefix(start), content


def write_pictures(packages: Path, out: Path, *, fewest: int = FEWEST) -> Counter[str]:
    """Writes the pictures to a folder that does not exist yet.

    Returns:
        The number of pictures by class.

    Raises:
        SystemExit: With a sentence, if a package is missing or damaged.
    """
    files = {vendor: package_of(packages, vendor) for vendor in VENDORS}
    counts: Counter[str] = Counter()
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for vendor, file in files.items():
        try:
            classes = classes_of(file, fewest)
            for name, content in pictures_of(file, vendor):
                if name in classes:
                    folder = draft / classes[name]
                    folder.mkdir(exist_ok=True)
                    (folder / f"{vendor}-{name}").write_bytes(content)
                    counts[classes[name]] += 1
        except _DAMAGED as error:
            raise SystemExit(f"error: {file}: the package is damaged ({error}).") from error
    draft.rename(out)
    return counts


if __name__ == "__main__":
    found = write_pictures(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"{found.total()} pictures of {len(found)} classes are in {sys.argv[2]}")
