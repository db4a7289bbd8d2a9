"""``Prediction``: what a posterior says of new observations, in the user's units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html import escape
from typing import Protocol

import numpy as np

from bnn_zoo.engine import mixture
from bnn_zoo.engine.likelihood import Likelihood
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import bad_value, check_between, check_count
from bnn_zoo.inputs import as_targets

MOST_SHOWN = 8  # rows in a notebook
MOST_REMEMBERED = 2**20  # quantiles


class Components(Protocol):
    """Where a prediction's components come from."""

    @property
    def scaling(self) -> Scaling:
        """To the user's units."""
        ...

    @property
    def num_draws(self) -> int:
        """Components of the mixture."""
        ...

    @property
    def is_normal(self) -> bool:
        """Whether they are Normals."""
        ...

    def blocks(self, rows: int | None = None) -> Iterator[tuple[slice, Likelihood]]:
        """Slices of rows and their components ``(T, rows)``, the last block padded; ``rows`` a block where given."""
        ...

    def sample(self, num: int, seed: int, rows: int) -> np.ndarray:
        """``(num, rows)`` observations in the user's units."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """Predictive distribution at ``n`` inputs: an equal mixture, over draws, of the model's observation distribution.

    Where the network was made linear about a mode, moments were sent through it, or it was distilled, there is one
    component, a Normal. Where posteriors were stacked, the mixture is one of theirs, weighted.

    Moments are computed at once, in one compiled loop in bounded memory. Quantiles, densities and scores are exact for
    the mixture, not sampled, and computed a block of rows at a time when asked for.

    Attributes
    ----------
    mean : ndarray
        ``(n,)``, in the units of the target, like all that follow.
    std : ndarray
        ``(n,)``: ``std² = epistemic_std² + aleatoric_std²``.
    epistemic_std : ndarray
        ``(n,)``: standard deviation of f(x) between draws, what more data would shrink.
    aleatoric_std : ndarray
        ``(n,)``: root of the mean noise variance, what more data would not shrink.
    kind : str
        How it was made: ``"monte_carlo"`` over draws, ``"plug_in"`` at one network, ``"linearized"`` about one, by
        ``"moments"`` sent through it, ``"exact"`` for an infinite one, or ``"stacked"`` from several predictions.
    """

    mean: np.ndarray
    epistemic_std: np.ndarray
    aleatoric_std: np.ndarray
    kind: str
    _source: Components = field(repr=False)
    _last: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict, repr=False)
    _quantiles: dict[float, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation ``(n,)`` of an observation."""
        return np.hypot(self.epistemic_std, self.aleatoric_std)

    @property
    def is_normal(self) -> bool:
        """Whether this is a mixture of Normals, for which every quantity has a closed form or an exact root."""
        return self._source.is_normal

    def __len__(self) -> int:
        return len(self.mean)

    def copy(self) -> Prediction:
        """The same, with moments of its own to write in; what has been computed of it is shared."""
        return replace(
            self,
            mean=self.mean.copy(),
            epistemic_std=self.epistemic_std.copy(),
            aleatoric_std=self.aleatoric_std.copy(),
        )

    def __repr__(self) -> str:
        def middle(a: np.ndarray) -> str:
            return f"{np.median(a):.4g}"

        return (
            f"Prediction(n={len(self)}, kind={self.kind!r}, draws={self._source.num_draws}: median mean "
            f"{middle(self.mean)}, epistemic_std {middle(self.epistemic_std)}, "
            f"aleatoric_std {middle(self.aleatoric_std)})"
        )

    def _repr_html_(self) -> str:
        """The first rows with their 90 % intervals, as a notebook shows them."""
        import pandas as pd

        some = min(len(self), MOST_SHOWN)
        columns = {"mean": self.mean, "std": self.std, "epistemic_std": self.epistemic_std}
        table = pd.DataFrame({**columns, "aleatoric_std": self.aleatoric_std}).head(some)
        _, parts = next(iter(self._source.blocks()))  # the first block holds them: no need to look at all rows
        ends = mixture.evaluate("quantile", parts, np.array([0.05, 0.95]))[:, :some]
        table["5 %"], table["95 %"] = self._source.scaling.from_model(ends)
        left = f"<p>… {len(self) - some} more rows</p>" if some < len(self) else ""
        return f"<p>{escape(repr(self))}</p>{table.to_html(float_format='{:.4g}'.format)}{left}"

    def quantile(self, q: float | list[float] | np.ndarray) -> np.ndarray:
        """Return quantiles ``(len(q), n)``, by root finding on the mixture's distribution function.

        Raises
        ------
        ZooValueError
            Unless every level lies strictly between 0 and 1.
        """
        levels = np.atleast_1d(np.asarray(q, np.float64))
        if levels.ndim != 1 or not ((levels > 0) & (levels < 1)).all():
            raise bad_value("q", "one or more levels strictly between 0 and 1", repr(q), "0.5 is the median.")
        wanted = [round(float(level), 12) for level in levels]
        missing = [level for level in dict.fromkeys(wanted) if level not in self._quantiles]
        if missing:
            found = np.empty((len(missing), len(self)))
            for where, parts in self._source.blocks():
                found[:, where] = mixture.evaluate("quantile", parts, np.array(missing))[:, : where.stop - where.start]
            known = self._quantiles | dict(zip(missing, self._source.scaling.from_model(found), strict=True))
            if len(known) * len(self) <= MOST_REMEMBERED:  # scores and plots ask for the same few levels
                self._quantiles.update(known)
        else:
            known = self._quantiles
        return np.stack([known[level] for level in wanted])

    def interval(self, prob: float = 0.9) -> np.ndarray:
        """Return the central interval ``(n, 2)`` that holds an observation with probability ``prob``."""
        check_between("prob", prob, 0, 1, "0.9 is usual.")
        return self.quantile([0.5 - prob / 2, 0.5 + prob / 2]).T

    def cdf(self, y: object) -> np.ndarray:
        """Return P(Y ≤ y) of each row ``(n,)``: the probability integral transform of ``y (n,)``."""
        return self._rowwise("cdf", y)

    def log_prob(self, y: object) -> np.ndarray:
        """Return the log predictive density ``(n,)`` at ``y (n,)``, per unit of the target."""
        return self._rowwise("log_prob", y) + self._source.scaling.log_jacobian

    def crps(self, y: object) -> np.ndarray:
        """Return the continuous ranked probability score ``(n,)``, in units of the target; less is better."""
        return self._rowwise("crps", y) * self._source.scaling.y_scale

    def sample(self, num: int = 1, seed: int = 0) -> np.ndarray:
        """Return ``(num, n)`` observations; one row of it is one joint draw, from one network.

        Draws of the posterior are used without replacement until all have been used: in a random order, or, where
        ``num`` is the number of draws, in theirs.
        """
        check_count("num", num)
        return self._source.sample(num, seed, len(self))

    def _rowwise(self, name: str, y: object) -> np.ndarray:
        targets = self._source.scaling.targets(as_targets(y, len(self)))
        # Scores, paired differences and plots ask for the same rows in turn: the network runs once for each quantity.
        if name in self._last and np.array_equal(self._last[name][0], targets):
            return self._last[name][1].copy()
        out = np.empty(len(self))
        for where, parts in self._source.blocks():
            count = where.stop - where.start
            # The last block is padded: give its spare rows a target that is as good as any.
            block = np.zeros(next(iter(parts.parameters.values())).shape[1])
            block[:count] = targets[where]
            out[where] = mixture.evaluate(name, parts, block)[:count]
        self._last[name] = targets, out.copy()
        return out
