"""Closed forms that tests compare against, in NumPy alone, each with its derivation.

They use nothing of the package, so that a mistake cannot be on both sides.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True, eq=False)
class LinearPosterior:
    """Bayesian linear regression, ``y = x·w + b + noise·ε``, ``w_j ~ N(0, weight_scale²)``, ``b ~ N(0, bias_scale²)``.

    With Φ = [x, 1] and P the diagonal of prior precisions, the log joint is −|y − Φθ|²/(2σ²) − θᵀPθ/2 + const.
    It is quadratic in θ = (w, b), so θ | y is Normal; minus its Hessian is A = ΦᵀΦ/σ² + P, hence the covariance A⁻¹,
    and the gradient vanishes at A θ = Φᵀy/σ², hence the mean A⁻¹Φᵀy/σ² (also the ridge solution, the MAP).
    """

    x: np.ndarray  # (n, d)
    y: np.ndarray  # (n,)
    weight_scale: float
    bias_scale: float
    noise: float

    @property
    def prior_sd(self) -> np.ndarray:
        """(d + 1,), the bias last."""
        return np.append(np.full(self.x.shape[1], self.weight_scale), self.bias_scale)

    @property
    def precision(self) -> np.ndarray:
        phi = with_ones(self.x)
        return phi.T @ phi / self.noise**2 + np.diag(self.prior_sd**-2.0)

    @property
    def cov(self) -> np.ndarray:
        """Posterior covariance of (w, b), (d + 1, d + 1)."""
        return np.linalg.inv(self.precision)

    @property
    def mean(self) -> np.ndarray:
        """Posterior mean of (w, b), (d + 1,)."""
        return np.linalg.solve(self.precision, with_ones(self.x).T @ self.y / self.noise**2)

    def function(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean ``(k,)`` and covariance ``(k, k)`` of f at ``x (k, d)``.

        f(x*) = φ(x*)·θ is linear in θ ~ N(m, S).
        So is the vector of several such values, Φ* θ.
        Its mean is Φ* m and its covariance Φ* S Φ*ᵀ.
        """
        phi = with_ones(x)
        return phi @ self.mean, phi @ self.cov @ phi.T

    def predictive(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation ``(k,)`` of a new observation at ``x``: f plus independent noise."""
        mean, cov = self.function(x)
        return mean, np.sqrt(np.diag(cov) + self.noise**2)

    @property
    def log_evidence(self) -> float:
        """log p(y).

        y = Φθ + σε is a sum of independent Normals, θ ~ N(0, D).
        So y ~ N(0, K) with K = Φ D Φᵀ + σ² I.
        Its log density at the data is the evidence.
        """
        phi = with_ones(self.x)
        cov = phi @ np.diag(self.prior_sd**2) @ phi.T + self.noise**2 * np.eye(len(self.y))
        return float(stats.multivariate_normal(np.zeros(len(self.y)), cov).logpdf(self.y))

    def log_density(self, theta: np.ndarray) -> float:
        """log p(θ | y), normalised; with it, log p(θ, y) − log p(θ | y) = log p(y) at any θ."""
        return float(stats.multivariate_normal(self.mean, self.cov).logpdf(theta))


def with_ones(x: np.ndarray) -> np.ndarray:
    """``[x, 1]``."""
    return np.column_stack([x, np.ones(len(x))])


def sgd_law(linear: LinearPosterior, rate: float, momentum: float, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean ``(d + 1,)`` and covariance of (w, b) at the ends of epochs of SGD on minus the log posterior per row.

    With n rows and batches B of b rows, the gradient is A_B θ − c_B, with A_B = (P + (n/b) Φ_BᵀΦ_B / σ²) / n and
    c_B = Φ_Bᵀ y_B / (b σ²). A step is v ← μ v + A_B θ − c_B, θ ← θ − r v: linear in u = (θ, v). So is an epoch over the
    batches of a random order of the rows, u ← M u + e, where epochs are independent. Stationary, the first two moments
    obey m = E[M] m + E[e] and S = E[(M u + e)(M u + e)ᵀ] = E[M S Mᵀ] + E[M m eᵀ] + E[e mᵀ Mᵀ] + E[e eᵀ], a Lyapunov
    equation, linear in S. Expectations are over all orders, one by one.
    """
    phi, rows = with_ones(linear.x), len(linear.y)
    size = phi.shape[1]
    eye = np.eye(size)
    maps, offsets = [], []
    for order in itertools.permutations(range(rows)):
        whole, offset = np.eye(2 * size), np.zeros(2 * size)
        for begin in range(0, rows - batch_size + 1, batch_size):
            part = list(order[begin : begin + batch_size])
            a = np.diag(linear.prior_sd**-2.0) / rows + phi[part].T @ phi[part] / (batch_size * linear.noise**2)
            c = phi[part].T @ linear.y[part] / (batch_size * linear.noise**2)
            step = np.block([[eye - rate * a, -rate * momentum * eye], [a, momentum * eye]])
            whole, offset = step @ whole, step @ offset + np.concatenate([rate * c, -c])
        maps.append(whole)
        offsets.append(offset)
    m, e = np.array(maps), np.array(offsets)
    mean = np.linalg.solve(np.eye(2 * size) - m.mean(0), e.mean(0))
    cross = np.einsum("kij,j,kl->il", m, mean, e) / len(m)
    constant = cross + cross.T + e.T @ e / len(m)
    twice = np.einsum("kij,klm->iljm", m, m).reshape(4 * size**2, 4 * size**2) / len(m)
    second = np.linalg.solve(np.eye(4 * size**2) - twice, constant.ravel()).reshape(2 * size, 2 * size)
    return mean[:size], (second - np.outer(mean, mean))[:size, :size]


def relu_kernel(x: np.ndarray, depth: int, weight_scale: float, bias_scale: float) -> np.ndarray:
    """Prior covariance ``(k, k)`` of f at ``x (k, d)`` of an infinitely wide ReLU network of ``depth`` hidden layers.

    Weights have variance weight_scale² / inputs and biases bias_scale², so pre-activations of the first layer have
    covariance K⁰(x, x') = s_b² + s_w² x·x'/d; wide layers average over units, so each next one has
    K^{l+1} = s_b² + s_w² E[relu(u) relu(v)] with (u, v) ~ N(0, K^l) (Lee 2018, equation 4), where
    E[relu(u) relu(v)] = √(K_uu K_vv) (sin t + (π − t) cos t) / 2π and cos t is their correlation (Cho & Saul 2009, J₁).
    """
    kernel = bias_scale**2 + weight_scale**2 * x @ x.T / x.shape[1]
    for _ in range(depth):
        sd = np.sqrt(np.diag(kernel))
        cosine = np.clip(kernel / np.outer(sd, sd), -1, 1)
        angle = np.arccos(cosine)
        both = np.outer(sd, sd) * (np.sin(angle) + (math.pi - angle) * cosine) / (2 * math.pi)
        kernel = bias_scale**2 + weight_scale**2 * both
    return kernel


@dataclass(frozen=True, eq=False)
class LangevinLaw:
    """Exact laws of Langevin chains on a linear model whose gradient is that of a batch drawn with replacement.

    With x_k a drawn row (a 1 appended), the gradient of the potential is Â z − v̂, Â = Λ0 + n/b Σ_k x_k x_kᵀ/σ²: a
    random matrix, anew every step. Everything is exact, for a step of any length: the second moments of a linear
    recursion with independent random matrices obey a linear equation, solved here as it stands.
    """

    linear: LinearPosterior
    batch_size: int | None
    temperature: float = 1.0
    scale: np.ndarray | None = None  # root of a diagonal preconditioner
    centre: np.ndarray | None = None  # of control variates

    @property
    def _root(self) -> np.ndarray:
        return np.diag(np.ones(len(self.linear.mean)) if self.scale is None else self.scale)

    @property
    def _hessian(self) -> np.ndarray:
        return self._root @ self.linear.precision @ self._root

    def _square(self) -> np.ndarray:
        """E[Â ⊗ Â] in preconditioned coordinates."""
        whole = self._hessian
        return np.kron(whole, whole) + self.spread_of_matrices()

    def spread_of_matrices(self) -> np.ndarray:
        """E[Â ⊗ Â] less E[Â] ⊗ E[Â]."""
        if self.batch_size is None:
            return np.zeros(2 * (len(self._hessian) ** 2,))
        x = with_ones(self.linear.x) @ self._root / self.linear.noise
        each = np.einsum("ni,nj->nij", x, x)
        n = len(x)
        second = sum(np.kron(a, a) for a in each) / n - np.kron(each.mean(0), each.mean(0))
        return n**2 / self.batch_size * second

    def noise(self) -> np.ndarray:
        """Covariance of the gradient's estimate at the posterior mean, in preconditioned coordinates."""
        p = len(self._hessian)
        if self.batch_size is None:
            return np.zeros((p, p))
        if self.centre is not None:
            off = np.linalg.solve(self._root, self.linear.mean - self.centre)
            return (self.spread_of_matrices() @ np.kron(off, off)).reshape(p, p)
        x = with_ones(self.linear.x)
        slopes = x * ((x @ self.linear.mean - self.linear.y) / self.linear.noise**2)[:, None] @ self._root
        return len(x) ** 2 / self.batch_size * np.cov(slopes.T, bias=True).reshape(p, p)

    def overdamped(self, h: float) -> np.ndarray:
        """Stationary covariance of z ← z − h/2 G ĝ + √(h T G) ξ."""
        p = len(self._hessian)
        one = np.eye(p)
        move = np.eye(p**2) - h / 2 * (np.kron(one, self._hessian) + np.kron(self._hessian, one))
        move += h**2 / 4 * self._square()
        added = h * self.temperature * one + h**2 / 4 * self.noise()
        found = np.linalg.solve(np.eye(p**2) - move, added.reshape(-1)).reshape(p, p)
        return self._root @ found @ self._root

    def underdamped(self, h: float, friction: float, excess: np.ndarray | None = None) -> np.ndarray:
        """Stationary covariance of z under BAOAB, from the middle of one kick to that of the next."""
        p = len(self._hessian)
        one, none = np.eye(p), np.zeros((p, p))
        kept = np.exp(-friction * h)
        variance = (1 - kept**2) * self.temperature * np.ones(p)
        if excess is not None:
            variance = variance - h**2 * np.diag(self._root) ** 2 * excess
        drift = np.block([[one, h / 2 * (1 + kept) * one], [none, kept * one]])
        injected = np.vstack([h / 2 * one, one]) @ np.diag(variance) @ np.hstack([h / 2 * one, one])
        # The kick (z, m) ← (z, m − h Â z) is I − h E(Â), with E putting Â where z moves m.
        size = 2 * p

        def lift(square: np.ndarray) -> np.ndarray:
            """From A ⊗ A to E(A) ⊗ E(A)."""
            found = np.zeros((size, size, size, size))
            found[p:, p:, :p, :p] = square.reshape(p, p, p, p)
            return found.reshape(size**2, size**2)

        mean_kick = np.block([[none, none], [self._hessian, none]])
        whole = np.eye(size)
        kick = np.eye(size**2) - h * (np.kron(whole, mean_kick) + np.kron(mean_kick, whole))
        kick += h**2 * lift(self._square())
        added = np.zeros((size, size))
        added[p:, p:] = h**2 * self.noise()
        move = kick @ np.kron(drift, drift)
        right = kick @ injected.reshape(-1) + added.reshape(-1)
        found = np.linalg.solve(np.eye(size**2) - move, right).reshape(size, size)[:p, :p]
        return self._root @ found @ self._root
