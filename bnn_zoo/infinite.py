"""The limit of infinite width: exact Bayesian inference with the Gaussian process that a wide network's prior becomes.

No method of `bnn_zoo.methods`: a method returns draws of weights, of which an infinite network has none. What is left
of a posterior without weights, its functions and predictions, is here, under the names that `bnn_zoo.Posterior` has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bnn_zoo import models
from bnn_zoo.components import OneNormal
from bnn_zoo.datasets import Dataset, as_dataset
from bnn_zoo.engine import process
from bnn_zoo.engine.compiled import Stopwatch
from bnn_zoo.engine.keys import seed_key
from bnn_zoo.engine.process import Fitted, Network
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import ZooValueError, bad_type, bad_value, check_choice, check_count
from bnn_zoo.inputs import as_inputs, as_targets
from bnn_zoo.models.linear import Linear
from bnn_zoo.models.mlp import MLP
from bnn_zoo.posterior import Timing
from bnn_zoo.prediction import Prediction

if TYPE_CHECKING:
    import pandas as pd

    from bnn_zoo.reports.convergence import Diagnosis

MOST_ROWS = 20_000
MOST_JOINT = 5_000  # inputs of joint draws
MATRICES = 3  # of n × n numbers: the kernel, its factor, and one to work in
MOST_LEFT_OUT = 1e-3  # share of a layer's variance whose correlations are bounded and not known
CONDITION = (1e12, 1e15)  # at 1e15 float64 has lost all its digits


def infinite_width(
    model: Any, data: Any, *, seed: int = 0, standardize: bool | None = None, num_samples: int = 1000
) -> GaussianProcess:
    """Return the exact posterior of ``model`` as the widths of its hidden layers go to infinity.

    Under priors of variance 1 / inputs a wide network is a Gaussian process, whose kernel depends on depth, activation
    and scales, so that regression has a closed form: what the posterior of a finite network tends to, and a reference
    without Monte Carlo error. Choose it to see what width costs or gives; what it lacks is learnt features.

    Parameters
    ----------
    model : str or object
        An `MLP` (widths are ignored, their number is not), or `Linear`, for which nothing is a limit. Scales and noise
        must be numbers.
    data : Dataset, pair or str
        As `bnn_zoo.fit` takes it; at most 20,000 rows.
    seed : int
        Of `GaussianProcess.function_draws`.
    standardize : bool or None
        As in `bnn_zoo.fit`: ``None`` is True.
    num_samples : int
        Functions that `GaussianProcess.function_draws` draws.

    Returns
    -------
    GaussianProcess
        Predictions, function draws, evidence and scores, in original units.

    Raises
    ------
    ZooTypeError, ZooValueError
        If the model has no such limit here or a prior on scale or noise, the rows are too many, the covariance has no
        Cholesky factor in float64 (too small a noise), or the activation's kernel is not known well enough (tanh, gelu
        and silu at pre-activations of an sd above about 50).

    References
    ----------
    Neal (1996), Bayesian Learning for Neural Networks, section 2.1; Lee et al. (2018), Deep neural networks as Gaussian
    processes, equations 5 to 9; Matthews et al. (2018), Gaussian process behaviour in wide deep neural networks.
    """
    from bnn_zoo.fitting import provenance  # stands above

    seed_key(seed)
    check_count("num_samples", num_samples)
    check_choice("standardize", standardize, (True, False, None))
    model = models.registry.look_up(model)
    network = _network(model)
    dataset = as_dataset(data)
    _check_rows("data", dataset.num_rows, MOST_ROWS)
    scaled = standardize is not False
    scaling = Scaling.of(dataset.x, dataset.y, dataset.feature_names) if scaled else Scaling.none(dataset.x.shape[1])
    watch = Stopwatch()
    with jax.enable_x64(True), watch.running():
        fitted = process.fit(network, scaling.inputs(dataset.x), scaling.targets(dataset.y), watch)
    if not np.isfinite(fitted.log_evidence):
        mend = "Raise it, or leave out rows that repeat."
        raise bad_value("noise", "large enough for a Cholesky factor in float64", network.noise, mend)
    _check_known(fitted.left_out)
    return GaussianProcess(
        model=model,
        data=dataset,
        seed=int(seed),
        standardize=scaled,
        num_draws=num_samples,
        timing=Timing(watch.compile_seconds, watch.run_seconds, 0),
        fitted=fitted,
        scaling=scaling,
        model_name=models.registry.name_of(model),
        attributes=provenance(model, "infinite_width", dataset.name, seed, scaled, True),
    )


@dataclass(frozen=True, eq=False, repr=False)
class GaussianProcess:
    """Posterior of an infinitely wide network: a Gaussian process. Immutable; made by `infinite_width`.

    It predicts, is scored, and is compared as a `bnn_zoo.Posterior` is, in the units of the data. It has no weights: no
    ``draws`` and no ``idata``, and neither a file nor a report, which are made of these.

    Attributes
    ----------
    model : object
        The network; the widths of its hidden layers played no part.
    data : Dataset
        The training data, in the user's units.
    num_draws : int
        S, of `function_draws`.
    timing : Timing
        Seconds; no gradients.
    fitted : Fitted
        Kernel and Cholesky factor, on the model's scale.
    """

    model: Any
    data: Dataset
    seed: int
    standardize: bool
    num_draws: int
    timing: Timing
    fitted: Fitted
    scaling: Scaling
    model_name: str
    attributes: dict[str, str] = field(default_factory=dict)
    method: Any = "infinite_width"
    method_name: str = "infinite_width"
    kind: str = "independent"
    num_chains: int = 1
    complete: bool = True
    tells_epistemic: bool = False

    # --- functions and predictions ----------------------------------------------------------------------------------

    def function_draws(self, x: Any) -> np.ndarray:
        """Return f(x) of ``num_draws`` functions, ``(1, S, n)``: joint draws from the posterior process, by the seed.

        The same ``x`` gives the same draws; at other inputs they are of other functions.

        Raises
        ------
        ZooValueError
            For more than 5,000 inputs, whose covariance is decomposed.
        """
        inputs = self._model_inputs(x)
        return self.scaling.from_model(self._functions(inputs, self.num_draws, self.seed))[None]

    def predict(self, x: Any, *, kind: str | None = None) -> Prediction:
        """Return the predictive distribution at ``x (n, d)``: one Normal a row, exact.

        Raises
        ------
        ZooValueError
            If ``x`` does not fit, or ``kind`` is not ``"exact"``.
        """
        check_choice("kind", kind, ("exact", None))
        inputs = self._model_inputs(x)
        with jax.enable_x64(True):
            _check_known(process.left_out(self.fitted, inputs))
            mean, variance = process.moments(self.fitted, inputs)
        noise, scale = self.fitted.network.noise, self.scaling.y_scale
        return Prediction(
            mean=self.scaling.from_model(mean),
            epistemic_std=np.sqrt(variance) * scale,
            aleatoric_std=np.full(len(mean), noise * scale),
            kind="exact",
            _source=Exact(mean, np.sqrt(variance + noise**2), self, inputs),
        )

    def log_likelihood(self, x: Any, y: Any) -> np.ndarray:
        """Return the log density of each row of ``(x, y)`` under each of `function_draws`, ``(1, S, n)``."""
        f = self.function_draws(x)
        noise = self.fitted.network.noise * self.scaling.y_scale
        off = (as_targets(y, f.shape[2]) - f) / noise
        return -0.5 * off**2 - np.log(noise) - 0.5 * np.log(2 * np.pi)

    @property
    def log_evidence(self) -> float:
        """Log density of the training targets under the model, exact, per unit of the target: it ranks models."""
        return self.fitted.log_evidence + self.data.num_rows * self.scaling.log_jacobian

    # --- judgement --------------------------------------------------------------------------------------------------

    def evaluate(self, x: Any, y: Any, *, outside: Any = None) -> pd.Series:
        """Return scores on ``(x, y)``, in original units, as `Posterior.evaluate` does."""
        from bnn_zoo.reports.scores import evaluate

        prediction = self.predict(x)
        return evaluate(prediction, y, outside=None if outside is None else self.predict(outside))

    def diagnose(self, x: Any = None) -> Diagnosis:
        """Return a verdict: on rounding, and on what a kernel's sum leaves out; of Monte Carlo there is none.

        ``x`` are held-out inputs to list mean and sd of f at, beside the training inputs.
        """
        from bnn_zoo.probes import probe_points
        from bnn_zoo.reports.convergence import Diagnosis

        held_out = None if x is None else as_inputs(x, self.data.feature_names)
        where_x, where = probe_points(self.data.x, held_out)
        said = self.predict(where_x)
        import pandas as pd

        points = pd.DataFrame({"where": where, "mean": said.mean, "sd": said.epistemic_std})
        return Diagnosis(_checks(self.fitted), points, where_x, self.kind)

    # --- what weights are needed for --------------------------------------------------------------------------------

    @property
    def draws(self) -> dict[str, np.ndarray]:
        """Refused: an infinite network has no weights."""
        raise self._lacks("draws", "function_draws(x) draws functions.")

    @property
    def idata(self) -> Any:
        """Refused, as `draws` are."""
        raise self._lacks("idata", "function_draws(x) draws functions.")

    def resume(self, num_samples: int, *, progress: bool | str = True) -> GaussianProcess:
        """Refused: the answer is exact."""
        raise self._lacks("resume", "The answer is exact; for more functions set num_samples.")

    def save(self, path: Any, *, pointwise: bool | None = None) -> Any:
        """Refused: a file holds draws of weights."""
        raise self._lacks("save", "Compute it again with infinite_width: model and data are all that it is made of.")

    def report(self, path: Any, test: Any = None) -> Any:
        """Refused: a report is of draws of weights."""
        raise self._lacks("report", "Use predict, evaluate and zoo.compare.")

    def __repr__(self) -> str:
        return (
            f"GaussianProcess of {self.attributes['model']}, infinitely wide\n"
            f"  on {self.data!r}, standardize={self.standardize}\n"
            f"  exact, log evidence {self.log_evidence:.6g}; {self.timing.compile_seconds:.1f} s compiling, "
            f"{self.timing.run_seconds:.1f} s running"
        )

    # --- inner ------------------------------------------------------------------------------------------------------

    def _model_inputs(self, x: Any) -> np.ndarray:
        return self.scaling.inputs(as_inputs(x, self.data.feature_names))

    def _functions(self, inputs: np.ndarray, num: int, seed: int) -> np.ndarray:
        """``(num, n)`` functions on the model's scale."""
        _check_rows("x", len(inputs), MOST_JOINT)
        standard = np.random.default_rng(int(seed)).standard_normal((num, len(inputs)))
        with jax.enable_x64(True):
            _check_known(process.left_out(self.fitted, inputs))
            return process.draws(self.fitted, inputs, standard)

    def _lacks(self, what: str, mend: str) -> ZooValueError:
        return bad_value(what, "asked of a network with weights", "a Gaussian process, which has none", mend)


@dataclass(frozen=True, eq=False)
class Exact(OneNormal):
    """What a `Prediction` of a Gaussian process is made of."""

    of: GaussianProcess
    x: np.ndarray

    @property
    def scaling(self) -> Scaling:
        """To the user's units."""
        return self.of.scaling

    def sample(self, num: int, seed: int, rows: int) -> np.ndarray:
        """``(num, rows)`` observations in the user's units: joint functions, and noise."""
        key_functions, key_noise = np.random.SeedSequence(int(seed)).generate_state(2)
        noise = np.random.default_rng(key_noise).standard_normal((num, rows))
        f = self.of._functions(self.x, num, key_functions)
        return self.scaling.from_model(f + self.of.fitted.network.noise * noise)


def _checks(fitted: Fitted) -> tuple:
    from bnn_zoo.reports.grading import Check, graded

    said = f"the covariance of the targets has a condition number of {fitted.condition:.1g} or more"
    rounding = graded(
        "rounding",
        fitted.condition,
        CONDITION,
        f"{said}: the answer is exact but for rounding in float64, and there is nothing to converge.",
        f"{said}, of which float64 resolves {1 / np.finfo(float).eps:.1g}.",
        "Raise the noise, or leave out rows that repeat.",
    )
    if fitted.left_out == 0:
        return (rounding,)
    said = (
        f"Of the variance of a layer a share of {fitted.left_out:.1g} at most has correlations that are bounded only."
    )
    return (rounding, Check("kernel", fitted.left_out, "passed", said))


# --- at the door ------------------------------------------------------------------------------------------------------


def _network(model: Any) -> Network:
    if type(model) not in (MLP, Linear):
        mend = "Take zoo.models.MLP(hidden=(50,), noise=0.3), say."
        raise bad_type("model", "an MLP or Linear", models.registry.name_of(model), mend)
    for name in ("prior", "unit_scale"):
        if getattr(model, name, None) is not None:
            raise bad_value("model", f"one without {name}, of Normal weights", repr(model), f"Drop {name}.")
    bias_scale = model.weight_scale if model.bias_scale is None else model.bias_scale
    for name, value in (("weight_scale", model.weight_scale), ("bias_scale", bias_scale), ("noise", model.noise)):
        if not isinstance(value, (int, float)):
            mend = f"Fix it: dataclasses.replace(model, {name}=0.5); log_evidence tells which number does best."
            raise bad_value(name, "a number, as with a prior on it f is no Gaussian process", repr(value), mend)
    depth = len(getattr(model, "hidden", ()))
    if depth and not model.fan_in:
        mend = "Set fan_in=True."
        raise bad_value("fan_in", "True, as without it the prior of a wide network has no limit", False, mend)
    return Network(
        activation=getattr(model, "activation", "identity"),
        depth=depth,
        fan_in=getattr(model, "fan_in", False),
        weight_scale=float(model.weight_scale),
        bias_scale=float(bias_scale),
        noise=float(model.noise),
    )


def _check_rows(argument: str, rows: int, most: int) -> None:
    if rows > most:
        needed = MATRICES * 8 * rows**2 / 2**30
        got = f"{rows:,}, whose covariances take {needed:.3g} GiB"
        raise bad_value(f"the rows of {argument}", f"at most {most:,}", got, "Take a part of them, drawn at random.")


def _check_known(share: float) -> None:
    if share > MOST_LEFT_OUT:
        got = f"all but a share of {share:.2g}"
        mend = "Make weight_scale smaller, standardise, or take activation='relu', whose kernel is in closed form."
        raise bad_value("the variance of a layer", "resolved by Mehler's sum", got, mend)
