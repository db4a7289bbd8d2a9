"""``bnn-zoo demo``: a fit to real data, and all that a posterior is asked."""

from __future__ import annotations

import logging
from pathlib import Path

import click

import bnn_zoo as zoo
from bnn_zoo.errors import bad_value
from bnn_zoo.shell.options import File, Whole, option
from bnn_zoo.shell.printing import print_scores

log = logging.getLogger("bnn_zoo")


@click.command(short_help="fit a network to the diabetes data, write a report and plots")
@option("--out", type=File(), default="demo_output", metavar="FOLDER", help="Where to write.")
@option("--seed", type=Whole(), default=0, metavar="N", help="Of the fit.")
def demo(out: str, seed: int) -> None:
    """Fit a small network to the diabetes data, and show all that a posterior is asked."""
    from bnn_zoo.reports.sections import gallery

    folder = _folder(out)
    train, test = zoo.datasets.load("diabetes").split(test_size=0.2, seed=0)
    model, method = zoo.models.MLP(), zoo.methods.NUTS(num_warmup=500, num_samples=500)
    print(
        f"Demo: one hidden layer of {model.hidden[0]} units learns to predict the {train.target_name} of diabetes\n"
        f"over a year from {train.num_features} measurements on {len(train)} patients. NUTS draws from its posterior,\n"
        f"which is then judged on {len(test)} other patients. This takes about a minute on two cores.\n",
        flush=True,
    )
    posterior = zoo.fit(model, method, train, seed=seed)
    print(f"{posterior}\n")
    print_scores(posterior.evaluate(test.x, test.y), test)
    print(f"\n{posterior.diagnose()}\n")
    print(f"Report: {posterior.report(folder / 'diabetes.html', test)}", flush=True)
    for picture in gallery(posterior, test):
        path = folder / f"{picture.name}.png"
        try:
            picture.draw().savefig(path, dpi=150)
        except Exception:  # as in the report, one plot must not cost the others
            log.warning("the plot %r failed", picture.title, exc_info=True)
        else:
            print(f"Plot:   {path}", flush=True)


def _folder(path: str) -> Path:
    """Make the folder, before any work whose result it is to hold."""
    folder = Path(path).expanduser()
    if folder.exists() and not folder.is_dir():
        raise bad_value("--out", "a folder", f"the file {path!r}", "Give another name.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
