"""The features of simulated sites: those of their own pictures, and of equal ones made once."""

from __future__ import annotations

import numpy as np
import torch

from f2l_fed.data import SiteData
from f2l_fed.data.scenarios.partition import Partition
from f2l_fed.data.scenarios.site_data import SiteFile
from f2l_fed.targets.backbone import features_of
from server.simulation.features import on_features
from tests.support.backbones import FEATURES, SHAPE, opened


def site(name: str, x: np.ndarray, test: np.ndarray) -> SiteData:
    y, y_test = (np.zeros(len(part), np.int64) for part in (x, test))
    own, further = SiteFile(x=x, y=y), SiteFile(x=test, y=y_test)
    return SiteData(
        name=name, x_train=x, y_train=y, x_test=test, y_test=y_test, classes=(0,), own=own,
        further=further,
    )  # fmt: skip


def test_equal_pictures_of_several_sites_are_made_once(tmp_path):
    backbone = opened(tmp_path)
    x = np.random.default_rng(0).random((9, *SHAPE), np.float32)
    divided = Partition(
        scenario="few-shot",
        sites=(site("site-000", x[:4], x[4:6]), site("site-001", x[1:5], x[:2])),
        held_out={"seen": (site("seen-000", x[5:8], x[7:9]),), "unseen": None},
        classes=2,
        input_shape=SHAPE,
        shared_labels=False,
        disjoint=False,
        pool=("made up",),
    )
    asked: list[int] = []
    module = backbone.front()
    hook = module.register_forward_hook(lambda _, given, __: asked.append(len(given[0])))
    told: list[tuple[int, int]] = []
    try:
        found = on_features(divided, backbone, tmp_path, lambda *now: told.append(now))
    finally:
        hook.remove()
    assert sum(asked) == len(x)
    assert told[-1] == (17, 17)
    assert found.input_shape == (FEATURES,)
    for before, after in zip(
        (*divided.sites, *divided.held_out["seen"]),
        (*found.sites, *found.held_out["seen"]),
        strict=True,
    ):
        for part in ("x_train", "x_test"):
            expected = features_of(module, torch.from_numpy(getattr(before, part)))
            made = torch.from_numpy(getattr(after, part))
            torch.testing.assert_close(made, expected)
