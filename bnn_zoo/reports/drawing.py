"""What the plots share: axes, colours that can be told apart, labels that are the user's own text."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from bnn_zoo.errors import bad_type, bad_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#808080"
CHAIN_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE)
CHAIN_STYLES = ("-", "--", ":", "-.")  # a fifth chain is the first one's colour, dashed
SIZE = (4.8, 3.4)  # inches: at a column's 3.3 inches text of 10 points is still 7 high
SMALL = 9
# How ArviZ should estimate a density: of numbers that have no bounds, and on until it is nearly 0.
SMOOTH: dict[str, Any] = {"bound_correction": False, "extend": True, "extend_fct": 1.0}
MOST_MARKS = 2000  # beyond it marks become pixels, so that a vector graphic stays small


def axes_for(ax: Axes | None, height: float = SIZE[1]) -> tuple[Figure, Axes]:
    """Return the figure to give back and the axes to draw in, new ones where there are none."""
    if ax is None:
        figure = _figure_class()(figsize=(SIZE[0], height), layout="constrained")
        return figure, figure.add_subplot()
    from matplotlib.axes import Axes

    if not isinstance(ax, Axes):
        raise bad_type("ax", "one Matplotlib Axes", type(ax).__name__, "Of several, pass one: axes[0].")
    return ax.get_figure(root=True), ax  # type: ignore[return-value]


@cache
def _figure_class() -> type:
    from matplotlib.figure import Figure

    class ZooFigure(Figure):
        """A figure that a notebook shows once: pyplot, which would show it again and keep it, is not involved."""

        def _repr_png_(self) -> bytes:
            from io import BytesIO

            buffer = BytesIO()
            self.savefig(buffer, format="png", dpi=110)
            return buffer.getvalue()

    return ZooFigure


def text_colour() -> str:
    """Return what stands out most on the present background: the colour of text."""
    from matplotlib import rcParams

    return rcParams["text.color"]


def chain_look(chain: int) -> dict[str, Any]:
    """Colour and line style of a chain, the same in every plot."""
    colours = len(CHAIN_COLOURS)
    return {"color": CHAIN_COLOURS[chain % colours], "linestyle": CHAIN_STYLES[chain // colours % len(CHAIN_STYLES)]}


def marks(
    ax: Axes, x: np.ndarray, y: np.ndarray, label: str, *, color: str = "", marker: str = "o", pixels: bool = False
) -> None:
    """Draw marks, smaller the more there are."""
    size = float(np.clip(400 / max(len(x), 1), 6, 22))
    ax.scatter(
        x,
        y,
        s=size if marker == "o" else 2 * size,
        color=color or text_colour(),
        marker=marker,
        alpha=0.8,
        linewidths=0,
        label=label,
        zorder=3,
        rasterized=pixels or len(x) > MOST_MARKS,
    )


def describe(ax: Axes, x: str, y: str, title: str = "") -> None:
    """Label the axes. Names are the user's own text: never read as mathematics, nor let run off the figure."""
    ax.set_xlabel(shortened(x, 60), parse_math=False)
    ax.set_ylabel(shortened(y), parse_math=False)
    if title:
        ax.set_title(shortened(title, 70), fontsize=SMALL, parse_math=False)
    ax.spines[["top", "right"]].set_visible(False)


def shortened(text: str, most: int = 45) -> str:
    """Return ``text`` on one line and at most so long."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def legend_below(ax: Axes, columns: int = 2) -> None:
    """Put a legend below the axes, where it hides no data, at a fixed distance whatever their height."""
    from matplotlib.transforms import ScaledTranslation

    below = ax.transAxes + ScaledTranslation(0, -33 / 72, ax.get_figure(root=True).dpi_scale_trans)  # type: ignore[union-attr]
    legend = ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        bbox_transform=below,
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def panels_for(ax: Any, count: int, columns: int, height: float = SIZE[1]) -> tuple[Figure, list[Axes]]:
    """Return the figure and as many axes as there are panels, new ones, row by row, where none are given.

    Raises
    ------
    ZooTypeError, ZooValueError
        If ``ax`` is no sequence of Axes (one Axes will do for one panel), or of another number.
    """
    if ax is None:
        figure = _figure_class()(figsize=(SIZE[0], height), layout="constrained")
        return figure, [figure.add_subplot(-(-count // columns), columns, i + 1) for i in range(count)]
    from matplotlib.axes import Axes

    given = [ax] if isinstance(ax, Axes) else list(np.ravel(ax))
    if not all(isinstance(one, Axes) for one in given):
        raise bad_type("ax", "a sequence of Matplotlib Axes", type(ax).__name__, "Take those of plt.subplots().")
    if len(given) != count:
        raise bad_value("ax", f"as many Axes as there are panels, {count}", len(given), f"Take plt.subplots({count}).")
    return given[0].get_figure(root=True), given  # type: ignore[return-value]


def cycle_colours(count: int) -> np.ndarray:
    """Colours ``(count, 4)`` of what comes one after another, all of them 3 : 1 on white and on black."""
    from matplotlib import colormaps

    return colormaps["plasma"](np.linspace(0.35, 0.63, count))
