"""Matching the functions of a network's prior to a Gaussian process."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import jax.numpy as jnp
import numpy as np

from bnn_zoo import models
from bnn_zoo.engine.checks import join
from bnn_zoo.engine.context import PROGRESS
from bnn_zoo.engine.keys import seed_key
from bnn_zoo.errors import bad_type, bad_value, check_choice, check_count, check_positive
from bnn_zoo.inputs import as_matrix
from bnn_zoo.models.parts.matched import MatchedScales, MatchRecord
from bnn_zoo.priors import free
from bnn_zoo.priors.free import ARRANGEMENTS, open_model
from bnn_zoo.priors.targets import target_of

log = logging.getLogger("bnn_zoo")

DIVERGENCES = ("wasserstein", "kl")
MOST_ROWS = 4096  # of x from which measurement sets are made


def match_gp(
    model: Any,
    kernel: Any,
    x: Any,
    *,
    divergence: str = "wasserstein",
    parameters: str = "layer",
    num_steps: int = 600,
    num_points: int = 16,
    num_functions: int = 128,
    critic_steps: int = 5,
    learning_rate: float = 0.05,
    seed: int = 0,
    progress: bool | str = True,
) -> Any:
    """Return ``model`` with a prior whose functions are like those of a Gaussian process, about the inputs ``x``.

    The prior of the weights stays Normal, given its scales, so that every method fits the result. What is learned are
    scales (and means, for ``"weight"``), by stochastic gradients through prior draws. Each step compares functions at a
    measurement set of its own: half of its points are rows of ``x``, half are uniform in the box that they span.

    Everything is on the scale that the model works on: for data that `bnn_zoo.fit` is to standardise, pass standardised
    inputs, and a kernel of variance about 1.

    Parameters
    ----------
    model : str or object
        A network of `bnn_zoo.models` with a field ``prior``, such as `MLP`. Its own scales, where they are numbers, are
        where learning begins.
    kernel : tinygp kernel, str or model
        The target, of mean 0: any kernel of tinygp (sums, products, transforms); or ``"rbf"``, ``"matern32"``,
        ``"matern52"`` (variance 1, length scale √d), ``"periodic"`` (one input, period 2) or ``"linear"``; or another
        model, whose prior functions are then matched.
    x : array-like
        Inputs ``(n, d)``: the region where functions matter.
    divergence : str
        ``"wasserstein"``: the 1-Wasserstein distance of function values at measurement sets, by a critic, trained for
        ``critic_steps`` between two steps of the prior (Tran 2022). ``"kl"``: KL(network ‖ process) with some noise on
        both, by a Stein estimate of the score (Flam-Shepherd 2017; `bnn_zoo.priors.score` derives it). KL needs a
        density of the target: of a model it takes the Gaussian with the same moments, which is exact as widths grow,
        and otherwise matches second moments alone.
    parameters : str
        ``"layer"``: one scale for the weights and one for the biases of each layer. ``"hierarchical"``: log-Normal
        priors on these scales, learned. ``"group"``: a scale a unit, as source and as target of weights, and one a
        bias. ``"weight"``: a mean and a scale a weight, the most flexible: with ``activation="sin"`` it can be
        periodic, from a model whose ``weight_scale`` is wide (4, say). ``Laplace(covariance="kron")`` refuses the last
        two, whose prior differs between units.
    num_steps : int
        Steps of Adam on the prior; parameters are averaged over the last quarter.
    num_points, num_functions : int
        Points of a measurement set, and functions of each kind drawn at it.
    critic_steps : int
        Steps of the critic for each; for ``"wasserstein"``.
    learning_rate : float
        Of the first step, on log scales; it falls to 0 along a cosine.
    seed : int
        Repeats the result.
    progress : bool or str
        As in `bnn_zoo.fit`.

    Returns
    -------
    model
        The same class with ``prior=MatchedScales(...)``, whose ``record`` has the divergence before and after.

    Raises
    ------
    ZooTypeError, ZooValueError
        If the model has no field ``prior``, ``x`` is no matrix, the kernel is no covariance there, or a setting is
        unusable.

    References
    ----------
    Tran, Rossi, Milios & Filippone (2022), All you need is a good functional prior for Bayesian deep learning, section
    3 and algorithm 1; departures: Adam in place of Adagrad and RMSprop, a critic of 100 units that is kept from step to
    step, log-Normal hyperpriors in place of inverse-Gamma. Flam-Shepherd, Requeima & Duvenaud (2017), Mapping Gaussian
    process priors to Bayesian neural networks.
    """
    # Here, as Optax takes a tenth of what importing JAX does, and every fit looks at its prior.
    from bnn_zoo.priors import descent

    check_choice("divergence", divergence, DIVERGENCES)
    check_choice("parameters", parameters, ARRANGEMENTS)
    check_choice("progress", progress, PROGRESS)
    check_count("num_steps", num_steps, descent.CHUNKS)
    check_count("num_points", num_points, 2)
    check_count("num_functions", num_functions, 2 * num_points, "Two functions a point are the least: 128 is usual.")
    check_count("critic_steps", critic_steps)
    check_positive("learning_rate", learning_rate, "0.05 is usual.")
    key = seed_key(seed)
    model = models.registry.look_up(model)
    _check_model(model)
    inputs = as_matrix(x)
    rows = inputs if len(inputs) <= MOST_ROWS else np.random.default_rng(0).permutation(inputs)[:MOST_ROWS]
    join(model, rows[:2], np.zeros(len(rows[:2])))
    target, name = target_of(kernel, rows)
    shapes = free.shapes_of(model, rows.shape[1])
    plan = descent.Plan(
        model=open_model(model, None),
        shapes=shapes,
        divergence=divergence,
        parameters=parameters,
        num_steps=num_steps,
        num_points=num_points,
        num_functions=num_functions,
        critic_steps=critic_steps,
        learning_rate=learning_rate,
    )
    begun = free.begin(parameters, shapes, *_scales(model), seed)
    rows = np.asarray(rows, jnp.result_type(float))
    state = descent.run(plan, target, rows, begun, key, progress)
    before, after = (descent.measure(plan, target, rows, one, key) for one in (begun, state.average))
    record = MatchRecord(
        divergence=divergence,
        parameters=parameters,
        target=name,
        before=before[0],
        after=after[0],
        covariance_before=before[1],
        covariance_after=after[1],
        history=tuple(float(f"{value:.6g}") for value in np.asarray(state.history)),
        seed=int(seed),
    )
    found = open_model(model, free.close(parameters, shapes, state.average, record))
    log.info("matched %s: %r", name, record)
    return found


def _check_model(model: Any) -> None:
    fields = {field.name for field in dataclasses.fields(model)} if dataclasses.is_dataclass(model) else set()
    if not {"prior", "weight_scale", "bias_scale"} <= fields:
        name = getattr(model, "__qualname__", type(model).__name__)
        mend = "Take zoo.models.MLP, HeteroscedasticMLP or ResidualMLP."
        raise bad_value("model", "a network with a field 'prior', which matching sets", name, mend)
    if not isinstance(model.prior, MatchedScales | None):
        mend = "Leave prior= out: matching sets it."
        raise bad_type("model.prior", "None, or of an earlier match", repr(model.prior), mend)


def _scales(model: Any) -> tuple[float, float]:
    """Scales of weights and biases where learning begins: the model's own numbers, or 1."""
    weights = model.weight_scale if isinstance(model.weight_scale, (int, float)) else 1.0
    biases = model.bias_scale if isinstance(model.bias_scale, (int, float)) else weights
    return float(weights), float(biases)
