"""Verdicts: rules by hand, nothing judged twice, nothing left without a verdict."""

import numpy as np
import pytest

from helpers import claims
from helpers.errors import DataError


@pytest.mark.parametrize(
    ("rule", "bound", "low", "high", "expected"),
    [
        ("above", 0.5, 0.6, 0.9, claims.HELD),
        ("above", 0.5, 0.1, 0.4, claims.NOT_HELD),
        ("above", 0.5, 0.4, 0.6, claims.UNDECIDED),
        ("below", 0.5, 0.1, 0.4, claims.HELD),
        ("below", 0.5, 0.6, 0.9, claims.NOT_HELD),
        ("within", 0.1, -0.05, 0.05, claims.HELD),
        ("within", 0.1, -0.4, -0.2, claims.NOT_HELD),
        ("within", 0.1, -0.2, 0.05, claims.UNDECIDED),
        ("outside", 0.1, 0.2, 0.4, claims.HELD),
        ("outside", 0.1, 0.0, 0.0, claims.NOT_HELD),
        ("above", 0.5, np.nan, np.nan, claims.UNDECIDED),
    ],
)
def test_rules(rule, bound, low, high, expected):
    assert claims.judge(rule, bound, low, high) == expected


def test_every_number_has_a_rule_a_mark_and_a_source():
    table = claims.numbers()
    assert set(table["rule"]) <= set(claims.RULES)
    assert set(table["mark"]) <= {"KNOWN", "DERIVED"}  # nothing inferred or unknown is given as the paper's
    assert table[["claim", "paper_text", "source", "bound", "criterion"]].notna().all().all()


def test_a_ledger_is_finished_only_when_every_claim_has_a_verdict():
    ledger = claims.Ledger("demo")
    first, *others = claims.numbers().index
    ledger.add(first, (0.3, 0.2, 0.4), mode="paper mode")
    ledger.add(first, (0.3, np.nan, np.nan), mode="cross-fitted")
    with pytest.raises(DataError, match="no verdict for claim"):
        ledger.table()
    for claim in others:
        ledger.absent(claim, "a reason")
    table = ledger.table()
    assert table.loc[first, "verdict"].tolist() == [claims.HELD, claims.UNDECIDED]
    assert (table.loc[others, "verdict"] == claims.NOT_TESTABLE).all()
    assert (table["study"] == "demo").all() and list(table.columns) == claims.COLUMNS


def test_a_ledger_refuses_repeats_and_unknown_claims():
    ledger = claims.Ledger("demo")
    ledger.absent("semantic-range", "a reason")
    with pytest.raises(DataError, match="judged already"):
        ledger.absent("semantic-range", "another")
    with pytest.raises(DataError, match="did you mean 'semantic-range'"):
        ledger.add("semantic-rang", (0, 0, 0))
