"""Distillation: a student says what its teacher says, on the data and off it, and lasts like any posterior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bnn_zoo as zoo
from bnn_zoo.distilling import Running, ask
from bnn_zoo.errors import ZooTypeError, ZooValueError
from bnn_zoo.methods.distillation import beyond, nearby, through

SHORT = zoo.methods.Distillation(num_inputs=6000, num_steps=4000, batch_size=256)
BRIEF = zoo.methods.Distillation(num_inputs=200, num_steps=30, batch_size=50)
SMALL = zoo.models.Student(hidden=(32, 32))


def make_data(rows: int, seed: int) -> zoo.Dataset:
    """Two features on scales of their own; noise of sd 3 in the target's unit."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, 2))
    y = 100 + 10 * np.sin(2 * x[:, 0]) + 5 * x[:, 1] + 3 * generator.normal(size=rows)
    return zoo.Dataset(x * [5.0, 0.1] + [40.0, -2.0], y)


TRAIN, TEST = make_data(100, 0), make_data(400, 1)


@pytest.fixture(scope="module")
def teacher() -> zoo.Posterior:
    method = zoo.methods.HMC(num_warmup=200, num_samples=100, num_chains=2, trajectory_length=1.0, start="prior")
    return zoo.fit(zoo.models.MLP(hidden=(10,), activation="tanh"), method, TRAIN, progress=False)


@pytest.fixture(scope="module")
def student(teacher) -> zoo.Posterior:
    return zoo.distill(teacher, SMALL, SHORT, progress=False)


@pytest.fixture(scope="module")
def line() -> zoo.Posterior:
    """A linear model's own posterior, in closed form."""
    return zoo.fit(zoo.models.Linear(noise=0.5), zoo.methods.Laplace(num_samples=20), TRAIN, progress=False)


@pytest.fixture(scope="module")
def brief(line) -> zoo.Posterior:
    return zoo.distill(line, SMALL, BRIEF, progress=False)


# --- what it says -----------------------------------------------------------------------------------------------------


def test_the_student_scores_like_its_teacher(teacher, student):
    """Held-out log score within 0.05 nats of the teacher's, as was asked."""
    ours, theirs = (p.predict(TEST.x).log_prob(TEST.y).mean() for p in (student, teacher))
    assert abs(ours - theirs) < 0.05


SHIFTS = {"none": (0, 0), "both": (2, 2), "up and down": (2.5, -2.5), "first": (3, 0), "second": (0, -3)}


@pytest.mark.parametrize("shift", SHIFTS.values(), ids=SHIFTS)
def test_its_doubt_goes_with_the_teachers_in_and_out_of_distribution(teacher, student, shift):
    """Test rows, as they are and moved by 2 to 3 sds: epistemic sds correlate above 0.9, and agree within 25 %.

    Fails where the second term of the loss is left out: 0.87 and 26 % on the rows as they are, for 0.99 and 4 %.
    """
    x = TEST.x + np.asarray(shift) * TRAIN.x.std(0)
    ours, theirs = (p.predict(x).epistemic_std for p in (student, teacher))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9
    assert np.abs(np.log(ours / theirs)).mean() < 0.25


def test_a_linear_posterior_is_learnt_to_a_hundredth(line):
    """The teacher in closed form: mean linear in x, epistemic variance quadratic, noise fixed at half the target's sd.

    Test rows, and rows moved by up to 2 sds. Numerical precision of the fit: 2 % of the epistemic sd and of the
    noise, and the mean within 2 % of the predictive sd, root mean squares.
    """
    found = zoo.distill(line, SMALL, SHORT, progress=False)
    generator = np.random.default_rng(2)
    x = np.concatenate([TEST.x, TEST.x + generator.uniform(-2, 2, TEST.x.shape) * TRAIN.x.std(0)])
    ours = found.predict(x)
    scaled, new = ((a - TRAIN.x.mean(0)) / TRAIN.x.std(0) for a in (TRAIN.x, x))
    scaled, new = (np.column_stack([a, np.ones(len(a))]) for a in (scaled, new))
    noise, unit = 0.5, TRAIN.y.std()
    cov = np.linalg.inv(scaled.T @ scaled / noise**2 + np.eye(3))
    mean = new @ cov @ scaled.T @ (TRAIN.y - TRAIN.y.mean()) / unit / noise**2 * unit + TRAIN.y.mean()
    epistemic = np.sqrt(np.einsum("ni,ij,nj->n", new, cov, new)) * unit

    def rms(values: np.ndarray) -> float:
        return float(np.sqrt(np.mean(values**2)))

    assert rms(np.log(ours.epistemic_std / epistemic)) < 0.02
    assert rms(np.log(ours.aleatoric_std / (noise * unit))) < 0.02
    assert rms((ours.mean - mean) / np.hypot(epistemic, noise * unit)) < 0.02


def test_what_it_says_is_one_normal(student):
    """Quantiles, density and draws are those of the mean and of both variances together."""
    found = student.predict(TEST.x[:50])
    assert found.kind == "plug_in"
    low, high = found.interval(0.9).T
    np.testing.assert_allclose((high - low) / 2, 1.6448536 * found.std, rtol=1e-4)
    np.testing.assert_allclose(
        found.log_prob(found.mean), -np.log(found.std) - 0.5 * np.log(2 * np.pi), rtol=1e-4, atol=1e-4
    )
    drawn = found.sample(4000, seed=0)
    # Five standard errors of an sd of 4,000 Normals.
    assert np.abs(drawn.std(0) / found.std - 1).max() < 5 / np.sqrt(8000)
    np.testing.assert_allclose(
        student.log_likelihood(TEST.x[:50], TEST.y[:50])[0, 0], found.log_prob(TEST.y[:50]), 1e-4
    )


def test_one_row_or_many_say_the_same(student):
    """Rows are predicted in blocks, padded at the end; a block is as good as another, to rounding."""
    x = np.repeat(TEST.x, 6, axis=0)[:2100]
    whole = student.predict(x)
    for where in (slice(0, 1), slice(2050, 2100)):
        part = student.predict(x[where])
        for name in ("mean", "epistemic_std", "aleatoric_std"):
            np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[where], rtol=1e-4)


# --- that it lasts like any other -------------------------------------------------------------------------------------


def test_it_is_saved_and_loaded(student, tmp_path):
    back = zoo.load(student.save(tmp_path / "student.nc"))
    assert back.model == SMALL and back.method == SHORT and back.method_name == "distilled"
    for name in ("mean", "epistemic_std", "aleatoric_std"):
        np.testing.assert_array_equal(getattr(back.predict(TEST.x), name), getattr(student.predict(TEST.x), name))
    assert back.diagnose().table.equals(student.diagnose().table)
    assert repr(back) == repr(student)


def test_it_is_scored_judged_compared_and_reported(student, teacher, tmp_path):
    scores = student.evaluate(TEST.x, TEST.y)
    assert np.isfinite(scores).all()
    table = zoo.compare({"student": student, "teacher": teacher}, TEST, reference="teacher")
    assert 0.9 < table.loc["student", "epistemic_ratio"] < 1.1
    page = student.report(tmp_path / "student.html", TEST).read_text()
    assert "noise alone" not in page
    assert "is doubt about the function: this is one network" not in page
    assert student.idata["log_likelihood"]["y"].shape == (1, 1, len(TRAIN.y))


def test_the_diagnosis_holds_the_spread_that_it_tells(student):
    diagnosis = student.diagnose()
    np.testing.assert_allclose(diagnosis.points["sd"], student.predict(diagnosis.x).epistemic_std)


def test_the_diagnosis_says_whose_place_it_takes_and_how_well(student, brief, teacher):
    table = student.diagnose().table.set_index("check")
    assert "One network stands for 200 draws of mlp by hmc" in table.loc["teacher", "sentence"]
    assert table.loc["teacher", "status"] == teacher.diagnose().verdict
    rest = table.drop(index="teacher")
    assert len(rest) == 5 and (rest.status == "passed").all()
    assert not brief.diagnose().ok  # thirty steps teach nothing


def test_what_is_said_of_the_distance_is_true(teacher, student):
    """With inputs to be judged at, the correlation and the error of the mean are those that anyone can compute."""
    again = zoo.distill(teacher, SMALL, BRIEF, x=TEST.x, progress=False)
    ours, theirs = again.predict(TEST.x), teacher.predict(TEST.x)
    info = again.result.info
    found = np.corrcoef(ours.epistemic_std, theirs.epistemic_std)[0, 1]
    assert info["inside_correlation"] == pytest.approx(found, abs=1e-3)
    rmse = np.sqrt(np.mean((ours.mean - theirs.mean) ** 2 / theirs.std**2))
    assert info["inside_rmse"] == pytest.approx(rmse, rel=1e-3)
    ratio = np.exp(np.log(ours.epistemic_std / theirs.epistemic_std).mean())
    assert info["inside_ratio"] == pytest.approx(ratio, rel=1e-3)
    divergence = np.log(ours.std / theirs.std) - 0.5
    divergence += (theirs.std**2 + (ours.mean - theirs.mean) ** 2) / (2 * ours.std**2)
    assert info["inside_divergence"] == pytest.approx(divergence.mean(), rel=1e-3)


def test_a_seed_repeats_the_student(line, brief):
    again, other = (zoo.distill(line, SMALL, BRIEF, seed=seed, progress=False) for seed in (0, 1))
    np.testing.assert_array_equal(again.result.positions, brief.result.positions)
    assert again.result.info.keys() == brief.result.info.keys()
    assert not np.array_equal(other.result.positions, brief.result.positions)


def test_precision_follows_the_teacher():
    method = zoo.methods.Laplace(num_samples=20)
    wide = zoo.fit(zoo.models.Linear(noise=0.5), method, TRAIN, progress=False, precision="float64")
    found = zoo.distill(wide, SMALL, BRIEF, progress=False)
    assert found.x64 and found.result.positions.dtype == np.float64
    assert np.isfinite(found.predict(TEST.x).std).all()


@pytest.mark.parametrize("standardize", [True, False])
def test_members_and_units_of_any_kind_teach(standardize):
    """An ensemble, whose data may have been left alone: the student standardises for itself."""
    method = zoo.methods.DeepEnsemble(num_members=3, num_steps=50, polish_steps=0)
    members = zoo.fit(zoo.models.MLP(hidden=(5,)), method, TRAIN, standardize=standardize, progress=False)
    found = zoo.distill(members, SMALL, BRIEF, progress=False)
    assert found.kind == "members" and found.num_draws == 1
    assert np.isfinite(found.predict(TEST.x).std).all()


def test_a_likelihood_of_another_family_is_learnt_as_a_normal():
    """StudentT noise, of variance 2 s² at 4 degrees of freedom: the student's aleatoric sd is its root."""

    def own(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([3]).to_event(1))
        numpyro.sample("y", dist.StudentT(4.0, w[0] + x @ w[1:], 3.0), obs=y)

    method = zoo.methods.HMC(num_warmup=50, num_samples=20, num_chains=1, start="prior")
    found = zoo.distill(zoo.fit(own, method, TRAIN, progress=False), SMALL, BRIEF, progress=False).predict(TEST.x)
    assert found.is_normal
    assert np.median(found.aleatoric_std) == pytest.approx(3 * np.sqrt(2), rel=0.2)


def test_a_student_may_teach(brief):
    assert zoo.distill(brief, zoo.models.Student(hidden=(8,)), BRIEF, progress=False).problem.size < brief.problem.size


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_inputs_lie_where_the_page_says():
    x = np.array([[0.0, 0.0], [1.0, 10.0]])
    generator = np.random.default_rng(0)
    close = nearby(x, 5000, generator)
    gap = np.minimum(*(np.abs(close - row).max(1) for row in x))
    assert gap.max() < 0.5 * 5 and np.median(gap) < 0.5
    along = through(x, 5000, generator)
    np.testing.assert_allclose(along[:, 1], 10 * along[:, 0], atol=1e-9)
    assert along[:, 0].min() < -0.45 and along[:, 0].max() > 1.45
    far = beyond(x, 5000, 3.0, generator)
    assert len(far) == 5000 and far[2500:].min() >= -3 and (far[2500:].max(0) <= [4, 13]).all()
    settings = zoo.methods.Distillation(near=0.5, between=0.5)
    assert settings.inputs(x, 11, generator).shape == (11, 2)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_what_is_no_teacher_is_refused():
    with pytest.raises(ZooTypeError, match=r"posterior should be a Posterior.*zoo\.distill\(zoo\.fit"):
        zoo.distill("mlp")
    point = zoo.fit("mlp", zoo.methods.MAP(num_steps=5, polish_steps=0, num_restarts=1), TRAIN, progress=False)
    with pytest.raises(ZooValueError, match="point fit by map, whose epistemic sd is 0"):
        zoo.distill(point)


BAD = {
    "student name": ({"student": "mlp"}, ZooTypeError, r"student should be a Student.*zoo\.models\.Student"),
    "student class": ({"student": zoo.models.Student}, ZooTypeError, r"Call it: Student\(\)"),
    "student model": ({"student": zoo.models.MLP()}, ZooTypeError, "student should be a Student"),
    "method name": ({"method": "laplace"}, ZooTypeError, r"method should be a Distillation.*zoo\.methods\.Dist"),
    "kind": ({"kind": "moments"}, ZooValueError, "kind should be"),
    "seed": ({"seed": -1}, ZooValueError, "seed should be at least 0"),
    "progress": ({"progress": "no"}, ZooValueError, "progress should be one of"),
    "width of x": ({"x": np.ones((3, 5))}, ZooValueError, "x should be 2 columns wide"),
}


@pytest.mark.parametrize("given, error, said", BAD.values(), ids=BAD)
def test_bad_arguments_are_refused(line, given, error, said):
    with pytest.raises(error, match=said):
        zoo.distill(line, **given)


def test_a_batch_larger_than_the_inputs_is_refused(line):
    with pytest.raises(ZooValueError, match="batch_size should be at most the 100 rows"):
        zoo.distill(line, SMALL, zoo.methods.Distillation(num_inputs=100), progress=False)


SETTINGS = {
    "no steps": ({"num_steps": 0}, "num_steps should be at least 1"),
    "no inputs": ({"num_inputs": 1}, "num_inputs should be at least 2"),
    "no rate": ({"learning_rate": 0.0}, "learning_rate should be positive"),
    "no batch": ({"batch_size": 0}, "batch_size should be at least 1"),
    "no spread": ({"spread": -1.0}, "spread should be positive"),
    "a share of none": ({"near": -0.1}, "near should be a share"),
    "too many shares": ({"near": 0.8}, r"near \+ between should be at most 1; got 1.1"),
}


@pytest.mark.parametrize("given, said", SETTINGS.values(), ids=SETTINGS)
def test_impossible_settings_are_refused(given, said):
    with pytest.raises(ZooValueError, match=said):
        zoo.methods.Distillation(**given)


def test_impossible_students_are_refused():
    with pytest.raises(ZooValueError, match="hidden should be made of positive whole numbers"):
        zoo.models.Student(hidden=(0,))
    with pytest.raises(ZooValueError, match="activation should be one of"):
        zoo.models.Student(activation="step")


def test_fit_says_that_a_teacher_comes_first():
    with pytest.raises(ZooValueError, match=r"Fit a teacher by another, then zoo\.distill"):
        zoo.fit("linear", zoo.methods.Distillation(), TRAIN, progress=False)


def test_a_fit_of_a_student_to_data_has_no_doubt_of_its_own():
    """Its outputs part the variance at will: read as doubt only where a teacher told them apart."""
    method = zoo.methods.MAP(num_steps=20, polish_steps=0, num_restarts=1)
    found = zoo.fit(zoo.models.Student(hidden=(4,)), method, TRAIN, progress=False).predict(TEST.x)
    assert (found.epistemic_std == 0).all()


# --- a teacher that is still running ----------------------------------------------------------------------------------

RUNNING = zoo.methods.SGLD(num_warmup=50, num_samples=10, num_chains=2, thinning=5, batch_size=20, start="prior")


@pytest.fixture(scope="module")
def running() -> zoo.Posterior:
    return zoo.fit(zoo.models.Linear(noise=0.5), RUNNING, TRAIN, progress=False)


def test_a_running_teacher_says_what_one_that_kept_its_draws_would(running):
    """Running means over parts of a chain against the draws of one long fit, to the rounding of float32 sums."""
    whole = zoo.fit(zoo.models.Linear(noise=0.5), replace(RUNNING, num_samples=41), TRAIN, progress=False)
    scaling, x = running.scaling, np.random.default_rng(0).normal(size=(50, 2))
    teacher = Running(running, ask(running, x, scaling, None, False), scaling, False)
    said = list(teacher.rounds(31, 4))
    want = ask(whole, x, scaling, None, False)
    for name in ("mean", "epistemic", "aleatoric"):
        np.testing.assert_allclose(getattr(said[-1], name), getattr(want, name), rtol=1e-4, err_msg=name)
    assert len(said) == 4
    assert teacher.teacher.num_draws < 10  # the others are forgotten
    kept = teacher.kept().result.positions
    held = [(row == whole.result.positions[0]).all(1).any() for row in kept[0]]
    assert all(held)
    assert 20 <= kept.shape[1] <= 30


def test_a_student_follows_a_running_chain(running):
    """It ends as near to its teacher as one that was told all at once, of 100 draws in all."""
    method = replace(SHORT, num_rounds=5)
    student = zoo.distill(running, SMALL, method, num_samples=40, progress=False)
    info = student.result.info
    assert info["teacher_draws"] == 2 * 50
    assert info["inside_divergence"] < 0.01
    assert min(info["inside_correlation"], info["outside_correlation"]) > 0.9
    assert student.timing.gradient_evaluations == SHORT.num_steps


def test_only_a_sampler_can_go_on(running, line):
    with pytest.raises(ZooValueError, match="num_samples should be asked of a sampler"):
        zoo.distill(line, SMALL, BRIEF, num_samples=10)
    with pytest.raises(ZooValueError, match="num_samples should be at least 1"):
        zoo.distill(running, SMALL, BRIEF, num_samples=0)
