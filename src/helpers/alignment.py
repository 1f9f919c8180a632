"""From tokens to reference units: surprisal attributed to the text it belongs to, conserved to the last nat.

Tokenizers cut one text differently, so surprisal per token cannot be compared between models. The chain rule
makes the *sum* over a stretch of text comparable: :func:`attribute` hands each token's value to the reference
units that the token covers, in proportion to the bytes it covers of each, and loses nothing.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from helpers.errors import DataError, ModelError

_BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def attribute(
    token_spans: ArrayLike, token_values: ArrayLike, unit_spans: ArrayLike, *, text: str | None = None
) -> np.ndarray:
    """Return the value of every unit: the tokens' values split over the units that they cover.

    A token that overlaps several units is split in proportion to its overlap with each. A token that overlaps
    none (white space between pieces, a zero-width token) goes to the unit that contains its start, else to the
    unit that follows, else (after the last unit) to the last unit; so a piece always carries the surprisal of
    the space before it, whether the tokenizer writes that space as a token of its own or glues it to the word.

    Parameters
    ----------
    token_spans : (n_tokens, 2) integers, start and end of each token; tokens may overlap or have zero width.
    token_values : (n_tokens,) values, usually nats.
    unit_spans : (n_units, 2) integers in the same coordinate, in any order, not overlapping one another; a unit
        of zero width gets nothing (unless all are).
    text : when given, all spans are characters of this text and overlaps are measured in UTF-8 bytes; without
        it overlaps are measured in the coordinate of the spans. For the exact split of tokens that cut a
        character in two, give byte spans (:func:`token_byte_spans`, :func:`byte_spans`) and no text.

    Returns
    -------
    (n_units,) float64. The sum equals the sum of `token_values` to 1e-6. A NaN (not measured) makes every
    unit that it touches NaN.

    Raises
    ------
    DataError
        Spans of wrong shape, ends before starts, overlapping units, or values without any unit to go to.

    Examples
    --------
    The token "cd ef" covers two bytes of each piece, the space between them belongs to neither:

    >>> attribute([(0, 2), (2, 3), (3, 8)], [1.0, 0.5, 3.0], [(0, 2), (3, 5), (6, 8)]).tolist()
    [1.0, 2.0, 1.5]

    In bytes the first of these two characters weighs two, the second one:

    >>> attribute([(0, 2)], [3.0], [(0, 1), (1, 2)], text="éa").tolist()
    [2.0, 1.0]
    """
    tokens, units = _spans(token_spans, "token_spans"), _spans(unit_spans, "unit_spans")
    values = np.asarray(token_values, dtype=np.float64).reshape(-1)
    if len(values) != len(tokens):
        raise DataError(f"attribute: {len(tokens)} token spans but {len(values)} values; give one value a token.")
    if text is not None:
        tokens, units = byte_spans(text, tokens), byte_spans(text, units)
    if not len(units):
        if len(values):
            raise DataError(f"attribute: {len(values)} token values but no unit to attribute them to.")
        return np.zeros(0)
    wide = np.flatnonzero(units[:, 1] > units[:, 0])
    if not len(wide):
        wide = np.arange(len(units))
    order = wide[np.lexsort((units[wide, 1], units[wide, 0]))]
    starts, ends = units[order, 0], units[order, 1]
    clash = np.flatnonzero(starts[1:] < ends[:-1])
    if len(clash):
        i, j = order[clash[0]], order[clash[0] + 1]
        raise DataError(f"attribute: units {i} {tuple(units[i])} and {j} {tuple(units[j])} overlap; they must not.")
    # Units that overlap token [a, b) are first..last-1 in sorted order.
    first = np.searchsorted(ends, tokens[:, 0], side="right")
    last = np.searchsorted(starts, tokens[:, 1], side="left")
    alone = (last <= first) | (tokens[:, 0] == tokens[:, 1]) | (starts[0] == ends[0])
    first[alone] = np.minimum(first[alone], len(order) - 1)
    count = np.where(alone, 1, last - first)
    owner = np.repeat(np.arange(len(tokens)), count)
    target = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    overlap = np.minimum(tokens[owner, 1], ends[target]) - np.maximum(tokens[owner, 0], starts[target])
    weight = np.where(alone[owner], 1, overlap).astype(np.float64)
    share = weight / np.bincount(owner, weight, minlength=len(tokens))[owner]
    result = np.zeros(len(units))
    result[order] = np.bincount(target, values[owner] * share, minlength=len(order))
    return result


def byte_offsets(text: str) -> np.ndarray:
    """Return the byte position of every character boundary: int64, ``len(text) + 1`` values, last = bytes.

    >>> byte_offsets("aé日").tolist()
    [0, 1, 3, 6]
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    width = 1 + (codes > 0x7F).astype(np.int64) + (codes > 0x7FF) + (codes > 0xFFFF)
    return np.concatenate([[0], np.cumsum(width)])


def byte_spans(text: str, spans: ArrayLike) -> np.ndarray:
    """Return character spans of `text` as spans of its UTF-8 bytes, (n, 2) int64.

    Raises DataError when a span ends outside the text.

    >>> byte_spans("é a", [(0, 1), (2, 3)]).tolist()
    [[0, 2], [3, 4]]
    """
    spans = _spans(spans, "spans")
    if len(spans) and (spans.min() < 0 or spans.max() > len(text)):
        raise DataError(f"span {spans.min()}..{spans.max()} lies outside the text of {len(text)} characters.")
    return byte_offsets(text)[spans]


def token_byte_spans(tokenizer: Any, text: str, ids: ArrayLike, offsets: ArrayLike) -> np.ndarray:
    """Return the exact UTF-8 byte span of every token, (n, 2) int64.

    Character offsets cannot say which part of a character belongs to which token when a byte-level tokenizer
    (or the byte fallback of SentencePiece) cuts a character. Where consecutive tokens share a character, the
    tokens' own bytes are counted: one byte per symbol of a byte-level token, one byte for ``<0xNN>``. Should
    they not add up (a normaliser rewrote the text), the shared bytes are divided evenly.

    Parameters: a fast tokenizer, the text, its token ids (n,), their character offsets (n, 2).
    """
    offsets = _spans(offsets, "offsets")
    spans = byte_spans(text, offsets)
    if len(offsets) < 2:
        return spans
    reach = np.maximum.accumulate(offsets[:, 1])
    shared = np.flatnonzero(offsets[1:, 0] < reach[:-1])  # token k+1 starts inside what is covered so far
    if not len(shared):
        return spans
    names = tokenizer.convert_ids_to_tokens([int(i) for i in np.asarray(ids)])
    symbols = byte_symbols() if _is_byte_level(tokenizer) else frozenset()
    groups = np.split(shared, np.flatnonzero(np.diff(shared) > 1) + 1)
    for group in groups:
        chain = np.arange(group[0], group[-1] + 2)
        low, high = spans[chain[0], 0], spans[chain, 1].max()
        width = np.array([_token_bytes(names[k], symbols, spans[k]) for k in chain], dtype=np.float64)
        if width.sum() != high - low:
            width = np.full(len(chain), (high - low) / len(chain))
        edges = np.rint(low + np.concatenate([[0], np.cumsum(width)])).astype(np.int64)
        spans[chain, 0], spans[chain, 1] = edges[:-1], edges[1:]
    return spans


def tokenize(tokenizer: Any, texts: list[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return token ids and character offsets of every text, without special tokens.

    Text is data: a special token spelt out in it (``<|endoftext|>``) is read as characters, not as a command.
    Raises ModelError for a tokenizer that cannot say which characters a token covers.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            f"{type(tokenizer).__name__} gives no character offsets (it is not a 'fast' tokenizer); surprisal "
            "cannot be attributed to text. Use a model whose tokenizer has a tokenizer.json."
        )
    if not texts:
        return [], []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        truncation=False,
        padding=False,
        verbose=False,
        split_special_tokens=True,
    )
    ids = [np.asarray(i, dtype=np.int64) for i in encoded["input_ids"]]
    return ids, [np.asarray(o, dtype=np.int64).reshape(-1, 2) for o in encoded["offset_mapping"]]


@cache
def byte_symbols() -> frozenset[str]:
    """Return the 256 characters in which byte-level tokenizers write bytes.

    >>> len(byte_symbols()), "Ġ" in byte_symbols()
    (256, True)
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return frozenset(map(chr, plain)) | frozenset(chr(256 + k) for k in range(256 - len(plain)))


def _is_byte_level(tokenizer: Any) -> bool:
    return "ByteLevel" in repr(getattr(tokenizer.backend_tokenizer, "decoder", None))


def _token_bytes(name: str, symbols: frozenset[str], span: np.ndarray) -> int:
    if symbols and set(name) <= symbols:
        return len(name)
    return 1 if _BYTE_TOKEN.fullmatch(name) else int(span[1] - span[0])


def _spans(spans: ArrayLike, what: str) -> np.ndarray:
    array = np.asarray(spans)
    if array.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise DataError(f"{what}: expected integer pairs (start, end), found shape {array.shape} {array.dtype}.")
    wrong = np.flatnonzero(array[:, 1] < array[:, 0])
    if len(wrong):
        raise DataError(f"{what}: row {wrong[0]} ends before it starts: {tuple(array[wrong[0]].tolist())}.")
    return array.astype(np.int64)
