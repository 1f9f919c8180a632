"""Question and corpus files as people have them: every layout is read as meant, every bad file is one clear error."""

import bz2
import gzip
import json
import os
import tracemalloc

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import corpora, datasets, limits, published, questions, studies
from helpers.errors import CompanionError, DataError

ASKED = "Where?\nA. here\nB. there"
CHAT = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}])


@pytest.mark.parametrize(
    ("record", "text", "answer"),
    [
        ({"question": "Where?", "options": ["here", "there"], "answer": "B"}, ASKED, "there"),
        ({"question": "Where?", "options": {"A": "here", "B": "there"}, "answer": "B"}, ASKED, "there"),
        ({"question": "Where?", "A": "here", "B": "there", "C": None, "answer": "B"}, ASKED, "there"),
        ({"question": "Where?", "opa": "here", "opb": "there", "cop": 1}, ASKED, "there"),
        ({"question": "Where?", "option1": "here", "option2": "there", "answer": "2"}, ASKED, "there"),
        ({"question": "Where?", "sol1": "here", "sol2": "there", "label": 1}, ASKED, "there"),
        ({"question": "Where?", "choices": "['here', 'there']", "answer": "(B)"}, ASKED, "there"),
        ({"question": "Where?", "options": ["A) here", "B) there"], "correct": "B"}, ASKED, "there"),
        ({"query": "Where?", "choices": ["here", "there"], "gold": [1]}, ASKED, "there"),
        ({"question": {"stem": "Where?", "choices": [{"label": "A", "text": "here"}, {"label": "B", "text": "there"}]},
          "answerKey": "B"}, ASKED, "there"),
        ({"question": "Where?", "mc1_targets": {"choices": ["here", "there"], "labels": [0, 1]}}, ASKED, "there"),
        ({"input": "Where?", "target_scores": {"here": 0, "there": 1}}, ASKED, "there"),
        ({"question": "Where?", "correct_answer": "there", "distractor1": "here"}, ASKED, "there"),
        ({"context": "A passage.", "question": "Where?", "choices": ["here", "there"], "answer": 1},
         f"A passage.\n{ASKED}", "there"),
        ({"article": "A passage.", "question": "Where?", "options": ["here", "there"], "answer": "A"},
         f"A passage.\n{ASKED}", "here"),
        ({"passage": "P.", "question": "Is it?", "answer": True}, "P.\nIs it?", "true"),
        ({"question": "Q", "choices": {"text": ["3", "4", "1", "2"], "label": ["1", "2", "3", "4"]}, "answerKey": "3"},
         "Q\nA. 3\nB. 4\nC. 1\nD. 2", "1"),
        ({"doc": {}, "target": "x", "arguments": {"gen_args_0": {"arg_0": CHAT, "arg_1": {"until": []}}}},
         "Be brief.\nWhere?", "x"),
        ({"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "here"}]}, "Where?", "here"),
    ],
)  # fmt: skip
def test_what_the_model_saw_is_read_under_any_name(record, text, answer):
    question = questions.parse(record)
    assert (question["text"], question["answer"]) == (text, answer)


def test_one_continuation_is_language_modelling():
    question = questions.parse({"doc": {}, "target": " mat", "arguments": [["The cat sat on the", " mat"]]})
    assert (question["format"], question["answer"]) == ("language modeling", "mat")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (
            {"question": "q", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "0"},
            "none of the labels",
        ),
        ({"question": "q", "choices": ["x", "y"], "answer": [0, 2, 1]}, "names 3 right answers"),
        ({"question": 10**5000, "answer": "x"}, "more than 4300 digits"),
        ({"question": "\ud800", "answer": "x"}, "unpaired surrogate"),
    ],
)
def test_records_that_could_be_read_wrongly_are_refused(record, told):
    with pytest.raises(DataError, match=told):
        questions.parse(record)


def test_a_question_file_is_read_whatever_packs_it(tmp_path):
    rows = [{"question": f"q{i}?", "choices": ["yes", "no"], "answer": 1} for i in range(3)]
    lines = "\n".join(map(json.dumps, rows)).encode()
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "a.jsonl.bz2").write_bytes(bz2.compress(lines))
    (tmp_path / "a.json").write_bytes(lines)
    (tmp_path / "a.JSON").write_text(json.dumps({"version": 1, "examples": rows}))
    (tmp_path / "utf16.jsonl").write_bytes(lines.decode().encode("utf-16"))
    for path in tmp_path.iterdir():
        frame = questions.read(path)
        assert frame["answer"].tolist() == ["no"] * 3 and set(frame["benchmark"]) == {path.name.split(".")[0]}


def test_a_line_separator_within_a_field_is_text(tmp_path):
    (tmp_path / "a.csv").write_text('question,answer\n"one\u2028two",x\n', encoding="utf-8")
    assert questions.read(tmp_path / "a.csv")["prompt"].tolist() == ["one\u2028two"]


def test_unused_fields_and_repeated_causes_are_told_once(tmp_path):
    rows = [{"question": f"q{i}", "answer": "x", "hint": "h", "id": i} for i in range(30)] + [{"answer": 1}] * 9
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = []
    assert len(questions.read(tmp_path / "a.jsonl", problems=found)) == 30
    assert len(found) == 2 and "8 more records" in str(found[0]) and "'hint' (in 30 of 39)" in str(found[1])


def test_filters_of_one_question_are_one_question(tmp_path):
    row = {"doc_id": 0, "doc": {}, "target": "4", "arguments": [["2+2?", {"until": []}]]}
    rows = [row | {"filter": f} for f in ("strict-match", "flexible-extract")]
    (tmp_path / "samples_gsm8k_2024-05-01T10-00-00.1.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = []
    frame = questions.read(next(tmp_path.iterdir()), problems=found)
    assert frame["benchmark"].tolist() == ["gsm8k"] and not any(p.serious for p in found)
    (tmp_path / "twice.jsonl").write_text("\n".join(map(json.dumps, [rows[0], rows[0]])))
    with pytest.raises(DataError, match="names 2 questions"):
        questions.read(tmp_path / "twice.jsonl")


def test_only_the_questions_of_the_asked_benchmark_count(tmp_path):
    rows = [
        {"benchmark": b, "question": f"{b}{i}", "answer": "x"}
        for b, n in (("mine", 2), ("other", 30))
        for i in range(n)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert len(questions.read(tmp_path / "a.jsonl", "mine", problems=[])) == 2
    with pytest.raises(DataError, match="none of them 'absent'"):
        questions.read(tmp_path / "a.jsonl", "absent")


# --- corpora --------------------------------------------------------------------------------------------------------


def load(*sources, **options):
    return corpora.load(studies.Corpus(kind="files", sources=tuple(map(str, sources)), **options))


TWO = b'{"text": "one two"}\n{"text": "three"}\n'
PACKED = {
    "a.JSONL": TWO, "a.json": TWO, "b.json": b'[{"text": "one two"}, {"text": "three"}]', "a.json.gz": gzip.compress(TWO),
    "a.JSONL.bz2": bz2.compress(TWO), "a.csv": b"text,n\none two,1\nthree,2\n", "a.TSV": b"n\ttext\n1\tone two\n2\tthree\n",
    "a.txt": TWO, "u.jsonl": TWO.decode().encode("utf-16"),
}  # fmt: skip


@pytest.mark.parametrize("name", PACKED)
def test_a_structured_file_is_not_one_text(tmp_path, name):
    (tmp_path / name).write_bytes(PACKED[name])
    table, report = load(tmp_path / name)
    assert table["text"].tolist() == ["one two", "three"]
    assert report.loc[report["rule"].str.startswith("read as"), "documents"].tolist() == [2]


def test_utf16_text_is_text_and_binaries_are_refused_or_told(tmp_path):
    (tmp_path / "a.txt").write_bytes("one zwei".encode("utf-16"))
    assert load(tmp_path / "a.txt")[0]["text"].tolist() == ["one zwei"]
    for name, content in {"b.txt": b"PK\x03\x04 zip", "c.txt": b"%PDF-1.4", "d.txt": bytes(range(256)) * 9}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="not text"):
            load(tmp_path / name)
    (tmp_path / "e.txt").mkdir()
    table, report = load(tmp_path / "*.txt")
    told = report.loc[report["rule"].str.startswith("left out"), "documents"]
    assert len(table) == 1 and told.sum() == 4


def test_absolute_patterns_may_have_wildcard_folders(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "docs" / folder).mkdir(parents=True)
        (tmp_path / "docs" / folder / "README.md").write_text(f"read {folder}")
    assert len(load(tmp_path / "docs" / "*" / "README*")[0]) == 2
    with pytest.raises(DataError) as error:
        load(tmp_path / "dox" / "*" / "README*")
    assert "there is no folder 'dox'" in str(error.value) and "root" not in str(error.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", [load, questions.read])
def test_what_is_no_plain_file_is_named_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.jsonl").mkdir()
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jsonl", "wb") as stream:
        stream.write(TWO)
    for path in (*sorted(tmp_path.iterdir()), "/dev/zero", "", "**x", "a\0b", "x" * 5000):
        with pytest.raises(DataError):
            read(path)


def test_damaged_and_swelling_files_are_refused_within_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BYTES", 2**20)
    monkeypatch.setattr(corpora, "MAX_DOCUMENT", 2**20)
    monkeypatch.setattr(questions, "MAX_BYTES", 2**20)
    pd.DataFrame({"text": ["x" * 2**20] * 64}).to_parquet(tmp_path / "bomb.parquet")
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' + b"x" * 2**25))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(TWO)[:-9])
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "bomb.parquet").read_bytes()[:-20])
    (tmp_path / "deep.jsonl").write_bytes(b"[" * 10**5)
    (tmp_path / "twice.jsonl").write_bytes(b'{"text": "a", "text": "b", "question": "a", "answer": "c"}\n')
    (tmp_path / "long.txt").write_bytes(b"word " * 2**19)
    tracemalloc.start()
    for path in sorted(tmp_path.iterdir()):
        for read in (load, questions.read):
            with pytest.raises(DataError):
                read(path)
    assert tracemalloc.get_traced_memory()[1] < 2**27
    tracemalloc.stop()
    assert load(tmp_path / "long.txt", max_characters=12)[0]["text"].tolist() == ["word word"]


def test_a_large_document_costs_a_small_multiple():
    text = "the cat sat on a mat reading benchmarks " * 50_000  # 2 MB
    frame = pd.DataFrame([("d", "s", text)], columns=corpora.COLUMNS)
    tracemalloc.start()
    corpora.units(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 * len(text)  # a Python object for every unit made it a hundred


# --- any bytes at all -----------------------------------------------------------------------------------------------

SEEDS = [
    TWO,
    *PACKED.values(),
    b'[{"question": "q", "choices": ["a", "b"], "answer": 0}]',
    b"question,answer\nq,a\n",
    b"PAR1",
    b"{",
]
SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".jsonl.gz", ""]


@st.composite
def damaged(draw):
    """Bytes near a sound file: pieces cut out, put in, repeated."""
    content = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(content)))
        put = draw(
            st.one_of(st.binary(max_size=9), st.sampled_from([b"NaN", b"[" * 99, b"\xe2\x80\xa8", b"\\ud800", b'"']))
        )
        content = content[:at] + put + content[at + draw(st.integers(0, 9)) :]
    return content


@settings(deadline=2000, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged(), st.sampled_from(SUFFIXES))
def test_any_file_is_read_or_refused(tmp_path, content, suffix):
    path = tmp_path / f"any{suffix}"
    path.write_bytes(content)
    for read in (
        lambda: questions.read(path),
        lambda: corpora.units(load(path)[0]),
        lambda: questions.read_xwinograd(path),
        lambda: questions.read_truthfulqa(path),
        lambda: datasets.read_manifest(path),
    ):
        try:
            read()
        except CompanionError:
            pass


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just(10**400)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "label", "role", "A"]), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["question", "choices", "options", "answer", "gold", "label", "A", "B", "passage", "doc", "arguments", "target", "format",
     "messages", "context", "context_options", "continuation", "target_scores", "option1", "option2"]
)  # fmt: skip


@settings(deadline=2000, max_examples=200)
@given(st.dictionaries(FIELDS, VALUES | st.just("q")))
def test_any_record_is_a_question_or_refused(record):
    try:
        question = questions.parse(record)
    except DataError:
        return
    assert question["format"] in questions.FORMATS and isinstance(question["text"], str)
    assert not question["choices"] or question["answer"] in question["choices"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, 133, -5, 1e308, "0.5", None, [0.5]])
@pytest.mark.parametrize("place", ["icl", "downstream_perpexity"])
def test_published_evaluations_hold_fractions_and_losses(tmp_path, monkeypatch, value, place):
    metrics = {"icl": {"arc_easy": 0.5}, "downstream_perpexity": {"c": 2.0}}
    metrics[place] = {"odd": value}
    path = tmp_path / "evaluation_c4_original-open_lm_1b-5.0_heavy.json"
    path.write_text(json.dumps({"model": "open_lm_1b", "eval_metrics": metrics}))
    monkeypatch.setattr(datasets, "files", lambda name: {"f": path})
    with pytest.raises(DataError, match="'odd'"):
        published.dclm_wide()


def test_a_manifest_of_multiplying_aliases_is_refused(tmp_path):
    lines = ["a: &a [x, x]"] + [f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    (tmp_path / "m.yml").write_text("\n".join(lines))
    with pytest.raises(DataError, match="alias"):
        datasets.read_manifest(tmp_path / "m.yml")
