"""A Gaussian at the most probable network."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpyro import distributions as dist
from numpyro.distributions import ExpandedDistribution, Independent

from bnn_zoo.engine import curvature, training
from bnn_zoo.engine.compiled import Stopwatch, call
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.gaussian import Block, Dense, Diagonal, Gaussian, Kronecker, check_memory
from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.schedules import Schedule
from bnn_zoo.engine.starts import prior_positions
from bnn_zoo.engine.taps import Tapped
from bnn_zoo.engine.tasks import PLAIN, Task
from bnn_zoo.errors import ZooValueError, bad_value, check_choice, check_count
from bnn_zoo.methods.ensembles.trained import check_batch, check_training
from bnn_zoo.methods.gaussian import evidence

STRUCTURES = ("full", "kron", "diag", "last_layer")
CURVATURES = ("ggn", "hessian")
HYPER = ("posterior", "evidence")
MOST_BYTES = 4 * 2**30
MOST_TO_LOOK = 10**9  # p² n, seconds of Hessian-vector products


@settings
class Laplace:
    """A Gaussian whose centre is the most probable network and whose precision is the curvature there.

    ``q(z) = Normal(m, P⁻¹)``, m the maximum of the log posterior over the unconstrained coordinates z, and P its
    curvature at m: the likelihood's, plus the exact Hessian of minus the log prior.

    Choose it for error bars at little more than the cost of training. Do not choose it for few data and strong
    non-linearity: it knows one mode, and the spread about it only to second order. It is exact for a linear model with
    fixed noise.

    Parameters
    ----------
    covariance : str
        ``"full"``: every covariance, p² numbers. ``"kron"``: a Kronecker product a layer. ``"diag"``: weights
        independent. ``"last_layer"``: every covariance of the last layer, all others fixed. A noise and scales that
        have priors are inside ``"full"``, and a dense block of their own otherwise.
    curvature : str
        ``"ggn"``: generalised Gauss-Newton, positive semi-definite by construction; for a Normal likelihood.
        ``"hessian"``: the exact Hessian, refused unless positive definite; for ``"full"`` and ``"last_layer"``.
    hyper : str
        What becomes of a noise and of scales that have priors. ``"posterior"``: they are part of the approximation.
        ``"evidence"``: they are set to the maximum of the marginal likelihood, in turn with the most probable weights
        (empirical Bayes), and fixed there; of their priors only the median counts, as where they begin.
    evidence_rounds : int
        Most turns of ``"evidence"``.
    num_samples : int
        Draws.
    num_restarts, num_steps, learning_rate, batch_size, polish_steps
        How the mode is found, as in `bnn_zoo.methods.MAP`; the polish and all that follows are in float64.

    Notes
    -----
    ``predict`` linearises the network about m by default (``kind="linearized"``): closed form mean and variance, with
    the noise at m. ``kind="monte_carlo"`` sends the draws through the network itself, for which a Gauss-Newton
    covariance was not made: it underfits, badly where weights are many and data few (RMSE of 0.58 to
    0.82 seen on a standardised target). ``function_draws`` and ``log_likelihood`` are of the network itself
    too.

    The diagnosis reports the norm of the gradient at m, and for ``"full"`` and a network of moderate size how many
    eigenvalues of the exact Hessian are negative there: a Gauss-Newton curvature is positive at a saddle too.

    ``result.info["log_evidence"]`` is log p(y) ≈ log p(y, m) + p/2 log 2π - ½ log det P (MacKay 1992) on
    the scale that the model sees; `bnn_zoo.posterior.Posterior.log_evidence` is in the user's units. There is none for
    ``"last_layer"``, whose other weights are not integrated over. Structures other than ``"full"`` drop the prior's
    cross terms with the rest. With ``hyper="evidence"`` it is log p(y | scales), at the scales that were found;
    ``result.info["evidence_trace"]`` holds its value after every turn. Models of the same data are ranked by either
    evidence, but not by one against the other.

    References
    ----------
    MacKay (1992), A practical Bayesian framework for backpropagation networks, section 3 for the evidence. Immer et al.
    (2021), Scalable marginal likelihood estimation for model selection in deep learning, algorithm 1. Ritter et al.
    (2018), A scalable Laplace approximation for neural networks, section 2. Daxberger et al. (2021), Laplace redux.
    Immer et al. (2021), Improving predictions of Bayesian neural nets via local linearization. Departs from Daxberger
    and Immer in that noise and scales with priors are part of the approximation, unless asked otherwise.
    """

    covariance: str = "full"
    curvature: str = "ggn"
    hyper: str = "posterior"
    evidence_rounds: int = 100
    num_samples: int = 1000
    num_restarts: int = 8
    num_steps: int = 2000
    learning_rate: float = 0.01
    batch_size: int | None = None
    polish_steps: int = 1000

    def __post_init__(self) -> None:
        check_choice("covariance", self.covariance, STRUCTURES)
        check_choice("curvature", self.curvature, CURVATURES)
        check_choice("hyper", self.hyper, HYPER)
        check_count("evidence_rounds", self.evidence_rounds)
        if self.hyper == "evidence" and (self.covariance == "last_layer" or self.curvature == "hessian"):
            got = f"'evidence' with covariance={self.covariance!r}, curvature={self.curvature!r}"
            mend = "The evidence needs a Gauss-Newton curvature of all weights."
            raise bad_value("hyper", "'posterior' here", got, mend)
        if self.curvature == "hessian" and self.covariance not in ("full", "last_layer"):
            raise bad_value(
                "curvature", f"'ggn' for covariance={self.covariance!r}", "'hessian'", "Or take covariance='full'."
            )
        check_count("num_samples", self.num_samples)
        check_count("num_restarts", self.num_restarts)
        check_training(self)

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Find the mode, take the curvature there, and draw."""
        check_batch(self, problem)
        normal = curvature.is_normal(problem)
        self._check_likelihood(problem, normal)
        _check_prior(problem)
        layers = curvature.layers_of(problem)
        self._check_size(problem, layers)
        fixed = _others(problem) if self.hyper == "evidence" else None
        self._check_scales(fixed)
        mode = self._find_mode(problem, key, context, fixed)
        with jax.enable_x64(True):
            wide, tuned = curvature.wide(problem), None
            if fixed is not None:
                tuned = evidence.tune(
                    wide, mode, self.covariance, fixed, self.polish_steps, self.evidence_rounds, context
                )
                mode = tuned.mode
            gaussian = self._approximate(wide, mode, layers, context.watch, fixed is not None)
        positions, log_density = gaussian.draw(
            np.random.default_rng(np.asarray(key).tolist()), self.num_samples, np.dtype(problem.x.dtype)
        )
        facts: dict[str, Any] = {}
        if gaussian.num_free == problem.size:
            volume = 0.5 * (problem.size * np.log(2 * np.pi) - gaussian.log_det)
            facts["log_evidence"] = float(mode.log_posterior[0] + volume)
        if tuned is not None:
            facts["log_evidence"] = float(tuned.evidence[-1])
            facts |= {"evidence_trace": tuned.evidence, "evidence_change": tuned.change}
        info = {"gradient_norm": float(mode.gradient_norm[0]), "losses": mode.losses, "normal": normal}
        return Draws(
            positions=positions[None],
            kind="independent",
            stats={"log_q": log_density[None]},
            info=info | facts | gaussian.to_info(),
            gradients=mode.gradients,
        )

    def linearized(self, draws: Draws) -> Gaussian | None:
        """The Gaussian about whose mode predictions may be made linear; None where observations are not Normal."""
        return Gaussian.from_info(draws.info, draws.positions.shape[-1]) if draws.info["normal"] else None

    def negative_eigenvalues(self, problem: Problem, draws: Draws) -> int | None:
        """Eigenvalues of the exact Hessian below 0, beyond rounding: none where the mode is a maximum.

        ``None`` where so many products with the Hessian would be too dear, or there is no full covariance.
        """
        if self.covariance != "full" or problem.size**2 * problem.num_rows > MOST_TO_LOOK:
            return None
        found = Gaussian.from_info(draws.info, draws.positions.shape[-1])
        with jax.enable_x64(True):
            hessian = curvature.exact_block(curvature.wide(problem), found.mode, found.blocks[0].index)
        values = np.linalg.eigvalsh(hessian)
        return int(np.sum(values < -1e-9 * np.abs(values).max()))

    # --- what is refused --------------------------------------------------------------------------------------------

    def _check_likelihood(self, problem: Problem, normal: bool) -> None:
        if self.curvature == "ggn" and not normal:
            mend = (
                "Take curvature='hessian' with covariance='full', or a method that needs no curvature: "
                "'nuts', 'hmc', 'mh' or 'map'."
            )
            raise bad_value("curvature", "'hessian' for a likelihood that is not Normal", "'ggn'", mend)

    def _check_scales(self, fixed: np.ndarray | None) -> None:
        if fixed is not None and not fixed.size:
            mend = "Give the noise or weight_scale a prior, HalfNormal(1.0) say: a number is taken as it is."
            raise bad_value("hyper", "'posterior' for a model whose scales are all fixed", "'evidence'", mend)

    def _check_size(self, problem: Problem, layers: tuple[Tapped, ...]) -> None:
        if self.covariance in ("kron", "last_layer") and not layers:
            mend = "Take covariance='full' or 'diag', or build the model of bnn_zoo.models.parts.layers.dense."
            raise bad_value("covariance", "'full' or 'diag' for a model without layers", repr(self.covariance), mend)
        check_memory("covariance", self.covariance, *self._room(problem, layers))
        mend = f"Ask for num_samples={MOST_BYTES // (8 * problem.size)} or fewer."
        check_memory("num_samples", str(self.num_samples), self.num_samples * problem.size, MOST_BYTES, mend)

    def _room(self, problem: Problem, layers: tuple[Tapped, ...]) -> tuple[int, int, str]:
        """Float64 numbers held at once, how many bytes they may take, and what to do where that is too little."""
        own = len(_others(problem)) ** 2
        sizes = [(layer.inputs.shape[1] + 1, layer.output.shape[1]) for layer in layers]
        if self.covariance == "full":
            cheaper = "kron" if layers else "diag"
            return 3 * problem.size**2, MOST_BYTES, f"The next cheaper one is covariance={cheaper!r}."
        if self.covariance == "kron":
            numbers = 3 * sum(a**2 + g**2 + a * g for a, g in sizes) + own
            return numbers, MOST_BYTES, "The next cheaper one is covariance='diag'."
        if self.covariance == "last_layer":
            numbers = 3 * (sizes[-1][0] * sizes[-1][1]) ** 2 + own
            return numbers, MOST_BYTES, "Take covariance='diag'."
        return 4 * problem.size + own, MOST_BYTES, "Make the network smaller."

    # --- the mode ---------------------------------------------------------------------------------------------------

    def _find_mode(
        self, problem: Problem, key: jax.Array, context: Context, fixed: np.ndarray | None
    ) -> training.Trained:
        """Adam in the fit's own precision from several prior draws, L-BFGS in float64, the best of the maxima.

        Coordinates ``fixed`` stay at the median of these draws.
        """
        schedule = Schedule(num_steps=self.num_steps, learning_rate=self.learning_rate, batch_size=self.batch_size)
        z, _, key_train = call(prior_positions, (self.num_restarts,), problem, key, watch=context.watch)
        task = PLAIN
        if fixed is not None:
            start = np.array(z)
            start[:, fixed] = np.median(start[:, fixed], axis=0)
            free = np.ones((self.num_restarts, problem.size), bool)
            free[:, fixed] = False
            z, task = start, Task(free=jax.device_put(free))
        trained = training.train(problem, z, key_train, schedule, context, "Laplace: mode", task)
        finite = np.isfinite(trained.log_posterior)
        if not finite.any():
            raise bad_value("learning_rate", "small enough to train", self.learning_rate, "Try a tenth of it.")
        with jax.enable_x64(True):
            start = trained.positions[np.where(finite, np.arange(len(finite)), np.nanargmax(trained.log_posterior))]
            polished = training.polish(
                curvature.wide(problem), np.asarray(start, np.float64), self.polish_steps, context.watch, task
            )
        best = int(np.nanargmax(polished.log_posterior))
        return training.Trained(
            positions=polished.positions[best : best + 1],
            log_posterior=polished.log_posterior[best : best + 1],
            gradient_norm=polished.gradient_norm[best : best + 1],
            losses=trained.losses,
            gradients=trained.gradients + polished.gradients,
        )

    # --- the curvature ----------------------------------------------------------------------------------------------

    def _approximate(
        self,
        problem: Problem,
        mode: training.Trained,
        layers: tuple[Tapped, ...],
        watch: Stopwatch,
        scales_fixed: bool = False,
    ) -> Gaussian:
        z = mode.positions[0]
        others = _others(problem)
        rest = np.setdiff1d(np.arange(problem.size), others)
        free = rest if scales_fixed else np.arange(problem.size)
        blocks: list[Block] = []

        def dense(index: np.ndarray) -> None:
            if self.curvature == "ggn":
                precision = curvature.block(problem, z, index, watch)
            else:
                precision = curvature.exact_block(problem, z, index, watch)
            if not np.isfinite(precision).all():
                raise _no_curvature(mode)
            try:
                blocks.append(Dense.of(index, precision))
            except np.linalg.LinAlgError:
                values = np.linalg.eigvalsh(precision)
                raise self._indefinite(mode, int(np.sum(values <= 0)), len(index), values.min()) from None

        if self.covariance == "full":
            dense(free)
            return Gaussian(z, tuple(blocks))
        if self.covariance == "kron":
            blocks += self._kronecker(problem, mode, layers, watch)
        elif self.covariance == "diag":
            precision = curvature.diagonal(problem, z, watch)
            if not np.isfinite(precision).all():
                raise _no_curvature(mode)
            if rest.size and precision[rest].min() <= 0:
                raise self._indefinite(mode, int(np.sum(precision[rest] <= 0)), len(rest), precision[rest].min())
            blocks.append(Diagonal(rest, precision[rest]))
        else:
            dense(curvature.coordinates(problem, layers[-1]).reshape(-1))
        if others.size and not scales_fixed:
            dense(others)
        return Gaussian(z, tuple(blocks))

    def _kronecker(
        self, problem: Problem, mode: training.Trained, layers: tuple[Tapped, ...], watch: Stopwatch
    ) -> list[Block]:
        z = mode.positions[0]
        prior = curvature.prior_diagonal(problem, z, watch)
        found: list[Block] = []
        for layer, (a, g, own) in zip(layers, curvature.kronecker(problem, z, watch), strict=True):
            index = curvature.coordinates(problem, layer)
            here = prior[index]
            for what, values in (("prior precision", here), ("scale", own)):
                if not np.allclose(values, values[:, :1], rtol=1e-6, atol=0):
                    got = f"'kron', where the {what} of site {layer.weight!r} differs between units"
                    mend = "Take covariance='diag' or 'full'."
                    raise bad_value("covariance", "a structure that can hold the prior", got, mend)
            if here[:, 0].min() <= 0:
                raise self._indefinite(mode, int(np.sum(here <= 0)), here.size, here.min())
            scaled = own[:, :1] * a * own[:, 0][None, :] / problem.num_rows
            if not (np.isfinite(scaled).all() and np.isfinite(g).all()):
                raise _no_curvature(mode)
            found.append(Kronecker.of(index, scaled, g, here[:, 0]))
        return found

    def _indefinite(self, mode: training.Trained, count: int, size: int, least: float) -> ZooValueError:
        got = (
            f"{count} of {size} eigenvalues at or below 0 (the least {least:.3g}), where the gradient of the log "
            f"posterior has norm {mode.gradient_norm[0]:.3g}"
        )
        if self.curvature == "hessian":
            mend = "Take curvature='ggn', or raise num_steps or polish_steps if the gradient is not near 0."
        else:
            mend = "A prior that is not log-concave there adds negative curvature: give weights and scales Normal or "
            mend += "HalfNormal priors, or use 'nuts'."
        return bad_value("the curvature at the mode", "positive definite", got, mend)


def _check_prior(problem: Problem) -> None:
    """Raise where a prior has its kink at its mode: its curvature there says nothing, and 0 everywhere else."""
    kinked: list[str] = []

    def look(z: jax.Array) -> None:
        trace = problem._trace(z, problem.x[:1], problem.y[:1])
        for slot in problem.layout.slots:
            fn: Any = trace[slot.name]["fn"]
            while isinstance(fn, (Independent, ExpandedDistribution)):
                fn = fn.base_dist
            if isinstance(fn, dist.Laplace):
                kinked.append(slot.name)

    jax.eval_shape(look, jax.ShapeDtypeStruct((problem.size,), problem.x.dtype))
    if kinked:
        mend = "Give it a Normal or Student t prior, or take 'nuts', 'svgd' or 'mean_field'."
        got = f"a Laplace distribution, with a kink, at site {kinked[0]!r}"
        raise bad_value("the prior of a Laplace approximation", "smooth at its mode", got, mend)


def _no_curvature(mode: training.Trained) -> ZooValueError:
    got = f"values that are not, where the gradient of the log posterior has norm {mode.gradient_norm[0]:.3g}"
    mend = "A noise that has shrunk to 0 does this: give it a prior away from 0, or fix it."
    return bad_value("the curvature at the mode", "finite", got, mend)


def _others(problem: Problem) -> np.ndarray:
    """Coordinates of noise and scales."""
    every, names = np.arange(problem.size), curvature.scale_sites(problem)
    return np.concatenate([every[:0], *(every[slot.where] for slot in problem.layout.slots if slot.name in names)])
