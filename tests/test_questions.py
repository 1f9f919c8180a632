"""Questions: every vocabulary, what a model sees, samples, shared questions, templates, markup."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import datasets, questions
from helpers.errors import DataError

CLOSED = [
    {"query": "Is ice cold?", "choices": ["yes", "no"], "gold": 0},
    {"question": "Is ice cold?", "choices": ["yes", "no"], "answer": "yes"},
    {"question": "Is ice cold?", "choices": ["yes", "no"], "answer": "A"},
    {"question": "Is ice cold?", "choices": ["yes", "no"], "answer": 0},
    {"question": "Is ice cold?", "choices": ["yes", "no"], "answer": "0"},
    {"question": "Is ice cold?", "choices": "yes; no", "answer": "yes"},
    {"question": "Is ice cold?", "choices": {"text": ["yes", "no"], "label": ["A", "B"]}, "answer": "A"},
    {"question": "Is ice cold?", "choices": ["yes", "no"], "answer": 0, "format": "multiple choice"},
    {"doc_to_text": "Is ice cold?", "doc_to_choice": ["yes", "no"], "doc_to_target": 0, "format": "multiple choice"},
]  # fmt: skip
SEEN = [
    lambda prompt, a, b: {"doc_to_text": prompt, "doc_to_choice": [a, b], "doc_to_target": 0},
    lambda prompt, a, b: {"doc": {}, "target": "0", "arguments": [[prompt, f" {a}"], [prompt, f" {b}"]]},
    lambda prompt, a, b: {"doc": {}, "target": 0, "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": f" {a}"},
                                                                "gen_args_1": {"arg_0": prompt, "arg_1": f" {b}"}}},
]  # fmt: skip


@pytest.mark.parametrize("record", CLOSED)
def test_one_question_in_every_vocabulary(record):
    question = questions.parse(record)
    assert question["prompt"] == "Is ice cold?" and question["choices"] == ["yes", "no"]
    assert question["answer"] == "yes" and question["format"] == "multiple choice"
    assert question["text"] == "Is ice cold?\nA. yes\nB. no"


@pytest.mark.parametrize("record", SEEN)
@pytest.mark.parametrize(
    ("prompt", "choices", "kind"),
    [
        ("Is ice cold?", ("yes", "no"), "cloze"),
        ("The north wind", ("no", "orth"), "cloze"),  # parts of words show nothing
        ("Is ice cold? yes or no", ("yes", "no"), "multiple choice"),
        ("Ice?\nA. cold\nB. warm\nAnswer:", ("A", "B"), "multiple choice"),
        ("Ice?\nA. cold (very)\nB. warm\nAnswer:", ("cold (very)", "warm"), "multiple choice"),
    ],
)
def test_what_the_model_saw_tells_the_format(record, prompt, choices, kind):
    question = questions.parse(record(prompt, *choices))
    assert (question["format"], question["text"]) == (kind, prompt)
    assert question["choices"] == list(choices) and question["answer"] == choices[0]
    for told in questions.FORMATS:  # whoever knows better says so
        assert questions.parse(record(prompt, *choices) | {"format": told})["format"] == told


def test_a_stated_format_decides_what_is_seen():
    closed = {"question": "Ice is", "choices": ["cold", "warm"], "answer": "cold"}
    seen = {f: questions.parse(closed | {"format": f})["text"] for f in questions.FORMATS}
    assert seen["multiple choice"] == "Ice is\nA. cold\nB. warm" and seen["cloze"] == "Ice is"
    assert questions.parse(closed | {"format": ""})["format"] == "multiple choice"
    with pytest.raises(ValueError, match="field 'format' is 'close'; did you mean 'cloze'"):
        questions.parse(closed | {"format": "close"})


@pytest.mark.parametrize(
    ("record", "kind", "answer", "text"),
    [
        ({"context": "2 + 2 =", "continuation": "4"}, "language modeling", "4", "2 + 2 ="),
        ({"context": "2 + 2?", "answer": "4", "aliases": ["four"]}, "generation", "4", "2 + 2?"),
        ({"context_options": ["The cat", "The dog"], "continuation": "barked.", "gold": 1}, "schema", "The dog barked.",
         "A. The cat barked.\nB. The dog barked."),
        ({"task_id": "x/1", "prompt": "def f():\n", "canonical_solution": "    return 1", "test": ""}, "code", "    return 1", "def f():"),
        ({"question": "2 + 2?", "answer": 4}, "generation", "4", "2 + 2?"),
        ({"doc_to_text": "2 + 2?", "doc_to_target": "4"}, "generation", "4", "2 + 2?"),
        ({"query": "Which?\nA. x\nB. y\nAnswer:", "choices": ["A", "B"], "gold": 1}, "multiple choice", "B", "Which?\nA. x\nB. y\nAnswer:"),
    ],
)  # fmt: skip
def test_open_schema_and_code(record, kind, answer, text):
    question = questions.parse(record)
    assert (question["format"], question["answer"], question["text"]) == (kind, answer, text)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([1, 2], "expected an object"),
        ({}, "no question field"),
        ({"question": "a?"}, "'answer' is missing"),
        ({"question": "", "answer": "x"}, "'question' is empty"),
        ({"question": None, "answer": "x"}, "NoneType"),
        ({"question": "a?", "choices": ["x"], "answer": 0}, "at least two"),
        ({"question": "a?", "choices": ["x", ""], "answer": 0}, "choice 2 is empty"),
        ({"question": "a?", "choices": ["x", None], "answer": 0}, "NoneType"),
        ({"question": "a?", "choices": ["x", "y"], "answer": 2}, "0 to 1"),
        ({"question": "a?", "choices": ["x", "y"], "answer": -1}, "0 to 1"),
        ({"question": "a?", "choices": ["x", "y"], "answer": "z z"}, "not one of the 2 choices"),
        ({"question": "a?", "choices": ["x", "y"], "answer": True}, "index, the letter or the text"),
        ({"question": "a?", "choices": ["x", "y"], "answer": None}, "is missing"),
        ({"query": "a?", "choices": ["x", "y"]}, "is missing"),
        ({"doc": {}, "arguments": []}, "no .context"),
    ],
)
def test_wrong_records_say_why(record, message):
    with pytest.raises(ValueError, match=message):
        questions.parse(record)


def test_read_collects_every_problem_and_keeps_the_sound(tmp_path):
    lines = [
        '{"question": "1?", "answer": "x"}',
        "not json",
        '{"question": "2?"}',
        "",
        '{"question": "3?", "answer": "y"}',
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(lines))
    problems = []
    frame = questions.read(path, problems=problems)
    assert frame["answer"].tolist() == ["x", "y"] and [p.row for p in problems] == [2, 3]
    with pytest.raises(DataError, match=r"2 problem\(s\)"):
        questions.read(path)


def test_csv_tsv_and_json_lists(tmp_path):
    records = [{"question": "Is ice cold?", "choices": ["yes", "no"], "answer": "yes"}]
    (tmp_path / "q.json").write_text(json.dumps(records))
    (tmp_path / "q.csv").write_text('question,choices,answer\nIs ice cold?,"[""yes"", ""no""]",yes\n')
    (tmp_path / "q.tsv").write_text("question\tchoices\tanswer\nIs ice cold?\t['yes', 'no']\tyes\n")
    for name in ("q.json", "q.csv", "q.tsv"):
        frame = questions.read(tmp_path / name, "mine")
        assert frame.loc[0, ["benchmark", "text", "answer"]].tolist() == [
            "mine",
            "Is ice cold?\nA. yes\nB. no",
            "yes",
        ]


def make(texts, name="b"):
    return questions.table([questions.parse({"question": t, "answer": "x"}) for t in texts], name)


def test_samples_do_not_depend_on_company():
    a, b = make([f"a{i}" for i in range(50)], "a"), make([f"b{i}" for i in range(50)], "b")
    alone = questions.sample(a, 10, 3)
    both = questions.sample(pd.concat([b, a], ignore_index=True), 10, 3)
    assert alone["text"].tolist() == both.loc[both["benchmark"] == "a", "text"].tolist()
    assert questions.sample(a, 10, 4)["text"].tolist() != alone["text"].tolist()
    assert len(questions.sample(a, 100, 3)) == 50


def test_length_matched_samples_have_equal_lengths():
    rng = np.random.default_rng(0)
    parts = [
        make([" ".join(["w"] * int(n)) for n in rng.integers(low, low + 40, 400)], f"b{low}") for low in (5, 15, 25)
    ]
    frame = pd.concat(parts, ignore_index=True)
    matched = questions.sample_length_matched(frame, 90, 0)
    lengths = questions.words(matched["text"]).groupby(matched["benchmark"]).mean()
    before = questions.words(frame["text"]).groupby(frame["benchmark"]).mean()
    assert matched["benchmark"].value_counts().nunique() == 1 and len(matched) == 270
    assert lengths.max() / lengths.min() < 1.1 < before.max() / before.min()
    apart = pd.concat([make(["one two"], "s"), make([" ".join(["w"] * 500)], "l")], ignore_index=True)
    with pytest.raises(DataError, match="No question length is common"):
        questions.sample_length_matched(apart, 10, 0)


def test_templates_are_found_and_removed():
    texts = [f"Question: is item {i} red? Answer:" for i in range(20)] + ["an exception without the frame"]
    frame, report = questions.strip_template(make(texts))
    assert frame["text"].iloc[0] == "0" and frame["text"].iloc[-1] == texts[-1]
    assert report.loc[0, ["prefix", "suffix"]].tolist() == [3, 2] and 0.7 < report.loc[0, "removed_share"] < 0.9
    same, _ = questions.strip_template(make(["all the same"] * 5))
    assert (same["text"] == "all the same").all()  # nothing is left of it otherwise


@given(st.lists(st.text(alphabet="ab c\n", min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=8))
def test_stripping_only_removes(texts):
    frame = make(texts)
    stripped, _ = questions.strip_template(frame)
    assert all(new in old for new, old in zip(stripped["text"], frame["text"], strict=True))
    assert (stripped["text"].str.strip() != "").all()


def test_shared_questions_exact_near_and_none():
    body = [
        "the quick brown fox jumps over the lazy dog near the river bank today",
        "what is the capital of the country that borders both seas",
    ]
    a = make([*body, "a question of its own about nothing else at all in this world"], "a")
    b = make(
        [
            body[0].upper() + "!",
            body[1] + " in the north",
            *[f"filler question number {i} with words" for i in range(4)],
        ],
        "b",
    )
    c = make([f"completely different content {i} here" for i in range(3)], "c")
    report = questions.shared(pd.concat([a, b, c], ignore_index=True))
    assert report[["a", "b", "exact", "near"]].to_numpy().tolist() == [["a", "b", 1, 2]]
    assert report.loc[0, "share"] == pytest.approx(2 / 3)


def test_repeated_question_sets_are_paired_and_others_left_alone():
    prompts = {
        "gsm": [f"What is {k} plus {k}?" for k in range(40)],
        "gsm_cot": [f"what  is {k} plus {k}?" for k in range(40)],  # another spelling of the same
        "gsm_part": [f"What is {k} plus {k}?" for k in range(10)],
        "near": [f"What is {k} plus {k}?" for k in range(8)] + [f"Who is {k}?" for k in range(32)],
        "other": ["Who was first?"],
    }
    frame = pd.DataFrame([(n, p) for n, own in prompts.items() for p in own], columns=["benchmark", "text"])
    assert questions.repeated(frame) == {"gsm_cot": "gsm", "gsm_part": "gsm"}


def test_short_questions_are_compared_whole():
    report = questions.shared(
        pd.concat([make(["25-759=", "1+1="], "a"), make(["25 - 759 =", "3+3="], "b")], ignore_index=True)
    )
    assert report[["exact", "near"]].to_numpy().tolist() == [[1, 1]]


@given(st.text())
def test_markup_is_shown_not_interpreted(text):
    shown = questions.display(text)
    inner = shown.removeprefix('<div class="question-text">').removesuffix("</div>").replace("<br>", "")
    assert "<" not in inner and ">" not in inner


def test_script_in_a_question():
    assert "<script>" not in questions.display("<script>alert(1)</script>")


def test_real_files():
    names = ["gauntlet-questions", "xwinograd", "truthfulqa"]
    reason = datasets.unavailable(names)
    if reason:
        pytest.skip(f"published files are not here: {reason}")
    files = {p.rsplit("/", 1)[-1]: f for p, f in datasets.files("gauntlet-questions").items()}
    counts = {
        "copa.jsonl": 100,
        "winogrande.jsonl": 1267,
        "gsm8k.jsonl": 1319,
        "human_eval.jsonl": 164,
        "boolq.jsonl": 3270,
    }
    for name, count in counts.items():
        frame = questions.read(files[name], problems=[])
        assert len(frame) == count and frame["text"].str.strip().ne("").all()
        assert (frame["format"].isin(questions.FORMATS)).all()
        closed = frame[frame["choices"].map(len) > 0]
        assert all(a in c for a, c in zip(closed["answer"], closed["choices"], strict=True))
    languages = questions.read_xwinograd(datasets.fetch("xwinograd"))["benchmark"].value_counts()
    assert languages.to_dict() == {"xwinograd_en": 2325, "xwinograd_jp": 959, "xwinograd_ru": 315, "xwinograd_pt": 263,
                                   "xwinograd_fr": 83, "xwinograd_zh": 16}  # fmt: skip
    truthful = questions.read_truthfulqa(datasets.fetch("truthfulqa"))
    assert len(truthful) == 817 and (truthful["choices"].map(len) >= 2).all()
    variants = pd.concat(
        [questions.read(files[f], problems=[]) for f in ("human_eval.jsonl", "human_eval-0.5.jsonl")],
        ignore_index=True,
    )
    assert questions.shared(variants).loc[0, "share"] == 1
