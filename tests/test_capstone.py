"""The scorer of the second capstone: it must know an orthogonal benchmark from a copy and from noise."""

import json

import numpy as np
import pandas as pd
import pytest

from helpers import capstone, lab, paths
from helpers.errors import DataError


@pytest.fixture(scope="module")
def known():
    scores, domains = capstone.suite_scores(tuple(lab.text.world()), lab.model_names())
    return scores, domains


def table(row, n_items=100):
    return pd.DataFrame({"score": row, "n_items": n_items})


def test_every_benchmark_of_the_laboratory_falls_on_its_side(known):
    """The benchmarks that the suite covers fail without themselves in it; those of other domains pass."""
    scores, domains = known
    passed = {
        name: capstone.grade(table(row), name=name, leave_out=[name], bootstraps=0).passed
        for name, row in scores.iterrows()
    }
    inside = domains.isin(capstone.SUITE)
    wrong = [n for n in passed if passed[n] == inside[n]]
    assert inside.sum() >= 25 and (~inside).sum() >= 15
    assert len(wrong) == 0, wrong


def test_noise_a_copy_and_a_reversed_copy_fail(known):
    scores, _ = known
    rng = np.random.default_rng(0)
    for draw in range(8):
        noise = pd.Series(rng.binomial(100, 0.5, 32) / 100, scores.columns)
        grade = capstone.grade(table(noise), bootstraps=50, seed=draw)
        assert not grade.passed and grade.low <= grade.score <= 1
    copy = scores.loc["logic-kinds-cloze"]
    grade = capstone.grade(table(copy))
    assert grade.score < 0.1 and grade.nearest == "logic-kinds-cloze" and grade.rho == pytest.approx(1)
    assert capstone.grade(table(1 - copy), bootstraps=0).score < 0.1  # a turned copy says the same
    few = capstone.grade(table(scores.loc["code-returns-cloze"], n_items=3), bootstraps=0)
    assert few.reliability < 0.5, "three items cannot be reliable"
    assert "not passed" in str(grade) and "PASSED" in str(capstone.grade(table(scores.loc["code-returns-cloze"])))


def test_the_suite_decides(known):
    scores, _ = known
    row = table(scores.loc["code-returns-cloze"])
    assert capstone.grade(row, ("knowledge",), bootstraps=0).passed
    assert not capstone.grade(row, ("code",), leave_out=["code-returns-cloze"], bootstraps=0).passed
    first = capstone.grade(row, seed=3)
    assert first == capstone.grade(row, seed=3)


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def items(domain, count=60):
    asked = lab.text.questions(seed=11)
    asked = asked[asked["benchmark"].str.startswith(domain) & (asked["format"] == "cloze")].iloc[:count]
    return [
        {"question": p, "choices": list(c), "answer": a}
        for p, c, a in zip(asked["prompt"], asked["choices"], asked["answer"])
    ]


def test_a_question_file_is_answered_and_graded(tmp_path, capsys):
    good = write(tmp_path / "good.jsonl", items("code"))
    assert capstone.main(["--questions", str(good)]) == 0
    assert "'good' beside knowledge" in capsys.readouterr().out
    assert capstone.main(["--questions", str(good), "--suite", "code,logic"]) == 2
    assert capstone.main(["--questions", str(write(tmp_path / "k.jsonl", items("knowledge")))]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r[:10], "10 sound questions -> write at least 30"),
        (lambda r: [*r, {"question": "a b c", "answer": "red"}], "no choices"),
        (lambda r: [*r, r[0] | {"choices": r[0]["choices"][:2], "answer": r[0]["choices"][0]}], "2 choices, most questions have 4"),
        (lambda r: [*r, r[0] | {"choices": ["antidisestablishment", *r[0]["choices"][1:]], "answer": r[0]["choices"][1]}], "tokens -> use one word"),
        (lambda r: [*r, r[0] | {"answer": "nobody"}], "not one of the 4 choices"),
        (lambda r: [*r, r[0] | {"question": "the " * 90}], "at most 63"),
    ],
    ids=["few", "no choices", "other number", "long word", "wrong answer", "long question"],
)  # fmt: skip
def test_unfit_questions_are_all_named(tmp_path, change, message, capsys):
    path = write(tmp_path / "q.jsonl", change(items("code", 40)))
    assert capstone.main(["--questions", str(path)]) == 1
    found = capsys.readouterr().err
    assert message in found and "q.jsonl" in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither a question file nor a score file is given; give one: `make capstone QUESTIONS=file`"),
        (["--questions", ""], "neither"),
        (["--questions", " ", "--scores", ""], "neither"),
        (["--questions", "{here}/a.csv", "--scores", "{here}/a.csv"], "both"),
        (["--questions", "{here}/none.jsonl"], "none.jsonl' is no file"),
        (["--scores", "{here}"], "is no file"),
        (["--questions", "{here}/a.csv", "--benchmark", "x"], "leave BENCHMARK out"),
        (["--scores"], "expected one argument"),
        (["--score", "{here}/a.csv"], "unrecognized arguments: --score"),
        (["--scores", "{here}/a.csv", "--suite", ","], "the suite is empty; name at least one domain of"),
        (["--scores", "{here}/a.csv", "--suite", "logic, logic"], "twice"),
        (["--scores", "{here}/a.csv", "--benchmark", "other"], "a.csv has no benchmark 'other'"),
        (["--scores", "{here}/bytes.csv"], "bytes.csv"),
        (["--scores", "{here}/empty.csv"], "empty.csv"),
    ],
)
def test_every_bad_argument_is_one_clear_error(arguments, message, tmp_path, capsys):
    pd.DataFrame({"model": lab.model_names(), "score": np.linspace(0.2, 0.9, 32), "n_items": 50}).to_csv(
        tmp_path / "a.csv", index=False
    )
    (tmp_path / "bytes.csv").write_bytes(bytes(range(256)))
    (tmp_path / "empty.csv").write_text("")
    assert capstone.main([a.format(here=tmp_path) for a in arguments]) == 1
    said = capsys.readouterr()
    assert message in said.err and said.err.startswith("ERROR: ") and not said.out
    assert "Traceback" not in said.err


def test_scores_that_are_no_fractions_and_counts_that_are_none_are_refused(known):
    row = known[0].loc["code-returns-cloze"]
    for column, value, message in (
        ("score", 33.0, r"score of model 'lab-48x2-0' is 33 \(1 of 32"),
        ("score", -0.1, "fraction"),
        ("score", np.nan, "score of model"),
        ("n_items", 0, "at least 1"),
        ("n_items", np.inf, "at least 1"),
        ("n_items", np.nan, "at least 1"),
    ):
        bad = table(row).astype(float)
        bad.loc["lab-48x2-0", column] = value
        with pytest.raises(DataError, match=message):
            capstone.grade(bad, bootstraps=0)
    with pytest.raises(DataError, match="given twice"):
        capstone.grade(pd.concat([table(row), table(row).iloc[:2]]), bootstraps=0)
    with pytest.raises(DataError, match="is left to compare with"):
        capstone.grade(table(row), ("code",), leave_out=list(known[0].index), bootstraps=0)


def test_a_score_file_is_graded_or_refused(tmp_path, known):
    scores, _ = known
    row = scores.loc["instructions-signals-cloze"]
    path = tmp_path / "s.csv"
    full = pd.DataFrame({"model": row.index, "score": row.to_numpy(), "n_items": 100})

    def graded(frame, **options):
        frame.to_csv(path, index=False)
        return capstone.grade_scores(path, **options)

    assert graded(full).passed
    with pytest.raises(DataError, match=r"1 of 32 models have no score \(first: 'lab-48x2-0'\)"):
        graded(full.iloc[1:])
    with pytest.raises(DataError, match="'gpt' is no model of the laboratory"):
        graded(full.replace({"model": {"lab-48x2-0": "gpt"}}))
    with pytest.raises(DataError, match="add a column n_items"):
        graded(full.drop(columns="n_items"))
    with pytest.raises(DataError, match="score alike"):
        graded(full.assign(score=0.5))
    with pytest.raises(DataError, match="did you mean 'logic'"):
        graded(full, suite=("logik",))
    with pytest.raises(DataError, match="the suite is empty"):
        graded(full, suite=())
    two = pd.concat([full.assign(benchmark="one"), full.assign(benchmark="two")])
    with pytest.raises(DataError, match="holds 2 benchmarks"):
        graded(two)
    assert graded(two, benchmark="two").name == "two"
    assert paths.label(path) == "s.csv"
