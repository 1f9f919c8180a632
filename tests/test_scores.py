"""Score tables: every layout that people have, what is decided aloud, what is refused."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import datasets, scores
from helpers.errors import DataError
from helpers.problems import Problem


def write(tmp_path, text, name="s.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def read(path, **options):
    problems: list[Problem] = []
    return scores.read(path, problems=problems, **options), problems


WIDE = "model,arc,piqa\nm/a,0.5,0.6\nm/b,0.25,0.7\n"


@pytest.mark.parametrize(
    "text",
    [
        WIDE,
        WIDE.replace(",", ";"),
        WIDE.replace(",", "\t"),
        WIDE.replace("\n", "\r\n"),
        "\ufeff" + WIDE,
        "benchmark,m/a,m/b\narc,0.5,0.25\npiqa,0.6,0.7\n",
        "model,benchmark,score\nm/a,arc,0.5\nm/b,arc,0.25\nm/a,piqa,0.6\nm/b,piqa,0.7\n",
        "LLM,Task,Accuracy\nm/a,arc,0.5\nm/b,arc,0.25\nm/a,piqa,0.6\nm/b,piqa,0.7\n",
        WIDE.replace(",", ";").replace("0.", "0,"),
        ",arc,piqa\nm/a,0.5,0.6\nm/b,0.25,0.7\n",
        "model,arc,piqa\nm/a,50,60\nm/b,25%,70\n",
        WIDE + "\n\n",
        'model,arc,piqa\n"m/a",0.5,0.6\n"m/b", 0.25 ,0.7\n',
    ],
)
def test_every_way_of_writing_one_table_gives_the_same_matrix(tmp_path, text):
    frame, problems = read(write(tmp_path, text))
    assert not [str(p) for p in problems if p.serious]
    matrix = scores.to_matrix(frame).loc[["arc", "piqa"], ["m/a", "m/b"]]
    np.testing.assert_allclose(matrix.to_numpy(), [[0.5, 0.25], [0.6, 0.7]])


def test_utf16_and_parquet(tmp_path):
    frame, _ = read(write(tmp_path, WIDE, encoding="utf-16"))
    assert len(frame) == 4
    pd.DataFrame({"model": ["a", "b"], "arc": [0.1, 0.2]}).to_parquet(tmp_path / "s.parquet")
    frame, _ = read(tmp_path / "s.parquet")
    assert frame["score"].tolist() == [0.1, 0.2]
    pd.DataFrame({"arc": [0.1, 0.2]}, index=pd.Index(["a", "b"], name="model")).to_parquet(tmp_path / "i.parquet")
    assert read(tmp_path / "i.parquet")[0]["model"].tolist() == ["a", "b"]


def test_what_is_decided_is_said(tmp_path):
    path = write(tmp_path, "model,arc\na,55\nb,60\n")
    with pytest.warns(scores.ScoreNote, match="read as percent"):
        assert scores.read(path)["score"].tolist() == [0.55, 0.60]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert scores.read(path, scale="percent")["score"].tolist() == [0.55, 0.60]
        assert scores.read(path, scale="raw")["score"].tolist() == [55, 60]
    with pytest.raises(DataError, match="not a fraction"):
        scores.read(path, scale="fraction")


def test_orientation(tmp_path):
    path = write(tmp_path, "model,err,ppl\na,0.2,12\nb,0.4,30\n")
    frame, _ = read(path, lower_is_better=["err"], benchmarks=["err"])
    assert frame["score"].tolist() == [0.8, 0.6]
    frame, _ = read(path, scale="raw", lower_is_better=["ppl"], benchmarks=["ppl"])
    assert frame["score"].tolist() == [-12, -30]
    _, problems = read(path, lower_is_better=["error"])
    assert any("no benchmark 'error'" in str(p) and p.serious for p in problems)


def test_benchmark_name_of_a_two_column_table(tmp_path):
    path = write(tmp_path, "model,score\na,0.5\nb,0.6\n", "mybench.csv")
    assert set(read(path)[0]["benchmark"]) == {"mybench"}
    assert set(read(path, benchmark="x")[0]["benchmark"]) == {"x"}


def test_extra_columns_of_a_long_table(tmp_path):
    path = write(tmp_path, "model,score,n_items,stderr\na,50,100,5\nb,60,100,4.9\n")
    frame, _ = read(path)
    assert frame["n_items"].tolist() == [100, 100] and frame["stderr"].tolist() == [0.05, 0.049]


def test_notes_about_models_are_not_benchmarks(tmp_path):
    frame, problems = read(write(tmp_path, "model,family,arc\na,llama,0.5\nb,pythia,0.6\n"))
    assert set(frame["benchmark"]) == {"arc"}
    assert any(p.column == "family" and not p.serious for p in problems)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.one_of(st.none(), st.floats(0, 1).map(lambda v: round(v, 4))), min_size=3, max_size=3),
        min_size=2,
        max_size=6,
    )
)
def test_writing_and_reading_keeps_every_number(tmp_path_factory, rows):
    frame = pd.DataFrame(rows, columns=["x", "y", "z"], index=[f"m{i}" for i in range(len(rows))])
    path = tmp_path_factory.mktemp("t") / "s.csv"
    frame.rename_axis("model").to_csv(path)
    found, problems = read(path, scale="fraction")
    measured = frame.astype(float).T.dropna(how="all").dropna(how="all", axis=1)
    if measured.empty or measured.notna().sum().sum() == 0:
        assert [p for p in problems if p.serious]
    else:
        matrix = scores.to_matrix(found)
        pd.testing.assert_frame_equal(matrix.reindex_like(measured), measured, check_names=False, check_dtype=False)


def test_to_matrix_refuses_two_scores():
    long = pd.DataFrame({"benchmark": ["b", "b"], "model": ["m", "m"], "score": [0.5, 0.6]})
    with pytest.raises(DataError, match="several scores"):
        scores.to_matrix(long)


# --- lm-evaluation-harness ------------------------------------------------------------------------------------------

OLD = {
    "results": {
        "arc_easy": {"acc": 0.6, "acc_stderr": 0.01, "acc_norm": 0.55, "acc_norm_stderr": 0.01},
        "lambada_openai": {"ppl": 12.0, "ppl_stderr": 0.6, "acc": 0.5, "acc_stderr": 0.02},
        "wikitext": {"word_perplexity": 20.0, "byte_perplexity": 1.7, "bits_per_byte": 0.8},
    },
    "versions": {"arc_easy": 0},
    "config": {
        "model": "hf-causal",
        "model_args": "pretrained=EleutherAI/pythia-160m,revision=step1000",
        "num_fewshot": 0,
        "limit": None,
    },
}


def new(model="org/name", date="2024-06-10T12-00-00.123456", shots=5, chat=None, mmlu=0.5):
    content = {
        "results": {
            "mmlu": {"acc,none": mmlu, "acc_stderr,none": 0.004, "alias": "mmlu"},
            "mmlu_stem": {"acc,none": 0.4, "acc_stderr,none": 0.01, "alias": " - stem"},
            "mmlu_anatomy": {"alias": "  - anatomy", "acc,none": 0.41, "acc_stderr,none": 0.04},
            "mmlu_astronomy": {"alias": "  - astronomy", "acc,none": 0.39, "acc_stderr,none": 0.04},
            "gsm8k": {"alias": "gsm8k", "exact_match,strict-match": 0.3, "exact_match_stderr,strict-match": 0.01,
                      "exact_match,flexible-extract": 0.35, "exact_match_stderr,flexible-extract": 0.01},
            "bad": {"alias": "bad", "bypass,none": float("nan"), "bypass_stderr,none": "N/A"},
        },
        "groups": {"mmlu": {"acc,none": mmlu, "acc_stderr,none": 0.004, "alias": "mmlu"}},
        "group_subtasks": {"mmlu": ["mmlu_stem"], "mmlu_stem": ["mmlu_anatomy", "mmlu_astronomy"], "gsm8k": []},
        "configs": {"gsm8k": {"num_fewshot": shots}},
        "n-shot": {"gsm8k": shots, "mmlu": 0, "mmlu_anatomy": 0},
        "n-samples": {"gsm8k": {"original": 1319, "effective": 1319}, "mmlu_anatomy": {"original": 135, "effective": 135},
                      "mmlu_astronomy": {"original": 152, "effective": 152}},
        "higher_is_better": {"gsm8k": {"exact_match": True}},
        "config": {"model": "hf", "model_args": {"pretrained": model, "dtype": "bfloat16"}, "limit": None},
        "model_name": model,
        "chat_template": chat,
        "chat_template_sha": "abc123" if chat else None,
        "date": 1718020800.0,
    }  # fmt: skip
    return content, f"{model.replace('/', '__')}/results_{date}.json"


def harness(tmp_path, *runs):
    for content, name in runs:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    return tmp_path


def test_harness_old_layout(tmp_path):
    frame, problems = read(harness(tmp_path, (OLD, "pythia.json")))
    by = frame.set_index("benchmark")
    assert by.loc["arc_easy", ["score", "stderr", "metric", "num_fewshot"]].tolist() == [0.6, 0.01, "acc", 0]
    assert by["model"].unique().tolist() == ["EleutherAI/pythia-160m@step1000"]
    assert (
        by.loc["wikitext", "score"] == pytest.approx(-np.log(20))
        and by.loc["wikitext", "metric"] == "-ln word_perplexity"
    )
    assert not [p for p in problems if p.serious]
    frame, _ = read(tmp_path, metric="acc_norm")
    assert frame.set_index("benchmark")["score"].to_dict() == {"arc_easy": 0.55}
    frame, _ = read(tmp_path, metric="ppl")
    row = frame.set_index("benchmark").loc["lambada_openai"]
    assert row["score"] == pytest.approx(-np.log(12)) and row["stderr"] == pytest.approx(0.05)


def test_harness_new_layout_groups_filters_and_counts(tmp_path):
    frame, problems = read(harness(tmp_path, new()))
    by = frame.set_index("benchmark")
    assert set(by.index) == {"mmlu", "gsm8k"} and set(by["model"]) == {"org/name"}
    assert by.loc["mmlu", "n_items"] == 135 + 152  # leaves of nested groups
    assert by.loc["gsm8k", ["score", "n_items", "num_fewshot"]].tolist() == [0.3, 1319, 5]
    assert any("several filters" in str(p) and "strict-match" in str(p) for p in problems)
    assert set(read(tmp_path, level="subtask")[0]["benchmark"]) == {"mmlu_anatomy", "mmlu_astronomy", "gsm8k"}
    assert len(read(tmp_path, level="both")[0]) == 5


def test_newest_run_wins_or_is_chosen(tmp_path):
    folder = harness(tmp_path, new(mmlu=0.5), new(date="2024-07-01T00-00-00.000000", mmlu=0.6), new("org/other"))
    frame, problems = read(folder)
    assert frame.set_index(["benchmark", "model"]).loc[("mmlu", "org/name"), "score"] == 0.6
    assert any("more than once" in str(p) for p in problems)
    frame, _ = read(folder, runs="2024-06-10")
    assert frame.set_index(["benchmark", "model"]).loc[("mmlu", "org/name"), "score"] == 0.5
    _, problems = read(folder, runs="2019")
    assert any(p.serious for p in problems)


def test_mixed_settings_are_told(tmp_path):
    limited = new("org/limited")
    limited[0]["config"]["limit"] = 100
    folder = harness(tmp_path, new(), new("org/b", shots=0), new("org/c", chat="{{x}}"), limited)
    _, problems = read(folder)
    told = "\n".join(map(str, problems))
    assert "mixed few-shot counts across models: 0, 5" in told
    assert "mixed chat template settings across models: abc123, no" in told
    assert "limit 100" in told


def test_old_leaderboard_names_and_aggregates(tmp_path):
    content = {"results": {"all": {"acc": 0.9}, "harness|arc:challenge|25": {"acc": 0.5, "acc_stderr": 0.01}}}
    frame, _ = read(harness(tmp_path, (content, "org__name/results.json")))
    assert frame[["benchmark", "num_fewshot", "model"]].to_numpy().tolist() == [["arc_challenge", 25, "org/name"]]


def test_other_json_in_the_folder_is_passed_over_aloud(tmp_path):
    folder = harness(tmp_path, new(), ({"a": 1}, "notes.json"))
    frame, problems = read(folder)
    assert len(frame) and any("notes.json" in str(p) and not p.serious for p in problems)


def test_samples_logs_are_not_results(tmp_path):
    folder = harness(tmp_path, new())
    (folder / "org__name" / "samples_gsm8k_2024.jsonl").write_text('{"doc_id": 0}\n')
    assert len(read(folder)[0]) == 2


def test_broken_json_is_serious(tmp_path):
    folder = harness(tmp_path, new())
    (folder / "results_x.json").write_text('{"results": ')
    assert any(p.serious and "not valid JSON" in str(p) for p in read(folder)[1])


def test_dclm_json(tmp_path):
    path = tmp_path / "evaluation_run_heavy.json"
    path.write_text(json.dumps({"eval_metrics": {"icl": {"arc": 0.5, "piqa": 0.7}}, "creation_date": "x"}))
    assert read(path)[0][["benchmark", "model", "score"]].to_numpy().tolist() == [
        ["arc", "run", 0.5],
        ["piqa", "run", 0.7],
    ]


def test_real_published_tables():
    if not datasets.available(["obsscaling"]):
        pytest.skip("published files are not here")
    frame, problems = read(datasets.fetch("obsscaling"), benchmarks=["MMLU", "HumanEval"])
    assert not [p for p in problems if p.serious]
    assert (frame["benchmark"] == "MMLU").sum() == 148 and frame["score"].between(0, 1).all()


# --- model names ----------------------------------------------------------------------------------------------------

KNOWN = [
    "EleutherAI/pythia-160m",
    "EleutherAI/pythia-6.9b-deduped_step20000",
    "meta-llama/Llama-2-7b-hf",
    "a/same",
    "b/same",
]


@pytest.mark.parametrize(
    ("given_name", "known", "how"),
    [
        ("EleutherAI/pythia-160m", KNOWN[0], "exact"),
        ("eleutherai/Pythia-160M", KNOWN[0], "normalised"),
        ("https://huggingface.co/EleutherAI/pythia-160m", KNOWN[0], "normalised"),
        ("EleutherAI/pythia-160m@main", KNOWN[0], "normalised"),
        ("EleutherAI__pythia-160m", KNOWN[0], "normalised"),
        (" EleutherAI/pythia_160m ", KNOWN[0], "normalised"),
        ("EleutherAI/pythia-6.9b-deduped@step20000", KNOWN[1], "normalised"),
        ("meta-llama/Llama-2-7b", KNOWN[2], "normalised"),
        ("llama-2-7b", KNOWN[2], "base name"),
        ("pythia-160m", KNOWN[0], "base name"),
    ],
)
def test_names_match_by_the_documented_rule(given_name, known, how):
    matched = scores.match_models([given_name], KNOWN).matched
    assert matched[["known", "how"]].to_numpy().tolist() == [[known, how]]


@pytest.mark.parametrize(
    ("given_name", "suggestion"),
    [
        ("EleutherAI/pythia-161m", KNOWN[0]),
        ("someoneelse/pythia-160m", KNOWN[0]),  # another owner is another model
        ("EleutherAI/pythia-160m@step512", KNOWN[0]),
        ("same", "a/same"),
    ],
)
def test_doubtful_names_are_suggested_never_matched(given_name, suggestion):
    result = scores.match_models([given_name], KNOWN)
    assert result.matched.empty and suggestion in result.unmatched[given_name]


def test_nothing_alike_gets_no_suggestion():
    assert scores.match_models(["zzzz"], KNOWN).unmatched == {"zzzz": []}


NAME = st.from_regex(r"\A[A-Za-z0-9]+([-_. ][A-Za-z0-9]+){0,3}(/[A-Za-z0-9]+([-_.][A-Za-z0-9]+){0,3})?\Z")


@given(NAME)
def test_a_name_in_its_normal_form_matches_itself(name):
    form = scores.normalise_model(name)
    assert form == form.lower() and not set("_. ") & set(form)
    assert scores.match_models([form], [name]).matched["known"].tolist() == [name]
