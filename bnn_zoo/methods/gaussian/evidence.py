"""Scales and noise at the maximum of the marginal likelihood, in turn with the most probable weights.

The log evidence of a Laplace approximation is, with k weights at their mode m for the scales h,

    log p(y | h) ≈ log p(y | m, h) + log p(m | h) + k/2 log 2π − ½ log det P(h),

P the curvature of minus the log joint density at m. It is maximised over h with the weights and the Gauss-Newton
matrix of the network's outputs held where they are, as MacKay (1992) and Immer (2021) do; then the weights are
optimised again for the new scales, and so on until nothing moves. Where the network is linear that ends at the
maximum of the evidence itself.

While the weights stand still, so do the outputs, and h enters in three ways, all of which are cheap: it multiplies the
noise of all rows by one factor, it is the prior's precision, and, where a model draws its weights non-centred
(w = scale · u), it rescales the coordinates u. One round of optimisation over h therefore needs no data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bnn_zoo.engine import curvature, predictive, training
from bnn_zoo.engine.compiled import Stopwatch, call
from bnn_zoo.engine.context import Context, Progress
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.tasks import Task
from bnn_zoo.errors import bad_value

REACH = 1.0  # how far a coordinate of h may go in one round: a factor of e for a scale
SETTLED = 1e-5  # change of h in one round


@dataclass(frozen=True, eq=False)
class Tuned:
    """Scales that maximise the evidence.

    Attributes
    ----------
    mode : Trained
        The weights' mode for these scales, ``positions (1, p)``.
    evidence : ndarray
        ``(rounds,)``: log evidence after each round, on the model's scale.
    change : float
        Largest change of an unconstrained scale in the last round.
    """

    mode: training.Trained
    evidence: np.ndarray
    change: float


def tune(
    problem: Problem,
    mode: training.Trained,
    structure: str,
    others: np.ndarray,
    polish_steps: int,
    num_rounds: int,
    context: Context,
) -> Tuned:
    """Alternate between scales, the coordinates ``others``, and weights, from the ``mode`` of the weights.

    Call it with a `curvature.wide` problem under ``jax.enable_x64``.

    Raises
    ------
    ZooValueError
        If scales do more to the model than the three things above.
    """
    watch, evidence, change = context.watch, [], np.inf
    rest = np.setdiff1d(np.arange(problem.size), others)
    task = Task(free=jnp.asarray(np.isin(np.arange(problem.size), rest))[None])
    check_roles(problem, mode.positions[0], others, watch)
    with Progress("Laplace: evidence", num_rounds, context.progress) as progress:
        for _ in range(num_rounds):
            z = mode.positions[0]
            fixed = _hold_still(problem, z, structure, rest, watch)
            before = z[others]
            after, value = _climb(problem, z, structure, others, rest, fixed, watch)
            change = float(np.max(np.abs(after - before)))
            z = np.asarray(call(_moved, (), problem, z, others, after, fixed, watch=watch))
            best = training.polish(problem, z[None], polish_steps, watch, task)
            mode = training.Trained(
                best.positions,
                best.log_posterior,
                best.gradient_norm,
                mode.losses,
                mode.gradients + best.gradients,
            )
            evidence.append(value)
            progress.advance(1, log_evidence=f"{value:.6g}")
            if change < SETTLED:
                break
        z = mode.positions[0]
        fixed = _hold_still(problem, z, structure, rest, watch)
        last = call(_value, (structure,), problem, z, others, rest, fixed, z[others], watch=watch)[0]
        evidence.append(-float(last))
    return Tuned(mode, np.asarray(evidence), change)


def check_roles(problem: Problem, z: np.ndarray, others: np.ndarray, watch: Stopwatch) -> None:
    """Raise unless scales scale: the noise of every row alike, and the weights that are drawn non-centred."""
    fixed = {"z": z, "own": _own(problem, z, watch)}
    rows = problem.x[: min(problem.num_rows, 256)]
    here = np.asarray(call(curvature.outputs, (), problem, z, rows, watch=watch))
    for i, one in enumerate(others):
        after = z[others]
        after[i] += 0.5
        moved = call(_moved, (), problem, z, others, after, fixed, watch=watch)
        there = np.asarray(call(curvature.outputs, (), problem, moved, rows, watch=watch))
        shift = there[1] - here[1]
        same = np.allclose(there[0], here[0], rtol=1e-6, atol=1e-6 * np.abs(here[0]).max() + 1e-12)
        uneven = np.ptp(shift) > 1e-6 or (np.ptp(here[1]) > 1e-9 and np.abs(shift).max() > 1e-9)
        if not same or uneven:
            site = next(s.name for s in problem.layout.slots if s.where.start <= one < s.where.stop)
            mend = "Take hyper='posterior', or 'nuts'."
            got = f"{site!r}, which does more"
            raise bad_value("hyper='evidence'", "for scales of weights, and one noise for all rows", got, mend)


def _own(problem: Problem, z: np.ndarray, watch: Stopwatch) -> list[Any]:
    return list(call(curvature.own_derivatives, (), problem, z, watch=watch))


def _hold_still(problem: Problem, z: np.ndarray, structure: str, rest: np.ndarray, watch: Stopwatch) -> dict[str, Any]:
    """Everything about data and network that does not move with the scales."""
    f, _, noise = predictive.moments(problem, z[None], np.asarray(problem.x))
    fixed: dict[str, Any] = {
        "z": z,
        "own": _own(problem, z, watch),
        "squares": float(np.sum((np.asarray(problem.y) - f) ** 2 / noise)),
        "log_likelihood": float(call(_log_likelihood, (), problem, z, watch=watch)),
    }
    if structure == "full":
        fixed["ggn"] = curvature.gauss_newton(problem, z, rest, watch)
    elif structure == "kron":
        fixed["factors"] = [(a / problem.num_rows, g) for a, g, _ in curvature.kronecker(problem, z, watch)]
    else:
        fixed["ggn"] = curvature.diagonal(problem, z, watch, prior=False)[rest]
    return fixed


def _climb(
    problem: Problem,
    z: np.ndarray,
    structure: str,
    others: np.ndarray,
    rest: np.ndarray,
    fixed: dict[str, Any],
    watch: Stopwatch,
) -> tuple[np.ndarray, float]:
    """Maximise over the scales, weights held still: the scales and the log evidence there."""

    def objective(h: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = call(_value, (structure,), problem, z, others, rest, fixed, h, watch=watch)
        return float(value), np.asarray(slope)

    here = z[others]
    box = list(zip(here - REACH, here + REACH, strict=True))
    from scipy.optimize import minimize

    found = minimize(objective, here, jac=True, method="L-BFGS-B", bounds=box, options={"maxiter": 200})
    return found.x, -float(found.fun)


# --- compiled programs ----------------------------------------------------------------------------------------------


def _log_likelihood(problem: Problem, z: jax.Array) -> jax.Array:
    return problem.log_likelihood(z)


def _moved(problem: Problem, z: jax.Array, others: jax.Array, h: jax.Array, fixed: dict[str, Any]) -> jax.Array:
    """``z`` with scales ``h`` and coordinates such that every weight stays what it was."""
    moved = jnp.asarray(z).at[others].set(h)
    layers = curvature.layers_of(problem)
    if not layers:
        return moved
    for layer, was, now in zip(layers, fixed["own"], curvature.own_derivatives(problem, moved), strict=True):
        index = curvature.coordinates(problem, layer)
        moved = moved.at[index].set(moved[index] * was / now)
    return moved


def _value(
    structure: str,
    problem: Problem,
    z: jax.Array,
    others: jax.Array,
    rest: jax.Array,
    fixed: dict[str, Any],
    h: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Minus the log evidence at scales ``h``, the weights held still, and its gradient."""
    return jax.value_and_grad(lambda h: -_log_evidence(structure, problem, z, others, rest, fixed, h))(jnp.asarray(h))


def _log_evidence(
    structure: str,
    problem: Problem,
    z: jax.Array,
    others: jax.Array,
    rest: jax.Array,
    fixed: dict[str, Any],
    h: jax.Array,
) -> jax.Array:
    moved = _moved(problem, z, others, h, fixed)
    row = problem.x[:1]
    shift = (curvature.outputs(problem, moved, row) - curvature.outputs(problem, jnp.asarray(z), row))[1, 0]
    shrink = jnp.exp(-2 * shift)
    likelihood = fixed["log_likelihood"] - 0.5 * fixed["squares"] * (shrink - 1) - problem.num_rows * shift
    prior = problem.log_prior(moved) - problem.log_prior_of(moved, curvature.scale_sites(problem))
    k = rest.shape[0]
    log_det = _log_det(structure, problem, moved, rest, fixed, shrink)
    return likelihood + prior + 0.5 * k * jnp.log(2 * jnp.pi) - 0.5 * log_det


def _log_det(
    structure: str, problem: Problem, moved: jax.Array, rest: jax.Array, fixed: dict[str, Any], shrink: jax.Array
) -> jax.Array:
    layers = curvature.layers_of(problem)
    now = curvature.own_derivatives(problem, moved) if layers else []
    if structure == "full" and not layers:
        return _log_det_of(fixed["ggn"] * shrink + curvature.dense_hessian(problem.log_prior, moved, rest))
    prior = curvature.prior_hessian_diagonal(problem, moved, jnp.asarray(curvature.probes(problem.size)))
    if structure == "kron":
        total = jnp.zeros(())
        for layer, (a, g), own in zip(layers, fixed["factors"], now, strict=True):
            here = prior[curvature.coordinates(problem, layer)][:, 0]
            spread = own[:, 0] / jnp.sqrt(here)
            values = jnp.outer(eigenvalues(spread[:, None] * a * spread[None, :]), eigenvalues(jnp.asarray(g)))
            total += jnp.sum(jnp.log1p(shrink * values)) + g.shape[0] * jnp.sum(jnp.log(here))
        return total
    ratio = jnp.ones_like(moved)
    for layer, was, own in zip(layers, fixed["own"], now, strict=True):
        ratio = ratio.at[curvature.coordinates(problem, layer)].set(own / was)
    ratio = ratio[rest]
    if structure == "diag":
        return jnp.sum(jnp.log(fixed["ggn"] * ratio**2 * shrink + prior[rest]))
    return _log_det_of(ratio[:, None] * fixed["ggn"] * ratio[None, :] * shrink + jnp.diag(prior[rest]))


def _log_det_of(precision: jax.Array) -> jax.Array:
    return 2 * jnp.sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(precision))))


@jax.custom_jvp
def eigenvalues(matrix: jax.Array) -> jax.Array:
    """Eigenvalues of a positive semi-definite matrix, differentiable where some are equal, as JAX's are not."""
    return jnp.maximum(jnp.linalg.eigh(matrix)[0], 0)


@eigenvalues.defjvp
def _eigenvalues_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(lax.stop_gradient(primals[0]))
    return jnp.maximum(values, 0), jnp.einsum("ik,ij,jk->k", vectors, tangents[0], vectors)
