"""Draw the synthetic sets and write them beside this file, the same bytes every time.

    cubic         n = 20   x ~ U(-4, 4)                           y = x³ + N(0, 3²)
    two_clusters  n = 100  x ~ U(-1, -0.7) and U(0.5, 1), 50 each  y = cos(4x + 0.8) + N(0, 0.1²)
    wave          n = 200  x ~ U(0, 5)                            y = sin(2x) + N(0, (0.05 + 0.1x)²)

The mean and the noise are those of ``bnn_zoo.datasets.truth``, so that file and truth cannot part. Where they come
from: ``README.md``. Run as ``python data/make_data.py``, with bnn_zoo installed.
"""

import sys
from pathlib import Path

import numpy as np

from bnn_zoo.datasets import truth

# name: the seed, then the pieces x is drawn from, each (low, high, number of points)
PIECES = {
    "cubic": (1, [(-4.0, 4.0, 20)]),
    "two_clusters": (2, [(-1.0, -0.7, 50), (0.5, 1.0, 50)]),
    "wave": (3, [(0.0, 5.0, 200)]),
}


def csv_text(name: str) -> str:
    """Give the content of ``<name>.csv``: a header line, then a line a point."""
    seed, pieces = PIECES[name]
    # RandomState, not default_rng: only its stream is promised to stay the same in later versions of NumPy.
    rng = np.random.RandomState(seed)
    x = np.concatenate([rng.uniform(low, high, size) for low, high, size in pieces])
    mean, noise_sd = truth(name)
    y = mean(x) + noise_sd(x) * rng.standard_normal(x.size)
    # Six decimals hide the last digit, in which the sines and logarithms of two machines may differ.
    return "x,y\n" + "".join(f"{a:.6f},{b:.6f}\n" for a, b in zip(x, y, strict=True))


def main(folder: Path) -> None:
    """Write every set into ``folder``."""
    for name in PIECES:
        (folder / f"{name}.csv").write_bytes(csv_text(name).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
