"""Extraction: shards, resume after kills, damage, changed inputs; the matrix is the same bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from helpers import alignment, corpora, extraction, models, perplexity, provenance, studies
from helpers.errors import DataError, ModelError, StaleArtifactError, StudyError, UnavailableError


def extract_there(path: str, results: str) -> None:
    """Extract in a process of its own, as `make study` does."""
    os.environ |= {"COMPANION_RESULTS": results, "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    with open(os.devnull, "w") as sink:
        os.dup2(sink.fileno(), 2)  # progress bars
    extraction.extract(studies.load(path))


def hold(path: str, results: str) -> None:
    """Come to the first shard of an extraction and stay there."""
    os.environ["COMPANION_RESULTS"] = results
    study = studies.load(path)

    def wait(*_):
        (study.results / "held").touch()
        time.sleep(60)

    extraction.measure = wait
    extraction.extract(study, workers=1)


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


def test_processes_give_the_same_matrix(small, forkserver):
    study = small(documents=8)
    extraction.extract(study, workers=1)
    alone = matrix(study)
    for path in (study.results / "surprisal").rglob("*.parquet"):
        path.unlink()
    report = extraction.extract(study, workers=2)
    assert (report["computed"] == 3).all()
    pd.testing.assert_frame_equal(alone, matrix(study), rtol=0, atol=1e-4)


def test_kills_at_random_moments_change_nothing(small, tiny, tmp_path, forkserver, monkeypatch):
    """SIGKILL four runs; the matrix and every shard equal those of an undisturbed run, bit for bit."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import test_extraction as itself

    study = small(documents=60)
    shards = study.results / "surprisal"
    for kill in range(4):
        run = forkserver.Process(target=itself.extract_there, args=(str(tiny.root / "small.yml"), str(tmp_path)))
        run.start()
        done = len(list(shards.rglob("*.json")))
        while run.is_alive() and len(list(shards.rglob("*.json"))) < done + 3:
            time.sleep(0.001)
        time.sleep(random.Random(kill).uniform(0, 0.05))
        run.kill()
        run.join()
        assert run.exitcode == -signal.SIGKILL
    finished = len(list(shards.rglob("*.json")))
    assert not (study.results / "surprisal.parquet").exists() and finished >= 2
    report = extraction.extract(study)
    assert 0 < report["computed"].sum() < report["shards"].sum()  # went on instead of starting again
    resumed = (study.results / "surprisal.parquet").read_bytes()
    for path in shards.rglob("*.parquet"):
        path.unlink()
    assert extraction.extract(study)["kept"].sum() == 0
    assert (study.results / "surprisal.parquet").read_bytes() == resumed


def test_a_second_extraction_of_a_study_is_refused_and_a_killed_one_is_not_in_the_way(
    small, forkserver, monkeypatch, tmp_path
):
    """An orphan once wrote its shards over those of a later run."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import test_extraction as itself

    study = small(models=1)
    held = forkserver.Process(target=itself.hold, args=(str(tmp_path / "small.yml"), str(tmp_path)))
    held.start()
    while not (study.results / "held").exists():
        assert held.is_alive(), f"the process that should hold the study ended with {held.exitcode}"
        time.sleep(0.01)
    with pytest.raises(UnavailableError, match=rf"study 'small' is being extracted by process {held.pid}, since \d"):
        extraction.extract(study)
    assert not list((study.results / "surprisal").rglob("*.parquet"))
    held.kill()
    held.join()
    assert extraction.extract(study)["computed"].tolist() == [4]


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


def test_a_disk_that_fills_up_while_the_matrix_is_written_leaves_no_half_of_it(small, monkeypatch):
    study = small(models=1)
    write, count = extraction.pq.ParquetWriter.write_table, []

    def full(*args, **kwargs):
        count.append(1)
        if len(count) == 3 + 4:  # four shards, then the third of four blocks of the matrix
            raise OSError(28, "No space left on device")
        return write(*args, **kwargs)

    monkeypatch.setattr(extraction.pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        extraction.extract(study)
    assert not (study.results / "surprisal.parquet").exists() and not list(study.results.rglob("*.part"))
    monkeypatch.setattr(extraction.pq.ParquetWriter, "write_table", write)
    assert extraction.extract(study)["kept"].tolist() == [4] and len(matrix(study))


def test_nan_names_model_and_document_and_keeps_the_rest(small, tiny):
    study = small()
    model = tiny.model(1)
    model.lm_head.weight.data[:] = float("nan")
    model.save_pretrained(tiny.root / "model-1")
    with pytest.raises(ModelError, match=r"model m1 gives surprisal nan .* document '.*corpus.jsonl:1'"):
        extraction.extract(study)
    assert len(list((study.results / "surprisal" / "m0").glob("*.parquet"))) == 4
    assert not (study.results / "surprisal.parquet").exists()


def test_a_model_that_cannot_be_had_stops_the_run_before_it_starts(small, tiny, monkeypatch):
    """A gated model at the end of the list must not show after a night."""
    from huggingface_hub.errors import GatedRepoError

    class Response:
        headers: dict = {}  # noqa: RUF012
        request = None
        status_code = 403

    def gated(name, **options):
        raise GatedRepoError("accept the terms", response=Response())

    study = small(models=1)
    last = studies.ModelEntry(name="last", source="hub", id="owner/gated")
    wanted = study.models.model_copy(update={"entries": (*study.models.entries, last)})
    monkeypatch.setattr(models.AutoConfig, "from_pretrained", gated)
    with pytest.raises(ModelError, match=r"last \(hub owner/gated\): the model is gated: accept its terms"):
        extraction.extract(study.model_copy(update={"models": wanted}))
    assert not (study.results / "surprisal").exists()


def test_exact_and_fast_shards_never_mix(small, tiny, monkeypatch):
    """`precision: fast` is refused where it gains nothing, has shards of its own, of one kind of processor only."""
    study = small(models=1)
    extraction.extract(study)
    fast = small(models=1, precision="fast")
    monkeypatch.setattr(perplexity, "fast_products", lambda device: "float32")
    with pytest.raises(UnavailableError, match=r"precision is 'fast', but this processor .* Leave the key out"):
        extraction.extract(fast)
    asked, given = [], perplexity.surprisal_of_ids
    monkeypatch.setattr(perplexity, "surprisal_of_ids", lambda *a, **k: asked.append(k["precision"]) or given(*a, **k))
    monkeypatch.setattr(perplexity, "fast_products", lambda device: "bfloat16")
    report = extraction.extract(fast)
    assert report["computed"].tolist() == [4] and "other parameters" in report["redone"].iloc[0]
    assert asked == ["fast"] * 4 and extraction.extract(fast)["computed"].tolist() == [0]
    known = provenance.sidecar(fast.results / "surprisal.parquet").read_text()
    assert '"products": "bfloat16"' in known and '"precision": "fast"' in known
    extraction.shard_path(fast, "m0", 2).unlink()
    monkeypatch.setattr(perplexity, "fast_products", lambda device: "TF32")
    with pytest.raises(DataError, match="multiplied in TF32, others in bfloat16"):
        extraction.extract(fast)
    monkeypatch.setattr(perplexity, "surprisal_of_ids", given)
    assert extraction.extract(study)["computed"].tolist() == [4]  # and the exact ones again


def test_paper_mode_takes_the_precision_of_the_study(small, monkeypatch):
    study = small(models=1, documents=1, mode="paper", context_pieces=2, precision="fast")
    asked, given = [], perplexity.paper_surprisal
    monkeypatch.setattr(perplexity, "fast_products", lambda device: "bfloat16")
    monkeypatch.setattr(perplexity, "paper_surprisal", lambda *a, **k: asked.append(k["precision"]) or given(*a, **k))
    extraction.extract(study)
    assert asked == ["fast"]


def test_fast_products_of_a_bfloat16_model_are_refused(tiny):
    with pytest.raises(StudyError, match=r"extraction: .*'precision: fast' rounds .* drop one"):
        studies.load(tiny.study(models=1, precision="fast", dtype="bfloat16"))


def test_paper_mode_extracts_last_tokens(small):
    study = small(models=1, documents=2, mode="paper", context_pieces=4)
    extraction.extract(study)
    loaded = models.load(study.models.entries[0])
    document = corpora.documents(study).iloc[1]
    units = provenance.read_table(study.results / "units.parquet")
    own = units[units["doc_id"] == document["doc_id"]]
    spans = own[["start", "end"]].to_numpy()
    found = perplexity.paper_surprisal(loaded.model, loaded.tokenizer, document["text"], spans, context_pieces=4)
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
