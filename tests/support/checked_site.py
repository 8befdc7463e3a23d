"""A site on given data, and what its check says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from clients.onboarding.preflight import PreflightReport, check
from clients.onboarding.site_template import create_site
from clients.site.site import Site, open_site


def site_on(
    data: Path, more: str = "", *, top: str = "", policy: str = "", privacy: str = ""
) -> Path:
    """A new site.toml on these data, with further keys above the sections and in some of them."""
    folder = data.parent / f"site-of-{data.name}"
    path = folder / "site.toml"
    path.unlink(missing_ok=True)
    create_site(folder, "north", data)
    # Numbers stay as they are unless a test says otherwise.
    text = path.read_text().replace('scale = "standard"', 'scale = ""')
    for section, keys in (("[data]", more), ("[policy]", policy), ("[privacy]", privacy)):
        text = text.replace(f"\n{section}\n", f"\n{section}\n{keys}\n")
    for line in (
        *more.splitlines(),
        *top.splitlines(),
        *policy.splitlines(),
        *privacy.splitlines(),
    ):
        name = line.partition("=")[0].strip()
        kept, seen = [], 0
        for old in text.splitlines():
            if old.partition("=")[0].strip() == name:
                seen += 1
                if old != line or seen > 1:
                    continue
            kept.append(old)
        text = "\n".join(kept) + "\n"
    path.write_text(f"{top}\n{text}")
    return path


def checked(data: Path, more: str = "", **others: str) -> PreflightReport:
    """The report of `f2l-site check` on these data."""
    return check(site_on(data, more, **others), connect=False)


def opened(data: Path, more: str = "", **others: str) -> Site:
    """The site with its examples."""
    return open_site(site_on(data, more, **others))


def one_remark(report: PreflightReport, *words: str) -> str:
    """The one remark with all of these words."""
    found = [text for text in report.remarks if all(word in text for word in words)]
    assert len(found) == 1, report.remarks
    return found[0]


def one_problem(report: PreflightReport, *words: str) -> str:
    """The one problem with all of these words, which is a single clear sentence or two."""
    found = [text for text in report.problems if all(word in text for word in words)]
    assert len(found) == 1, report.problems
    assert "\n" not in found[0]
    assert found[0].endswith((".", "?"))
    return found[0]


def write_rows(path: Path, *, rows: int = 20, encoding: str = "utf-8", text: str = "") -> Path:
    """A text table of two measures and a label, or a text of one's own."""
    lines = [f"{n},{n * 0.5},{'ok' if n % 2 else 'scratch'}" for n in range(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((text or "\n".join(["a,b,label", *lines, ""])).encode(encoding))
    return path


def write_picture(
    path: Path, *, mode: str = "L", size: tuple[int, int] = (8, 6), seed: int = 0, **how: object
) -> Path:
    """An image of random pixels, of any mode that Pillow can make from RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **how)  # type: ignore[arg-type]
    return path
