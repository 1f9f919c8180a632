"""Study files: what is accepted, and how each mistake is told."""

import pytest

from helpers import studies
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
