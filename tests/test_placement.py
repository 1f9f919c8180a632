"""A reader's own benchmark: what is wrong with files is said, what is right is placed where it belongs."""

import json
import re

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from helpers import adapt, inference, overlap, paths, placement, provenance, scores, studies
from helpers.errors import DataError, StudyError

MODELS = [f"org{i % 6}/model-{i:02d}" for i in range(24)]


@pytest.fixture(scope="module")
def tables():
    """24 models of 6 lineages, 8 benchmarks on two skills, 200 units that go with one skill, the other, or none."""
    rng = np.random.default_rng(0)
    general, one, two = rng.normal(size=(3, 24))
    skills = [one] * 4 + [two] * 4
    latent = np.stack([0.5 * general + s + 0.2 * rng.normal(size=24) for s in skills])
    known = pd.DataFrame(1 / (1 + np.exp(-latent)), index=[f"b{i}" for i in range(8)], columns=MODELS)
    drive = np.concatenate([np.tile(one, (60, 1)), np.tile(two, (60, 1)), np.zeros((80, 24))])
    surprisal = pd.DataFrame(
        3 - drive + 0.5 * rng.normal(size=(200, 24)), columns=MODELS, index=pd.RangeIndex(200, name="unit_id")
    )
    groups = pd.Series([m.split("/")[0] for m in MODELS], index=MODELS)
    benchmarks = pd.DataFrame(
        {"format": ["multiple choice"] * 4 + ["generation"] * 4, "function": ["x"] * 8}, index=known.index
    )
    units = pd.DataFrame({"doc_id": [f"d{i}" for i in range(200)], "source": "s"}, index=surprisal.index)
    return overlap.Tables(
        surprisal=surprisal,
        scores=known,
        all_scores=known,
        stderr=known * np.nan,
        groups=groups,
        all_groups=groups,
        benchmarks=benchmarks,
        units=units,
        exclude=np.zeros((200, 8), dtype=bool),
        left_out={},
    )


def table(values=None, models=MODELS, column="mine"):
    values = np.linspace(0.2, 0.8, len(models)) if values is None else values
    return "\n".join([f"model,{column}", *(f"{m},{v}" for m, v in zip(models, values, strict=True))]) + "\n"


GOOD = table()
ROWS = GOOD.splitlines()
QUESTION = {"question": "Is ice cold?", "choices": ["yes", "no"], "answer": 0}


def questions(*changes, count=40):
    """Return JSONL of `count` sound questions, then one line for each change."""
    lines = [json.dumps(QUESTION | {"question": f"Is item {i} cold?"}) for i in range(count)]
    return "\n".join([*lines, *(c if isinstance(c, str) else json.dumps(c) for c in changes)]) + "\n"


def line(number, text):
    """Return the good table with one line replaced."""
    return "\n".join([*ROWS[:number], text, *ROWS[number + 1 :]]) + "\n"


# (what it is, content of the score file, what must be said, serious, options)
SCORES = [
    ("empty file", "", "an empty file", True, {}),
    ("white space only", " \n \n", "an empty file", True, {}),
    ("header only", "model,mine\n", "a header without rows", True, {}),
    ("one column", "mine\n0.5\n0.6\n", "one column only", True, {}),
    ("wrong delimiter", GOOD.replace(",", ":"), "one column only", True, {}),
    ("latin-1", GOOD.replace("org0", "örg").encode("latin-1"), "is not UTF-8", True, {}),
    ("binary", b"PK\x03\x04\x00\x00" * 9, "null bytes", True, {}),
    ("broken utf-16", b"\xff\xfe" + b"m", "broken UTF-16", True, {}),
    ("utf-16", GOOD.encode("utf-16"), "UTF-16 text", False, {}),
    ("merged header", "model,mine,\n" + "\n".join(f"{r},1" for r in ROWS[1:]), "an empty header cell", True, {}),
    ("column named twice", "model,mine,mine\na,1,2\nb,1,2\n", "2 columns of this name", True, {}),
    ("no header", "\n".join(ROWS[1:]) + "\n", "numbers where the header should be", True, {}),
    ("no model column", GOOD.replace("model,", "thing,"), "no column of models", True, {}),
    ("ragged row", line(3, "org2/model-02,0.3,9"), "3 fields, the header has 2", True, {}),
    ("short row", line(3, "org2/model-02"), "1 fields, the header has 2", True, {}),
    ("unclosed quote", line(3, '"org2/model-02,0.3'), "not a valid table", True, {}),
    ("decimal commas", GOOD.replace(",", ";").replace("0.", "0,"), "decimal comma", False, {}),
    ("quoted decimal comma", line(3, 'org2/model-02,"0,31"'), "decimal comma", False, {}),
    ("a word for a number", line(3, "org2/model-02,good"), "'good' is not a number", True, {}),
    ("infinite", line(3, "org2/model-02,inf"), "write a finite number", True, {}),
    ("a huge number", line(3, "org2/model-02,1e308"), "write a finite number", True, {"scale": "raw"}),
    ("two numbers in a cell", line(3, "org2/model-02,0.3 ± 0.1"), "holds two numbers", True, {}),
    ("no model name", line(3, ",0.3"), "no model name", True, {}),
    ("missing score", line(3, "org2/model-02,"), "not measured, left out", False, {}),
    ("NaN written out", line(3, "org2/model-02,NaN"), "not measured, left out", False, {}),
    ("all missing", table([""] * 24), "no column of numbers", True, {}),
    ("negative", line(3, "org2/model-02,-0.3"), "neither a fraction nor a percentage", True, {}),
    ("over a hundred", line(3, "org2/model-02,130"), "neither a fraction nor a percentage", True, {}),
    ("percent", table(np.linspace(20, 80, 24)), "read as percent", False, {}),
    ("percent said to be fractions", table(np.linspace(20, 80, 24)), "is not a fraction", True, {"scale": "fraction"}),
    ("too much percent", table(np.linspace(20, 180, 24)), "is not a percentage", True, {"scale": "percent"}),
    ("mixed conventions", table([*np.linspace(0.2, 0.8, 12), *np.linspace(20, 80, 12)]), "fractions and percentages mixed", True, {}),
    ("model twice, two scores", GOOD + "org0/model-00,0.9\n", "has 2 scores", True, {}),
    ("model twice, one score", GOOD + ROWS[1] + "\n", "listed 2 times", False, {}),
    ("one model under two names", GOOD + "https://huggingface.co/org0/model-00,0.9\n", "all mean 'org0/model-00'", True, {}),
    ("unknown models", table(models=[f"zz/none-{i}" for i in range(24)]), "0 models are shared", True, {}),
    ("a model misspelt", GOOD.replace("org2/model-02", "org2/model-0Z"), "nearest: 'org2/model-", False, {}),
    ("another owner", GOOD.replace("org2/model-02", "fork/model-02"), "is not in the study", False, {}),
    ("short names", GOOD.replace("org0/", ""), "by its base name", False, {}),
    ("other spelling", GOOD.replace("org0/model-", "ORG0/Model_"), "by its normal form", False, {}),
    ("fewer than 8", "\n".join(ROWS[:8]) + "\n", "at least 8 are needed", True, {}),
    ("constant", table([0.5] * 24), "every model scores 0.5", True, {}),
    ("two values", table([0.4, 0.6] * 12), "only 2 different scores", True, {}),
    ("many ties", table([0.3, 0.4, 0.5, 0.6] * 6), "are tied", False, {}),
    ("several benchmarks", "model,x,y\n" + "\n".join(f"{r},0.5" for r in ROWS[1:]), "say which one is yours", True, {}),
    ("no such benchmark", "model,xylo,yak\n" + "\n".join(f"{r},0.5" for r in ROWS[1:]), "did you mean 'xylo'", True, {"benchmark": "xilo"}),
    ("lower is better", "UPSIDE DOWN", "if lower is better", False, {}),
    ("copy of a known one", "COPY", "the scores are those of 'b0'", False, {}),
    ("alias to nowhere", GOOD, "which the study lacks", True, {"aliases": {"x": "org9/none"}}),
    ("alias of nobody", GOOD, "is no model of the file", False, {"aliases": {"x": MODELS[0]}}),
    ("a note column", "model,family,mine\n" + "\n".join(r.replace(",", ",llama,") for r in ROWS[1:]), "not a benchmark", False, {}),
    ("items of which benchmark", "model,x,y,n_items\n" + "\n".join(f"{r},0.5,9" for r in ROWS[1:]), "could belong to any of 2", False, {"benchmark": "x"}),
    ("no items", "model,score,n_items\n" + "\n".join(f"{r},0" for r in ROWS[1:]), "'0' is no number of items", True, {}),
    ("items in words", "model,score,n_items\n" + "\n".join(f"{r},many" for r in ROWS[1:]), "'many' is no number of items", True, {}),
    ("negative error", "model,score,stderr\n" + "\n".join(f"{r},-0.1" for r in ROWS[1:]), "'-0.1' is no standard error", True, {}),
    ("percent signs", table([f"{v:.0f}%" for v in np.linspace(20, 80, 24)]), "read as percent", False, {}),
    ("half of them turned", table([*np.linspace(0.2, 0.8, 12), *np.linspace(-0.2, -0.8, 12)]), "neither a fraction", True, {}),
    ("a perplexity", table(np.linspace(3, 30, 24), column="word_perplexity"), "lower is better", False, {"scale": "raw"}),
    ("another revision", GOOD.replace("org2/model-02", "org2/model-02@step1000"), "is not in the study", False, {}),
    ("revision main", GOOD.replace("org2/model-02", "org2/model-02@main"), "by its normal form", False, {}),
    ("thousands separator", line(3, 'org2/model-02,"1,234.5"'), "1,234.5 is neither a fraction", True, {}),
    ("spreadsheet error", line(3, "org2/model-02,#DIV/0!"), "is not a number", True, {}),
    ("true or false", line(3, "org2/model-02,TRUE"), "is not a number", True, {}),
    ("a blank for a name", line(3, "   ,0.3"), "no model name", True, {}),
    ("a path for a name", line(3, "../../etc/passwd,0.3"), "is not in the study", False, {}),
    ("null byte in a name", line(3, "org2/model\0-02,0.3"), "null bytes", True, {}),
    ("escape code in a name", line(3, "org2/\x1b[31mmodel-02,0.3"), "is not in the study", False, {}),
    ("only separators", ",,,\n,,,\n", "no rows", True, {}),
    ("a comment first", "# my scores\n" + GOOD, "one column only", True, {}),
    ("spreadsheet's first line", "sep=,\n" + GOOD, "an empty header cell", True, {}),
    ("two tables in one file", GOOD + "\n" + GOOD.replace("mine", "other"), "'other' is not a number", True, {}),
    ("formula", line(3, "org2/model-02,=A1"), "is not a number", True, {}),
    ("html table", "<table><tr><td>model</td></tr></table>\n", "one column only", True, {}),
    ("json in a csv", '{"results": 1}\n{"a": 2}\n', "one column only", True, {}),
]  # fmt: skip

# (what it is, file name, content, what must be said, serious)
QUESTIONS = [
    ("empty", "q.jsonl", "", "an empty file", True),
    ("not json", "q.jsonl", questions("{broken"), "not valid JSON", True),
    ("a list in one line", "q.jsonl", json.dumps([QUESTION]) + "\n", "1 questions -> at least 30", False),
    ("python quotes", "q.jsonl", questions("{'question': 'a?'}"), "not valid JSON", True),
    ("no answer", "q.jsonl", questions({"question": "a?"}), "'answer' is missing", True),
    ("no question", "q.jsonl", questions({"answer": "a"}), "no question field", True),
    ("empty question", "q.jsonl", questions({"question": " ", "answer": "a"}), "'question' is empty", True),
    ("one choice", "q.jsonl", questions(QUESTION | {"choices": ["yes"]}), "at least two choices", True),
    ("empty choice", "q.jsonl", questions(QUESTION | {"choices": ["yes", ""]}), "choice 2 is empty", True),
    ("equal choices", "q.jsonl", questions(QUESTION | {"choices": ["no", "no"]}), "the same choice twice", False),
    ("answer out of range", "q.jsonl", questions(QUESTION | {"answer": 4}), "expected 0 to 1", True),
    ("answer not a choice", "q.jsonl", questions(QUESTION | {"answer": "maybe so"}), "not one of the 2 choices", True),
    ("answer is true", "q.jsonl", questions(QUESTION | {"answer": True}), "the index, the letter or the text", True),
    ("number for a question", "q.jsonl", questions({"question": ["a", 1], "answer": "x"}), "is list, expected text", True),
    ("id twice", "q.jsonl", questions(QUESTION | {"id": "i"}, QUESTION | {"id": "i", "question": "b?"}), "names 2 questions", True),
    ("repeats", "q.jsonl", questions(QUESTION, QUESTION), "word for word", False),
    ("markup", "q.jsonl", questions(QUESTION | {"question": "<b>Is</b> it?"}), "carry markup", False),
    ("script", "q.jsonl", questions(QUESTION | {"question": "<script>x</script>"}), "carry markup", False),
    ("few", "q.jsonl", questions(count=3), "3 questions", False),
    ("one answer", "q.jsonl", questions(), "every answer is 'yes'", False),
    ("very long", "q.jsonl", questions({"question": "w " * 3000, "answer": "x"}), "more than 2000 words", False),
    ("latin-1", "q.jsonl", '{"question": "é?", "answer": "x"}\n'.encode("latin-1"), "is not UTF-8", True),
    ("csv ragged", "q.csv", "question,answer\na?,x,y\n", "another number of fields", True),
    ("csv choices", "q.csv", 'question,choices,answer\na?,"[yes, no",yes\n', "write a JSON list", True),
    ("json object", "q.json", '{"question": "a?"}', "'answer' is missing", True),
    ("json broken", "q.json", "[1,", "not valid JSON", True),
]  # fmt: skip


def check(tables, path, asked=None, **options):
    return placement.check_benchmark(path, asked, tables=tables, **options)


def said(submission, text, serious):
    return [p for p in submission.problems if text in str(p) and p.serious == serious]


def test_there_are_sixty_malformed_cases():
    names = [c[0] for c in SCORES] + [f"questions: {c[0]}" for c in QUESTIONS]
    assert len(set(names)) == len(names) >= 90


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace(",", ";").encode(),
        GOOD.replace(",", "\t").encode(),
    ],
    ids=["byte order mark", "windows line ends", "semicolons", "tabs"],
)
def test_harmless_oddities_are_read_in_silence(tables, tmp_path, content):
    (tmp_path / "s.csv").write_bytes(content)
    submission = check(tables, tmp_path / "s.csv")
    assert not submission.problems and list(submission.scores.index) == MODELS


def test_items_of_a_wide_table_are_used(tables, tmp_path):
    (tmp_path / "s.csv").write_text("model,mine,n_items\n" + "\n".join(f"{r},400" for r in ROWS[1:]))
    submission = check(tables, tmp_path / "s.csv")
    assert submission.n_items == 400 and submission.stderr.notna().all() and not submission.problems


def test_control_characters_do_not_reach_the_terminal(tables, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(placement, "ready", lambda study, own=None, families=None: tables)
    (tmp_path / "s.csv").write_text(line(3, "org2/\x1b[31mmodel-02,0.3"))
    assert adapt.main(["--scores", str(tmp_path / "s.csv"), "--check"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(("what", "content", "message", "serious", "options"), SCORES, ids=[c[0] for c in SCORES])
def test_score_files(tables, tmp_path, what, content, message, serious, options):
    if content == "UPSIDE DOWN":
        content = table(1 - placement._common_factor(tables.all_scores).rank() / 30)
    elif content == "COPY":
        content = table(tables.all_scores.loc["b0"])
    path = tmp_path / "s.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    submission = check(tables, path, **options)
    assert said(submission, message, serious), [str(p) for p in submission.problems]
    assert submission.sound != serious, [str(p) for p in submission.problems]
    for problem in submission.problems:
        assert problem.do and problem.found and "s.csv" in problem.file


@pytest.mark.parametrize(("what", "name", "content", "message", "serious"), QUESTIONS, ids=[c[0] for c in QUESTIONS])
def test_question_files(tables, tmp_path, what, name, content, message, serious):
    (tmp_path / "s.csv").write_text(GOOD)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    submission = check(tables, tmp_path / "s.csv", tmp_path / name)
    assert said(submission, message, serious), [str(p) for p in submission.problems]
    assert submission.sound != serious, [str(p) for p in submission.problems]


def test_paths_that_are_no_tables(tables, tmp_path):
    huge = tmp_path / "huge.csv"
    with open(huge, "wb") as stream:
        stream.truncate(2**30)  # a gigabyte on paper, nothing on disk
    (tmp_path / "folder").mkdir()
    (tmp_path / "s.xlsx").write_bytes(b"PK")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    (tmp_path / "r.json").write_text('{"a": 1}')
    for path, message in (
        (tmp_path / "none.csv", "no such file"),
        (tmp_path / "folder", "no results file of lm-evaluation-harness"),
        (huge, "a score table has at most"),
        (tmp_path / "s.xlsx", "are not score tables"),
        (tmp_path / "broken.parquet", "not a Parquet file"),
        (tmp_path / "r.json", "no 'results'"),
        ("s\0.csv", "path"),
        ("/dev/null", "no such file"),
    ):
        submission = check(tables, path)
        assert said(submission, message, True), (message, [str(p) for p in submission.problems])
    (tmp_path / "s.csv").write_text(GOOD)
    for asked, message in (
        (huge, "take a sample"),
        (tmp_path / "folder", "a folder"),
        (tmp_path / "none.jsonl", "no such file"),
    ):
        assert said(check(tables, tmp_path / "s.csv", asked), message, True)


def test_everything_is_said_at_once(tables, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(line(3, "org2/model-02,good") + "org0/model-00,0.9\n")
    (tmp_path / "q.jsonl").write_text(questions("{broken", {"question": "a?"}))
    submission = check(tables, path, tmp_path / "q.jsonl")
    assert len([p for p in submission.problems if p.serious]) == 4
    assert {p.row for p in submission.problems if p.serious} >= {4, 41, 42}
    with pytest.raises(DataError, match=r"4 problem\(s\)"):
        placement.place(studies.load("lab"), submission, tables)


def test_a_sound_table_says_little(tables, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(GOOD)
    submission = check(tables, path)
    assert submission.sound and submission.name == "mine" and list(submission.scores.index) == MODELS
    submission = check(tables, path, benchmark="renamed", lower_is_better=True)
    assert submission.name == "renamed" and submission.scores.iloc[0] == pytest.approx(0.8)


def place(tables, tmp_path, values, **options):
    path = tmp_path / "s.csv"
    frame = pd.DataFrame({"model": MODELS, "score": values, "n_items": options.pop("n_items", 400)})
    frame.to_csv(path, index=False)
    submission = check(tables, path, benchmark="mine")
    assert submission.sound, [str(p) for p in submission.problems]
    placed = placement.place(studies.load("lab"), submission, tables, bootstraps=200, splits=4, **options)
    return submission, placed


def test_a_near_copy_is_redundant(tables, tmp_path):
    rng = np.random.default_rng(1)
    twin = (tables.all_scores.loc["b1"] + 0.01 * rng.normal(size=24)).clip(0, 1)
    submission, placed = place(tables, tmp_path, twin)
    near = placed.pairs[placed.pairs["axis"] == "performance"].iloc[0]
    assert near["benchmark"] == "b1" and near["low"] > 0.8
    flags = placed.flags.set_index("flag")["raised"]
    assert flags["redundant"] == True and flags["orthogonal"] == False  # noqa: E712
    assert "redundant" in placement.verdict(placed)
    signature = placed.pairs[placed.pairs["axis"] == "signature-crossfit"].set_index("benchmark")["value"]
    assert signature[["b0", "b1", "b2", "b3"]].mean() > signature[["b4", "b5", "b6", "b7"]].mean() + 0.3
    assert placed.missing["semantic"] == placed.missing["neural"] == "no questions were given"
    assert set(placed.units.loc[placed.units["rho"] < -0.5, "unit_id"]) <= set(range(60))
    ahead = placement.plan(placed, submission, seed=1)
    today = ahead[(ahead["n_models"] == 24) & (ahead["items"] == 1)]["half_width"].item()
    assert today == pytest.approx((near["high"] - near["low"]) / 2)
    assert (ahead.groupby("items")["half_width"].apply(lambda w: w.iloc[-1] < w.iloc[0])).all()


def test_noise_is_not_called_redundant_and_its_noise_is_seen(tables, tmp_path):
    rng = np.random.default_rng(2)
    _, placed = place(tables, tmp_path, rng.binomial(30, 0.5, 24) / 30, n_items=30)
    flags = placed.flags.set_index("flag")["raised"]
    assert flags["redundant"] == False and flags["too noisy"] == True  # noqa: E712
    assert "noisy" in placement.verdict(placed)


def test_what_cannot_be_judged_is_not_guessed(tables, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(GOOD)
    submission = check(tables, path)
    placed = placement.place(studies.load("lab"), submission, tables, bootstraps=50, splits=2)
    flags = placed.flags.set_index("flag")["raised"]
    assert flags["too noisy"] is None and flags["format-driven"] is None
    assert set(placement.plan(placed, submission)["items"]) == {1}


def test_a_copy_of_a_model_in_another_lineage_is_said(tables, tmp_path):
    import dataclasses

    twin, original, relative = MODELS[7], MODELS[2], MODELS[8]  # lineages org1, org2, org2
    copied = tables.surprisal.assign(**{twin: tables.surprisal[original], relative: tables.surprisal[original]})
    (tmp_path / "s.csv").write_text(GOOD)
    found = said(
        check(dataclasses.replace(tables, surprisal=copied), tmp_path / "s.csv"),
        "has the surprisal of",
        False,
    )
    assert {p.found for p in found} == {
        f"'{twin}' has the surprisal of '{original}', of another lineage",
        f"'{relative}' has the surprisal of '{twin}', of another lineage",
    }, "relatives may be alike"
    assert found[0].do.endswith(f"--family {twin}=org2")


@pytest.mark.parametrize("told", ["cloze", "multiple choice"])
def test_the_format_flag_compares_with_the_format_of_the_questions(tables, tmp_path, told):
    import dataclasses

    formats = ["cloze"] * 4 + ["multiple choice"] * 4
    split = dataclasses.replace(tables, benchmarks=tables.benchmarks.assign(format=formats))
    (tmp_path / "s.csv").write_text(table(tables.all_scores.loc["b1"]))
    asked = [QUESTION | {"question": f"Is item {i} cold?", "answer": i % 2, "format": told} for i in range(40)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(q) + "\n" for q in asked))
    submission = check(split, tmp_path / "s.csv", tmp_path / "q.jsonl")
    flags = placement.place(studies.load("lab"), submission, split, bootstraps=50, splits=2).flags
    flag = flags.set_index("flag").loc["format-driven"]
    assert f"goes with '{told}' benchmarks" in flag["evidence"]
    own, others = (float(x) for x in re.findall(r" at (-?\d\.\d\d)", flag["evidence"]))
    assert (own > others + 0.5) if told == "cloze" else (own < others - 0.5)


def test_the_new_name_does_not_hide_a_known_one(tables, tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(table(column="b3"))
    placed = placement.place(studies.load("lab"), check(tables, path), tables, bootstraps=50, splits=2)
    assert placed.name == "b3 (yours)" and "b3" in set(placed.pairs["benchmark"])


def test_checkpoints_without_known_scores_count_for_signatures_only(tables, tmp_path):
    import dataclasses

    blank = tables.all_scores.copy()
    blank[MODELS[-3:]] = np.nan
    part = dataclasses.replace(tables, all_scores=blank, scores=blank)
    (tmp_path / "s.csv").write_text(table(tables.all_scores.loc["b2"]))
    placed = placement.place(studies.load("lab"), check(part, tmp_path / "s.csv"), part, bootstraps=50, splits=2)
    assert placed.models == MODELS[:-3]
    told = [placed.missing[f"performance: model {m}"] for m in MODELS[-3:]]
    assert all("signatures only" in t for t in told)
    assert placed.pairs[placed.pairs["axis"] == "performance"]["benchmark"].iloc[0] == "b2"
    blank[MODELS[5:]] = np.nan
    submission = check(dataclasses.replace(tables, all_scores=blank, scores=blank), tmp_path / "s.csv")
    assert said(submission, "have a score on any known benchmark", True)


def test_the_neural_axis_finds_the_skill_or_says_why_not(tables, tmp_path):
    """New questions of a known skill, in the laboratory's own models; the study is cut to a few benchmarks."""
    from helpers import lab

    kept = [
        "knowledge-capitals-quiz",
        "knowledge-capitals-cloze",
        "code-returns-quiz",
        "code-returns-cloze",
        "world-sounds-cloze",
        "logic-rules-cloze",
    ]
    lab_study = studies.load("lab")
    study = lab_study.model_copy(update={
        "name": "lab-small",
        "traces": lab_study.traces.model_copy(update={"models": tuple(studies.ModelEntry(name=n, source="lab", id=n) for n in lab.model_names()[::16]), "questions": 12}),
    })  # fmt: skip
    items = lab.questions()
    items = items[items["benchmark"].isin(kept)].drop(columns=["domain", "skill"])
    known = tables.all_scores.set_axis([*kept, "x", "y"])
    (tmp_path / "s.csv").write_text(GOOD)
    import dataclasses
    import os
    from unittest import mock

    part = dataclasses.replace(tables, all_scores=known)
    submission = check(part, tmp_path / "s.csv", paths.DATA / "examples" / "my_questions.jsonl")
    missing: dict[str, str] = {}
    with mock.patch.dict(os.environ, {"COMPANION_RESULTS": str(tmp_path / "results")}):
        assert placement._neural("mine", study, submission, part, 0, missing) is None
        assert missing["neural"] == "the study has no question texts"
        provenance.write_table(study.results / "questions.parquet", items)
        missing.clear()
        found = placement._neural("mine", study, submission, part, 0, missing)
        assert not missing and found.matrix.loc["mine"].drop("mine").idxmax().startswith("knowledge-capitals")
        assert set(found.reliability["benchmark"]) == {"mine", *kept}
        traced = {p.stem for p in (study.results / "traces").rglob("*.safetensors")}
        assert len(traced) == len(kept), "a reader's questions leave no trace files behind"
        table_study = study.model_copy(update={"models": studies.load("dclm").models})
        assert placement._neural("mine", table_study, submission, part, 0, missing) is None
        assert "committed copy of numbers" in missing["neural"]


# --- command line ---------------------------------------------------------------------------------------------------


def test_scaffolded_study_loads_and_nothing_is_overwritten(tmp_path, monkeypatch):
    path = adapt.new_study("my-study", tmp_path)
    assert studies.load(path).name == "my-study"
    content = yaml.safe_load(path.read_text())
    assert content["models"]["kind"] == "list"
    with pytest.raises(StudyError, match="exists"):
        adapt.new_study("my-study", tmp_path)
    for name in ("", "My Study", "../x", "a/b", "-x"):
        with pytest.raises(StudyError, match="cannot name a study"):
            adapt.new_study(name, tmp_path)


def test_command_line_refuses_what_it_cannot_use(capsys, tables, tmp_path, monkeypatch):
    with pytest.raises(SystemExit):
        adapt.main([])
    assert "make adapt SCORES=" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        adapt.main(["--scores", "x", "--alias", "nothing"])
    assert adapt.main(["--scores", "x.csv", "--study", "labb"]) == 1
    assert "did you mean 'lab'" in capsys.readouterr().err
    monkeypatch.setattr(placement, "ready", lambda study, own=None, families=None: tables)
    (tmp_path / "s.csv").write_text(line(3, "org2/model-02,good"))
    assert adapt.main(["--scores", str(tmp_path / "s.csv"), "--check"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("WRONG  s.csv, row 4, column 'mine'") and "nothing was computed" in out
    (tmp_path / "s.csv").write_text(GOOD)
    assert adapt.main(["--scores", str(tmp_path / "s.csv"), "--check"]) == 0
    assert "scores of 24 models" in capsys.readouterr().out


def test_one_command_from_files_to_page(tables, tmp_path, monkeypatch, capsys):
    """The command, the notebook in its own kernel and the page, on a study that stands in for the laboratory."""
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path / "results"))
    folder = paths.results("lab")
    scored = (
        tables.scores.rename_axis("benchmark").reset_index().melt("benchmark", var_name="model", value_name="score")
    )
    scored = scored.assign(n_items=400, stderr=np.sqrt(scored["score"] * (1 - scored["score"]) / 400), source="t")
    models = pd.DataFrame({"model": MODELS, "family": tables.groups.to_numpy(), "parameters": 1e6})
    known = tables.benchmarks.rename_axis("benchmark").reset_index()
    known = known.assign(title=known["benchmark"], family="t", n_items=400, chance=0.0, usable=True, reason="")
    for name, frame in (
        ("units.parquet", tables.units),
        ("surprisal.parquet", tables.surprisal.astype("float32")),
        ("models.csv", models),
        ("benchmarks.csv", known),
        ("scores.csv", scored),
    ):
        provenance.write_table(folder / name, frame)
    (tmp_path / "mine.csv").write_text(table(tables.all_scores.loc["b2"].round(3), column="twin"))
    assert adapt.main(["--scores", str(tmp_path / "mine.csv"), "--study", "lab"]) == 0
    out = capsys.readouterr().out
    assert "twin ranks models most like b2" in out
    page = (folder / "adapt" / "mine" / "report.html").read_text()
    assert "ranks models most like <strong>b2</strong>" in page and "python -m helpers.adapt" in page
    assert str(tmp_path) not in page and 'id="fig-nearest-performance"' in page
    assert (folder / "adapt" / "mine" / "adapt-your-benchmark.ipynb").exists()
    assert not list(folder.rglob("*.part"))


def test_a_name_means_a_file(tmp_path):
    assert placement.source("data/README.md").is_file()
    assert placement.source(str(tmp_path)) == tmp_path
    with pytest.raises(DataError, match="did you mean"):
        placement.source("dataset:thruthfulqa")


def test_page_stands_alone():
    cells = [
        nbformat.v4.new_markdown_cell("# Title\n\n<img src=x onerror=alert(1)>\n\n| a | b |\n|---|---|\n| 1 | 2 |"),
        nbformat.v4.new_code_cell(
            "print('<b>')",
            outputs=[
                nbformat.v4.new_output("stream", name="stdout", text="<b>"),
                nbformat.v4.new_output("display_data", data={"text/html": '<figure class="companion-figure"><div class="companion-plot"></div></figure>'}),
                nbformat.v4.new_output("display_data", data={"text/plain": "<x>"}),
            ],
        ),
        nbformat.v4.new_code_cell("secret = 1", metadata={"tags": ["remove-cell"]}),
    ]  # fmt: skip
    text = adapt.page(nbformat.v4.new_notebook(cells=cells), "t <i>")
    body = text.split("<script>")[0]
    assert "<h1>Title</h1>" in body and "<table>" in body and "&lt;img" in body and "<img src=x" not in body
    assert "print(&#x27;&lt;b&gt;&#x27;)" in body and "<pre>&lt;b&gt;</pre>" in body and "&lt;x&gt;" in body
    assert "secret" not in body and "t &lt;i&gt;" in body
    assert not [w for w in ('src="http', 'href="http', "url(http", "@import") if w in body]
    assert "Plotly" in text and len(text) > 1_000_000
    assert "Plotly" not in adapt.page(nbformat.v4.new_notebook(cells=cells[:1]), "t")


def test_shipped_example_is_sound_and_says_where_it_came_from(tmp_path):
    folder = paths.DATA / "examples"
    frame = pd.read_csv(folder / "my_scores.csv")
    assert list(frame.columns) == ["model", "score", "n_items"] and len(frame) >= 20
    rows = [json.loads(r) for r in (folder / "my_questions.jsonl").read_text().splitlines()]
    assert len(rows) == 100 and {tuple(r) for r in rows} == {("question", "choices", "answer", "format")}
    assert {r["format"] for r in rows} == {"cloze"}, "the laboratory's models never saw these choices"
    with pytest.warns(scores.ScoreNote, match="percent"):
        assert scores.read(folder / "my_scores.csv")["score"].between(0, 1).all()


def test_example_can_be_made_again(tmp_path):
    """The laboratory's models give the shipped scores again, to within two items of a hundred."""
    made = adapt.write_example(tmp_path)
    shipped = pd.read_csv(paths.DATA / "examples" / "my_scores.csv").set_index("model")["score"]
    again = pd.read_csv(made[0]).set_index("model")["score"]
    assert (again - shipped).abs().max() <= 2
    assert made[1].read_text() == (paths.DATA / "examples" / "my_questions.jsonl").read_text()


# --- what the check says --------------------------------------------------------------------------------------------


def test_ranks_on_a_floor_are_not_called_reliable(tables, tmp_path):
    """20 of 26 models on one value: the few others carry the variance, the order of the 20 is chance."""
    high = np.linspace(0.3, 0.8, 4)
    scored = table([0.0227] * 20 + list(high)).replace("model,mine", "model,mine,n_items")
    scored = "\n".join(r if i == 0 else f"{r},132" for i, r in enumerate(scored.splitlines()))
    (tmp_path / "s.csv").write_text(scored)
    submission = check(tables, tmp_path / "s.csv")
    assert said(submission, "83% of the models (20 of 24) score 0.0227: a floor", False)
    assert said(submission, "the reliability of its ranks is 0.", False)
    noise = submission.stderr.to_frame().T
    assert inference.score_reliability(submission.scores.to_frame().T, noise)[0] > 0.95
    assert inference.rank_reliability(submission.scores.to_frame().T, noise)[0] < 0.7


def test_rank_reliability_is_the_rank_correlation_of_two_measurements():
    rng = np.random.default_rng(1)
    true, noise = rng.normal(size=(3, 400)), np.full((3, 400), 0.5)
    first, again = (true + noise * rng.normal(size=true.shape) for _ in range(2))
    measured = [stats.spearmanr(a, b).statistic for a, b in zip(first, again)]
    np.testing.assert_allclose(inference.rank_reliability(first, noise), measured, atol=0.06)
    assert np.isnan(inference.rank_reliability(first, noise * np.nan)).all()
    none = inference.rank_reliability(rng.normal(size=(1, 60)), np.full((1, 60), 3.0))[0]
    assert abs(none) < 0.1, "differences that are all noise have no rank reliability"


def test_few_items_are_said(tables, tmp_path):
    (tmp_path / "s.csv").write_text("model,mine,n_items\n" + "\n".join(f"{r},40" for r in ROWS[1:]))
    assert said(check(tables, tmp_path / "s.csv"), "40 items", False)


def test_a_benchmark_that_the_study_knows_is_not_read_under_another_name(tables, tmp_path):
    (tmp_path / "s.csv").write_text(table(column="b3"))
    submission = check(tables, tmp_path / "s.csv", benchmark="b4")
    assert said(submission, "no benchmark 'b4': the only one is 'b3'", True) and submission.scores.empty
    assert check(tables, tmp_path / "s.csv", benchmark="b3").sound
    (tmp_path / "s.csv").write_text(GOOD)
    assert said(check(tables, tmp_path / "s.csv", benchmark="b4"), "'mine'; it is read as 'b4'", False)


def test_trouble_of_models_that_the_study_lacks_does_not_matter(tables, tmp_path):
    more = "z/none,0.5\nz/none,0.9\nz/other,oops\nz/third,1e308\nz/fourth,33\n"
    (tmp_path / "s.csv").write_text(GOOD + more)
    submission = check(tables, tmp_path / "s.csv")
    assert submission.sound and len(submission.scores) == 24
    assert [str(p) for p in submission.problems if "is not in the study" in p.found and "3 more" in p.found]
    assert len(submission.problems) == 1


def test_the_check_lists_models_and_what_is_not_compared(tables, tmp_path, monkeypatch, capsys):
    import dataclasses

    blank = tables.all_scores.copy()
    blank.loc["b5", MODELS[4:]] = np.nan
    part = dataclasses.replace(tables, all_scores=blank, unusable={"gsm": "floor: 10 % of the models"})
    monkeypatch.setattr(placement, "ready", lambda study, own=None, families=None: part)
    (tmp_path / "s.csv").write_text(GOOD.replace("org0/model-00", "ORG0/Model_00") + "z/none,0.5\n")
    assert adapt.main(["--scores", str(tmp_path / "s.csv"), "--check"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("0 questions: fit to compare.")
    assert lines[1].startswith("matched  24 model(s):") and "org0/model-00 (written 'ORG0/Model_00')" in lines[1]
    assert lines[2].startswith("not in the study, left out  1 model(s): 'z/none'")
    assert "gsm (not usable in this study: floor: 10 % of the models)" in lines[3]
    assert "b5 (4 shared models have a score, 8 are needed)" in lines[3]
    placed = placement.place(studies.load("lab"), check(part, tmp_path / "s.csv"), part, bootstraps=20, splits=2)
    assert "floor" in placed.missing["performance: gsm"] and "performance: b5" in placed.missing


@pytest.mark.parametrize("flag", [False, True])
def test_perplexity_of_a_harness_folder_is_turned_once(tables, tmp_path, flag):
    for i, m in enumerate(MODELS):
        content = {"results": {"wiki": {"word_perplexity,none": 30 - i}}, "model_name": m}
        (tmp_path / f"r{i}.json").write_text(json.dumps(content))
    submission = check(tables, tmp_path, lower_is_better=flag)
    assert submission.sound and submission.scores.is_monotonic_increasing
