"""Checks of arrays that come from outside."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from f2l_fed.core.wording import number_of
from f2l_fed.errors import DataError

__all__ = [
    "AnyArray",
    "FloatArray",
    "IntArray",
    "channels_first",
    "not_whole",
    "read_codes",
    "read_examples",
    "require_inputs",
    "require_one_each",
    "unit_range",
]

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]

_CHANNELS = (1, 3)


def read_examples(x: AnyArray, where: str) -> FloatArray:
    """Checks and scales examples.

    Args:
        x: Images (n, H, W), (n, C, H, W) or (n, H, W, C), or vectors (n, F), of any number type.
        where: File or dataset that errors name.

    Returns:
        (n, C, H, W) in [0, 1] or (n, F), float32.

    Raises:
        DataError: With the first thing that is wrong.
    """
    require_inputs(x, where)
    with np.errstate(over="ignore"):
        values = x.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        index = ", ".join(str(axis) for axis in np.unravel_index(int(bad[0]), x.shape))
        raise DataError(
            f"x has {number_of(bad.size, 'value that is', 'values that are')} NaN, infinite or too "
            "large for float32, "
            f"the first at x[{index}]",
            where=where,
            remedy="Remove those examples or fill the values in.",
        )
    return values if x.ndim == 2 else channels_first(unit_range(values, x, where), where)


def require_inputs(x: AnyArray, where: str) -> None:
    """Requires images or vectors of numbers, at least one.

    Args:
        x: What should be examples.
        where: File or dataset that errors name.

    Raises:
        DataError: With the first thing that is wrong.
    """
    if x.dtype.kind not in "biuf":
        raise DataError(
            "x is not numeric",
            where=where,
            expected="integers or floats",
            got=str(x.dtype),
            remedy="Convert x to numbers before saving it.",
        )
    if x.ndim not in (2, 3, 4):
        raise DataError(
            "x has the wrong number of dimensions",
            where=where,
            expected="(n, F), (n, H, W), (n, C, H, W) or (n, H, W, C)",
            got=str(x.shape),
            remedy="Reshape x so that the first dimension counts the examples.",
        )
    if x.size == 0:
        raise DataError(
            "x is empty",
            where=where,
            got=f"shape {x.shape}",
            remedy="Save at least one example of every class.",
        )


def unit_range(values: FloatArray, x: AnyArray, where: str) -> FloatArray:
    """Pixels in [0, 1], from whole numbers up to 255 or floats that are so already.

    Args:
        values: (n, ...) float32, the pixels.
        x: The same as they were saved.
        where: File that errors name.

    Raises:
        DataError: If they are out of range.
    """
    top = 255 if x.dtype.kind in "iu" else 1
    low, high = values.min(), values.max()
    if low < 0 or high > top:
        raise DataError(
            "the pixels of x are out of range",
            where=where,
            expected="integers in 0..255 or floats in [0, 1]",
            got=f"{x.dtype} from {low:g} to {high:g}",
            remedy="Divide by the largest possible value and save floats.",
        )
    return values / np.float32(top)


def channels_first(images: FloatArray, where: str) -> FloatArray:
    """Images as (n, C, H, W), from (n, H, W), (n, C, H, W) or (n, H, W, C).

    Raises:
        DataError: If no dimension counts channels.
    """
    if images.ndim == 3:
        return images[:, None]
    if images.shape[1] in _CHANNELS:
        return images
    if images.shape[3] in _CHANNELS:
        return np.ascontiguousarray(np.moveaxis(images, 3, 1))
    raise DataError(
        "x has four dimensions but none counts channels",
        where=where,
        expected="1 or 3 channels, first or last",
        got=str(images.shape),
        remedy="Save grey images as (n, H, W) and colour images as (n, H, W, 3).",
    )


def require_one_each(values: AnyArray, key: str, examples: int, where: str) -> None:
    """Requires one integer, float or string for every example; arguments as `read_codes`.

    Raises:
        DataError: With the first thing that is wrong.
    """
    if values.ndim != 1:
        raise DataError(
            f"{key} is not one-dimensional",
            where=where,
            expected="shape (n,)",
            got=str(values.shape),
            remedy=f"Save one value per example, for instance {key}.ravel() or "
            f"{key}.argmax(axis=1) for one-hot rows.",
        )
    if len(values) != examples:
        raise DataError(
            f"x and {key} have different lengths",
            where=where,
            got=f"{examples} and {len(values)}",
            remedy=f"Save one entry of {key} for every example of x.",
        )
    if values.dtype.kind not in "biufSU":
        raise DataError(
            f"{key} holds neither integers nor strings",
            where=where,
            got=str(values.dtype),
            remedy=f"Save {key} as integers or strings.",
        )


def not_whole(values: AnyArray) -> IntArray:
    """Positions of floats that are no whole numbers, NaN and infinity among them; (m,) int64."""
    if values.dtype.kind != "f":
        return np.empty(0, np.int64)
    # Infinity equals its own rounding, so finiteness is asked for by itself.
    return np.flatnonzero(~(np.isfinite(values) & (values == np.rint(values))))


def read_codes(values: AnyArray, key: str, examples: int, where: str) -> tuple[IntArray, int]:
    """Checks labels or groups and numbers their distinct values in sorted order.

    Args:
        values: (n,) integers, whole floats or strings.
        key: Name of the array, for errors.
        examples: The n that is right.
        where: File or dataset that errors name.

    Returns:
        (n,) int64 in [0, K), and K.

    Raises:
        DataError: With the first thing that is wrong.

    >>> codes, distinct = read_codes(np.array(["b", "a", "b"]), "y", 3, "own.npz")
    >>> codes.tolist(), distinct
    ([1, 0, 1], 2)
    """
    require_one_each(values, key, examples, where)
    if (odd := not_whole(values)).size:
        first = int(odd[0])
        raise DataError(
            f"{key} is not whole at {key}[{first}]",
            where=where,
            expected="integers, whole numbers or strings",
            got=str(values[first]),
            remedy=f"Save {key} as integers; a quantity to predict is no class.",
        )
    distinct, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64), len(distinct)
