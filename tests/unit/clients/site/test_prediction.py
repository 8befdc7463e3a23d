"""Predictions for images: the preprocessing of the training, whatever the new images hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clients.site.prediction import Predictor
from clients.site.site import open_site
from f2l_fed.data.readers.findings import Findings
from f2l_fed.targets import build_target
from tests.support.checked_site import site_on
from tests.support.site_models import network_of


def floats(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.float32)).save(path)


def test_a_dark_image_of_floats_has_the_white_of_the_training(tmp_path):
    rng = np.random.default_rng(0)
    for n in range(20):
        floats(tmp_path / "d" / "ab"[n % 2] / f"{n}.tif", 50 + 200 * rng.random((6, 8)))
    site = open_site(site_on(tmp_path / "d"))
    assert site.encoding.white == 255
    model = network_of(site, site.labels, "white")
    predictor = Predictor(model=model, reading=site.config.data)
    assert predictor.encoding == site.encoding
    floats(tmp_path / "new/a/dark.tif", np.full((6, 8), 0.9))
    findings = Findings("")
    _, batches = predictor.predict(tmp_path / "new", findings, threshold=0.0)
    ((told,),) = batches
    network = build_target("cnn-xs", (1, 6, 8), 2)
    dark = network.logits(model.weights, torch.full((1, 1, 6, 8), 1 / 255)).softmax(1)
    assert told.probability == pytest.approx(dark.max().item(), abs=1e-5)
    examples = predictor.labelled(tmp_path / "new", findings)
    assert examples.x.flatten().tolist() == pytest.approx([1 / 255] * 48)
