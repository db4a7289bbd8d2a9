"""Every plot of ``zoo.plots`` as a picture, on white and on black, to be looked at.

    python -m tests.benchmarks.gallery FOLDER [--only energy cycles]

Writes ``PLOT_POSTERIOR.png``, each plot drawn twice, side by side: in Matplotlib's own style and in
``dark_background``, at the size of a paper's column. The posteriors are a 1×20 tanh network on `between`'s two clusters
of inputs, by NUTS, cyclical SGLD, mean-field VI, SWAG, MultiSWAG and a deep ensemble, and one of the diabetes data, of
ten features, by NUTS. Prints the seconds that each plot takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import matplotlib.style
import numpy as np

import bnn_zoo as zoo
from bnn_zoo import plots
from tests.benchmarks import between

METHODS = {
    "nuts": zoo.methods.NUTS(num_warmup=300, num_samples=300),
    "cyclical": zoo.methods.CyclicalSGLD(num_samples=400, samples_per_cycle=50, thinning=20, batch_size=10),
    "vi": zoo.methods.VI(guide="mean_field"),
    "swag": zoo.methods.SWAG(),
    "multiswag": zoo.methods.MultiSWAG(),
    "ensemble": zoo.methods.DeepEnsemble(num_members=8),
}
EVERY = ("prior_and_posterior", "partial_dependence", "posterior_predictive", "forest", "predictive")
PLOTS = {
    "nuts": (*EVERY, "energy", "loo_pit", "loss_surface", "traces", "ranks"),
    "cyclical": ("cycles", "loss_surface"),
    "vi": (*EVERY, "bound", "losses", "loss_surface"),
    "swag": ("loss_surface", "losses"),
    "multiswag": ("loss_surface", "forest", "prior_and_posterior"),
    "ensemble": ("loss_surface", "forest", "partial_dependence", "posterior_predictive"),
    "diabetes": (
        "prior_and_posterior",
        "energy",
        "loo_pit",
        "loss_surface",
        "partial_dependence",
        "posterior_predictive",
    ),
}


@cache
def posterior(name: str) -> zoo.Posterior:
    """Fit once."""
    if name == "diabetes":
        data = zoo.datasets.load("diabetes").split(0.1, seed=0)[0]
        return zoo.fit(zoo.models.MLP(hidden=(20,)), METHODS["nuts"], data, progress=False)
    found = between.data(0)
    data = zoo.Dataset(np.asarray(found[0]), np.asarray(found[1]), ("rain_mm",), "yield", "field")
    return zoo.fit(between.MODEL, METHODS[name], data, standardize=False, progress=False)


def drawn(draw: Callable, path: Path) -> float:
    """Draw on white and on black, put both into one picture, and return the seconds of the second drawing."""
    import io

    from PIL import Image

    pictures, seconds = [], 0.0
    for style in ("default", "dark_background"):
        with matplotlib.style.context(style):
            begin, buffer = time.perf_counter(), io.BytesIO()
            draw().savefig(buffer, format="png", dpi=110)
            seconds = time.perf_counter() - begin
        pictures.append(Image.open(buffer).convert("RGB"))
    both = Image.new("RGB", (sum(one.width for one in pictures), max(one.height for one in pictures)))
    both.paste(pictures[0], (0, 0))
    both.paste(pictures[1], (pictures[0].width, 0))
    both.save(path)
    return seconds


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", help="names of plots")
    parser.add_argument("--of", nargs="+", choices=list(PLOTS), default=list(PLOTS))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.of:
        for plot in PLOTS[name]:
            if arguments.only and plot not in arguments.only:
                continue
            draw = partial(getattr(plots, plot), posterior(name))
            if plot == "loss_surface" and name == "nuts":
                drawn(partial(draw, plane="components"), arguments.folder / f"{plot}_{name}_components.png")
            if plot == "prior_and_posterior" and name == "diabetes":
                draw = partial(draw, feature=0)
            print(f"{plot:22} {name:10} {drawn(draw, arguments.folder / f'{plot}_{name}.png'):6.2f} s", flush=True)


if __name__ == "__main__":
    main()
