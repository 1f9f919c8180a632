"""Passages: the right neighbours, the right numbers, nothing of the text taken as markup."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from helpers import passages
from helpers.errors import DataError

UNITS = pd.DataFrame(
    {
        "doc_id": [0] * 5 + [1] * 2,
        "source": "wild & free",
        "start": [0, 4, 8, 12, 16, 0, 5],
        "text": ["zero", "one", "<b>two</b>", "three", "four", "five", "six"],
    },
    index=pd.RangeIndex(10, 17, name="unit_id"),
)
NATS = pd.DataFrame({"good": np.arange(7.0), "bad": np.arange(7.0) * 2}, index=UNITS.index)


def test_context_stays_in_the_document_and_in_order():
    assert passages.context(UNITS, 12, reach=1)["text"].tolist() == ["one", "<b>two</b>", "three"]
    assert passages.context(UNITS.iloc[::-1], 14, reach=9)["text"].tolist()[-1] == "four"
    assert passages.context(UNITS, 15, reach=3).index.tolist() == [15, 16]


def test_show_escapes_marks_and_scales():
    page = passages.show(UNITS, NATS, [12], ["good", "bad"], reach=1, caption="a < b").data
    assert "<b>two" not in page and "<u>&lt;b&gt;two&lt;/b&gt;</u>" in page
    assert "a &lt; b" in page and "wild &amp; free" in page
    assert re.findall(r'title="([\d.]+) nats"', page) == ["1.0", "2.0", "3.0", "2.0", "4.0", "6.0"]
    depths = [float(d) for d in re.findall(r", ([\d.]+)\)", page)]
    assert depths == sorted(depths[:3]) + sorted(depths[3:]) and max(depths) == passages.OPACITY
    nats = NATS.copy()
    nats.loc[11, "good"] = np.nan
    assert 'title="not measured"' in passages.show(UNITS, nats, [12], ["good"], reach=1).data


@pytest.mark.parametrize(
    "units, ids, models, message",
    [
        (UNITS, [99], ["good"], "no unit 99"),
        (UNITS.drop(columns="text"), [12], ["good"], "no text to show"),
        (UNITS, [12], ["goood"], "did you mean 'good'"),
        (UNITS, [], ["good"], "signature is empty"),
    ],
)
def test_bad_input_is_named(units, ids, models, message):
    with pytest.raises(DataError, match=message):
        passages.show(units, NATS, ids, models)
