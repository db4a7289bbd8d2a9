"""What a stranger may pass: refused before any compilation, with argument, place and mend named, or fitted.

One line a case, through the front doors (`zoo.fit`, `predict`, `evaluate`). The doors' own details are in
`test_datasets.py`, those of models in `exact/test_problem.py` and `test_models.py`.
"""

from __future__ import annotations

import re

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bnn_zoo as zoo
from bnn_zoo.errors import ZooError, ZooTypeError, ZooValueError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 2))
Y = X[:, 0] + RNG.normal(size=12)
QUICK = zoo.methods.MAP(num_steps=3, num_restarts=1, polish_steps=0)


def fit(x=X, y=Y, model="linear", method=QUICK, **settings) -> zoo.Posterior:
    return zoo.fit(model, method, (x, y), progress=False, **settings)


def fit_with_bar(progress) -> zoo.Posterior:
    return zoo.fit("linear", QUICK, (X, Y), progress=progress)


def put(array: np.ndarray, place, value) -> np.ndarray:
    changed = np.array(array)
    changed[place] = value
    return changed


TWICE = pd.DataFrame(X, columns=["a", "a"])
DATA = {
    "nan in x": (lambda: fit(put(X, (3, 1), np.nan)), r"x .*1 missing.*row 3.*column 1.*np\.isfinite"),
    "nans in x": (lambda: fit(put(X, (slice(2, 5), 0), np.nan)), r"x .*3 missing.*rows 2, 3, 4"),
    "infinity in x": (lambda: fit(put(X, (0, 0), np.inf)), r"x .*inf at row 0"),
    "nan in y": (lambda: fit(y=put(Y, 7, np.nan)), r"y .*row 7.*keep = np\.isfinite\(y\)"),
    "infinity in y": (lambda: fit(y=put(Y, 0, -np.inf)), r"y .*-inf at row 0"),
    "strings": (lambda: fit(np.full((12, 2), "a")), r"x .*numbers.*Encode"),
    "numbers as strings": (lambda: fit(X.astype(str)), r"x .*numbers.*astype|x .*numbers.*dtype=float"),
    "objects": (lambda: fit(np.array([[object()] * 2] * 12)), r"x .*numbers"),
    "None": (lambda: fit(put(X.astype(object), (1, 1), None)), r"x .*numbers"),
    "dates": (lambda: fit(np.full((12, 2), "2020-01-01", "datetime64[D]")), r"x .*numbers"),
    "text in a frame": (lambda: fit(pd.DataFrame({"a": X[:, 0], "b": ["u"] * 12})), r"'u' in column 'b', row 0"),
    "complex x": (lambda: fit(X * 1j), r"x .*real.*x\.real"),
    "complex y": (lambda: fit(y=Y * 1j), r"y .*real.*y\.real"),
    "no rows": (lambda: fit(X[:0], Y[:0]), r"x .*non-empty.*\(0, 2\)"),
    "no columns": (lambda: fit(X[:, :0]), r"x .*non-empty.*\(12, 0\)"),
    "other lengths": (lambda: fit(X, Y[:-1]), r"y .*12 rows.*11 targets"),
    "two targets": (lambda: fit(y=np.stack([Y, Y], 1)), r"y .*\(n,\).*\(12, 2\).*y\[:, 0\]"),
    "x a vector": (lambda: fit(X[:, 0]), r"x .*2-D.*x\[:, None\]"),
    "x a cube": (lambda: fit(X[None]), r"x .*2-D.*reshape"),
    "x a number": (lambda: fit(3.0), r"x "),
    "ragged": (lambda: fit([[1.0, 2.0], [3.0]] * 6), r"x .*same length"),
    "sparse": (lambda: fit(scipy.sparse.csr_matrix(X)), r"x .*dense.*x\.toarray\(\)"),
    "masked": (lambda: fit(np.ma.masked_greater(X, 1.0)), r"x .*masked.*filled"),
    "a generator": (lambda: fit(row for row in X), r"x .*np\.array\(list\(x\)\)"),
    "a set": (lambda: fit(y={1.0, 2.0}), r"y .*set"),
    "a mapping": (lambda: fit({"a": [1.0]}), r"x .*dict"),
    "columns of one name": (lambda: fit(TWICE), r"'a'.*"),
    "1e200 in x": (lambda: fit(X * 1e200), r"x .*squared.*another unit"),
    "1e200 in y": (lambda: fit(y=Y * 1e200), r"y .*squared.*another unit"),
    "1e30, not standardised": (lambda: fit(X * 1e30, standardize=False), r"x .*row 0, column 0.*standardize=True"),
    "one data argument": (lambda: zoo.fit("linear", QUICK, X), r"data.*\(x, y\)"),
    "three of them": (lambda: zoo.fit("linear", QUICK, (X, Y, Y)), r"data.*\(x, y\)"),
    "a data set that is not there": (lambda: zoo.fit("linear", QUICK, "diabets"), r"diabets.*'diabetes'"),
}
SETTINGS = {
    "unknown model": (lambda: fit(model="mpl"), r"model .*'mpl'.*'mlp'"),
    "unknown method": (lambda: fit(method="nutz"), r"method .*'nutz'.*'nuts'"),
    "a class for a model": (lambda: fit(model=zoo.models.MLP), r"not a class.*MLP\(\)"),
    "a class for a method": (lambda: fit(method=zoo.methods.NUTS), r"not a class.*NUTS\(\)"),
    "a number for a model": (lambda: fit(model=3), r"model .*callable"),
    "a number for a method": (lambda: fit(method=3), r"method .*zoo\.methods"),
    "model and method exchanged": (lambda: fit(model="nuts", method="mlp"), r"'nuts'"),
    "negative noise": (lambda: zoo.models.MLP(noise=-1.0), r"noise .*positive.*-1\.0"),
    "no weight scale": (lambda: zoo.models.MLP(weight_scale=0.0), r"weight_scale .*0\.0"),
    "a scale that is no number": (lambda: zoo.models.MLP(weight_scale="1"), r"weight_scale .*'1'"),
    "a prior below zero": (lambda: zoo.models.MLP(noise=dist.Normal(0, 1)), r"noise .*positive.*HalfNormal"),
    "an unknown activation": (lambda: zoo.models.MLP(activation="rulu"), r"activation .*'relu'"),
    "no units": (lambda: zoo.models.MLP(hidden=(0,)), r"hidden .*\(0,\)"),
    "a list of widths": (lambda: zoo.models.MLP(hidden=[5]), r"hidden .*tuple"),
    "no chains": (lambda: zoo.methods.NUTS(num_chains=0), r"num_chains .*at least 1.*0"),
    "no draws": (lambda: zoo.methods.NUTS(num_samples=0), r"num_samples .*0"),
    "a fraction of a draw": (lambda: zoo.methods.HMC(num_samples=10.5), r"num_samples .*whole.*10\.5"),
    "negative warm-up": (lambda: zoo.methods.NUTS(num_warmup=-1), r"num_warmup .*-1"),
    "negative step": (lambda: zoo.methods.HMC(step_size=-0.1), r"step_size .*positive"),
    "nan step": (lambda: zoo.methods.HMC(step_size=float("nan")), r"step_size .*nan"),
    "trajectories of no steps": (lambda: zoo.methods.HMC(max_steps=0), r"max_steps .*at least 1.*0"),
    "impossible acceptance": (lambda: zoo.methods.NUTS(target_accept=1.0), r"target_accept .*between"),
    "no thinning": (lambda: zoo.methods.MetropolisHastings(thinning=0), r"thinning .*0"),
    "an unknown start": (lambda: zoo.methods.NUTS(start="zero"), r"start .*'prior', 'map', 'ensemble'"),
    "no learning": (lambda: zoo.methods.MAP(learning_rate=0.0), r"learning_rate .*positive"),
    "more batch than rows": (lambda: fit(method=zoo.methods.MAP(batch_size=13)), r"batch_size .*12 rows.*13"),
    "a seed that is no number": (lambda: fit(seed="x"), r"seed .*'x'"),
    "a negative seed": (lambda: fit(seed=-1), r"seed .*-1"),
    "standardize that is neither": (lambda: fit(standardize="yes"), r"standardize .*True, False or None"),
    "progress that is neither": (lambda: fit_with_bar("often"), r"progress .*True, False, 'always'.*'often'"),
    "unknown precision": (lambda: fit(precision="float16"), r"precision .*'float32', 'float64'"),
    "unknown way of running": (lambda: fit(chain_method="parallel"), r"chain_method .*'threads'"),
}


def assert_refused(call, message: str) -> None:
    with pytest.raises((ZooTypeError, ZooValueError)) as caught:
        call()
    said = str(caught.value)
    assert re.search(message, said, re.DOTALL), said
    assert said.endswith((".", ")", "?")), said
    assert "Traceback" not in said and "jax" not in said.lower(), said


@pytest.mark.parametrize("case", DATA | SETTINGS)
def test_refused_at_the_door(case, compilations):
    assert_refused(*(DATA | SETTINGS)[case])
    assert compilations.count == 0


@pytest.fixture(scope="module")
def framed() -> zoo.Posterior:
    return fit(pd.DataFrame(X, columns=["a", "b"]), pd.Series(Y, name="t"))


NEW = pd.DataFrame(X[:3], columns=["a", "b"])
AT_PREDICT = {
    "another width": (lambda p: p.predict(X[:, :1]), r"x .*2 columns wide.*\(12, 1\).*'a', 'b'"),
    "a column missing": (lambda p: p.predict(NEW[["a"]]), r"x .*without 'b'"),
    "a column twice": (lambda p: p.predict(pd.concat([NEW, NEW["a"]], axis=1)), r"x .*several called 'a'"),
    "nan": (lambda p: p.predict(put(X, (1, 1), np.nan)), r"x .*row 1"),
    "nan in a frame": (lambda p: p.predict(NEW.assign(a=[0.0, np.nan, 0.0])), r"x .*row 1.*'a'"),
    "1e30": (lambda p: p.predict(put(X, (2, 1), 1e30)), r"x .*row 2, column 1.*another unit"),
    "a vector": (lambda p: p.predict(X[0]), r"x .*x\[None, :\]"),
    "targets of another length": (lambda p: p.evaluate(X, Y[:2]), r"y .*12 rows"),
    "nan in targets": (lambda p: p.evaluate(X, put(Y, 4, np.nan)), r"y .*row 4"),
    "a level beyond 1": (lambda p: p.predict(X).quantile(1.5), r"q .*1\.5"),
    "an unknown kind": (lambda p: p.predict(X, kind="linear"), r"kind .*'linear'"),
    "a kind of other methods": (lambda p: p.predict(X, kind="moments"), r"kind .*Gaussian of independent layers"),
    "going on from a point": (lambda p: p.resume(10), r"sampler"),
}


@pytest.mark.parametrize("case", AT_PREDICT)
def test_refused_when_asked(case, framed):
    call, message = AT_PREDICT[case]
    assert_refused(lambda: call(framed), message)


# --- what is fitted all the same ------------------------------------------------------------------------------------

READ_ONLY = X.copy()
READ_ONLY.setflags(write=False)
ACCEPTED = {
    "a column of targets": (X, Y[:, None]),
    "one row": (X[:1], Y[:1]),
    "integers": ((X * 10).astype(int), (Y * 10).astype(int)),
    "booleans": (X > 0, Y > 0),
    "float16": (X.astype(np.float16), Y.astype(np.float16)),
    "float32": (X.astype(np.float32), Y.astype(np.float32)),
    "unsigned bytes": ((np.abs(X) * 50).astype(np.uint8), Y),
    "read-only": (READ_ONLY, Y),
    "Fortran-ordered": (np.asfortranarray(X), Y),
    "strided": (np.repeat(X, 2, 0)[::2], Y[::-1][::-1]),
    "lists": (X.tolist(), Y.tolist()),
    "masked, nothing masked": (np.ma.masked_array(X), Y),
    "1e30": (X * 1e30, Y * 1e30),
    "1e-30": (X * 1e-30, Y * 1e-30),
    "far from zero": (X + 1e9, Y - 1e9),
    "big-endian": (X.astype(">f8"), Y.astype(">f4")),
    "a frame of mixed numbers": (pd.DataFrame({"a": X[:, 0], "b": np.arange(12)}), pd.Series(Y)),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_fitted_all_the_same(case):
    x, y = ACCEPTED[case]
    posterior = fit(x, y)
    prediction = posterior.predict(x)
    assert prediction.mean.shape == (len(posterior.data),)
    assert np.isfinite(prediction.mean).all() and (prediction.std > 0).all()
    assert np.isfinite(posterior.evaluate(x, y)[["rmse", "nll", "crps"]]).all()


def test_constant_columns_are_scaled_by_one_and_said(caplog):
    posterior = fit(np.column_stack([X[:, 0], np.full(12, 7.0)]))
    assert "constant column(s) ['x1']" in caplog.text
    assert posterior.scaling.x_scale[1] == 1


def test_a_constant_target_is_said(caplog):
    prediction = fit(y=np.full(12, 5.0)).predict(X)
    assert "the target is constant" in caplog.text
    assert np.isfinite(prediction.mean).all()


def test_columns_are_realigned_by_name(framed):
    np.testing.assert_array_equal(framed.predict(NEW).mean, framed.predict(NEW[["b", "a"]]).mean)


def test_the_bar_is_silent_where_nobody_looks_unless_asked(capsys):
    fit_with_bar(True)
    assert capsys.readouterr().err == ""
    fit_with_bar("always")
    assert "MAP" in capsys.readouterr().err


# --- anything at all ------------------------------------------------------------------------------------------------

DTYPES = ["bool", "int8", "uint16", "int64", "float16", "float32", "float64", "complex64", "U3", "object", "M8[s]"]
NUMBERS = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.integers(-(10**6), 10**6),
    st.sampled_from([0.0, -0.0, 1e30, 1e-30, 1e300, 5e-324, np.inf, np.nan, 1.5]),
)
SHAPES = st.sampled_from([(3, 2), (4, 1), (1, 2), (3,), (0, 2), (3, 0), (), (2, 2, 2)])
LAYOUTS = st.sampled_from(["C", "F", "strided", "read-only", "list", "frame", "masked"])


@st.composite
def arrays(draw, shape):
    flat = draw(st.lists(NUMBERS, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    dtype = draw(st.sampled_from(DTYPES))
    with np.errstate(all="ignore"):
        try:
            array = np.array(flat, dtype=object).reshape(shape).astype(dtype)
        except (ValueError, OverflowError, TypeError):
            array = np.array(flat, dtype=float).reshape(shape)
    layout = draw(LAYOUTS)
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "strided" and array.ndim:
        return np.repeat(array, 2, 0)[::2]
    if layout == "read-only":
        array.setflags(write=False)
    if layout == "list":
        return array.tolist()
    if layout == "frame" and array.ndim == 2:
        return pd.DataFrame(array)
    return np.ma.masked_array(array) if layout == "masked" and array.dtype.kind == "f" else array


@st.composite
def pairs(draw):
    shape = draw(SHAPES)
    rows = shape[0] if shape else 1
    other = draw(st.sampled_from([(rows,), (rows, 1), (rows, 2), (rows + 1,)]))
    return draw(arrays(shape)), draw(arrays(other)), draw(st.booleans())


@settings(
    max_examples=150,
    deadline=None,  # the first fit of a shape compiles
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(pairs())
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_anything_is_fitted_or_refused(pair):
    """Never a traceback of JAX, never a silent NaN."""
    x, y, standardize = pair
    try:
        posterior = fit(x, y, standardize=standardize)
    except ZooError:
        return
    prediction = posterior.predict(x)
    for values in (prediction.mean, prediction.std, prediction.quantile(0.5)):
        assert np.isfinite(values).all()
    assert (prediction.std > 0).all()
