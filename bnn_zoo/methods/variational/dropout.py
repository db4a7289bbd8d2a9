"""Units switched off at random, in training and in prediction alike."""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bnn_zoo.engine import curvature, training
from bnn_zoo.engine.compiled import call, runs_once
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.schedules import Schedule
from bnn_zoo.engine.starts import prior_positions
from bnn_zoo.engine.taps import Tapped, listening
from bnn_zoo.errors import bad_type, bad_value, check_count, check_positive
from bnn_zoo.methods.ensembles.trained import Batched, check_batch

TEMPERATURE = 0.1  # of the concrete relaxation, as in Gal (2017)


@settings
class MCDropout(Batched):
    """One network whose units are switched off at random; each draw is what is left of it.

    Choose it for uncertainty at the price of training one network. Its spread is set by the rate, which does not
    shrink as rows are added: give the rate with care, or let ``concrete=True`` learn it.

    Parameters
    ----------
    rate : float
        Probability that an input of a layer is switched off, from 0 to below 1; with ``concrete``, where it begins.
    concrete : bool
        Learn one rate for each layer, by the concrete relaxation at temperature 0.1 (Gal 2017).
    drop_inputs : bool or None
        Drop the inputs of the network too. The paper does; on a table of a few features, each of which stands for
        something, that is noise which no hidden unit can make up for, so ``None`` drops them only where no other layer
        is there to be dropped (a linear model).
    num_samples : int
        Draws.
    num_steps, learning_rate, batch_size
        Adam's, from one prior draw, with a cosine decay to zero; ``batch_size=None`` takes all rows.
    num_particles : int
        Masks a row and step, whose mean is the estimate.

    Notes
    -----
    The family: row j of the weights of a dropped layer is φ_j = M_j b_j with b_j ~ Bernoulli(k), k = 1 - rate; biases,
    and a noise and scales that have priors, are points, the same in every draw. Optimised is the mean network
    W = k M, and layers divide what they keep by k ("inverted dropout"): the same family, in coordinates in which the
    mean function stays where it is as a rate moves. Draws are φ = W b / k.

    The objective is the evidence lower bound, with the entropy of b and of a Normal of vanishing width about each
    point (appendix, section 4.2), up to constants:

        Σ_i E_b log p(y_i | x_i, φ) + E_b log p(φ) + Σ_layers K H(rate).

    A row is on with probability k, so E_b log p(φ_j) = k log p(M_j) + rate log p(0), in the coordinates z, with the
    model's own prior. For φ_j ~ Normal(0, σ_p²) that is -k ‖M_j‖² / (2 σ_p²), and -‖b‖² / (2 σ_p²) for biases:
    Gal's KL with l = 1 / σ_p. Divided by N and by τ = 1 / noise² it is his weight decay λ = k l² / (2 N τ) on M: it is
    not set by hand but follows from prior, rate, noise and N. The likelihood of a batch is scaled by N / b, the rest
    never.

    K inputs of a layer have entropy K H(rate), which matters only where the rate is learned: Gal (2017), equation 3.
    There a mask is 1 - sigmoid((logit rate + logit u) / 0.1), u uniform, in training, and Bernoulli in the draws; the
    relaxed mask varies by about a tenth less, so the rate that is learned is that much too high.

    Each row of a batch has masks of its own; beyond 65,536 rows in one batch, blocks of rows share them. A draw has one
    mask for all rows, so that it is a function. There is no density of a draw, hence no Pareto k-hat.

    References
    ----------
    Gal & Ghahramani (2016), Dropout as a Bayesian approximation, equations 7 to 10 and appendix. Gal, Hron & Kendall
    (2017), Concrete dropout, equations 3 and 5.
    """

    rate: float = 0.1
    concrete: bool = False
    drop_inputs: bool | None = None
    num_samples: int = 1000
    num_steps: int = 4000
    learning_rate: float = 0.01
    batch_size: int | None = None
    num_particles: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.rate, bool) or not isinstance(self.rate, (int, float)):
            raise bad_type("rate", "a number", repr(self.rate), "0.1 is usual; 0 for none.")
        if not isinstance(self.concrete, bool):
            raise bad_type("concrete", "True or False", repr(self.concrete), "True learns the rate.")
        if not 0 <= self.rate < 1:
            raise bad_value("rate", "from 0 to below 1", self.rate, "0.1 is usual; 0 for none.")
        if self.concrete and not self.rate:
            raise bad_value("rate", "above 0 with concrete=True", self.rate, "It begins there: 0.1 is usual.")
        if self.drop_inputs is not None and not isinstance(self.drop_inputs, bool):
            raise bad_type("drop_inputs", "True, False or None", repr(self.drop_inputs), "None decides by the model.")
        for name in ("num_samples", "num_steps", "num_particles"):
            check_count(name, getattr(self, name))
        check_positive("learning_rate", self.learning_rate, "0.01 is usual on standardised data.")
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Train under masks, and draw masks."""
        check_batch(self, problem)
        layers = self._dropped(problem)
        names = tuple(layer.weight for layer in layers)
        schedule = Schedule(num_steps=self.num_steps, learning_rate=self.learning_rate, batch_size=self.batch_size)
        z, _, key_next = call(prior_positions, (1,), problem, key, watch=context.watch)
        key_train, key_draw = call(_split, (), key_next, watch=context.watch)
        dtype = np.dtype(problem.x.dtype)
        rates, start = np.full((1, len(names)), self.rate, dtype), np.asarray(z)
        if self.concrete:
            start = np.concatenate([start, np.log(rates / (1 - rates))], axis=1)
        task = Masked(
            rates=None if self.concrete else jax.device_put(rates),
            layers=names,
            inputs=tuple(layer.inputs.shape[1] for layer in layers),
            num_particles=self.num_particles,
        )
        trained = training.train(problem, start, key_train, schedule, context, "dropout", task)
        end = trained.positions[0]
        if not np.isfinite(end).all():
            raise bad_value("learning_rate", "small enough to train", self.learning_rate, "Try a tenth of it.")
        mean, learned = end[: problem.size], end[problem.size :]
        found = (1 / (1 + np.exp(-learned))).astype(dtype) if self.concrete else rates[0]
        positions = call(_draw, (names, self.num_samples), problem, mean, found, key_draw, watch=context.watch)
        return Draws(
            positions=np.asarray(positions)[None],
            kind="independent",
            info={"rates": found, "mean": mean, "losses": trained.losses},
            gradients=trained.gradients * self.num_particles,
        )

    def _dropped(self, problem: Problem) -> tuple[Tapped, ...]:
        """The layers whose inputs are dropped."""
        layers = curvature.layers_of(problem)
        if not layers:
            mend = (
                "Build it of bnn_zoo.models.parts.layers.dense, or take a method that needs no layers: 'nuts', 'hmc', "
                "'mh', 'map', 'ensemble', 'swag', 'laplace' or 'svgd'."
            )
            raise bad_value("the model", "made of dense layers, whose inputs can be dropped", "none", mend)
        if self.drop_inputs or (self.drop_inputs is None and len(layers) == 1):
            return layers
        if len(layers) == 1:
            mend = "Nothing else is there to be dropped; or take method 'map'."
            raise bad_value("drop_inputs", "True or None for a model of one layer", self.drop_inputs, mend)
        return layers[1:]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Masked:
    """The evidence lower bound of `MCDropout`, for the training loop.

    What is trained is the mean network ``z (p,)``, followed by the logits of the rates where these are learned.
    """

    rates: jax.Array | None  # (M, L); None where they are learned
    layers: tuple[str, ...] = field(metadata={"static": True})  # names of the weight sites, L
    inputs: tuple[int, ...] = field(metadata={"static": True})
    num_particles: int = field(metadata={"static": True}, default=1)

    @property
    def rate(self) -> jax.Array | None:
        """Factor on the optimiser's updates: none."""
        return None

    @property
    def random(self) -> bool:
        """New masks every step."""
        return True

    @property
    def shares_rows(self) -> bool:
        """No: every row has its own masks."""
        return False

    def size(self, problem: Problem) -> int:
        """Length of the vector that is trained."""
        return problem.size + (len(self.layers) if self.rates is None else 0)

    def objective(
        self,
        problem: Problem,
        z: jax.Array,
        where: jax.Array | None = None,
        key: jax.Array | None = None,
        step: jax.Array | None = None,
    ) -> jax.Array:
        """Estimate of the bound from the rows ``where``, with masks from ``key``."""
        assert key is not None
        mean, logits = z[: problem.size], z[problem.size :]
        rates = jax.nn.sigmoid(logits) if self.rates is None else self.rates
        batch = None if where is None else (problem.x[where], problem.y[where])

        def likelihood(key: jax.Array) -> jax.Array:
            def hear(layer: Tapped) -> jax.Array:
                if layer.weight not in self.layers:
                    return layer.output
                i = self.layers.index(layer.weight)
                own, shape = jax.random.fold_in(key, i), layer.inputs.shape
                if self.rates is None:
                    logistic = jax.random.logistic(own, shape, z.dtype)
                    kept = jax.nn.sigmoid(-(logits[i] + logistic) / TEMPERATURE)
                else:
                    kept = jax.random.bernoulli(own, 1 - rates[i], shape).astype(z.dtype)
                return (layer.inputs * kept / (1 - rates[i])) @ layer.weights + layer.biases[None, :]

            with listening(hear):
                return problem.log_likelihood(mean, batch)

        value = jnp.mean(jax.vmap(likelihood)(jax.random.split(key, self.num_particles)))
        value += self.expected_log_prior(problem, mean, rates)
        return value + self._entropy(logits) if self.rates is None else value

    def judge(self, problem: Problem, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Log posterior of the mean network; an objective known by estimates alone has no gradient to tell."""
        return problem.log_posterior(z[: problem.size]), jnp.full((1,), jnp.nan, z.dtype)

    def expected_log_prior(self, problem: Problem, mean: jax.Array, rates: jax.Array) -> jax.Array:
        """E log p(φ) = log p(M) + Σ_layers rate (log p(0) - log p(M_layer)), where a row is 0 with probability rate."""
        on = mean
        for i, name in enumerate(self.layers):
            on = on.at[curvature.slot_of(problem, name)].divide(1 - rates[i])
        value = problem.log_prior(on)
        for i, name in enumerate(self.layers):
            where = curvature.slot_of(problem, name)
            own = tuple(slot.name for slot in problem.layout.slots if slot.where == where)
            off = problem.log_prior_of(on.at[where].set(0.0), own)
            value += rates[i] * (off - problem.log_prior_of(on, own))
        return value

    def _entropy(self, logits: jax.Array) -> jax.Array:
        """Σ_layers K H(rate), from logits."""
        rates, counts = jax.nn.sigmoid(logits), jnp.asarray(self.inputs, logits.dtype)
        return jnp.sum(counts * (rates * jax.nn.softplus(-logits) + (1 - rates) * jax.nn.softplus(logits)))


# --- compiled programs ----------------------------------------------------------------------------------------------


@runs_once
def _split(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    first, second = jax.random.split(key)
    return first, second


@runs_once
def _draw(
    layers: tuple[str, ...], num_samples: int, problem: Problem, mean: jax.Array, rates: jax.Array, key: jax.Array
) -> jax.Array:
    """Draws ``(S, p)``: the mean network with rows of weights at 0, and the others divided by the share that is on."""
    shapes = {layer.weight: layer.weights.shape for layer in curvature.layers_of(problem)}

    def one(key: jax.Array) -> jax.Array:
        z = mean
        for i, name in enumerate(layers):
            inputs, width = shapes[name]
            kept = jax.random.bernoulli(jax.random.fold_in(key, i), 1 - rates[i], (inputs,)).astype(z.dtype)
            z = z.at[curvature.slot_of(problem, name)].multiply(jnp.repeat(kept / (1 - rates[i]), width))
        return z

    return lax.map(one, jax.random.split(key, num_samples))
