"""Starting tables of a study whose models and files a reader names."""

import json

import pandas as pd
import pytest
import yaml

from helpers import adapt, preparation, provenance, runner, scores, studies
from helpers.errors import DataError, StudyError

NAMES = [f"m{i}" for i in range(8)]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes and loads a study of eight models that nobody loads, and its files."""
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path / "results"))
    (tmp_path / "one.txt").write_text("the cat sat on the mat")
    (tmp_path / "two.txt").write_text("the dog lay on the rug by the door")
    rows = [f"{m},{b},{0.1 * i + 0.01 * len(b):.2f},50" for i, m in enumerate(NAMES) for b in ("py-a", "py-b", "qa")]
    (tmp_path / "scores.csv").write_text("\n".join(["model,benchmark,score,n_items", *rows]) + "\n")
    asked = [{"benchmark": "qa", "question": f"q{i}?", "choices": ["yes", "no"], "answer": 0, "format": "cloze"} for i in range(3)]  # fmt: skip
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(q) + "\n" for q in asked))

    def study(text: str = "one.txt", **benchmarks) -> studies.Study:
        content = {
            "name": "mine", "title": "mine", "description": "Mine.",
            "models": {"kind": "list", "entries": [{"name": n, "source": "folder", "id": n} for n in NAMES]},
            "corpus": {"kind": "files", "sources": [str(tmp_path / text)]},
            "benchmarks": benchmarks or {"kind": "none"}, "notebooks": {"meet-the-study": {}},
        }  # fmt: skip
        (tmp_path / "mine.yml").write_text(yaml.safe_dump(content))
        return studies.load(tmp_path / "mine.yml")

    study.files = {"kind": "files", "scores": str(tmp_path / "scores.csv")}
    study.asked = {"questions": str(tmp_path / "asked.jsonl")}
    return study


def test_functions_and_formats_come_from_the_study_and_its_questions(write):
    study = write(**write.files, **write.asked, functions={"code": ["py-*"]})
    preparation.prepare(study)
    table = provenance.read_table(study.results / "benchmarks.csv").set_index("benchmark")
    assert table["function"].to_dict() == {"py-a": "code", "py-b": "code", "qa": "qa"}
    assert table["format"].to_dict() == {"py-a": "unknown", "py-b": "unknown", "qa": "cloze"}
    assert table["usable"].all() and table["n_items"].eq(50).all()
    scored = provenance.read_table(study.results / "scores.csv")
    expected = (scored["score"] * (1 - scored["score"]) / 50) ** 0.5
    assert scored["stderr"].tolist() == pytest.approx(expected.tolist()), "the items of an own study give its errors"


def test_only_rows_about_the_study_s_models_count(write, tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(path.read_text() + f"z/none,qa,oops,50\nz/none,qa,0.4,50\n{NAMES[0].upper()},qa,0.9,50\n")
    with pytest.raises(DataError, match="all mean"):
        preparation.prepare(write(**write.files))
    path.write_text(path.read_text().rsplit("\n", 2)[0] + "\n")
    with pytest.warns(scores.ScoreNote, match="'z/none' is not in the study"):
        preparation.prepare(write(**write.files))


@pytest.mark.parametrize(
    ("functions", "message"),
    [({"code": ["pi-a"]}, "no benchmark 'pi-a'; did you mean 'py-a'"), ({"a": ["qa"], "b": ["q*"]}, "both 'a' and 'b'")],
)  # fmt: skip
def test_functions_that_fit_nothing_or_twice_are_refused(write, functions, message):
    with pytest.raises(StudyError, match=message):
        preparation.prepare(write(**write.files, functions=functions))


def test_what_an_earlier_version_of_the_study_left_is_not_read(write):
    study = write(**write.files, **write.asked)
    preparation.prepare(study)
    matrix = study.results / "surprisal.parquet"
    values = pd.DataFrame({"m0": [1.0] * 6}, index=pd.RangeIndex(6, name="unit_id"))
    provenance.write_table(matrix, values, inputs=[study.results / "units.parquet"])
    preparation.prepare(study)
    assert matrix.exists() and (study.results / "questions.parquet").exists()
    preparation.prepare(write("two.txt", **write.files))  # another text, no questions any more
    assert not matrix.exists() and not provenance.sidecar(matrix).exists()
    assert not (study.results / "questions.parquet").exists() and (study.results / "scores.csv").exists()
    preparation.prepare(write("two.txt"))
    assert not (study.results / "scores.csv").exists()


def test_a_changed_checkpoint_or_text_runs_the_notebooks_again(tiny):
    study = studies.load(tiny.study(models=1))
    before = runner.data_files(study)
    weights = tiny.root / "model-0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    changed = runner.data_files(study)
    assert {k for k in before if before[k] != changed[k]} == {"model m0"}
    (tiny.root / "corpus.jsonl").write_text('{"text": "another"}\n')
    assert {k for k in before if changed[k] != runner.data_files(study)[k]} == {"source 1: corpus.jsonl"}


def test_the_scaffold_is_prepared_as_it_stands_and_stays_small(tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path / "results"))
    study = studies.load(adapt.new_study("my-study", tmp_path))
    preparation.prepare(study)
    units = provenance.read_table(study.results / "units.parquet")
    assert 5_000 < len(units) < 40_000, "a first run must take a minute, not a quarter of an hour"


def test_sizes_are_stated_or_counted(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path / "results"))
    path = tiny.study(models=1)
    content = json.loads(path.read_text())
    folder = content["models"]["entries"][0] | {"family": "a"}
    content["models"]["entries"] = [
        folder,
        {"name": "stated", "source": "hub", "id": "no/such", "parameters": 0.5},
        {"name": "lab", "source": "lab", "id": "lab-48x2-0"},
        {"name": "unknown", "source": "hub", "id": "no/such"},
    ]
    path.write_text(json.dumps(content))
    study = studies.load(path)
    preparation.prepare(study)
    sizes = provenance.read_table(study.results / "models.csv").set_index("model")["parameters"]
    assert sizes["m0"] == sum(p.numel() for p in tiny.model(0).parameters())
    assert sizes["stated"] == 5e8 and 1e4 < sizes["lab"] < 1e6 and pd.isna(sizes["unknown"])
