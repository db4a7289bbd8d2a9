"""Bayesian neural networks of the literature as NumPyro models, under the inference methods of the literature."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bnn_zoo import datasets, errors, methods, models
from bnn_zoo.datasets import Dataset

if TYPE_CHECKING:
    from bnn_zoo import priors
    from bnn_zoo.distilling import distill
    from bnn_zoo.engine.disk_cache import compile_cache
    from bnn_zoo.estimating import estimate
    from bnn_zoo.estimator import BNNRegressor
    from bnn_zoo.fitting import fit
    from bnn_zoo.infinite import GaussianProcess, infinite_width
    from bnn_zoo.keeping.posteriors import load
    from bnn_zoo.posterior import Posterior
    from bnn_zoo.prediction import Prediction
    from bnn_zoo.priors import lipschitz_bound
    from bnn_zoo.reports import plots
    from bnn_zoo.reports.calibration import sbc
    from bnn_zoo.reports.comparison import compare
    from bnn_zoo.reports.gaps import evaluate_gaps
    from bnn_zoo.reports.loo import kfold, loo
    from bnn_zoo.reports.side_by_side import report
    from bnn_zoo.reports.stacking import stack
    from bnn_zoo.reports.stein import kernel_stein_discrepancy
    from bnn_zoo.streams import Stream

__all__ = [
    "BNNRegressor",
    "Dataset",
    "GaussianProcess",
    "Posterior",
    "Prediction",
    "Stream",
    "compare",
    "compile_cache",
    "datasets",
    "distill",
    "errors",
    "estimate",
    "evaluate_gaps",
    "fit",
    "infinite_width",
    "kernel_stein_discrepancy",
    "kfold",
    "lipschitz_bound",
    "load",
    "loo",
    "methods",
    "models",
    "plots",
    "priors",
    "report",
    "sbc",
    "stack",
]

__version__ = "0.1.0"

# Loaded when first asked for: pandas, SciPy, Optax and matplotlib take longer to import than a small fit takes to run.
_LAZY = {
    "BNNRegressor": ("bnn_zoo.estimator", "BNNRegressor"),
    "compare": ("bnn_zoo.reports.comparison", "compare"),
    "compile_cache": ("bnn_zoo.engine.disk_cache", "compile_cache"),
    "distill": ("bnn_zoo.distilling", "distill"),
    "estimate": ("bnn_zoo.estimating", "estimate"),
    "evaluate_gaps": ("bnn_zoo.reports.gaps", "evaluate_gaps"),
    "fit": ("bnn_zoo.fitting", "fit"),
    "GaussianProcess": ("bnn_zoo.infinite", "GaussianProcess"),
    "infinite_width": ("bnn_zoo.infinite", "infinite_width"),
    "kernel_stein_discrepancy": ("bnn_zoo.reports.stein", "kernel_stein_discrepancy"),
    "kfold": ("bnn_zoo.reports.loo", "kfold"),
    "lipschitz_bound": ("bnn_zoo.priors", "lipschitz_bound"),
    "load": ("bnn_zoo.keeping.posteriors", "load"),
    "loo": ("bnn_zoo.reports.loo", "loo"),
    "plots": ("bnn_zoo.reports.plots", None),
    "Posterior": ("bnn_zoo.posterior", "Posterior"),
    "Prediction": ("bnn_zoo.prediction", "Prediction"),
    "priors": ("bnn_zoo.priors", None),
    "report": ("bnn_zoo.reports.side_by_side", "report"),
    "sbc": ("bnn_zoo.reports.calibration", "sbc"),
    "stack": ("bnn_zoo.reports.stacking", "stack"),
    "Stream": ("bnn_zoo.streams", "Stream"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'bnn_zoo' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    found = import_module(module)
    return found if attribute is None else getattr(found, attribute)


def __dir__() -> list[str]:
    return __all__
