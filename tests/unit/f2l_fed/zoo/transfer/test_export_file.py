from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from f2l_fed.errors import UsageError, ZooError
from f2l_fed.zoo import Zoo
from tests.unit.f2l_fed.zoo.samples import CONTEXT, new_record, new_zoo


def network() -> dict[str, np.ndarray]:
    return {
        "body.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "body.bias": np.ones(2, np.float32),
        "scale": np.array(7, np.float32),
    }


def test_an_exported_network_has_the_layout_s_tensors_and_says_where_it_is_from(
    zoo: Zoo, tmp_path: Path
):
    new = new_record("3/north/0", parent="r2", metrics={"accuracy": 0.75})
    zoo.append([new])
    (file,) = zoo.export(tmp_path / "out", zoo.snapshot().records())
    tensors = load_file(file)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "body.weight": (2, 3),
        "body.bias": (2,),
        "scale": (),
    }
    np.testing.assert_array_equal(tensors["body.weight"].ravel(), new.weights[:6])
    np.testing.assert_array_equal(tensors["scale"], new.weights[8])
    with safe_open(file, framework="numpy") as opened:
        metadata = opened.metadata()
    assert file.name == "3%2Fnorth%2F0.safetensors"
    assert metadata["key"] == "3/north/0"
    assert metadata["metrics"] == '{"accuracy":0.75}'
    assert [path.name for path in (tmp_path / "out").iterdir()] == [file.name]


def test_an_exported_network_can_be_imported_by_another_zoo(zoo: Zoo, tmp_path: Path):
    new = new_record("3/north/0")
    zoo.append([new])
    (file,) = zoo.export(tmp_path, zoo.snapshot().records(), with_context=True)
    other = new_zoo(tmp_path / "other")
    first = other.import_file(file, site="guest", round=0, metrics={"accuracy": 0.5})
    assert other.import_file(file, site="guest", round=0) == first
    view = other.snapshot()
    (record,) = view.records()
    assert (record.site, record.round, record.metrics) == ("guest", 0, {"accuracy": 0.5})
    np.testing.assert_array_equal(view.weights([record])[0], new.weights)
    np.testing.assert_array_equal(view.contexts([record])[0], new.context)


def test_a_network_without_a_context_needs_one(zoo: Zoo, tmp_path: Path):
    save_file(network(), tmp_path / "net.safetensors")
    with pytest.raises(ZooError, match="the file has no context"):
        zoo.import_file(tmp_path / "net.safetensors", site="a", round=0)
    context = np.zeros(CONTEXT, np.float32)
    zoo.import_file(tmp_path / "net.safetensors", site="a", round=0, context=context)
    view = zoo.snapshot()
    assert view.weights(view.records())[0].tolist() == [0, 1, 2, 3, 4, 5, 1, 1, 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"body.bias": np.ones(3, np.float32)}, r"body\.bias: .*expected \(2,\) F32, got \(3,\)"),
        ({"body.bias": np.ones(2)}, r"body\.bias: .*expected \(2,\) F32, got \(2,\) F64"),
        ({"head": np.ones(2, np.float32)}, "expected no further tensor, got also head"),
        ({"f2l.context": np.ones(2, np.float32)}, r"f2l\.context: .*expected \(4,\) F32"),
    ],
)
def test_a_network_of_another_layout_is_refused(
    zoo: Zoo, tmp_path: Path, changes: dict[str, np.ndarray], message: str
):
    save_file({**network(), **changes}, tmp_path / "net.safetensors")
    with pytest.raises(ZooError, match=message):
        zoo.import_file(tmp_path / "net.safetensors", site="a", round=0)
    assert zoo.snapshot().commit == 0


def test_a_missing_tensor_is_named(zoo: Zoo, tmp_path: Path):
    save_file({"scale": network()["scale"]}, tmp_path / "net.safetensors")
    with pytest.raises(ZooError, match=r"expected also body\.bias, body\.weight"):
        zoo.import_file(tmp_path / "net.safetensors", site="a", round=0)


def test_a_file_that_is_no_network_is_refused(zoo: Zoo, tmp_path: Path):
    (tmp_path / "net.safetensors").write_bytes(b"\x80\x04 no network")
    with pytest.raises(ZooError, match="not a valid safetensors file"):
        zoo.import_file(tmp_path / "net.safetensors", site="a", round=0)
    with pytest.raises(UsageError, match="no such file"):
        zoo.import_file(tmp_path / "none.safetensors", site="a", round=0)
