"""Methods: how belief is updated. One file, one method; one line here registers it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bnn_zoo.registry import Entry, Registry

if TYPE_CHECKING:
    import pandas as pd

    from bnn_zoo.methods.distillation import Distillation
    from bnn_zoo.methods.ensembles.deep import DeepEnsemble
    from bnn_zoo.methods.ensembles.map import MAP
    from bnn_zoo.methods.ensembles.swag import SWA, SWAG, MultiSWAG
    from bnn_zoo.methods.gaussian.laplace import Laplace
    from bnn_zoo.methods.mcmc.hmc import HMC
    from bnn_zoo.methods.mcmc.mclmc import MCLMC
    from bnn_zoo.methods.mcmc.metropolis import MetropolisHastings
    from bnn_zoo.methods.mcmc.nuts import NUTS
    from bnn_zoo.methods.stochastic.cyclical import CyclicalSGHMC, CyclicalSGLD
    from bnn_zoo.methods.stochastic.hmcecs import HMCECS
    from bnn_zoo.methods.stochastic.langevin import SGHMC, SGLD
    from bnn_zoo.methods.variational.deterministic import DeterministicVI
    from bnn_zoo.methods.variational.dropout import MCDropout
    from bnn_zoo.methods.variational.svgd import SVGD
    from bnn_zoo.methods.variational.vi import VI

__all__ = [
    "HMC",
    "HMCECS",
    "MAP",
    "MCLMC",
    "NUTS",
    "SGHMC",
    "SGLD",
    "SVGD",
    "SWA",
    "SWAG",
    "VI",
    "CyclicalSGHMC",
    "CyclicalSGLD",
    "DeepEnsemble",
    "DeterministicVI",
    "Distillation",
    "Laplace",
    "MCDropout",
    "MetropolisHastings",
    "MultiSWAG",
    "registry",
    "table",
]

# fmt: off
registry = Registry("method", (
    Entry("mh", "methods.mcmc.metropolis.MetropolisHastings", "Gaussian random walk, adapted to accept 0.234",
          "Metropolis 1953", "any model"),
    Entry("hmc", "methods.mcmc.hmc.HMC", "Hamiltonian trajectories of one length", "Neal 2011", "any model"),
    Entry("nuts", "methods.mcmc.nuts.NUTS", "Hamiltonian trajectories that stop when they turn",
          "Hoffman & Gelman 2014", "any model"),
    Entry("mclmc", "methods.mcmc.mclmc.MCLMC",
          "constant speed, a direction that gradients turn; from trained networks", "Robnik 2023; Sommer 2025",
          "any model of two latent coordinates or more"),
    Entry("sgld", "methods.stochastic.langevin.SGLD", "Langevin dynamics on batches, without an accept step",
          "Welling & Teh 2011", "any model"),
    Entry("sghmc", "methods.stochastic.langevin.SGHMC",
          "the same with momentum, discretised without bias on a Gaussian", "Chen 2014", "any model"),
    Entry("cyclical_sgld", "methods.stochastic.cyclical.CyclicalSGLD",
          "SGLD that leaves its mode once a cycle, in long steps", "Zhang 2020", "any model"),
    Entry("cyclical_sghmc", "methods.stochastic.cyclical.CyclicalSGHMC", "SGHMC that leaves its mode once a cycle",
          "Zhang 2020", "any model"),
    Entry("hmcecs", "methods.stochastic.hmcecs.HMCECS",
          "Hamiltonian trajectories on a subsample, with an accept step", "Dang 2019",
          "any model; a posterior narrow about one mode"),
    Entry("map", "methods.ensembles.map.MAP", "the most probable network of several restarts", "MacKay 1992",
          "any model"),
    Entry("ensemble", "methods.ensembles.deep.DeepEnsemble", "several networks, each from its own prior draw",
          "Lakshminarayanan 2017", "any model"),
    Entry("anchored_ensemble", "methods.ensembles.deep.DeepEnsemble",
          "networks pulled to their own prior draws, with noise on the targets", "Pearce 2020",
          "a Normal likelihood; Normal priors of the weights", (("anchored", True),)),
    Entry("swa", "methods.ensembles.swag.SWA", "the mean of the networks that SGD passes through", "Izmailov 2018",
          "any model"),
    Entry("swag", "methods.ensembles.swag.SWAG", "a Gaussian with the spread of SGD around that mean", "Maddox 2019",
          "any model"),
    Entry("multiswag", "methods.ensembles.swag.MultiSWAG", "a mixture of such Gaussians, one a prior draw",
          "Wilson & Izmailov 2020", "any model"),
    Entry("laplace", "methods.gaussian.laplace.Laplace", "a Gaussian at the most probable network",
          "MacKay 1992; Ritter 2018; Daxberger 2021", "a Normal likelihood; dense layers for kron and last_layer"),
    Entry("spherical", "methods.variational.vi.VI", "the nearest Normal with one sd for all weights", "Graves 2011",
          "any model", (("guide", "spherical"),)),
    Entry("mean_field", "methods.variational.vi.VI", "the nearest Normal with independent weights: Bayes by backprop",
          "Blundell 2015", "any model", (("guide", "mean_field"),)),
    Entry("layerwise", "methods.variational.vi.VI", "the nearest Normal with independent layers", "Sun 2017",
          "any model", (("guide", "layerwise"),)),
    Entry("low_rank", "methods.variational.vi.VI", "the nearest Normal of low rank plus a diagonal", "Ong 2018",
          "any model", (("guide", "low_rank"),)),
    Entry("full_rank", "methods.variational.vi.VI", "the nearest Normal", "Kucukelbir 2017", "any model",
          (("guide", "full_rank"),)),
    Entry("rank1", "methods.variational.vi.VI", "points times random factors of inputs and outputs",
          "Dusenberry 2020", "dense layers", (("guide", "rank1"),)),
    Entry("iaf", "methods.variational.vi.VI", "the nearest inverse autoregressive flow", "Kingma 2016",
          "a small model", (("guide", "iaf"),)),
    Entry("bnaf", "methods.variational.vi.VI", "the nearest block neural autoregressive flow", "De Cao 2019",
          "a small model", (("guide", "bnaf"),)),
    Entry("dvi", "methods.variational.deterministic.DeterministicVI",
          "independent Normals, fitted by moments without sampling", "Wu 2019", "a zoo model of dense layers"),
    Entry("mc_dropout", "methods.variational.dropout.MCDropout", "one network whose units are switched off at random",
          "Gal & Ghahramani 2016", "dense layers"),
    Entry("svgd", "methods.variational.svgd.SVGD",
          "particles that follow the posterior's gradient and push each other apart", "Liu & Wang 2016", "any model"),
))
# fmt: on

_WHERE = {"Distillation": "methods.distillation.Distillation"} | {e.class_name: e.where for e in registry.entries}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'bnn_zoo.methods' has no attribute {name!r}")
    module = str(_WHERE[name]).rsplit(".", 1)[0]
    return getattr(import_module(f"bnn_zoo.{module}"), name)


def __dir__() -> list[str]:
    return __all__


def table() -> pd.DataFrame:
    """Return every registered method: name, class, one line, paper, what it needs."""
    return registry.table()
