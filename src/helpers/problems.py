"""Everything that is wrong with a file at once, each problem with its place and its remedy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from helpers.errors import DataError


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where (file, row, column), what was found, what to do."""

    file: str
    row: int | str | None
    column: str | None
    found: str
    do: str
    serious: bool = True

    def __str__(self) -> str:
        """Return one line a person can act on.

        >>> print(Problem("s.csv", 3, "score", "found 'abc'", "write a number"))
        s.csv, row 3, column 'score': found 'abc' -> write a number
        """
        where = self.file
        if self.row is not None:
            where += f", row {self.row}"
        if self.column is not None:
            where += f", column '{self.column}'"
        return f"{where}: {self.found} -> {self.do}"


def refuse(problems: Iterable[Problem], shown: int = 20) -> None:
    """Raise DataError that lists the serious problems, if there are any."""
    serious = [p for p in problems if p.serious]
    if serious:
        more = f"\n  ... and {len(serious) - shown} more" if len(serious) > shown else ""
        lines = "\n  ".join(str(p) for p in serious[:shown])
        raise DataError(f"{len(serious)} problem(s):\n  {lines}{more}")
