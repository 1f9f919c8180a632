"""Artifacts: round trip, refusal of stale and damaged files, atomic writing."""

import json

import pandas as pd
import pytest

from helpers import provenance
from helpers.errors import StaleArtifactError


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    source = tmp_path / "source.txt"
    source.write_text("one")
    target = tmp_path / "table.parquet"
    frame = pd.DataFrame({"x": [1.5, 2.5]})
    provenance.write_table(target, frame, inputs=[source], parameters={"ratio": 0.01}, seconds=1.0)
    return source, target, frame


def test_round_trip_and_sidecar(made):
    source, target, frame = made
    pd.testing.assert_frame_equal(provenance.read_table(target), frame)
    known = json.loads(provenance.sidecar(target).read_text())
    assert known["inputs"] == {"results:source.txt": provenance.sha256_file(source)}
    assert provenance.stale_reason(target, {"ratio": 0.01}) is None
    assert "other parameters" in provenance.stale_reason(target, {"ratio": 0.02})


def test_changed_input_is_refused(made):
    source, target, _ = made
    source.write_text("two")
    with pytest.raises(StaleArtifactError, match="earlier version of results:source.txt"):
        provenance.read_table(target)
    source.unlink()
    with pytest.raises(StaleArtifactError, match="is gone"):
        provenance.read_table(target)


def test_damage_and_missing_sidecar_are_refused(made):
    _, target, _ = made
    content = target.read_bytes()
    target.write_bytes(content[:-1] + b"?")
    with pytest.raises(StaleArtifactError, match="damaged or edited"):
        provenance.read_table(target)
    target.write_bytes(content)
    provenance.sidecar(target).write_text("{")
    with pytest.raises(StaleArtifactError, match="not valid JSON"):
        provenance.read_table(target)
    provenance.sidecar(target).unlink()
    with pytest.raises(StaleArtifactError, match="no provenance file"):
        provenance.read_table(target)


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        provenance.write_atomic(target, fail)
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_only_parquet_and_csv(tmp_path):
    with pytest.raises(ValueError, match="'.pkl'"):
        provenance.write_table(tmp_path / "x.pkl", pd.DataFrame())
