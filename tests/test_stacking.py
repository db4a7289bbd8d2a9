"""``zoo.stack``: weights against brute force, and the weighted mixture against draws that are repeated."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from numpyro import distributions as dist
from scipy import stats
from scipy.optimize import minimize

import bnn_zoo as zoo
from bnn_zoo.engine import mixture, simplex
from bnn_zoo.engine.likelihood import Likelihood
from bnn_zoo.reports import stacked

METHOD = zoo.methods.NUTS(num_warmup=5, num_samples=5, num_chains=1, start="prior")
X = np.linspace(-1, 1, 40)[:, None]
Y = 2 * X[:, 0] + 0.5 * np.sin(37 * X[:, 0])
PLAIN = {"standardize": False, "precision": "float64", "progress": False}


@pytest.fixture(scope="module")
def line() -> zoo.Posterior:
    return zoo.fit(zoo.models.Linear(noise=0.5), METHOD, (X, Y), **PLAIN)


@pytest.fixture(scope="module")
def network() -> zoo.Posterior:
    model = zoo.models.MLP(hidden=(3,), noise=0.7)
    return zoo.fit(model, METHOD, (X, Y), progress=False)  # standardised, in float32


def with_lines(posterior: zoo.Posterior, *chains: list[tuple[float, float]], kind: str = "markov") -> zoo.Posterior:
    """The same model with draws put by hand, a list of (slope, intercept) a chain."""
    positions = np.array(chains, float)
    return replace(posterior, result=replace(posterior.result, positions=positions, stats={}, kind=kind))


# --- weights ----------------------------------------------------------------------------------------------------------


def mean_score(scores: np.ndarray, w: np.ndarray) -> float:
    top = scores.max(1)
    return float(np.mean(top + np.log(np.exp(scores - top[:, None]) @ w)))


@pytest.mark.parametrize(("rows", "parts"), [(60, 2), (300, 12), (15, 30)])
def test_weights_are_scipys_and_the_gap_is_a_bound(rows, parts):
    """A step too long, a barrier left too strong, or weights that do not sum to 1; SLSQP agrees to 1e-9 nats."""
    rng = np.random.default_rng(rows)
    scores = rng.normal(size=(rows, parts)) * rng.uniform(0.2, 3, parts) + rng.normal(size=parts) / 2 - 300
    w, gap = simplex.most_likely(scores)
    assert w.sum() == pytest.approx(1, abs=1e-12) and (w >= 0).all() and 0 <= gap < 1e-9

    def minus(w: np.ndarray) -> tuple[float, np.ndarray]:
        p = np.exp(scores + 300)
        return -np.mean(np.log(p @ w)), -(p / (p @ w)[:, None]).mean(0)

    simple = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    even = np.full(parts, 1 / parts)
    options = {"ftol": 1e-14, "maxiter": 1000}
    theirs = minimize(minus, even, jac=True, bounds=[(0, 1)] * parts, constraints=simple, options=options)
    assert mean_score(scores, w) == pytest.approx(-theirs.fun - 300, abs=1e-9)
    np.testing.assert_allclose(w, theirs.x, atol=1e-4)
    # The certificate holds for any weights: what it promises at most is at least what there is to be gained.
    p = np.exp(scores - scores.max(1, keepdims=True))
    bound = np.max((p / (p @ even)[:, None]).mean(0)) - 1
    assert bound >= mean_score(scores, w) - mean_score(scores, even) > 0


def test_weights_of_two_against_a_grid():
    scores = np.random.default_rng(0).normal(size=(60, 2)) * [1, 2]
    grid = np.linspace(0, 1, 10_001)
    best = grid[np.argmax([mean_score(scores, np.array([1 - w, w])) for w in grid])]
    assert 0.01 < best < 0.99
    assert simplex.most_likely(scores)[0][1] == pytest.approx(best, abs=1e-4)


def test_the_right_one_of_two_normals_gets_all():
    """Where the other is worse at every row, and where it is worse by an expectation that 4,000 rows settle."""
    y = np.random.default_rng(1).normal(size=4000)
    right = stats.norm.logpdf(y)
    assert simplex.most_likely(np.stack([right, right - 1], 1))[0].tolist() == [1, 0]
    # The gradient at (1, 0) is the mean of q/p, 1 in expectation where q is a density: at the truth every other one is
    # on the edge, and stays within a few standard errors of weight 0.
    w, _ = simplex.most_likely(np.stack([right, stats.norm.logpdf(y, 0.5, 2)], 1))
    assert w[0] > 0.9


def test_weights_of_a_mixture_are_those_that_made_it():
    """Truth 0.3 / 0.7: within four standard errors, by the observed information of the mean log score."""
    rng = np.random.default_rng(2)
    which = rng.uniform(size=4000) < 0.3
    y = np.where(which, rng.normal(-1, 1, 4000), rng.normal(1.5, 0.7, 4000))
    scores = np.stack([stats.norm.logpdf(y, -1, 1), stats.norm.logpdf(y, 1.5, 0.7)], 1)
    w, _ = simplex.most_likely(scores)
    p = np.exp(scores)
    error = 1 / np.sqrt(np.sum(((p[:, 0] - p[:, 1]) / (p @ w)) ** 2))
    assert error < 0.01
    assert abs(w[0] - 0.3) < 4 * error


def test_equal_parts_share_alike_and_hopeless_ones_get_nothing():
    scores = np.random.default_rng(3).normal(size=(60, 1))
    w, _ = simplex.most_likely(np.hstack([scores, scores, scores - 900]))
    np.testing.assert_allclose(w, [0.5, 0.5, 0], atol=1e-3)
    alone = np.where(np.arange(60)[:, None] < 15, [0.0, -np.inf], [-np.inf, 0.0])
    np.testing.assert_allclose(simplex.most_likely(alone)[0], [0.25, 0.75], atol=1e-9)
    assert simplex.most_likely(scores)[0].tolist() == [1]


# --- weighted mixtures ------------------------------------------------------------------------------------------------


def parameters(draws: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(draws)
    return {"loc": rng.normal(size=(draws, 3)) * 2, "scale": rng.uniform(0.3, 2, (draws, 3))}


@pytest.mark.parametrize(
    ("draws", "family", "names"),
    [
        (5, dist.Normal, ("cdf", "log_prob", "quantile", "crps")),
        (300, dist.Normal, ("crps",)),  # by the trapezium rule, where that of 5 draws is by pairs
        (5, dist.Laplace, ("cdf", "log_prob", "quantile")),
    ],
)
def test_weights_one_to_two_are_draws_repeated_twice(draws, family, names):
    """A place where weights are forgotten, or squared: to 1e-9."""
    given = parameters(draws)
    times = np.where(np.arange(draws) % 3 == 0, 1, 2)
    weighted = Likelihood(given, family, times / times.sum())
    repeated = Likelihood({name: np.repeat(v, times, axis=0) for name, v in given.items()}, family)
    y = np.array([-1.0, 0.2, 4.0])
    if family is dist.Normal:
        assert (mixture._nodes(weighted) > 0) == (draws == 300)
    for name in names:
        argument = np.array([0.01, 0.3, 0.5, 0.99]) if name == "quantile" else y
        found, plain = mixture.evaluate(name, weighted, argument), mixture.evaluate(name, repeated, argument)
        np.testing.assert_allclose(found, plain, rtol=1e-9, atol=1e-9, err_msg=name)
        even = mixture.evaluate(name, Likelihood(given, family), argument)
        assert np.abs(found - even).max() > 1e-4  # the weights do matter


def test_a_stack_of_chains_predicts_as_the_draws_repeated(line):
    """Of weights 2/3 and 1/3: all that a prediction has equals that of an ordinary posterior with one repeated."""
    chains = [[(2, 0.1), (2.2, 0)], [(1, -0.3), (0.5, 0.4)]]
    stack = fixed(line, chains, [2 / 3, 1 / 3])
    one = stack.predict(X)
    plain = with_lines(line, [*chains[0], *chains[0], *chains[1]]).predict(X)
    assert one.kind == "stacked" and one.is_normal
    for name in ("mean", "std", "epistemic_std", "aleatoric_std"):
        np.testing.assert_allclose(getattr(one, name), getattr(plain, name), rtol=1e-9)
    for name in ("cdf", "log_prob", "crps"):
        np.testing.assert_allclose(getattr(one, name)(Y), getattr(plain, name)(Y), rtol=1e-9)
    np.testing.assert_allclose(one.quantile([0.05, 0.5, 0.9]), plain.quantile([0.05, 0.5, 0.9]), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(one.interval(0.8), plain.interval(0.8), rtol=1e-9, atol=1e-12)
    assert stack.evaluate(X, Y).to_dict() == pytest.approx(zoo.reports.scores.evaluate(plain, Y).to_dict(), rel=1e-9)


def fixed(line: zoo.Posterior, chains: list, weights: list[float]) -> zoo.Posterior:
    """A stack of chains with weights put by hand."""
    stack = zoo.stack(with_lines(line, *chains), (X + 0.01, Y))
    import pandas as pd

    given = pd.Series(weights, index=stack.weights.index, name="weight")
    rows = [part._flat for part in stack.parts.values()]
    chosen = stacked.in_proportion([len(r) for r in rows], np.array(weights), stack.num_draws)
    positions = np.concatenate([r[i] for r, i in zip(rows, chosen, strict=True)])[None]
    return replace(stack, weights=given, result=replace(stack.result, positions=positions))


def test_draws_of_a_stack_are_in_proportion(line):
    """Plain averages over 1,000 draws are the weighted ones, to 1 / 1,000 of the distance between chains."""
    stack = fixed(line, [[(2, 0.1), (2.2, 0)], [(1, -0.3), (0.5, 0.4)]], [0.8, 0.2])
    f = stack.function_draws(X)
    assert f.shape == (1, 1000, 40) and stack.num_draws == 1000 and stack.num_chains == 1
    np.testing.assert_allclose(f.mean((0, 1)), stack.predict(X).mean, atol=2e-3)
    lines = stack.draws["w_0"].reshape(1000, 1) * X.T + stack.draws["b_0"].reshape(1000, 1)
    np.testing.assert_allclose(f[0], lines, atol=1e-12)
    density = stats.norm.logpdf(Y, f[0], 0.5)
    np.testing.assert_allclose(stack.log_likelihood(X, Y)[0], density, atol=1e-9)
    assert stack.idata["posterior"]["w_0"].shape[:2] == (1, 1000)


def test_samples_come_from_parts_by_their_weights(line, compilations):
    """Each part's number is its weight times num, within one; a row is one line, with independent noise about it."""
    stack = fixed(line, [[(0, -50)], [(0, 50)]], [0.3, 0.7])
    drawn = stack.predict(X).sample(101, seed=4)
    low = (drawn < 0).all(1)
    assert drawn.shape == (101, 40) and ((drawn > 0).all(1) | low).all()
    assert low.sum() in (30, 31)
    assert (low[:30].sum(), low[30:60].sum()) != (30, 0)  # shuffled
    compilations.reset()
    counts = [(stack.predict(X).sample(101, seed=s) < 0).all(1).sum() for s in range(30)]
    assert compilations.count == 0
    # 30.3 on average: rounded up in 3 of 10 seeds, give or take 0.084 a seed in 30.
    assert abs(np.mean(counts) - 30.3) < 5 * np.sqrt(0.3 * 0.7 / 30)
    assert np.array_equal(stack.predict(X).sample(7, seed=1), stack.predict(X).sample(7, seed=1))
    assert drawn[low].std() == pytest.approx(0.5, rel=5 / np.sqrt(2 * 30 * 40))


@pytest.mark.parametrize("total", [1, 7, 1000])
def test_in_proportion(total):
    shares, have = np.array([0.5, 0.123, 0.377]), [3, 400, 10]
    chosen = stacked.in_proportion(have, shares, total)
    assert sum(map(len, chosen)) == total
    for index, share, count in zip(chosen, shares, have, strict=True):
        assert abs(len(index) - total * share) < 1
        times = np.bincount(index, minlength=count)
        assert len(times) == count and times.max() - times.min() <= 1


# --- stacks -----------------------------------------------------------------------------------------------------------


def test_a_chain_in_a_bad_mode_gets_no_weight(line):
    """Of three chains one is far off: its weight is 0, and the stack scores at least as any mixture, on these rows."""
    chains = [[(2, 0), (2.05, 0.05)], [(-3, 1), (-3.1, 1)], [(1.95, 0), (2, -0.05)]]
    held_out = X + 0.003, Y
    stack = zoo.stack(with_lines(line, *chains), held_out)
    assert list(stack.weights.index) == ["chain 0", "chain 1", "chain 2"]
    assert stack.weights["chain 1"] < 1e-6 and stack.weights.sum() == pytest.approx(1)
    equal = with_lines(line, *chains)
    score = stack.evaluate(*held_out)["nll"]
    assert score <= equal.evaluate(*held_out)["nll"] - 0.1
    for chain in chains:
        assert score <= with_lines(line, chain).evaluate(*held_out)["nll"] + stack.weights.attrs["gap"] + 1e-12
    assert isinstance(stack, zoo.Posterior) and stack.origin is not None
    assert stack.timing == equal.timing


def test_a_stack_says_what_it_is(line):
    chains = [[(2, 0), (2.05, 0.05)] * 30, [(-3, 1), (-3.1, 1)] * 30]
    stack = zoo.stack(with_lines(line, *chains), (X + 0.003, Y))
    assert "chain 0" in repr(stack) and "1.0000" in repr(stack) and "40 held-out rows" in repr(stack)
    diagnosis = stack.diagnose()
    (said,) = (check for check in diagnosis.checks if check.name == "stacking")
    assert "chain 0 1.000, chain 1 0.000" in said.finding and said.value == pytest.approx(1)
    (part,) = (check for check in diagnosis.checks if check.name.startswith("part"))
    assert part.name == "part chain 0"
    assert not any("One chain cannot" in check.finding for check in diagnosis.checks)
    assert len(diagnosis.points) == len(diagnosis.x) and diagnosis.ok == (diagnosis.verdict != "failed")
    with pytest.raises(zoo.errors.ZooValueError, match="Resume its parts"):
        stack.resume(5)
    with pytest.raises(zoo.errors.ZooValueError, match="Save its parts"):
        stack.save("x.nc")


def test_weights_that_chance_explains_are_doubtful(line):
    """Two chains of nearly the same line, on 40 rows: all the weight goes to one, and that means nothing."""
    stack = zoo.stack(with_lines(line, [(2, 0.001)] * 2, [(2, 0.0)] * 2), (X + 0.003, Y))
    (said,) = (check for check in stack.diagnose().checks if check.name == "stacking")
    assert said.status == "doubtful" and "chance" in said.finding


def test_members_are_weighed_one_by_one(line):
    members = with_lines(line, [(2, 0), (-4, 0), (2, 0.3)], kind="members")
    stack = zoo.stack(members, (X + 0.003, Y))
    assert list(stack.weights.index) == ["member 0", "member 1", "member 2"] and stack.weights["member 1"] == 0
    assert any(check.name == "part the members" for check in stack.diagnose().checks)
    np.testing.assert_allclose(stack.predict(X).aleatoric_std, 0.5)


def test_different_models_on_different_scales(line, network, tmp_path):
    """A line on the data's scale and a network on a standardised one: the mixture of both predictions, in y's units."""
    parts = {"line": with_lines(line, [(2, 5), (1.9, 5)]), "network": network}
    one, other = (part.predict(X) for part in parts.values())
    half = np.arange(40) % 2 == 0  # each is the right one for half of the rows, so that both have weight
    stack = zoo.stack(parts, (X + 0.003, np.where(half, one.mean, other.mean)))
    assert stack.weights.min() > 0.1 and not stack.alike
    stack = replace(stack, weights=stack.weights * 0 + [0.4, 0.6])
    both = stack.predict(X)
    np.testing.assert_allclose(both.cdf(Y), 0.4 * one.cdf(Y) + 0.6 * other.cdf(Y), rtol=1e-6)
    density = 0.4 * np.exp(one.log_prob(Y)) + 0.6 * np.exp(other.log_prob(Y))
    np.testing.assert_allclose(np.exp(both.log_prob(Y)), density, rtol=1e-6)
    np.testing.assert_allclose(both.mean, 0.4 * one.mean + 0.6 * other.mean, rtol=1e-12)
    second = 0.4 * (one.std**2 + one.mean**2) + 0.6 * (other.std**2 + other.mean**2)
    np.testing.assert_allclose(both.std**2, second - both.mean**2, rtol=1e-9)
    q = both.quantile([0.1, 0.6])
    np.testing.assert_allclose(0.4 * one.cdf(q[0]) + 0.6 * other.cdf(q[0]), 0.1, rtol=1e-5)
    drawn = both.sample(4000, seed=0)
    np.testing.assert_allclose(drawn.mean(0), both.mean, atol=5 * both.std.max() / np.sqrt(4000))
    assert np.isfinite(both.crps(Y)).all()
    assert stack.draws == {} and stack.function_draws(X).shape == (1, 1000, 40)
    with pytest.raises(zoo.errors.ZooValueError, match="parts of different ones"):
        zoo.lipschitz_bound(stack)
    with pytest.raises(zoo.errors.ZooValueError, match="pass a posterior"):
        stack.diagnose(reference="nuts")
    text = stack.report(tmp_path / "stack.html", (X + 0.003, Y)).read_text()
    assert "zoo.stack(parts, rows)" in text and "parts[&#39;network&#39;]" in text


def test_more_rows_than_a_block(line, monkeypatch):
    from bnn_zoo.engine import predictive

    stack = fixed(line, [[(2, 0.1), (2.2, 0)], [(1, -0.3), (0.5, 0.4)]], [0.8, 0.2])
    whole = stack.predict(X)
    expected = whole.cdf(Y), whole.quantile(0.3)
    monkeypatch.setattr(predictive, "MOST_ROWS", 16)
    again = stack.predict(X)
    assert len(list(again._source.blocks())) == 3
    np.testing.assert_allclose(again.cdf(Y), expected[0], rtol=1e-12)
    np.testing.assert_allclose(again.quantile(0.3), expected[1], rtol=1e-9)


def test_weights_by_leave_one_out(line):
    """Two chains of 200 draws, one about the data's line and one about another: PSIS-LOO tells them apart."""
    rng = np.random.default_rng(6)
    good = [2, 0] + 0.1 * rng.normal(size=(200, 2))
    bad = [1, 0.5] + 0.1 * rng.normal(size=(200, 2))
    stack = zoo.stack(with_lines(line, good, bad))
    assert stack.weights["chain 0"] > 0.95
    np.testing.assert_allclose(stack.log_scores[:, 1], zoo.loo(with_lines(line, bad)).elpd_i.values, rtol=1e-10)
    names = [check.name for check in stack.diagnose().checks]
    assert (
        "Pareto k of LOO" in names and "leave" not in stack.method.weighed_on and "PSIS-LOO" in stack.method.weighed_on
    )


def test_fitted_rows_are_warned_about(line, caplog):
    zoo.stack(with_lines(line, [(2, 0)], [(1, 0)]), (X, Y))
    assert "fitted to the very rows" in caplog.text


def test_a_gaussian_process_is_a_part(line):
    process = zoo.infinite_width(zoo.models.Linear(noise=0.5), (X, Y), standardize=False)
    stack = zoo.stack([with_lines(line, [(-2, 0), (-1, 0)]), process], (X + 0.003, Y))
    assert stack.weights["infinite_width"] == 1
    np.testing.assert_allclose(stack.predict(X).mean, process.predict(X).mean)
    with pytest.raises(zoo.errors.ZooValueError, match="Gaussian processes alone"):
        stack.report("x.html")


def student(x, y=None):
    import numpyro

    w = numpyro.sample("w", dist.Normal(0, 1))
    numpyro.sample("y", dist.StudentT(4.0, w * x[:, 0], 0.5), obs=y)


@pytest.mark.parametrize(
    ("posteriors", "data", "mend"),
    [
        (lambda line: {"one": line}, True, "Pass {'nuts'"),
        (lambda line: line, True, "one of 1 chain"),
        (lambda line: 3, True, "posteriors by name"),
        (lambda line: {"one": line, "two": 3}, True, "zoo.fit and zoo.load return"),
        (lambda line: [zoo.stack(with_lines(line, [(2, 0)], [(1, 0)]), (X + 0.1, Y))] * 2, True, "unstacked"),
        (lambda line: with_lines(line, [(2, 0), (1, 0)], kind="members"), False, "Pass held-out rows"),
        (lambda line: [line, replace(line, data=zoo.Dataset(X, Y + 1))], False, "the same rows"),
        (lambda line: [line, replace(line, data=zoo.Dataset(X, Y, feature_names=("a",)))], True, "same columns"),
        (lambda line: [line, line], "nan", "scores should be finite"),
        (lambda line: [line, zoo.fit(student, METHOD, (X, Y), progress=False)], True, "one family.*StudentT"),
    ],
)
def test_refusals(line, posteriors, data, mend, monkeypatch):
    if data == "nan":
        monkeypatch.setattr(zoo.Prediction, "log_prob", lambda self, y: np.full(len(self), np.nan))
    with pytest.raises(zoo.errors.ZooError, match=mend):
        zoo.stack(posteriors(line), (X + 0.003, Y) if data else None)


def test_equal_weights_keep_their_bits():
    """No weights: the very same program as before, which means over draws."""
    components = Likelihood(parameters(5), dist.Normal)
    assert len(jax.tree.leaves(components)) == 2
