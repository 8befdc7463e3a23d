"""A folder of images with one sub-folder per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from f2l_fed.core.wording import number_of
from f2l_fed.data.array_checks import AnyArray, FloatArray
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.feature_encoding import unit_images
from f2l_fed.data.readers.files import MOST_VALUES, files_below, special_kind
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.image_listing import ListedImage, listed_images
from f2l_fed.data.readers.labels import text_codes, tidy_labels
from f2l_fed.data.readers.pictures import (
    PictureFacts,
    picture_facts,
    read_pixels,
)
from f2l_fed.data.readers.raw_examples import TRAIN, ExamplePlaces, RawExamples
from f2l_fed.errors import DataError

_MODES = {"L": "grey", "RGB": "RGB"}
GROUP_FOLDER = "folder"
"""The value of [data] group by which the folders inside class folders are groups."""


def read_image_folder(
    folder: Path, config: ReadingConfig, findings: Findings, *, white: float = 0.0
) -> RawExamples:
    """Reads every image below the class folders.

    Args:
        folder: The folder; with "train" and "val" or "test" above the class folders, each names
            its part.
        config: Settings.
        findings: Takes remarks and problems.
        white: Value of white in images of floats, where training has settled it; else 0.

    Raises:
        DataError: If there are no class folders or no images, or some can't be used.
    """
    listed = listed_images(folder, findings)
    images = _usable(listed, findings)
    if not images:
        findings.require_none()
        raise DataError(
            "there are no class folders",
            where=str(folder),
            expected="one sub-folder with images for each class",
            got=f"{number_of(len(listed), 'other file')}, such as {listed[0].name}"
            if listed
            else "",
        )
    mode, size = _shared_form(images, config, findings)
    white = white or _shared_white(images, findings)
    pixels = _pixels(images, mode, size, white, findings)
    findings.require_none()
    codes, names = text_codes(np.array([image.label for image in images]))
    parts = np.array([image.part for image in images], np.int64)
    grouped = config.group == GROUP_FOLDER
    groups = text_codes(np.array([image.group for image in images]))[0] if grouped else None
    return RawExamples(
        where=str(folder),
        inputs=pixels,
        labels=tidy_labels(codes, names, unlabelled=config.unlabelled, findings=findings),
        groups=groups,
        part=parts if len(set(parts.tolist())) > 1 else None,
        white=white,
        places=ExamplePlaces(
            files=tuple(image.name for image in images),
            file=np.arange(len(images), dtype=np.int64),
            row=np.full(len(images), -1, np.int64),
        ),
    )


def _pixels(
    images: Sequence[ListedImage],
    mode: str,
    size: tuple[int, int],
    white: float,
    findings: Findings,
) -> AnyArray:
    """The pixels of all images, (n, C, H, W) uint8; none of them where there are problems already.

    Damage shows only here, so that every image is read in any case, to tell all problems at once.
    """
    count = 0 if findings.problems else len(images)
    pixels = np.empty((count, 3 if mode == "RGB" else 1, size[1], size[0]), np.uint8)
    for row, image in enumerate(images):
        try:
            read = read_pixels(image.path, mode, size, white=white)
        except DataError as error:
            _add(findings, image, error)
        else:
            pixels[row : row + 1] = read
    return pixels


def image_inputs(
    path: Path,
    mode: str,
    size: tuple[int, int],
    findings: Findings,
    batch: int,
    *,
    white: float = 0.0,
) -> tuple[int, Iterator[tuple[list[str], FloatArray]]]:
    """An image, or every image below a folder, brought to one form, a batch at a time.

    Args:
        path: The image or the folder.
        mode: "L" or "RGB".
        size: Width and height, pixels.
        findings: Takes remarks, also on images that can't be read and are left out.
        batch: Number of images in a batch.
        white: Value of white in images of floats; 0 to go by each one's brightest pixel.

    Returns:
        The number of files, and batches of their names and (b, C, H, W) float32 in [0, 1].

    Raises:
        DataError: If there are no files.
    """
    files = list(files_below(path)) if path.is_dir() else [path]
    root = path if path.is_dir() else path.parent
    listed = [
        ListedImage(path=file, name=str(file.relative_to(root)), label="", part=TRAIN, group="")
        for file in files
    ]
    if not listed:
        raise DataError("there are no images", where=str(path))

    def batches() -> Iterator[tuple[list[str], FloatArray]]:
        for start in range(0, len(listed), batch):
            here = Findings(str(path))
            names, pixels = [], []
            for image in _usable(listed[start : start + batch], here):
                try:
                    pixels.append(read_pixels(image.path, mode, size, white=white))
                    names.append(image.name)
                except DataError as error:
                    _add(here, image, error)
            for remark in here.remarks:
                findings.remark(remark)
            for problem in here.problems:
                findings.remark(f"Left out: {problem}")
            if names:
                yield names, unit_images(np.stack(pixels))

    return len(listed), batches()


def _usable(listed: Sequence[ListedImage], findings: Findings) -> list[ListedImage]:
    """The images among the files, with their facts."""
    images, others = [], []
    for image in listed:
        if kind := special_kind(image.path):
            findings.problem(
                "files can't be read", [f"{image.name}: {kind}"], remedy="Remove or repair them."
            )
            continue
        try:
            facts = picture_facts(image.path)
        except DataError as error:
            _add(findings, image, error)
            continue
        if facts is None:
            others.append(image.name)
        else:
            images.append(replace(image, facts=facts))
    if others:
        findings.remark(
            f"{number_of(len(others), 'file is no image', 'files are no images')} and left out: "
            f"{', '.join(others[:SHOWN])}"
            f"{' and others' if len(others) > SHOWN else ''}."
        )
    return images


def _add(findings: Findings, image: ListedImage, error: DataError) -> None:
    place = f"{image.name} ({error.got})" if error.got else image.name
    findings.problem(error.what, [place], remedy=error.remedy)


def _shared_form(
    images: Sequence[ListedImage], config: ReadingConfig, findings: Findings
) -> tuple[str, tuple[int, int]]:
    """The mode and the size that all images get."""
    facts = [image.facts for image in images if image.facts]
    colour = any(fact.shared == "RGB" for fact in facts)
    mode = config.pillow_mode or ("RGB" if colour else "L")
    _remark_modes(facts, mode, findings)
    sizes = Counter(fact.size for fact in facts)
    if config.size is None and len(sizes) > 1:
        counted = [f"{width}x{height} ({count})" for (width, height), count in sizes.most_common()]
        findings.problem(
            "the images have different sizes",
            counted[:SHOWN],
            count=len(sizes),
            expected="one size",
            remedy="Set resize = [width, height] under [data], such as [64, 64]; init takes "
            "--resize 64,64.",
        )
    size = config.size or facts[0].size
    if config.size is not None:
        other = sum(fact.size != size for fact in facts)
        cut = sum(fact.size[0] * size[1] != fact.size[1] * size[0] for fact in facts)
        middle = f", of {cut} of them only the middle, since their sides differ" if cut else ""
        if other:
            brought = number_of(other, "image was", "images were")
            findings.remark(f"{brought} brought to {size[0]}x{size[1]} pixels{middle}.")
    total = len(images) * size[0] * size[1] * len(mode)
    if total > MOST_VALUES:
        findings.problem(
            "the images are too large together",
            [f"{total:,} values"],
            expected=f"at most {MOST_VALUES:,}",
            remedy="Set resize = [width, height] under [data], or use fewer images.",
        )
    return mode, size


def _shared_white(images: Sequence[ListedImage], findings: Findings) -> float:
    """Value of white in images of floats; 0 where there are none, or only black ones."""
    ranges = Counter(image.facts.top for image in images if image.facts and image.facts.top)
    if len(ranges) > 1:
        findings.problem(
            "images of floats have different ranges",
            [f"0 to {top:g} ({count})" for top, count in ranges.most_common()],
            expected="one range",
            remedy="Save all of them with values from 0 to 1, or with 8 or 16 bits a channel.",
        )
    return max(ranges, default=0.0)


def _remark_modes(facts: Sequence[PictureFacts], mode: str, findings: Findings) -> None:
    changed = Counter(fact.mode for fact in facts if fact.mode != mode)
    if changed:
        kinds = ", ".join(f"{count} of mode {kind}" for kind, count in changed.most_common())
        findings.remark(f"Images were converted to {_MODES[mode]}: {kinds}.")
    if turned := sum(fact.turned for fact in facts):
        upright = number_of(turned, "image was", "images were")
        findings.remark(f"{upright} turned upright, as the camera noted (EXIF).")
    if clear := sum(fact.clear for fact in facts):
        findings.remark(f"Transparent parts of {number_of(clear, 'image')} were laid on white.")
    if deep := sum(fact.mode.startswith("I") or fact.mode == "F" for fact in facts):
        kind = "with more than 8 bits"
        brought = number_of(deep, f"image {kind} was", f"images {kind} were")
        findings.remark(f"{brought} brought to 8 bits.")
