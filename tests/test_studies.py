"""Study files: what is accepted, and how each mistake is told."""

import os
import time

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import paths, studies
from helpers.errors import StudyError

GOOD = """name: mine
title: t
description: d
models: {kind: table}
corpus: {kind: table}
benchmarks: {kind: none}
notebooks: {meet-the-study: {}}
"""


def write(folder, text, name="mine.yml"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_good_study_loads(tmp_path):
    assert studies.load(write(tmp_path, GOOD)).screening.ratio == 0.01


def test_all_shipped_studies_load():
    assert {"lab", "dclm", "entigraph"} <= set(studies.names())
    for name in studies.names():
        assert studies.load(name).name == name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("corpus:", "corpsu:"), ["corpsu", "'corpus'", "mine.yml", "corpus: this key is missing"]),
        (("kind: none", "kind: none, include_all: 1"), ["benchmarks.include_all", "'include'"]),
        (
            ("notebooks: {meet-", "screening: {ratio: 2}\nnotebooks: {meet-"),
            ["screening.ratio", "less than or equal to 0.5", "2"],
        ),
        (("notebooks: {meet-", "screening: {raito: 0.1}\nnotebooks: {meet-"), ["screening.raito", "'ratio'"]),
        (("title: t", "title: t\ntitle: u"), ["'title' is given twice, on lines 2 and 3"]),
        (("name: mine", "name: yours"), ["'name' is 'yours' but the file is 'mine.yml'"]),
        (("meet-the-study", "meet-the-studdy"), ["no notebook 'meet-the-studdy'", "'meet-the-study'"]),
        (
            ("kind: table}\ncorpus", "kind: list}\ncorpus"),
            ["'entries' must be given exactly when kind is 'list'"],
        ),
        (
            (
                "{kind: table}\ncorpus",
                "{kind: list, entries: [{name: a, source: hub, id: x}, {name: a, source: hub, id: y}]}\ncorpus",
            ),
            ["duplicate model name: a"],
        ),
        (("title: t", "title: [unclosed"), ["not valid YAML"]),
        (
            ("kind: none", "kind: files, scores: mine.csv"),
            [
                "models of kind 'table' come with their own benchmarks",
                "'benchmarks: kind: files' would be ignored",
            ],
        ),
        (
            ("models: {kind: table}", "models: {kind: list, entries: [{name: a, source: hub, id: x}]}"),
            ["'corpus: kind: table' belongs to models of kind 'table'"],
        ),
        # keys of earlier versions say where they went
        (
            ("notebooks: {meet-", "selection: {mode: corrected}\nnotebooks: {meet-"),
            ["selection.mode: removed", "delete this key"],
        ),
        (
            ("notebooks: {meet-", "overlap: {pool: matrix}\nnotebooks: {meet-"),
            ["overlap.pool: removed", "delete this key"],
        ),
        # keys that nothing would read
        (
            ("kind: table}\nbench", "kind: table, sources: [x]}\nbench"),
            ["corpus: 'sources' would be ignored", "kind 'table'"],
        ),
        (
            ("kind: table}\nbench", "kind: table, unit: chunk}\nbench"),
            ["'unit: chunk' would be ignored", "each a document"],
        ),
        (("kind: none", "kind: none, exclude: [a]"), ["benchmarks: 'exclude' would be ignored", "kind 'none'"]),
        (
            ("models: {kind: table}", "models: {kind: table, population: format}"),
            ["models: 'population' would be ignored"],
        ),
        (
            ("notebooks: {meet-", "extraction: {window: 64}\nnotebooks: {meet-"),
            ["stride", "at most half of 'window' (32)"],
        ),
        (("notebooks: {meet-", "extraction: {dtype: bfloat16}\nnotebooks: {meet-"), ["'extraction' would be ignored"]),
        (
            ("notebooks: {meet-", "selection: {method: lasso, max_size: 5}\nnotebooks: {meet-"),
            ["'max_size' would be ignored", "'method: lasso' sets the size by 'alpha'"],
        ),
        (
            ("notebooks: {meet-", "traces: {models: [{name: a, source: hub, id: x, family: f}]}\nnotebooks: {meet-"),
            ["traces", "models.family: removed"],
        ),
        (
            ("models: {kind: table}", "models: {kind: list, entries: [{name: a, source: folder, id: x, revision: r}]}"),
            ["models.entries.0: 'revision' would be ignored", "only the hub has revisions"],
        ),
        # a value of another type is never taken for a number
        (("notebooks: {meet-", "overlap: {splits: true}\nnotebooks: {meet-"), ["overlap.splits", "(found True)"]),
        (("notebooks: {meet-", "overlap: {splits: '20'}\nnotebooks: {meet-"), ["overlap.splits", "(found '20')"]),
        (("notebooks: {meet-", "seed: -1\nnotebooks: {meet-"), ["seed", "greater than or equal to 0"]),
        (("notebooks: {meet-", "selection: {alpha: .inf}\nnotebooks: {meet-"), ["selection.alpha", "finite"]),
        (
            ("study: {}", "study: {reliable: 2026-01-01}"),
            ["notebooks.meet-the-study.reliable", "found date", "quotation marks"],
        ),
        (("meet-the-study", "../../README"), ["no notebook '../../README'"]),
    ],
)
def test_each_mistake_names_key_file_and_nearest_name(tmp_path, change, words):
    path = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(StudyError) as caught:
        studies.load(path)
    for word in ["mine.yml", *words]:
        assert word in str(caught.value), str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- a\n- b\n", "name: é".encode("latin-1")])
def test_files_that_are_no_study(tmp_path, content):
    with pytest.raises(StudyError, match=r"mine\.yml"):
        studies.load(write(tmp_path, content))


def test_unknown_study_suggests_the_nearest():
    with pytest.raises(StudyError, match="did you mean 'entigraph'"):
        studies.load("entigraf")


def test_a_folder_is_no_study(tmp_path):
    (tmp_path / "x.yml").mkdir()
    with pytest.raises(StudyError, match="not a file"):
        studies.load(tmp_path / "x.yml")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\n" + GOOD, "aliases (*a) are not read"),
        ("a: &a {x: 1}\nb: {<<: *a}\n" + GOOD, "aliases (*a) are not read"),
        (GOOD + "extra: " + "[" * 500_000, "more than 12 deep"),
        (GOOD + "extra: " + "{a: " * 5000 + "}" * 5000, "more than 12 deep"),
        (GOOD + "seed: " + "9" * 5000, "looks like a date or a number and is none"),
        (GOOD + "seed: " + "9" * 4000, "seed: Input should be less than"),
        (GOOD + "seed: 0x" + "f" * 20_000, "a number of thousands of digits"),
        (GOOD.replace("title: t", "title: 2026-13-45"), "put it in quotation marks"),
        (GOOD.replace("title: t", "title: !!int ''"), "put it in quotation marks"),
        (GOOD.replace("title: t", "title: !!python/name:os.system"), "not valid YAML"),
        ("? [a]\n: b\n" + GOOD, "the key on line 1 is a list or a mapping"),
        (GOOD + "".join(f"k{i}: 1\n" for i in range(20_000)), "and 19988 more"),
        (GOOD.replace("name: mine", "name: " + "m" * 300), "at most 64 characters"),
        (GOOD.replace("meet-the-study", "x" * 300), "no notebook 'xxx"),
        ((GOOD + "#" * 2_000_000).encode(), "more than 1,048,576 bytes"),
        (GOOD.encode("utf-16"), "not UTF-8"),
        (GOOD.encode() + b"\0", "not valid YAML"),
    ],
)
def test_hostile_files_are_one_bounded_message(tmp_path, content, words):
    began = time.process_time()
    with pytest.raises(StudyError) as caught:
        studies.load(write(tmp_path, content))
    assert words in str(caught.value), str(caught.value)
    assert len(str(caught.value)) < 4000 and time.process_time() - began < 5


def test_a_long_list_of_models_is_read_once_or_refused(tmp_path):
    listed = GOOD.replace(
        "models: {kind: table}\ncorpus: {kind: table}",
        "models:\n  kind: list\n  entries:\n%s\ncorpus: {kind: packages, sources: [numpy]}",
    )
    entries = [f"    - {{name: m{i}, source: hub, id: x/m{i}}}" for i in range(20_000)]
    began = time.process_time()
    assert len(studies.load(write(tmp_path, listed % "\n".join(entries[:2000]))).models.entries) == 2000
    with pytest.raises(StudyError, match="at most 5000 items"):
        studies.load(write(tmp_path, listed % "\n".join(entries)))
    with pytest.raises(StudyError, match="duplicate model name: m0"):
        studies.load(write(tmp_path, listed % "\n".join(entries[:1] * 3000)))
    assert time.process_time() - began < 20


def test_what_is_no_file_is_said_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.yml")
    os.symlink(tmp_path / "b.yml", tmp_path / "a.yml")
    os.symlink(tmp_path / "a.yml", tmp_path / "b.yml")
    os.symlink("/dev/zero", tmp_path / "zero.yml")
    for name in ("pipe.yml", "a.yml", "zero.yml", "none.yml", "m" * 300 + ".yml", "a\0b.yml"):
        with pytest.raises(StudyError, match="not a file"):
            studies.load(tmp_path / name)
    for name in ("m" * 300, "a\0b", "../lab", "/etc/passwd", "", "a\udc80"):
        with pytest.raises(StudyError, match="No study"):
            studies.load(name)


def test_a_byte_order_mark_is_no_letter(tmp_path):
    assert studies.load(write(tmp_path, b"\xef\xbb\xbf" + GOOD.encode())).title == "t"


shipped = [(paths.STUDIES / f"{name}.yml").read_text(encoding="utf-8") for name in studies.names()]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def broken(draw):
    """A study file with bytes cut out, doubled or replaced, or with any value at any key."""
    text = draw(st.sampled_from(shipped))
    if draw(st.booleans()):
        raw = yaml.safe_load(text)
        at = raw
        while True:
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if isinstance(at[key], dict | list) and at[key] and draw(st.booleans()):
                at = at[key]
                continue
            at[key] = draw(values)
            return yaml.safe_dump(raw, allow_unicode=True).encode("utf-8", "surrogatepass")
    data = bytearray(text.encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data) - 1))
        stop = min(len(data), start + draw(st.integers(0, 30)))
        data[start:stop] = draw(
            st.sampled_from([b"", data[start:stop] * 2, b"&a ", b"*a", b"{", b"]", b"\n", b": ", b"- "])
            | st.binary(max_size=6)
        )
        data = data or bytearray(b" ")
    return bytes(data)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(broken())
@example(b"\xff")
def test_any_file_is_a_study_or_a_study_error(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    try:
        assert isinstance(studies.load(write(folder, content)), studies.Study)
    except StudyError as error:
        assert 0 < len(str(error)) < 6000
