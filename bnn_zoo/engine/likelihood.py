"""The distribution of an observed site, taken apart: a NumPyro family and one parameter value a row.

Taken apart, it can cross ``vmap`` and ``jit`` borders, be stacked over draws, and be put together again as
``family(**parameters)`` with a batch shape of draws × rows, which NumPyro's own wrappers cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution, ExpandedDistribution, Independent, Normal

from bnn_zoo.errors import bad_type


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Likelihood:
    """Family and parameters of independent observations.

    As components of a mixture, parameters ``(T, m)``, they may have ``weights (T,)`` that sum to 1; none: all alike.
    """

    parameters: dict[str, jax.Array]
    family: type[Distribution] = field(metadata={"static": True})
    weights: jax.Array | None = None

    @property
    def is_normal(self) -> bool:
        """Whether closed forms for mixtures of Normals apply."""
        return self.family is Normal

    @property
    def whole(self) -> Distribution:
        """The NumPyro distribution, of the parameters' shape."""
        return self.family(**self.parameters)

    @property
    def location(self) -> jax.Array:
        """Where f(x) is read: the Normal's ``loc``, the mean of any other family."""
        return self.parameters["loc"] if self.is_normal else self.whole.mean

    @property
    def variance(self) -> jax.Array:
        """Variance of an observation given the weights."""
        return self.parameters["scale"] ** 2 if self.is_normal else self.whole.variance

    def log_prob(self, y: jax.Array) -> jax.Array:
        """Log density at ``y``, elementwise."""
        return self.whole.log_prob(y)

    def sample(self, key: jax.Array) -> jax.Array:
        """One observation an element."""
        return self.whole.sample(key)


def unwrap(fn: Distribution, rows: int) -> Likelihood:
    """Take the distribution of an observed site of ``rows`` rows apart.

    Raises
    ------
    ZooTypeError
        If the family cannot be rebuilt from its parameters (mixtures, transformed distributions).
    """
    while isinstance(fn, (Independent, ExpandedDistribution)):
        fn = fn.base_dist
    names = list(fn.arg_constraints)
    if not names or any(not hasattr(fn, name) for name in names):
        raise bad_type(
            "the observed site's distribution",
            "a plain family with one parameter value a row",
            type(fn).__name__,
            "Observe a Normal, StudentT, Laplace, Gamma, Poisson or the like.",
        )
    parameters = {name: jnp.broadcast_to(getattr(fn, name), (rows,)) for name in names}
    return Likelihood(parameters, type(fn))
