"""Compiled programs outlast a process, in a folder of our own, and JAX's settings are as their owner left them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

import bnn_zoo as zoo
from bnn_zoo.engine import compiled, disk_cache

OWNED = ("jax_compilation_cache_dir", "jax_enable_compilation_cache", *disk_cache.SETTINGS)


def settings() -> dict[str, object]:
    return {name: getattr(jax.config, name) for name in OWNED}


@pytest.fixture
def folder(tmp_path):
    """A process whose owner has said nothing about JAX's cache, and ours in a folder of this test."""
    before, known = settings(), (disk_cache._chosen, disk_cache._known)
    jax.config.update("jax_compilation_cache_dir", None)
    reset_cache()
    yield zoo.compile_cache(tmp_path / "programs")
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()
    disk_cache._chosen, disk_cache._known = known


@pytest.fixture
def hits():
    """Programs that JAX has loaded instead of compiling them."""
    seen = []

    def hear(event: str, **_: object) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            seen.append(event)

    jax.monitoring.register_event_listener(hear)
    yield seen
    jax.monitoring.unregister_event_listener(hear)


def quadratic(x):
    return jnp.sum(x**2) * 3.0


def run(x: np.ndarray) -> float:
    """Compile `quadratic` as a new process would, and call it."""
    compiled._programs.clear()
    return float(compiled.call(quadratic, (), x))


def entries(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("jit_*"))


def test_a_program_is_loaded_the_second_time_and_settings_are_put_back(folder, hits):
    before, x = settings(), np.arange(3.0)
    assert run(x) == 15.0
    (entry,) = entries(folder)
    assert entry.startswith("jit_quadratic-") and not hits
    assert settings() == before
    assert run(x) == 15.0 and len(hits) == 1


def test_what_others_compile_is_not_kept(folder):
    run(np.arange(3.0))
    jax.jit(lambda x: jnp.cos(x) + 2.0)(1.0).block_until_ready()
    assert len(entries(folder)) == 1


def test_the_owners_folder_goes_before_ours(folder, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    reset_cache()
    before = settings()
    run(np.arange(4.0))
    assert settings() == before
    assert not entries(folder) and entries(tmp_path / "theirs")


def test_a_cache_turned_off_stays_off(folder):
    jax.config.update("jax_enable_compilation_cache", False)
    reset_cache()
    run(np.arange(5.0))
    assert not entries(folder)
    jax.config.update("jax_enable_compilation_cache", True)
    reset_cache()
    assert zoo.compile_cache(False) is None
    run(np.arange(5.0))
    assert not entries(folder)


def test_a_half_written_entry_is_compiled_anew_and_replaced(folder, hits, caplog):
    x = np.arange(6.0)
    run(x)
    (path,) = folder.glob("jit_*-cache")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING, logger="bnn_zoo"):
        assert run(x) == 165.0
    assert "quadratic" in caplog.text and "compiled anew" in caplog.text
    assert not entries(folder)
    before = settings()
    run(x)  # written again
    assert run(x) == 165.0 and len(hits) == 1
    assert settings() == before


def test_an_error_of_the_program_is_its_own(folder):
    def broken():
        raise RuntimeError("not to be compiled")

    before = settings()
    with pytest.raises(RuntimeError, match="not to be compiled"):
        disk_cache.compile_kept(broken, "broken")
    assert settings() == before


def test_the_folder_does_not_grow_without_end(tmp_path):
    for age in range(8):
        path = tmp_path / f"jit_{age}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    disk_cache._tidy(tmp_path, 800)
    assert len(entries(tmp_path)) == 8
    disk_cache._tidy(tmp_path, 799)
    assert entries(tmp_path) == [f"jit_{age}" for age in range(5)]  # at most three quarters, the latest


def test_a_process_tidies_the_folder_as_it_ends(tmp_path):
    for age in range(8):
        path = tmp_path / f"jit_{age}"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    ends = f"""
import bnn_zoo as zoo
from bnn_zoo.engine import disk_cache
disk_cache.MOST_BYTES = 799
assert zoo.compile_cache({str(tmp_path / "other")!r}) and zoo.compile_cache({str(tmp_path)!r})
assert len(list(disk_cache._chosen.glob("jit_*"))) == 8
"""
    subprocess.run([sys.executable, "-c", ends], check=True, timeout=120)
    assert entries(tmp_path) == [f"jit_{age}" for age in range(5)]


def test_a_folder_that_is_a_file_is_no_folder(tmp_path, folder, caplog):
    (tmp_path / "file").write_text("")
    assert zoo.compile_cache(tmp_path / "file") is None
    assert "not kept" in caplog.text


def test_bad_argument(folder):
    with pytest.raises(TypeError, match=r"where.*folder"):
        zoo.compile_cache(3)


FIT = """
import json, jax, jax.monitoring
import numpy as np
import bnn_zoo as zoo
from bnn_zoo.engine.disk_cache import SETTINGS

seen = {"cache_hits": 0, "cache_misses": 0}
def hear(event, **_):
    name = event.rsplit("/", 1)[-1]
    if name in seen:
        seen[name] += 1
jax.monitoring.register_event_listener(hear)
before = {name: getattr(jax.config, name) for name in SETTINGS}
x = np.linspace(-1, 1, 20)[:, None]
posterior = zoo.fit(zoo.models.MLP(hidden=(3,)), zoo.methods.NUTS(num_warmup=5, num_samples=5, num_chains=2),
                    (x, x[:, 0]), progress=False)
posterior.predict(x)
unchanged = before == {name: getattr(jax.config, name) for name in SETTINGS}
print(json.dumps({**seen, "unchanged": unchanged, "draw": float(posterior.draws["noise"][1, -1])}))
"""


def in_a_new_process(**environment: str) -> dict:
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("JAX_")}
    out = subprocess.run(
        [sys.executable, "-c", FIT], env={**kept, **environment}, capture_output=True, text=True, check=False
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


def test_a_second_process_compiles_nothing(tmp_path):
    """On by default in the user's cache folder: every program of a fit and its prediction is found there again."""
    first = in_a_new_process(XDG_CACHE_HOME=str(tmp_path))
    again = in_a_new_process(XDG_CACHE_HOME=str(tmp_path))
    assert first["cache_misses"] > 3 and first["cache_hits"] == 0
    assert again["cache_misses"] == 0 and again["cache_hits"] == first["cache_misses"]
    assert again["draw"] == first["draw"]
    assert first["unchanged"] and again["unchanged"]
    assert (tmp_path / "bnn_zoo" / "compiled").stat().st_mode & 0o077 == 0


def test_the_switch_in_the_environment(tmp_path):
    found = in_a_new_process(XDG_CACHE_HOME=str(tmp_path), BNN_ZOO_COMPILE_CACHE="off")
    assert found["cache_misses"] == found["cache_hits"] == 0
    assert not any(tmp_path.rglob("jit_*"))
