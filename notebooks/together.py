"""One posterior by several processes: each runs its share of the chains, and all end with all of them.

``python together.py ADDRESS COUNT NUMBER`` where you start the processes yourself; ``python together.py`` under Slurm
or Kubernetes, where JAX finds out by itself.
"""

import sys

import jax

import bnn_zoo as zoo


def make() -> dict[str, zoo.Posterior]:
    """Fit: here there is nothing to be seen of several processes."""
    model = zoo.models.MLP(hidden=(5,))
    nuts = zoo.methods.NUTS(num_warmup=10, num_samples=8, num_chains=4, max_tree_depth=5, start="ensemble")
    ensemble = zoo.methods.DeepEnsemble(num_members=5, num_steps=100, polish_steps=0)
    return {
        "nuts": zoo.fit(model, nuts, "wave", seed=2, precision="float64"),
        "ensemble": zoo.fit(model, ensemble, "wave", seed=2, precision="float64"),
    }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        address, count, number = sys.argv[1:]
        jax.distributed.initialize(address, int(count), int(number))
    else:
        jax.distributed.initialize()
    posteriors = make()
    posteriors["resumed"] = posteriors["nuts"].resume(4)
    for name, posterior in posteriors.items():
        posterior.save(f"{name}-{jax.process_index()}.nc")  # the same on each: one of them would do
