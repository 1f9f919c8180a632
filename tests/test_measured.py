"""The page of measurements: its sentences follow the numbers, and nothing is told that was not measured."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers import measured
from helpers.errors import DataError


def extraction(ratio: float, gap: float = 1e-5) -> pd.DataFrame:
    base = {
        "part": "methods",
        "setting": "mixed",
        "tokens": 100,
        "rounds": 3,
        "megabytes": 5,
        "products": "float32",
    }
    base |= {"date": "2026-01-01", "machine": "a CPU"}
    rows = [
        ("methods", "plain loop", 1.0, 0.0),
        ("methods", "engine exact", ratio, gap),
        ("methods", "minicons", 0.5, 1e-5),
        ("rounding", "bfloat16 products, imitated", None, 0.01),
        ("rounding", "int8 trunk", 1.2, 0.9),
    ]
    return pd.DataFrame(
        base
        | {
            "part": p,
            "method": m,
            "ratio": r,
            "ratio_low": r,
            "ratio_high": r,
            "tokens_per_second": 10,
            "mean_gap": g,
            "largest_gap": g,
        }
        for p, m, r, g in rows
    )


def test_sentences_follow_the_numbers(tmp_path):
    extraction(1.2).to_csv(tmp_path / "extraction.csv", index=False)
    text = measured.page(tmp_path)
    assert "faster than the plain loop** (1.20 times)" in text and "within 1e-4" in text
    assert "2.4 times as fast as minicons" in text and "not reached" in text
    assert "0.010 nats on average, inside" in text and "too far for any use" in text
    assert "speed has not been measured" in text
    extraction(0.8, gap=0.5).to_csv(tmp_path / "extraction.csv", index=False)
    text = measured.page(tmp_path)
    assert "slower than the plain loop" in text and "NOT within" in text
    extraction(2.5).to_csv(tmp_path / "extraction.csv", index=False)
    assert "is reached." in measured.page(tmp_path)


def test_what_was_not_measured_is_said(tmp_path):
    text = measured.page(tmp_path)
    assert "kill_extraction.py 50`" in text and text.count("Not measured yet") == 2 and "identical" not in text


def test_a_ratio_carries_its_range_and_the_tokens_are_said_once(tmp_path):
    table = extraction(1.2).assign(ratio_low=1.1, ratio_high=1.3).head(2)
    table["part"] = "lengths"
    table["setting"] = 1024
    table.to_csv(tmp_path / "extraction.csv", index=False)
    text = measured.page(tmp_path)
    assert "1.20 (1.10 to 1.30)" in text and text.count("100 tokens each time") == 1


def test_a_matrix_that_differs_is_told(tmp_path):
    row = {
        "kills": 50,
        "shards": 9,
        "runs_finished_between": 2,
        "identical": False,
        "temporary_files_left": 0,
    }
    pd.DataFrame([row | {"date": "2026-01-01"}]).to_csv(tmp_path / "kills.csv", index=False)
    assert "**DIFFERENT**" in measured.page(tmp_path)


def test_tables_without_date_are_refused(tmp_path):
    (tmp_path / "traces.csv").write_text("part\nways\n")
    with pytest.raises(DataError, match="no row or no date"):
        measured.page(tmp_path)


def test_the_committed_measurements_make_a_page():
    text = measured.page()
    assert text.startswith("# Extraction, measured") and "nan" not in text.lower().split()
