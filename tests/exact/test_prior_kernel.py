"""A wide network's prior is a Gaussian process whose kernel is known: that of Cho & Saul (2009), layer by layer.

Tolerances are 4 standard errors of the estimated covariance, plus a finite-width allowance where there is one.
"""

from __future__ import annotations

import numpy as np
import oracles
import pytest

import bnn_zoo as zoo

# No symmetry: three inputs of unequal lengths and angles, scales unlike each other.
X = np.array([[1.0, 0.3, -0.5], [-0.4, 2.0, 0.7], [0.1, 0.2, 0.1], [2.0, -1.0, 1.5]])
WEIGHT_SCALE, BIAS_SCALE = 1.6, 0.7
NUM_DRAWS = 6000
NUM_ERRORS = 4


def covariance_errors(functions: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of the second moments of ``functions (N, k)`` from ``kernel (k, k)``, and their standard errors.

    Of a Gaussian, f_i f_j has variance K_ii K_jj + K_ij² (Isserlis), and its mean over N draws 1/N of that.
    """
    found = functions.T @ functions / len(functions)
    variance = np.outer(np.diag(kernel), np.diag(kernel)) + kernel**2
    return np.abs(found - kernel), np.sqrt(variance / len(functions))


@pytest.mark.parametrize(("depth", "width"), [(1, 512), (2, 256)])
def test_prior_functions_have_the_arc_cosine_covariance(depth, width):
    """Fails if fan-in scaling is left out of a layer, or applied to a bias."""
    model = zoo.models.MLP(hidden=(width,) * depth, weight_scale=WEIGHT_SCALE, bias_scale=BIAS_SCALE, noise=0.1)
    functions = zoo.priors.sample_functions(model, X, NUM_DRAWS, seed=0).astype(float)
    assert functions.shape == (NUM_DRAWS, len(X))
    kernel = oracles.relu_kernel(X, depth, WEIGHT_SCALE, BIAS_SCALE)
    off, error = covariance_errors(functions, kernel)
    # One hidden layer: the covariance is the kernel at any width. Two: it is the mean of the next kernel, a curved
    # function of the first layer's own covariance, whose relative variance is of the order of 1 / width.
    allowance = (depth - 1) * np.sqrt(np.outer(np.diag(kernel), np.diag(kernel))) / width
    assert (off < NUM_ERRORS * error + allowance).all(), (off - allowance) / error
    # The means are zero, with variances K_ii / N.
    assert (np.abs(functions.mean(0)) < NUM_ERRORS * np.sqrt(np.diag(kernel) / NUM_DRAWS)).all()
