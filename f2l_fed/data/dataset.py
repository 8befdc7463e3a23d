"""Labelled examples, in memory and in ``.npz`` files."""

from __future__ import annotations

import hashlib
import secrets
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from f2l_fed.data.array_checks import AnyArray, IntArray, read_codes, read_examples
from f2l_fed.data.readers.raw_examples import Column
from f2l_fed.errors import DataError

__all__ = ["Dataset", "as_dataset", "first_occurrences", "load_npz", "read_arrays", "save_npz"]

_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Examples with labels.

    Args:
        name: What reports call it.
        x: (n, C, H, W) float32 images in [0, 1], or (n, F) float32 or float64 vectors, before any
            preprocessing: NaN for gaps, and for texts their places in the column's values.
        y: (n,) int64, labels in [0, classes).
        classes: Number of classes.
        groups: (n,) int64, the natural site that each example comes from, or None.
        group_names: Names of these sites by their number; empty where they have none.
        together: (n,) int64, examples of one number are never on both sides of a split within a
            site; or None.
        columns: The F columns of a table; empty where they have numbers, and for images.
    """

    name: str
    x: AnyArray
    y: IntArray
    classes: int
    groups: IntArray | None = None
    group_names: tuple[str, ...] = ()
    together: IntArray | None = None
    columns: tuple[Column, ...] = ()


def as_dataset(
    name: str, x: AnyArray, y: AnyArray, groups: AnyArray | None = None, *, where: str = ""
) -> Dataset:
    """Checks arrays from outside and brings them into the one form used everywhere.

    Args:
        name: Name of the dataset.
        x: Images (n, H, W), (n, C, H, W) or (n, H, W, C) with C 1 or 3 (channels first where
            both readings fit), as integers in 0..255 or floats in [0, 1]; or vectors (n, F).
        y: (n,) integers, whole floats or strings; they become 0..K-1 in sorted order.
        groups: (n,), the natural site of each example, in the same forms as y; or None.
        where: File that errors name; the dataset's name where empty.

    Raises:
        DataError: With the first thing that is wrong and what to do about it.

    >>> data = as_dataset("pets", np.array([[[0, 255]], [[51, 0]]]), np.array(["dog", "cat"]))
    >>> data.x.shape, data.y.tolist(), data.classes
    ((2, 1, 1, 2), [1, 0], 2)
    """
    where = where or name
    examples = read_examples(x, where)
    labels, classes = read_codes(y, "y", examples.shape[0], where)
    if classes < 2:
        raise DataError(
            "all examples have the same label",
            where=where,
            expected="at least two classes in y",
            remedy="Add examples of another class.",
        )
    sites = None if groups is None else read_codes(groups, "groups", examples.shape[0], where)[0]
    return Dataset(name=name, x=examples, y=labels, classes=classes, groups=sites)


def first_occurrences(x: AnyArray) -> IntArray:
    """Finds the examples that are no exact copy of an earlier one.

    Args:
        x: (n, ...) examples.

    Returns:
        (m,) int64, ascending positions, m <= n.

    >>> first_occurrences(np.float32([[1, 2], [3, 4], [1, 2]])).tolist()
    [0, 1]
    """
    # Digests, because sorting whole rows takes many times longer.
    first: dict[bytes, int] = {}
    for position, row in enumerate(np.ascontiguousarray(x).reshape(len(x), -1)):
        first.setdefault(hashlib.blake2b(row.data, digest_size=16).digest(), position)
    return np.fromiter(first.values(), np.int64, len(first))


def load_npz(path: Path) -> Dataset:
    """Reads a dataset from an ``.npz`` with arrays ``x``, ``y`` and optionally ``groups``.

    Args:
        path: The file; its stem names the dataset. Forms of the arrays: see ``as_dataset``.

    Raises:
        DataError: With the first thing that is wrong and what to do about it.
    """
    arrays = read_arrays(path, ("x", "y"), ("groups",))
    return as_dataset(path.stem, arrays["x"], arrays["y"], arrays.get("groups"), where=str(path))


def save_npz(path: Path, x: AnyArray, y: IntArray, groups: IntArray | None = None) -> None:
    """Writes a dataset so that ``load_npz`` gives the same arrays back.

    Either the whole file appears or nothing does. Images that were bytes become bytes again,
    a quarter of the size.

    Args:
        path: The file, replaced where it exists; its folder is created.
        x: (n, C, H, W) or (n, H, W) images in [0, 1], float32; or (n, F) vectors, floats.
        y: (n,) int64, labels.
        groups: (n,) int64, natural sites, or None.

    Raises:
        OSError: If the folder can't be written.
    """
    arrays: dict[str, AnyArray] = {"x": _compact(x), "y": y}
    if groups is not None:
        arrays["groups"] = groups
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("xb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _compact(x: AnyArray) -> AnyArray:
    # Vectors stay floats: load_npz scales integers of images only.
    if x.ndim == 2 or not ((x >= 0) & (x <= 1)).all():
        return x
    pixels = np.rint(x * 255).astype(np.uint8)
    return pixels if np.array_equal(pixels.astype(np.float32) / np.float32(255), x) else x


def read_arrays(
    path: Path, needed: Sequence[str], further: Sequence[str] = ()
) -> dict[str, AnyArray]:
    """Reads arrays of an ``.npz`` file by their names, never as Python objects.

    Args:
        path: The file.
        needed: Names of the arrays that have to be there.
        further: Names of those that may be.

    Raises:
        DataError: If the file or an array can't be read, or one is missing.
    """
    try:
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as archive:
            missing = [key for key in needed if key not in archive.files]
            if missing:
                raise DataError(
                    f"there is no array named {' or '.join(missing)}",
                    where=str(path),
                    expected=f"arrays {' and '.join(needed)}",
                    got=", ".join(archive.files) or "no array at all",
                    remedy="Save it with numpy.savez(path, x=..., y=...).",
                )
            return {
                key: _member(archive, key, path)
                for key in dict.fromkeys((*needed, *further))
                if key in archive.files
            }
    except FileNotFoundError:
        raise DataError(
            "the file does not exist", where=str(path), remedy="Check the path to the .npz file."
        ) from None
    except OSError as error:
        raise DataError(
            f"the file can't be read ({error.strerror or error})",
            where=str(path),
            remedy="Check that it is a file you may read.",
        ) from error
    except zipfile.BadZipFile as error:
        raise DataError(
            "the file is not an .npz archive",
            where=str(path),
            remedy="Save it with numpy.savez(path, x=..., y=...).",
        ) from error


def _member(archive: NpzFile, key: str, path: Path) -> AnyArray:
    try:
        array = archive[key]
    except _DAMAGED as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{key} holds Python objects, which are never loaded",
                where=str(path),
                expected="numbers or strings of a fixed type",
                remedy=f"Convert it with {key}.astype(...) and save the file again.",
            ) from error
        raise DataError(
            f"the array {key} is damaged ({error})", where=str(path), remedy="Save the file again."
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(
            f"{key} is not a numpy array",
            where=str(path),
            remedy="Save it with numpy.savez(path, x=..., y=...).",
        )
    return array
