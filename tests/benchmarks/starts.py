"""Where should chains start? Two real sets, each start, the same iterations.

    python -m tests.benchmarks.starts [FOLDER] [--sets yacht energy] [--splits 2] [--iterations 500]

FOLDER holds ``NAME/data.txt`` of the UCI sets, as ``BNN_ZOO_DATA`` does; without either they are downloaded. Standard
splits (Hernández-Lobato & Adams 2015). Prints test log-likelihood and RMSE, function-space R-hat and ESS, and what it
cost; and by how much starts differ from the first of them on the same split, with the standard errors of these means.
"""

from __future__ import annotations

import argparse
import os

import numpyro.distributions as dist
import pandas as pd

import bnn_zoo as zoo


def main() -> None:
    """Fit every start on every split and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--sets", nargs="+", default=["yacht", "energy"])
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--starts", nargs="+", default=["prior", "map", "ensemble"])
    parser.add_argument("--activation", default="relu")
    arguments = parser.parse_args()
    if arguments.folder:
        os.environ["BNN_ZOO_DATA"] = arguments.folder
    rows = []
    for name in arguments.sets:
        for split in range(arguments.splits):
            train, test = zoo.datasets.load(name, split=split)
            for start in arguments.starts:
                method = zoo.methods.NUTS(
                    num_warmup=arguments.iterations, num_samples=arguments.iterations, start=start, max_tree_depth=9
                )
                model = zoo.models.MLP(activation=arguments.activation, weight_scale=dist.HalfNormal(3.0))
                posterior = zoo.fit(model, method, train, progress=False)
                scores, points = posterior.evaluate(test.x, test.y), posterior.diagnose().inner
                rows.append(
                    {
                        "set": name,
                        "split": split,
                        "start": start,
                        "LL": -scores["nll"],
                        "RMSE": scores["rmse"],
                        "R-hat median": points.rhat.median(),
                        "R-hat max": points.rhat.max(),
                        "ESS median": points.ess_bulk.median(),
                        "noise": posterior.draws["noise"].mean(),
                        "compile s": posterior.timing.compile_seconds,
                        "run s": posterior.timing.run_seconds,
                    }
                )
                print(
                    pd.DataFrame(rows[-1:]).to_string(index=False, header=len(rows) == 1, float_format="%.3f"),
                    flush=True,
                )
    frame = pd.DataFrame(rows).set_index(["set", "start", "split"])
    print("\nmeans over splits")
    print(frame.groupby(["set", "start"], sort=False).mean().round(3).to_string())
    first = frame.xs(arguments.starts[0], level="start")
    for start in arguments.starts[1:]:
        off = (frame.xs(start, level="start") - first)[["LL", "RMSE", "R-hat median", "ESS median"]].groupby("set")
        print(f"\n{start} less {arguments.starts[0]}, and standard errors")
        print(off.mean().join(off.sem().add_suffix(" se")).round(3).to_string())


if __name__ == "__main__":
    main()
