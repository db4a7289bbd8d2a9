"""One line of a diagnosis, and how a number becomes a status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "doubtful", "failed"]
SEVERITY = {"failed": 0, "doubtful": 1, "passed": 2}


@dataclass(frozen=True)
class Check:
    """One line of a diagnosis: what was found, and what to do about it (nothing, where it passed)."""

    name: str
    value: float
    status: Status
    finding: str
    mend: str = ""

    @property
    def sentence(self) -> str:
        """Finding and mend."""
        return f"{self.finding} {self.mend}".rstrip()


def graded(
    name: str,
    value: float,
    limits: tuple[float, ...],
    good: str,
    bad: str,
    mend: str,
    *,
    shown: float | None = None,
    never_fails: bool = False,
) -> Check:
    """Grade ``value``: passed up to the first limit, doubtful up to the second, failed beyond or if not a number."""
    status: Status = "passed" if value <= limits[0] else "doubtful" if value <= limits[1] or never_fails else "failed"
    finding, mend = (good, "") if status == "passed" else (bad, mend)
    return Check(name, float(value if shown is None else shown), status, finding[0].upper() + finding[1:], mend)
