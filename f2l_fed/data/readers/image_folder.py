"""A folder of images with one sub-folder per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from f2l_fed.data.array_checks import FloatArray
from f2l_fed.data.readers.config import ReadingConfig
from f2l_fed.data.readers.feature_encoding import unit_images
from f2l_fed.data.readers.files import MOST_VALUES, files_below, special_kind, visible_entries
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.labels import text_codes, tidy_labels
from f2l_fed.data.readers.pictures import (
    PictureFacts,
    is_image_name,
    picture_facts,
    read_pixels,
)
from f2l_fed.data.readers.raw_examples import TEST, TRAIN, VALIDATION, ExamplePlaces, RawExamples
from f2l_fed.errors import DataError

_PARTS = {
    **dict.fromkeys(("train", "training", "trainset"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "testset"), TEST),
}
_MODES = {"L": "grey", "RGB": "RGB"}
GROUP_FOLDER = "folder"
"""The value of [data] group by which the folders inside class folders are groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    path: Path
    name: str
    label: str
    part: int
    group: str
    facts: PictureFacts | None = None


def read_image_folder(folder: Path, config: ReadingConfig, findings: Findings) -> RawExamples:
    """Reads every image below the class folders.

    Args:
        folder: The folder; with "train" and "val" or "test" above the class folders, each names
            its part.
        config: Settings.
        findings: Takes remarks and problems.

    Raises:
        DataError: If there are no class folders or no images, or some can't be used.
    """
    listed = _listed(folder, findings)
    images = _usable(listed, findings)
    findings.require_none()
    if not images:
        raise DataError(
            "there are no class folders",
            where=str(folder),
            expected="one sub-folder with images for each class",
            got=f"{len(listed)} other files, such as {listed[0].name}" if listed else "",
        )
    mode, size = _shared_form(images, config, findings)
    findings.require_none()
    pixels = np.empty((len(images), 3 if mode == "RGB" else 1, size[1], size[0]), np.uint8)
    for row, image in enumerate(images):
        try:
            pixels[row] = read_pixels(image.path, mode, size)
        except DataError as error:
            _add(findings, image, error)
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
        places=ExamplePlaces(
            files=tuple(image.name for image in images),
            file=np.arange(len(images), dtype=np.int64),
            row=np.full(len(images), -1, np.int64),
        ),
    )


def image_inputs(
    path: Path, mode: str, size: tuple[int, int], findings: Findings, batch: int
) -> tuple[int, Iterator[tuple[list[str], FloatArray]]]:
    """An image, or every image below a folder, brought to one form, a batch at a time.

    Args:
        path: The image or the folder.
        mode: "L" or "RGB".
        size: Width and height, pixels.
        findings: Takes remarks, also on images that can't be read and are left out.
        batch: Number of images in a batch.

    Returns:
        The number of files, and batches of their names and (b, C, H, W) float32 in [0, 1].

    Raises:
        DataError: If there are no files.
    """
    files = list(files_below(path)) if path.is_dir() else [path]
    root = path if path.is_dir() else path.parent
    listed = [
        _Image(path=file, name=str(file.relative_to(root)), label="", part=TRAIN, group="")
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
                    pixels.append(read_pixels(image.path, mode, size))
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


def _listed(folder: Path, findings: Findings) -> list[_Image]:
    """Every file below the class folders."""
    inside = folder
    classes = _folders(inside)
    while len(classes) == 1 and _folders(classes[0]) and not _is_split(classes):
        inside = classes[0]
        findings.remark(f"The class folders are those in {inside.relative_to(folder)}.")
        classes = _folders(inside)
    if _is_split(classes):
        parts = [(_PARTS[part.name.lower()], _folders(part)) for part in classes]
        findings.remark(
            "The folders "
            + ", ".join(repr(part.name) for part in classes)
            + " are taken for parts of the data, not for classes."
        )
    else:
        parts = [(TRAIN, classes)]
        beside = [file.name for file in visible_entries(inside) if is_image_name(file)]
        if beside and classes:
            findings.remark(
                f"{len(beside)} images beside the class folders have no label and are left out: "
                f"{', '.join(beside[:SHOWN])}{' and others' if len(beside) > SHOWN else ''}."
            )
    listed = []
    for part, of_part in parts:
        for class_folder in of_part:
            files = list(files_below(class_folder))
            if not files:
                findings.problem(
                    "class folders have no images",
                    [str(class_folder.relative_to(folder))],
                    remedy="Add images of that class or remove the folder.",
                )
            listed += [
                _Image(
                    path=file,
                    name=str(file.relative_to(folder)),
                    label=class_folder.name,
                    part=part,
                    group=str(file.parent.relative_to(folder))
                    if file.parent != class_folder
                    else str(file.relative_to(folder)),
                )
                for file in files
            ]
    return listed


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in visible_entries(folder) if entry.is_dir()]


def _is_split(classes: Sequence[Path]) -> bool:
    names = [folder.name.lower() for folder in classes]
    return (
        bool(names)
        and all(name in _PARTS for name in names)
        and any(_PARTS[name] == TRAIN for name in names)
        and all(_folders(folder) for folder in classes)
    )


def _usable(listed: Sequence[_Image], findings: Findings) -> list[_Image]:
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
            f"{len(others)} files are no images and left out: {', '.join(others[:SHOWN])}"
            f"{' and others' if len(others) > SHOWN else ''}."
        )
    return images


def _add(findings: Findings, image: _Image, error: DataError) -> None:
    place = f"{image.name} ({error.got})" if error.got else image.name
    findings.problem(error.what, [place], remedy=error.remedy)


def _shared_form(
    images: Sequence[_Image], config: ReadingConfig, findings: Findings
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
            remedy="Set resize = [width, height] under [data], such as [64, 64].",
        )
    size = config.size or facts[0].size
    if config.size is not None:
        other = sum(fact.size != size for fact in facts)
        cut = sum(fact.size[0] * size[1] != fact.size[1] * size[0] for fact in facts)
        middle = f", of {cut} of them only the middle, since their sides differ" if cut else ""
        if other:
            findings.remark(f"{other} images were brought to {size[0]}x{size[1]} pixels{middle}.")
    total = len(images) * size[0] * size[1] * len(mode)
    if total > MOST_VALUES:
        findings.problem(
            "the images are too large together",
            [f"{total:,} values"],
            expected=f"at most {MOST_VALUES:,}",
            remedy="Set resize = [width, height] under [data], or use fewer images.",
        )
    return mode, size


def _remark_modes(facts: Sequence[PictureFacts], mode: str, findings: Findings) -> None:
    changed = Counter(fact.mode for fact in facts if fact.mode != mode)
    if changed:
        kinds = ", ".join(f"{count} of mode {kind}" for kind, count in changed.most_common())
        findings.remark(f"Images were converted to {_MODES[mode]}: {kinds}.")
    if turned := sum(fact.turned for fact in facts):
        findings.remark(f"{turned} images were turned upright, as their cameras noted (EXIF).")
    if clear := sum(fact.clear for fact in facts):
        findings.remark(f"Transparent parts of {clear} images were laid on white.")
    if deep := sum(fact.mode.startswith("I") or fact.mode == "F" for fact in facts):
        findings.remark(f"{deep} images with more than 8 bits were brought to 8 bits.")
