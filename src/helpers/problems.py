"""Everything that is wrong with a file at once, each problem with its place and its remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

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


class Tally:
    """Problems by cause: each cause is told once, with its first example and how many more there are.

    >>> tally = Tally()
    >>> for row in (3, 4, 9):
    ...     tally.add("number", Problem("s.csv", row, "score", "found 'abc'", "write a number"))
    >>> [str(p) for p in tally.told("rows")]
    ["s.csv, row 3, column 'score': found 'abc' (and 2 more rows) -> write a number"]
    """

    def __init__(self) -> None:
        self._first: dict[Hashable, Problem] = {}
        self._count: Counter = Counter()

    def add(self, cause: Hashable, problem: Problem) -> None:
        """Count one more case of a cause; the first one is the example."""
        self._first.setdefault(cause, problem)
        self._count[cause] += 1

    def told(self, what: str) -> list[Problem]:
        """Return one problem a cause, in order of appearance; `what` says what is counted, in the plural."""
        return [
            p if self._count[c] == 1 else replace(p, found=f"{p.found} (and {self._count[c] - 1} more {what})")
            for c, p in self._first.items()
        ]


def refuse(problems: Iterable[Problem], shown: int = 20) -> None:
    """Raise DataError that lists the serious problems, if there are any."""
    serious = [p for p in problems if p.serious]
    if serious:
        more = f"\n  ... and {len(serious) - shown} more" if len(serious) > shown else ""
        lines = "\n  ".join(str(p) for p in serious[:shown])
        raise DataError(f"{len(serious)} problem(s):\n  {lines}{more}")
