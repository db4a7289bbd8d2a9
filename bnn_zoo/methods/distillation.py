"""One network in place of a posterior: how a student is trained on what its teacher says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bnn_zoo.engine import training
from bnn_zoo.engine.compiled import call, runs_once
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.schedules import Schedule
from bnn_zoo.engine.starts import prior_positions
from bnn_zoo.engine.training import Trained
from bnn_zoo.errors import bad_type, bad_value, check_count, check_positive
from bnn_zoo.methods.ensembles.trained import check_batch

LEAST_SHARE = 1e-6  # of the predictive variance: what is less is taken to be this much, as logs are learnt
LEAST_SCALE = 0.1  # of a log variance over the inputs: one that hardly varies is not blown up


@dataclass(frozen=True, eq=False)
class Targets:
    """What a teacher says at ``n`` inputs, on the scale that the student sees: all that a student learns from.

    Attributes
    ----------
    x : ndarray
        ``(n, d)``.
    mean, epistemic, aleatoric : ndarray
        ``(n,)``: the predictive mean, the variance of f(x) between draws, and the mean variance of the noise. They are
        averages over draws, so that running sums of f, f² and the noise will do.
    """

    x: np.ndarray
    mean: np.ndarray
    epistemic: np.ndarray
    aleatoric: np.ndarray

    def joined(self, other: Targets, share: float) -> Targets:
        """What is said with other draws added, a ``share`` of all of them (Chan et al. 1983)."""
        off = other.mean - self.mean
        between = share * (1 - share) * off**2
        mix = lambda one, another: (1 - share) * one + share * another  # noqa: E731
        return Targets(
            self.x,
            self.mean + share * off,
            mix(self.epistemic, other.epistemic) + between,
            mix(self.aleatoric, other.aleatoric),
        )

    def part(self, where: slice) -> Targets:
        """The same at some of the inputs."""
        return Targets(self.x[where], self.mean[where], self.epistemic[where], self.aleatoric[where])

    @property
    def log_variances(self) -> tuple[np.ndarray, np.ndarray]:
        """Logs of the aleatoric and the epistemic variance, neither less than `LEAST_SHARE` of their sum."""
        least = np.maximum(LEAST_SHARE * (self.epistemic + self.aleatoric), np.finfo(np.float32).tiny)
        return np.log(np.maximum(self.aleatoric, least)), np.log(np.maximum(self.epistemic, least))


@settings
class Distillation:
    """Train one network to say what a posterior says; `bnn_zoo.distill` runs it.

    Per input, with the teacher's mean m, variances a (aleatoric) and e (epistemic) and v = a + e, and the student's the
    same with a hat, the loss is

        KL(Normal(m, v) ‖ Normal(m̂, v̂)) + ((log â − log a)² + (log ê − log e)²) / 4.

    The first term is the paper's, the expected log loss of the student under the teacher's predictive, but for what
    does not depend on the student: the average over draws and observations is done in closed form, so that
    nothing is sampled. It knows no more than the sum of both variances. The second, which is not in the paper, parts
    them: ¼ (log v̂ − log v)² is the divergence of two Normals whose variances differ a little.

    Inputs are drawn about the training inputs, on the standardised scale, so that the student is right off the data as
    well: a share ``near`` of training inputs with Normal jitter, its sd log-uniform from 0.03 to 0.5; a share
    ``between`` of points on the line through two training inputs, from half their distance before the first to half of
    it beyond the second; and the rest beyond the data, half of them training inputs moved in some of their columns by
    a Normal of sd up to ``spread``, half uniform in the box of the data enlarged by ``spread``.

    Parameters
    ----------
    num_inputs : int
        At which the teacher is asked, once, before training.
    near, between : float
        Shares of them; what is left of 1 lies beyond the data.
    spread : float
        How far beyond, in sds of the inputs. Further out the student knows nothing of its teacher.
    num_steps, learning_rate, batch_size
        Adam's, with a cosine decay to zero.
    num_rounds : int
        Of a running teacher: how often the student goes on learning, from what has been said until then. Half of the
        steps are spent so, at the learning rate itself, and half when all has been said.

    References
    ----------
    Korattikara, Rathod, Murphy & Welling (2015), Bayesian dark knowledge, section 2.2.
    """

    num_inputs: int = 20_000
    near: float = 0.4
    between: float = 0.3
    spread: float = 3.0
    num_steps: int = 20_000
    learning_rate: float = 0.003
    batch_size: int | None = 512
    num_rounds: int = 20

    # The outputs of its network say how much of the variance is epistemic.
    tells_epistemic = True

    def __post_init__(self) -> None:
        check_count("num_inputs", self.num_inputs, 2)
        for name in ("near", "between"):
            check_share(name, getattr(self, name))
        if self.near + self.between > 1:
            got = f"{self.near + self.between:g}"
            raise bad_value("near + between", "at most 1", got, "What is left of 1 lies beyond the data.")
        check_positive("spread", self.spread, "3 is usual: three sds of the inputs beyond the data.")
        check_count("num_steps", self.num_steps)
        check_count("num_rounds", self.num_rounds)
        check_positive("learning_rate", self.learning_rate, "0.003 is usual.")
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        mend = "Fit a teacher by another, then zoo.distill(posterior)."
        raise bad_value("method", "one that fits a model to data", repr(self), mend)

    def inputs(self, x: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
        """Draw ``count`` inputs about the rows of ``x (n, d)``, both on the standardised scale."""
        near, between = round(count * self.near), round(count * self.between)
        rest = max(count - near - between, 0)
        parts = [nearby(x, near, generator), through(x, count - near - rest, generator)]
        return np.concatenate([*parts, beyond(x, rest, self.spread, generator)])

    def train(self, problem: Problem, targets: Targets, key: jax.Array | np.ndarray, context: Context) -> Draws:
        """Return the one network that says what ``targets`` say; only the model of ``problem`` counts."""
        lesson = Lesson(problem, targets)
        z, _, key_train = call(prior_positions, (1,), problem, key, watch=context.watch)
        return lesson.end(
            [self._learn(lesson, targets, z, key_train, context, self._schedule(self.num_steps))], context
        )

    def follow(self, problem: Problem, said: Iterable[Targets], key: jax.Array | np.ndarray, context: Context) -> Draws:
        """Learn from a teacher that is still running: from each of ``said`` in turn, of the same inputs."""
        z, _, key_train = call(prior_positions, (1,), problem, key, watch=context.watch)
        each, runs, lesson = max(self.num_steps // (2 * self.num_rounds), 1), [], None
        for number, targets in enumerate(said):
            lesson = lesson or Lesson(problem, targets)
            own = np.asarray(jax.random.fold_in(key_train, number))
            runs.append(self._learn(lesson, targets, z, own, context, self._schedule(each, "constant")))
            z = runs[-1].positions
        assert lesson is not None
        own = np.asarray(jax.random.fold_in(key_train, len(runs)))
        runs.append(self._learn(lesson, targets, z, own, context, self._schedule(max(self.num_steps // 2, 1))))
        return lesson.end(runs, context)

    def _schedule(self, num_steps: int, decay: str = "cosine") -> Schedule:
        return Schedule(num_steps=num_steps, learning_rate=self.learning_rate, batch_size=self.batch_size, decay=decay)

    def _learn(
        self, lesson: Lesson, targets: Targets, z: Any, key: Any, context: Context, schedule: Schedule
    ) -> Trained:
        check_batch(self, lesson.pool)
        trained = training.train(lesson.pool, z, key, schedule, context, "distillation", task=lesson.task(targets))
        if not np.isfinite(trained.positions).all():
            raise bad_value("learning_rate", "small enough to train", self.learning_rate, "Try a tenth of it.")
        return trained


class Lesson:
    """Inputs that a student learns at, and the scale of what it learns there, which stays as ``targets`` have it."""

    def __init__(self, problem: Problem, targets: Targets) -> None:
        self.problem, dtype = problem, problem.x.dtype
        logs = np.stack([targets.mean, *targets.log_variances])
        scale, centre = logs.std(1), logs.mean(1)
        # The third output is about the log of an sd, half of that of a variance.
        scale[2], centre[2] = scale[2] / 2, centre[2] / 2
        scale = np.maximum(scale, [1.0, LEAST_SCALE, LEAST_SCALE])
        self.scale, self.centre = scale.astype(dtype), centre.astype(dtype)
        self.pool = replace(
            problem,
            x=jax.device_put(np.asarray(targets.x, dtype)),
            y=jax.device_put(np.asarray(targets.mean, dtype)),
        )

    def task(self, targets: Targets) -> Imitation:
        """What is maximised."""
        said = np.stack([targets.mean, *targets.log_variances]).astype(self.scale.dtype)
        return Imitation(said[None], self.scale[None], self.centre[None])

    def end(self, runs: list[Trained], context: Context) -> Draws:
        """The network at the end of the last run."""
        last, frame = runs[-1], (self.scale, self.centre)
        final = call(stretched, (), self.problem, last.positions[0], *frame, watch=context.watch)
        return Draws(
            positions=np.asarray(final)[None, None],
            kind="members",
            info={
                "imitation": float(-last.log_posterior[0] / self.pool.num_rows),
                "imitation_losses": np.concatenate([run.losses for run in runs]),
            },
            gradients=sum(run.gradients for run in runs),
        )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Imitation:
    """Minus the loss of `Distillation`, with a leading member axis, for the training loop.

    The vector that is trained is that of a network whose outputs are of unit scale, so that one learning rate suits all
    three; the weights of its last layer take up ``scale`` and ``centre``, of what the teacher says, before it is run.

    Attributes
    ----------
    said : Array
        ``(M, 3, n)``: mean, log aleatoric and log epistemic variance at the rows of the problem.
    scale, centre : Array
        ``(M, 3)``.
    """

    said: jax.Array | np.ndarray
    scale: jax.Array | np.ndarray
    centre: jax.Array | np.ndarray
    rate: Any = field(default=None)
    random: bool = field(default=False, metadata={"static": True})
    shares_rows: bool = field(default=False, metadata={"static": True})  # what a row's teacher said goes with it

    def size(self, problem: Problem) -> int:
        """Length of the vector that is trained."""
        return problem.size

    def judge(self, problem: Problem, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Minus the loss of all rows at ``z (p,)``, and its gradient."""
        return jax.value_and_grad(self.objective, argnums=1)(problem, z)

    def objective(
        self,
        problem: Problem,
        z: jax.Array,
        where: jax.Array | None = None,
        key: jax.Array | None = None,
        step: jax.Array | None = None,
    ) -> jax.Array:
        """Minus the loss, summed over all rows, estimated from the rows ``where``."""
        said, x = (self.said, problem.x) if where is None else (self.said[:, where], problem.x[where])
        outputs = problem.outputs(stretched(problem, z, self.scale, self.centre), x).T
        return -jnp.mean(divergence(said, outputs) + parting(said, outputs)) * problem.num_rows


def divergence(said: Any, outputs: Any) -> Any:
    """KL(Normal(m, v) ‖ Normal(m̂, v̂)), ``(n,)`` nats, of ``(3, n)``: mean, log aleatoric, log epistemic variance."""
    log_v, log_student = jnp.logaddexp(said[1], said[2]), jnp.logaddexp(outputs[1], outputs[2])
    ratio = log_v - log_student
    return 0.5 * (jnp.expm1(ratio) - ratio + (outputs[0] - said[0]) ** 2 * jnp.exp(-log_student))


def parting(said: Any, outputs: Any) -> Any:
    """A quarter of the squared differences of both log variances, ``(n,)``."""
    return 0.25 * ((outputs[1] - said[1]) ** 2 + (outputs[2] - said[2]) ** 2)


def nearby(x: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Rows of ``x`` with Normal jitter, each of its own sd, log-uniform from 0.03 to 0.5."""
    sd = np.exp(generator.uniform(np.log(0.03), np.log(0.5), (count, 1)))
    return _rows(x, count, generator) + sd * generator.standard_normal((count, x.shape[1]))


def through(x: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Points ``a + t (b − a)`` of two rows of ``x``, t uniform from −0.5 to 1.5."""
    one, other = _rows(x, count, generator), _rows(x, count, generator)
    return one + generator.uniform(-0.5, 1.5, (count, 1)) * (other - one)


def beyond(x: np.ndarray, count: int, spread: float, generator: np.random.Generator) -> np.ndarray:
    """Half rows moved in some columns by a Normal of sd up to ``spread``; half uniform in a box enlarged by it."""
    moved, width = count // 2, x.shape[1]
    sd = generator.uniform(0, spread, (moved, 1))
    # Some columns at a time, and of few as often as of many: off the data in one feature is off the data.
    chosen = generator.uniform(size=(moved, width)) < generator.uniform(size=(moved, 1))
    rows = _rows(x, moved, generator) + chosen * sd * generator.standard_normal((moved, width))
    box = generator.uniform(x.min(0) - spread, x.max(0) + spread, (count - moved, width))
    return np.concatenate([rows, box])


def check_share(argument: str, value: object) -> None:
    """Raise unless ``value`` is a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise bad_type(argument, "a number", repr(value), "Give a share from 0 to 1.")
    if not 0 <= value <= 1:
        raise bad_value(argument, "a share from 0 to 1", repr(value), "0.4 near and 0.3 between are usual.")


def _rows(x: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    return x[generator.integers(0, len(x), count)]


@runs_once
def stretched(problem: Problem, z: jax.Array, scale: jax.Array, centre: jax.Array) -> jax.Array:
    """Return the student at ``z (p,)`` with its outputs stretched: ``(p,)``."""
    student: Any = problem.model
    return problem.layout.flatten(student.stretched(problem.layout.unflatten(z), scale, centre))
