"""One text, several segmentations: the same surprisal on tokens, pieces and bytes, and two ways of scoring.

What the chapter on extraction shows: :func:`segmentation` with :func:`draw` (surprisal is conserved, whatever
the text is cut into), and :func:`compare_modes` (what context and the last-token rule change).
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.stats import spearmanr

from helpers import alignment, corpora, figures, perplexity
from helpers.errors import DataError

COLOUR = (47, 126, 194)  # drawn at an opacity that text survives, on a light page and on a dark one
UNITS = {"tokens": "tokens", "pieces": "pieces", "bytes": "byte windows"}


def segmentation(loaded: list[Any], text: str, window_bytes: int = 8) -> pd.DataFrame:
    """Return the surprisal of `text` on every model's tokens, on whitespace pieces and on byte windows.

    Columns: `model`, `cut` (``tokens``, ``pieces``, ``bytes``), `start`, `end` (UTF-8 bytes), `text`, `nats`.
    For each model the three cuts have the same total.
    """
    rows = []
    size = alignment.byte_offsets(text)
    for one in loaded:
        ids, offsets = (x[0] for x in alignment.tokenize(one.tokenizer, [text]))
        nats = perplexity.surprisal_of_ids(one.model, [ids], one.bos_id)[0]
        exact = alignment.token_byte_spans(one.tokenizer, text, ids, offsets)
        for (a, b), (c, d), value in zip(exact, offsets, nats):
            rows.append((one.name, "tokens", a, b, text[c:d], value))
        for cut, kind in (("pieces", "piece"), ("bytes", "bytes")):
            spans = corpora.spans(text, kind, window_bytes)
            values = alignment.attribute(exact, nats, alignment.byte_spans(text, spans))
            for (c, d), value in zip(spans, values):
                rows.append((one.name, cut, size[c], size[d], text[c:d], value))
    return pd.DataFrame(rows, columns=["model", "cut", "start", "end", "text", "nats"])


def draw(frame: pd.DataFrame, *, name: str, alt: str, caption: str) -> figures.Figure:
    """Draw :func:`segmentation` as rows of blocks that hold the text: width is bytes, colour nats.

    Above each row stand its model, the number of blocks and their total. Letters are set as wide as a byte,
    so that the rows can be read against each other; where a phone leaves too little room they are left out.
    """
    lanes = frame.groupby(["model", "cut"], sort=False)
    top, end = float(frame["nats"].max()), int(frame["end"].max())
    drawing = go.Figure()
    static, axis = plt.subplots(figsize=(10, 0.75 * len(lanes) + 0.6))
    letter = {k: pixels / end / 0.6 for k, pixels in (("desk", 650), ("phone", 330))}  # 0.6: width of a letter
    phone: dict[int, dict[str, Any]] = {}
    for row, ((model, cut), part) in enumerate(lanes):
        share = part["nats"] / top if top else part["nats"] * 0
        depth = (0.05 + 0.55 * share).round(3)
        width = part["end"] - part["start"]
        # a token may begin with a blank: the letters stand where they are in the text; a token that is only a part
        # of a character's bytes shows none
        letters = [t.strip() if len(t.rstrip().encode()) <= w else "" for t, w in zip(part["text"], width)]
        before = [len(t.encode()) - len(t.lstrip().encode()) for t in part["text"]]
        middle = part["start"] + before + [len(t.encode()) / 2 for t in letters]
        drawing.add_bar(
            x=width,
            base=part["start"],
            y=[row] * len(part),
            width=0.5,
            orientation="h",
            marker={
                "color": [f"rgba{(*COLOUR, float(d))}" for d in depth],
                "line": {"color": "#888", "width": 1},
            },
            hovertext=[
                f"{figures.plot_text(repr(t))}<br>{n:.2f} nats, {w} bytes"
                for t, n, w in zip(part["text"], part["nats"], width)
            ],
            hovertemplate="%{hovertext}<extra></extra>",
        )
        drawing.add_scatter(
            mode="text",
            x=middle,
            y=[row] * len(part),
            text=[figures.plot_text(t) for t in letters],
            textfont={"family": "monospace", "size": min(13, letter["desk"])},
            hoverinfo="skip",
        )
        phone[2 * row + 1] = {
            "textfont": {"family": "monospace", "size": letter["phone"]},
            "visible": letter["phone"] >= 6,
        }
        words = f"{model}: {len(part)} {UNITS[cut]}, {part['nats'].sum():.2f} nats"
        drawing.add_annotation(
            x=0,
            y=row - 0.27,
            text=figures.plot_text(words),
            showarrow=False,
            xanchor="left",
            yanchor="bottom",
            xshift=-3,
        )
        paint = [(*(c / 255 for c in COLOUR), d) for d in depth]
        axis.barh([row] * len(part), width, left=part["start"], color=paint, edgecolor="#888", height=0.5)
        for x, text in zip(middle, letters):
            axis.text(x, row, text, ha="center", va="center", fontsize=7)
        axis.text(0, row - 0.32, words, fontsize=8)
    drawing.update_layout(
        barmode="overlay",
        showlegend=False,
        xaxis={"visible": False, "range": [-0.2, end + 0.2], "fixedrange": True},
        yaxis={"visible": False, "range": [len(lanes) - 0.6, -0.75], "fixedrange": True},
    )
    axis.set_ylim(len(lanes) - 0.6, -0.75)
    axis.axis("off")
    static.tight_layout()
    plt.close(static)
    figure = figures.plotly(
        drawing, name=name, alt=alt, caption=caption, data=frame, static=static, height=52 * len(lanes) + 30
    )
    figure.spec["phone"] |= {"height": figure.spec["layout"]["height"], "traces": phone}
    return figure


def compare_modes(
    one: Any, documents: pd.DataFrame, pieces: int, *, context_pieces: int = 30, batch_tokens: int = 8192
) -> pd.DataFrame:
    """Score the first `pieces` whitespace pieces of the documents in stream mode and as the paper does.

    Documents are taken in order and cut at the piece that fills the count.

    Columns: `doc_id`, `piece`, `bytes`, `tokens` (of the piece in the paper's context), `context` (pieces of
    it that fit the model), and in nats `stream`
    (all tokens, whole document as context), `whole` (all tokens, 30 pieces of context), `last` (the paper:
    30 pieces of context, last token only).
    """
    parts = []
    left = pieces
    for document in documents.itertuples():
        if left <= 0:
            break
        spans = corpora.spans(document.text)[:left]
        left -= len(spans)
        text = document.text[: spans[-1, 1]]
        sizes = alignment.byte_offsets(text)
        ids, offsets = (x[0] for x in alignment.tokenize(one.tokenizer, [text]))
        nats = perplexity.surprisal_of_ids(one.model, [ids], one.bos_id, batch_tokens=batch_tokens)[0]
        exact = alignment.token_byte_spans(one.tokenizer, text, ids, offsets)
        paper = perplexity.paper_surprisal(
            one.model,
            one.tokenizer,
            text,
            spans,
            context_pieces=context_pieces,
            batch_tokens=batch_tokens,
            name=f"document '{document.doc_id}'",
        )
        parts.append(
            pd.DataFrame(
                {
                    "doc_id": document.doc_id,
                    "piece": np.arange(len(spans)),
                    "bytes": sizes[spans[:, 1]] - sizes[spans[:, 0]],
                    "tokens": paper["tokens"],
                    "context": paper["context"],
                    "stream": alignment.attribute(exact, nats, alignment.byte_spans(text, spans)),
                    "whole": paper["whole"],
                    "last": paper["last"],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def compare_forms(surprisal: pd.DataFrame, size: int = 30, draws: int = 200, seed: int = 0) -> pd.DataFrame:
    """Compare the forms of ``helpers.perplexity.in_form`` on a (units x models) matrix.

    For `draws` random sets of `size` units (the size of the paper's signatures), each form is standardised within
    models over all units, as the signature overlap does, and averaged over the set.

    Columns: `form`; `order`, Spearman correlation of a unit's values over models with its surprisals (exactly 1 or
    -1: rank-based screening is the same); `largest`, median share of the set's sum that its largest unit holds; `models`, median Spearman correlation of the models' averages with those of surprisal.
    """
    whole = surprisal.dropna()
    if len(whole) < size:
        raise DataError(f"{len(whole)} units without gaps; {size} are needed for one set.")
    rng = np.random.default_rng(seed)
    picks = [rng.choice(len(whole), size, replace=False) for _ in range(draws)]
    rows, reference = [], None
    for form in perplexity.FORMS:
        values = perplexity.in_form(whole, form)
        z = (values - values.mean(0)) / values.std(0)
        means = np.array([z[p].mean(0) for p in picks])
        reference = means if reference is None else reference
        sizes = np.abs(np.array([values[p] for p in picks]))
        rows.append(
            {
                "form": form,
                "order": np.median([spearmanr(a, b)[0] for a, b in zip(values[:50], whole.to_numpy()[:50])]),
                "largest": float(np.median(sizes.max(1) / sizes.sum(1))),
                "models": np.median([spearmanr(a, b)[0] for a, b in zip(means, reference)]),
            }
        )
    return pd.DataFrame(rows)


def spectrum(surprisal: pd.DataFrame) -> pd.DataFrame:
    """Return the share of variance in each principal component of a (units x models) matrix, two ways.

    `raw`: models standardised over units, as they are. `centred`: the mean of each unit over models taken out
    as well, which leaves what distinguishes models. Units with a missing value are left out.

    Columns: `component` (1, 2, ...), `matrix`, `share`.

    >>> twice = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [2.0, 4.0, 8.0]})
    >>> [round(v, 3) for v in spectrum(twice)["share"][:2]]
    [1.0, 0.0]
    """
    values = surprisal.dropna().to_numpy(dtype=np.float64)
    spread = values.std(axis=0)
    z = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    rows = []
    for label, matrix in (("raw", z), ("centred", z - z.mean(axis=1, keepdims=True))):
        eigen = np.clip(np.linalg.eigvalsh(matrix.T @ matrix)[::-1], 0, None)
        total = eigen.sum()
        for k, value in enumerate(eigen, 1):
            rows.append((k, label, value / total if total > 1e-12 * max(1.0, (z**2).sum()) else 0.0))
    return pd.DataFrame(rows, columns=["component", "matrix", "share"])


def order_agreement(surprisal: pd.DataFrame, sample: int = 300, seed: int = 0) -> float:
    """Return the median Spearman correlation, over models, between two units of a random sample.

    1: every unit orders the models alike, so units cannot tell benchmarks apart; 0: units share no order.
    NaN with fewer than two units that vary over models.

    >>> frame = pd.DataFrame({"a": [1.0, 2.0, 9.0], "b": [2.0, 3.0, 10.0], "c": [3.0, 4.0, 11.0]})
    >>> order_agreement(frame)
    1.0
    """
    whole = surprisal.dropna()
    chosen = whole.sample(min(sample, len(whole)), random_state=seed).rank(axis=1).to_numpy()
    chosen = chosen[chosen.std(axis=1) > 0]
    if len(chosen) < 2:
        return float("nan")
    return float(round(np.median(np.corrcoef(chosen)[np.triu_indices(len(chosen), 1)]), 12))
