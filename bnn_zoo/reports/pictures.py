"""Plots on a page: what each shows, how to read it, and inline SVG in the colour of the page's own text."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("bnn_zoo")


@dataclass(frozen=True)
class Picture:
    """A plot that the page wants: a file name, what it shows, how to read it, and how to draw it."""

    name: str
    title: str
    caption: str
    draw: Callable[[], Figure]


def drawn(picture: Picture) -> Markup | None:
    """The plot as inline SVG; None, and a line in the log, where it fails: the page must not be lost to a plot."""
    try:
        return _svg(picture)
    except Exception:
        log.warning("the plot %r failed and was left out of the report", picture.title, exc_info=True)
        return None


def _svg(picture: Picture) -> Markup:
    import matplotlib.style

    ink = "#010203"  # stands for the colour of text until the drawing is done
    colours = dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), ink
    )
    # Text stays text, so that it is sharp, small and in the page's own font; the salt makes equal pages equal.
    style: list[str | Path | dict[str, Any]] = [
        "default",
        {**colours, "svg.fonttype": "none", "svg.hashsalt": "bnn_zoo"},
    ]
    buffer = io.StringIO()
    with matplotlib.style.context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's fonts draw it, not Matplotlib's
        bare = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        picture.draw().savefig(buffer, format="svg", transparent=True, metadata=bare)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    # Ids are made the picture's own, as all pictures share one page.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{picture.name}-", text).replace("xlink:href", "href")
    text = text.replace(ink, "currentColor")
    box = re.search(r'viewBox="[^"]*"', text).group()  # type: ignore[union-attr]  # Matplotlib always writes one
    described = Markup('<svg role="img" aria-label="{}" ').format(f"{picture.title}. {picture.caption}")
    return described + Markup(re.sub(r"^<svg[^>]*>", f"{box}>", text))
