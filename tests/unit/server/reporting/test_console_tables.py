"""Tables of a result for a terminal."""

from __future__ import annotations

from rich.console import Console

from server.reporting.console_tables import result_table

VERDICT = {"passed": True, "reasons": [], "figures": {}}


def shown(**parts):
    result = {"held_out": {}, "held_out_verdict": VERDICT, "data_notes": [], **parts}
    console = Console(width=120)
    with console.capture() as captured:
        for part in result_table(result):
            console.print(part)
    return captured.get()


def row(*weighted, plain, steps):
    cost = {"bytes_up": 10_792, "bytes_down": 0, "steps": steps, "own_steps": 199.5}
    return {"weighted": list(weighted), "plain": [0.0, plain], "cost": cost}


def test_baselines_for_shared_labels_have_a_row_each_with_accuracies_and_costs():
    methods = {
        "local_only": row(0.832, 0.887, plain=0.851, steps=39.9),
        "fedavg_epochs": row(0.9149, 0.922, plain=0.916, steps=39.9),
    }
    own = [
        {"round": 1, "accuracy": 0.9, "weighted": 0.917},
        {"round": 2, "accuracy": 0.8, "weighted": 0.8},
        {"round": 3, "accuracy": 0.918, "weighted": 0.923},
    ]
    part = {"rounds": [1, 3], "methods": methods}
    lines = shown(personalised=part, training_sites=own).splitlines()
    rows = {line[:13].strip(): line[13:].split() for line in lines}
    assert rows["local only"] == ["83.2", "88.7", "85.1", "10.8", "40", "200"]
    assert rows["FedAvg + 5"] == ["91.5", "92.2", "91.6", "10.8", "40", "200"]
    assert rows["F2L-Fed"] == ["91.7", "92.3", "91.8"]
    (head,) = (line for line in lines if line.startswith("method"))
    assert head.split()[1:5] == ["round", "1", "round", "3"]


def test_a_federation_that_tells_of_too_few_rounds_has_no_row():
    methods = {"local_only": row(0.832, 0.887, plain=0.851, steps=39.9)}
    own = [{"round": 1, "accuracy": 0.9, "weighted": 0.917}]
    part = {"rounds": [1, 3], "methods": methods}
    told = shown(personalised=part, training_sites=own)
    assert "local only" in told
    assert "F2L-Fed" not in told


def test_without_them_there_is_no_such_table():
    assert "own networks" not in shown()


def test_a_federation_that_changes_tells_its_sites_apart_and_what_changes():
    rows = [
        {"round": 1, "accuracy": 0.9, "weighted": 0.917, "never": 0.91, "changed": None},
        {"round": 2, "accuracy": 0.8, "weighted": 0.8, "never": 0.92, "changed": 0.7},
    ]
    own = [{**row, "joined": None} for row in rows]
    changes = [{"round": 2, "site": "site-004", "what": "camera"}]
    lines = shown(training_sites=own, changes=changes).splitlines()
    rows = {line[:11].strip(): line[11:].split() for line in lines}
    assert rows["1"] == ["90.0", "91.7", "91.0", "–", "–"]
    assert rows["2"][:5] == ["80.0", "80.0", "92.0", "70.0", "–"]
    assert " ".join(rows["2"][5:]) == "site-004 got another camera"
    assert "never" not in shown(training_sites=own)
