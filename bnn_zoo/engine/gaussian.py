"""A Gaussian over ``z`` whose precision is made of blocks: dense, diagonal or Kronecker-factored, one an index set.

Coordinates in no block are fixed at the mode. Everything is in float64. What a block costs to keep is its factor, never
a covariance of all coordinates; it is asked for variances of linear functions, for draws, and for its determinant.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg.lapack import dtrtri

from bnn_zoo.engine.blas import one_thread
from bnn_zoo.errors import bad_value


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Dense:
    """A block with every covariance.

    The factor is kept inverted: a product of matrices, which variances then are, takes all cores, where solving with a
    triangular matrix takes one and thrice as long.

    Attributes
    ----------
    index : ndarray
        ``(k,)`` coordinates.
    inverse_factor : ndarray
        ``(k, k)``: W = L⁻¹ for the lower Cholesky factor of the precision, P = L Lᵀ; the covariance is Wᵀ W.
    """

    index: np.ndarray
    inverse_factor: np.ndarray

    @classmethod
    def of(cls, index: np.ndarray, precision: np.ndarray) -> Dense:
        """Factorise a precision ``(k, k)``; raises ``numpy.linalg.LinAlgError`` unless it is positive definite."""
        with one_thread(len(precision)):
            # What is lower by rows is upper by columns, as LAPACK has it.
            inverse, _ = dtrtri(np.linalg.cholesky(precision).T, lower=0, overwrite_c=1)
        return cls(index, inverse.T)

    def check(self) -> None:
        """Raise ValueError unless it is one that `of` could have made."""
        (k,) = self.index.shape
        _check_arrays(self.index, (self.inverse_factor, (k, k)))
        _check_positive(np.diagonal(self.inverse_factor))

    @property
    def log_det(self) -> float:
        """Log determinant of the precision."""
        return -2 * float(np.log(np.diagonal(self.inverse_factor)).sum())

    @property
    def covariance(self) -> np.ndarray:
        """``(k, k)``."""
        return self.inverse_factor.T @ self.inverse_factor

    def variance(self, j: jax.Array) -> jax.Array:
        """``(m,)``: j P⁻¹ jᵀ for every row of ``j (m, p)``."""
        return self.variance_of(j[:, self.index])

    def variance_of(self, own: jax.Array) -> jax.Array:
        """The same for the block's own columns ``(m, k)``."""
        return jnp.sum((self.inverse_factor @ own.T) ** 2, axis=0)  # (this way round XLA gathers columns first)

    def coloured(self, white: np.ndarray) -> np.ndarray:
        """Turn white noise ``(S, k)`` into draws about 0."""
        with one_thread(len(self.inverse_factor)):
            return white @ self.inverse_factor


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Diagonal:
    """A block of independent coordinates: their ``index (k,)`` and ``precision (k,)``."""

    index: np.ndarray
    precision: np.ndarray

    def check(self) -> None:
        """Raise ValueError unless it is one with positive precisions."""
        _check_arrays(self.index, (self.precision, (self.index.size,)))
        _check_positive(self.precision)

    @property
    def log_det(self) -> float:
        """Log determinant of the precision."""
        return float(np.log(self.precision).sum())

    def variance(self, j: jax.Array) -> jax.Array:
        """``(m,)``: j P⁻¹ jᵀ for every row of ``j (m, p)``."""
        return j[:, self.index] ** 2 @ (1 / self.precision)

    def coloured(self, white: np.ndarray) -> np.ndarray:
        """Turn white noise ``(S, k)`` into draws about 0."""
        return white / np.sqrt(self.precision)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Kronecker:
    """A layer's weights and bias: P = A ⊗ G + D ⊗ I, with D diagonal, in the basis in which both terms are.

    With the prior's sd taken out of A, Ã = D^-½ A D^-½ = U diag(a) Uᵀ, and G = V diag(g) Vᵀ, the covariance is
    (D^-½ U ⊗ V) diag(1 / (1 + a_i g_j)) (D^-½ U ⊗ V)ᵀ: exact, where adding roots of the prior to the factors is not
    (Ritter 2018 add roots; Daxberger 2021 do as here for one prior precision).

    Attributes
    ----------
    index : ndarray
        ``(inputs + 1, width)`` coordinates, the bias in the last row.
    left, right : ndarray
        ``D^-½ U (inputs + 1, inputs + 1)`` and ``V (width, width)``.
    eigenvalues : ndarray
        ``a_i g_j (inputs + 1, width)``.
    prior : ndarray
        The diagonal ``(inputs + 1,)`` of D.
    """

    index: np.ndarray
    left: np.ndarray
    right: np.ndarray
    eigenvalues: np.ndarray
    prior: np.ndarray

    @classmethod
    def of(cls, index: np.ndarray, a: np.ndarray, g: np.ndarray, prior: np.ndarray) -> Kronecker:
        """Diagonalise A ⊗ G + D ⊗ I for factors ``a (inputs + 1, inputs + 1)``, ``g (width, width)``."""
        sd = prior**-0.5
        with one_thread(max(len(a), len(g))):
            values_a, vectors_a = np.linalg.eigh(sd[:, None] * a * sd[None, :])
            values_g, vectors_g = np.linalg.eigh(g)
        # Rounding alone makes an eigenvalue of a sum of squares negative.
        values = np.outer(np.maximum(values_a, 0), np.maximum(values_g, 0))
        return cls(index, sd[:, None] * vectors_a, vectors_g, values, prior)

    def check(self) -> None:
        """Raise ValueError unless shapes and signs are those that `of` makes."""
        a, g = self.index.shape
        shapes = ((self.left, (a, a)), (self.right, (g, g)), (self.eigenvalues, (a, g)), (self.prior, (a,)))
        _check_arrays(self.index, *shapes)
        _check_positive(self.prior, 1 + self.eigenvalues)

    @property
    def log_det(self) -> float:
        """Log determinant of the precision."""
        return float(np.log1p(self.eigenvalues).sum() + self.index.shape[1] * np.log(self.prior).sum())

    def variance(self, j: jax.Array) -> jax.Array:
        """``(m,)``: j P⁻¹ jᵀ for every row of ``j (m, p)``."""
        turned = jnp.einsum("ai,mab,bj->mij", self.left, j[:, self.index], self.right)
        return jnp.sum(turned**2 / (1 + self.eigenvalues)[None], axis=(1, 2))

    def variance_of_product(self, a: jax.Array, g: jax.Array) -> jax.Array:
        """``(m,)``: the same where rows of j are products of rows of ``a (m, inputs + 1)`` and ``g (m, width)``."""
        return jnp.sum(((a @ self.left) ** 2 @ (1 / (1 + self.eigenvalues))) * (g @ self.right) ** 2, axis=1)

    def coloured(self, white: np.ndarray) -> np.ndarray:
        """Turn white noise ``(S, k)`` into draws about 0."""
        scaled = white.reshape(-1, *self.index.shape) / np.sqrt(1 + self.eigenvalues)
        return (self.left @ scaled @ self.right.T).reshape(len(white), -1)


Block = Dense | Diagonal | Kronecker
KINDS: dict[str, type] = {"dense": Dense, "diagonal": Diagonal, "kronecker": Kronecker}


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Gaussian:
    """A mode ``(p,)`` and independent blocks about it."""

    mode: np.ndarray
    blocks: tuple[Block, ...]

    @property
    def num_free(self) -> int:
        """Coordinates that vary."""
        return sum(block.index.size for block in self.blocks)

    @property
    def log_det(self) -> float:
        """Log determinant of the precision of the coordinates that vary."""
        return sum(block.log_det for block in self.blocks)

    def variance(self, j: jax.Array) -> jax.Array:
        """Variance ``(m,)`` of j·z for every row of ``j (m, p)``."""
        return sum((block.variance(j) for block in self.blocks), jnp.zeros(j.shape[0], j.dtype))

    def draw(self, generator: np.random.Generator, num: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """``(num, p)`` draws, and the log density ``(num,)`` of each over the coordinates that vary."""
        out = np.tile(self.mode.astype(dtype), (num, 1))
        log_density = np.full(num, 0.5 * (self.log_det - self.num_free * np.log(2 * np.pi)))
        for block in self.blocks:
            white = generator.standard_normal((num, block.index.size))
            log_density -= 0.5 * np.sum(white**2, axis=1)
            where = block.index.reshape(-1)
            out[:, where] = self.mode[where] + block.coloured(white)
        return out, log_density

    def to_info(self) -> dict[str, Any]:
        """As arrays and one string, which a file can hold; `from_info` reads them."""
        names = {make: name for name, make in KINDS.items()}
        info: dict[str, Any] = {"mode": self.mode, "blocks": " ".join(names[type(block)] for block in self.blocks)}
        for i, block in enumerate(self.blocks):
            info |= {f"block_{i}_{field.name}": getattr(block, field.name) for field in fields(block)}
        return info

    @classmethod
    def from_info(cls, info: dict[str, Any], size: int) -> Gaussian:
        """Read what `to_info` wrote, for ``size`` coordinates.

        Raises
        ------
        KeyError, ValueError
            If it is not what `to_info` writes: it may come out of a file that somebody has changed.
        """
        mode, blocks = np.asarray(info["mode"]), []
        _check_arrays(np.arange(0), (mode, (size,)))
        taken = np.zeros(size, bool)
        for i, name in enumerate(str(info["blocks"]).split()):
            make = KINDS[name]
            block = make(**{field.name: np.asarray(info[f"block_{i}_{field.name}"]) for field in fields(make)})
            block.check()
            index = block.index.reshape(-1)
            if index.size and not 0 <= index.min() <= index.max() < size:
                raise ValueError(f"a block of coordinates outside the {size} that there are")
            if taken[index].any() or len(np.unique(index)) < len(index):
                raise ValueError("a coordinate in two places of a covariance")
            taken[index] = True
            blocks.append(block)
        return cls(mode, tuple(blocks))


def _check_arrays(index: np.ndarray, *rest: tuple[np.ndarray, tuple[int, ...]]) -> None:
    """Raise ValueError unless ``index`` is of whole numbers, and the others of finite ones and of the shapes given."""
    if index.dtype.kind not in "iu":
        raise ValueError(f"coordinates of type {index.dtype}")
    for array, shape in rest:
        if array.shape != shape or array.dtype != np.float64 or not np.isfinite(array).all():
            raise ValueError(f"a covariance of shape {array.shape} and type {array.dtype}, or not finite")


def _check_positive(*arrays: np.ndarray) -> None:
    if any((array <= 0).any() for array in arrays):
        raise ValueError("a covariance that is not positive definite")


def check_memory(argument: str, value: str, numbers: int, most_bytes: int, mend: str) -> None:
    """Refuse what would take more than ``most_bytes`` in float64, before any of it is allocated."""
    if numbers * 8 > most_bytes:
        got = f"{value!r}, which takes {numbers * 8 / 2**30:.1f} GiB"
        raise bad_value(argument, f"of a size below {most_bytes / 2**30:.0f} GiB", got, mend)
