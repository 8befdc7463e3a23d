"""The page that shows a few of the site's examples as they reach the network."""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape
from threading import Lock

import numpy as np
from PIL import Image
from torch import Tensor

from clients.site.preview import DataPreview, example_text, preview
from clients.site.site import SiteFolder
from f2l_fed.errors import visible

_SIDE = 96
"""Length of a picture's longer side, pixels."""

_ONE_AT_A_TIME = Lock()


def data_html(folder: SiteFolder) -> str:
    """The inner part of the page, HTML; raises DataError if the data can't be used."""
    with _ONE_AT_A_TIME:
        shown = preview(folder)
    parts = ", ".join(f"{count} {name}" for name, count in shown.parts.items())
    rows = "".join(
        f"<tr><td>{_text(label)}</td>"
        + "".join(f"<td class=n>{counts[name]}</td>" for name in shown.parts)
        + "</tr>"
        for label, counts in shown.per_class.items()
    )
    names = "".join(f"<th class=n>{_text(name)}</th>" for name in shown.parts)
    return (
        f"<h2>Data as they reach the network</h2><p>inputs of shape "
        f"{'x'.join(map(str, shown.input_shape))}; {_text(parts)}</p>"
        f"<div class=wide><table><tr><th>label</th>{names}</tr>{rows}</table></div>"
        f"<h2>Examples</h2>{_examples(shown)}"
        + ("<h2>Remarks</h2>" if shown.remarks else "")
        + "".join(f"<p>{_text(remark)}</p>" for remark in shown.remarks)
    )


def _examples(shown: DataPreview) -> str:
    if len(shown.input_shape) != 3:
        return "".join(
            f"<p><b>{_text(example.label)}</b> {_text(example_text(example, shown.features))} "
            f"({_text(example.place)})</p>"
            for example in shown.examples
        )
    figures = "".join(
        f"<figure><img alt='{_text(example.label)}' src='{_png(example.x)}'>"
        f"<figcaption>{_text(example.label)}</figcaption></figure>"
        for example in shown.examples
    )
    return f"<div class=pictures>{figures}</div>"


def _png(x: Tensor) -> str:
    """An image (C, H, W) in [0, 1] as a PNG inside of an address."""
    pixels = np.rint(x.numpy() * 255).astype(np.uint8)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))
    scale = _SIDE / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST if scale > 1 else None).save(file, "PNG")
    return "data:image/png;base64," + b64encode(file.getvalue()).decode()


def _text(text: str) -> str:
    return escape(visible(text))
