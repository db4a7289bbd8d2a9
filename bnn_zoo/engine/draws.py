"""What a method returns: positions of draws, and what kind of draws they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal["markov", "independent", "members"]


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws from an approximate posterior, in unconstrained coordinates.

    Attributes
    ----------
    positions : ndarray
        ``(C, S, p)``.
    kind : str
        ``"markov"`` (chains: R-hat means something), ``"independent"`` (draws from an approximation) or ``"members"``
        (an ensemble: one draw a member, C = 1).
    stats : dict of ndarray
        ``(C, S)`` each, named as ArviZ names them.
    info : dict
        Facts about the whole run, for the diagnosis.
    state : object
        Where to go on from, for ``resume``; ``None`` where there is no going on.
    gradients : int
        Gradient evaluations of the log posterior, warm-up and optimisation included.
    complete : bool
        False when an interrupt ended the run early.
    """

    positions: np.ndarray
    kind: Kind
    stats: dict[str, np.ndarray] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    state: Any = None
    gradients: int = 0
    complete: bool = True
