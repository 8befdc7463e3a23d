"""The page that shows a few of the site's examples as they reach the network."""

from __future__ import annotations

from html import escape
from threading import Lock

from clients.site.preview import DataPreview, example_text, preview
from clients.site.site_folder import SiteFolder
from f2l_fed.data.picture_address import picture_address
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
        f"<figure><img alt='{_text(example.label)}' src='{address}'>"
        f"<figcaption>{_text(example.label)}</figcaption></figure>"
        for example in shown.examples
        for address in [picture_address(example.x.numpy(), _SIDE)]
    )
    return f"<div class=pictures>{figures}</div>"


def _text(text: str) -> str:
    return escape(visible(text))
