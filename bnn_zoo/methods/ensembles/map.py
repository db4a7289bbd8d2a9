"""One best network."""

from __future__ import annotations

import jax
import numpy as np

from bnn_zoo.engine import training
from bnn_zoo.engine.compiled import call
from bnn_zoo.engine.context import Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.identity import settings
from bnn_zoo.engine.schedules import Schedule
from bnn_zoo.engine.starts import prior_positions
from bnn_zoo.errors import bad_value, check_count
from bnn_zoo.methods.ensembles.trained import (
    Batched,
    check_batch,
    check_hold_out,
    check_training,
    held_out_info,
    hold_out,
)


@settings
class MAP(Batched):
    """The most probable network: the best of several trained from prior draws, all at once.

    Choose it for a quick point prediction or as a baseline: it has no uncertainty about the weights, so its intervals
    hold noise alone.

    Parameters
    ----------
    num_restarts : int
        Networks trained side by side; the one of highest log posterior is kept.
    num_steps, learning_rate, batch_size
        Adam's, with a cosine decay to zero. The loss is minus the log posterior per row; ``batch_size=None`` takes all
        rows.
    polish_steps : int
        Most L-BFGS steps on all rows afterwards; 0 for none.
    hold_out, patience : float, int
        Early stopping: a share of the rows, 0 for none, that is not trained on, and the number of looks at them (one an
        epoch, at least 10 steps apart) without an improvement after which a network stops. Its best one so far is kept,
        and not polished, and the restart of least loss on these rows is chosen.

    Notes
    -----
    The maximum is that of the density of the unconstrained coordinates, Jacobian included. With a prior on the noise
    and more weights than rows, the joint density has no finite maximum (the network interpolates and the noise goes to
    zero), and the training budget is then part of the answer: the diagnosis reports the gradient norm.

    References
    ----------
    MacKay (1992), A practical Bayesian framework for backpropagation networks, section 2.
    """

    num_restarts: int = 8
    num_steps: int = 2000
    learning_rate: float = 0.01
    batch_size: int | None = None
    polish_steps: int = 200
    hold_out: float = 0.0
    patience: int = 20

    def __post_init__(self) -> None:
        check_count("num_restarts", self.num_restarts)
        check_training(self)
        check_hold_out(self)

    def run(self, problem: Problem, key: jax.Array, context: Context) -> Draws:
        """Train every restart and keep the best."""
        part, held = hold_out(problem, self.hold_out, key)
        check_batch(self, part)
        schedule = Schedule(
            num_steps=self.num_steps,
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            polish_steps=0 if self.hold_out else self.polish_steps,
            patience=self.patience if self.hold_out else 0,
        )
        ahead = training.requests(part, self.num_restarts, schedule, context, held=held)
        context.compile_together([(prior_positions, (self.num_restarts,), (problem, key)), *ahead])
        z, _, key_train = call(prior_positions, (self.num_restarts,), problem, key, watch=context.watch)
        trained = training.train(part, z, key_train, schedule, context, "MAP", held=held)
        score = trained.log_posterior if trained.held_out is None else -np.asarray(trained.held_out.loss)
        if not np.isfinite(score).any():
            raise bad_value("learning_rate", "small enough to train", self.learning_rate, "Try a tenth of it.")
        best = int(np.nanargmax(np.where(np.isfinite(score), score, np.nan)))
        stopped = held_out_info(self, trained, held)
        return Draws(
            positions=trained.positions[None, best : best + 1],
            kind="members",
            stats={"lp": trained.log_posterior[None, best : best + 1]},
            info={
                **(stopped or {"gradient_norm": float(trained.gradient_norm[best])}),
                "restarts_log_posterior": trained.log_posterior,
                "losses": trained.losses,
            },
            gradients=trained.gradients,
        )
