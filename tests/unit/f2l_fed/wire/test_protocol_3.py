"""Messages of wire protocol 3, as commit 80a4fc7 sent them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from hashlib import sha256
from typing import Any

import pytest
from torch import Tensor

from f2l_fed.targets import build_target
from f2l_fed.wire import packing
from tests.support.golden import V3, held_by, message, to_bytes

LAYOUT = build_target("mlp", (2,), 3).layout
OF_SITES = ("update", "first-update", "probe-reply")
KINDS = {"first-task": "task", "first-update": "update"}


def plain(value: Any) -> Any:
    """A message as JSON, tensors by their digest."""
    if isinstance(value, Tensor):
        data = value.contiguous().numpy()
        digest = sha256(data.tobytes()).hexdigest()
        return {
            "shape": list(data.shape),
            "sha256": digest,
            "first": [float(v) for v in data.ravel()[:4]],
        }
    if is_dataclass(value):
        # Later keys, which are optional and absent here.
        absent = {"shared_labels": False, "nearest": False}
        told = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return {name: one for name, one in told.items() if absent.get(name, ...) is not one}
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    return value


@pytest.mark.parametrize("name", sorted(path.stem for path in (V3 / "wire").glob("*.bin")))
def test_a_recorded_message_is_read_and_written_to_the_byte(name):
    kind = KINDS.get(name, name).replace("-", "_")
    layout = (LAYOUT,) if name in OF_SITES else ()
    value = getattr(packing, f"unpack_{kind}")(message(name), *layout)
    assert plain(value) == held_by(name)
    packed = getattr(packing, f"pack_{kind}")(value, *layout)
    assert to_bytes(packed) == (V3 / "wire" / f"{name}.bin").read_bytes()
