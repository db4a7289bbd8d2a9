"""``zoo.BNNRegressor``: what scikit-learn asks of an estimator, and what the zoo adds."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle

import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from scipy.stats import randint
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import bnn_zoo as zoo
from bnn_zoo.errors import ZooTypeError, ZooValueError

QUICK_MAP = zoo.methods.MAP(num_restarts=2, num_steps=50, polish_steps=0, learning_rate=0.05)
QUICK_NUTS = zoo.methods.NUTS(num_warmup=30, num_samples=8, num_chains=1, start="prior", max_tree_depth=4)
NARROW = zoo.models.MLP(hidden=(3,))


def make_data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 2))
    return x, 3 + x @ [1.0, -2.0] + 0.5 * rng.normal(size=24)


X, Y = make_data()
NEW = np.random.default_rng(9).normal(size=(7, 2))
FRAME = pd.DataFrame(X, columns=["height", "y"])


def slope(x, y=None):
    """A foreign model, at the top of a module so that it pickles."""
    w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ w, 1.0), obs=y)


def linear(method=QUICK_NUTS, **settings) -> zoo.BNNRegressor:
    return zoo.BNNRegressor("linear", method, **({"random_state": 0} | settings))


@functools.cache
def fitted() -> zoo.BNNRegressor:
    return linear().fit(X, Y)


# --- scikit-learn's own checks --------------------------------------------------------------------------------------

# Each check fits data of another shape, and it is compiling that takes the time: NUTS on a network has its own, slow.


@parametrize_with_checks([zoo.BNNRegressor("linear", QUICK_NUTS), zoo.BNNRegressor(NARROW, QUICK_MAP)])
def test_sklearn(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([zoo.BNNRegressor(NARROW, QUICK_NUTS)])
def test_sklearn_on_a_sampled_network(estimator, check):
    check(estimator)


# --- predictions ----------------------------------------------------------------------------------------------------


def test_a_fit_is_that_of_zoo_fit():
    posterior = zoo.fit("linear", QUICK_NUTS, (X, Y), seed=0, progress=False)
    for name, values in posterior.draws.items():
        assert np.array_equal(fitted().posterior_.draws[name], values)


def test_predictions_are_those_of_the_posterior():
    prediction = fitted().posterior_.predict(NEW)
    mean, std = fitted().predict(NEW, return_std=True)
    assert np.array_equal(mean, prediction.mean) and np.array_equal(fitted().predict(NEW), mean)
    assert np.array_equal(std, prediction.std)
    levels = [0.05, 0.5, 0.9]
    quantiles = fitted().predict_quantiles(NEW, levels)
    assert quantiles.shape == (7, 3) and np.array_equal(quantiles.T, prediction.quantile(levels))
    assert np.array_equal(fitted().predict_quantiles(NEW, 0.5), quantiles[:, 1])


def test_samples_repeat_as_sklearn_repeats():
    first = fitted().sample_y(NEW, 5, random_state=3)
    assert first.shape == (7, 5)
    assert np.array_equal(first, fitted().sample_y(NEW, np.int64(5), random_state=3))
    assert fitted().sample_y(NEW).shape == (7, 1)
    assert not np.array_equal(first, fitted().sample_y(NEW, 5))
    state = np.random.RandomState(3)
    one, two = (fitted().sample_y(NEW, 5, random_state=state) for _ in range(2))
    assert not np.array_equal(one, two)
    assert np.array_equal(one, fitted().sample_y(NEW, 5, random_state=np.random.RandomState(3)))


def test_random_states_of_a_fit():
    seeds = [linear(random_state=state).fit(X, Y).posterior_.seed for state in (None, None, np.int32(7))]
    assert seeds[0] != seeds[1] and seeds[2] == 7
    one, two = (linear(random_state=np.random.RandomState(5)).fit(X, Y).posterior_.seed for _ in range(2))
    assert one == two


def test_names_of_a_frame_reach_the_posterior():
    """A feature may be called ``y``, as the target is; that of the posterior then gets another name."""
    named = linear().fit(FRAME, pd.Series(Y, name="weight"))
    assert named.posterior_.data.feature_names == ("height", "y") == tuple(named.feature_names_in_)
    assert named.posterior_.data.target_name == "weight"
    assert isinstance(named.predict(FRAME), np.ndarray)
    assert linear().fit(FRAME, Y).posterior_.data.target_name == "y_target"
    with pytest.raises(ValueError, match="feature names"):
        named.predict(FRAME[["y", "height"]])
    with pytest.raises(ZooValueError, match="row order"):
        linear().fit(FRAME, pd.Series(Y)[::-1])


def test_precision_reaches_the_fit():
    assert linear(QUICK_MAP, precision="float64").fit(X, Y).posterior_.result.positions.dtype == np.float64


# --- parameters -----------------------------------------------------------------------------------------------------


def test_settings_of_names_and_of_objects_are_parameters():
    names, objects = zoo.BNNRegressor().get_params(), zoo.BNNRegressor(NARROW, QUICK_MAP).get_params()
    assert names["method"] == "nuts" and names["method__num_samples"] == zoo.methods.NUTS().num_samples
    assert names["model__hidden"] == (50,)
    assert objects["model"] is NARROW and objects["model__hidden"] == (3,) and objects["method__num_steps"] == 50
    assert set(zoo.BNNRegressor().get_params(deep=False)) == {name for name in names if "__" not in name}


def test_settings_are_set_in_a_new_object():
    estimator = zoo.BNNRegressor(NARROW, "nuts")
    assert (
        estimator.set_params(method__num_samples=np.int64(5), method__start="prior", model__hidden=(4, 4)) is estimator
    )
    assert estimator.method == zoo.methods.NUTS(num_samples=5, start="prior")
    assert estimator.model == zoo.models.MLP(hidden=(4, 4)) and NARROW.hidden == (3,)
    estimator.set_params(model__hidden=(2,), model="residual_mlp", random_state=4)
    assert estimator.model == zoo.models.ResidualMLP(hidden=(2,)) and estimator.random_state == 4


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: zoo.methods.MAP = QUICK_MAP
    rounds: int = 1


def test_settings_of_settings():
    """A method may be made of methods: ``method__inner__num_steps``."""
    estimator = zoo.BNNRegressor(method=Outer())
    assert estimator.get_params()["method__inner__num_steps"] == 50
    estimator.set_params(method__inner__num_steps=6, method__rounds=2)
    assert estimator.method == Outer(dataclasses.replace(QUICK_MAP, num_steps=6), 2)


def test_a_clone_has_the_same_names_and_equal_objects():
    prior = zoo.models.MLP(hidden=(3,), noise=dist.Gamma(2.0, 3.0))
    original = zoo.BNNRegressor(prior, "map", standardize=False, random_state=3, precision="float64")
    copied = clone(original)
    assert copied.get_params(deep=False) == original.get_params(deep=False) and copied.method == "map"
    assert clone(zoo.BNNRegressor(slope)).model is slope
    assert not hasattr(clone(fitted()), "posterior_")


def test_it_shows_itself():
    assert repr(zoo.BNNRegressor("linear", QUICK_MAP)).startswith("BNNRegressor(method=MAP(")
    assert "BNNRegressor" in fitted()._repr_html_()


# --- searches and pipelines -----------------------------------------------------------------------------------------


def test_a_search_over_settings():
    grid = {"method__num_samples": np.array([4, 6]), "model": ["linear", zoo.models.Linear()]}
    search = GridSearchCV(linear(), grid, cv=2).fit(X, Y)
    assert len(search.cv_results_["params"]) == 4 and search.best_score_ > 0.5
    assert search.best_estimator_.posterior_.num_draws == search.best_params_["method__num_samples"]


def test_a_search_by_names_under_a_pipeline():
    """The settings of ``"mlp"`` and ``"map"`` are reached through their names, from within a pipeline."""
    pipeline = make_pipeline(StandardScaler(), zoo.BNNRegressor(method="map", random_state=0))
    fixed = {"method__num_steps": [20], "method__num_restarts": [1], "method__polish_steps": [0]}
    grid = fixed | {"model__hidden": [(2,), (3,)]}
    search = GridSearchCV(
        pipeline, {f"bnnregressor__{name}": values for name, values in grid.items()}, cv=2, refit=False
    )
    scores = search.fit(X, Y).cv_results_["mean_test_score"]
    assert np.isfinite(scores).all() and scores[0] != scores[1]
    assert pipeline[-1].model == "mlp" and pipeline[-1].method == "map"


def test_a_random_search_gives_numpy_numbers():
    search = RandomizedSearchCV(linear(), {"method__num_samples": randint(4, 7)}, n_iter=2, cv=2, random_state=0)
    assert 4 <= search.fit(X, Y).best_estimator_.posterior_.num_draws < 7


def test_cross_validation_repeats():
    scores = [cross_val_score(linear(), X, Y, cv=2) for _ in range(2)]
    assert np.array_equal(*scores) and scores[0].min() > 0.5


# --- pickles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.deepcopy], ids=["pickle", "copy"])
@pytest.mark.parametrize("model", ["linear", slope], ids=["own", "foreign"])
def test_a_copy_predicts_the_same(model, duplicate):
    """Set to another model after the fit, too: a pickle keeps the model that was fitted."""
    estimator = zoo.BNNRegressor(model, QUICK_NUTS, random_state=0).fit(FRAME, Y).set_params(model="mlp")
    again = duplicate(estimator)
    assert np.array_equal(again.predict(FRAME, return_std=True), estimator.predict(FRAME, return_std=True))
    assert np.array_equal(again.sample_y(FRAME, random_state=1), estimator.sample_y(FRAME, random_state=1))
    assert again.model == "mlp" and again.posterior_.model == estimator.posterior_.model
    assert list(again.feature_names_in_) == list(FRAME.columns)
    more = [e.posterior_.resume(4, progress=False).draws for e in (again, estimator)]
    assert all(np.array_equal(more[0][name], more[1][name]) for name in more[1])


def test_a_pickle_holds_the_documented_format():
    state = fitted().__getstate__()
    assert "posterior_" not in state and b"BNNZOO" in state["saved posterior"][0]
    assert isinstance(fitted().posterior_, zoo.Posterior)
    unfitted = pickle.loads(pickle.dumps(linear()))
    assert not hasattr(unfitted, "posterior_") and unfitted.method == QUICK_NUTS


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"model": "mpl"}, ZooValueError, "Did you mean 'mlp'"),
        ({"method": zoo.methods.MAP}, ZooTypeError, "Call it"),
        ({"random_state": -1}, ZooValueError, "random_state"),
        ({"random_state": "0"}, ValueError, "seed"),
        ({"precision": "float16"}, ZooValueError, "precision"),
        ({"standardize": "yes"}, ZooTypeError, "standardize"),
        ({"chain_method": "thread"}, ZooValueError, "chain_method"),
    ],
)
def test_unusable_parameters_are_refused_when_fitting(settings, error, message):
    estimator = zoo.BNNRegressor(**settings)
    with pytest.raises(error, match=message):
        estimator.fit(X, Y)
    assert not hasattr(estimator, "posterior_")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method__num_sample": 5}, "Did you mean 'num_samples'"),
        ({"method__num_samples": 1}, "num_samples should be at least 4"),
        ({"model": "mpl", "model__hidden": (2,)}, "Did you mean 'mlp'"),
        ({"model": slope, "model__hidden": (2,)}, "no settings"),
        ({"method__num_samples__deeper": 1}, "no settings"),
        ({"random_state__seed": 1}, "random_state__seed"),
        ({"methods": "nuts"}, "Invalid parameter 'methods'"),
    ],
)
def test_unknown_settings_are_refused_when_set(settings, message):
    estimator = zoo.BNNRegressor()
    with pytest.raises(ValueError, match=message):
        estimator.set_params(**settings)
    assert estimator.model == "mlp" and estimator.method == "nuts"


def test_other_refusals():
    with pytest.raises(NotFittedError):
        linear().sample_y(X)
    with pytest.raises(ZooValueError, match="strictly between 0 and 1"):
        fitted().predict_quantiles(NEW, 1.0)
    for number, error in ((0, ZooValueError), (1.5, ZooTypeError)):
        with pytest.raises(error, match="n_samples"):
            fitted().sample_y(NEW, number)


def test_an_interrupt_keeps_the_draws_and_ends_a_search(monkeypatch):
    """`zoo.fit` returns what there is; a search that saw that return would begin the next fit."""
    whole = fitted().posterior_
    part = dataclasses.replace(whole, result=dataclasses.replace(whole.result, complete=False))
    monkeypatch.setattr("bnn_zoo.estimator.fit", lambda *_, **__: part)
    estimator = linear()
    with pytest.raises(KeyboardInterrupt, match="8 draws a chain"):
        estimator.fit(X, Y)
    assert estimator.posterior_ is part and estimator.predict(NEW).shape == (7,)
    with pytest.raises(KeyboardInterrupt):
        GridSearchCV(linear(), {"method__num_samples": [4, 8]}, cv=2).fit(X, Y)
