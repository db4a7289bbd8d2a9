"""Laplace agrees with laplace-torch 0.3 at the same weights: a recorded fixture, so that no test needs PyTorch.

How ``fixtures/laplace_torch.npz`` was made, by ``fixtures/make_laplace_torch.py`` with laplace-torch 0.3 (curvlinops
3.0.1, its default backend), PyTorch 2.15.0 and NumPy 2.5.5 on Python 3.12, all in float64. Forty rows of three
features, off centre and of different spreads, taken as they are; a tanh network 3-6-5-1 trained by L-BFGS on minus its
log posterior, with noise 0.3 and every weight and bias Normal(0, 1.5²), to a gradient of norm below 1e-4. Then
``Laplace(network, "regression", sigma_noise=0.3, prior_precision=1.5⁻²).fit`` on one batch of all rows. Kept for each
structure are the covariance, the variance of f at twelve new rows (``pred_type="glm"``), and
``log_marginal_likelihood()``.

Full, diagonal and last layer are of the plain network with its biases, and are the same approximation here and there.
Kronecker is not: laplace-torch gives a bias a block of its own and drops its covariance with the weights, where here
the bias is the weight of one more input, always 1 (Martens & Grosse 2015; predictive variances differ by a factor of up
to 1.3 for this network). So for "kron" laplace-torch was handed the same network written that way: layers without bias,
each with a 1 appended to its input. Its factors then are of the same matrices, biases included.

laplace-torch's evidence for a last layer has only that layer's prior in it, and there is none here; the same sum is
made below of the determinant found here.

Tolerance: 1e-9 relative, in float64; 2e-12 or better was seen.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

import bnn_zoo as zoo
from bnn_zoo.engine.training import Trained

STRUCTURES = ("full", "kron", "diag", "last_layer")
TOLERANCE = 1e-9
with np.load(Path(__file__).parent / "fixtures" / "laplace_torch.npz", allow_pickle=False) as file:
    THEIRS = dict(file)
NOISE, PRIOR_SD = float(THEIRS["noise"]), float(THEIRS["prior_sd"])


def at_their_weights(covariance: str, monkeypatch) -> zoo.Posterior:
    """Fit with the search for the mode replaced by the recorded weights; all else as for anybody."""

    def their_mode(self, problem, *_):
        z = np.empty(problem.size)
        for i, index in enumerate(layer_coordinates(problem)):
            z[index] = np.concatenate([THEIRS[f"weight_{i}"].T, THEIRS[f"bias_{i}"][None]])
        at = jax.jit(problem.log_posterior)(z)
        return Trained(z[None], np.asarray(at)[None], np.zeros(1), np.zeros((0, 1)), 0)

    monkeypatch.setattr(zoo.methods.Laplace, "_find_mode", their_mode)
    model = zoo.models.MLP(
        hidden=(6, 5), activation="tanh", weight_scale=PRIOR_SD, bias_scale=PRIOR_SD, fan_in=False, noise=NOISE
    )
    method = zoo.methods.Laplace(covariance=covariance, num_samples=2)
    data = (THEIRS["x"], THEIRS["y"])
    return zoo.fit(model, method, data, standardize=False, precision="float64", progress=False)


def layer_coordinates(problem) -> list[np.ndarray]:
    """``(inputs + 1, width)`` of each layer, the bias in the last row."""
    slots, every = {slot.name: slot for slot in problem.layout.slots}, np.arange(problem.size)
    found = []
    for i in range(3):
        w, b = slots[f"w_{i}"], slots[f"b_{i}"]
        found.append(np.concatenate([every[w.where].reshape(w.shape), every[b.where][None]]))
    return found


def in_their_order(problem, covariance: str) -> np.ndarray:
    """Our coordinate of each of laplace-torch's parameters: weights are (out, in) there, and (in, out) here."""
    layers = layer_coordinates(problem)
    if covariance == "kron":
        return np.concatenate([layer.T.reshape(-1) for layer in layers])
    layers = layers[-1:] if covariance == "last_layer" else layers
    return np.concatenate([part.T.reshape(-1) for layer in layers for part in (layer[:-1], layer[-1])])


def covariance_of(gaussian) -> np.ndarray:
    out = np.zeros((len(gaussian.mode),) * 2)
    for block in gaussian.blocks:
        root, where = block.coloured(np.eye(block.index.size)), block.index.reshape(-1)
        out[np.ix_(where, where)] = root.T @ root
    return out


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.max(np.abs(found - wanted) / np.abs(wanted).clip(np.finfo(float).tiny)))


@pytest.mark.parametrize("covariance", STRUCTURES)
def test_laplace_torch_says_the_same(covariance, monkeypatch):
    """Every covariance, relative to the two standard deviations; every predictive variance; and the evidence.

    Fails if the noise is not squared, or the bias is left out of a layer's inputs.
    """
    posterior = at_their_weights(covariance, monkeypatch)
    gaussian, theirs = posterior._linearized, THEIRS[f"{covariance}_covariance"]
    order = in_their_order(posterior.problem, covariance)
    theirs = np.diag(theirs) if theirs.ndim == 1 else theirs
    sd = np.sqrt(np.diag(theirs))
    ours = covariance_of(gaussian)[np.ix_(order, order)]
    assert np.max(np.abs(ours - theirs) / np.outer(sd, sd)) < TOLERANCE
    assert relative(np.diag(ours), sd**2) < TOLERANCE
    variance = posterior.predict(THEIRS["new"]).epistemic_std ** 2
    assert relative(variance, THEIRS[f"{covariance}_variance"]) < TOLERANCE
    if covariance == "last_layer":
        last = gaussian.mode[order]
        with jax.enable_x64(True):
            likelihood = float(posterior.problem.log_likelihood(gaussian.mode))
        volume = 0.5 * (len(last) * np.log(2 * np.pi) - gaussian.log_det)
        evidence = likelihood + stats.norm(0, PRIOR_SD).logpdf(last).sum() + volume
    else:
        evidence = posterior.log_evidence
    assert evidence == pytest.approx(float(THEIRS[f"{covariance}_evidence"]), rel=TOLERANCE)
