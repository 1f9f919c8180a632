"""The paper's numbers beside ours: one verdict a claim, by a rule fixed before any number is computed.

The numbers, their source marks and the rules stand in ``data/paper-numbers.csv``; nothing else in the project
holds a number of the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import paths
from helpers.errors import DataError, nearest

HELD, NOT_HELD, UNDECIDED, NOT_TESTABLE = "held", "not held", "undecided", "not testable here"
RULES = ("above", "below", "within", "outside")
COLUMNS = ["claim", "mode", "paper_value", "here_value", "low", "high", "verdict", "why", "study"]


def numbers(path: Path | None = None) -> pd.DataFrame:
    """Return the paper's numbers, indexed by `id`: claim, paper_value, paper_text, mark, source, rule, criterion.

    >>> numbers().loc["signature-within", "paper_value"].item()
    0.285
    """
    path = path or paths.DATA / "paper-numbers.csv"
    table = pd.read_csv(path, index_col="id")
    if table.index.has_duplicates:
        raise DataError(f"{paths.label(path)}: id '{table.index[table.index.duplicated()][0]}' is given twice.")
    wrong = [r for r in table["rule"] if r not in RULES]
    if wrong:
        raise DataError(f"{paths.label(path)}: rule '{wrong[0]}'; {nearest(str(wrong[0]), RULES)}")
    return table


def judge(rule: str, bound: float, low: float, high: float) -> str:
    """Return the verdict of an interval by a rule.

    "above": held when the interval lies above `bound`, not held when it lies below. "below": the reverse.
    "within": held when it lies inside (-bound, bound), not held when it lies outside. "outside": the reverse.
    Otherwise "undecided": the data allow both. NaN bounds are undecided too.

    >>> judge("above", 0, 0.1, 0.3), judge("above", 0, -0.1, 0.3), judge("within", 0.1, 0.2, 0.3)
    ('held', 'undecided', 'not held')
    """
    if rule not in RULES:
        raise ValueError(f"rule is '{rule}'; {nearest(rule, RULES)}")
    if np.isnan(low) or np.isnan(high):
        return UNDECIDED
    above, below = low > bound, high < bound
    inside, outside = -bound < low and high < bound, low > bound or high < -bound
    yes, no = {"above": (above, below), "below": (below, above), "within": (inside, outside)}.get(
        rule, (outside, inside)
    )
    return HELD if yes else NOT_HELD if no else UNDECIDED


class Ledger:
    """Collects one row a claim (and mode) and refuses to finish while a claim has none.

    >>> ledger = Ledger("demo")
    >>> ledger.add("signature-within", (0.3, 0.2, 0.4), mode="cross-fitted").verdict
    'held'
    >>> ledger.absent("semantic-range", "the study has no question texts").verdict
    'not testable here'
    """

    def __init__(self, study: str, table: pd.DataFrame | None = None) -> None:
        self.study = study
        self.numbers = numbers() if table is None else table
        self.rows: list[tuple[str, pd.Series]] = []

    def _add(self, claim: str, mode: str, here, low, high, verdict: str, why: str) -> pd.Series:
        if claim not in self.numbers.index:
            raise DataError(f"data/paper-numbers.csv has no claim '{claim}'; {nearest(claim, self.numbers.index)}")
        if any(c == claim and r["mode"] == mode for c, r in self.rows):
            raise DataError(f"claim '{claim}' ({mode or 'no mode'}) was judged already.")
        entry = self.numbers.loc[claim]
        values = [entry["claim"], mode, entry["paper_value"], here, low, high, verdict, why, self.study]
        row = pd.Series(values, index=COLUMNS, name=claim)
        self.rows.append((claim, row))
        return row

    def add(self, claim: str, estimate: Sequence[float], *, mode: str = "", why: str = "") -> pd.Series:
        """Judge an estimate (value, low, high) by the claim's own rule; `why` is added to the criterion."""
        here, low, high = map(float, estimate[:3])
        entry = self.numbers.loc[claim] if claim in self.numbers.index else None
        verdict = "" if entry is None else judge(entry["rule"], entry["bound"], low, high)
        reason = "" if entry is None else f"criterion: {entry['criterion']}"
        if np.isnan(low) or np.isnan(high):
            reason += "; no interval could be computed"
        return self._add(claim, mode, here, low, high, verdict, f"{reason}. {why}".strip() if why else reason)

    def absent(self, claim: str, why: str) -> pd.Series:
        """Say why a claim cannot be tested in this study."""
        return self._add(claim, "", np.nan, np.nan, np.nan, NOT_TESTABLE, why)

    def table(self) -> pd.DataFrame:
        """Return all rows in the order of the paper's numbers; DataError when a claim has none."""
        judged = {claim for claim, _ in self.rows}
        missing = [c for c in self.numbers.index if c not in judged]
        if missing:
            raise DataError(f"no verdict for claim '{missing[0]}' ({len(missing)} in all); add or declare it absent.")
        order = {claim: i for i, claim in enumerate(self.numbers.index)}
        rows = sorted(self.rows, key=lambda item: order[item[0]])
        return pd.DataFrame([row for _, row in rows], columns=COLUMNS, index=[c for c, _ in rows]).rename_axis("id")
