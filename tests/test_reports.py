"""The HTML page: whole, self-contained, honest about what it was scored on, and not to be fooled by names."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpyro
import pytest
from numpyro import distributions as dist

import bnn_zoo as zoo
from bnn_zoo.errors import ZooTypeError, ZooValueError
from bnn_zoo.reports import apart, page, plots, repeating, sections, words

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "hr", "img", "input"}
SCORES = list(words.SCORES)
SHORT = zoo.methods.NUTS(num_warmup=100, num_samples=100, num_chains=2, start="prior")


class Page(HTMLParser):
    """Elements with their attributes, the text outside style and script, and whether every tag was closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source, self.elements, self.words, self._open = text, [], [], []
        self.feed(text)
        self.close()
        assert self._open == [], f"never closed: {self._open}"
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> closes <{self._open[-1]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.words.append(data)


def toy(columns: int, rows: int = 40, **names: object) -> zoo.Dataset:
    generator = np.random.default_rng(columns)
    x = generator.normal(size=(rows, columns))
    return zoo.Dataset(x, x[:, 0] + 0.3 * generator.normal(size=rows), **names)


def read(posterior: zoo.Posterior, path: Path, test: object = None) -> Page:
    written = posterior.report(path, test)
    assert written == path
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def one() -> zoo.Posterior:
    return zoo.fit(zoo.models.Linear(), SHORT, toy(1), progress=False)


@pytest.fixture(scope="module")
def hostile() -> zoo.Posterior:
    data = toy(3, feature_names=(HOSTILE, "a & b", '" onload="x'), target_name=f"$y_{HOSTILE}", name="<b>mine</b>")
    return zoo.fit(zoo.models.Linear(), SHORT, data, progress=False)


@pytest.fixture(scope="module")
def point() -> zoo.Posterior:
    method = zoo.methods.MAP(num_restarts=2, num_steps=20, polish_steps=0)
    return zoo.fit(zoo.models.Linear(), method, toy(3), progress=False)


@pytest.fixture(scope="module")
def pages(one, hostile, point, tmp_path_factory) -> dict[str, tuple[zoo.Posterior, Page]]:
    folder = tmp_path_factory.mktemp("pages")
    fits = {"one": one, "hostile": hostile, "point": point}
    return {name: (fit, read(fit, folder / f"{name}.html")) for name, fit in fits.items()}


NAMES = ("one", "hostile", "point")


@pytest.mark.parametrize("name", NAMES)
def test_the_page_loads_nothing(pages, name):
    found = pages[name][1]
    for tag, attributes in found.elements:
        assert tag not in ("script", "iframe", "object", "embed")
        for key in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(key) or "#"
            assert value.startswith(("#", "data:")), (tag, key, value)
    for inside in re.findall(r"url\(([^)]*)\)", found.source):
        assert inside.strip("'\"").startswith(("#", "data:"))
    assert "@import" not in found.source


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique_and_references_lead_somewhere(pages, name):
    found = pages[name][1]
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r"url\(#([^)]+)\)", found.source))
    for _, attributes in found.elements:
        wanted |= {attributes["href"][1:]} if (attributes.get("href") or "").startswith("#") else set()
        wanted |= set((attributes.get("aria-labelledby") or "").split())
    assert wanted <= set(ids)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_the_verdict_every_score_and_what_did_not_pass(pages, name):
    posterior, found = pages[name]
    diagnosis = posterior.diagnose()
    assert f"Verdict: {diagnosis.verdict}" in found.text
    for key in SCORES:
        assert key in found.text
    verdict = found.text[found.text.index("Verdict:") : found.text.index("In plain words")]
    caveats = found.text[found.text.rindex("Caveats") :]
    for check in diagnosis.checks:
        assert check.name in found.text
        assert " ".join(check.sentence.split()) in found.text
        if check.status != "passed":
            assert check.finding in verdict
            assert check.mend and verdict.count(check.mend) == 1, "a thing to do is said once"
            assert check.name in caveats


def test_scores_on_the_page_are_those_of_evaluate(pages):
    posterior, found = pages["one"]
    scores = posterior.evaluate(posterior.data.x, posterior.data.y)
    for key, value in scores.items():
        assert words.with_error(value, scores.attrs["standard_error"][key])[0] in found.text, key


@pytest.mark.parametrize("name", NAMES)
def test_every_image_has_a_text_in_its_place(pages, name):
    posterior, found = pages[name]
    images = [attributes for tag, attributes in found.elements if tag in ("svg", "img")]
    assert len(images) == len(sections.gallery(posterior, posterior.data)) >= 3
    for attributes in images:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"]) > 20


def test_the_caption_of_one_network_speaks_of_noise_alone(one):
    assert "inner band" in sections.gallery(one, one.data)[0].caption
    method = zoo.methods.MAP(num_restarts=1, num_steps=5, polish_steps=0)
    network = zoo.fit(zoo.models.Linear(), method, one.data, progress=False)
    assert "noise alone" in sections.gallery(network, network.data)[0].caption


def test_names_are_text_and_never_markup(pages):
    found = pages["hostile"][1]
    tags = {tag for tag, _ in found.elements}
    assert not tags & {"script", "b"}
    assert not any("onload" in attributes for _, attributes in found.elements)
    assert HOSTILE in found.text
    assert "<b>mine</b>" in found.text
    assert HOSTILE not in found.source


def test_a_foreign_model_s_sites_may_have_any_name(tmp_path):
    def model(x, y=None):
        scale = numpyro.sample('s"><script>', dist.HalfNormal(1.0))
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(slope * x[:, 0], scale), obs=y)

    posterior = zoo.fit(model, SHORT, toy(1), progress=False)
    found = read(posterior, tmp_path / "page.html")
    assert not any(tag == "script" for tag, _ in found.elements)
    assert 'Posterior of s"><script>' in found.text
    assert "your own NumPyro model, 'model'" in found.text
    assert all(re.fullmatch(r"\w+", picture.name) for picture in sections.gallery(posterior, posterior.data))


def test_a_page_without_test_data_says_that_scores_are_of_training(one, pages):
    found = pages["one"][1]
    assert "40 training rows" in found.text
    assert "so expect worse on new ones" in found.text
    assert "held-out rows of" not in found.text


def test_a_page_with_test_data_is_scored_on_them(hostile, tmp_path):
    test = toy(3, rows=25)
    found = read(hostile, tmp_path / "page.html", (test.x, test.y))
    assert "25 held-out rows" in found.text
    assert "flatters" not in found.text
    scores = hostile.evaluate(test.x, test.y)
    assert words.with_error(scores["rmse"], scores.attrs["standard_error"]["rmse"])[0] in found.text
    assert "Scores rest on 25 rows" in found.text


def test_columns_of_test_data_are_matched_by_name(hostile, tmp_path):
    data = hostile.data
    first, second, third = data.feature_names
    shuffled = zoo.Dataset(data.x[:, [2, 0, 1]], data.y, (third, first, second))
    assert plots.same_rows(plots.matched(hostile, shuffled), data)
    with pytest.raises(ZooValueError, match="a & b"):
        hostile.report(tmp_path / "page.html", zoo.Dataset(data.x, data.y, (first, "other", third)))
    assert list(tmp_path.iterdir()) == []


def test_a_plot_that_fails_leaves_a_note_and_the_rest(one, tmp_path, monkeypatch, caplog):
    def broken(*args, **kwargs):
        raise RuntimeError("no plot today")

    monkeypatch.setattr(plots, "calibration", broken)
    found = read(one, tmp_path / "page.html")
    assert found.text.count("This plot could not be drawn") == 1
    assert sum(tag == "svg" for tag, _ in found.elements) == len(sections.gallery(one, one.data)) - 1
    assert "Verdict:" in found.text
    assert "Calibration" in caplog.text
    assert "no plot today" in caplog.text


def test_a_missing_folder_is_refused_with_a_mend(one, tmp_path):
    with pytest.raises(ZooValueError, match="mkdir"):
        one.report(tmp_path / "nowhere" / "page.html")
    with pytest.raises(ZooValueError, match="file name"):
        one.report(tmp_path)
    with pytest.raises(ZooTypeError, match=r"report\.html"):
        one.report(3)


def test_a_failed_write_keeps_the_old_page(one, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr(page, "render", lambda *args: "new")
    monkeypatch.setattr(page.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        one.report(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_equal_fits_give_equal_pages(one):
    assert page.render(one, one.data) == page.render(one, one.data)


def test_numbers_are_shown_to_two_digits_of_their_error():
    assert words.with_error(52.8761, 3.4321) == ("52.9", "3.4")
    assert words.with_error(5.39283, 0.06214) == ("5.393", "0.062")
    assert words.with_error(0.02153, np.nan) == ("0.02153", "–")
    assert words.with_error(12345.6, 678.9) == ("12346", "679")
    assert words.with_error(3.2e20, 1e18) == ("3.2e+20", "1e+18")


@pytest.mark.parametrize(
    ("data", "begins"),
    [
        (lambda: zoo.datasets.load("diabetes"), "data = zoo.datasets.load('diabetes')"),
        (
            lambda: zoo.datasets.load("diabetes").split(0.2, 3)[0],
            "data, test = zoo.datasets.load('diabetes').split(test_size=88, seed=3)",
        ),
    ],
)
def test_the_code_that_repeats_the_fit_finds_the_data(data, begins):
    line, namespace = repeating._data_code(data()), {"zoo": zoo}
    assert line == begins
    exec(line, namespace)
    assert plots.same_rows(namespace["data"], data())


def test_the_code_that_repeats_the_fit_repeats_it(hostile):
    namespace = {"x": hostile.data.x, "y": hostile.data.y}
    exec(
        repeating.repeat(hostile)
        .replace("zoo.fit(", "zoo.fit(progress=False, *[")
        .replace("    seed=", "    ], seed="),
        namespace,
    )
    np.testing.assert_array_equal(namespace["posterior"].result.positions, hostile.result.positions)


# --- several side by side ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(one, tmp_path_factory) -> tuple[dict, Page]:
    other = zoo.fit(zoo.models.Linear(), zoo.methods.MAP(num_restarts=1, num_steps=20), toy(1), progress=False)
    fits = {"chains": one, "<i>point</i>": other}
    path = tmp_path_factory.mktemp("compared") / "both.html"
    assert zoo.report(fits, path, toy(1, rows=30), reference="chains") == path
    return fits, Page(path.read_text(encoding="utf-8"))


def test_the_page_of_several_has_every_verdict_score_and_distance(compared):
    fits, found = compared
    frame = zoo.compare(fits, toy(1, rows=30), reference="chains")
    for name, posterior in fits.items():
        assert name in found.text and "<i>point" not in found.source.replace("&lt;i&gt;point", "")
        assert " ".join(posterior.diagnose().checks[0].finding.split()) in found.text
        for score in ("rmse", "nll", "crps", "wasserstein2"):
            assert words.shown(frame.loc[name, score])[:4] in found.text, score
    assert all(words.SCORES[score][0] in found.text for score in SCORES if frame[score].notna().any())
    assert f"{frame.attrs['best']} is best" in found.text and "held-out" in found.text


def test_the_page_of_several_loads_nothing_and_has_a_text_for_every_image(compared):
    found = compared[1]
    assert not [tag for tag, _ in found.elements if tag in ("script", "iframe", "img")]
    assert not re.findall(r'(?:src|href)="(?!#|data:)', found.source)
    images = [attributes for tag, attributes in found.elements if tag == "svg"]
    assert len(images) == 4 and all(image["aria-label"] and image["role"] == "img" for image in images)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_report_of_one_is_its_own_page(one, tmp_path):
    assert zoo.report(one, tmp_path / "a.html").read_text() == one.report(tmp_path / "b.html").read_text()


def test_what_cannot_be_compared_is_refused_before_any_work(one, tmp_path):
    with pytest.raises(ZooTypeError, match="posteriors should be a posterior"):
        zoo.report([one], tmp_path / "a.html")
    with pytest.raises(ZooTypeError, match="reference should be None"):
        zoo.report(one, tmp_path / "a.html", reference="nuts")
    with pytest.raises(ZooValueError, match="folder"):
        zoo.report({"one": one}, tmp_path / "nowhere" / "a.html")


# --- what scores hide -------------------------------------------------------------------------------------------------


def test_scores_of_single_chains_are_those_of_posteriors_of_one_chain(one):
    from dataclasses import replace

    data = toy(1, rows=30)
    for chain, nll in enumerate(apart.nll_of_chains(one, data)):
        alone = replace(one, result=replace(one.result, positions=one.result.positions[chain : chain + 1]))
        assert nll == pytest.approx(-alone.predict(data.x).log_prob(data.y).mean(), rel=1e-5)


def test_a_good_score_of_chains_that_disagree_is_told_with_its_price(one, tmp_path):
    """Two chains, one far off: page and table say the score, and that another seed would change it."""
    from dataclasses import replace

    positions = one.result.positions.copy()
    positions[1] += 1.0
    bad = replace(one, result=replace(one.result, positions=positions))
    text = read(bad, tmp_path / "bad.html").text
    assert "Taken alone, its 2 chains score from" in text
    assert "The chains disagree about the function" in text and "another seed would change" in text
    row = zoo.compare({"bad": bad, "good": one}, toy(1, rows=30)).loc["bad"]
    assert row["rhat"] > 1.5 and row["ess"] < 20 and row["nll_worst_chain"] > row["nll"]
    assert row["verdict"] == "failed"


def test_the_table_by_place_is_of_the_diagnosis(one):
    heads, rows = page.by_place(one.diagnose())
    points = one.diagnose().points
    assert [place for place, _ in rows] == ["at training inputs", "between them", "beyond the data"]
    column = heads.index("R-hat, worst")
    for (_, cells), where in zip(rows, ("training", "between", "beyond"), strict=True):
        assert cells[column] == words.shown(points.loc[points["where"] == where, "rhat"].max())


def test_a_notebook_shows_what_matters(one):
    import dataclasses

    fresh = dataclasses.replace(one)
    assert "not asked for yet" in fresh._repr_html_()
    fresh.diagnose()
    assert fresh.diagnose().summary in Page(fresh._repr_html_()).text
    shown = Page(one.predict(one.data.x)._repr_html_())
    low, high = one.predict(one.data.x).interval(0.9)[0]
    assert f"{low:.4g}" in shown.text and f"{high:.4g}" in shown.text and "32 more rows" in shown.text
