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


# --- what people really have ----------------------------------------------------------------------------------------

MANY = [f"o/m{i}" for i in range(10)]
RISE = [round(0.2 + 0.05 * i, 3) for i in range(10)]


def made(tmp_path, files):
    """Write files (name -> text or JSON content) and return the folder."""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path


def runs_of(result, models=MANY, **extra):
    """Return one results file a model; `result(i)` is the results of the i-th."""
    return {
        f"r{i}.json": {"results": result(i), "config": {"model": "hf", "model_args": f"pretrained={m}"}} | extra
        for i, m in enumerate(models)
    }


def long_table(head, row):
    return head + "\n" + "".join(row(i, m) + "\n" for i, m in enumerate(MANY))


def values(frame, name):
    own = frame[frame["benchmark"] == name].set_index("model")["score"]
    return [round(float(own[m]), 6) for m in MANY if m in own]


def told(problems, serious=None):
    return "\n".join(str(p) for p in problems if serious is None or p.serious == serious)


def test_the_benchmark_asked_for_is_the_one_read(tmp_path):
    one = made(tmp_path / "a", runs_of(lambda i: {"top": {"acc": 0.1}, "top_a": {"acc_norm": RISE[i]}}, group_subtasks={"top": ["top_a"]}))  # fmt: skip
    frame, _ = read(one, benchmark="top_a")
    assert set(frame["benchmark"]) == {"top_a"} and values(frame, "top_a") == RISE
    tree = {"board": ["board_bbh", "board_if"], "board_bbh": ["board_bbh_x"]}
    results = lambda i: {"board": {"alias": "b"}, "board_bbh": {"acc_norm,none": RISE[i]}, "board_bbh_x": {"acc_norm,none": 0.9}, "board_if": {"acc,none": 0.3}}  # noqa: E731  # fmt: skip
    two = made(tmp_path / "b", runs_of(results, group_subtasks=tree))
    assert values(read(two, benchmark="board_bbh")[0], "board_bbh") == RISE
    assert set(read(two)[0]["benchmark"]) == {"board_bbh", "board_if"}, "a heading without a number hides nothing"
    frame, problems = read(two, benchmark="board")
    assert frame.empty and "'board' has no score of its own; its parts are" in told(problems, True)
    frame, problems = read(two, benchmark="nowhere")
    assert frame.empty and "no benchmark 'nowhere'" in told(problems, True)
    wide = made(tmp_path / "c", {"s.csv": long_table("model,hellaswag", lambda i, m: f"{m},{RISE[i]}")}) / "s.csv"
    frame, problems = read(wide, benchmark="arc")
    assert set(frame["benchmark"]) == {"arc"} and "'hellaswag'; it is read as 'arc'" in told(problems)


@pytest.mark.parametrize("flag", [False, True])
@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("word_perplexity,none", lambda i: 30.0 - i, lambda i: -np.log(30.0 - i)),
        ("brier_score,none", lambda i: 0.9 - RISE[i], lambda i: RISE[i] - 0.9),
        ("bits_per_byte", lambda i: 2 - RISE[i], lambda i: RISE[i] - 2),
        ("wer", lambda i: 1 - RISE[i], lambda i: RISE[i]),
        ("acc,none", lambda i: RISE[i], lambda i: RISE[i]),
    ],
)
def test_a_known_direction_wins_and_scores_are_turned_once(tmp_path, metric, value, expected, flag):
    folder = made(tmp_path, runs_of(lambda i: {"t": {metric: value(i)}}))
    frame, problems = read(folder, lower_is_better=flag)
    assert not told(problems, True)
    assert values(frame, "t") == pytest.approx([expected(i) for i in range(10)], abs=1e-6)
    assert ("leave --lower-is-better out" in told(problems)) == flag


def test_the_direction_of_a_table_is_known_from_its_metric_or_its_name(tmp_path):
    text = long_table("model,task,metric,value", lambda i, m: f"{m},wiki,word_perplexity,{30 - i}")
    for flag in (False, True):
        frame, _ = read(write(tmp_path, text), lower_is_better=flag)
        assert values(frame, "wiki") == pytest.approx([-np.log(30 - i) for i in range(10)], abs=1e-6)
        frame, problems = read(write(tmp_path, long_table("model,wiki_ppl", lambda i, m: f"{m},{30 - i}")), lower_is_better=flag)  # fmt: skip
        assert values(frame, "wiki_ppl") == [i - 30 for i in range(10)] and "lower is better" in told(problems)
    frame, _ = read(write(tmp_path, long_table("model,mine", lambda i, m: f"{m},{RISE[i]}")), lower_is_better=True)
    assert values(frame, "mine") == [round(1 - r, 6) for r in RISE]
    signed = made(
        tmp_path / "m", runs_of(lambda i: {"t": {"mcc": RISE[i] - 0.3}}, **{"n-samples": {"t": {"effective": 99}}})
    )
    frame, problems = read(signed)
    assert values(frame, "t") == [round(r - 0.3, 6) for r in RISE] and frame["stderr"].isna().all() and not problems
    falling = {"t": {"my_metric": False}}
    folder = made(tmp_path / "f", runs_of(lambda i: {"t": {"my_metric": 0.9 - RISE[i]}}, higher_is_better=falling))
    assert values(read(folder, lower_is_better=True)[0], "t") == [round(r - 0.9, 6) for r in RISE]
    folder = made(tmp_path / "n", runs_of(lambda i: {"t": {"neg_loss": RISE[i] - 3}}))
    frame, problems = read(folder)
    assert values(frame, "t") == [round(r - 3, 6) for r in RISE] and "nobody says whether 'neg_loss'" in told(problems)
    assert values(read(folder, lower_is_better=True)[0], "t") == [round(3 - r, 6) for r in RISE]


def test_old_and_other_layouts_keep_models_and_tasks_apart(tmp_path):
    files = {
        f"{m}/results_2023-08-09T14:24:26.0.json": {
            "config_general": {"model_name": m},
            "results": {"leaderboard|arc:challenge|25|0": {"acc_norm": RISE[i]}, "lighteval|gsm8k|5": {"em": 0.1}},
        }
        for i, m in enumerate(MANY)
    }
    frame, _ = read(made(tmp_path, files))
    assert values(frame, "arc_challenge") == RISE and set(frame["model"]) == set(MANY)
    assert set(frame.loc[frame["benchmark"] == "arc_challenge", "num_fewshot"]) == {25}
    other = {"results": {"t": {"acc": 0.5}}, "config": {"model_args": "pretrained=o/m0,peft=o/adapter"}}
    frame, _ = read(made(tmp_path / "b", {"a.json": other, **runs_of(lambda i: {"t": {"acc": 0.4}}, ["o/m0"])}))
    assert len(frame) == 2, "an adapter on a model is another model"


def test_the_time_in_the_name_decides_which_run_is_newest(tmp_path):
    import os

    files = {}
    for i, m in enumerate(MANY):
        for name, score in (("2023-08-09T14:24:26.0", 0.1), ("2023-11-02T09-10-11.0", RISE[i])):
            files[f"{i}/results_{name}.json"] = {"results": {"a": {"acc": score}}, "config": {"model_args": {"pretrained": m}}}  # fmt: skip
    folder = made(tmp_path, files)
    for path in folder.rglob("*2023-11*"):
        os.utime(path, (1, 1))
    frame, problems = read(folder)
    assert values(frame, "a") == RISE and "run more than once" in told(problems, False)
    assert values(read(folder, runs="2023-08-09")[0], "a") == [0.1] * 10
    undated = {f"{k}/{i}.json": {"results": {"a": {"acc": 0.1 * k}}, "config": {"model_args": f"pretrained={m}"}} for i, m in enumerate(MANY) for k in (1, 2)}  # fmt: skip
    frame, problems = read(made(tmp_path / "u", undated))
    assert "has 2 scores" in told(problems, True) and "--runs PART" in told(problems, True)
    assert values(read(tmp_path / "u", runs="2/")[0], "a") == [0.2] * 10


def test_shots_are_chosen_by_number_or_folder_and_never_mixed(tmp_path):
    files = {
        f"{s}shot/{i}.json": {"results": {"a": {"acc": round(RISE[i] + s / 100, 3)}}, "config": {"model_args": f"pretrained={m}"}} | ({"n-shot": {"a": s}} if known else {})
        for known in (True,) for i, m in enumerate(MANY) for s in (0, 5)
    }  # fmt: skip
    folder = made(tmp_path / "a", files)
    (folder / "0shot" / "9.json").unlink()
    frame, problems = read(folder)
    assert values(frame, "a") == [round(r + 0.05, 6) for r in RISE] and "5 taken (10 models)" in told(problems)
    assert values(read(folder, runs="0shot")[0], "a") == RISE[:9]
    assert "no results of run '7shot'" in told(read(folder, runs="7shot")[1], True)
    nameless = {f"{s}shot/{i}.json": {"results": {"a": {"acc": RISE[i] if s == 5 else 0.1}}, "config": {"model_args": f"pretrained={m}"}} for i, m in enumerate(MANY) for s in (5, 25)}  # fmt: skip
    assert values(read(made(tmp_path / "b", nameless), runs="5shot")[0], "a") == RISE, "5shot is not 25shot"


@pytest.mark.parametrize(
    ("given_name", "known", "how"),
    [
        ("/data/x/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf", "base name"),
        ("/c/hub/models--EleutherAI--pythia-160m/snapshots/0a1b2c", "EleutherAI/pythia-160m", "normalised"),
        ("https://huggingface.co/EleutherAI/pythia-160m/tree/main", "EleutherAI/pythia-160m", "normalised"),
        (r"C:\models\pythia-160m", "EleutherAI/pythia-160m", "base name"),
        ("./out/pythia-160m/", "EleutherAI/pythia-160m", "base name"),
        ('<a href="https://huggingface.co/EleutherAI/pythia-160m">EleutherAI/pythia-160m</a>', "EleutherAI/pythia-160m", "normalised"),
    ],
)  # fmt: skip
def test_paths_and_links_mean_the_model_they_end_in(given_name, known, how):
    assert scores.match_models([given_name], KNOWN).matched[["known", "how"]].to_numpy().tolist() == [[known, how]]


@pytest.mark.parametrize(
    ("cell", "options", "expected"),
    [
        ('"1,287"', {"scale": "raw"}, 1287),
        ("1'287", {"scale": "raw"}, 1287),
        ('"1.287,5"', {"scale": "raw"}, 1287.5),
        ("1 287", {"scale": "raw"}, 1287),
        ("−0.5", {"scale": "raw"}, -0.5),
        ('"45,125"', {}, "45,125 is neither a fraction nor a percentage"),
        ("0.3 (0.1)", {}, "holds two numbers"),
        ("0.3±0.1", {}, "holds two numbers"),
        ("0.3 [0.2, 0.4]".replace(",", ";"), {}, "holds two numbers"),
        ("1_0", {}, "is not a number"),
        ("33", {}, "fractions and percentages mixed"),
        ("-5", {}, "neither a fraction nor a percentage"),
        ("0.5%", {}, "fractions and percentages mixed"),
        ("1e308", {"scale": "raw"}, "no usable number"),
    ],
)
def test_how_numbers_are_written(tmp_path, cell, options, expected):
    rest = 1000 if isinstance(expected, (int, float)) else 0.1
    text = "model,x\n" + f"o/m0,{cell}\n" + "".join(f"o/m{i},{rest * (1 + i / 100):.4f}\n" for i in range(1, 8))
    frame, problems = read(write(tmp_path, text), **options)
    if isinstance(expected, str):
        assert expected in told(problems, True)
        assert len([p for p in problems if p.serious]) == 1
    else:
        assert frame["score"].iloc[0] == expected and not told(problems, True)


def test_a_comma_that_may_be_either_is_asked_for(tmp_path):
    text = long_table("model,x", lambda i, m: f'{m},"45,{125 + i}"')
    assert "'45,125' can be 45.125 or 45125 (and 9 more rows)" in told(read(write(tmp_path, text))[1], True)
    text = "model;x\n" + "".join(f"{m};45,{125 + i}\n" for i, m in enumerate(MANY))
    assert read(write(tmp_path, text))[0]["score"].iloc[0] == pytest.approx(0.45125), "semicolons go with commas"


def test_one_small_value_among_percentages_is_seen(tmp_path):
    text = long_table("model,x", lambda i, m: f"{m},{0.53 if i == 4 else 40 + i}")
    assert "fractions and percentages mixed" in told(read(write(tmp_path, text))[1], True)
    assert not told(read(write(tmp_path, text), scale="percent")[1], True), "the advice works"


def test_impossible_errors_and_ratings(tmp_path):
    text = long_table("model,score,n_items,stderr", lambda i, m: f"{m},{(i + 2) / 132:.6f},132,0")
    frame, problems = read(write(tmp_path, text))
    assert frame["stderr"].iloc[0] == pytest.approx(0.0106, abs=1e-4) and "a standard error of 0" in told(problems)
    frame, problems = read(write(tmp_path, text.replace(",132,0", ",,0")))
    assert frame["stderr"].isna().all() and "a standard error of 0" in told(problems)
    frame, problems = read(write(tmp_path, long_table("model,score,n_items", lambda i, m: f"{m},{3 + i / 2},80")))
    assert frame["stderr"].isna().all() and frame["score"].max() == 7.5 and "ratings" in told(problems)
    frame, _ = read(write(tmp_path, long_table("model,score,n_items", lambda i, m: f"{m},{RISE[i]},400")))
    assert frame["stderr"].tolist() == pytest.approx([np.sqrt(r * (1 - r) / 400) for r in RISE])
    frame, _ = read(write(tmp_path, long_table("model,score,n_items", lambda i, m: f"{m},{RISE[i]},400")), scale="raw")
    assert frame["stderr"].isna().all(), "of raw scores nobody knows that they are shares"
    assert scores.binomial_error(np.array([0.0, 1.0]), np.array([50.0, 50.0])).min() > 0


@pytest.mark.parametrize(
    ("head", "row", "name", "stderr", "n_items"),
    [
        ("model,x,x_stderr", "{m},{r},0.01", "x", 0.01, None),
        ("model,win_rate,standard_error,n_total", "{m},{r},0.02,500", "win_rate", 0.02, 500),
        ("model,x,x Std. Err.,x #items", "{m},{r},0.02,500", "x", 0.02, None),
        ("model,x,x_acc_stderr,y,y_se,y_n", "{m},{r},0.02,{r},0.01,400", "y", 0.01, 400),
        ("LLM,Task,Accuracy,SE,N", "{m},x,{r},0.02,\"1,319\"", "x", 0.02, 1319),
        ("model,x,stderr_x,n_x", "{m},{r},0.02,500", "x", 0.02, 500),
    ],
)  # fmt: skip
def test_columns_of_errors_and_counts_are_no_benchmarks(tmp_path, head, row, name, stderr, n_items):
    text = long_table(head, lambda i, m: row.format(m=m, r=RISE[i]))
    frame, problems = read(write(tmp_path, text))
    own = frame[frame["benchmark"] == name]
    assert (
        values(frame, name) == RISE and set(frame["benchmark"]) <= {"x", "y", "win_rate"} and not told(problems, True)
    )
    assert set(own["stderr"]) == {stderr}
    assert n_items is None or set(own["n_items"]) == {n_items}


@pytest.mark.parametrize(
    "row",
    ["{m},{r},1.2,", "{m},{p},0.03,", "{m},{r},1.2,400", "{m},{p},0.03,400", "{m},{r},0.5,400"],
)
def test_a_standard_error_in_another_unit_is_refused(tmp_path, row):
    text = long_table("model,score,stderr,n_items", lambda i, m: row.format(m=m, r=RISE[i], p=round(100 * RISE[i], 2)))
    problems = read(write(tmp_path, text))[1]
    assert "another unit" in told(problems, True) and len([p for p in problems if p.serious]) == 1


def test_one_slip_in_the_number_of_items_stays_one(tmp_path):
    text = long_table("model,score,n_items", lambda i, m: f"{m},{RISE[i]},{40000 if i == 3 else 400}")
    frame, problems = read(write(tmp_path, text))
    assert frame["n_items"].tolist().count(400) == 9 and "40000 items of 'o/m3'" in told(problems)
    for wrong in ("1e99", "0.5", "-3", "many", "2.5", "true"):
        problems = read(write(tmp_path, text.replace("40000", wrong)))[1]
        assert "is no number of items" in told(problems, True), wrong


def test_groups_and_empty_rows_hide_nothing(tmp_path):
    frame, _ = read(made(tmp_path / "a", runs_of(lambda i: {"g": {"alias": "g"}, "g_a": {"acc": RISE[i]}}, group_subtasks={"g": ["g_a"]})))  # fmt: skip
    assert values(frame, "g_a") == RISE
    frame, problems = read(made(tmp_path / "b", runs_of(lambda i: {"x": {"acc": float("nan")}, "y": {"acc": RISE[i]}})))
    assert values(frame, "y") == RISE and "'x' has no number (and 9 more files)" in told(problems, False)
    frame, problems = read(made(tmp_path / "c", runs_of(lambda i: {"t": {"acc": RISE[i], "acc_norm": 0.7}})))
    assert values(frame, "t") == RISE and "metric 'acc' taken; also there: 'acc_norm'" in told(problems)
    frame, _ = read(made(tmp_path / "d", runs_of(lambda i: {"a": {"acc": RISE[i]}, "b": {"acc": 0.5}}, group_subtasks={"a": ["b"], "b": ["a"]})))  # fmt: skip
    assert values(frame, "a") == RISE and len(values(frame, "b")) == 10, "groups of one another hide neither"
    only = runs_of(lambda i: {"m": {"acc": RISE[i]}}, group_subtasks={"m": ["m_a", "m_b"]})
    assert values(read(made(tmp_path / "e", only), level="subtask")[0], "m") == RISE


def test_one_metric_for_all_models_and_its_filter_on_request(tmp_path):
    mixed = lambda i: {"t": {"acc_norm": RISE[i]} | ({"acc": 0.9} if i < 3 else {})}  # noqa: E731
    frame, problems = read(made(tmp_path / "a", runs_of(mixed)))
    assert values(frame, "t") == RISE and set(frame["metric"]) == {"acc_norm"}, "what most models have"
    both = lambda i: {"g": {"exact_match,strict": RISE[i], "exact_match,flexible": 0.9 - RISE[i]}}  # noqa: E731
    folder = made(tmp_path / "b", runs_of(both))
    assert values(read(folder, metric="exact_match,strict")[0], "g") == RISE
    assert "--metric exact_match,strict" in told(read(folder)[1])
    frame, problems = read(folder, metric="acc")
    assert frame.empty and "no benchmark has the metric 'acc'" in told(problems, True)


@pytest.mark.parametrize("value", [33, -5, True, float("inf"), 1e308, 10**400, "33"])
def test_harness_values_are_judged_like_those_of_tables(tmp_path, value):
    folder = made(tmp_path, runs_of(lambda i: {"t": {"acc,none": value if i == 4 else RISE[i]}}))
    problems = read(folder)[1]
    assert "r4.json" in told(problems, True), told(problems)


def test_notes_columns_links_and_scenarios(tmp_path):
    head = "dataset,version,metric,mode," + ",".join(MANY)
    rows = ["hs,123456,accuracy,gen", "arc,ab12,accuracy,ppl"]
    text = head + "\n" + "\n".join(f"{r}," + ",".join(str(100 * v) for v in RISE) for r in rows) + "\n"
    frame, _ = read(write(tmp_path, text))
    assert values(frame, "hs") == RISE and set(frame["model"]) == set(MANY)
    text = "model,scenario,score\n" + "".join(f"{m},{s},{r}\n" for m, r in zip(MANY, RISE) for s in ("mmlu", "gsm"))
    assert values(read(write(tmp_path, text))[0], "gsm") == RISE
    text = long_table("Model/adapter,x", lambda i, m: f'"<a href=""https://hf.co/{m}"" style=""a"">{m}</a> <b>new</b>",{RISE[i]}')  # fmt: skip
    assert values(read(write(tmp_path, text))[0], "x") == RISE
    text = long_table("model,x,Average ⬆️,#Params (B)", lambda i, m: f"{m},{RISE[i]},0.5,7")
    frame, problems = read(write(tmp_path, text))
    assert set(frame["benchmark"]) == {"x"} and "Average" in told(problems)
    assert set(read(write(tmp_path, text), benchmarks=["Average ⬆️"])[0]["benchmark"]) == {"Average ⬆️"}


def test_rows_about_unknown_models_play_no_part_and_cost_no_time(tmp_path):
    import time

    rest = "".join(f"x{i % 150}/unknown-model-{i % 150}-chat-7b,{0.3 + i / 1000}\n" for i in range(300)) + "z/z,oops\n"
    text = long_table("model,x", lambda i, m: f"{m},{RISE[i]}") + rest
    began = time.perf_counter()
    frame, problems = read(write(tmp_path, text), models=[*MANY, *(f"q/known-{i}-7b" for i in range(150))])
    assert time.perf_counter() - began < 5
    assert values(frame, "x") == RISE and not told(problems, True) and "nor are 150 more" in told(problems)
    twice = read(write(tmp_path, text + "m0,0.9\n"), models=MANY)[1]
    assert "'o/m0' and 'm0' all mean 'o/m0'" in told(twice, True)


def test_a_line_separator_in_a_field_is_text(tmp_path):
    for mark in ("\u2028", "\x85", "\x0c"):
        frame, problems = read(write(tmp_path, f'model,"x{mark}y",z\n' + "a,0.5,0.2\nb,0.6,0.3\n"))
        assert len(frame) == 4 and not told(problems, True)


# --- files that are broken on purpose -------------------------------------------------------------------------------


def test_what_cannot_be_read_is_one_error_in_no_time(tmp_path):
    import os
    import time

    layers = 25  # groups in diamonds: 2 ** 25 ways from the top to the bottom
    tree = {f"g{k}{s}": [f"g{k + 1}a", f"g{k + 1}b"] for k in range(layers) for s in "ab"}
    results = {"g0a": {"acc": 0.5}} | {f"g{layers}{s}": {"acc": 0.4} for s in "ab"}
    counts = {f"g{layers}{s}": {"effective": 10} for s in "ab"}
    folder = made(tmp_path / "a", {"r.json": {"results": results, "group_subtasks": tree, "n-samples": counts, "model_name": "o/m"}})  # fmt: skip
    (folder / "deep.json").write_text('{"results": ' + "[" * 100_000 + "]" * 100_000 + "}")
    (folder / "twice.json").write_text('{"results": {"t": {"acc": 0.5, "acc": 0.9}}}')
    (folder / "digits.json").write_text('{"results": {"t": {"acc": ' + "9" * 6000 + "}}}")
    os.mkfifo(folder / "pipe.json")
    os.symlink(folder / "loop.json", folder / "loop.json")
    os.symlink(folder, folder / "again")
    os.write(
        os.open(os.fsencode(folder) + b"/r\xff.json", os.O_CREAT | os.O_WRONLY), b'{"results": {"t": {"acc": 0.5}}}'
    )
    began = time.perf_counter()
    frame, problems = read(folder)
    assert time.perf_counter() - began < 10
    assert frame.set_index("benchmark").loc["g0a", "n_items"] == 20
    assert told(problems).encode("utf-8")
    for part in ("stands twice", "not valid JSON", "not a regular file"):
        assert part in told(problems), part
    wide = "model," + ",".join(f"b{i}" for i in range(200_000)) + "\nm," + ",".join("0.5" for _ in range(200_000))
    assert "a score table has at most" in told(read(write(tmp_path, wide))[1], True)
    assert "2 columns of this name" in told(read(write(tmp_path, "model,x,x\na,1,2\nb,1,2\n"))[1], True)
    for path in (folder / "pipe.json", folder / "loop.json", "a" * 5000):
        assert len([p for p in read(path)[1] if p.serious]) == 1


@pytest.mark.parametrize("date", ["2024-99-99", 1e300, -1e300, float("nan"), 10**30, True, [], {"a": 1}, "x" * 9999])
def test_dates_out_of_range_are_no_dates(tmp_path, date):
    content = {"results": {"t": {"acc": 0.5}}, "model_name": "o/m", "date": date}
    frame, problems = read(made(tmp_path, {"results_2024-13-45T99-99-99.json": content}))
    assert frame["score"].tolist() == [0.5] and not told(problems, True)


BROKEN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(10**400)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["acc", "t", "effective", "x"]), inner),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(["results", "groups", "group_subtasks", "configs", "n-shot", "n-samples", "higher_is_better", "config", "config_general", "model_name", "date", "chat_template", "eval_metrics"]), BROKEN | st.dictionaries(st.just("t"), BROKEN)))  # fmt: skip
def test_no_results_file_ends_in_a_stack_trace(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("h")
    (folder / "a.json").write_text(json.dumps({"results": {"t": {"acc": 0.5}}} | content))
    (folder / "b.json").write_text(json.dumps({"results": {"t": {"acc": 0.6}}, "model_name": "o/b"}))
    frame, problems = read(folder)
    assert np.isfinite(frame["score"]).all() and list(frame.columns) == list(scores.COLUMNS)
    assert len(frame) or problems
    with pytest.raises(DataError) if any(p.serious for p in problems) else warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores.read(folder)


@pytest.mark.parametrize("row", [",,o/m0", "x,,", "x,n/a,-"])
def test_a_table_without_one_score_is_refused(tmp_path, row):
    (tmp_path / "s.csv").write_text(f"task,o/a,o/b\n{row}\n")
    with pytest.raises(DataError, match="not one score"):
        scores.read(tmp_path / "s.csv")


CELL = st.sampled_from(["", "o/m0", "model", "0.5", "55%", "1,287", "0,3", "nan", "inf", "-5", "33", "true", '"', '"a\nb"', "0.3 (0.1)", "9" * 400, "=A1", "\u2028", "x", "\x1b[31m"]) | st.text(max_size=4)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(
    st.sampled_from(["model,x", "model,task,metric,value,stderr,n", "task,o/a,o/b", ",x,x_stderr,x_n", "x"]),
    st.lists(st.lists(CELL, min_size=1, max_size=6), max_size=6),
    st.sampled_from([",", "\t", ";"]),
    st.sampled_from(["csv", "tsv", "txt", "parquet", "json", "jsonl"]),
)
def test_no_table_ends_in_a_stack_trace(tmp_path_factory, head, rows, delimiter, suffix):
    text = "\n".join([head.replace(",", delimiter), *(delimiter.join(r) for r in rows)])
    path = tmp_path_factory.mktemp("t") / f"s.{suffix}"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    for scale in ("auto", "raw"):
        frame, problems = read(path, scale=scale)
        assert np.isfinite(frame["score"].astype(float)).all() and (len(frame) or any(p.serious for p in problems))
        assert told(problems).encode("utf-8", "surrogatepass") is not None
