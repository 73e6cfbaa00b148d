# SPDX-License-Identifier: Apache-2.0
"""Write the HTML page of the gallery, with the plots and accuracies of all losses."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

STYLE = """
body { font: 15px/1.4 sans-serif; margin: 24px; color: #282828; }
table { border-collapse: collapse; margin: 16px 0; }
td, th { padding: 2px 14px 2px 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(520px, 1fr)); gap: 20px; }
figure { margin: 0; }
img { width: 100%; height: auto; }
"""
RULES = {
    "product": "largest inner product with a class vector",
    "cosine": "largest cosine to a class centre",
    "distance": "nearest class mean of the head",
    "mean cosine": "largest cosine to the mean direction of a digit's training images",
}


@dataclass(frozen=True)
class Row:
    """Results of training with one loss, for the page and for the JSON file of results."""

    name: str
    image: str
    """File name of the plot, in the folder of the page."""
    settings: str
    rule: str
    train_accuracy: float
    test_accuracy: float
    epochs: float
    seconds: float
    """Duration of training, embedding and plotting, in seconds."""
    images_per_second: float
    """Images per second of training, without embedding and plotting."""


def format_settings(name: str, head: dict[str, Any]) -> str:
    """Return the name and the settings of a head as one line."""
    return f"{name}({', '.join(f'{key}={value}' for key, value in head.items())})"


def page(title: str, about: str, rows: Sequence[Row], size: tuple[int, int]) -> str:
    """Return the HTML of the gallery, which refers to no files except the plots.

    Parameters
    ----------
    title, about
        Heading of the page, and the sentence below the heading.
    rows
        Results of the losses, in the order in which the page shows them.
    size
        Width and height of each plot in pixels.
    """
    table = "\n".join(
        f'<tr><td><a href="#{row.name}">{row.name}</a></td>'
        f'<td class="number">{row.test_accuracy:.4f}</td>'
        f'<td class="number">{row.train_accuracy:.4f}</td>'
        f'<td class="number">{row.seconds:.0f} s</td>'
        f"<td>{RULES[row.rule]}</td><td>{html.escape(row.settings)}</td></tr>"
        for row in rows
    )
    figures = "\n".join(
        f'<figure id="{row.name}"><a href="{row.image}"><img src="{row.image}" '
        f'width="{size[0]}" height="{size[1]}" loading="lazy" alt="{row.name}: training and test '
        f'embeddings"></a><figcaption><b>{row.name}</b>, test accuracy {row.test_accuracy:.4f}'
        "</figcaption></figure>"
        for row in rows
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style></head>
<body>
<h1>{html.escape(title)}</h1>
<p>{html.escape(about)}</p>
<main>
{figures}
</main>
<table>
<tr><th>loss</th><th>test</th><th>train</th><th>time</th><th>class by</th><th>settings</th></tr>
{table}
</table>
</body>
</html>
"""
