from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from clients.client_app import app
from clients.site.model_store import load_model, load_start
from f2l_fed.local_training.config import Recipe
from f2l_fed.targets import build_target
from f2l_fed.wire.messages import PROBE_ACTION, TASK_ACTION, ProbeRequest, Refusal, Task
from f2l_fed.wire.packing import (
    pack_probe_request,
    pack_task,
    unpack_probe_reply,
    unpack_refusal,
    unpack_update,
)
from tests.support.loopback import LoopbackGrid
from tests.support.sites import digits_site, frame

SECRET = "patient-4711"


def task(target: str = "mlp", steps: int = 3, **changes: object) -> RecordDict:
    """A task from the anchor."""
    return pack_task(
        Task(
            frame=dataclasses.replace(frame(target), **changes),
            anchor=None,
            round=1,
            release="",
            recipe=Recipe(steps=steps),
            candidates=(),
        )
    )


def ask(site: Path, content: RecordDict, action: str = TASK_ACTION) -> RecordDict:
    grid = LoopbackGrid(app, {7: {"site": str(site)}})
    (reply,) = grid.send_and_receive([Message(content, 7, action)])
    assert reply.has_content(), reply.error
    return reply.content


def refusal(content: RecordDict) -> Refusal:
    refused = unpack_refusal(content)
    assert refused is not None
    assert set(content) == {"refusal"}
    return refused


def sent(site: Path) -> list[dict]:
    return [
        json.loads(line) for line in (site.parent / "state/sent.jsonl").read_text().split("\n")[:-1]
    ]


def everything(content: RecordDict) -> str:
    return repr({name: dict(record) for name, record in content.items()})


def test_an_update_comes_back_and_the_record_says_the_same(tmp_path):
    site = digits_site(tmp_path)
    content = ask(site, task())
    layout = build_target("mlp", frame().input_shape, 3).layout
    update = unpack_update(content, layout)
    (entry,) = sent(site)
    assert entry["kind"] == "update"
    assert entry["numbers"] == update.numbers
    assert entry["fields"] == dict(content.config_records["update"])
    shapes = {"weights": [1, layout.size], "probes": [2, layout.size]}
    assert entry["tensors"] == {"arrays": shapes}
    vectors = {"weights.0": update.weights[0]}
    vectors |= {f"probes.{episode}": probe for episode, probe in enumerate(update.probes)}
    assert entry["norms"] == pytest.approx({k: float(v.norm()) for k, v in vectors.items()})
    start = load_start(tmp_path / "state")
    assert start is not None
    change = float((update.weights[0] - start.model.weights).norm())
    assert entry["changes"] == [pytest.approx(change, rel=1e-5)]


def test_the_site_keeps_its_network(tmp_path):
    site = digits_site(tmp_path)
    layout = build_target("mlp", frame().input_shape, 3).layout
    update = unpack_update(ask(site, task()), layout)
    model = load_model(tmp_path / "state")
    assert model is not None
    assert model.weights.equal(update.weights[0])
    assert model.facts.accuracy == update.numbers["accuracy_after"]
    assert json.loads((tmp_path / "state/model.json").read_text())["round"] == 1


def test_a_probe_is_answered_and_recorded(tmp_path):
    site = digits_site(tmp_path)
    content = ask(
        site,
        pack_probe_request(ProbeRequest(frame=frame(), anchor=None)),
        PROBE_ACTION,
    )
    layout = build_target("mlp", frame().input_shape, 3).layout
    assert unpack_probe_reply(content, layout).site == "north"
    assert [entry["kind"] for entry in sent(site)] == ["probe"]


def test_numbers_that_the_policy_withholds_do_not_leave(tmp_path):
    site = digits_site(tmp_path, more='[policy]\nnumbers = "steps"\n')
    content = ask(site, task())
    assert dict(content.metric_records["numbers"]) == {"steps": 3.0}
    assert sent(site)[0]["numbers"] == {"steps": 3.0}


@pytest.mark.parametrize(
    ("more", "content", "code"),
    [
        ("[policy]\nmaximum_steps = 3", task(steps=4), "too-many-steps"),
        ("[policy]\ntargets = 'cnn-xs'", task(), "target-not-allowed"),
        ("[policy]\nminimum_examples = 31", task(), "too-few-examples"),
        ("[policy]\nmaximum_upload_bytes = 100", task(), "upload-too-large"),
        ("", task(target="mlp", layout="0" * 64), "other-network"),
        # Before anything of that size is built.
        ("", task(classes=2), "too-many-classes"),
        ("", task(input_shape=(1, 9, 9)), "inputs-of-another-shape"),
        ("", RecordDict(), "message-not-understood"),
        ("validation = 'absent.npz'", task(), "data-unusable"),
        ("nonsense = 1", task(), "configuration-invalid"),
    ],
)
def test_an_impossible_task_is_refused_with_a_code(tmp_path, more, content, code):
    assert refusal(ask(digits_site(tmp_path, more=more), content)).code == code


def test_a_target_that_names_code_is_never_imported(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = pack_task(
        Task(
            frame=dataclasses.replace(frame(), target="evil:factory"),
            anchor=None,
            round=1,
            release="",
            recipe=Recipe(steps=1),
            candidates=(),
        )
    )
    assert refusal(ask(digits_site(tmp_path / "site"), content)).code == "target-not-allowed"
    assert not (tmp_path / "ran").exists()


def test_answers_beyond_the_daily_number_are_refused(tmp_path):
    site = digits_site(tmp_path, more="[policy]\nanswers_per_day = 1\n")
    assert unpack_refusal(ask(site, task())) is None
    assert refusal(ask(site, task())).code == "too-many-answers-today"
    assert [entry["kind"] for entry in sent(site)] == ["update", "refusal"]
    assert sent(site)[1]["fields"] == {
        "site": "north",
        "code": "too-many-answers-today",
        "protocol": 4,
    }


def test_the_text_of_an_error_stays_at_the_site(tmp_path, caplog):
    site = digits_site(tmp_path, more=f'validation = "{SECRET}.npz"\n')
    content = ask(site, task())
    assert refusal(content).code == "data-unusable"
    assert SECRET not in everything(content)
    assert SECRET in caplog.text


def test_an_unforeseen_exception_leaves_as_a_single_word(tmp_path, caplog):
    site = digits_site(tmp_path, more=f'state = "{SECRET}"\n')
    (tmp_path / SECRET).write_text("a file in the way of the state folder")
    content = ask(site, task())
    assert refusal(content) == Refusal(site="north", code="failed")
    assert SECRET not in everything(content)
    assert "FileExistsError" in caplog.text


def test_nothing_leaves_when_it_can_not_be_recorded(tmp_path, caplog):
    site = digits_site(tmp_path)
    (tmp_path / "state/sent.jsonl").mkdir(parents=True)
    content = ask(site, task())
    assert refusal(content).code == "failed"
    assert not content.array_records


def test_a_label_that_the_network_has_no_output_for_is_refused(tmp_path):
    site = digits_site(tmp_path)
    np.savez(tmp_path / "train.npz", x=np.zeros((30, *frame().input_shape)), y=[0, 3, 1, 2, 1] * 6)
    assert refusal(ask(site, task())).code == "too-many-classes"
