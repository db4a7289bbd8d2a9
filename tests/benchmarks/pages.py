"""The page of every method family, and one that compares them, opened in headless Chromium where there is one.

    python -m tests.benchmarks.pages FOLDER [--methods nuts laplace …]

Writes ``METHOD.html`` into FOLDER for each family, on diabetes with 80 rows held out, and ``comparison.html``; prints
seconds a page takes and its size. With Chromium on the path each is opened: screenshots ``METHOD.png`` (1200 wide) and
``METHOD-phone.png`` (390), and a table of messages on the console and of requests to the network, both of which should
be none. What the browser asks of its own maker, for the time and for updates, is not counted.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd

import bnn_zoo as zoo
from bnn_zoo.methods import (
    MAP,
    NUTS,
    SWAG,
    VI,
    CyclicalSGHMC,
    DeepEnsemble,
    DeterministicVI,
    Laplace,
    MCDropout,
    MultiSWAG,
)

FAMILIES = {
    "nuts": NUTS(num_warmup=300, num_samples=300),
    "cyclical_sghmc": CyclicalSGHMC(num_samples=100),
    "map": MAP(),
    "ensemble": DeepEnsemble(),
    "laplace": Laplace(),
    "swag": SWAG(),
    "multiswag": MultiSWAG(num_modes=3),
    "mean_field": VI(),
    "dvi": DeterministicVI(),
    "mc_dropout": MCDropout(),
}
OWN = re.compile(r"(^|\.)google(apis)?\.com$")
SIZES = {"": "1200,5200", "-phone": "390,9000"}


def opened(path: Path) -> dict[str, int]:
    """Open a page in Chromium, leave screenshots beside it, and count console messages and network requests."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return {}
    messages, requests = 0, 0
    for suffix, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "net.json"
            flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
            flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
            flags += [f"--user-data-dir={folder}/profile", f"--window-size={size}", f"--log-net-log={log}"]
            flags += ["--enable-logging=stderr", f"--screenshot={path.with_name(path.stem + suffix)}.png"]
            done = subprocess.run([chromium, *flags, path.as_uri()], capture_output=True, text=True, timeout=120)
            messages += done.stderr.count(":CONSOLE")
            text = log.read_text() if log.exists() else ""
            try:
                events = json.loads(text)["events"]
            except json.JSONDecodeError:  # a browser that was stopped early leaves the list open
                events = json.loads(text.rstrip().rstrip(",") + "]}")["events"]
            urls = {urlsplit(str(event.get("params", {}).get("url", ""))) for event in events}
            requests += sum(u.scheme in ("http", "https", "ws") and not OWN.search(u.netloc) for u in urls)
    return {"console messages": messages, "requests": requests}


def main() -> None:
    """Fit, write, open and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    train, test = zoo.datasets.load("diabetes").split(test_size=80, seed=0)
    fits, rows = {}, {}
    for name in arguments.methods:
        fits[name] = zoo.fit(zoo.models.MLP(hidden=(20,)), FAMILIES[name], train, progress=False)
        path, clock = arguments.folder / f"{name}.html", time.perf_counter()
        fits[name].report(path, test)
        rows[name] = {"seconds": time.perf_counter() - clock, "kB": path.stat().st_size / 1e3} | opened(path.resolve())
        print(pd.DataFrame(rows).T.tail(1).to_string(header=len(rows) == 1, float_format="%.3g"), flush=True)
    path, clock = arguments.folder / "comparison.html", time.perf_counter()
    zoo.report(fits, path, test, reference="nuts" if "nuts" in fits else None)
    rows["comparison"] = {"seconds": time.perf_counter() - clock, "kB": path.stat().st_size / 1e3}
    rows["comparison"] |= opened(path.resolve())
    print(f"\n{pd.DataFrame(rows).T.to_string(float_format='%.3g')}")


if __name__ == "__main__":
    main()
