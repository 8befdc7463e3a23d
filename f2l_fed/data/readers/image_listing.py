"""The files of a folder of images, with the labels, parts and groups that its folders name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from f2l_fed.core.wording import number_of
from f2l_fed.data.readers.files import files_below, visible_entries
from f2l_fed.data.readers.findings import SHOWN, Findings
from f2l_fed.data.readers.pictures import PictureFacts, is_image_name
from f2l_fed.data.readers.raw_examples import TEST, TRAIN, VALIDATION

_PARTS = {
    **dict.fromkeys(("train", "training", "trainset"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "testset"), TEST),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedImage:
    """A file below the class folders: its path and name, and what its folders say of it."""

    path: Path
    name: str
    label: str
    part: int
    group: str
    facts: PictureFacts | None = None


def listed_images(folder: Path, findings: Findings) -> list[ListedImage]:
    """Every file below the class folders, in sorted order; what the folders mean is remarked."""
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
                f"{number_of(len(beside), 'image')} beside the class folders left out, without "
                f"a label: "
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
                ListedImage(
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
