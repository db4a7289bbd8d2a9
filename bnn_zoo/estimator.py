"""``zoo.BNNRegressor``: the zoo behind scikit-learn's door, for pipelines, searches and cross-validation."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from bnn_zoo import methods, models
from bnn_zoo.datasets import Dataset
from bnn_zoo.errors import bad_value, check_choice, check_count
from bnn_zoo.fitting import fit
from bnn_zoo.inputs import check_row_labels, default_names, is_series
from bnn_zoo.keeping import posteriors, recipe
from bnn_zoo.prediction import Prediction

REGISTRIES = {"model": models.registry, "method": methods.registry}
SAVED = "saved posterior"  # in a pickle, where the estimator has `posterior_`


class BNNRegressor(RegressorMixin, BaseEstimator):
    """A Bayesian neural network as a scikit-learn regressor.

    `fit` is `bnn_zoo.fit`, with the same defaults and the same draws; `posterior_` is the `Posterior` that it returns.

    The default, NUTS, is the reference and takes its time. For a search name a fast method,
    ``BNNRegressor(method="map")``, and fit the winner with the method that you want.

    Parameters
    ----------
    model : str or Callable
        A registered name, a `bnn_zoo.models` object, or any NumPyro callable ``model(x, y=None)`` with one observed
        site.
    method : str or object
        A registered name or a `bnn_zoo.methods` object.
    standardize : bool or None
        Centre and scale X and y inside; all that comes back is in original units. ``None``: yes for the zoo's own
        models, no for a foreign one.
    random_state : int, numpy.random.RandomState or None
        An int is the ``seed`` of `bnn_zoo.fit`, and repeats a fit. The others follow scikit-learn: each fit draws its
        own seed.
    progress : bool
        Show a bar while fitting.
    chain_method : str
        How chains run, as for `bnn_zoo.fit`: ``"auto"``, ``"threads"``, ``"vectorized"`` or ``"sharded"``.
    precision : str or None
        ``"float32"`` or ``"float64"``; ``None`` follows JAX's own setting.

    Attributes
    ----------
    posterior_ : Posterior
        What was fitted: draws, ``diagnose()``, ``report(path)`` and the rest.
    n_features_in_ : int
        d, the number of columns of X.
    feature_names_in_ : ndarray of str, shape (d,)
        The columns of X, where it was a frame with names.

    Notes
    -----
    Settings of the model and of the method are parameters too, by two underscores: ``method__num_samples``,
    ``model__hidden``. Setting one puts a changed object in the place of the old one, or of the name: ``"nuts"`` becomes
    ``NUTS(num_samples=…)``. The object that was passed in stays as it is.

    A pickle (and a deep copy) of a fitted estimator holds the posterior in the format of `Posterior.save`, and beside
    it a foreign model, which must itself be picklable.

    A Ctrl-C that leaves draws keeps them as `posterior_`, and then goes on to end the search that the fit was part of.

    Examples
    --------
    >>> search = GridSearchCV(BNNRegressor(method="map"), {"model__hidden": [(10,), (50,), (50, 50)]})
    >>> best = clone(search.fit(X, y).best_estimator_).set_params(method="nuts").fit(X, y)
    >>> mean, std = best.predict(X_new, return_std=True)
    """

    def __init__(
        self,
        model: Any = "mlp",
        method: Any = "nuts",
        *,
        standardize: bool | None = None,
        random_state: Any = None,
        progress: bool = False,
        chain_method: str = "auto",
        precision: str | None = None,
    ) -> None:
        self.model = model
        self.method = method
        self.standardize = standardize
        self.random_state = random_state
        self.progress = progress
        self.chain_method = chain_method
        self.precision = precision

    # --- fitting and predicting -------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any) -> BNNRegressor:
        """Fit to inputs ``X (n, d)`` and targets ``y (n,)``, and return the estimator.

        Raises
        ------
        ValueError, TypeError
            As scikit-learn words it, for arrays that cannot be used.
        ZooValueError, ZooTypeError
            For parameters that cannot be used, as `bnn_zoo.fit` raises them.
        """
        check_row_labels(X, y)
        seed = _seed(self.random_state)
        inputs, targets = validate_data(self, X, y, dtype=np.float64, y_numeric=True)
        posterior = fit(
            self.model,
            self.method,
            Dataset(inputs, targets, *self._names(y)),
            seed=seed,
            standardize=self.standardize,
            progress=self.progress,
            chain_method=self.chain_method,
            precision=self.precision,
        )
        self.posterior_ = posterior
        if not posterior.complete and "stopped" not in posterior.result.info:
            # Returning would let a search go on to its next fit, once for every Ctrl-C.
            raise KeyboardInterrupt(f"stopped with {posterior.num_draws} draws a chain, kept as posterior_")
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the predictive mean ``(n,)`` at ``X (n, d)``, in the units of y.

        Parameters
        ----------
        X : array-like or pandas.DataFrame, shape (n, d)
            Inputs, with the columns of the training data in their order.
        return_std : bool
            Return a pair: beside the mean the standard deviation ``(n,)`` of an observation, noise included.
        """
        prediction = self._prediction(X)
        return (prediction.mean, prediction.std) if return_std else prediction.mean

    def predict_quantiles(self, X: Any, q: Any) -> np.ndarray:
        """Return quantiles ``(n, len(q))`` of an observation at ``X (n, d)``, in the units of y.

        Parameters
        ----------
        X : array-like or pandas.DataFrame, shape (n, d)
            Inputs, as for `predict`.
        q : float or sequence of float
            Levels: ``[0.05, 0.95]`` bounds the central 90 per cent. One float gives ``(n,)``.

        Raises
        ------
        ZooValueError
            If a level is not strictly between 0 and 1.
        """
        quantiles = self._prediction(X).quantile(q).T
        return quantiles[:, 0] if np.ndim(q) == 0 else quantiles

    def sample_y(self, X: Any, n_samples: int = 1, random_state: Any = None) -> np.ndarray:
        """Return observations ``(n, n_samples)`` drawn at ``X (n, d)``, in the units of y; a column is one joint draw.

        Parameters
        ----------
        X : array-like or pandas.DataFrame, shape (n, d)
            Inputs, as for `predict`.
        n_samples : int
            How many.
        random_state : int, numpy.random.RandomState or None
            An int repeats them.
        """
        number = _plain(n_samples)
        check_count("n_samples", number)
        seed = _seed(random_state)
        return self._prediction(X).sample(number, seed).T

    def _prediction(self, X: Any) -> Prediction:
        check_is_fitted(self)
        return self.posterior_.predict(validate_data(self, X, reset=False, dtype=np.float64))

    def _names(self, y: Any) -> tuple[tuple[str, ...], str]:
        """Names of the features and of the target, which the data set wants different from each other."""
        names = tuple(getattr(self, "feature_names_in_", default_names(self.n_features_in_)))
        target = str(y.name) if is_series(y) and y.name is not None else "y"
        while target in names:
            target += "_target"
        return names, target

    # --- parameters of parameters -----------------------------------------------------------------------------------

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name.

        Parameters
        ----------
        deep : bool
            With the settings of model and method, ``method__num_samples`` and the like; for a registered name, those
            of the object that it stands for.
        """
        params = super().get_params(deep=deep)
        if deep:
            for part, registry in REGISTRIES.items():
                value = params[part]
                params |= _settings(part, registry.look_up(value) if _is_name(registry, value) else value)
        return params

    def set_params(self, **params: Any) -> BNNRegressor:
        """Set parameters by name, ``method__num_samples`` and the like included, and return the estimator.

        Raises
        ------
        ZooValueError
            For a setting that the model or the method does not have, or cannot take.
        """
        nested = {part: _below(part, params) for part in REGISTRIES}
        changed = {name: value for name, value in params.items() if "__" not in name}
        if odd := [name for name in params if "__" in name and name.partition("__")[0] not in REGISTRIES]:
            raise bad_value("a parameter", "model, method, or a setting of theirs", repr(odd[0]), "See get_params().")
        for part, registry in REGISTRIES.items():
            if nested[part]:
                # A new model and a setting of it may come in one call: the setting is of the new one.
                changed[part] = _replaced(part, registry.look_up(changed.get(part, getattr(self, part))), nested[part])
        super().set_params(**changed)
        return self

    # --- pickling ---------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if (posterior := state.pop("posterior_", None)) is not None:
            parts = {part: getattr(posterior, part) for part in REGISTRIES}
            # The file names a foreign model and cannot hold it. It is the posterior's own, not `self.model`, which may
            # have been set anew since.
            foreign = {part: value for part, value in parts.items() if recipe.written(value) is None}
            state[SAVED] = posteriors.to_bytes(posterior), foreign
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if SAVED in state:
            file, foreign = state.pop(SAVED)
            state["posterior_"] = posteriors.from_bytes(file, **foreign)
        super().__setstate__(state)


def _seed(random_state: Any) -> int:
    """Return the seed of an int, or one drawn as scikit-learn draws."""
    if isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool):
        if not 0 <= random_state < 2**32:
            raise bad_value("random_state", "at least 0 and below 2**32", repr(random_state), "random_state=0 repeats.")
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31))


def _is_name(registry: Any, value: Any) -> bool:
    return isinstance(value, str) and value in registry.names


def _is_settings(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _settings(prefix: str, value: Any) -> dict[str, Any]:
    """Settings of an object, and of the objects among them, by their long names."""
    found = {}
    for field in dataclasses.fields(value) if _is_settings(value) else ():
        if field.init:
            name = f"{prefix}__{field.name}"
            found[name] = getattr(value, field.name)
            found |= _settings(name, found[name])
    return found


def _below(prefix: str, params: dict[str, Any]) -> dict[str, Any]:
    """Those of ``params`` whose names begin with the prefix, without it."""
    lead = f"{prefix}__"
    return {name.removeprefix(lead): value for name, value in params.items() if name.startswith(lead)}


def _replaced(prefix: str, value: Any, changes: dict[str, Any]) -> Any:
    """Return ``value`` with settings changed, all at once, so that they are checked together."""
    if not _is_settings(value):
        got = f"{value!r}, which has no settings"
        raise bad_value(prefix, "an object with settings", got, f"Set {prefix} itself, set_params({prefix}=...).")
    known = [field.name for field in dataclasses.fields(value) if field.init]
    new = {name: _plain(change) for name, change in changes.items() if "__" not in name}
    inner = {name.partition("__")[0] for name in changes if "__" in name}
    for name in (*new, *inner):
        check_choice(f"the name after '{prefix}__'", name, known)
    for name in inner:
        new[name] = _replaced(f"{prefix}__{name}", new.get(name, getattr(value, name)), _below(name, changes))
    return dataclasses.replace(value, **new)


def _plain(value: Any) -> Any:
    """Return Python's own number for NumPy's, in which grids and random searches come."""
    return value.item() if isinstance(value, np.generic) else value
