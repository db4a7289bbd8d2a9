"""README and CONTRIBUTING: their code runs, and their tables are the registries' and the benchmarks'."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import bnn_zoo as zoo
from tests.benchmarks import readme

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def code(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def worked(name: str) -> str:
    return re.search(rf"<!-- test: {name} -->\n```python\n(.*?)```", CONTRIBUTING, flags=re.DOTALL)[1]


def as_markdown(table) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += [
        "| " + " | ".join(f"`{v}`" if c in ("name", "class") else str(v) for c, v in row.items()) + " |"
        for _, row in table.iterrows()
    ]
    return "\n".join(lines)


@pytest.mark.parametrize("registry", [zoo.models, zoo.methods], ids=["models", "methods"])
def test_the_readme_shows_the_registry(registry):
    name = registry.__name__.split(".")[-1]
    shown = re.search(rf"<!-- table: {name} -->\n(.*?)\n<!-- end -->", README, flags=re.DOTALL)[1]
    assert shown == as_markdown(registry.table()), f"paste the new table:\n{as_markdown(registry.table())}"


@pytest.mark.parametrize("name", ["bench", "two_minutes"])
def test_the_readme_shows_what_was_measured(name):
    """And nothing else: a number changed by hand, or a file committed without its table, fails."""
    assert f"<!-- table: {name} -->\n" in README
    assert readme.put(name, readme.tables()[name], README) == README, "run python -m tests.benchmarks.readme"
    assert readme.put(name, "another", README) != README


def test_the_readme_code_runs_as_written(tmp_path, monkeypatch, capsys):
    """With fewer draws and steps, and without a download: these are the only edits made."""
    monkeypatch.chdir(tmp_path)
    first, data, search, second = code(README)
    quick = "zoo.methods.NUTS(num_warmup=50, num_samples=50, num_chains=2, max_tree_depth=4)"
    assert '"nuts"' in first and "zoo.methods.NUTS(num_samples=500)" in second and 'method="map"' in search
    scope: dict = {}
    exec(first.replace('"nuts"', quick), scope)
    exec(data.replace('train, test = zoo.datasets.load("yacht", split=3)', ""), scope)
    exec(search.replace('"map"', "zoo.methods.MAP(num_steps=50, num_restarts=1, polish_steps=0)"), scope)
    assert scope["std"].shape == scope["mean"].shape == scope["test"].y.shape
    exec(second.replace("zoo.methods.NUTS(num_samples=500)", quick), scope)
    printed = capsys.readouterr().out
    assert "rmse" in printed and "Diagnosis" in printed
    assert (tmp_path / "diabetes.html").stat().st_size > 10_000
    assert set(scope["posterior"].draws) == {"w", "scale"}


def test_the_worked_model_fits_and_adds_a_line():
    """Its linear part has a wide prior, so a steep line is fitted that the network's narrow prior cannot reach."""
    scope: dict = {}
    exec(worked("model"), scope)
    x = np.linspace(-1, 1, 40)[:, None]
    y = 30 * x[:, 0]
    model = scope["SkipMLP"](hidden=(5,), weight_scale=0.1, linear_scale=50.0, noise=0.1)
    posterior = zoo.fit(model, zoo.methods.MAP(num_restarts=2), (x, y), progress=False)
    assert model == scope["SkipMLP"](hidden=(5,), weight_scale=0.1, linear_scale=50.0, noise=0.1)
    assert np.abs(posterior.predict(x).mean - y).max() < 0.1


def test_the_worked_method_samples_the_exact_posterior():
    """One weight, known in closed form: mean within 5 Monte Carlo standard errors, and it can be continued."""
    from bnn_zoo.reports.mixing import chain_diagnostics

    scope: dict = {}
    exec(worked("method"), scope)
    x, y = np.ones((8, 1)), np.full(8, 3.0)
    model = zoo.models.Linear(weight_scale=2.0, bias_scale=1.0, noise=1.5)
    posterior = zoo.fit(model, scope["Barker"](num_samples=2000), (x, y), standardize=False, progress=False)
    posterior = posterior.resume(500, progress=False)
    f = posterior.function_draws(x[:1])
    assert f.shape == (4, 2500, 1)
    prior, noise = 2.0**2 + 1.0, 1.5**2 / 8  # f = w + b, seen through the mean of eight observations
    mean, sd = 3.0 * prior / (prior + noise), np.sqrt(prior * noise / (prior + noise))
    error = sd / np.sqrt(chain_diagnostics(f)["ess_bulk"][0])
    assert abs(f.mean() - mean) < 5 * error


def test_the_profiling_notes_run(tmp_path, monkeypatch, capsys):
    """Here on a fit that takes no time; a trace is written where the notes say that it is."""
    monkeypatch.chdir(tmp_path)
    x, y = np.linspace(-1, 1, 40).reshape(20, 2), np.arange(20.0)
    model, method = zoo.models.Linear(), zoo.methods.MAP(num_steps=20, num_restarts=1, polish_steps=0)
    posterior = zoo.fit(model, method, (x, y), progress=False)
    scope: dict = {"zoo": zoo, "x": x, "y": y, "model": model, "method": method, "posterior": posterior}
    exec(worked("program"), scope)
    printed = capsys.readouterr().out
    assert "flops" in printed and "HloModule" in printed
    exec(worked("trace"), scope)
    assert len(list(tmp_path.glob("trace/plugins/profile/*/perfetto_trace.json.gz"))) == 1
