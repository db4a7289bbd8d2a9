"""Members in teams: the same networks as by one vectorised program, whatever their number and that of the cores."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import bnn_zoo as zoo
from bnn_zoo.engine import places, teams
from bnn_zoo.engine.teams import Teams

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(40, 2))
Y = np.sin(X[:, 0]) + 0.1 * GENERATOR.normal(size=40)
MODEL = zoo.models.MLP(hidden=(4,), activation="tanh")
# Sums over rows in another order, grown over as many steps: measured at 2e-12.
RELATIVE = 1e-9


@pytest.fixture
def cores(monkeypatch):
    def have(number: int) -> None:
        for module in (teams, places):
            monkeypatch.setattr(module, "available_cores", lambda: number)

    return have


@pytest.mark.parametrize(
    ("members", "number", "count", "size"),
    [(10, 2, 2, 5), (5, 2, 2, 3), (10, 8, 5, 2), (3, 8, 3, 1), (1, 8, 1, 1), (7, 1, 1, 7)],
)
def test_no_team_is_larger_than_it_must_be(cores, members, number, count, size):
    """More teams than cores, a team without a member, or members that wait for a team to be done."""
    cores(number)
    found = Teams.of(members)
    assert (found.count, found.size) == (count, size)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_what_is_cut_is_joined_again(count):
    """The last team's padding left in, or what is shared by all taken for members."""
    own = np.arange(15.0).reshape(5, 3)
    tree, axes = (
        {"own": {"a": own, "b": own[:, 0]}, "losses": own.T, "shared": own[:2]},
        {"own": PartitionSpec("chains"), "losses": PartitionSpec(None, "chains"), "shared": PartitionSpec()},
    )
    parts = Teams(5, count).cut(tree, axes)
    assert len(parts) == count
    assert {part["own"]["a"].shape[0] for part in parts} == {part["losses"].shape[1] for part in parts}
    jax.tree.map(np.testing.assert_array_equal, Teams(5, count).join(parts, axes), tree)


METHODS = {
    "full batches, polished": zoo.methods.DeepEnsemble(num_members=3, num_steps=30, polish_steps=5),
    "batches": zoo.methods.DeepEnsemble(num_members=5, num_steps=30, batch_size=8, polish_steps=0),
    "rows of their own": zoo.methods.DeepEnsemble(num_members=3, num_steps=30, bootstrap=True, polish_steps=0),
    "stopped early": zoo.methods.DeepEnsemble(num_members=3, num_steps=60, hold_out=0.2, patience=2, polish_steps=0),
    "moments": zoo.methods.MultiSWAG(num_modes=3, warm_steps=20, num_steps=40, collect_every=5, rank=3),
}


@pytest.mark.parametrize("name", METHODS)
def test_teams_train_the_same_networks(cores, name):
    """Batches, keys or rates of other members than a team's own, or a padded member told of."""
    cores(2)
    fits = {
        how: zoo.fit(MODEL, METHODS[name], (X, Y), chain_method=how, precision="float64", progress=False)
        for how in ("vectorized", "threads")
    }
    said = {how: fit.attributes["places"] for how, fit in fits.items()}
    assert "one vectorised program: as asked" in said["vectorized"] and "by 2 threads" in said["threads"]
    one, other = (fit.result for fit in fits.values())
    np.testing.assert_allclose(other.positions, one.positions, rtol=RELATIVE, atol=RELATIVE)
    np.testing.assert_allclose(other.info["losses"], one.info["losses"], rtol=RELATIVE, atol=RELATIVE)
    assert other.gradients == one.gradients
    for key in one.stats:
        np.testing.assert_allclose(other.stats[key], one.stats[key], rtol=RELATIVE, atol=RELATIVE)


def test_where_members_run_is_said(cores):
    cores(2)
    method = zoo.methods.DeepEnsemble(num_members=5, num_steps=5, polish_steps=0)
    posterior = zoo.fit(MODEL, method, (X, Y), progress=False)
    assert posterior.attributes["places"] == "5 members by 2 threads, 3 vectorised in each: one CPU device"
    cores(1)
    posterior = zoo.fit(MODEL, method, (X, Y), progress=False)
    assert posterior.attributes["places"] == "5 members by one vectorised program: one CPU device"


def test_an_error_in_a_team_is_raised(cores):
    """Lost in its thread, with a result of the other team alone."""

    def refuse(number: int) -> int:
        if number:
            raise RuntimeError("the second team's")
        return number

    with Teams(4, 2).at_work() as side_by_side, pytest.raises(RuntimeError, match="the second team's"):
        side_by_side(refuse, [0, 1])
