"""``python -m bnn_zoo``, and the script ``bnn-zoo``: see `bnn_zoo.shell`."""

from __future__ import annotations

import sys

from bnn_zoo.shell.app import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
