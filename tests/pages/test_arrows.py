"""Imports point down: a module imports only what stands below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "bnn_zoo"

# From the bottom up. `reports` stands above `posterior`, whose doors into it (diagnose, report, evaluate) import late.
FLOORS = [
    "errors", "paths", "inputs", "downloads", "uci", "dataset", "datasets", "streams", "encoding", "engine", "registry",
    "models", "probes", "kept", "prediction", "components", "posterior", "tree", "methods", "estimating",
    "priors", "infinite", "reports", "keeping", "fitting", "distilling", "estimator",
    "shell", "__main__", "__init__",
]  # fmt: skip
ENGINE = [
    "identity", "resources", "blas", "architecture", "taps", "keys", "layout", "likelihood", "normals",
    "density", "disk_cache", "compiled", "checks", "journal", "hosts", "kept", "groups", "context", "teams",
    "places", "draws", "scaling", "windows", "mixture", "simplex", "predictive", "iterates", "tasks",
    "schedules", "climbing", "training", "starts", "shares", "chains", "weights", "gaussian", "curvature",
    "linearized", "activations", "propagation", "moments", "wide", "process",
]  # fmt: skip
FILES = sorted(ROOT.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Modules of this package that ``path`` imports at the top: not inside functions, not for types alone."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bnn_zoo"):
            found |= {node.module} if node.module != "bnn_zoo" else set()
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("bnn_zoo")}
    return found


def test_every_room_has_a_floor():
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES}
    assert rooms == set(FLOORS)
    assert {path.stem for path in (ROOT / "engine").glob("*.py")} - {"__init__"} == set(ENGINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_arrow_points_up(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for module in imported(path):
        parts = module.split(".")
        if len(parts) < 2 or parts[1] not in FLOORS:
            continue  # `from bnn_zoo import fit` and the like: names of the front door
        assert FLOORS.index(parts[1]) <= FLOORS.index(room), f"{path.name} imports {module} from above"
        if room == "engine" and parts[1] == "engine" and len(parts) > 2 and parts[2] in ENGINE:
            assert ENGINE.index(parts[2]) < ENGINE.index(path.stem), f"{path.name} imports {module} from above"
