"""The studies of published numbers: defects handled, verdicts reproduced, tables in the agreed form."""

import numpy as np
import pandas as pd
import pytest

from helpers import datasets, paths, provenance, published, scores, studies
from helpers.errors import DataError, StudyError

MADE = (
    "units.parquet",
    "models.csv",
    "benchmarks.csv",
    "scores.csv",
    "surprisal.parquet",
    "questions.parquet",
)


def prepared(name, folder):
    """Yield (study, its tables), prepared into a temporary folder."""
    study = studies.load(name)
    reason = datasets.unavailable(study.datasets)
    if reason:
        pytest.skip(f"published files are not here: {reason}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPANION_RESULTS", str(folder))
        published.prepare(study)
        yield study, {n.split(".")[0]: provenance.read_table(study.results / n) for n in MADE}


@pytest.fixture(scope="module")
def dclm(tmp_path_factory):
    yield from prepared("dclm", tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def entigraph(tmp_path_factory):
    yield from prepared("entigraph", tmp_path_factory.mktemp("results"))


@pytest.fixture(params=["dclm", "entigraph"])
def made(request):
    return request.getfixturevalue(request.param)


def test_tables_have_the_agreed_form(made):
    _, t = made
    assert t["surprisal"].index.name == t["units"].index.name == "unit_id"
    assert (t["surprisal"].index == t["units"].index).all()
    assert (t["surprisal"].dtypes == np.float32).all() and np.isfinite(t["surprisal"].to_numpy()).all()
    assert t["units"]["unit"].nunique() == 1
    assert t["models"]["model"].is_unique and t["models"]["family"].notna().all()
    assert set(t["surprisal"].columns) <= set(t["models"]["model"])
    assert set(t["scores"]["model"]) <= set(t["models"]["model"])
    assert list(t["benchmarks"].columns[:9]) == [
        "benchmark", "title", "function", "family", "format", "n_items", "chance", "usable", "reason",
    ]  # fmt: skip
    assert t["benchmarks"]["benchmark"].is_unique
    assert (t["benchmarks"]["usable"] | t["benchmarks"]["reason"].fillna("").str.startswith("no")).all()
    matrix = scores.to_matrix(t["scores"])
    assert matrix.shape[0] == len(t["benchmarks"])
    assert t["scores"]["score"].notna().all()
    assert set(t["questions"]["benchmark"]) <= set(t["benchmarks"]["benchmark"])
    assert t["questions"].groupby("benchmark").size().max() <= published.MOST_QUESTIONS
    assert not t["questions"].duplicated(["benchmark", "question_id"]).any()


def test_dclm(dclm):
    _, t = dclm
    assert len(t["models"]) == 156 and t["surprisal"].shape == (57, 66)
    assert t["models"]["has_losses"].sum() == 66
    assert (t["models"]["kind"] == "public LLM").sum() == 20
    assert t["models"].loc[t["models"]["has_losses"], "family"].nunique() >= 10
    bench = t["benchmarks"].set_index("benchmark")
    assert bench.loc["arc_challenge", "n_items"] == 1172 and bench.loc["math_qa", "chance"] == 0.25
    assert 12 <= bench["usable"].sum() <= bench["usable_performance"].sum()
    assert not bench.loc[["gpqa_main", "winogender_mc_male", "svamp"], "usable"].any()
    ok = bench[bench["usable"]]
    assert (ok[["reliability", "reliability_losses"]] >= published.RELIABLE).all(axis=None)
    leak = published.leakage(t["units"], ["hellaswag", "hellaswag_zeroshot", "winograd", "gpqa_main"])
    owner = t["units"]["doc_id"]
    assert owner[leak["hellaswag"].to_numpy()].tolist() == ["hellaswag"]
    assert owner[leak["hellaswag_zeroshot"].to_numpy()].tolist() == ["hellaswag"]
    assert owner[leak["winograd"].to_numpy()].tolist() == ["winograd_wsc"]
    assert not leak["gpqa_main"].any()


def test_entigraph(entigraph):
    _, t = entigraph
    assert t["surprisal"].shape == (263, 89) and t["models"]["family"].nunique() == 32
    assert (t["models"]["model"] == "LLM360/Amber").sum() == 1
    bench = t["benchmarks"].set_index("benchmark")
    assert bench["usable"].sum() == 19
    matrix = scores.to_matrix(t["scores"])
    zero = t["models"].loc[t["models"]["tokenizer_group"].str.contains("zero"), "model"]
    assert len(zero) == 57
    for name in (
        "bigbench_qa_wikidata",
        "bigbench_operators",
        "bigbench_repeat_copy_logic",
        "bigbench_cs_algorithms",
    ):
        assert matrix.loc[name, zero].isna().all() and matrix.loc[name].notna().sum() == 32
        assert not bench.loc[name, "usable"]
    counts = matrix.notna().sum(axis=1)
    assert (counts[["mmlu", "truthfulqa"]] == 72).all() and counts["xwinograd"] == 38 and counts["human_eval"] == 36
    assert matrix.loc["winogrande"].dropna().between(0.4, 0.8).all()
    # labels: a row with the same task elsewhere must agree with it
    for a, b in (
        ("arc_easy", "arc_easy_10s"),
        ("piqa", "piqa_10s"),
        ("hellaswag_0s", "hellaswag_lb"),
        ("winogrande", "winogrande_5s"),
    ):
        assert matrix.loc[a].corr(matrix.loc[b], method="spearman") > 0.95
    assert matrix.loc["lambada_openai"].corr(matrix.loc["lambada_openai_acc"], method="spearman") > 0.98
    # almost rank one, as the page says
    values = t["surprisal"].to_numpy().T.astype(float)
    spectrum = np.linalg.svd(values - values.mean(axis=0), compute_uv=False) ** 2
    assert spectrum[0] / spectrum.sum() > 0.99


def test_zero_group_is_what_the_table_says(entigraph):
    """The committed tokenizer group is re-derived from the zeros of CORE row 8."""
    core = pd.read_csv(datasets.fetch("entigraph-core"))
    facts = pd.read_csv(paths.DATA / "entigraph-models.csv").set_index("column")
    assert ((core.iloc[8] == 0).astype(int)[facts.index] == facts["zero_group"]).all()
    labels = pd.read_csv(paths.DATA / "core-rows.csv")
    assert len(labels) == len(core) == 22


def test_included_and_excluded_benchmarks(entigraph, tmp_path, monkeypatch):
    study, t = entigraph
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    wanted = tuple(t["benchmarks"]["benchmark"].iloc[:3])
    chosen = study.model_copy(
        update={"benchmarks": study.benchmarks.model_copy(update={"include": wanted, "exclude": wanted[:1]})}
    )
    published.prepare(chosen)
    assert provenance.read_table(tmp_path / study.name / "benchmarks.csv")["benchmark"].tolist() == list(wanted[1:])
    wrong = study.model_copy(update={"benchmarks": study.benchmarks.model_copy(update={"exclude": ("arc_eazy",)})})
    with pytest.raises(StudyError, match="arc_easy"):
        published.prepare(wrong)


def test_not_a_published_study():
    with pytest.raises(StudyError, match="not a published study"):
        published.prepare(studies.load("lab"))


def test_reliability_sees_pure_noise():
    rng = np.random.default_rng(0)
    n = pd.Series([200, 200], index=["noise", "signal"])
    truth = np.stack([np.full(400, 0.5), rng.uniform(0.2, 0.8, 400)])
    drawn = pd.DataFrame(rng.binomial(200, truth) / 200, index=n.index)
    result = published.reliability(drawn, n)
    assert abs(result["noise"]) < 0.2 and result["signal"] > 0.9


def test_above_chance_and_free_answers():
    frame = pd.DataFrame([[0.25, 0.5, np.nan], [0.04, 0.06, 0.5]], index=["mc", "free"])
    n, chance = pd.Series([100, 100], index=frame.index), pd.Series([0.25, 0.0], index=frame.index)
    assert published.above_chance(frame, n, chance).round(3).tolist() == [0.5, 0.667]


def test_unknown_training_run_is_an_error():
    with pytest.raises(DataError, match="no lineage"):
        published.lineage("evaluation_something_new.json")


def test_repeats_of_a_benchmark_are_found_in_its_questions(entigraph):
    same = entigraph[1]["benchmarks"].set_index("benchmark")["same_items_as"]
    assert same["piqa_10s"] == "piqa" and pd.isna(same["piqa"])
    assert same["arc_challenge_25s"] == "arc_challenge_10s"
