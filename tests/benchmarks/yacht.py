"""Scores better than any published, from chains that have not converged: what diagnosis, page and table say.

    python -m tests.benchmarks.yacht [FOLDER] [--iterations 500] [--activations relu tanh] [--seeds 1]
        [--report yacht.html]

Yacht, standard split 0, 1×50, a half-Normal(3) scale, NUTS from trained networks, beside a deep ensemble and Laplace.
FOLDER holds ``NAME/data.txt`` of the UCI sets, as ``BNN_ZOO_DATA`` does; without either they are downloaded. Prints the
diagnosis of each NUTS run, f(x) by place, what single chains score, and the comparison of all. With more ``--seeds``
the scores of NUTS by seed as well, which would be alike if chains had converged.
"""

from __future__ import annotations

import argparse
import os

import numpyro.distributions as dist
import pandas as pd

import bnn_zoo as zoo
from bnn_zoo.reports import apart

COLUMNS = ["rmse", "nll", "nll_se", "nll_worst_chain", "rhat", "ess", "draws", "run_seconds", "verdict"]


def by_seed(activation: str, seed: int, posterior: zoo.Posterior, test: zoo.Dataset) -> dict[str, object]:
    """What all chains score together, and the best and the worst of them alone."""
    alone = apart.nll_of_chains(posterior, test)
    together = posterior.evaluate(test.x, test.y)
    return {
        "activation": activation,
        "seed": seed,
        "LL": -float(together["nll"]),
        "best chain": -float(min(alone)),
        "worst chain": -float(max(alone)),
        "RMSE": float(together["rmse"]),
        "R-hat": float(posterior.diagnose(test.x).inner.rhat.max()),
    }


def main() -> None:
    """Fit, and print what is said of the fits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--activations", nargs="+", default=["relu", "tanh"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--report", help="write the page that compares them all here")
    arguments = parser.parse_args()
    if arguments.folder:
        os.environ["BNN_ZOO_DATA"] = arguments.folder
    train, test = zoo.datasets.load("yacht", split=0)
    length, fits, scores = arguments.iterations, {}, []
    for activation in arguments.activations:
        model = zoo.models.MLP(activation=activation, weight_scale=dist.HalfNormal(3.0))
        nuts = zoo.methods.NUTS(num_warmup=length, num_samples=length, max_tree_depth=9)
        runs = [zoo.fit(model, nuts, train, seed=seed, progress=False) for seed in range(arguments.seeds)]
        scores += [by_seed(activation, seed, one, test) for seed, one in enumerate(runs)]
        posterior = fits[f"nuts, {activation}"] = runs[0]
        diagnosis = posterior.diagnose(test.x)
        print(f"\n{activation}: {posterior.timing.run_seconds:.0f} s\n{diagnosis}")
        print(diagnosis.points.groupby("where", sort=False).median().to_string(float_format="%.3g"))
        print(apart.in_words(posterior, test, float(posterior.evaluate(test.x, test.y)["nll"])))
    plain = zoo.models.MLP(activation=arguments.activations[0])
    fits["ensemble"] = zoo.fit(plain, "ensemble", train, progress=False)
    fits["laplace"] = zoo.fit(plain, "laplace", train, progress=False)
    print(f"\n{zoo.compare(fits, test)[COLUMNS].to_string(float_format='%.3g')}")
    if arguments.seeds > 1:
        print(f"\n{pd.DataFrame(scores).to_string(index=False, float_format='%.3g')}")
    if arguments.report:
        print("page:", zoo.report(fits, arguments.report, test))


if __name__ == "__main__":
    main()
