"""``zoo.fit``: look names up, check, scale, run, wrap."""

from __future__ import annotations

import logging
import platform
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from bnn_zoo import methods, models
from bnn_zoo.datasets import Dataset, as_dataset
from bnn_zoo.engine import hosts
from bnn_zoo.engine.checks import join
from bnn_zoo.engine.compiled import Request
from bnn_zoo.engine.context import CHAIN_METHODS, PROGRESS, Context
from bnn_zoo.engine.density import Problem
from bnn_zoo.engine.draws import Draws
from bnn_zoo.engine.journal import Journal
from bnn_zoo.engine.keys import seed_key
from bnn_zoo.engine.places import check_mesh
from bnn_zoo.engine.predictive import pieces
from bnn_zoo.engine.scaling import Scaling
from bnn_zoo.errors import bad_type, bad_value, check_choice
from bnn_zoo.estimating import within_memory
from bnn_zoo.kept import IN_MEMORY, Kept, as_kept, sampled
from bnn_zoo.paths import as_path
from bnn_zoo.posterior import ROWS, STREAM, Posterior, Timing, windowed
from bnn_zoo.streams import MOST_NUMBERS, Stream, as_stream

log = logging.getLogger("bnn_zoo")

DEFAULT_DATA = "diabetes"
SAME = ("model", "method", "data", "seed", "standardize", "precision")  # in all processes that share a fit
LIBRARIES = ("jax", "numpyro", "blackjax", "optax", "numpy", "arviz")


def fit(
    model: Any,
    method: Any,
    data: Any = None,
    *,
    seed: int = 0,
    standardize: bool | None = None,
    progress: bool | str = True,
    chain_method: str = "auto",
    precision: str | None = None,
    checkpoint: Any = None,
    mesh: Any = None,
    processes: str = "together",
    keep: Any = "weights",
    at: Any = None,
) -> Posterior:
    """Fit ``model`` to ``data`` by ``method``.

    Parameters
    ----------
    model : str or Callable
        A registered name, a `bnn_zoo.models` object, or any NumPyro callable ``model(x, y=None)`` with one observed
        site and global latents.
    method : str or object
        A registered name or a `bnn_zoo.methods` object.
    data : Dataset, pair, str or Stream
        A `Dataset`, a pair ``(x, y)`` of shapes ``(n, d)`` and ``(n,)``, or the name of a data set. ``None`` takes
        ``"diabetes"``. Rows stay on disk where ``x`` is a `numpy.memmap`, a Zarr array or an h5py dataset, or both are
        iterators over blocks, and for a `bnn_zoo.Stream`: a method with a ``batch_size`` then takes its batches from a
        window of them, and the posterior's own ``data`` are 10,000 rows drawn at random. A method that needs all rows,
        or rows that fit in one window, are read into memory as ever.
    seed : int
        Repeats the draws, bit for bit, on the same machine and versions.
    standardize : bool or None
        Centre and scale x and y inside, and give everything back in original units. ``None``: yes for the zoo's own
        models, no for a foreign one, whose priors were written in its own units.
    progress : bool or str
        Show one bar for all chains, on a terminal or in a notebook; ``"always"`` also elsewhere, in a log say.
    chain_method : str
        How chains run: ``"threads"``, ``"vectorized"``, ``"sharded"``, or ``"auto"``, which follows the devices.
        Networks that are trained side by side are sharded over devices likewise; on one CPU they go in teams, a thread
        and a core each, vectorised in each team, or, with ``"vectorized"`` and on one GPU, all in one.
    precision : str or None
        ``"float32"`` or ``"float64"``, for this fit alone; ``None`` follows JAX's own setting.
    checkpoint : str, path-like or None
        A folder in which the fit writes down, about every second, how far it has come. Killed at any moment and called
        again with the same arguments, it goes on from there and ends in the same draws, bit for bit; called again when
        done, it gives them at once. Of several processes each has a folder in it.
    mesh : jax.sharding.Mesh or None
        Devices of this process to run on. Chains, members, modes and cycles are spread over its axis ``"chains"``, as
        many devices of it as share them evenly; rows over its axis ``"data"``, if it has one, by a method that takes
        all of them at once. ``None``: all local devices, of which those that chains leave over share the rows where
        these are 65,536 or more. Draws do not depend on it but for rounding. Where a fit ran, and why, is logged, and
        an attribute ``places`` of ``idata``.
    processes : str
        Where `jax.distributed.initialize` has joined several processes, and all of them make this fit: ``"together"``
        has each run its share of the chains or members on its own devices, and all return the posterior that one
        process would have made; ``"alone"`` has this one run all of them.
    keep : str or pathlib.Path
        What to keep of the draws of chains, and where. ``"weights"``: all of them, in memory. A folder, as a
        `pathlib.Path`: all of them in a file there, ``draws-000.npy``, as they come, from which the posterior reads
        what it needs; an earlier fit's file is left and another made, and processes that share a fit must share the
        folder. ``"functions"``: for networks too wide for either, what they say at chosen inputs, ``at`` among them,
        and scalar sites, with running means and sds of the weights (`Posterior.site_moments`); predictions, scores and
        the diagnosis are then to be had at these inputs alone.
    at : array-like, optional
        Inputs ``(K, d)`` whose functions are kept with ``keep="functions"``, beside those of up to 1,000 training rows
        and those that a diagnosis looks at.

    Returns
    -------
    Posterior
        Draws, predictions, scores and verdict.

    Raises
    ------
    ZooTypeError, ZooValueError
        Before any work is done, naming the argument, what was wrong, and the mend.
    ProcessError
        If another of the processes that share the fit failed.
    """
    key = seed_key(seed)
    check_choice("progress", progress, PROGRESS)
    check_choice("chain_method", chain_method, CHAIN_METHODS)
    check_choice("processes", processes, ("together", "alone"))
    mesh, together = check_mesh(mesh, chain_method), hosts.present() if processes == "together" else None
    ready = prepared(model, method, data, standardize, precision, keep, at)
    dataset, stream, scaling, kept = ready.dataset, ready.stream, ready.scaling, ready.kept
    size = ready.rows, dataset.num_features
    log.info("fitting %s by %s to %s (%d rows, %d features), seed %d", *ready.names, dataset.name, *size, seed)
    with jax.enable_x64(ready.x64):
        problem = ready.problem()
        whole = problem if stream is None else windowed(problem, stream, scaling, seed)
        # First of all: a checkpoint is of the method that runs, and so is what processes agree on.
        method = within_memory(ready.method, ready.names[1], problem, kept.keep)
    attributes = provenance(ready.model, method, dataset.name, seed, ready.standardize, ready.x64)
    if stream is not None:
        attributes |= {ROWS: str(ready.rows), STREAM: f"{stream!r}; SHA-256 {stream.summary.sha256[:16]}"}
    if kept is not IN_MEMORY:
        attributes |= {"keep": str(kept)}
    digest = dataset.sha256 if stream is None else stream.summary.sha256
    journal = None if checkpoint is None else open_journal(checkpoint, attributes, digest, chain_method, together)
    shown = progress if together is None or together.rank == 0 else False
    context = Context(
        shown, chain_method, journal=journal, mesh=mesh, hosts=together, keep=kept.keep, ahead=_look_ahead(problem)
    )
    same = {name: attributes[name] for name in SAME} | {"chain_method": chain_method, "sha256 of the data": digest}
    with shared(together, same), jax.enable_x64(ready.x64), context.watch.running():
        result = method.run(whole, key, context)
    with jax.enable_x64(ready.x64):
        _look_at_prior(
            problem, *context.ahead
        )  # now, as a method refuses what it cannot fit before anything is compiled
        if kept.inputs is not None:
            dataset = sampled(dataset)
            attributes |= {ROWS: str(ready.rows)} if len(dataset) < ready.rows else {}
            kept, problem = replace(kept, behind=whole), kept.table(problem, dataset, scaling)
    result = finite_part(problem, result)
    if not result.complete:
        log.warning("%s: the posterior holds the %d draws a chain made until then", *stopped(result))
    return Posterior(
        model=ready.model,
        method=method,
        data=dataset,
        seed=int(seed),
        standardize=ready.standardize,
        timing=Timing(context.watch.compile_seconds, context.watch.run_seconds, result.gradients),
        problem=problem,
        result=result,
        scaling=scaling,
        model_name=ready.names[0],
        method_name=ready.names[1],
        x64=ready.x64,
        attributes=attributes | ({"places": "; ".join(context.told)} if context.told else {}),
        stream=stream,
        kept=kept,
    )


@dataclass(frozen=True, eq=False)
class Ready:
    """Arguments of a fit, looked up and checked.

    Attributes
    ----------
    model, method : object
        Looked up.
    names : tuple of str
        What the two are called.
    dataset : Dataset
        The data, or a sample of those of ``stream``.
    stream : Stream, optional
        Rows that stay on disk.
    scaling : Scaling
        From the user's units to the model's, if ``standardize``.
    x64 : bool
        Whether to compute in float64.
    kept : Kept
        What to keep of the draws.
    """

    model: Any
    method: Any
    names: tuple[str, str]
    dataset: Dataset
    stream: Stream | None
    standardize: bool
    scaling: Scaling
    x64: bool
    kept: Kept

    @property
    def rows(self) -> int:
        """Number of rows that are fitted."""
        return self.dataset.num_rows if self.stream is None else self.stream.num_rows

    def problem(self) -> Problem:
        """Return model and data, joined; call it in the right precision."""
        dtype = np.float64 if self.x64 else np.float32
        inputs, targets = self.scaling.inputs(self.dataset.x, dtype), self.scaling.targets(self.dataset.y, dtype)
        problem = join(self.model, inputs, targets)
        return problem if self.stream is None else problem.standing_for(self.rows)


def prepared(
    model: Any, method: Any, data: Any, standardize: bool | None, precision: str | None, keep: Any, at: Any
) -> Ready:
    """Look up and check what `fit` was given, before any work is done."""
    check_choice("precision", precision, ("float32", "float64", None))
    model, method = models.registry.look_up(model), methods.registry.look_up(method)
    if not hasattr(method, "run"):
        raise bad_type("method", "a registered name or a zoo.methods object", repr(method), "Try method='nuts'.")
    dataset, stream = gather(DEFAULT_DATA if data is None else data, method)
    own = any(entry.made(model) for entry in models.registry.entries)
    standardize = own if standardize is None else _as_bool("standardize", standardize)
    scaling = scaling_of(dataset, stream, standardize)
    names = models.registry.name_of(model), methods.registry.name_of(method)
    x64 = jax.config.jax_enable_x64 if precision is None else precision == "float64"
    kept = as_kept(keep, at, method, names[1], dataset).on_scale(scaling, np.float64 if x64 else np.float32)
    return Ready(model, method, names, dataset, stream, standardize, scaling, x64, kept)


def shared(together: hosts.Hosts | None, same: dict[str, str]) -> AbstractContextManager[None]:
    """Return what makes several processes end a block together, or not at all; nothing where there is one."""
    return nullcontext() if together is None else together.together(same)


def gather(data: Any, method: Any) -> tuple[Dataset, Stream | None]:
    """Return data in memory: all of them, or a sample beside the stream that a method is to take its batches from.

    Raises
    ------
    ZooValueError
        If the method takes all rows, and they are more than memory should hold.
    """
    stream = as_stream(data)
    if stream is None:
        return as_dataset(data), None
    if getattr(method, "streams", False) and not stream.fits:
        return stream.sample(), stream
    numbers = stream.num_rows * (stream.num_features + 1)
    if numbers > MOST_NUMBERS:
        got = f"{method!r}, which takes all {stream.num_rows:,} rows at once ({8 * numbers / 2**30:.1f} GiB)"
        mend = "Give it a batch_size where it has one; 'sgld', 'map', 'swag' and 'mean_field' do."
        raise bad_value("method", "one that takes batches, for data this large", got, mend)
    return stream.whole(), None


def scaling_of(data: Dataset, stream: Stream | None, standardize: bool) -> Scaling:
    """Return the scaling of the data, from all rows."""
    if stream is None:
        return Scaling.of(data.x, data.y, data.feature_names) if standardize else Scaling.none(data.num_features)
    seen = stream.summary  # read in any case: what is not finite is refused here
    most = np.maximum(np.abs(seen.low), np.abs(seen.high))
    scaling = Scaling.none(data.num_features)
    if standardize:
        largest = most[:-1].max(), most[-1]
        scaling = Scaling.from_moments(
            seen.mean[:-1], seen.sd[:-1], float(seen.mean[-1]), float(seen.sd[-1]), data.feature_names, largest
        )
    for edge in (seen.low, seen.high):  # refused like any other row that is too large
        scaling.inputs(edge[None, :-1], np.float32)
        scaling.targets(edge[-1:], np.float32)
    return scaling


def _look_ahead(problem: Problem) -> tuple[Request, ...]:
    """What `_look_at_prior` will call."""
    from bnn_zoo.priors.predictive import reach_request

    with suppress(Exception):  # that it cannot look is said when it does
        look = reach_request(problem)
        return () if look is None else (look,)
    return ()


def _look_at_prior(problem: Problem, look: Request | None = None) -> None:
    """Warn where the prior's functions miss the data by orders of magnitude: no method can mend that."""
    from bnn_zoo.priors.predictive import reach

    try:
        seen = reach(problem, look)
    except Exception as error:  # draws are there already, and are not lost to a look at the prior
        log.warning("the prior could not be looked at: %s", error)
        return
    if seen is not None and seen.complaint is not None:
        log.warning("%s", seen.complaint)


def finite_part(problem: Problem, result: Draws) -> Draws:
    """Return the draws before the first one that is not finite, marked incomplete; all of them, as a rule.

    Raises
    ------
    ZooValueError
        If the very first draw of a chain is not finite, naming its site.
    """
    bad = np.zeros(result.positions.shape[:2], bool)
    for chain, its in enumerate(result.positions):
        for piece in pieces(its):
            bad[chain, piece] = ~np.isfinite(its[piece]).all(-1)
    if not bad.any():
        return result
    draw = int(np.flatnonzero(bad.any(0))[0])
    chain = int(np.flatnonzero(bad[:, draw])[0])
    coordinate = int(np.flatnonzero(~np.isfinite(result.positions[chain, draw]))[0])
    site = next(s.name for s in problem.layout.slots if s.where.start <= coordinate < s.where.stop)
    reason = f"non-finite values at site {site!r} from draw {draw} of chain {chain}"
    if draw == 0 or result.kind == "members":
        trained = "start='ensemble', " if result.info.get("start") == "prior" else ""
        mend = f"Try {trained}a smaller step size, a tighter prior, or precision='float64'."
        raise bad_value("the fit", "finite", reason, mend)
    return replace(
        result,
        positions=result.positions[:, :draw],
        stats={name: value[:, :draw] for name, value in result.stats.items()},
        info={**result.info, "stopped": reason},
        state=None,
        complete=False,
    )


def stopped(result: Draws) -> tuple[str, int]:
    """Why a run ended early, and the draws a chain that it has."""
    return result.info.get("stopped", "interrupted"), result.positions.shape[1]


def open_journal(
    checkpoint: Any, attributes: dict[str, str], digest: str, chain_method: str, together: hosts.Hosts | None
) -> Journal:
    """Open the folder of a fit that is to survive being killed, of data with this SHA-256; one for each process."""
    identity = {**attributes, "sha256 of the data": digest, "chain_method": chain_method}
    folder = as_path(checkpoint, "checkpoint")
    if together is None:
        return Journal(folder, identity)
    identity["process"] = f"{together.rank} of {together.size}"
    return Journal(folder / f"process-{together.rank:03d}", identity)


def provenance(model: Any, method: Any, data: str, seed: int, standardize: bool, x64: bool) -> dict[str, str]:
    """Return what is needed to repeat a fit, as attributes that any file format can hold."""
    from bnn_zoo import __version__

    found = {
        "model": readable(model),
        "method": readable(method),
        "data": data,
        "seed": str(seed),
        "standardize": str(standardize),
        "precision": "float64" if x64 else "float32",
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
    }
    found["version_bnn_zoo"] = __version__  # of the package itself, which may run from a folder
    return found | _versions()


@cache
def _versions() -> dict[str, str]:
    """Of the libraries that draws depend on; reading one takes milliseconds."""
    return {f"version_{library}": version(library) for library in LIBRARIES}


def readable(value: Any) -> str:
    """Return an object's repr, or a function's qualified name: no address, which would differ from run to run."""
    return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else repr(value)


def _as_bool(argument: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise bad_type(argument, "True, False or None", repr(value), "None: True for the zoo's own models.")
    return bool(value)
