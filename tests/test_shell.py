"""The shell: every command, what goes to which stream, and exit statuses that a script can rely on."""

from __future__ import annotations

import dataclasses
import errno
import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import bnn_zoo as zoo
from bnn_zoo.__main__ import main
from bnn_zoo.encoding import Encoding
from bnn_zoo.errors import ZooError
from bnn_zoo.shell import tables
from bnn_zoo.shell.app import shell
from bnn_zoo.shell.settings import parse, settle

SHORT = ("num_warmup=5", "num_samples=6", "num_chains=2", "start=prior")
QUICK = ("--model", "linear", "--method", "nuts", *(part for key in SHORT for part in ("--set", f"method.{key}")))


def run(*args: object) -> Result:
    """One command as a shell would run it; what is not an exit is a bug, and raised."""
    return CliRunner().invoke(shell, [str(arg) for arg in args], catch_exceptions=False)


def refusal(*args: object, status: int = 2) -> str:
    """The one line on standard error of a command that is refused, with nothing on standard output."""
    result = run(*args)
    assert (result.exit_code, result.stdout) == (status, "")
    assert re.fullmatch(r"bnn-zoo: [^\n]*\n", result.stderr), result.stderr
    return result.stderr.strip()


def houses(rows: int = 60) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    area, wall = generator.uniform(50, 200, rows).round(1), generator.choice(["brick", "stone", "wood"], rows)
    price = 2 * area + 50 * (wall == "stone") + generator.normal(0, 10, rows)
    return pd.DataFrame({"id": [f"h{i}" for i in range(rows)], "area": area, "wall": wall, "price": price.round(2)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables good and bad, and two saved posteriors."""
    folder = tmp_path_factory.mktemp("shell")
    frame = houses()
    frame.to_csv(folder / "houses.csv", index=False)
    frame.to_csv(folder / "houses.tsv", index=False, sep="\t")
    frame.assign(area=frame["area"].where(frame.index != 3), wall=frame["wall"].where(frame.index != 7)).to_csv(
        folder / "holes.csv", index=False
    )
    new = frame.drop(columns="price").head(4)
    new.to_csv(folder / "new.csv", index=False)
    new.assign(wall=["brick", "wood", "straw", "wood"]).to_csv(folder / "unseen.csv", index=False)
    fit = ("fit", folder / "houses.csv", "--target", "price", "--drop", "id", *QUICK)
    assert run(*fit, "--save", folder / "one.nc", "--quiet").exit_code == 0
    assert run(*fit, "--save", folder / "two.nc", "--quiet", "--seed", 1, "--drop", "wall").exit_code == 0
    return folder


# --- tables and help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("models", zoo.models.registry.names),
        ("methods", zoo.methods.registry.names),
        ("datasets", list(zoo.datasets.table()["name"])),
    ],
)
def test_a_table_has_one_aligned_line_for_each_name(command, names):
    header, *lines = run(command).stdout.splitlines()
    assert header.startswith("name")
    assert [line.split()[0] for line in lines] == names
    second = header.index(header.split()[1])
    assert all(line[second] != " " and line[second - 1] == " " for line in lines)
    assert [row["name"] for row in json.loads(run(command, "--json").stdout)] == names


@pytest.mark.parametrize("command", [None, *shell.commands])
def test_help_has_examples(command):
    shown = run(*([command] if command else []), "--help")
    assert shown.exit_code == 0 and shown.stderr == ""
    assert "Usage: bnn-zoo" in shown.stdout
    assert command == "demo" or f"  bnn-zoo {command or 'fit'} " in shown.stdout


def test_the_settings_of_a_method_are_listed_as_they_are_set():
    assert "  method.num_samples    = 1000\n" in run("methods", "nuts").stdout
    assert json.loads(run("models", "mlp", "--json").stdout)["settings"]["hidden"] == "(50,)"
    assert "Did you mean 'nuts'" in refusal("methods", "nutz")


def test_version_and_usage():
    assert run("--version").stdout == f"bnn_zoo {zoo.__version__}\n"
    assert "the command should be given" in refusal()
    assert "Did you mean 'models'" in refusal("modles")
    assert "--methd" in (said := refusal("fit", "diabetes", "--methd", "map")) and "--method" in said
    assert "DATA should be given" in refusal("fit")
    assert "SAVED should be given" in refusal("compare", "--data", "diabetes")
    assert "--data should be given" in refusal("compare", "x.nc")
    assert "--seed should be followed by its value" in refusal("fit", "diabetes", "--seed")
    assert "unexpected extra argument (b)" in refusal("fit", "a", "b")


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_completion_script_is_printed(name):
    environment = os.environ | {"_BNN_ZOO_COMPLETE": f"{name}_source"}
    out = subprocess.run([sys.executable, "-m", "bnn_zoo"], env=environment, capture_output=True, text=True)
    assert "bnn-zoo" in out.stdout and f"{name}_complete" in out.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("bnn-zoo fit --method n", {"nuts"}),
        ("bnn-zoo fit --model ml", {"mlp"}),
        ("bnn-zoo fit diab", {"diabetes", "diab"}),  # the last one asks the shell for files
        ("bnn-zoo dia", {"diagnose"}),
        ("bnn-zoo methods ma", {"map"}),
        ("bnn-zoo datasets --export cub", {"cubic", "cub"}),
    ],
)
def test_names_are_completed(words, offered):
    environment = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1), "_BNN_ZOO_COMPLETE": "bash_complete"}
    out = CliRunner().invoke(shell, [], env=environment)
    assert {line.partition(",")[2] for line in out.stdout.splitlines()} == offered


def test_a_data_set_is_exported_as_it_is(tmp_path):
    for suffix, separator in ((".csv", ","), (".tsv", "\t")):
        path = tmp_path / f"diabetes{suffix}"
        assert str(path) in run("datasets", "--export", "diabetes", path).stdout
        frame = pd.read_csv(path, sep=separator)
        pd.testing.assert_frame_equal(frame, zoo.datasets.load("diabetes").to_frame(), check_exact=True)
    told = json.loads(run("datasets", "--export", "cubic", tmp_path / "c.csv", "--json").stdout)
    assert (told["rows"], told["target"]) == (20, "y")
    assert "Did you mean 'cubic'" in refusal("datasets", "--export", "cubik", tmp_path / "d.csv")


# --- fit --------------------------------------------------------------------------------------------------------------


def test_a_fit_tells_results_on_one_stream_and_progress_on_the_other(folder, tmp_path):
    page, save = tmp_path / "page.html", tmp_path / "fit.nc"
    command = ("fit", folder / "houses.csv", "--target", "price", "--drop", "id", *QUICK)
    result = run(*command, "--report", page, "--save", save)
    assert result.exit_code == 0
    for expected in (
        "Posterior of Linear",
        "Scores on 12 held-out rows",
        "rmse",
        " ± ",
        "Diagnosis: ",
        str(page),
        str(save),
    ):
        assert expected in result.stdout
    assert "fitting linear by nuts to houses (48 rows, 4 features), seed 0" in result.stderr
    assert "column 'wall' is a category of 3 levels: brick, stone, wood" in result.stderr
    assert "Verdict:" in page.read_text(encoding="utf-8")
    posterior = zoo.load(save)
    assert posterior.data.feature_names == ("area", "wall=brick", "wall=stone", "wall=wood")
    assert Encoding.of(posterior).columns == {"area": None, "wall": ("brick", "stone", "wood")}
    assert posterior.attributes["held_out"] == "12 of 60 rows, by --test 0.2 --seed 0"


def test_a_dry_run_tells_what_a_fit_would_take_and_makes_none(folder, monkeypatch):
    monkeypatch.setattr(zoo, "fit", lambda *_, **__: pytest.fail("it fitted"))
    args = ("fit", folder / "houses.csv", "--target", "price", "--drop", "id", *QUICK, "--dry-run")
    text, found = run(*args).stdout, json.loads(run(*args, "--json").stdout)
    assert "2 × 6" in text and "gradients  at most" in text and "on one core" in text
    assert found["draws"] == 6 and found["fits"] and found["memory_bytes"] > found["draw_bytes"] > 0


def test_a_fit_is_that_of_the_library(tmp_path):
    """The same draws as zoo.fit on the same split, so that what the shell adds changes nothing."""
    save = tmp_path / "fit.nc"
    assert run("fit", "diabetes", *QUICK, "--seed", 3, "--test", 0.5, "--save", save, "--quiet").exit_code == 0
    train, _ = zoo.datasets.load("diabetes").split(0.5, seed=3)
    method = zoo.methods.NUTS(num_warmup=5, num_samples=6, num_chains=2, start="prior")
    posterior = zoo.fit("linear", method, train, seed=3, progress=False)
    assert np.array_equal(zoo.load(save).result.positions, posterior.result.positions)


def test_json_holds_scores_verdict_and_paths(folder, tmp_path):
    save = tmp_path / "fit.nc"
    command = ("fit", folder / "houses.tsv", "--target", "price", "--drop", "id", *QUICK, "--save", save)
    result = run(*command, "--json", "--quiet")
    told = json.loads(result.stdout)
    assert result.stderr == ""
    assert told["scores"]["rmse"]["value"] > told["scores"]["rmse"]["standard_error"] > 0
    assert told["scores"]["ause"]["standard_error"] > 0
    assert told["verdict"] == "failed" and not told["ok"] and told["mends"]
    assert {check["name"] for check in told["checks"]} >= {"R-hat of f(x)", "divergences"}
    assert (told["rows"], told["scored_on"]) == (48, {"rows": 12, "held_out": True})
    assert (told["saved"], told["report"]) == (str(save), None)


def test_without_held_out_rows_scores_are_of_the_training_rows(folder):
    result = run("fit", folder / "houses.csv", "--target", "price", "--drop", "id", *QUICK, "--test", 0)
    assert "Scores on 60 training rows" in result.stdout


def test_strict_exits_with_3_when_the_verdict_failed(folder):
    command = ("fit", folder / "houses.csv", "--target", "price", "--drop", "id", *QUICK, "--quiet")
    assert run(*command).exit_code == 0
    assert run(*command, "--strict").exit_code == 3
    assert run("diagnose", folder / "one.nc").exit_code == 0
    assert run("diagnose", folder / "one.nc", "--strict").exit_code == 3
    assert run("compare", folder / "one.nc", "--data", folder / "houses.csv", "--strict").exit_code == 3


def test_parquet_in_and_out(folder, tmp_path):
    pytest.importorskip("pyarrow")
    houses().to_parquet(tmp_path / "houses.parquet")
    command = ("fit", tmp_path / "houses.parquet", "--target", "price", "--drop", "id", *QUICK)
    assert run(*command, "--save", tmp_path / "fit.nc", "--quiet").exit_code == 0
    one, other = zoo.load(tmp_path / "fit.nc"), zoo.load(folder / "one.nc")
    assert np.array_equal(one.result.positions, other.result.positions)
    out = tmp_path / "predictions.parquet"
    assert run("predict", folder / "one.nc", folder / "new.csv", "--out", out).exit_code == 0
    assert len(pd.read_parquet(out)) == 4
    (tmp_path / "bad.parquet").write_text("a,b\n1,2\n")
    assert "a Parquet file" in refusal("fit", tmp_path / "bad.parquet", "--target", "a")


def test_without_pyarrow_a_parquet_file_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "table.parquet").write_bytes(b"")
    assert "pip install 'bnn-zoo[parquet]'" in refusal("fit", tmp_path / "table.parquet", "--target", "a")
    assert "pip install 'bnn-zoo[parquet]'" in refusal("datasets", "--export", "cubic", tmp_path / "c.parquet")


def test_missing_values_are_refused_or_dropped_and_counted(folder, tmp_path):
    command = ("fit", folder / "holes.csv", "--target", "price", "--drop", "id", *QUICK)
    said = refusal(*command)
    assert "2 missing entries in 2 rows, the first in column 'area', row 3 (counted from 0)" in said
    assert "--drop-missing" in said
    result = run(*command, "--drop-missing", "--test", 0)
    assert "dropped 2 of 60 rows of holes" in result.stderr
    assert "Scores on 58 training rows" in result.stdout
    assert "column 'wall', row 7" in refusal(*command, "--drop", "area")  # a hole in what is left out is none


def test_a_standard_split_of_a_data_set(tmp_path, monkeypatch):
    load, whole = zoo.datasets.load, zoo.datasets.load("diabetes")

    def split(name, split=None):
        return load(name) if split is None else (whole.subset(slice(split, None)), whole.subset(slice(split)))

    monkeypatch.setattr(zoo.datasets, "load", split)
    assert run("fit", "diabetes", "--split", 40, *QUICK, "--save", tmp_path / "fit.nc", "--quiet").exit_code == 0
    posterior = zoo.load(tmp_path / "fit.nc")
    assert np.array_equal(posterior.data.x, whole.x[40:])
    assert posterior.attributes["held_out"] == "40 of 442 rows, by --split 40"


def test_a_checkpoint_is_passed_on(folder, tmp_path):
    command = ("fit", folder / "houses.csv", "--target", "price", "--drop", "id", *QUICK, "--quiet", "--json")
    first, second = (json.loads(run(*command, "--checkpoint", tmp_path / "kept").stdout) for _ in range(2))
    assert any((tmp_path / "kept").iterdir())
    assert first["scores"] == second["scores"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("fit", "{}/houses.csv"), "one of: id, area, wall, price"),
        (("fit", "{}/houses.csv", "--target", "prize"), "Did you mean 'price'"),
        (
            ("fit", "{}/houses.csv", "--target", "wall", "--drop", "id"),
            "column 'wall' should be numbers, as it is the target",
        ),
        (("fit", "{}/houses.csv", "--target", "price"), "--drop id"),
        (("fit", "{}/houses.csv", "--target", "price", "--drop", "ID"), "Did you mean 'id'"),
        (
            ("fit", "{}/houses.csv", "--target", "price", "--split", "1", "--drop", "id"),
            "Use --test FRACTION for a file",
        ),
        (("fit", "{}/house.csv", "--target", "price"), "Did you mean '{}/houses.csv'"),
        (("fit", "{}", "--target", "price"), "Name a file in it"),
        (("fit", "diabets"), "Did you mean 'diabetes'"),
        (("fit", "diabetes", "--model", "mpl"), "Did you mean 'mlp'"),
        (("fit", "diabetes", "--method", "nutz"), "Did you mean 'nuts'"),
        (("fit", "diabetes", "--test", "20"), "0.2 holds out a fifth"),
        (("fit", "diabetes", "--test", "nan"), "0.2 holds out a fifth"),
        (("fit", "diabetes", "--seed", "-1"), "whole number from 0 on"),
        (("fit", "diabetes", "--save", "{}/no/x.nc"), "in a folder that exists"),
        (("fit", "diabetes", "--report", "{}"), "Add a file name"),
        (("fit", "diabetes", "--save", "{}/x", "--report", "{}/x"), "a file of its own"),
        (("fit", "{}/houses.csv", "--target", "price", "--save", "{}/houses.csv"), "a file of its own"),
        (("fit", "diabetes", "--set", "num_samples=9"), "Write --set method.num_samples=9"),
        (("fit", "diabetes", "--set", "precision=float64"), "Write --set fit.precision=float64"),
        (("fit", "diabetes", "--set", "method.num_sampels=9"), "Did you mean 'method.num_samples'"),
        (("fit", "diabetes", "--set", "fit.seed=9"), "Settings: chain_method, precision, standardize"),
        (("fit", "diabetes", "--set", "mehtod.thinning=2"), "Did you mean 'method'"),
        (("fit", "diabetes", "--set", "method.num_samples"), "For example --set method.num_samples=1000"),
        (("fit", "diabetes", "--set", "method.num_samples=many"), "num_samples should be a whole number"),
        (("fit", "diabetes", "--set", "method.thinning=2", "--set", "method.thinning=3"), "given once"),
        (("fit", "diabetes", "--set", "model.noise=HalfNorml(1)"), "Did you mean HalfNormal"),
        (("fit", "diabetes", "--set", "model.noise=HalfNormal(-1)"), "invalid scale"),
        (("fit", "diabetes", "--set", "model.noise=HalfNormal('1')"), "Give numbers"),
        (("fit", "diabetes", "--set", "model.noise=Normal(0, 1)"), "noise should be a prior on positive numbers"),
        (("predict", "{}/none.nc", "{}/new.csv"), "a saved posterior"),
        (("predict", "{}/houses.csv", "{}/new.csv"), "a file of another kind"),
        (("predict", "{}/one.nc", "{}/none.csv"), "a file, or the name of a data set"),
        (("predict", "{}/one.nc", "{}/unseen.csv"), "'straw' in row 2 (counted from 0). Known: brick, stone, wood"),
        (("predict", "{}/one.nc", "diabetes"), "one without 'area'"),
        (("predict", "{}/one.nc", "{}/holes.csv"), "row 3"),
        (("predict", "{}/one.nc", "{}/new.csv", "--out", "{}/new.csv"), "a file of its own"),
        (("predict", "{}/one.nc", "{}/new.csv", "--keep", "name"), "Columns: id, area, wall"),
        (("predict", "{}/one.nc", "{}/new.csv", "--quantiles", "0.05,0.5"), "Write 5,50,95"),
        (("predict", "{}/one.nc", "{}/new.csv", "--quantiles", "5,500"), "Write 5,50,95"),
        (("predict", "{}/one.nc", "{}/new.csv", "--quantiles", "5,five"), "Write 5,50,95"),
        (("predict", "{}/one.nc", "{}/new.csv", "--quantiles", "5,5"), "different from one another"),
        (("compare", "{}/one.nc", "{}/one.nc", "--data", "{}/houses.csv"), "Name each of them once"),
        (("compare", "{}/one.nc", "--data", "{}/new.csv"), "target should be a column of the table; got 'price'"),
        (("compare", "{}/one.nc", "--data", "{}/houses.csv", "--reference", "on"), "Did you mean 'one'"),
        (("report", "{}/one.nc", "--out", "{}/one.nc"), "a file of its own"),
        (("report", "{}/one.nc"), "--out should be given"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line_before_the_fit(folder, args, said, monkeypatch):
    monkeypatch.setattr(zoo, "fit", lambda *args, **kwargs: pytest.fail("fitted"))
    args = [arg.replace("{}", str(folder)) for arg in args]
    assert said.replace("{}", str(folder)) in refusal(*args)


@pytest.mark.parametrize(("setting", "said"), [("precision=double", "precision"), ("standardize=maybe", "standardize")])
def test_what_fit_refuses_is_told_alike(setting, said):
    assert f"bnn-zoo: {said} should be" in refusal("fit", "diabetes", "--set", f"fit.{setting}")


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1000", 1000),
        ("1e-3", 1e-3),
        ("50,50", (50, 50)),
        ("[50, [1]]", (50, (1,))),
        ("None", None),
        ("True", True),
        ("relu", "relu"),
        ("'relu'", "relu"),
        ("a b", "a b"),
        ("__import__", "__import__"),
        ("(" * 9000, "(" * 9000),
    ],
)
def test_values_are_read_as_literals_or_else_as_text(text, value):
    assert parse(text) == value


@pytest.mark.parametrize("text", ["HalfNormal(0.5)", "HalfNormal(scale=0.5)", "dist.HalfNormal(+0.5)"])
def test_a_prior_is_built_from_its_name_and_numbers(text):
    model, _, _ = settle("mlp", "nuts", [f"model.noise={text}"])
    assert model == zoo.models.MLP(noise=dist.HalfNormal(0.5))


@pytest.mark.parametrize(
    "text", ["__import__('os').getcwd()", "exec('1')", "open('/etc/passwd')", "HalfNormal(open('x'))", "Distribution()"]
)
def test_nothing_in_a_setting_is_executed(text, monkeypatch):
    monkeypatch.setattr("builtins.open", lambda *args: pytest.fail("executed"))
    with pytest.raises(ZooError, match="--set should be"):
        parse(text)


def test_settings_go_where_they_belong():
    given = ["model.hidden=7", "model.activation=tanh", "method.num_samples=50", "fit.precision=float64"]
    model, method, keywords = settle("mlp", "nuts", given)
    assert model == zoo.models.MLP(hidden=(7,), activation="tanh")
    assert method == zoo.methods.NUTS(num_samples=50)
    assert keywords == {"precision": "float64"}


# --- predict, compare, diagnose, report -------------------------------------------------------------------------------


def test_predictions_are_those_of_the_posterior(folder, tmp_path):
    out = tmp_path / "predictions.csv"
    result = run("predict", folder / "one.nc", folder / "new.csv", "--out", out, "--keep", "id")
    assert str(out) in result.stdout and result.stderr == ""
    frame = pd.read_csv(out)
    assert list(frame.columns) == ["id", "mean", "std", "epistemic_std", "aleatoric_std", "q5", "q50", "q95"]
    posterior = zoo.load(folder / "one.nc")
    prediction = posterior.predict(Encoding.of(posterior).apply(pd.read_csv(folder / "new.csv")))
    for name in ("mean", "std", "epistemic_std", "aleatoric_std"):
        assert np.array_equal(frame[name], getattr(prediction, name))
    assert np.array_equal(frame[["q5", "q50", "q95"]].T, prediction.quantile([0.05, 0.5, 0.95]))


def test_predictions_go_to_standard_output_without_a_file(folder):
    command = ("predict", folder / "one.nc", folder / "new.csv", "--quantiles", "2.5,97.5")
    lines = run(*command).stdout.splitlines()
    assert lines[0] == "mean,std,epistemic_std,aleatoric_std,q2.5,q97.5" and len(lines) == 5
    told = json.loads(run(*command, "--json").stdout)
    assert told["rows"] == 4 and f"{told['predictions'][0]['mean']}" == lines[1].split(",")[0]


def test_rows_with_missing_values_keep_their_place_among_predictions(folder, tmp_path):
    out = tmp_path / "predictions.tsv"
    result = run("predict", folder / "one.nc", folder / "holes.csv", "--drop-missing", "--out", out)
    assert "dropped 2 of 60 rows of holes" in result.stderr
    frame = pd.read_csv(out, sep="\t")
    assert np.flatnonzero(frame["mean"].isna()).tolist() == [3, 7] and len(frame) == 60
    run("predict", folder / "one.nc", folder / "houses.csv", "--out", out)
    pd.testing.assert_frame_equal(pd.read_csv(out, sep="\t").drop(index=[3, 7]), frame.drop(index=[3, 7]))


def test_posteriors_of_different_columns_are_compared_on_one_table(folder, tmp_path):
    out = tmp_path / "table.csv"
    saved = (folder / "one.nc", folder / "two.nc")
    result = run("compare", *saved, "--data", folder / "houses.csv", "--out", out, "--reference", "two")
    assert "48 of 60 rows of houses were fitted by one" in result.stderr
    assert "Scores on 60 rows of houses" in result.stdout and "against those of two" in result.stdout
    frame = pd.read_csv(out, index_col="posterior")
    assert list(frame.index) == ["one", "two"]
    data = pd.read_csv(folder / "houses.csv")
    for name in ("one", "two"):
        posterior = zoo.load(folder / f"{name}.nc")
        rows = Encoding.of(posterior).dataset(data)
        assert frame.loc[name, "rmse"] == pytest.approx(posterior.evaluate(rows.x, rows.y)["rmse"])
    assert frame.loc["one", "wasserstein2"] > 0 == frame.loc["two", "wasserstein2"]


def test_held_out_rows_are_those_that_none_has_fitted(folder):
    saved = (folder / "one.nc", folder / "two.nc")
    result = run("compare", *saved, "--data", folder / "houses.csv", "--held-out", "--json")
    told = json.loads(result.stdout)
    frame = pd.read_csv(folder / "houses.csv")
    whole = zoo.Dataset.from_frame(frame[["area", "price"]], "price")
    parts = [whole.split(0.2, seed=seed)[1].y for seed in (0, 1)]  # as fitted with seeds 0 and 1
    assert told["rows"] == len(np.intersect1d(*parts)) < 12
    assert f"{told['rows']} of 60 rows of houses were not fitted" in result.stderr
    assert {row["posterior"] for row in told["posteriors"]} == {"one", "two"}
    assert all(row["nll_difference"] >= 0 for row in told["posteriors"])


def test_no_row_is_held_out_of_what_was_all_fitted(folder, tmp_path):
    frame, posterior = houses(), zoo.load(folder / "one.nc")
    frame[frame["area"].isin(posterior.data.x[:, 0])].to_csv(tmp_path / "fitted.csv", index=False)
    result = run("compare", folder / "one.nc", "--data", tmp_path / "fitted.csv", "--held-out")
    assert result.exit_code == 2 and "with rows that were not fitted" in result.stderr


def test_posteriors_of_different_targets_are_not_compared(folder, tmp_path):
    assert run("fit", "cubic", *QUICK, "--save", tmp_path / "cubic.nc", "--quiet").exit_code == 0
    said = refusal("compare", folder / "one.nc", tmp_path / "cubic.nc", "--data", folder / "houses.csv")
    assert "of the same target; got price, y" in said


def test_files_of_one_name_are_told_apart_by_their_paths(folder, tmp_path):
    (tmp_path / "one.nc").write_bytes((folder / "two.nc").read_bytes())
    saved = (folder / "one.nc", tmp_path / "one.nc")
    told = json.loads(run("compare", *saved, "--data", folder / "houses.csv", "--json", "--quiet").stdout)
    assert [row["posterior"] for row in told["posteriors"]] == list(map(str, saved))


def test_a_diagnosis_of_a_saved_posterior(folder):
    result = run("diagnose", folder / "one.nc", "--data", folder / "new.csv")
    assert "Posterior of Linear" in result.stdout and "Diagnosis: FAILED" in result.stdout
    told = json.loads(run("diagnose", folder / "one.nc", "--json").stdout)
    assert told["verdict"] == "failed" and told["draws"] == 6


def test_a_diagnosis_against_a_reference(folder):
    told = json.loads(run("diagnose", folder / "one.nc", "--reference", folder / "one.nc", "--json").stdout)
    found = {check["name"]: check["value"] for check in told["checks"]}
    assert found["distance from the reference"] == 0
    made = run("diagnose", folder / "one.nc", "--reference", "nuts", "--quiet")
    assert "1200 draws by nuts" in made.stdout and made.stderr == ""
    said = refusal("diagnose", folder / "one.nc", "--reference", folder / "two.nc")
    assert "reference should be a posterior of 4 columns, as this one; got one of 1" in said


def test_a_page_about_a_saved_posterior(folder, tmp_path):
    page = tmp_path / "page.html"
    result = run("report", folder / "one.nc", "--out", page, "--data", folder / "houses.csv", "--held-out")
    assert result.stdout == f"Report: {page}\n"
    assert "12 held-out rows of houses" in page.read_text(encoding="utf-8")
    told = json.loads(run("report", folder / "one.nc", "--out", page, "--json").stdout)
    assert told["report"] == str(page)


# --- exit statuses ----------------------------------------------------------------------------------------------------


def test_an_interrupted_fit_keeps_its_draws_and_has_the_shell_s_status(folder, tmp_path, monkeypatch):
    done = zoo.load(folder / "one.nc")
    part = dataclasses.replace(done, result=dataclasses.replace(done.result, complete=False))
    monkeypatch.setattr(zoo, "fit", lambda *args, **kwargs: part)
    save, page = tmp_path / "part.nc", tmp_path / "part.html"
    command = ("fit", folder / "houses.csv", "--target", "price", "--drop", "id", "--save", save, "--report", page)
    result = run(*command, "--json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["complete"] is False
    assert not zoo.load(save).complete and page.is_file()


def test_an_interrupt_before_there_are_draws(tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "fit", interrupt)
    for command in (("demo", "--out", tmp_path), ("fit", "diabetes", "--save", tmp_path / "x.nc")):
        result = run(*command)
        assert result.exit_code == 130 and result.stderr.endswith("bnn-zoo: interrupted\n")
    assert not (tmp_path / "x.nc").exists()


def test_a_file_system_that_refuses_has_status_1(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(zoo, "fit", lambda *args, **kwargs: pytest.fail("fitted"))
    monkeypatch.setattr(tables.tempfile, "TemporaryFile", refuse)
    said = refusal("fit", "diabetes", "--save", tmp_path / "x.nc", status=1)
    assert said == f"bnn-zoo: cannot write in {str(tmp_path)!r}, where --save points: Permission denied"


def test_what_is_a_bug_is_not_hidden(monkeypatch):
    def broken(*args, **kwargs):
        raise AttributeError("a slip of ours")

    monkeypatch.setattr(zoo, "fit", broken)
    result = CliRunner().invoke(shell, ["fit", "diabetes"])
    assert result.exit_code == 1 and isinstance(result.exception, AttributeError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output_has_status_1():
    with open("/dev/full", "w") as full:
        out = subprocess.run(
            [sys.executable, "-m", "bnn_zoo", "models"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert out.returncode == 1
    assert out.stderr.startswith("bnn-zoo: ") and out.stderr.count("\n") == 1


def test_a_reader_that_goes_away_gets_no_complaint():
    read, write = os.pipe()
    os.close(read)
    out = subprocess.run([sys.executable, "-m", "bnn_zoo", "methods"], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (out.returncode, out.stderr) == (1, "")


def test_a_process_has_the_status_and_the_streams():
    out = subprocess.run([sys.executable, "-m", "bnn_zoo", "fit", "diabets"], capture_output=True, text=True)
    assert (out.returncode, out.stdout) == (2, "")
    assert out.stderr.startswith("bnn-zoo: the table should be") and out.stderr.count("\n") == 1


def test_main_returns_the_status_and_leaves_logging_as_it_was(capsys):
    log = logging.getLogger("bnn_zoo")
    before = log.level, log.handlers[:]
    assert main(["models"]) == 0
    assert main(["modles"]) == 2
    assert "modles" in capsys.readouterr().err
    assert (log.level, log.handlers) == before


# --- demo -------------------------------------------------------------------------------------------------------------


def test_the_demo_prints_scores_and_verdict_and_writes_page_and_plots(tmp_path, monkeypatch):
    nuts, fit = zoo.methods.NUTS, zoo.fit
    seeds = []

    def quick(model, method, data, *, seed):
        seeds.append(seed)
        method = nuts(num_warmup=60, num_samples=60, num_chains=2, start="prior")
        return fit(zoo.models.Linear(), method, data, seed=seed, progress=False)

    monkeypatch.setattr(zoo, "fit", quick)
    folder = tmp_path / "deep" / "demo"
    result = run("demo", "--out", folder, "--seed", 4)
    assert (result.exit_code, seeds) == (0, [4])
    for expected in ("rmse", "coverage_90", " ± ", "Diagnosis: ", f"Report: {folder / 'diabetes.html'}"):
        assert expected in result.stdout
    assert "Verdict:" in (folder / "diabetes.html").read_text(encoding="utf-8")
    pictures = {path.name for path in folder.glob("*.png")}
    assert {"predictive.png", "calibration.png", "traces.png", "ranks.png", "site_noise.png"} <= pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))


def test_a_folder_that_is_a_file_is_refused_before_the_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "fit", lambda *args, **kwargs: pytest.fail("fitted"))
    taken = tmp_path / "taken"
    taken.write_text("")
    assert "--out" in refusal("demo", "--out", taken)
    refusal("demo", "--out", taken / "below", status=1)
