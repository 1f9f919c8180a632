"""Every key of a study file acts: changing it changes an artifact, a computed value, or is an error.

``CHECKS`` has one entry for each field of the model; the walk fails for a field without one. A check computes something
with the study file as it is and with the key changed; the two must differ (or the change must be refused).
"""

import ast
import copy
import io
import json
import re

import jupytext
import numpy as np
import pandas as pd
import pytest
import yaml
from pydantic import BaseModel

from helpers import (
    atlas,
    corpora,
    figures,
    figures_pairs,
    fragments,
    overlap,
    paths,
    placement,
    preparation,
    provenance,
    runner,
    selection,
    studies,
    validation,
)
from helpers.errors import CompanionError, DataError, StaleArtifactError

MODELS, BENCHMARKS, UNITS = 24, 6, 400


# --- the walk -----------------------------------------------------------------------------------------------


def fields(model=studies.Study, prefix=""):
    """Yield the dotted path of every key that a study file can have; lists of models count as their entries."""
    for name, field in model.model_fields.items():
        annotation = field.annotation
        inner = [a for a in (annotation, *getattr(annotation, "__args__", ())) if isinstance(a, type) and issubclass(a, BaseModel)]  # fmt: skip
        if inner:
            yield from fields(inner[0], f"{prefix}{name}.")
        else:
            yield prefix + name


def changed(raw, path, value):
    """Return a study's content with the key at `path` set; the first entry of a list of models stands for all."""
    raw = copy.deepcopy(raw)
    place = path.split(".")
    at = raw
    for part in place[:-1]:
        at = at.setdefault(part, {})
        at = at[0] if isinstance(at, list) else at
    at[place[-1]] = value
    return raw


# --- studies ------------------------------------------------------------------------------------------------

TABLE = {
    "name": "own", "title": "t", "description": "words of the study", "seed": 1,
    "models": {"kind": "table"}, "corpus": {"kind": "table"}, "benchmarks": {"kind": "none"},
    "screening": {"ratio": 0.05}, "selection": {"max_size": 3}, "overlap": {"splits": 2},
    "inference": {"permutations": 20, "bootstraps": 20}, "notebooks": {"meet-the-study": {}},
}  # fmt: skip
LISTED = TABLE | {
    "models": {"kind": "list", "entries": [{"name": f"m{i}", "source": "hub", "id": f"o/m{i}"} for i in range(9)]},
    "corpus": {"kind": "files", "sources": ["texts/*.txt"]},
    "benchmarks": {"kind": "files", "scores": "scores.csv", "questions": "questions.jsonl"},
}
HUB = LISTED | {"corpus": {"kind": "hub", "sources": ["o/d"]}, "benchmarks": {"kind": "none"}}
LAB = LISTED | {
    "models": {"kind": "list", "entries": [{"name": "a", "source": "lab", "id": "lab-48x2-0"}]},
    "benchmarks": {"kind": "none"},
    "extraction": {"window": 64, "stride": 32},
}
TRACED = TABLE | {"traces": {"models": [{"name": "a", "source": "hub", "id": "o/a"}]}}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A project of its own: studies, texts, scores, questions and results lie in a temporary folder."""
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(paths, "STUDIES", tmp_path)
    for module in (preparation.paths, corpora.paths):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "texts").mkdir()
    for i in range(6):
        (tmp_path / "texts" / f"{i}.txt").write_text(" ".join(f"word{rng.integers(50)}" for _ in range(80)))
    (tmp_path / "other.txt").write_text("other words than those before")
    rows = [json.dumps({"text": f"a text {i}", "body": f"another body {i}"}) for i in range(3)]
    (tmp_path / "docs.jsonl").write_text("\n".join(rows))
    for name in ("scores", "scores2"):
        table = [(f"m{i}", f"b{j}", round(rng.random(), 3), 100) for i in range(9) for j in range(3)]
        pd.DataFrame(table, columns=["model", "benchmark", "score", "n_items"]).to_csv(
            tmp_path / f"{name}.csv", index=False
        )
    for name in ("questions", "questions2"):
        rows = [
            {"benchmark": f"b{j}", "question": f"{name} {j} {i}?", "answer": "x"} for j in range(3) for i in range(30)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def load(world, raw) -> studies.Study:
    path = world / f"{raw['name']}.yml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return studies.load(path)


def tables(study):
    """Write what the pages of signatures start from: surprisal with ties, scores with ties, lineages."""
    rng = np.random.default_rng(0)
    skill = rng.normal(size=(2, MODELS))
    x = rng.normal(size=(UNITS, MODELS)) + 5
    for b in range(BENCHMARKS):
        x[b * 20 : b * 20 + 20] -= 1.5 * skill[b % 2]
    names = [f"m{i:02d}" for i in rng.permutation(MODELS)]
    index = pd.Index(np.arange(UNITS), name="unit_id")
    write = provenance.write_table
    write(study.results / "surprisal.parquet", pd.DataFrame(x.round(1), index, names))
    units = {"doc_id": [f"d{i // 40}" for i in range(UNITS)], "source": "s", "start": range(UNITS), "end": range(UNITS)}
    write(study.results / "units.parquet", pd.DataFrame(units, index))
    lineages = {
        "model": names,
        "family": np.repeat(np.arange(12), 2).astype(str),
        "maker": np.repeat(np.arange(8), 3).astype(str),
    }
    write(study.results / "models.csv", pd.DataFrame(lineages))
    bench = [f"b{j}" for j in range(BENCHMARKS)]
    kinds = {"benchmark": bench, "function": ["f", "g"] * 3, "family": "x", "format": "cloze", "usable": True}
    write(study.results / "benchmarks.csv", pd.DataFrame(kinds))
    value = (skill[np.arange(BENCHMARKS) % 2] + 0.5 * rng.normal(size=(BENCHMARKS, MODELS))).round(0)
    long = (
        pd.DataFrame(value, bench, names)
        .rename_axis("benchmark")
        .reset_index()
        .melt("benchmark", var_name="model", value_name="score")
    )
    write(study.results / "scores.csv", long.assign(stderr=0.1, n_items=100))


class Done(Exception):
    pass


def page(study, notebook, until, monkeypatch):
    """Run the code of a notebook for the study until `until` is a variable, without its figures; return the variables."""
    for module in (figures, figures_pairs):
        for name in ("line", "bar", "strip", "scatter", "heatmap", "table", "matrix"):
            monkeypatch.setattr(module, name, lambda *_, **__: None, raising=False)
    seen: dict = {}
    for cell in jupytext.read(paths.NOTEBOOKS / f"{notebook}.md").cells:
        if cell.cell_type != "code":
            continue
        exec(compile(cell.source, notebook, "exec"), seen)
        if "parameters" in cell.metadata.get("tags", []):
            seen["study_name"] = study.name
            seen |= {k: v for k, v in {"null_tables": 2, "short_splits": 1, "signature_size": 40}.items() if k in seen}
        if until in seen:
            return seen
    raise AssertionError(f"{notebook} has no variable {until}")


def cell(notebook, text, seen, monkeypatch):
    """Run the one cell that holds `text`, without its figures, on the variables `seen`; return the variables."""
    code = next(c.source for c in jupytext.read(paths.NOTEBOOKS / f"{notebook}.md").cells if text in c.source)
    monkeypatch.setattr(figures, "table", lambda *_, **__: None)
    seen |= {"pd": pd, "np": np, "figures": figures, "validation": validation}
    exec(compile(code, notebook, "exec"), seen)
    return seen


def asked(notebook, name, monkeypatch):
    """Return a check: the value that a notebook's parameter takes from the study, and that later cells read it."""

    def of(study):
        cells = [c for c in jupytext.read(paths.NOTEBOOKS / f"{notebook}.md").cells if c.cell_type == "code"]
        first, setup, *later = [ast.parse(c.source) for c in cells]
        seen: dict = {"study": study}
        exec(compile(first, notebook, "exec"), seen)
        assert seen[name] is None, "the default is the study's"
        for line in setup.body:
            if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", None) == name:
                exec(compile(ast.Module([line], []), notebook, "exec"), seen)
        assert any(isinstance(n, ast.Name) and n.id == name for tree in later for n in ast.walk(tree))
        return seen[name]

    return of


# --- what is computed -----------------------------------------------------------------------------------------


def prepared(study, _):
    preparation.prepare(study)
    tables = sorted(p for p in study.results.iterdir() if p.suffix in (".csv", ".parquet"))
    return {p.name: provenance.read_table(p).to_csv() for p in tables}


def shards(study, _):
    from helpers import extraction

    preparation.prepare(study)
    return len(extraction.blocks(study))


def pool(study, monkeypatch):
    from helpers import cluster, extraction

    def told(*arguments):
        raise Done(arguments)

    monkeypatch.setattr(cluster, "pool", told)
    preparation.prepare(study)
    with pytest.raises(Done) as caught:
        extraction.extract(study)
    return str(caught.value)


def measured(study, monkeypatch):
    from helpers import extraction, models

    passes = []
    real = models.load

    def load(entry):
        loaded = real(entry)
        loaded.model.register_forward_pre_hook(lambda *_: passes.append(1))
        loaded.model.model.register_forward_pre_hook(lambda *_: passes.append(1))
        return loaded

    monkeypatch.setattr(models, "load", load)
    extraction._loaded.clear()
    preparation.prepare(study)
    (entry,) = extraction.entries(study)
    values, facts, _ = extraction.measure(entry, "mark", study.extraction, next(iter(extraction.blocks(study))))
    return values.tolist(), facts, len(passes)


def entries(study, _):
    from helpers import extraction

    return [e.model_dump() for e in extraction.entries(study)]


def measured_here(study, _):
    from helpers import extraction

    return extraction.is_measured_here(study)


def from_hub(study, monkeypatch):
    import datasets as hub

    seen = []
    rows = [{"text": "some words", "body": "others"}]
    monkeypatch.setattr(hub, "load_dataset", lambda name, **options: seen.append((name, options)) or rows)
    return corpora.load(study.corpus, study.seed)[0].to_csv(), str(seen)


def signatures(study, monkeypatch):
    tables(study)
    seen = page(study, "select-signatures", "reports", monkeypatch)
    record = json.loads(provenance.sidecar(study.results / "signatures.parquet").read_text())["parameters"]
    asked_for = selection.of_study(study)
    assert {k: record["corrected"][k] for k in asked_for} == asked_for  # what was used is what is recorded
    offered = {b: units.tolist() for b, units in seen["found"]["corrected"].candidates.items()}
    return seen["signatures"].to_csv(), offered


def stability(study, monkeypatch):
    tables(study)
    data = overlap.load(study.results)
    seen = {"study": study, "nats": data.surprisal.to_numpy(), "scores": data.scores, "ratio": 0.05, "n_units": UNITS}
    return cell("select-signatures", "regulariser_agreement", seen | {"exclude": data.exclude}, monkeypatch)[
        "agree"
    ].to_csv()


def crossfit(study, monkeypatch):
    tables(study)
    monkeypatch.setattr(overlap, "read", lambda *_: None)
    provenance.write_table(study.results / "signatures.parquet", selected(study))
    result = page(study, "compare-overlaps", "crossfit", monkeypatch)["crossfit"]
    for key, value in overlap.of_study(study).items():
        assert result.details[key] == value
    return result.overlap.to_csv()


def selected(study):
    data = overlap.load(study.results)
    return selection.select(data.surprisal, data.scores, "paper", ratio=0.05).signatures


def intervals(study, monkeypatch):
    tables(study)
    return page(study, "compare-overlaps", "score_quality", monkeypatch)["low"].to_csv()


def permutations(study, monkeypatch):
    tables(study)
    return page(study, "compare-overlaps", "permutations", monkeypatch)["permutations"]


def placed(study, _):
    tables(study)
    data = placement.ready(study)
    mine = data.all_scores.iloc[0] + np.random.default_rng(1).normal(size=MODELS)
    path = study.results / "mine.csv"
    mine.rename("mine").rename_axis("model").to_csv(path)
    submission = placement.check_benchmark(path, None, tables=data, scale="raw")
    result = placement.place(study, submission, data)
    return result.settings, result.pairs.to_csv()


def streamed(study, _):
    tables(study)
    return len(placement.ready(study).surprisal)


def meaning(study, _):
    from helpers import semantics

    nouns = [
        "river",
        "bridge",
        "engine",
        "sonnet",
        "algebra",
        "garden",
        "market",
        "planet",
        "virus",
        "castle",
        "piano",
        "desert",
    ]
    rows = [
        (f"b{j}", f"{j}{i}", f"What does a {nouns[(i * (j + 2)) % 12]} need to {nouns[(i + 5 * j) % 12]}?")
        for j in range(3)
        for i in range(12)
    ]
    questions = pd.DataFrame(rows, columns=["benchmark", "question_id", "text"]).assign(format="cloze", answer="")
    semantics.semantic_study(study.results, questions, study.semantics, seed=0, bootstraps=2, splits=2)
    return provenance.read_table(study.results / "overlap" / "semantic.parquet").to_csv()


def traced(study, monkeypatch):
    seen = []

    def told(load, name, chosen, folder, *, identity, tokens, progress):
        seen.append((name, len(chosen), identity, tokens))
        return {}

    monkeypatch.setattr(atlas, "collect_all", told)
    monkeypatch.setattr(
        atlas, "fingerprint", lambda entry: entry.name
    )  # no weights are here; settings count beside them
    texts = [(f"b{j}", f"question {i} of {j}, and more words {i * 7}") for j in range(2) for i in range(60)]
    questions = pd.DataFrame(texts, columns=["benchmark", "text"]).assign(
        question_id=range(120), choices=None, answer="x", format="cloze"
    )
    atlas.collect_study(study, questions)
    return seen


def heading(study, monkeypatch):
    """The title as the runner writes it over a page, and the description as the first page says it."""
    cell = next(
        c for c in jupytext.read(paths.NOTEBOOKS / "meet-the-study.md").cells if "study.description" in c.source
    )
    said = []
    seen = {
        "study": study,
        "models": pd.DataFrame({"model": ["a"], "family": ["f"]}),
        "display": said.append,
        "Markdown": str,
        "fragments": fragments,
    }
    exec(cell.source, seen)
    return said


def key(study, _):
    return runner.data_files(study)


def why_not(study, _):
    return runner.unavailable(study)


def task(study, _):
    return runner.task(study, "meet-the-study").parameters


def folder(study, _):
    return str(study.results)


# path -> (study, value, what is computed)
CHECKS = {
    "name": (TABLE, "others", folder),
    "title": (TABLE, "another", heading),
    "description": (TABLE, "other words", heading),
    "seed": (changed(LISTED, "corpus.max_documents", 3), 2, prepared),
    "models.kind": (TABLE, "list", measured_here),
    "models.population": (TABLE | {"models": {"kind": "lab"}, "corpus": {"kind": "lab"}, "benchmarks": {"kind": "lab"}}, "format", measured_here),
    "models.entries.name": (HUB, "else", entries),
    "models.entries.source": (HUB, "folder", entries),
    "models.entries.id": (HUB, "o/else", entries),
    "models.entries.revision": (LISTED, "abc", prepared),
    "models.entries.family": (LISTED, "relatives", prepared),
    "models.entries.dtype": (HUB, "bfloat16", entries),
    "models.entries.parameters": (LISTED, 1.5, prepared),
    "corpus.kind": (LISTED, "packages", prepared),
    "corpus.sources": (LISTED, ["other.txt"], prepared),
    "corpus.revision": (HUB, "abc", from_hub),
    "corpus.split": (HUB, "test", from_hub),
    "corpus.text_field": (changed(LISTED, "corpus.sources", ["docs.jsonl"]), "body", prepared),
    "corpus.max_documents": (LISTED, 2, prepared),
    "corpus.max_characters": (LISTED, 40, prepared),
    "corpus.unit": (LISTED, "document", prepared),
    "corpus.unit_size": (changed(LISTED, "corpus.unit", "chunk"), 7, prepared),
    "benchmarks.kind": (LISTED, "none", prepared),
    "benchmarks.scores": (LISTED, "scores2.csv", prepared),
    "benchmarks.questions": (LISTED, "questions2.jsonl", prepared),
    "benchmarks.include": (LISTED, ["b0", "b1"], prepared),
    "benchmarks.exclude": (LISTED, ["b0"], prepared),
    "benchmarks.functions": (LISTED, {"reading": ["b0", "b1"]}, prepared),
    "extraction.mode": (LAB, "paper", measured),
    "extraction.window": (LAB | {"extraction": {"window": 64, "stride": 8}}, 16, measured),
    "extraction.stride": (LAB, 8, measured),
    "extraction.context_pieces": (LAB | {"extraction": {"mode": "paper", "context_pieces": 4}}, 2, measured),
    "extraction.batch_tokens": (LAB, 64, measured),
    "extraction.dtype": (LAB, "bfloat16", measured),
    "extraction.precision": (LAB, "fast", measured),
    "extraction.shard_documents": (LAB, 2, shards),
    "extraction.workers": (LAB, 2, pool),
    "extraction.scheduler": (LAB, "tcp://nowhere:1", pool),
    "screening.statistic": (TABLE, "preselect", crossfit),
    "screening.ties": (TABLE, "name", crossfit),
    "screening.ratio": (TABLE, 0.02, signatures),
    "screening.memory_gib": (TABLE, 0.00001, streamed),
    "selection.method": (TABLE | {"selection": {}}, "lasso", signatures),
    "selection.max_size": (TABLE, 1, signatures),
    "selection.alpha": (TABLE | {"selection": {"method": "lasso"}}, 0.2, signatures),
    "overlap.level": (TABLE, "raw", crossfit),
    "overlap.signed": (TABLE, False, crossfit),
    "overlap.groups": (TABLE, "maker", crossfit),
    "overlap.splits": (TABLE, 3, crossfit),
    "inference.permutations": (TABLE, 21, permutations),
    "inference.bootstraps": (TABLE, 21, intervals),
    "semantics.encoder": (TABLE, "package:none", meaning),
    "semantics.questions": (TABLE, 6, meaning),
    "semantics.resamples": (TABLE, 3, lambda s, m: asked("compare-questions", "resamples", m)(s)),
    "traces.models.name": (TRACED, "else", traced),
    "traces.models.source": (TRACED, "lab", traced),
    "traces.models.id": (TRACED, "o/else", traced),
    "traces.models.revision": (TRACED, "abc", traced),
    "traces.models.family": (TRACED, "relatives", traced),
    "traces.models.dtype": (TRACED, "bfloat16", traced),
    "traces.models.parameters": (TRACED, 1.5, traced),
    "traces.questions": (TRACED, 20, traced),
    "traces.tokens": (TRACED, 16, traced),
    "traces.random_twin": (TRACED, False, traced),
    "datasets": (TABLE, ["dclm-tasks"], key),
    "extra": (TABLE, "package-llms", why_not),
    "notebooks": (TABLE, {"meet-the-study": {"reliable": 0.5}}, task),
}  # fmt: skip


def test_every_field_has_a_check():
    assert sorted(fields()) == sorted(CHECKS)


@pytest.mark.parametrize("path", CHECKS)
def test_changing_a_key_changes_something(path, world, monkeypatch):
    raw, value, compute = CHECKS[path]
    assert raw == changed(raw, "seed", raw["seed"]) and changed(raw, path, value) != raw
    before = compute(load(world, raw), monkeypatch)
    try:
        after = compute(load(world, changed(raw, path, value)), monkeypatch)
    except CompanionError:
        return  # refused, with what to do: see test_studies
    assert before != after


@pytest.mark.parametrize(
    ("path", "compute"),
    [
        ("screening.statistic", signatures),
        ("screening.ties", signatures),
        ("selection.alpha", stability),
        ("overlap.splits", placed),
        ("inference.bootstraps", placed),
        ("overlap.signed", placed),
        ("semantics.resamples", lambda s, m: asked("test-the-claims", "semantic_resamples", m)(s)),
        ("inference.permutations", lambda s, m: asked("test-the-claims", "permutations", m)(s)),
        ("inference.bootstraps", lambda s, m: asked("test-the-claims", "bootstraps", m)(s)),
        ("inference.permutations", lambda s, m: asked("draw-disentanglement-maps", "permutations", m)(s)),
        ("inference.permutations", lambda s, m: asked("judge-the-claims-by-axes", "permutations", m)(s)),
        ("inference.bootstraps", lambda s, m: asked("compare-overlaps", "bootstraps", m)(s)),
        ("overlap.splits", lambda s, m: asked("compare-overlaps", "splits", m)(s)),
    ],
)
def test_a_key_acts_on_every_page_that_it_names(path, compute, world, monkeypatch):
    raw, value, _ = CHECKS[path]
    raw = TABLE | {"selection": {"max_size": 3, "alpha": 0.01}} if path == "selection.alpha" else raw
    assert compute(load(world, raw), monkeypatch) != compute(load(world, changed(raw, path, value)), monkeypatch)


def test_a_parameter_of_the_notebook_goes_before_the_study(world, monkeypatch):
    study = load(world, TABLE)
    tables(study)
    provenance.write_table(study.results / "signatures.parquet", selected(study))
    cells = [c.source for c in jupytext.read(paths.NOTEBOOKS / "compare-overlaps.md").cells if c.cell_type == "code"]
    seen: dict = {}
    exec(cells[0], seen)
    seen |= {"study_name": "own", "splits": 7}
    exec(cells[1], seen)
    assert (seen["splits"], seen["bootstraps"]) == (7, 20)


# --- a matrix larger than the study's memory -------------------------------------------------------------------


def test_a_matrix_beyond_the_study_s_memory_gives_the_same_signatures(world, monkeypatch):
    whole = signatures(load(world, TABLE), monkeypatch)
    small = changed(TABLE, "screening.memory_gib", 0.00001)
    assert signatures(load(world, small), monkeypatch) == whole


def test_own_text_is_barred_from_a_streamed_selection(world, monkeypatch):
    def own(study, monkeypatch):
        tables(study)
        units = provenance.read_table(study.results / "units.parquet")
        units["own_benchmarks"] = np.where(units.index < 20, "b0;b2", "")
        provenance.write_table(study.results / "units.parquet", units)
        monkeypatch.setitem(globals(), "tables", lambda _: None)  # keep these
        return signatures(study, monkeypatch)

    with monkeypatch.context() as here:
        whole = own(load(world, TABLE), here)
    with monkeypatch.context() as here:
        streamed = own(load(world, changed(TABLE, "screening.memory_gib", 0.00001)), here)
    assert streamed == whole
    used = pd.read_csv(io.StringIO(whole[0]))
    assert used.loc[used["benchmark"].isin(["b0", "b2"]), "unit_id"].min() >= 20


def test_what_needs_the_whole_matrix_refuses_before_it_reads_it(world, monkeypatch):
    study = load(world, changed(TABLE, "screening.memory_gib", 0.00001))
    tables(study)
    with monkeypatch.context() as here:
        here.setattr(pd, "read_parquet", lambda path, **_: pytest.fail(f"{path} was read"))
        with pytest.raises(
            DataError, match=r"400 units and 24 models takes 7\.2e-05 GiB, more than .* 0\.001 GiB"
        ) as caught:
            overlap.load(study.results, memory_gib=study.screening.memory_gib)
        assert not isinstance(caught.value, StaleArtifactError)
    advised = float(re.search(r"set screening.memory_gib to (\S+);", str(caught.value))[1])
    assert len(overlap.load(study.results, memory_gib=advised).surprisal) == UNITS


def test_a_sample_stands_for_the_matrix_where_only_the_selection_needs_all(world):
    study = load(world, TABLE)
    tables(study)
    data = overlap.load(study.results, "family", 0.00001, sample=3)
    assert data.stored.shape == (UNITS, MODELS) and list(data.stored.models) == list(data.scores.columns)
    assert list(data.surprisal.index) == list(data.units.index)
    rows = data.stored.rows(data.stored.sample(3))
    assert np.array_equal(rows, data.surprisal.to_numpy())
    again = overlap.load(study.results, "family", 0.00001, sample=3)
    pd.testing.assert_frame_equal(data.surprisal, again.surprisal)
