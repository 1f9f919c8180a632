"""Segmentation figure and its tables: totals are conserved, modes differ only where they should."""

from __future__ import annotations

import types

import numpy as np
import pandas as pd
import pytest

from helpers import corpora, perplexity, segments
from helpers.errors import DataError

TEXT = "the naïve cat's 日本 log 🤗"


@pytest.fixture
def loaded(tiny):
    made = []
    for seed, kind in enumerate(("bytes", "pieces")):
        tokenizer = tiny.tokenizer(kind)
        model = tiny.model(seed, vocabulary=len(tokenizer))
        made.append(types.SimpleNamespace(name=kind, model=model, tokenizer=tokenizer, bos_id=0))
    return made


def test_every_cut_of_a_model_has_the_same_total(loaded):
    frame = segments.segmentation(loaded, TEXT, window_bytes=4)
    totals = frame.groupby(["model", "cut"])["nats"].sum().unstack()
    assert list(totals) == ["bytes", "pieces", "tokens"] and len(totals) == 2
    assert (totals.sub(totals["tokens"], axis=0).abs() < 1e-6).all(axis=None)
    assert abs(totals.loc["bytes", "tokens"] - totals.loc["pieces", "tokens"]) > 1e-3  # models differ, cuts do not


def test_blocks_lie_inside_the_text_and_carry_their_characters(loaded):
    frame = segments.segmentation(loaded, TEXT)
    assert frame["start"].min() == 0 and frame["end"].max() == len(TEXT.encode())
    pieces = frame[(frame["cut"] == "pieces") & (frame["model"] == "bytes")]
    assert pieces["text"].tolist() == TEXT.split()


@pytest.mark.filterwarnings("ignore:Glyph")  # the static twin's font has no CJK characters and shows a box
def test_draw_shows_every_lane_and_its_total(loaded):
    frame = segments.segmentation(loaded, TEXT)
    figure = segments.draw(frame, name="cuts", alt="Blocks of one sentence.", caption="One sentence.")
    assert "Blocks of one sentence." in figure._repr_html_()
    blocks, letters = figure.spec["data"][::2], figure.spec["data"][1::2]
    totals = frame.groupby(["model", "cut"], sort=False)["nats"].sum()
    titles = [a["text"] for a in figure.spec["layout"]["annotations"]]
    assert len(blocks) == len(letters) == len(titles) == 6
    for (model, _), total, title in zip(totals.index, totals, titles):
        assert title.startswith(f"{model}: ") and title.endswith(f"{total:.2f} nats")
    for block, text in zip(blocks, letters):
        for width, start, middle, shown in zip(block["x"], block["base"], text["x"], text["text"]):
            half = len(shown.encode()) / 2  # of bytes: as wide as the letters are set, at least
            assert start <= middle - half and middle + half <= start + width
    assert "".join(letters[1]["text"]) == "".join(TEXT.split())


def test_modes_agree_where_context_and_tokens_agree(loaded):
    documents = pd.DataFrame({"doc_id": ["a", "b"], "text": ["the cat sat on the mat", "cat log fog dog"]})
    table = segments.compare_modes(loaded[0], documents, 8, context_pieces=30)
    assert table["doc_id"].value_counts().to_dict() == {"a": 6, "b": 2}
    assert table["piece"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    np.testing.assert_allclose(table["stream"], table["whole"], atol=1e-4)  # short texts: the same context
    single = table["tokens"] == 1
    np.testing.assert_allclose(table.loc[single, "last"], table.loc[single, "whole"], atol=1e-6)
    assert (table["last"] <= table["whole"] + 1e-6).all()
    short = segments.compare_modes(loaded[0], documents, 6, context_pieces=1)
    assert not np.allclose(short["stream"], short["whole"], atol=1e-4)  # less context must show


def test_compare_modes_is_the_papers_mode(loaded):
    one, text = loaded[0], "the cat sat on the mat"
    table = segments.compare_modes(one, pd.DataFrame({"doc_id": ["a"], "text": [text]}), 4, context_pieces=2)
    wanted = perplexity.paper_surprisal(one.model, one.tokenizer, text, corpora.spans(text)[:4], context_pieces=2)
    np.testing.assert_allclose(table["last"], wanted["last"])


def test_spectrum_separates_what_models_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(200, 1))
    frame = pd.DataFrame(shared * [3, 2, 1] + 0.01 * rng.normal(size=(200, 3)), columns=list("abc"))
    table = segments.spectrum(frame).set_index(["matrix", "component"])["share"]
    assert table["raw", 1] > 0.99 and table["centred", 1] < 0.99
    assert table["raw"].sum() == pytest.approx(1) and table["centred"].sum() == pytest.approx(1)


def test_order_agreement_is_one_for_one_order_and_low_for_noise():
    ladder = pd.DataFrame(np.arange(40)[:, None] * 10.0 + np.arange(6), columns=list("abcdef"))
    assert segments.order_agreement(ladder) == 1.0
    noise = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 6)))
    assert abs(segments.order_agreement(noise)) < 0.15
    assert np.isnan(segments.order_agreement(ladder.head(1)))


def test_forms_share_their_order_and_differ_in_their_means():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.gamma(2.0, 2.0, size=(400, 1)) + rng.gamma(1.0, 1.0, size=(400, 12)))
    table = segments.compare_forms(frame).set_index("form")
    assert table["order"].round(9).tolist() == [1.0, 1.0, -1.0]
    assert table.loc["surprisal", "models"] == 1 and table.loc["log-probability", "models"] == pytest.approx(-1)
    assert table.loc["perplexity", "largest"] > 2 * table.loc["surprisal", "largest"]  # one unit dominates
    assert table.loc["perplexity", "models"] < 0.9
    with pytest.raises(DataError, match="30 are needed"):
        segments.compare_forms(frame.head(5))
