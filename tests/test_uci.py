"""Real data by name: found, downloaded, checked and split, all with made-up sets and a server on this machine."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pooch
import pytest

import bnn_zoo as zoo
from bnn_zoo import datasets, downloads, uci
from bnn_zoo.errors import ZooTypeError, ZooValueError

TOY = uci.RealSet("toy", 31, ("length", "width"), "weight", "made up", "here", standard_splits=4, gap_splits=2)
PLAIN = uci.RealSet("plain", 31, ("length", "width"), "weight", "made up", "here", standard_splits=0)
# The last column is a second target, which is to be left out.
ROWS = np.random.default_rng(0).normal(size=(TOY.rows, 4)).round(3)
TEXT = "".join("\t".join(map(str, row)) + " \n" for row in ROWS).encode()
# Number, first train rows, first test rows.
YACHT = [(0, [73, 304, 228, 238], [121, 115, 286, 216]), (19, [122, 18, 305, 94], [74, 54, 250, 21])]
# Out of order on purpose: the published order is kept.
GAPS = [(np.r_[20:31, 9:-1:-1], np.r_[19:9:-1]), (np.r_[0:12, 30:22:-1], np.r_[12:23])]
FILES = {"toy/data.txt": TEXT, "plain/data.txt": TEXT} | {
    f"toy/gap/index_{part}_{number}.txt": "".join(f"{row}\n" for row in rows).encode()
    for number, split in enumerate(GAPS)
    for part, rows in zip(("train", "test"), split, strict=True)
}


def refused(kind: type[Exception], *parts: str):
    """Expect ``kind``, with every one of ``parts`` in its message, in this order."""
    return pytest.raises(kind, match="(?s)" + ".*".join(map(re.escape, parts)))


class Server(ThreadingHTTPServer):
    """Gives ``FILES``; ``asked`` lists what was asked for, and ``mishaps`` what happens to the next requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.mishaps: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        mishap = self.server.mishaps.pop(0) if self.server.mishaps else None
        body = b"<html>Please log in</html>" if mishap == "other page" else FILES[self.path[1:]]
        self.send_response(503 if mishap == "busy" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:40] if mishap == "cut" else body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    """A server, the made-up sets registered with their files there, and a cache of their own."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    registry = tmp_path / "registry.txt"
    registry.write_text(
        "".join(f"{path} {hashlib.sha256(body).hexdigest()} {server.url}/{path}\n" for path, body in FILES.items())
    )
    monkeypatch.setattr(downloads, "REGISTRY", registry)
    monkeypatch.setattr(downloads, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv("BNN_ZOO_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # pooch waits 1, 2, … seconds between tries.
    monkeypatch.setattr(pooch.core, "time", SimpleNamespace(sleep=lambda seconds: None))
    for real in (TOY, PLAIN):
        monkeypatch.setitem(datasets._REGISTRY, real.name, datasets._real(real))
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(server, tmp_path, monkeypatch) -> Path:
    """All files in a folder, which the environment names."""
    folder = tmp_path / "folder"
    for path, body in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)
    monkeypatch.setenv("BNN_ZOO_DATA", str(folder))
    return folder


# --- download and cache ----------------------------------------------------------------------------------------------


def test_a_set_is_downloaded_once(server, tmp_path):
    data = zoo.datasets.load("toy")
    assert np.array_equal(data.x, ROWS[:, :2]) and np.array_equal(data.y, ROWS[:, 2])
    assert (data.feature_names, data.target_name, data.name) == (("length", "width"), "weight", "toy")
    assert server.asked == ["/toy/data.txt"]
    assert (tmp_path / "cache" / "toy" / "data.txt").read_bytes() == TEXT
    assert np.array_equal(zoo.datasets.load("toy").x, data.x)
    assert server.asked == ["/toy/data.txt"]


def test_a_damaged_copy_in_the_cache_is_replaced(server, tmp_path):
    zoo.datasets.load("toy")
    file = tmp_path / "cache" / "toy" / "data.txt"
    file.write_bytes(TEXT[:-10])
    assert len(zoo.datasets.load("toy")) == TOY.rows
    assert len(server.asked) == 2 and file.read_bytes() == TEXT


@pytest.mark.parametrize("mishaps", [["busy"], ["cut"], ["other page"], ["busy", "cut"]])
def test_a_failed_download_is_tried_again(server, mishaps):
    server.mishaps = list(mishaps)
    assert np.array_equal(zoo.datasets.load("toy").y, ROWS[:, 2])
    assert len(server.asked) == 1 + len(mishaps)


def test_other_bytes_are_refused_and_not_kept(server, tmp_path):
    """Fails if the hash is not checked: the page of a login would go to the reader of numbers, or into the cache."""
    server.mishaps = ["other page"] * 3
    wanted = hashlib.sha256(TEXT).hexdigest()
    found = hashlib.sha256(b"<html>Please log in</html>").hexdigest()
    with refused(ZooValueError, "toy/data.txt should be", server.url, wanted, found, "BNN_ZOO_DATA"):
        zoo.datasets.load("toy")
    assert list((tmp_path / "cache" / "toy").iterdir()) == []
    assert len(server.asked) == downloads.TRIES


def test_a_server_that_refuses_is_named_with_the_way_round_it(server):
    server.mishaps = ["busy"] * 3
    parts = f"downloaded from {server.url}/toy/data.txt", "503 Service Unavailable in 3 tries", "BNN_ZOO_DATA"
    with refused(ZooValueError, *parts):
        zoo.datasets.load("toy")


def test_no_network_is_named_with_the_way_round_it(server):
    server.shutdown()
    server.server_close()
    address = f"{server.url}/toy/gap/index_train_1.txt"
    with refused(ZooValueError, address, "no answer (ConnectionError)", "BNN_ZOO_DATA", "toy/gap/index_train_1.txt"):
        uci.gap_split("toy", 1)


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with refused(ZooValueError, "the cache should be a folder that can be written", "BNN_ZOO_DATA"):
        zoo.datasets.load("toy")
    assert server.asked == []


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only(server, monkeypatch, capsys, terminal):
    screen = io.StringIO()
    screen.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", screen)
    zoo.datasets.load("toy")
    assert ("100%" in screen.getvalue()) == terminal
    assert capsys.readouterr().out == ""


# --- the offline folder ----------------------------------------------------------------------------------------------


def test_a_folder_does_without_the_network(server, folder, tmp_path):
    assert np.array_equal(zoo.datasets.load("toy").x, ROWS[:, :2])
    zoo.datasets.load("toy", gap=0)
    assert server.asked == [] and not (tmp_path / "cache").exists()


def test_a_wrong_file_in_the_folder_is_refused(folder):
    (folder / "toy" / "data.txt").write_bytes(TEXT.replace(b"\n", b"\r\n"))
    wanted = hashlib.sha256(TEXT).hexdigest()
    found = hashlib.sha256(TEXT.replace(b"\n", b"\r\n")).hexdigest()
    parts = str(folder / "toy" / "data.txt"), f"SHA-256 {wanted}; got", found, "http://127.0.0.1", "byte for byte"
    with refused(ZooValueError, *parts):
        zoo.datasets.load("toy")


def test_a_folder_that_lacks_the_file_or_is_missing_is_named(server, folder, monkeypatch):
    (folder / "toy" / "data.txt").unlink()
    parts = "BNN_ZOO_DATA should be a folder that holds toy/data.txt", str(folder), f"Put {server.url}", "unset"
    with refused(ZooValueError, *parts):
        zoo.datasets.load("toy")
    monkeypatch.setenv("BNN_ZOO_DATA", str(folder / "absent"))
    with refused(ZooValueError, "BNN_ZOO_DATA should be a folder that exists", "absent", "unset it to download"):
        zoo.datasets.load("toy")
    assert server.asked == []


def test_an_empty_variable_names_no_folder_and_a_tilde_is_home(server, folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("BNN_ZOO_DATA", "~/folder")
    zoo.datasets.load("toy")
    assert server.asked == []
    monkeypatch.setenv("BNN_ZOO_DATA", "")
    zoo.datasets.load("toy")
    assert server.asked == ["/toy/data.txt"]


def test_at_hand_is_what_needs_no_network(server, folder, monkeypatch):
    assert datasets.at_hand("toy") and datasets.at_hand("diabetes") and not datasets.at_hand("absent")
    monkeypatch.delenv("BNN_ZOO_DATA")
    assert not datasets.at_hand("toy") and datasets.at_hand("cubic")
    assert server.asked == []
    zoo.datasets.load("toy")
    assert datasets.at_hand("toy") and not datasets.at_hand("plain")


# --- splits ----------------------------------------------------------------------------------------------------------


def test_standard_splits_are_those_of_the_rule_in_its_order(folder):
    """Fails if a split has a generator of its own, if the rows are sorted, or if the size is cut instead of rounded."""
    generator = np.random.RandomState(1)
    for number in range(TOY.standard_splits):
        order = generator.choice(range(31), 31, replace=False)
        train, test = zoo.datasets.load("toy", split=number)
        assert (len(train), len(test)) == (28, 3)  # 27.9 of 31
        for part, rows in ((train, order[:28]), (test, order[28:])):
            assert np.array_equal(part.x, ROWS[rows, :2]) and np.array_equal(part.y, ROWS[rows, 2])
            assert (part.name, part.feature_names, part.target_name) == ("toy", TOY.features, TOY.target)


def test_standard_splits_are_the_published_ones():
    """The first rows of the index files of yacht, as published with the data."""
    for number, first_train, first_test in YACHT:
        train, test = uci.standard_split(308, number)
        assert (len(train), len(test)) == (277, 31)
        assert train[:4].tolist() == first_train and test[:4].tolist() == first_test


def test_gap_splits_are_read_from_their_files(server):
    for number, (train_rows, test_rows) in enumerate(GAPS):
        train, test = zoo.datasets.load("toy", gap=np.int64(number))
        assert np.array_equal(train.x, ROWS[train_rows, :2]) and np.array_equal(test.y, ROWS[test_rows, 2])
    assert server.asked == [
        "/toy/data.txt",
        *(f"/toy/gap/index_{part}_{number}.txt" for number in range(2) for part in ("train", "test")),
    ]


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "parts"),
    [
        ("toy", {"split": 4}, ZooValueError, ["split should be from 0 to 3 for 'toy'; got 4", "load('toy', split=3)"]),
        ("toy", {"split": -1}, ZooValueError, ["split should be from 0 to 3", "got -1"]),
        ("toy", {"gap": 2}, ZooValueError, ["gap should be from 0 to 1 for 'toy'; got 2", "load('toy', gap=1)"]),
        ("toy", {"split": "3"}, ZooTypeError, ["split should be a whole number from 0 to 3", "got '3'"]),
        ("toy", {"split": True}, ZooTypeError, ["split should be a whole number", "got True"]),
        ("toy", {"gap": 0.0}, ZooTypeError, ["gap should be a whole number", "got 0.0"]),
        ("toy", {"split": 0, "gap": 0}, ZooValueError, ["gap should be None where split is given", "one of the two"]),
        ("plain", {"split": 0}, ZooValueError, ["None for 'plain'", "no standard splits", "load('plain').split("]),
        ("plain", {"gap": 0}, ZooValueError, ["None for 'plain'", "no gap splits", "load('plain').split("]),
        ("diabetes", {"gap": 0}, ZooValueError, ["None for 'diabetes'", "no gap splits"]),
        ("tyo", {}, ZooValueError, ["got 'tyo'", "Did you mean 'toy'?"]),
    ],
)
def test_load_refuses_before_anything_is_downloaded(server, name, arguments, kind, parts):
    with refused(kind, *parts):
        zoo.datasets.load(name, **arguments)
    assert server.asked == []


# --- the registered sets, without their data -------------------------------------------------------------------------


def test_every_registered_set_has_all_its_files_and_no_others():
    wanted = {real.file for real in uci.SETS}
    for real in uci.SETS:
        for number in range(real.gap_splits):
            wanted |= {f"{real.name}/gap/index_{part}_{number}.txt" for part in ("train", "test")}
    files = downloads._files()
    assert set(files.registry) == set(files.urls) == wanted
    assert all(re.fullmatch("[0-9a-f]{64}", known) for known in files.registry.values())
    assert len(set(files.registry.values())) == len(set(files.urls.values())) == len(wanted)
    pinned = r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/[\w./-]+"
    assert all(re.fullmatch(pinned, url) for url in files.urls.values())


def test_the_table_needs_no_network(server, tmp_path):
    table = zoo.datasets.table().set_index("name")
    assert tuple(table.loc["yacht", ["rows", "features", "standard_splits", "gap_splits"]]) == (308, 6, 20, 6)
    assert tuple(table.loc["protein", ["rows", "features", "standard_splits", "gap_splits"]]) == (45730, 9, 5, 0)
    assert (table[["target", "description", "source", "licence"]].map(len) > 0).all(axis=None)
    assert server.asked == [] and not (tmp_path / "cache").exists()


def test_the_cache_is_the_user_s_own():
    assert "bnn_zoo" in downloads.cache_folder().parts and downloads.cache_folder().is_absolute()


def test_pooch_is_not_imported_with_the_package():
    code = (
        "import sys, bnn_zoo; bnn_zoo.datasets.load('cubic');"
        "print([name for name in ('pooch', 'requests') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_fit_takes_the_name(folder):
    method = zoo.methods.NUTS(num_warmup=5, num_samples=5, num_chains=1, start="prior")
    posterior = zoo.fit("linear", method, "toy", progress=False)
    assert posterior.data.name == "toy" and len(posterior.data) == TOY.rows
