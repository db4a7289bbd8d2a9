"""Several networks, each trained from its own beginning."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bnn_zoo.engine import training
from bnn_zoo.engine.compiled import Request, call, runs_once
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Batch, Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.schedules import Schedule
from bnn_zoo.engine.starts import prior_positions_and_keys
from bnn_zoo.engine.tasks import PLAIN, Task
from bnn_zoo.engine.training import Trained
from bnn_zoo.errors import bad_type, bad_value, check_count
from bnn_zoo.methods.ensembles.anchors import anchor, anchored_sites, noise_varies
from bnn_zoo.methods.ensembles.trained import (
    Batched,
    check_batch,
    check_hold_out,
    check_training,
    held_out_info,
    hold_out,
)


@settings
class DeepEnsemble(Batched):
    """Several networks trained from different prior draws, all at once; their disagreement is the uncertainty.

    Choose it when a few good networks are wanted quickly, and doubt where the data leave room for different functions.
    Members that are maxima of the posterior spread by where they ended, not by the posterior: for a linear model they
    are all equal. With ``anchored=True`` they are draws.

    Parameters
    ----------
    num_members : int
        Networks, M.
    anchored : bool
        Randomised maximum a posteriori: each member has its own prior centre and its own noise on the targets.
    bootstrap : bool
        Each member sees its own n rows, drawn with replacement.
    adversarial : float
        Half of the likelihood is taken at inputs moved against the network, by this share of the range of each input;
        the paper's is 0.01. 0 for none.
    num_steps, learning_rate, batch_size, polish_steps, hold_out, patience
        As in `MAP`; every member stops for itself. Adversarial training is not polished: its objective has kinks, at
        which L-BFGS stalls.

    Notes
    -----
    A member maximises log p(z) + Σ_i log p(y_i | x_i, z), from its own draw z ~ p(z).

    An anchored member draws an anchor a ~ N(m, P⁻¹), the prior, and targets t_i = y_i + σ_i ε_i, with ε_i ~ N(0, 1),
    and maximises

        −½ (w − a)ᵀ P (w − a) − ½ Σ_i (t_i − f(x_i, w))² / σ_i².

    For f linear in w the maximum is A⁻¹ (P a + Φᵀ t / σ²) with A = P + ΦᵀΦ / σ², the posterior precision: a linear map
    of Normals, whose mean is the posterior's and whose covariance is A⁻¹ (P + ΦᵀΦ / σ²) A⁻¹ = A⁻¹, so that members are
    independent exact draws. P is not asked of the model: −½ (w − a)ᵀ P (w − a) is log p(w) − w·∇log p(a) plus a
    constant.

    Here w are the sites with a Normal prior. Where others have priors too (the noise, scales of the weights), members
    are first trained as without anchors, and these sites then stay at each member's own maximum, where P and σ_i are
    taken (Pearce fixes them by hand): exactness then is given these values. A network that predicts its noise takes σ_i
    from there as well, and goes on training it.

    Departures from Lakshminarayanan: members are maxima of a posterior rather than of a likelihood; the two halves of
    the likelihood in adversarial training are averaged rather than added, so that the prior keeps its weight; an
    ensemble predicts by the mixture, not by one Normal of its mean and variance.

    References
    ----------
    Lakshminarayanan et al. (2017), Simple and scalable predictive uncertainty estimation using deep ensembles,
    algorithm 1. Pearce et al. (2020), Uncertainty in neural networks: approximately Bayesian ensembling, equation 7
    and theorem 1.
    """

    num_members: int = 5
    anchored: bool = False
    bootstrap: bool = False
    adversarial: float = 0.0
    num_steps: int = 2000
    learning_rate: float = 0.01
    batch_size: int | None = None
    polish_steps: int = 200
    hold_out: float = 0.0
    patience: int = 20

    def __post_init__(self) -> None:
        check_count("num_members", self.num_members)
        for name in ("anchored", "bootstrap"):
            if not isinstance(getattr(self, name), bool):
                raise bad_type(name, "True or False", repr(getattr(self, name)), f"{name}=True, say.")
        if isinstance(self.adversarial, bool) or not isinstance(self.adversarial, (int, float)):
            raise bad_type("adversarial", "a number", repr(self.adversarial), "0.01 is the paper's; 0 for none.")
        if not 0 <= self.adversarial < 1:
            raise bad_value("adversarial", "from 0 to 1", self.adversarial, "0.01 is the paper's; 0 for none.")
        if self.anchored and (self.bootstrap or self.adversarial):
            got = f"bootstrap={self.bootstrap}, adversarial={self.adversarial}"
            mend = "Anchors already make members differ as the posterior does; leave the others out."
            raise bad_value("anchored=True", "without bootstrap and adversarial", got, mend)
        check_training(self)
        check_hold_out(self)
        if self.anchored and self.hold_out:
            mend = "A member that stops early is no draw from the posterior."
            raise bad_value("hold_out", "0 with anchored=True", self.hold_out, mend)

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Train all members."""
        part, held = hold_out(problem, self.hold_out, key)
        check_batch(self, part)
        sites = anchored_sites(problem) if self.anchored else ()
        static = self.num_members, 3
        ahead: list[Request] = [(prior_positions_and_keys, static, (problem, key))]
        if not (self.anchored or self.bootstrap):
            task = Task(adversarial=float(self.adversarial))
            ahead += training.requests(part, self.num_members, self._schedule(held), context, task, held)
        context.compile_together(ahead)
        z, *keys = call(prior_positions_and_keys, static, problem, key, watch=context.watch)
        gradients = 0
        if self.anchored:
            key_first, key_anchor, key_train = keys
            if len(sites) < len(problem.layout.slots) or noise_varies(problem, sites, z, key_anchor, context):
                first = self._train(problem, z, key_first, context, "ensemble", PLAIN)
                z, gradients = first.positions, first.gradients
            z, task = anchor(problem, sites, z, key_anchor, context)
            trained = self._train(problem, z, key_train, context, "anchored ensemble", task)
        else:
            key_rows, key_train, _ = keys
            rows = None
            if self.bootstrap:
                rows = call(_resample, (self.num_members,), part, key_rows, watch=context.watch)
            task = Task(rows=rows, adversarial=float(self.adversarial))
            trained = self._train(part, z, key_train, context, "ensemble", task, held)
        norms = {"gradient_norm": float(np.max(trained.gradient_norm)), "gradient_norms": trained.gradient_norm}
        return Draws(
            positions=trained.positions[None],
            kind="members",
            stats={"lp": trained.log_posterior[None]},
            info=(held_out_info(self, trained, held) or norms) | {"losses": trained.losses},
            gradients=gradients + trained.gradients,
        )

    def _schedule(self, held: Batch | None) -> Schedule:
        return Schedule(
            num_steps=self.num_steps,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            polish_steps=0 if self.adversarial or held is not None else self.polish_steps,
            patience=0 if held is None else self.patience,
        )

    def _train(
        self,
        problem: Problem,
        z: jax.Array | np.ndarray,
        key: jax.Array,
        context: Context,
        title: str,
        task: Task,
        held: Batch | None = None,
    ) -> Trained:
        trained = training.train(problem, z, key, self._schedule(held), context, title, task, held)
        found = trained.log_posterior if trained.held_out is None else np.asarray(trained.held_out.loss)
        lost = np.flatnonzero(~np.isfinite(found))
        if len(lost):
            got = f"{self.learning_rate}, at which {len(lost)} of {self.num_members} members diverged"
            raise bad_value("learning_rate", "small enough to train every member", got, "Try a tenth of it.")
        return trained


@runs_once
def _resample(num_members: int, problem: Problem, key: jax.Array) -> jax.Array:
    """Rows ``(M, n)`` drawn with replacement."""
    return jax.random.randint(key, (num_members, problem.num_rows), 0, problem.num_rows, jnp.int32)
