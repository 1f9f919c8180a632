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

SCALE = "Blues"


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
    """Draw :func:`segmentation` as rows of blocks: width is bytes, colour nats; the row's total at its end."""
    lanes = list(dict.fromkeys(zip(frame["model"], frame["cut"])))
    top = float(frame["nats"].max())
    shades = plt.get_cmap(SCALE)
    drawing = go.Figure()
    static, axis = plt.subplots(figsize=(10, 0.7 * len(lanes) + 1.2))
    labels = [f"{model}, {cut}" for model, cut in lanes]
    for row, (model, cut) in enumerate(lanes):
        part = frame[(frame["model"] == model) & (frame["cut"] == cut)]
        for item in part.itertuples():
            share = item.nats / top if top else 0
            color = shades(0.08 + 0.72 * share)
            ink = "white" if share > 0.55 else "black"
            width = item.end - item.start
            shown = item.text.strip() if len(item.text.strip()) <= 1.4 * width + 1 else ""
            paint = f"rgb({','.join(str(int(255 * c)) for c in color[:3])})"
            drawing.add_bar(
                x=[width],
                base=[item.start],
                y=[labels[row]],
                orientation="h",
                marker={"color": paint, "line": {"color": "#888", "width": 1}},
                text=shown,
                textfont={"color": ink},
                textposition="inside",
                insidetextanchor="middle",
                hovertemplate=f"{item.text!r}<br>{item.nats:.2f} nats, {width} bytes<extra></extra>",
                showlegend=False,
            )
            axis.barh(row, width, left=item.start, color=color, edgecolor="#888888", height=0.8)
            axis.text(item.start + width / 2, row, shown, ha="center", va="center", color=ink, fontsize=7)
        total = f"{part['nats'].sum():.2f} nats"
        drawing.add_annotation(
            x=frame["end"].max(), y=labels[row], text=total, showarrow=False, xanchor="left", xshift=6
        )
        axis.text(frame["end"].max() + 0.5, row, total, va="center", fontsize=8)
    drawing.update_layout(
        barmode="overlay",
        xaxis_title="position in the text (bytes)",
        yaxis={"autorange": "reversed"},
        margin={"r": 110},
        uniformtext={"minsize": 7, "mode": "hide"},
    )
    axis.set_yticks(range(len(lanes)), labels)
    axis.invert_yaxis()
    axis.set_xlabel("position in the text (bytes)")
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    static.tight_layout()
    plt.close(static)
    return figures.plotly(
        drawing, name=name, alt=alt, caption=caption, data=frame, static=static, height=46 * len(lanes) + 110
    )


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
