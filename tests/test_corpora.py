"""Corpora: readers, rules for odd text, sampling, and units that can be traced to their characters."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import corpora, studies
from helpers.errors import DataError, UnavailableError

anything = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=80)


def corpus(*sources, kind="files", **options) -> studies.Corpus:
    return studies.Corpus(kind=kind, sources=tuple(map(str, sources)), **options)


def count(report: pd.DataFrame, rule: str) -> int:
    found = report.loc[report["rule"] == corpora.RULES[rule], "documents"]
    return int(found.iloc[0]) if len(found) else 0


def write_rows(path, texts) -> str:
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    return str(path)


@settings(deadline=None)
@given(anything, st.sampled_from(["piece", "bytes", "chunk", "document"]), st.integers(1, 9))
def test_units_are_their_characters(text, kind, size):
    frame = pd.DataFrame([("d", "s", text)], columns=corpora.COLUMNS)
    table = corpora.units(frame, kind, size)
    assert [text[a:b] for a, b in zip(table["start"], table["end"])] == table["text"].tolist()
    assert (table["bytes"] == table["text"].map(lambda t: len(t.encode()))).all()
    assert (table["start"].diff().dropna() > 0).all() and table.index.name == "unit_id"
    if kind == "piece":
        assert table["text"].tolist() == text.split()
    if kind == "bytes":
        assert "".join(table["text"]) == text
        assert all(b <= size or len(t) == 1 for b, t in zip(table["bytes"], table["text"]))
    if kind == "chunk":
        assert sum(len(t.split()) for t in table["text"]) == len(text.split())
        assert all(len(t.split()) <= size for t in table["text"])


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(["a", "日本", "🤗", "b."]), min_size=1, max_size=4), min_size=1, max_size=5))
def test_documents_come_back_from_units(documents):
    rows = [(f"d{k}", "s", " ".join(d)) for k, d in enumerate(documents)]
    frame = pd.DataFrame(rows, columns=corpora.COLUMNS)
    pd.testing.assert_frame_equal(corpora.from_units(corpora.units(frame)), frame)


def test_units_with_unknown_text_between_them_are_refused():
    frame = pd.DataFrame([("d", "s", "a  b")], columns=corpora.COLUMNS)
    with pytest.raises(DataError, match="unit 1: the text before it is unknown"):
        corpora.from_units(corpora.units(frame))


def test_odd_documents_keep_their_rules(tmp_path):
    odd = {
        "bom.txt": b"\xef\xbb\xbfafter a mark",
        "broken.txt": b"good \xff\xfe bad",
        "empty.txt": b"",
        "spaces.txt": b" \n\t ",
        "nul.txt": b"a\0b",
        "same.txt": b"a\0b",
        "rtl.txt": "עברית العربية".encode(),
        "cjk.txt": "日本語の文章。空白なし".encode(),
        "emoji.txt": "👨‍👩‍👧 family".encode(),
    }
    for name, content in odd.items():
        (tmp_path / name).write_bytes(content)
    table, report = corpora.load(corpus(tmp_path / "*.txt"))
    texts = dict(zip(table["doc_id"].str.split("/").str[-1], table["text"]))
    assert texts["bom.txt"] == "after a mark"
    assert texts["broken.txt"] == "good \ufffd\ufffd bad"
    assert texts["nul.txt"] == "a\0b" and "same.txt" not in texts
    assert not {"empty.txt", "spaces.txt"} & set(texts)
    assert (count(report, "read"), count(report, "kept")) == (9, 6)
    assert (count(report, "empty"), count(report, "duplicate"), count(report, "invalid")) == (2, 1, 1)
    pieces = corpora.units(table).groupby("doc_id").size()
    assert pieces[pieces.index.str.endswith("cjk.txt")].item() == 1  # no spaces: one piece
    assert pieces[pieces.index.str.endswith("rtl.txt")].item() == 2


def test_unpaired_surrogates_are_replaced_and_pairs_joined(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text('{"text": "x \\ud800 y"}\n{"text": "\\ud83e\\udd17"}\n')
    table, report = corpora.load(corpus(path))
    assert table["text"].tolist() == ["x \ufffd y", "🤗"] and count(report, "invalid") == 1


def test_long_documents_are_cut_at_white_space(tmp_path):
    table, report = corpora.load(
        corpus(write_rows(tmp_path / "a.jsonl", ["one two three", "x" * 50]), max_characters=9)
    )
    assert table["text"].tolist() == ["one two", "x" * 9] and count(report, "cut") == 2


def test_sampling_depends_on_the_seed_and_not_on_the_order(tmp_path):
    texts = [f"document {k}" for k in range(200)]
    first = write_rows(tmp_path / "a.jsonl", texts)
    second = write_rows(tmp_path / "b.jsonl", texts[::-1])
    take = {"max_documents": 40}
    a, report = corpora.load(corpus(first, **take), seed=1)
    b, _ = corpora.load(corpus(second, **take), seed=1)
    c, _ = corpora.load(corpus(first, **take), seed=2)
    assert len(a) == 40 and set(a["text"]) == set(b["text"]) != set(c["text"])
    assert count(report, "not sampled") == 160
    numbers = a["text"].str.split().str[1].astype(int)
    assert numbers.is_monotonic_increasing  # the order of the source is kept
    assert 60 < numbers.mean() < 140  # and no end of it is favoured


def test_parquet_and_text_fields(tmp_path):
    path = tmp_path / "t.parquet"
    pd.DataFrame({"body": ["one", "two"]}).to_parquet(path)
    table, _ = corpora.load(corpus(path, text_field="body"))
    assert table["text"].tolist() == ["one", "two"] and table["doc_id"].str.endswith(":2").iloc[1]
    with pytest.raises(DataError, match="no column 'text'; it has body"):
        corpora.load(corpus(path))
    pd.DataFrame({"text": ["one", None]}).to_parquet(path)
    with pytest.raises(DataError, match="row 2: 'text' is NoneType"):
        corpora.load(corpus(path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"}\n{"text": ', "row 2: not valid JSON"),
        ('{"text": "a"}\n\n{"body": "b"}\n', "row 3: no text in field 'text'; found body"),
        ('["a"]\n', "row 1: no text in field"),
        ("\n\n", "no document with visible characters"),
    ],
)
def test_broken_rows_are_named(tmp_path, content, said):
    path = tmp_path / "b.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=said):
        corpora.load(corpus(path))


def test_missing_files_packages_and_parts_are_named(tmp_path):
    with pytest.raises(DataError, match=r"no file matches '.*none\*'"):
        corpora.load(corpus(tmp_path / "none*"))
    with pytest.raises(DataError, match="'no-such-package' is not installed"):
        corpora.load(corpus("no-such-package", kind="packages"))
    with pytest.raises(DataError, match="docstrings or source"):
        corpora.load(corpus("click:prose", kind="packages"))
    with pytest.raises(DataError, match="names no sources"):
        corpora.load(corpus())


def test_docstrings_and_source_of_packages():
    table, report = corpora.load(corpus("click", kind="packages"))
    assert (table["text"].str.len() >= corpora.MIN_DOCSTRING).all() and count(report, "short") > 0
    assert table["doc_id"].str.match(r"click:click/\w+\.py:\w*@\d+").all()
    source, _ = corpora.load(corpus("click:source", kind="packages"))
    assert source["text"].str.contains("import").any()


def test_hub_without_network_says_so(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnavailableError, match="cannot be read"):
        corpora.load(corpus("no-such/data-set", kind="hub", revision="main"))


def test_hub_streams_rows_with_revision(monkeypatch):
    import datasets

    asked = {}

    def fake(name, **options):
        asked.update(options, name=name)
        return iter([{"text": "one"}, {"text": "one"}, {"text": "two"}])

    monkeypatch.setattr(datasets, "load_dataset", fake)
    table, report = corpora.load(corpus("a/b:*.jsonl", kind="hub", revision="abc"))
    assert asked == {
        "name": "a/b",
        "revision": "abc",
        "split": "train",
        "streaming": True,
        "data_files": "*.jsonl",
    }
    assert table["doc_id"].tolist() == ["a/b:*.jsonl:train:1", "a/b:*.jsonl:train:3"]
    assert count(report, "duplicate") == 1


def test_units_refuse_unknown_kinds_and_repeated_documents():
    frame = pd.DataFrame([("d", "s", "a"), ("d", "s", "b")], columns=corpora.COLUMNS)
    with pytest.raises(DataError, match="kinds are piece"):
        corpora.units(frame.head(1), "word")
    with pytest.raises(DataError, match="doc_id 'd'"):
        corpora.units(frame)


@pytest.mark.parametrize("code", ["utf-16", "utf-32"])
def test_damage_late_in_a_text_of_another_encoding_is_counted(tmp_path, code):
    whole = ("plain words \ufffd " * 20_000).encode(code)  # a mark that is in the text itself is no damage
    (tmp_path / "whole.txt").write_bytes(whole)
    (tmp_path / "broken.txt").write_bytes(whole + b"\x00\xd8" * 2 if code == "utf-16" else whole + b"\xff" * 4)
    sound, report = corpora.load(corpus(tmp_path / "whole.txt"))
    assert count(report, "invalid") == 0
    broken, report = corpora.load(corpus(tmp_path / "broken.txt"))
    assert broken["text"][0].startswith(sound["text"][0]) and count(report, "invalid") == 1
    cut, report = corpora.load(corpus(tmp_path / "whole.txt", max_characters=1001))
    assert sound["text"][0].startswith(cut["text"][0]) and count(report, "invalid") == 0
