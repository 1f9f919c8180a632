"""Units of text in their context, coloured by how much each of a few models was surprised by them.

Only for pages that run live: the text belongs to others, so cells that show it carry the tag ``live-only``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from IPython.display import HTML

from helpers.errors import DataError, nearest
from helpers.fragments import escape

COLOUR = "213, 94, 0"  # vermilion of the colour-blind-safe palette, drawn at an opacity that text survives
OPACITY = 0.55


def context(units: pd.DataFrame, unit_id: int, reach: int = 12) -> pd.DataFrame:
    """Return the rows of `units` within `reach` units of `unit_id` in its document, in the order of the text.

    `units` is ``units.parquet``: index ``unit_id``, columns ``doc_id``, ``start``, ``text``. Raises
    DataError for an unknown unit, or where the study has no text.

    >>> units = pd.DataFrame({"doc_id": [0, 0, 1], "start": [0, 4, 0], "text": ["one", "two", "three"]})
    >>> context(units.rename_axis("unit_id"), 1)["text"].tolist()
    ['one', 'two']
    """
    for column in ("doc_id", "start", "text"):
        if column not in units:
            raise DataError(f"units.parquet has no column '{column}': this study has no text to show.")
    if unit_id not in units.index:
        raise DataError(
            f"units.parquet has no unit {unit_id}; ids run from {units.index.min()} to {units.index.max()}."
        )
    document = units[units["doc_id"] == units.at[unit_id, "doc_id"]].sort_values("start", kind="stable")
    place = document.index.get_loc(unit_id)
    return document.iloc[max(0, place - reach) : place + reach + 1]


def show(
    units: pd.DataFrame,
    surprisal: pd.DataFrame,
    unit_ids: Iterable[int],
    models: Sequence[str],
    *,
    reach: int = 12,
    caption: str = "",
) -> HTML:
    """Show each of `unit_ids` in its context, one line a model, the deeper the colour the greater the
    surprisal.

    `surprisal` is (units x models) in nats per unit; the scale is common to all lines and ends at the 95th
    percentile of what is shown. The unit itself is underlined. Each unit carries its number of nats as a
    tooltip.

    >>> units = pd.DataFrame({"doc_id": [0, 0], "start": [0, 4], "text": ["a<b", "two"]}).rename_axis("unit_id")
    >>> nats = pd.DataFrame({"m": [1.0, 4.0]}, index=units.index)
    >>> page = show(units, nats, [1], ["m"]).data
    >>> "a&lt;b" in page, 'title="4.0 nats"' in page, "<u>two</u>" in page
    (True, True, True)
    """
    for model in models:
        if model not in surprisal:
            raise DataError(f"surprisal has no model '{model}'; {nearest(model, surprisal.columns)}")
    parts = [(unit_id, context(units, unit_id, reach)) for unit_id in unit_ids]
    if not parts:
        raise DataError("There is no unit to show: the signature is empty.")
    shown = surprisal.loc[np.concatenate([part.index for _, part in parts]), list(models)]
    top = max(float(np.nanpercentile(shown.to_numpy(), 95)), 1e-9)
    body = []
    for unit_id, part in parts:
        rows = "".join(
            f'<tr><th scope="row">{escape(str(model))}</th><td>'
            + " ".join(_piece(t, surprisal.at[i, model], top, i == unit_id) for i, t in part["text"].items())
            + "</td></tr>"
            for model in models
        )
        source = escape(str(units["source"].get(unit_id, ""))) if "source" in units else ""
        body.append(f'<tr><th colspan="2" scope="rowgroup">unit {unit_id} {source}</th></tr>{rows}')
    words = escape(caption) + f" Full colour: {top:.1f} nats or more."
    return HTML(  # the figure's class keeps the theme from painting it white on a dark page
        '<figure class="companion-figure"><div class="companion-scroll" tabindex="0" role="region" '
        f'aria-label="{words}"><table class="companion-table passages"><tbody>{"".join(body)}</tbody></table></div>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _piece(text: str, nats: float, top: float, marked: bool) -> str:
    word = escape(" ".join(str(text).split()))
    word = f"<u>{word}</u>" if marked else word
    if np.isnan(nats):
        return f'<span title="not measured">{word}</span>'
    depth = OPACITY * min(max(nats / top, 0), 1)
    return f'<span title="{nats:.1f} nats" style="background: rgba({COLOUR}, {depth:.2f})">{word}</span>'
