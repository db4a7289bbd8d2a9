"""How a training run goes: the optimiser, its learning rate over time, batches, and which iterates are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax

from bnn_zoo.engine.identity import settings

if TYPE_CHECKING:
    import optax

CHECK_STEPS = 10


@settings
class Schedule:
    """An Optax optimiser, then L-BFGS on all rows.

    Parameters
    ----------
    num_steps : int
        Steps of the optimiser.
    learning_rate : float
        Of the first step.
    batch_size : int or None
        Rows a step, drawn without replacement each epoch; ``None`` takes all.
    polish_steps : int
        Most L-BFGS steps afterwards; 0 for none.
    rule : str
        ``"adam"``, or ``"sgd"`` with ``momentum``.
    decay : str
        Of the learning rate: ``"cosine"`` to zero, ``"constant"``, or ``"cyclical"``: linear from the learning rate to
        ``low`` times it in every ``collect_every`` steps (Izmailov 2018, equation 1).
    collect_every : int
        Steps between two iterates that enter the running moments; 0 keeps none.
    rank : int
        Of the iterates' deviations from their running mean, how many are kept: the last ones.
    patience : int
        Checks of the loss on held-out rows, one an epoch and at least `CHECK_STEPS` steps apart, without an improvement
        after which a member stops; 0 for no such rows.
    """

    num_steps: int = 1000
    learning_rate: float = 0.01
    batch_size: int | None = None
    polish_steps: int = 0
    rule: str = "adam"
    momentum: float = 0.0
    decay: str = "cosine"
    low: float = 1.0
    collect_every: int = 0
    rank: int = 0
    patience: int = 0

    def steps_between_checks(self, num_rows: int) -> int:
        """Steps between two looks at the held-out rows."""
        return max(num_rows // min(self.batch_size or num_rows, num_rows), CHECK_STEPS)

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The Optax optimiser of the first phase."""
        import optax  # here, as importing it takes a tenth of what importing JAX does

        rate: Any = self.learning_rate
        if self.decay == "cosine":
            rate = optax.cosine_decay_schedule(self.learning_rate, max(self.num_steps, 1))
        elif self.decay == "cyclical":
            rate = self._cyclical
        return optax.adam(rate) if self.rule == "adam" else optax.sgd(rate, self.momentum or None)

    def _cyclical(self, step: jax.Array) -> jax.Array:
        done = (step % self.collect_every + 1) / self.collect_every
        return self.learning_rate * (1 - done + done * self.low)
