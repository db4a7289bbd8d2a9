"""``Posterior``: what every fit returns, whatever the method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bnn_zoo.components import Source, choose_kind, distilled_at, linearized_at, propagated_at
from bnn_zoo.datasets import Dataset
from bnn_zoo.engine import kept, moments, predictive, weights
from bnn_zoo.engine.context import PROGRESS, Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws, Kind
from bnn_zoo.engine.gaussian import Gaussian
from bnn_zoo.engine.resources import check_free
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.engine.windows import Windows
from bnn_zoo.errors import bad_value, check_choice, check_count
from bnn_zoo.inputs import as_inputs, as_targets
from bnn_zoo.kept import IN_MEMORY, Kept
from bnn_zoo.prediction import Prediction
from bnn_zoo.streams import Stream

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    import xarray as xr

    from bnn_zoo.reports.convergence import Diagnosis


# Attributes of a fit whose rows stayed on disk: how many there are, ``data`` being a sample, and how they were read.
ROWS, STREAM = "rows", "stream"
MOST_REMEMBERED = 2**20  # numbers in the inputs of a prediction that is remembered


@dataclass(frozen=True)
class Timing:
    """What a fit cost.

    Attributes
    ----------
    compile_seconds : float
        Spent compiling; 0 where equal programs had been compiled before.
    run_seconds : float
        All the rest of the fit.
    gradient_evaluations : int
        Of the log posterior of all rows (or of a batch), warm-up, training and all chains included.
    """

    compile_seconds: float
    run_seconds: float
    gradient_evaluations: int


@dataclass(frozen=True, eq=False, repr=False)
class Posterior:
    """Draws from an (approximate) posterior, and all that is asked of them. Immutable.

    Made by `bnn_zoo.fit`. Inputs and outputs are in the units of the data that were fitted.

    Attributes
    ----------
    model, method : object
        What was fitted, and how.
    data : Dataset
        The training data, in the user's units; of rows that stayed on disk a sample, which the diagnosis and reports
        look at.
    seed : int
        Repeats the fit.
    standardize : bool
        Whether data were centred and scaled inside.
    timing : Timing
        Seconds and gradients.
    problem : Problem
        Model and data on the model's scale.
    result : Draws
        What the method returned: positions in unconstrained coordinates, statistics, facts about the run.
    stream : Stream, optional
        The training data, where they stayed on disk.
    kept : Kept
        Where the draws are, and of what: see ``keep`` of `bnn_zoo.fit`.
    """

    model: Any
    method: Any
    data: Dataset
    seed: int
    standardize: bool
    timing: Timing
    problem: Problem
    result: Draws
    scaling: Scaling
    model_name: str
    method_name: str
    x64: bool = False
    attributes: dict[str, str] = field(default_factory=dict)
    stream: Stream | None = None
    kept: Kept = IN_MEMORY

    # --- draws ------------------------------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind:
        """``"markov"``, ``"independent"`` or ``"members"``: which diagnostics mean something."""
        return self.result.kind

    @property
    def num_chains(self) -> int:
        """C: chains, or modes of a mixture; 1 otherwise."""
        return self.result.positions.shape[0]

    @property
    def num_draws(self) -> int:
        """S: draws a chain."""
        return self.result.positions.shape[1]

    @property
    def num_rows(self) -> int:
        """n: rows that were trained on, of which ``data`` may hold a sample."""
        return int(self.attributes.get(ROWS, self.data.num_rows))

    @property
    def whole_problem(self) -> Problem:
        """Model and all rows that were trained on, where `problem` may have a sample of them.

        Raises
        ------
        ZooValueError
            If the rows stayed on disk, and are not at hand since the posterior was loaded from a file; or if functions
            were kept in place of the weights that this is about.
        """
        if self.kept.inputs is not None:
            got = "functions that were kept in place of them"
            raise bad_value("the draws", "of weights, for what is asked of the model itself", got, kept.MEND)
        return self._going_on

    @property
    def _going_on(self) -> Problem:
        """Model and all rows that the method goes on with, whatever was kept."""
        if self.kept.behind is not None and self.kept.has_rows:
            return self.kept.behind
        if ROWS not in self.attributes:
            return self.problem
        if self.stream is None:
            got = "rows that stayed on disk, of which the file that was loaded holds a sample"
            raise bad_value("the training data", "at hand", got, "Fit again from the rows.")
        return windowed(self.problem, self.stream, self.scaling, self.seed)

    @property
    def complete(self) -> bool:
        """False when an interrupt ended the fit early: the draws are those made until then."""
        return self.result.complete

    @property
    def tells_epistemic(self) -> bool:
        """True of a student (`bnn_zoo.distill`), whose one network says how uncertain f(x) is."""
        return getattr(self.method, "tells_epistemic", False)

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """Sites as ``(C, S, *site)``, in constrained space.

        Weights are on the scale that the network works on. The noise (a site that the model declares to be in the units
        of y) comes back in the user's units. Where functions were kept in place of weights, scalar sites, and ``f``
        ``(C, S, K)`` at the inputs ``kept.inputs``, in the user's units.
        """
        if self.kept.inputs is not None:
            return {**self.scalars, "f": self.function_draws(self.kept.inputs)}
        mend = "Ask for `scalars`, `site_moments` or functions, which take some at a time; or fit with more thinning."
        check_free("all draws of all sites", self.result.positions.nbytes, mend)
        with jax.enable_x64(self.x64):
            flat = predictive.sites(self.problem, self._flat)
        lead = (self.num_chains, self.num_draws)
        return {name: self._in_user_units(name, value.reshape(lead + value.shape[1:])) for name, value in flat.items()}

    @cached_property
    def scalars(self) -> dict[str, np.ndarray]:
        """Those of `draws` that are one number a draw, ``(C, S)`` each, made without the others."""
        with jax.enable_x64(self.x64):
            flat = predictive.scalars(self.problem, self._flat)
        lead = (self.num_chains, self.num_draws)
        return {name: self._in_user_units(name, value.reshape(lead)) for name, value in flat.items()}

    @property
    def site_sizes(self) -> dict[str, np.ndarray]:
        """Root mean square of the entries of each site, ``(C, S)`` each, made without the sites themselves."""
        with jax.enable_x64(self.x64):
            flat = predictive.site_sizes(self.problem, self._flat)
        lead = (self.num_chains, self.num_draws)
        return {name: self._in_user_units(name, value.reshape(lead)) for name, value in flat.items()}

    @cached_property
    def site_moments(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and sd of each site over the draws of each chain, ``(C, *site)`` both, on the scale of `draws`.

        All that is known of weights where functions were kept in place of them.
        """
        with jax.enable_x64(self.x64):
            if self.kept.inputs is None or self.kept.behind is None:
                found = predictive.site_moments(self.problem, self.result.positions)
            else:
                found = kept.site_moments(self.kept.behind, self.result.info)
        return {name: (self._in_user_units(name, m), self._in_user_units(name, sd)) for name, (m, sd) in found.items()}

    @property
    def stats(self) -> dict[str, np.ndarray]:
        """Statistics of each draw, ``(C, S)``, by ArviZ's names; ``lp`` is on the model's scale."""
        return self.result.stats

    @cached_property
    def idata(self) -> xr.DataTree:
        """ArviZ 1.x ``DataTree``.

        Groups ``posterior``, ``sample_stats``, ``log_likelihood``, ``posterior_predictive``, ``observed_data`` and
        ``constant_data``, filled without running the model again where that can be; settings, seed, versions and
        timings as attributes.
        """
        from bnn_zoo.tree import build

        return build(self)

    # --- functions and predictions ----------------------------------------------------------------------------------

    def function_draws(self, x: Any) -> np.ndarray:
        """Return f(x) of every draw, ``(C, S, n)``, in the units of the target."""
        with jax.enable_x64(self.x64):
            f = predictive.locations(self.problem, self._flat, self._model_inputs(x))
        return self.scaling.from_model(f).reshape(self.num_chains, self.num_draws, -1)

    def predict(self, x: Any, *, kind: str | None = None) -> Prediction:
        """Return the predictive distribution at ``x (n, d)``, in memory that does not grow with draws or rows.

        Parameters
        ----------
        x : array-like
            Inputs ``(n, d)``; a pandas frame is matched by column name.
        kind : str or None
            ``"monte_carlo"``: the mixture over all draws. ``"plug_in"``: the one network of a point fit or a student.
            ``"linearized"``: the network made linear about its mode, in closed form (Laplace). ``"moments"``: mean and
            covariance sent through the layers, without sampling (deterministic VI, and other Gaussians of independent
            layers). ``None``: ``"plug_in"`` for a point fit, ``"linearized"`` for Laplace, ``"moments"`` for
            deterministic VI, ``"monte_carlo"`` for all others.

        Raises
        ------
        ZooValueError
            If ``x`` does not fit, or the method does not have that kind.
        """
        kind, inputs = self._prediction_kind(kind), self._model_inputs(x)
        last = self.__dict__.get("_last")
        if last is None or last[0] != kind or not np.array_equal(last[1], inputs):
            last = kind, inputs, self._predict(kind, inputs)
            # Scores, tables and plots ask for the same rows one after another.
            if inputs.size <= MOST_REMEMBERED:
                self.__dict__["_last"] = last
        return last[2].copy()

    def _predict(self, kind: str, inputs: np.ndarray) -> Prediction:
        if kind == "linearized" and self._linearized is not None:
            return linearized_at(self.problem, self._linearized, self._flat, inputs, self.scaling)
        network = Source(self.problem, self._flat, inputs, self.scaling, self.x64)
        if kind == "moments" and self._moments is not None:
            return propagated_at(network, self._moments, getattr(self.method, "full_covariance", True))
        if kind == "plug_in" and self.tells_epistemic:
            return distilled_at(network)
        return network.predict(kind)

    @property
    def log_evidence(self) -> float:
        """Log density of the training targets under the model, which ranks models of the same data (Laplace only)."""
        if "log_evidence" not in self.result.info:
            got = f"of a posterior by {self.method_name}"
            raise bad_value("log_evidence", "asked of a method that estimates it", got, "Fit with method 'laplace'.")
        return float(self.result.info["log_evidence"]) + self.num_rows * self.scaling.log_jacobian

    def log_likelihood(self, x: Any, y: Any) -> np.ndarray:
        """Return the log density of each row of ``(x, y)`` under each draw, ``(C, S, n)``, per unit of the target."""
        inputs = self._model_inputs(x)
        targets = self.scaling.targets(as_targets(y, len(inputs)), self.problem.x.dtype)
        with jax.enable_x64(self.x64):
            flat = predictive.pointwise(self.problem, self._flat, inputs, targets)
        return (flat + self.scaling.log_jacobian).reshape(self.num_chains, self.num_draws, -1)

    # --- judgement --------------------------------------------------------------------------------------------------

    def evaluate(self, x: Any, y: Any, *, outside: Any = None) -> pd.Series:
        """Return scores on ``(x, y)``, in original units; see `bnn_zoo.reports.scores.evaluate`.

        Parameters
        ----------
        x, y : array-like
            ``(n, d)`` and ``(n,)``; held-out rows: a fit flatters itself on those it has seen.
        outside : array-like, optional
            Inputs ``(m, d)`` that are known to be unlike the training data: adds ``auroc_epistemic``, how well the
            epistemic sd tells them from ``x``.

        Returns
        -------
        pandas.Series
            One entry a score; standard errors in ``attrs["standard_error"]``.

        Raises
        ------
        ZooTypeError, ZooValueError
            If one of the three does not fit.
        """
        from bnn_zoo.reports.scores import evaluate

        prediction = self.predict(x)
        return evaluate(prediction, y, outside=None if outside is None else self.predict(outside))

    def diagnose(self, x: Any = None, *, reference: Any = None) -> Diagnosis:
        """Return a verdict on the draws, judged by f(x); see `bnn_zoo.reports.convergence.diagnose`.

        Parameters
        ----------
        x : array-like, optional
            Held-out inputs to judge at, beside the training inputs and points between and beyond them.
        reference : Posterior, str or object, optional
            What the predictions are held against: another posterior of the same columns; ``"nuts"``, for a short run
            of NUTS on the same model and data (300 warm-up steps and draws, 4 chains), made now; or a method object,
            run likewise. The diagnosis then says how far the predictive distributions are from it, how the sd of f(x)
            compares, and whether the reference itself has converged.

        Raises
        ------
        ZooTypeError, ZooValueError
            If ``x`` does not fit, or the reference is none of these or of other columns.
        """
        if x is None and reference is None:
            return self._diagnosis
        from bnn_zoo.reports.convergence import diagnose

        return diagnose(self, None if x is None else as_inputs(x, self.data.feature_names), reference)

    def report(self, path: Any, test: Any = None) -> Any:
        """Write one self-contained HTML page, with scores on ``test`` when given, and return its path."""
        from bnn_zoo.reports.page import write

        return write(self, path, test)

    def save(self, path: Any, *, pointwise: bool | None = None) -> Path:
        """Write this posterior to one file and return its path; `bnn_zoo.load` reads it back.

        The file is netCDF (``arviz.from_netcdf`` and any netCDF reader open it) with a JSON index and a checksum behind
        it. It is replaced at once or not at all.

        Parameters
        ----------
        path : str or path-like
            ``posterior.nc``, say.
        pointwise : bool or None
            Keep log likelihood and predictive draws of every training row for ArviZ; `bnn_zoo.load` needs neither.
            ``None``: up to 50 million numbers each.

        Raises
        ------
        ZooTypeError, ZooValueError
            If the path is a folder, or in none.
        """
        from bnn_zoo.keeping.posteriors import save

        return save(self, path, pointwise=pointwise)

    # --- more draws -------------------------------------------------------------------------------------------------

    def resume(self, num_samples: int, *, progress: bool | str = True) -> Posterior:
        """Return a posterior with ``num_samples`` more draws a chain.

        Fit, then resume, gives the draws of one long fit, bit for bit, and compiles nothing.

        Raises
        ------
        ZooValueError
            If the method has no going on, or the fit was interrupted.
        """
        check_count("num_samples", num_samples)
        check_choice("progress", progress, PROGRESS)
        if not hasattr(self.method, "resume"):
            raise bad_value(
                "the method", "a sampler, which can go on", self.method_name, "Fit again with more steps or members."
            )
        if self.result.state is None:
            raise bad_value("the fit", "complete", "one that was interrupted", "Fit again: the same seed repeats it.")
        problem, context = self._going_on, Context(progress=progress, keep=self.kept.keep)
        with jax.enable_x64(self.x64), context.watch.running():
            result = self.method.resume(problem, self.result, num_samples, context)
        timing = Timing(
            self.timing.compile_seconds + context.watch.compile_seconds,
            self.timing.run_seconds + context.watch.run_seconds,
            result.gradients,
        )
        return replace(self, result=result, timing=timing)

    # --- showing ----------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        what = {"markov": "chains", "independent": "components", "members": "group of members"}[self.kind]
        of = f", a sample of {self.num_rows:,} rows" if ROWS in self.attributes else ""
        partial = "" if self.complete else f", {self.result.info.get('stopped', 'interrupted')}"
        return (
            f"Posterior of {self.attributes['model']}\n"
            f"  by {self.attributes['method']}\n"
            f"  on {self.data!r}{of}, standardize={self.standardize}, seed={self.seed}\n"
            f"  {self.num_chains} {what} × {self.num_draws} draws of {self._held}{partial}; "
            f"{self.timing.compile_seconds:.1f} s compiling, {self.timing.run_seconds:.1f} s running, "
            f"{self.timing.gradient_evaluations:,} gradients"
        )

    def _repr_html_(self) -> str:
        """What was fitted, how, at what cost, and the verdict where it has been asked for, as a notebook shows it."""
        count = f"{self.num_chains} × {self.num_draws} draws ({self.kind}) of {self._held}"
        timing = self.timing
        cost = (
            f"{timing.compile_seconds:.1f} s compiling, {timing.run_seconds:.1f} s running, "
            f"{timing.gradient_evaluations:,} gradients"
        )
        known = self.__dict__.get("_diagnosis")
        rows = {
            "Model": self.attributes["model"],
            "Method": self.attributes["method"],
            "Data": f"{self.data!r}, standardize={self.standardize}, seed={self.seed}",
            "Draws": count if self.complete else f"{count}, {self.result.info.get('stopped', 'interrupted')}",
            "Cost": cost,
            "Verdict": "not asked for yet: call .diagnose()" if known is None else known.summary,
        }
        cells = "".join(
            f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{escape(text)}</td></tr>'
            for name, text in rows.items()
        )
        return f"<table>{cells}</table>"

    # --- inner ------------------------------------------------------------------------------------------------------

    @cached_property
    def _diagnosis(self) -> Diagnosis:
        """The diagnosis at the usual inputs: reports, plots and comparisons all ask for it."""
        from bnn_zoo.reports.convergence import diagnose

        return diagnose(self)

    @cached_property
    def log_ratios(self) -> np.ndarray:
        """Log p(z, y) − log q(z) of draws of an approximation whose density is known, or of as many as is affordable.

        Of a mixture of modes those of the first, which is judged against the posterior by its own draws.
        """
        known = self.result.info.get("log_ratios")
        if known is not None:
            return np.asarray(known, np.float64)
        with jax.enable_x64(self.x64):
            return weights.log_ratios(self.problem, self.result.positions[0], self.stats["log_q"][0])

    @cached_property
    def _linearized(self) -> Gaussian | None:
        """The Gaussian about whose mode the network may be made linear, of a method that offers one."""
        offered = getattr(self.method, "linearized", None)
        return None if offered is None else offered(self.result)

    @cached_property
    def _moments(self) -> Gaussian | None:
        """The Gaussian whose moments may be sent through the network, of a method that offers one."""
        offered = getattr(self.method, "moments", None)
        found = None if offered is None else offered(self.result)
        return found if found is not None and moments.has_moments(self.problem, found) else None

    @property
    def _held(self) -> str:
        """What a draw is of."""
        if self.kept.inputs is None or self.kept.behind is None:
            return f"{self.problem.size} parameters"
        return f"functions at {len(self.kept.inputs)} inputs, by {self.kept.behind.size} parameters"

    @property
    def _flat(self) -> np.ndarray:
        return self.result.positions.reshape(-1, self.problem.size)

    def _in_user_units(self, name: str, value: np.ndarray) -> np.ndarray:
        """A site as a user reads it: what the model declares to be in the units of y, in the user's."""
        in_units = name in getattr(self.model, "sites_in_target_units", ())
        return value * value.dtype.type(self.scaling.y_scale if in_units else 1)

    def _model_inputs(self, x: Any) -> np.ndarray:
        if self.kept.inputs is not None:
            return self.kept.places(as_inputs(x, self.data.feature_names))[:, None].astype(self.problem.x.dtype)
        return self.scaling.inputs(as_inputs(x, self.data.feature_names), self.problem.x.dtype)

    def _prediction_kind(self, kind: str | None) -> str:
        point = self.kind == "members" and self._flat.shape[0] == 1
        own = ["linearized"] * (self._linearized is not None) + ["plug_in" if point else "monte_carlo"]
        own += ["moments"] * (self._moments is not None)
        best = getattr(self.method, "best_kind", own[0])
        # The first is what None takes.
        return choose_kind(kind, sorted(own, key=lambda one: one != best), self.method_name)


def windowed(problem: Problem, stream: Stream, scaling: Scaling, seed: int) -> Problem:
    """Return ``problem`` with a window of rows of ``stream``, to be exchanged for others as a method goes on."""
    windows = Windows(stream, scaling, problem.x.dtype, seed)
    return replace(problem, source=windows).holding(windows.at(0))
