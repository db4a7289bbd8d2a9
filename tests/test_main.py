"""The shell: tables, the demo, and exit statuses that a script can rely on."""

from __future__ import annotations

import logging

import pytest

import bnn_zoo as zoo
from bnn_zoo.__main__ import main


@pytest.fixture(autouse=True)
def logging_as_before():
    log = logging.getLogger("bnn_zoo")
    level, handlers = log.level, logging.root.handlers[:]
    yield
    log.setLevel(level)
    logging.root.handlers[:] = handlers


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("models", zoo.models.registry.names),
        ("methods", zoo.methods.registry.names),
        ("datasets", list(zoo.datasets.table()["name"])),
    ],
)
def test_a_table_has_one_aligned_line_for_each_name(command, names, capsys):
    assert main([command]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("name")
    assert [line.split()[0] for line in lines] == names
    second = header.index(header.split()[1])
    assert all(line[second] != " " and line[second - 1] == " " for line in lines)


def test_an_unknown_subcommand_is_an_error_of_the_arguments(capsys):
    assert main(["modles"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "modles" in printed.err
    assert main([]) == 2


def test_help_and_version_are_no_errors(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bnn_zoo {zoo.__version__}\n"
    assert main(["demo", "--help"]) == 0
    assert "--out" in capsys.readouterr().out


def test_the_demo_prints_scores_and_verdict_and_writes_page_and_plots(tmp_path, capsys, monkeypatch):

    nuts, fit = zoo.methods.NUTS, zoo.fit
    seeds = []

    def quick(model, method, data, *, seed):
        seeds.append(seed)
        method = nuts(num_warmup=60, num_samples=60, num_chains=2, start="prior")
        return fit(zoo.models.Linear(), method, data, seed=seed, progress=False)

    monkeypatch.setattr(zoo, "fit", quick)
    folder = tmp_path / "deep" / "demo"
    assert main(["demo", "--out", str(folder), "--seed", "4"]) == 0
    out = capsys.readouterr().out
    assert seeds == [4]
    for expected in ("rmse", "coverage_90", " ± ", "Diagnosis: ", f"Report: {folder / 'diabetes.html'}"):
        assert expected in out
    assert "Verdict:" in (folder / "diabetes.html").read_text(encoding="utf-8")
    pictures = {path.name for path in folder.glob("*.png")}
    assert {"predictive.png", "calibration.png", "traces.png", "ranks.png", "site_noise.png"} <= pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))


def test_a_folder_that_is_a_file_is_refused_before_the_fit(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(zoo, "fit", lambda *args, **kwargs: pytest.fail("fitted"))
    taken = tmp_path / "taken"
    taken.write_text("")
    assert main(["demo", "--out", str(taken)]) == 2
    assert "--out" in capsys.readouterr().err
    assert main(["demo", "--out", str(taken / "below")]) == 1


def test_an_interrupt_has_the_shell_s_status(tmp_path, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "fit", interrupt)
    assert main(["demo", "--out", str(tmp_path)]) == 130
    assert "interrupted" in capsys.readouterr().err
