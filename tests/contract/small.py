"""Every registered model and method with settings small enough to be fitted within seconds, and data to fit."""

from __future__ import annotations

import numpy as np

import bnn_zoo as zoo

NUM_ROWS, WIDTH = 20, 3

MODELS = {
    "linear": (zoo.models.Linear, {}),
    "mlp": (zoo.models.MLP, {"hidden": (WIDTH,)}),
    "heteroscedastic_mlp": (zoo.models.HeteroscedasticMLP, {"hidden": (WIDTH,)}),
    "rank1_mlp": (zoo.models.Rank1MLP, {"hidden": (WIDTH,)}),
    "residual_mlp": (zoo.models.ResidualMLP, {"hidden": (WIDTH, WIDTH)}),
    "ard_mlp": (zoo.models.ARDMLP, {"hidden": (WIDTH,)}),
    "horseshoe_mlp": (zoo.models.HorseshoeMLP, {"hidden": (WIDTH,)}),
}
CHAINS = {"num_warmup": 20, "num_samples": 8, "num_chains": 2, "start": "prior"}
CYCLES = CHAINS | {"samples_per_cycle": 4, "thinning": 2, "batch_size": 5}
TRAINED = {"num_steps": 20, "polish_steps": 2}
NEAREST = {"num_samples": 9, "num_steps": 20, "batch_size": 5}
AVERAGED = {"warm_steps": 20, "num_steps": 30, "batch_size": 5}
METHODS = {
    "mh": (zoo.methods.MetropolisHastings, CHAINS | {"thinning": 2, "num_warmup": 100}),
    "hmc": (zoo.methods.HMC, CHAINS | {"num_warmup": 100}),
    "nuts": (zoo.methods.NUTS, CHAINS | {"max_tree_depth": 5}),
    "mclmc": (zoo.methods.MCLMC, CHAINS | {"thinning": 2, "num_warmup": 60}),
    "sgld": (zoo.methods.SGLD, CHAINS | {"thinning": 2, "batch_size": 5}),
    "sghmc": (zoo.methods.SGHMC, CHAINS | {"thinning": 2, "batch_size": 5}),
    "cyclical_sgld": (zoo.methods.CyclicalSGLD, CYCLES),
    "cyclical_sghmc": (zoo.methods.CyclicalSGHMC, CYCLES),
    "hmcecs": (zoo.methods.HMCECS, CHAINS | {"batch_size": 5, "num_blocks": 2, "max_tree_depth": 5}),
    "map": (zoo.methods.MAP, {"num_steps": 20, "num_restarts": 2, "polish_steps": 2}),
    "ensemble": (zoo.methods.DeepEnsemble, TRAINED | {"num_members": 3}),
    "anchored_ensemble": (zoo.methods.DeepEnsemble, TRAINED | {"num_members": 3, "anchored": True}),
    "swa": (zoo.methods.SWA, AVERAGED),
    "swag": (zoo.methods.SWAG, AVERAGED | {"num_samples": 9, "rank": 3}),
    "multiswag": (zoo.methods.MultiSWAG, AVERAGED | {"num_samples": 9, "rank": 3, "num_modes": 2}),
    "laplace": (zoo.methods.Laplace, {"num_samples": 9, "num_steps": 20, "num_restarts": 2, "polish_steps": 200}),
    **{
        guide: (zoo.methods.VI, NEAREST | {"guide": guide})
        for guide in ("spherical", "mean_field", "layerwise", "low_rank", "full_rank", "rank1", "iaf", "bnaf")
    },
    "dvi": (zoo.methods.DeterministicVI, NEAREST | {"num_restarts": 2}),
    "mc_dropout": (zoo.methods.MCDropout, {"num_samples": 9, "num_steps": 20, "batch_size": 5}),
    "svgd": (zoo.methods.SVGD, {"num_members": 3, "num_steps": 20, "batch_size": 5}),
}
SLOW = ("sgld", "cyclical_sghmc", "hmcecs")  # each of a pair, and the slowest to compile
GUIDES = [name for name, (make, _) in METHODS.items() if make is zoo.methods.VI and name not in ("mean_field", "rank1")]


def make_data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(NUM_ROWS, 2))
    return x, 3 + x @ [1.0, -2.0] + 0.5 * rng.normal(size=NUM_ROWS)


def make_model(name: str, **changes):
    make, settings = MODELS[name]
    return make(**(settings | changes))


def make_method(name: str, **changes):
    make, settings = METHODS[name]
    return make(**(settings | changes))
