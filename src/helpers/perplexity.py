"""Surprisal of text under a causal language model: exact, batched, and never tokens x vocabulary in memory.

Surprisal is ``-ln P(token | everything before it)`` in nats. Two modes:

``stream``
    The whole document in windows; every token is scored exactly once, with at least half a window of context
    (:func:`token_surprisal`).
``paper``
    Each whitespace piece with up to 30 preceding pieces as context and only its *last* token kept
    (:func:`paper_surprisal`), as the paper describes it.

Start-token rule (:func:`start_token`): every window begins with the token that the tokenizer itself puts first;
if it puts none, with its beginning-of-sequence token; without one, with its end-of-sequence token (which
separates documents in training); without either there is no start token, and the first token of a text has no
surprisal (NaN). Models such as Gemma are far off without it, so it begins *every* window, not only the first.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike

from helpers import alignment
from helpers.errors import DataError, ModelError

# Logits exist a tile at a time, vocabulary entries x rows of text, so that memory does not grow with the vocabulary.
# On a CPU narrow slices of the weights with many rows stay in the cache: the head is a quarter faster than in wide ones.
HEAD_ENTRIES, HEAD_ENTRIES_CUDA = 1280, 32_768
HEAD_TILE, HEAD_TILE_CUDA = 2**20, 2**28
CPU_ACTIVATIONS = 4 * 2**20  # bytes of one feed-forward activation; a larger batch falls out of the cache
PADDING = 0.1  # share of padding at which a batch that is full enough is closed
UNTOLD_CONTEXT = 2048  # window of a model that does not say how long its context is


@dataclasses.dataclass(frozen=True)
class Window:
    """Token ids that go through the model together (start token included) and what is read off.

    `at` are positions within `ids` whose surprisal is kept, `slot` where they go in the values of text `text`.
    """

    text: int
    ids: np.ndarray
    at: np.ndarray
    slot: np.ndarray


def start_token(tokenizer: Any) -> int | None:
    """Return the id that begins every window by the rule in the module's docstring, or None."""
    own = tokenizer("a", add_special_tokens=True, verbose=False)["input_ids"]
    bare = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    if len(own) > len(bare) and own[0] in tokenizer.all_special_ids and own[: len(bare)] != bare:
        return int(own[0])
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return None


def context_length(model: Any) -> int | None:
    """Return the number of positions that the model's configuration allows, or None when it sets no limit."""
    config = _text_config(model)
    for key in ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len", "n_ctx"):
        value = getattr(config, key, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def trunk_and_head(model: Any, name: str = "model") -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return what computes hidden states and what turns them into logits; ModelError where either cannot be told."""
    head, trunk = model.get_output_embeddings(), model.base_model
    if trunk is model:  # a few families (Llama 4) call the attribute otherwise than their base class says
        trunk = getattr(model, "model", model)
    if head is None:
        raise ModelError(f"{name}: {type(model).__name__} has no language-model head; use a causal model.")
    if trunk is model:
        raise ModelError(
            f"{name}: {type(model).__name__} does not say which part computes its hidden states; this model family is not "
            "supported yet."
        )
    return trunk, head


def token_surprisal(
    model: Any,
    tokenizer: Any,
    texts: Sequence[str],
    batch_tokens: int = 8192,
    *,
    window: int | None = None,
    stride: int | None = None,
    names: Sequence[str] | None = None,
    precision: Literal["exact", "fast"] = "exact",
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the surprisal of every token of every text, in nats.

    Windows of similar length share a batch of at most `batch_tokens` positions (padding counted); the trunk
    runs once per batch, the output head in tiles, with a float32 log-sum-exp. Right padding without
    a mask is exact because attention is causal. The order of the texts does not change any value.

    Start-token rule: the token that the tokenizer itself puts first, else its bos, else its eos token begins
    every window; it has no surprisal of its own. Without any of them the first token of a text is NaN.

    Parameters
    ----------
    model, tokenizer : a causal transformers model and its fast tokenizer.
    texts : any number of strings, of any length; special tokens spelt out in them are read as plain text.
    batch_tokens : upper bound of one batch, in positions; halved by itself when memory runs out. On a CPU the
        engine stays below it where a larger batch would fall out of the cache.
    window, stride : positions of a window, start token included (default: the model's context, at most 2048),
        and new tokens per further window (default half a window, which is also the maximum).
    names : what to call the texts in error messages.
    precision : ``"exact"`` multiplies in the model's own number format. ``"fast"`` multiplies the factors of a
        float32 model's matrix products rounded to bfloat16 (TF32 on a GPU) and keeps sums, residual stream,
        norms, softmax and log-sum-exp in float32; :func:`fast_products` says what this device does.

    Returns
    -------
    One pair per text: spans, int64 (n_tokens, 2), start and end of each token in characters of the text; and
    nats, float64 (n_tokens,). An empty text gives two empty arrays.

    Raises
    ------
    ModelError
        The model gives NaN or infinite surprisal (model and text are named), it has no output head, the
        tokenizer gives no offsets, or memory is too small for a single window.
    DataError
        Impossible window or stride.
    """
    ids, offsets = alignment.tokenize(tokenizer, list(texts))
    values = surprisal_of_ids(
        model,
        ids,
        start_token(tokenizer),
        batch_tokens=batch_tokens,
        window=window,
        stride=stride,
        names=names,
        offsets=offsets,
        precision=precision,
    )
    return list(zip(offsets, values))


def surprisal_of_ids(
    model: Any,
    ids: Sequence[np.ndarray],
    start: int | None,
    *,
    batch_tokens: int = 8192,
    window: int | None = None,
    stride: int | None = None,
    names: Sequence[str] | None = None,
    offsets: Sequence[np.ndarray] | None = None,
    precision: Literal["exact", "fast"] = "exact",
) -> list[np.ndarray]:
    """Return the surprisal of every token of texts that are tokenised already; see :func:`token_surprisal`.

    `ids` are int64 arrays without special tokens, `start` the id that begins every window (or None); `names`
    and `offsets` serve error messages only. Returns one float64 array of nats per text.
    """
    scorer = Scorer(model)
    length, stride = window_sizes(model, window, stride)
    windows = [w for t, row in enumerate(ids) for w in stream_windows(t, row, start, length, stride)]
    values = [np.full(len(row), np.nan) for row in ids]
    with _products(precision):
        scorer.fill(windows, values, batch_tokens)
    _check(values, 1 if start is None else 0, scorer.name, names, offsets)
    return values


def fast_products(device: str = "cpu") -> str:
    """Return how ``precision="fast"`` multiplies on this device: ``bfloat16``, ``TF32`` or ``float32`` (no gain).

    A CPU needs AVX-512 or AMX instructions for bfloat16; without them "fast" gives the exact numbers.
    """
    if device.startswith("cuda"):
        return "TF32" if torch.cuda.get_device_capability(device)[0] >= 8 else "float32"
    return "bfloat16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"


@contextlib.contextmanager
def _products(precision: str) -> Iterator[None]:
    if precision not in ("exact", "fast"):
        raise DataError(f"precision: '{precision}'; give 'exact' or 'fast'.")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if precision == "fast" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def window_sizes(model: Any, window: int | None, stride: int | None) -> tuple[int, int]:
    """Return window and stride in positions, checked against each other and against the model's context."""
    limit = context_length(model)
    name = getattr(model, "name_or_path", "") or type(model).__name__
    if limit == 1:
        raise ModelError(f"{name}: its config.json allows one position; a token and one before it are needed.")
    if window is None:
        window = min(limit or UNTOLD_CONTEXT, UNTOLD_CONTEXT)
    if window < 2 or (limit and window > limit):
        raise DataError(f"window: {window} positions, but the model {name} allows 2 to {limit or 'any number'}.")
    stride = window // 2 if stride is None else stride
    if not 1 <= stride <= window // 2:
        raise DataError(f"stride: {stride}; give 1 to {window // 2}, so that half a window of context remains.")
    return window, stride


def stream_windows(text: int, ids: np.ndarray, start: int | None, window: int, stride: int) -> Iterator[Window]:
    """Yield the windows of one tokenised text: every token scored once, at least half a window of context.

    >>> [(w.ids.tolist(), w.slot.tolist()) for w in stream_windows(0, np.arange(1, 8), 0, 4, 2)]
    [([0, 1, 2, 3], [0, 1, 2]), ([0, 3, 4, 5], [3, 4]), ([0, 5, 6, 7], [5, 6])]
    """
    lead = np.array([] if start is None else [start], dtype=np.int64)
    room = window - len(lead)
    first = 0 if len(lead) else 1  # without a start token nothing predicts the first token
    done = min(room, len(ids))
    if done > first:
        slot = np.arange(first, done)
        yield Window(text, np.concatenate([lead, ids[:done]]), slot + len(lead), slot)
    while done < len(ids):
        end = min(done + stride, len(ids))
        low = done + stride - room
        slot = np.arange(done, end)
        yield Window(text, np.concatenate([lead, ids[low:end]]), slot - low + len(lead), slot)
        done = end


def paper_surprisal(
    model: Any,
    tokenizer: Any,
    text: str,
    pieces: ArrayLike,
    *,
    context_pieces: int = 30,
    batch_tokens: int = 8192,
    name: str | None = None,
    precision: Literal["exact", "fast"] = "exact",
) -> dict[str, np.ndarray]:
    """Return the surprisal of every piece given up to 30 preceding pieces, in nats, as the paper scores them.

    The text from the start of the first context piece to the end of the piece is tokenised on its own. The
    paper keeps the last token only; `whole` sums all tokens of the piece in the same context, so the two
    differ by the last-token rule alone. Windows that are a prefix of another (the first pieces of a document,
    repeated contexts) share one forward pass. Where 30 pieces do not fit the model, the earliest are given up; a piece that
    alone does not fit is read in windows, each token with at least half a window of the piece before it.
    ``exp(last)`` is the paper's perplexity, ``-last`` the log-probability that the released code stores.

    Parameters
    ----------
    pieces : (n, 2) integers, character spans of the pieces in `text`, in order.
    precision : as for :func:`token_surprisal`.

    Returns
    -------
    dict with `last` and `whole`, float64 (n,); `tokens`, int64 (n,), the piece's number of tokens; `context`,
    int64 (n,), the pieces of context it was given.

    Raises ModelError as :func:`token_surprisal` does.
    """
    pieces = np.asarray(pieces, dtype=np.int64).reshape(-1, 2)
    first = np.maximum(np.arange(len(pieces)) - context_pieces, 0)
    begins = pieces[first, 0] if len(pieces) else np.zeros(0, dtype=np.int64)
    ids, offsets = alignment.tokenize(tokenizer, [text[b:e] for b, e in zip(begins, pieces[:, 1])])
    start = start_token(tokenizer)
    lead = np.array([] if start is None else [start], dtype=np.int64)
    room = (context_length(model) or np.inf) - len(lead)
    scorer = Scorer(model)
    windows, values = [], []
    for k in range(len(pieces)):
        while len(ids[k]) > room and first[k] < k:  # too long for the model: give up the earliest pieces of context
            surplus = begins[k] + offsets[k][len(ids[k]) - int(room), 0]
            first[k] = min(k, max(first[k] + 1, np.searchsorted(pieces[:, 0], surplus)))
            begins[k] = pieces[first[k], 0]
            ids[k], offsets[k] = (x[0] for x in alignment.tokenize(tokenizer, [text[begins[k] : pieces[k, 1]]]))
        row, spans = ids[k], offsets[k]
        own = np.flatnonzero(spans[:, 1] > pieces[k, 0] - begins[k])
        own = own if len(own) or not len(row) else np.array([len(row) - 1])
        values.append(np.full(len(own), np.nan))
        if len(row) > room:  # the piece itself
            length = int(room) + len(lead)
            windows += stream_windows(k, row, start, length, length // 2)
            continue
        at = own + len(lead)
        usable = at > 0
        windows.append(Window(k, np.concatenate([lead, row]), at[usable], np.arange(len(own))[usable]))
    with _products(precision):
        scorer.fill(windows, values, batch_tokens)
    _check(values[1 if start is None else 0 :], 0, scorer.name, [name or "the text"] * len(values), None)
    empty = [k for k, v in enumerate(values) if not len(v)]
    if empty:
        raise ModelError(f"{scorer.name}: the tokenizer gives no token for piece {empty[0]} of {name or 'the text'}.")
    return {
        "last": np.array([v[-1] for v in values]),
        "whole": np.array([v.sum() for v in values]),
        "tokens": np.array([len(v) for v in values], dtype=np.int64),
        "context": np.arange(len(pieces)) - first,
    }


def bits_per_byte(nats: ArrayLike, size: ArrayLike) -> np.ndarray:
    """Return surprisal in bits per UTF-8 byte, ``nats / (ln 2 * bytes)``.

    >>> float(bits_per_byte(np.log(2) * 12, 4))
    3.0
    """
    return np.asarray(nats, dtype=np.float64) / (np.log(2) * np.asarray(size, dtype=np.float64))


FORMS = ("surprisal", "perplexity", "log-probability")


def in_form(nats: ArrayLike, form: str) -> np.ndarray:
    """Return surprisal in nats in one of :data:`FORMS`, float64.

    ``perplexity``, ``exp(nats)``, is the paper's word; ``log-probability``, ``-nats``, is what its released code
    stores. All three order units and models alike up to direction; means and least squares differ. What is stored
    is always surprisal. Raises DataError for an unknown form and for perplexities beyond float64.

    >>> in_form([0.0, np.log(2)], "perplexity").tolist(), in_form([1.5], "log-probability").tolist()
    ([1.0, 2.0], [-1.5])
    """
    nats = np.asarray(nats, dtype=np.float64)
    if form not in FORMS:
        raise DataError(f"form: '{form}'; give one of {', '.join(FORMS)}.")
    if form == "perplexity" and nats.size and np.nanmax(nats) > 700:
        raise DataError(f"{np.nanmax(nats):.0f} nats have no perplexity in float64; use the surprisal.")
    return {"surprisal": lambda: nats, "perplexity": lambda: np.exp(nats), "log-probability": lambda: -nats}[form]()


class Scorer:
    """A model taken apart into trunk and output head, so that logits exist only a chunk of rows at a time."""

    def __init__(self, model: Any):
        self.model = model.eval()
        self.name = getattr(model, "name_or_path", "") or type(model).__name__
        self.trunk, self.head = trunk_and_head(model, self.name)
        config = _text_config(model)
        self.cap = getattr(config, "final_logit_softcapping", None)
        # Families write the factor on the logits under different names, some as a divisor.
        self.scale = float(getattr(config, "logit_scale", None) or 1) / float(
            getattr(config, "logits_scaling", None) or 1
        )
        self.device = next(model.parameters()).device
        self.rows = min(e.weight.shape[0] for e in (model.get_input_embeddings(), self.head))
        wide = getattr(config, "intermediate_size", None)
        wide = wide if isinstance(wide, int) and wide else 4 * self.head.weight.shape[1]
        self.room = CPU_ACTIVATIONS // (4 * wide) if self.device.type == "cpu" else None
        self.limit: int | None = None  # positions a batch may hold after memory ran out once
        self.tile = torch.empty(0, dtype=self.head.weight.dtype)  # memory of a CPU's tiles, used again and again
        self._probe()

    def logits(
        self, hidden: torch.Tensor, entries: slice = slice(None), out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return float32 logits (rows, entries) of hidden states (rows, width), for a slice of the vocabulary.

        `out` is memory for the product, in the model's number format; float32 logits then are this memory.
        """
        weight, bias = self.head.weight[entries].t(), getattr(self.head, "bias", None)
        if bias is None:
            logits = torch.mm(hidden, weight, out=out).float()
        else:
            logits = torch.addmm(bias[entries], hidden, weight, out=out).float()
        if self.scale != 1:
            logits *= self.scale
        return logits.div_(self.cap).tanh_().mul_(self.cap) if self.cap else logits

    def _tile(self, rows: int, entries: int) -> torch.Tensor | None:
        """Return memory for one tile; fresh memory for every tile would cost a CPU a tenth of its time."""
        if self.device.type != "cpu":
            return None
        if self.tile.numel() < rows * entries:
            self.tile = torch.empty(rows * entries, dtype=self.head.weight.dtype)
        return self.tile[: rows * entries].view(rows, entries)

    def nats(self, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the surprisal (rows,) of `target` (rows,) given hidden states (rows, width), float32 nats.

        The log-sum-exp runs over slices of the vocabulary with a running maximum, so that no more than one tile of
        logits exists.
        """
        cuda = self.device.type == "cuda"
        size = self.head.weight.shape[0]
        step = min(size, HEAD_ENTRIES_CUDA if cuda else HEAD_ENTRIES)
        parts = []
        for rows, wanted in zip(
            *(x.split(max(1, (HEAD_TILE_CUDA if cuda else HEAD_TILE) // step)) for x in (hidden, target))
        ):
            top = torch.full((len(rows),), -torch.inf, device=self.device)
            total, own = torch.zeros_like(top), torch.zeros_like(top)
            for low in range(0, size, step):
                width = min(step, size - low)
                logits = self.logits(rows, slice(low, low + width), self._tile(len(rows), width))
                at = wanted - low
                inside = (at >= 0) & (at < width)
                picked = logits.gather(1, at.clamp(0, width - 1)[:, None])[:, 0]
                own = torch.where(inside, picked, own)
                high = torch.maximum(top, logits.amax(1))
                total = total * (top - high).exp() + logits.sub_(high[:, None]).exp_().sum(1)
                top = high
            parts.append(total.log() + top - own)
        return torch.cat(parts)

    @torch.inference_mode()
    def _probe(self) -> None:
        """Compare trunk and head with the model's own logits once; a family that does more is refused."""
        if getattr(self.model, "_companion_probed", False):
            return
        size = self.head.weight.shape[0]
        ids = torch.arange(1, 5, device=self.device)[None] % size
        try:
            own = self.model(input_ids=ids, use_cache=False).logits[0].float()
            ours = self.logits(self._hidden(ids)[0])
        except Exception as error:  # a configuration that contradicts itself shows in any line of the model's code
            if _out_of_memory(error):
                raise ModelError(f"{self.name}: not enough memory for four tokens; close other programs.") from None
            raise ModelError(
                f"{self.name}: {type(self.model).__name__} fails on its first four tokens ({type(error).__name__}: {error}); "
                "its config.json contradicts itself, or this version of transformers cannot run it."
            ) from error
        gap = (own - ours).abs().max().item()
        scale = max(1.0, own.abs().max().item())
        if gap > scale * (0.05 if self.head.weight.dtype != torch.float32 else 1e-4):
            raise ModelError(
                f"{self.name}: {type(self.model).__name__} does more between trunk and logits than this program "
                f"knows (largest difference {gap:.3g}); this model family is not supported yet."
            )
        self.model._companion_probed = True

    def _hidden(self, ids: torch.Tensor) -> torch.Tensor:
        return self.trunk(input_ids=ids, use_cache=False).last_hidden_state

    def fill(self, windows: Sequence[Window], values: list[np.ndarray], batch_tokens: int) -> None:
        """Score the windows and write nats into ``values[window.text][window.slot]``."""
        for batch in batches(merge_prefixes(windows), min(batch_tokens, self.room or batch_tokens)):
            self._fill_batch(batch, values)

    def _fill_batch(self, batch: list[tuple[np.ndarray, list[Window]]], values: list[np.ndarray]) -> None:
        width = len(batch[-1][0])
        if len(batch) > 1 and self.limit and width * len(batch) > self.limit:
            return self._split(batch, values)
        try:
            nats, rows = self._score(batch, width)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if len(batch) == 1:
                raise ModelError(
                    f"{self.name}: not enough memory for one window of {width} tokens; choose a shorter window."
                ) from None
            self.limit = max(width, width * len(batch) // 2)
            return self._split(batch, values)
        position = 0
        for row in rows:
            values[row.text][row.slot] = nats[position : position + len(row.slot)]
            position += len(row.slot)
        return None

    def _split(self, batch: list, values: list[np.ndarray]) -> None:
        half = len(batch) // 2
        self._fill_batch(batch[:half], values)
        self._fill_batch(batch[half:], values)

    @torch.inference_mode()
    def _score(self, batch: list[tuple[np.ndarray, list[Window]]], width: int) -> tuple[np.ndarray, list[Window]]:
        grid = np.zeros((len(batch), width), dtype=np.int64)
        where, rows = [], []
        for b, (ids, members) in enumerate(batch):
            grid[b, : len(ids)] = ids
            for window in members:
                where.append(b * width + window.at)
                rows.append(window)
        where = torch.from_numpy(np.concatenate(where)).to(self.device)
        if grid.max() >= self.rows:
            raise ModelError(
                f"{self.name}: the text gives token number {grid.max():,}, the model's embedding has {self.rows:,} rows; "
                "tokenizer and weights do not belong together."
            )
        ids = torch.from_numpy(grid).to(self.device)
        hidden = self._hidden(ids).flatten(0, 1)
        return self.nats(hidden[where - 1], ids.flatten()[where]).double().cpu().numpy(), rows


def merge_prefixes(windows: Sequence[Window]) -> list[tuple[np.ndarray, list[Window]]]:
    """Return the distinct token sequences to compute, each with the windows read off it, shortest first.

    A window whose ids are a prefix of another's is read off that one. The order depends on the ids alone.

    >>> a = Window(0, np.array([1, 2]), np.array([1]), np.array([0]))
    >>> b = Window(1, np.array([1, 2, 3]), np.array([2]), np.array([0]))
    >>> [(ids.tolist(), len(members)) for ids, members in merge_prefixes([a, b])]
    [([1, 2, 3], 2)]
    """
    ordered = sorted((w for w in windows if len(w.at)), key=lambda w: w.ids.astype(">i8").tobytes(), reverse=True)
    merged: list[tuple[np.ndarray, list[Window]]] = []
    for window in ordered:  # a prefix sorts directly after the longest sequence that begins with it
        if merged and np.array_equal(merged[-1][0][: len(window.ids)], window.ids):
            merged[-1][1].append(window)
        else:
            merged.append((window.ids, [window]))
    return sorted(merged, key=lambda item: len(item[0]))


def batches(sequences: Sequence[tuple[np.ndarray, list]], batch_tokens: int) -> Iterator[list]:
    """Yield runs of length-sorted sequences whose padded size stays within `batch_tokens` (at least one).

    A batch that already holds an eighth of the budget is closed before more than a tenth of it would be padding:
    beyond that size a larger batch saves nothing, and padding costs as much as text.
    """
    batch: list = []
    held = 0
    for item in sequences:
        size = len(item[0])
        padded = size * (len(batch) + 1)
        wasteful = 8 * held >= batch_tokens and held + size < (1 - PADDING) * padded
        if batch and (padded > batch_tokens or wasteful):
            yield batch
            batch, held = [], 0
        batch.append(item)
        held += size
    if batch:
        yield batch


def _check(values: list[np.ndarray], skip: int, model: str, names: Sequence[str] | None, offsets: Any) -> None:
    for k, row in enumerate(values):
        bad = np.flatnonzero(~np.isfinite(row[skip:]))
        if len(bad):
            token = int(bad[0]) + skip
            what = names[k] if names is not None else f"text {k}"
            where = f" (characters {offsets[k][token][0]} to {offsets[k][token][1]})" if offsets is not None else ""
            raise ModelError(
                f"model {model} gives surprisal {row[token]} for token {token} of {what}{where}; {len(bad)} of "
                f"{len(row)} values are not finite. The weights are damaged or the number format is too narrow: "
                "load the model again, or in float32."
            )


def _out_of_memory(error: BaseException) -> bool:
    said = str(error).lower()
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "out of memory" in said or "can't allocate" in said
    )


def _text_config(model: Any) -> Any:
    config = model.config
    return config.get_text_config() if hasattr(config, "get_text_config") else config
