"""Extraction: shards, resume after kills, damage, changed inputs; the matrix is the same bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from helpers import alignment, corpora, extraction, models, perplexity, provenance, studies
from helpers.errors import DataError, ModelError, StaleArtifactError, StudyError

RUN = "import sys; from helpers import extraction, studies; extraction.extract(studies.load(sys.argv[1]))"


@pytest.fixture
def small(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))

    def make(**options) -> studies.Study:
        study = studies.load(tiny.study(**options))
        corpora.prepare(study)
        return study

    return make


def matrix(study) -> pd.DataFrame:
    return provenance.read_table(study.results / "surprisal.parquet")


def test_matrix_is_what_the_parts_give(small):
    study = small()
    report = extraction.extract(study)
    got, units = matrix(study), provenance.read_table(study.results / "units.parquet")
    assert list(got) == ["m0", "m1"] and got.index.equals(units.index) and (got.dtypes == np.float32).all()
    assert report["shards"].tolist() == report["computed"].tolist() == [4, 4]
    assert (report["tokens"] > len(units)).all()
    for name, entry in zip(got, study.models.entries):
        loaded = models.load(entry)
        for document in corpora.documents(study).itertuples():
            own = units[units["doc_id"] == document.doc_id]
            [(spans, nats)] = perplexity.token_surprisal(
                loaded.model, loaded.tokenizer, [document.text], window=32, stride=16
            )
            wanted = alignment.attribute(spans, nats, own[["start", "end"]].to_numpy(), text=document.text)
            assert np.abs(got.loc[own.index, name] - wanted).max() < 1e-3
            assert abs(got.loc[own.index, name].sum() - nats.sum()) < 1e-3  # float32 shards


def test_nothing_changed_computes_nothing(small):
    study = small()
    extraction.extract(study)
    before = (study.results / "surprisal.parquet").read_bytes()
    report = extraction.extract(study)
    assert report["computed"].tolist() == [0, 0]
    assert (study.results / "surprisal.parquet").read_bytes() == before


def test_damaged_shards_are_redone_and_reported(small):
    study = small()
    extraction.extract(study)
    before = (study.results / "surprisal.parquet").read_bytes()
    cut = extraction.shard_path(study, "m0", 1)
    cut.write_bytes(cut.read_bytes()[:100])
    provenance.sidecar(extraction.shard_path(study, "m1", 2)).unlink()
    extraction.shard_path(study, "m1", 3).unlink()
    (cut.parent / ".00001.parquet.abc.part").write_bytes(b"half a shard")  # of a killed run
    report = extraction.extract(study).set_index("model")
    assert report["computed"].tolist() == [1, 2]
    assert "differs from the sha256" in report.loc["m0", "redone"]
    assert "no provenance" in report.loc["m1", "redone"]
    assert (study.results / "surprisal.parquet").read_bytes() == before
    assert not list(study.results.rglob("*.part"))


def test_a_changed_document_redoes_its_block_only(small, tmp_path):
    study = small()
    extraction.extract(study)
    lines = (tmp_path / "corpus.jsonl").read_text().splitlines()
    lines[4] = '{"text": "a changed document"}'
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    with pytest.raises(StaleArtifactError, match="earlier version"):
        extraction.extract(study)
    corpora.prepare(study)
    report = extraction.extract(study)
    assert report["computed"].tolist() == [1, 1]
    assert report["redone"].str.contains("other parameters").all()


def test_changed_weights_redo_their_model_only(small, tiny):
    study = small()
    extraction.extract(study)
    before = matrix(study)
    tiny.folder("model-1", seed=99)
    report = extraction.extract(study)
    assert report["computed"].tolist() == [0, 4]
    assert matrix(study)["m0"].equals(before["m0"]) and not matrix(study)["m1"].equals(before["m1"])


def test_processes_give_the_same_matrix(small):
    study = small(documents=8)
    extraction.extract(study, workers=1)
    alone = matrix(study)
    for path in (study.results / "surprisal").rglob("*.parquet"):
        path.unlink()
    report = extraction.extract(study, workers=2)
    assert (report["computed"] == 3).all()
    pd.testing.assert_frame_equal(alone, matrix(study), rtol=0, atol=1e-4)


def test_kills_at_random_moments_change_nothing(small, tiny):
    """SIGKILL two runs; the matrix and every shard equal those of an undisturbed run, bit for bit."""
    study = small(documents=60)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", RUN, str(tiny.root / "small.yml")]
    shards = study.results / "surprisal"
    for kill in range(2):
        run = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        done = len(list(shards.rglob("*.json")))
        while run.poll() is None and len(list(shards.rglob("*.json"))) < done + 3:
            time.sleep(0.001)
        time.sleep(random.Random(kill).uniform(0, 0.05))
        run.send_signal(signal.SIGKILL)
        run.wait()
    finished = len(list(shards.rglob("*.json")))
    assert not (study.results / "surprisal.parquet").exists() and finished >= 2
    report = extraction.extract(study)
    assert 0 < report["computed"].sum() < report["shards"].sum()  # went on instead of starting again
    resumed = (study.results / "surprisal.parquet").read_bytes()
    for path in shards.rglob("*.parquet"):
        path.unlink()
    assert extraction.extract(study)["kept"].sum() == 0
    assert (study.results / "surprisal.parquet").read_bytes() == resumed


def test_a_full_disk_keeps_what_was_finished(small, monkeypatch):
    study = small()
    write, count = extraction.pq.write_table, []

    def full(*args, **kwargs):
        count.append(1)
        if len(count) > 3:
            raise OSError(28, "No space left on device")
        return write(*args, **kwargs)

    monkeypatch.setattr(extraction.pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        extraction.extract(study)
    assert not list((study.results / "surprisal").rglob("*.part"))
    monkeypatch.setattr(extraction.pq, "write_table", write)
    assert extraction.extract(study)["kept"].sum() == 3


def test_nan_names_model_and_document_and_keeps_the_rest(small, tiny):
    study = small()
    model = tiny.model(1)
    model.lm_head.weight.data[:] = float("nan")
    model.save_pretrained(tiny.root / "model-1")
    with pytest.raises(ModelError, match=r"model m1 gives surprisal nan .* document '.*corpus.jsonl:1'"):
        extraction.extract(study)
    assert len(list((study.results / "surprisal" / "m0").glob("*.parquet"))) == 4
    assert not (study.results / "surprisal.parquet").exists()


def test_paper_mode_extracts_last_tokens(small):
    study = small(models=1, documents=2, mode="paper", context_pieces=4)
    extraction.extract(study)
    loaded = models.load(study.models.entries[0])
    document = corpora.documents(study).iloc[1]
    units = provenance.read_table(study.results / "units.parquet")
    own = units[units["doc_id"] == document["doc_id"]]
    spans = own[["start", "end"]].to_numpy()
    found = perplexity.paper_surprisal(
        loaded.model, loaded.tokenizer, document["text"], spans, context_pieces=4
    )
    assert np.abs(matrix(study).loc[own.index, "m0"] - found["last"]).max() < 1e-4


def test_paper_mode_gives_the_released_codes_form(small):
    """The released code stores the log-probability of the last token; the paper's word is its perplexity."""
    study = small(models=1, documents=2, mode="paper", context_pieces=4)
    extraction.extract(study)
    nats = matrix(study)["m0"].to_numpy(dtype=float)
    assert np.array_equal(extraction.read_matrix(study, "log-probability")["m0"], -nats)
    assert np.allclose(extraction.read_matrix(study, "perplexity")["m0"], np.exp(nats))
    assert np.array_equal(extraction.read_matrix(study)["m0"], nats)
    with pytest.raises(DataError, match="give one of surprisal"):
        extraction.read_matrix(study, "logits")
    with pytest.raises(DataError, match="no perplexity"):
        perplexity.in_form([701.0], "perplexity")


def test_blocks_of_the_matrix_stream(small):
    study = small()
    extraction.extract(study)
    parts = list(extraction.surprisal_blocks(study))
    assert len(parts) == 4
    pd.testing.assert_frame_equal(pd.concat(parts), matrix(study))


def test_units_of_another_corpus_are_refused(small):
    study = small()
    units = provenance.read_table(study.results / "units.parquet")
    provenance.write_table(study.results / "units.parquet", units.iloc[::-1])
    with pytest.raises(DataError, match="order of the documents"):
        extraction.extract(study)


def test_published_matrices_are_not_extracted():
    with pytest.raises(StudyError, match="measured elsewhere"):
        extraction.entries(studies.load("lab").model_copy(update={"models": studies.Models(kind="table")}))
