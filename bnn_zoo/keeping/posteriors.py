"""``posterior.save(path)`` and ``zoo.load(path)``."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bnn_zoo import methods, models
from bnn_zoo.datasets import Dataset
from bnn_zoo.engine import chains, curvature
from bnn_zoo.engine.checks import join
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import ZooError, bad_value
from bnn_zoo.keeping import recipe, sealed
from bnn_zoo.kept import IN_MEMORY, Kept
from bnn_zoo.models.student import Student
from bnn_zoo.paths import as_path, writable_file
from bnn_zoo.posterior import ROWS, Posterior, Timing

log = logging.getLogger("bnn_zoo")

KINDS = ("markov", "independent", "members")
GROUP = "bnn_zoo"
MOST_POINTWISE = 50_000_000


def save(posterior: Posterior, path: Any, *, pointwise: bool | None = None) -> Path:
    """Write ``posterior`` to one file; see `bnn_zoo.posterior.Posterior.save`."""
    import xarray as xr

    from bnn_zoo.tree import build

    target = writable_file(path, "posterior.nc")
    numbers = posterior.result.positions.shape[0] * posterior.num_draws * posterior.data.num_rows
    if pointwise is None:
        pointwise = numbers <= MOST_POINTWISE
        if not pointwise:
            log.warning("log likelihood and predictive draws (%d numbers each) are not saved; pointwise=True", numbers)
    tree = build(posterior, pointwise=pointwise)
    inner, info = _inner_arrays(posterior)
    dims = {name: tuple(f"{name}_{axis}" for axis in range(value.ndim)) for name, value in inner.items()}
    tree[GROUP] = xr.DataTree(xr.Dataset({name: (dims[name], value) for name, value in inner.items()}))
    paths = {name: f"/{GROUP}/{name}" for name in inner}
    paths |= {f"stats/{name}": f"/sample_stats/{name}" for name in posterior.stats}
    header = _header(posterior, info)
    tree.attrs["bnn_zoo_format"] = sealed.VERSION
    sealed.write(target, tree, paths, header)
    return target


def load(path: Any, *, model: Any = None, method: Any = None) -> Posterior:
    """Read a posterior that `Posterior.save` wrote.

    Nothing in the file is executed: the model and the method are rebuilt from the names and settings written there,
    and every array is checked against them. Predictions, diagnosis and `resume` go on as if it had never left.

    Parameters
    ----------
    path : str or path-like
        The file.
    model : Callable, optional
        Your own NumPyro model, where the posterior is of one: functions are not saved.
    method : object, optional
        Likewise a method that is not the zoo's own.

    Raises
    ------
    ZooTypeError, ZooValueError
        If the file is missing, cut short, changed, newer, of another kind, or of another model than the one given.
    """
    target = as_path(path)
    contents = sealed.read(target)
    shown = repr(str(target))
    try:
        return _rebuild(contents, shown, model, method)
    except ZooError:
        raise
    except Exception as error:  # whatever a hostile header makes go wrong is the file's fault
        raise sealed.damaged(shown, f"{type(error).__name__}: {str(error)[:200]}") from error


def to_bytes(posterior: Posterior) -> bytes:
    """Return the file as bytes (for pickles of estimators)."""
    with tempfile.TemporaryDirectory() as folder:
        return save(posterior, Path(folder) / "posterior.nc", pointwise=False).read_bytes()


def from_bytes(data: bytes, *, model: Any = None, method: Any = None) -> Posterior:
    """Read what `to_bytes` gave."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "posterior.nc"
        path.write_bytes(data)
        return load(path, model=model, method=method)


# --- writing --------------------------------------------------------------------------------------------------------


def _inner_arrays(posterior: Posterior) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays that only `load` needs, and the facts about the run that are no arrays."""
    arrays = {
        "positions": posterior.result.positions,
        "x": posterior.data.x,
        "y": posterior.data.y,
        "x_centre": posterior.scaling.x_centre,
        "x_scale": posterior.scaling.x_scale,
    }
    if posterior.kept.inputs is not None:
        arrays["kept_inputs"] = posterior.kept.inputs
    info: dict[str, Any] = {}
    for name, value in posterior.result.info.items():
        if isinstance(value, (str, bool, int, float)):
            info[name] = recipe.pack(value)
        else:
            arrays[f"info_{name}"] = np.asarray(value)
    state = posterior.result.state
    if state is not None:
        leaves = recipe.arrays_of(jax.tree.leaves(state.groups))
        arrays |= {f"state_{i}": leaf for i, leaf in enumerate(leaves)}
    return arrays, info


def _header(posterior: Posterior, info: dict[str, Any]) -> dict[str, Any]:
    data, state = posterior.data, posterior.result.state
    return {
        "model": recipe.written(posterior.model),
        "method": recipe.written(posterior.method),
        "model_name": posterior.model_name,
        "method_name": posterior.method_name,
        "kind": posterior.kind,
        "complete": posterior.complete,
        "gradients": posterior.result.gradients,
        "info": info,
        "plan": None if state is None else dataclasses.asdict(state.plan),
        "data": {
            "feature_names": list(data.feature_names),
            "target_name": data.target_name,
            "name": data.name,
        },
        "y_centre": recipe.pack(float(posterior.scaling.y_centre)),
        "y_scale": recipe.pack(float(posterior.scaling.y_scale)),
        "seed": posterior.seed,
        "standardize": posterior.standardize,
        "x64": posterior.x64,
        "timing": {name: recipe.pack(value) for name, value in dataclasses.asdict(posterior.timing).items()},
        "attributes": posterior.attributes,
    }


# --- reading --------------------------------------------------------------------------------------------------------


def _rebuild(contents: sealed.Contents, shown: str, model: Any, method: Any) -> Posterior:
    header, arrays = contents.header, contents.arrays
    model = _given("model", header, model, models.registry, shown)
    method = _given("method", header, method, methods.registry, shown)
    if getattr(method, "tells_epistemic", False) and not isinstance(model, Student):
        raise ValueError("a distilled model that is no student")
    kept = header["data"]
    names = tuple(_text(name) for name in kept["feature_names"])
    data = Dataset(
        arrays["x"],
        arrays["y"],
        feature_names=names,
        target_name=_text(kept["target_name"]),
        name=_text(kept["name"]),
    )
    scaling = Scaling(arrays["x_centre"], arrays["x_scale"], _real(header["y_centre"]), _real(header["y_scale"]))
    sound = scaling.x_centre.shape == scaling.x_scale.shape == (len(names),)
    if not (sound and np.isfinite(scaling.x_centre).all() and (scaling.x_scale > 0).all() and scaling.y_scale > 0):
        raise ValueError("a scaling that cannot be")
    x64, positions = bool(header["x64"]), arrays["positions"]
    if positions.dtype != (np.float64 if x64 else np.float32) or positions.ndim != 3 or 0 in positions.shape:
        raise ValueError(f"draws of shape {positions.shape} and type {positions.dtype}")
    if not np.isfinite(positions).all() or header["kind"] not in KINDS:
        raise ValueError("draws that are not finite, or of no known kind")
    stats = {name.removeprefix("stats/"): value for name, value in arrays.items() if name.startswith("stats/")}
    if any(value.shape != positions.shape[:2] for value in stats.values()):
        raise ValueError("statistics of another shape than the draws")
    with jax.enable_x64(x64):
        inputs, targets = scaling.inputs(data.x, positions.dtype), scaling.targets(data.y, positions.dtype)
        problem = join(model, inputs, targets)
        if ROWS in header["attributes"]:
            problem = problem.standing_for(max(int(header["attributes"][ROWS]), problem.num_rows))
        width, kept = problem.size, IN_MEMORY
        if "kept_inputs" in arrays:
            kept = Kept(IN_MEMORY.keep, arrays["kept_inputs"], problem, ROWS not in header["attributes"])
            kept = kept.on_scale(scaling, positions.dtype)
            width = kept.keep.width(problem)
        if width != positions.shape[2]:
            got = f"{shown}, whose draws have {positions.shape[2]} coordinates, for a model of {width}"
            if header["model"] is not None:
                raise sealed.damaged(shown, got)
            raise bad_value("model", "the one that was fitted", got, "Pass the same model with the same settings.")
        state = _state(header["plan"], arrays, method, problem, len(positions))
        if kept is not IN_MEMORY:
            problem = kept.table(problem, data, scaling)
    info = {str(name): recipe.unpack(value) for name, value in header["info"].items()}
    info |= {name.removeprefix("info_"): value for name, value in arrays.items() if name.startswith("info_")}
    result = Draws(
        positions=positions,
        kind=header["kind"],
        stats=stats,
        info=info,
        state=state,
        gradients=int(header["gradients"]),
        complete=bool(header["complete"]),
    )
    posterior = Posterior(
        model=model,
        method=method,
        data=data,
        seed=int(header["seed"]),
        standardize=bool(header["standardize"]),
        timing=Timing(**{str(name): recipe.unpack(value) for name, value in header["timing"].items()}),
        problem=problem,
        result=result,
        scaling=scaling,
        model_name=_text(header["model_name"]),
        method_name=_text(header["method_name"]),
        x64=x64,
        attributes={_text(name): _text(value) for name, value in header["attributes"].items()},
        kept=kept,
    )
    with jax.enable_x64(x64):
        # Asked for here, so that a covariance that cannot be is found on loading and not at the first prediction.
        linearized, _ = posterior._linearized, posterior._moments
        if linearized is not None and not curvature.is_normal(problem):
            raise ValueError("a linearised network whose likelihood is not Normal")
    return posterior


def _given(argument: str, header: dict, value: Any, registry: Any, shown: str) -> Any:
    """Return the model or method of the file, or the one passed in where the file has only its name."""
    form = header[argument]
    if form is None:
        if value is None:
            got = f"{shown}, fitted with {header[f'{argument}_name']!r}, of which a file can hold only the name"
            raise bad_value(argument, "given for this file", got, f"Pass it: zoo.load(path, {argument}=...).")
        return registry.look_up(value)
    kept = recipe.unpack(form)
    if type(kept) not in recipe.classes(registry):
        raise ValueError(f"no {argument} in its place")
    if value is not None and registry.look_up(value) != kept:
        got = f"{registry.look_up(value)!r}, where {shown} holds {kept!r}"
        raise bad_value(argument, "left out, or the one that was fitted", got, "Leave it out.")
    return kept


def _state(plan: dict | None, arrays: dict[str, np.ndarray], method: Any, problem: Any, num_chains: int) -> Any:
    """Where the chains stood, its leaves checked one by one against what the method's kernel would make."""
    if plan is None:
        return None
    count = sum(name.startswith("state_") for name in arrays)
    leaves = [arrays[f"state_{i}"] for i in range(count)]
    return chains.restore(method, problem, chains.Plan(**plan), leaves, num_chains)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} where text should be")
    return value


def _real(form: Any) -> float:
    value = float(recipe.unpack(form))
    if not np.isfinite(value):
        raise ValueError("a number that is not finite")
    return value
