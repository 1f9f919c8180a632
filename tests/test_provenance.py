"""Artifacts: round trip, refusal of stale and damaged files, atomic writing."""

import json
import os
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from helpers import paths, provenance
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
    assert known["inputs"] == {"./source.txt": provenance.sha256_file(source)}
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


def test_results_can_be_moved_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path / "here"))
    units, other = tmp_path / "here" / "lab" / "units.csv", tmp_path / "here" / "dclm" / "units.csv"
    for path in (units, other):
        provenance.write_table(path, pd.DataFrame({"x": [1]}))
    target = tmp_path / "here" / "lab" / "overlap" / "signature.parquet"
    provenance.write_table(target, pd.DataFrame({"x": [1]}), inputs=[units, other, paths.LOCK])
    assert set(json.loads(provenance.sidecar(target).read_text())["inputs"]) == {
        "../units.csv",
        "../../dclm/units.csv",
        "requirements.lock",
    }
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / "lab" / "overlap" / "signature.parquet"
    assert provenance.stale_reason(moved) is None  # whether or not the settings say where results lie now
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path / "there"))
    assert provenance.stale_reason(moved) is None
    (tmp_path / "there" / "dclm" / "units.csv").write_text("x\n2\n")
    assert "earlier version of results:dclm/units.csv" in provenance.stale_reason(moved)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "null",
        "{}",
        '{"sha256": 1, "inputs": {}, "parameters": {}}',
        "[" * 9999,
        "\udce9",
        '{"sha256": "x", "inputs": [1], "parameters": {}}',
    ],
)
def test_sidecars_of_another_shape_are_refused(made, text):
    _, target, _ = made
    provenance.sidecar(target).write_text(text, errors="surrogateescape")
    with pytest.raises(StaleArtifactError, match="not valid JSON|not a provenance file"):
        provenance.read_table(target)


def test_a_digest_follows_the_content_whatever_the_times(tmp_path):
    path = tmp_path / "x"
    seen = set()
    for text in ("one", "two", "six"):
        path.write_text(text)
        os.utime(path, (1, 1))
        seen.add(provenance.sha256_file(path))
    assert len(seen) == 3


def test_one_process_holds_a_study_and_the_next_waits(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    code = "from helpers import provenance\nwith provenance.lock(['b', 'a']): print('mine', flush=True)"
    with provenance.lock(["a", "a"]):
        other = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        said = other.stderr.readline()
        assert f"Study 'a' is being run by process {os.getpid()} since" in said
        assert other.poll() is None
    shown, _ = other.communicate(timeout=30)
    assert shown == "mine\n"
