"""Files from elsewhere: state_dicts, and headers that were made to do harm."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from f2l_fed.errors import ZooError
from f2l_fed.zoo import Zoo
from tests.unit.f2l_fed.zoo.samples import CONTEXT

HEADER: dict[str, Any] = {
    "body.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "body.bias": {"dtype": "F32", "shape": [2], "data_offsets": [24, 32]},
    "scale": {"dtype": "F32", "shape": [], "data_offsets": [32, 36]},
}
HUGE = 1 << 50


def written(path: Path, header: bytes, *, length: int | None = None, data: int = 36) -> Path:
    start = (len(header) if length is None else length).to_bytes(8, "little")
    path.write_bytes(start + header + bytes(data))
    return path


def changed(name: str, **changes: Any) -> bytes:
    return json.dumps({**HEADER, name: {**HEADER[name], **changes}}).encode()


def take(zoo: Zoo, path: Path) -> None:
    zoo.import_file(path, site="a", round=0, context=np.zeros(CONTEXT, np.float32))


def test_a_plain_header_is_read(zoo: Zoo, tmp_path: Path):
    take(zoo, written(tmp_path / "net", json.dumps(HEADER).encode()))
    assert zoo.snapshot().weights(zoo.snapshot().records()).tolist() == [[0] * 9]


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        (b"{}", {"length": HUGE}, "a header of 1 to"),
        (b"{}", {"length": 2**64 - 1}, "a header of 1 to"),
        (b"", {"data": 0}, "got one of 0"),
        (b"[" * 50_000, {}, "a header of tensors in JSON"),
        (b"[]", {}, "a header of tensors in JSON"),
        (b"\xff{}", {}, "a header of tensors in JSON"),
        (b'{"scale":1,"scale":2}', {}, "a name is repeated"),
        (changed("scale", data_offsets=[32, HUGE]), {}, "1 numbers in tensor scale"),
        (changed("scale", shape=[HUGE], data_offsets=[32, 32 + 4 * HUGE]), {}, "bytes, got 2"),
        (changed("scale", shape=[HUGE, HUGE, HUGE]), {}, "numbers in tensor scale, got 4 bytes"),
        (changed("scale", data_offsets=[24, 28]), {}, "tensor body.bias at byte 28"),
        (changed("scale", data_offsets=[28, 32]), {}, "tensor scale at byte 32"),
        (changed("scale", data_offsets=[36, 40]), {"data": 40}, "scale at byte 32 of the data"),
        (changed("scale", data_offsets=[-4, 0]), {}, "sizes of tensor scale from 0 up"),
        (changed("scale", data_offsets=[36, 32]), {}, "sizes of tensor scale from 0 up"),
        (changed("body.bias", shape=[-2]), {}, "sizes of tensor body.bias from 0 up"),
        (changed("body.bias", shape=[2.0]), {}, "sizes of tensor body.bias from 0 up"),
        (changed("body.bias", shape=[True, 2]), {}, "sizes of tensor body.bias from 0 up"),
        (changed("body.bias", shape=None), {}, "dtype, shape and data_offsets of tensor body.bi"),
        (changed("body.bias", data_offsets=[1]), {}, "dtype, shape and data_offsets of tensor bod"),
        (changed("body.bias", dtype="F64"), {}, r"expected \(2,\) F32, got \(2,\) F64"),
        (changed("body.bias", dtype=["F32"]), {}, "sizes of tensor body.bias"),
        (json.dumps(HEADER).encode(), {"data": 35}, "bytes, got"),
        (json.dumps(HEADER).encode(), {"data": 37}, "bytes, got"),
    ],
)
def test_a_hostile_header_is_refused_before_anything_is_allocated(
    zoo: Zoo, tmp_path: Path, header: bytes, options: dict[str, int], message: str
):
    path = written(tmp_path / "net", header, **options)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ZooError, match=message):
        take(zoo, path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert zoo.snapshot().commit == 0


def test_a_state_dict_is_imported(zoo: Zoo, tmp_path: Path):
    state = {
        "scale": torch.tensor(7.0),
        "body.weight": torch.arange(6.0).view(3, 2).t(),
        "body.bias": torch.nn.Parameter(torch.ones(2)),
    }
    torch.save(state, tmp_path / "net.pt")
    take(zoo, tmp_path / "net.pt")
    view = zoo.snapshot()
    assert view.weights(view.records()).tolist() == [[0, 2, 4, 1, 3, 5, 1, 1, 7]]


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"scale": Harm()}, "not a file that torch can load as weights only"),
        (torch.ones(9), "the file has no state_dict: expected tensors by name, got Tensor"),
        ({"scale": 7.0}, "the file has no state_dict"),
        ({"scale": torch.tensor(7.0)}, r"expected also body\.bias, body\.weight"),
    ],
)
def test_a_torch_file_that_is_no_network_is_refused_and_runs_nothing(
    zoo: Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, message: str
):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "net.pt")
    with pytest.raises(ZooError, match=message):
        take(zoo, tmp_path / "net.pt")
    assert not Path("harm").exists()


def test_a_torn_torch_file_is_refused(zoo: Zoo, tmp_path: Path):
    torch.save({"scale": torch.tensor(7.0)}, tmp_path / "net.pt")
    data = (tmp_path / "net.pt").read_bytes()
    for size in (4, 30, len(data) // 2, len(data) - 1):
        (tmp_path / "net.pt").write_bytes(data[:size])
        with pytest.raises(ZooError, match="not a file that torch can load as weights only"):
            take(zoo, tmp_path / "net.pt")
