"""Methods: how belief is updated. One file, one method; one line here registers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bnn_zoo.methods.ensembles.map import MAP
from bnn_zoo.methods.mcmc.hmc import HMC
from bnn_zoo.methods.mcmc.metropolis import MetropolisHastings
from bnn_zoo.methods.mcmc.nuts import NUTS
from bnn_zoo.registry import Entry, Registry

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["HMC", "MAP", "NUTS", "MetropolisHastings", "registry", "table"]

# fmt: off
registry = Registry("method", (
    Entry("mh", MetropolisHastings, "Gaussian random walk, adapted to accept 0.234", "Metropolis 1953", "any model"),
    Entry("hmc", HMC, "Hamiltonian trajectories of one length", "Neal 2011", "any model"),
    Entry("nuts", NUTS, "Hamiltonian trajectories that stop when they turn", "Hoffman & Gelman 2014", "any model"),
    Entry("map", MAP, "the most probable network of several restarts", "MacKay 1992", "any model"),
))
# fmt: on


def table() -> pd.DataFrame:
    """Return every registered method: name, class, one line, paper, what it needs."""
    return registry.table()
