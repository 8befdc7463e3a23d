from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from f2l_fed.data.picture_address import picture_address


@pytest.mark.parametrize(("shape", "size"), [((1, 2, 4), (8, 4)), ((3, 16, 8), (4, 8))])
def test_an_image_is_a_png_of_its_pixels(shape, size):
    x = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    kind, content = picture_address(x, 8).split(",")
    assert kind == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (image.size, image.mode) == (size, "L" if shape[0] == 1 else "RGB")
    if shape[0] == 1:
        assert np.asarray(image)[::2, ::2].tolist() == np.rint(x[0] * 255).astype(int).tolist()
