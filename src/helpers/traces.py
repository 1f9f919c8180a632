"""What questions do inside a causal language model: activation and attention traces, and their similarity.

A *trace* of a benchmark in a model is, for each question, the mean hidden state of every layer over the first
tokens of the question, and a few numbers for every attention head. Traces of two benchmarks are compared
with the measures of ``helpers.geometry``.

Choices that make traces of different benchmarks comparable (measured reasons in the book):

- every text starts with the same beginning-of-sequence token, and that position never enters a mean: it
  carries the largest activations of the model and no information about the question;
- only the first `tokens` tokens are read, so that long questions are not alike because they are long. In a
  causal model the states of the first tokens do not depend on what follows, so cutting the text there is
  exact, and fast;
- attention is described by shares and distances inside that window.

Sums run inside forward hooks: what is kept is one vector a question and layer, never the states of all
tokens, and an attention matrix lives only until its layer's hook has reduced it.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from helpers import alignment, geometry, inference, provenance
from helpers.errors import DataError, ModelError, StaleArtifactError
from helpers.geometry import Comparison
from helpers.perplexity import trunk_and_head

STATISTICS = ("entropy", "distance", "first", "question", "choices")
PROFILE = ("entropy", "distance", "first")
VERSION = 1  # of the stored form: part of every key, so that a change of meaning makes old files stale


@dataclass(frozen=True)
class Traces:
    """Traces of one benchmark's questions in one model.

    Attributes
    ----------
    question_id : names of the n questions, in the order of the rows.
    states : (n, layers + 1, hidden) float16, mean hidden state over the window divided by `scale`; index 0
        is the embedding layer, the last index comes after the final norm. Use :meth:`vectors` to read them.
    scale : (layers + 1,) float32; float16 cannot hold the largest states of some models.
    attention : (n, layers, heads, 5) float32, the means over the window's tokens of :data:`STATISTICS`; NaN
        where not measured. "first": mass on the beginning-of-sequence token. "entropy" (nats) and
        "distance" (tokens): of the remaining attention, renormalised. "choices": mass on the answer
        choices, NaN when they are not in the window; "question": mass on everything else but the first
        token.
    length : (n,) int32, tokens of the whole text; `window`: (n,) int32, tokens read.
    token_mean, token_variance : (layers + 1, hidden) float32 over all tokens read; `token_count` of them.
    settings : how they were made.
    """

    model: str
    benchmark: str
    question_id: tuple[str, ...]
    states: np.ndarray
    scale: np.ndarray
    attention: np.ndarray
    length: np.ndarray
    window: np.ndarray
    token_mean: np.ndarray
    token_variance: np.ndarray
    token_count: int
    settings: dict

    @property
    def layers(self) -> int:
        """Number of layers, the embedding layer not counted."""
        return self.states.shape[1] - 1

    def vectors(self, layer: int) -> np.ndarray:
        """Return (n, hidden) float32 mean states of one layer, in the model's own units."""
        return self.states[:, layer].astype(np.float32) * self.scale[layer]

    def profile(self, layers: slice | None = None) -> np.ndarray:
        """Return (n, layers * heads * 3) float32: entropy, distance and first-token mass of every head."""
        chosen = [STATISTICS.index(s) for s in PROFILE]
        part = self.attention[:, layers or slice(None)][..., chosen]
        return part.reshape(len(part), -1)

    def save(self, path: Path | str) -> Path:
        """Write the traces as safetensors, atomically; settings and origin travel inside the file."""
        tensors = {
            f.name: np.ascontiguousarray(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if isinstance(getattr(self, f.name), np.ndarray)
        }
        meta = {
            "model": self.model, "benchmark": self.benchmark, "question_id": json.dumps(self.question_id),
            "token_count": str(self.token_count), "settings": json.dumps(self.settings, sort_keys=True),
            "versions": json.dumps(provenance.versions(("numpy", "torch", "transformers"))),
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }  # fmt: skip
        return provenance.write_atomic(path, lambda t: save_file(tensors, t, meta))

    @classmethod
    def load(cls, path: Path | str) -> Traces:
        """Read traces that :meth:`save` wrote; StaleArtifactError when the file is damaged."""
        try:
            with safe_open(path, framework="numpy") as stored:
                meta = stored.metadata()
                tensors = {k: stored.get_tensor(k) for k in stored.keys()}
            return cls(
                model=meta["model"], benchmark=meta["benchmark"],
                question_id=tuple(json.loads(meta["question_id"])), token_count=int(meta["token_count"]),
                settings=json.loads(meta["settings"]), **tensors,
            )  # fmt: skip
        except FileNotFoundError:
            raise
        except Exception as error:
            raise StaleArtifactError(
                f"{Path(path).name}: not a readable trace file ({type(error).__name__}: {error}); delete it."
            ) from error


def use_attention(model) -> str:
    """Make the model return attention weights and return the name of the implementation it had before.

    Fused implementations (flash, SDPA) never form the weights. Raises ModelError when the model cannot
    switch.
    """
    before = getattr(model.config, "_attn_implementation", None) or "eager"
    if before != "eager":
        try:
            model.set_attn_implementation("eager")
        except (ValueError, AttributeError, NotImplementedError) as error:
            raise ModelError(
                f"{type(model).__name__} uses '{before}' attention and cannot switch to 'eager' ({error}); "
                "load it with attn_implementation='eager', or collect with attention=False."
            ) from None
    return before


def random_twin(model, seed: int = 0):
    """Return an untrained model of the same architecture, weights drawn by `seed`: the control of traces."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        twin = type(model)(copy.deepcopy(model.config))
    return twin.to(dtype=model.dtype).eval()


def _blocks(trunk) -> torch.nn.ModuleList:
    """Find the stack of layers: the module list as long as the configuration says."""
    count = trunk.config.num_hidden_layers
    lists = [m for m in trunk.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count]
    if not lists:
        raise ModelError(
            f"{type(trunk).__name__}: no list of {count} layers found; this architecture is not supported."
        )
    return lists[0]


def _attention_module(block) -> torch.nn.Module:
    for module in block.modules():
        if type(module).__name__.endswith("Attention"):
            return module
    raise ModelError(f"{type(block).__name__} has no attention module: collect with attention=False.")


class _Reducer:
    """Forward hooks that turn hidden states and attention weights into per-question numbers at once."""

    def __init__(self, trunk, attention: bool):
        self.blocks = _blocks(trunk)
        self.states: list[torch.Tensor] = []
        self.heads: list[torch.Tensor] = []
        self.sums: list[list[torch.Tensor]] = []
        self.handles = [block.register_forward_pre_hook(self._on_state, with_kwargs=True) for block in self.blocks]
        if attention:
            self.handles += [_attention_module(b).register_forward_hook(self._on_attention) for b in self.blocks]

    def start(self, mask: torch.Tensor, choices: torch.Tensor) -> None:
        """Begin a batch; `mask` (b, t): positions that count; `choices` (b, t): those of answer choices."""
        self.mask, self.choices = mask, choices
        self.count = mask.sum(1)
        self.states, self.heads, self.sums = [], [], []

    def add_state(self, hidden: torch.Tensor) -> None:
        weighted = hidden.float() * self.mask[..., None]
        self.states.append(weighted.sum(1) / self.count[:, None])
        total = weighted.sum((0, 1))
        around = (hidden.float() - total / self.count.sum()) * self.mask[..., None]
        self.sums.append([total.double(), (around**2).sum((0, 1)).double()])

    def _on_state(self, module, args, kwargs) -> None:
        self.add_state(args[0] if args else kwargs["hidden_states"])

    def _on_attention(self, module, args, output) -> None:
        weights = next(
            (o for o in (output if isinstance(output, tuple) else ()) if isinstance(o, torch.Tensor) and o.dim() == 4),
            None,
        )
        if weights is None:
            raise ModelError(
                f"{type(module).__name__} returned no attention weights (a fused implementation?); load the model with "
                "attn_implementation='eager', or collect with attention=False."
            )
        self.heads.append(attention_statistics(weights.float(), self.mask, self.choices))

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()


def attention_statistics(weights: torch.Tensor, mask: torch.Tensor, choices: torch.Tensor) -> torch.Tensor:
    """Return (b, heads, 5) float32: :data:`STATISTICS` averaged over the query positions in `mask`.

    Parameters
    ----------
    weights : (b, heads, t, t) attention of query (third axis) on key (last axis); rows sum to one.
    mask : (b, t) positions of the window; position 0 is the first token and not in it.
    choices : (b, t) positions of answer choices; a row without any gives NaN for "choices".
    """
    queries = mask.float()[:, None]  # (b, 1, t)
    count = queries.sum(-1)
    first, rest = weights[..., 0], weights[..., 1:]
    # sums over the unnormalised rest: one temporary of the size of the weights instead of four
    mass = rest.sum(-1)
    shared = mass.clamp_min(1e-12)
    entropy = torch.where(mass > 1e-12, torch.special.entr(rest).sum(-1) / shared + shared.log(), 0.0)
    position = torch.arange(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    distance = position - rest @ position[1:] / shared
    on_choices = (weights @ choices.to(weights.dtype)[:, None, :, None]).squeeze(-1)
    result = torch.stack([entropy, distance, first, 1 - first - on_choices, on_choices], -1)
    mean = (result * queries[..., None]).sum(2) / count[..., None]
    mean[~choices.bool().any(1), :, -1] = float("nan")
    return mean


def choice_spans(text: str, choices: Sequence[str]) -> list[tuple[int, int]]:
    """Return the character spans of the answer choices in a text, [] unless every choice is found.

    A choice is looked for from the end of the text (a question may quote its own options), as a whole word;
    choices that are single letters are taken to name the lines or parts that begin with ``A.``, ``A)`` or
    ``A:``.

    >>> choice_spans("quiz [[ red / blue ]] sky =>", ["red", "blue"])
    [(8, 11), (14, 18)]
    >>> choice_spans("sky?", ["red", "blue"])
    []
    """
    spans = []
    letters = len(choices) > 1 and all(len(c.strip()) == 1 and c.strip().isalpha() for c in choices)
    for choice in choices:
        bare = choice.strip()
        if letters:
            found = list(re.finditer(rf"(?:^|\s){bare}[.):]\s*(\S[^\n]*)", text))
        else:
            found = list(re.finditer(rf"(?<!\w){re.escape(bare)}(?!\w)", text)) if bare else []
        if not found:
            return []
        spans.append(found[-1].span(1) if letters else found[-1].span())
    return spans


def _prepare(tokenizer, texts: Sequence[str], choices, tokens: int | None, limit: int, first: int):
    """Tokenise: ids (first token included, cut to the window), choice positions, and whole lengths."""
    coded = alignment.tokenize(tokenizer, list(texts))
    rows, marks, lengths = [], [], []
    keep = limit - 1 if tokens is None else min(tokens, limit - 1)
    for text, own, ids, offsets in zip(texts, choices, *coded):
        spans = choice_spans(text, own) if len(own) else []
        mark = [any(s < b and a < e for s, e in spans) for a, b in offsets]
        rows.append([first, *ids[:keep]])
        marks.append([False, *mark[:keep]])
        lengths.append(len(ids))
    return rows, marks, np.array(lengths, dtype=np.int32)


def collect(
    model,
    tokenizer,
    questions: pd.DataFrame,
    *,
    tokens: int | None = 32,
    attention: bool = True,
    batch_tokens: int = 2048,
    model_name: str = "model",
    benchmark: str | None = None,
    first_token: int | None = None,
) -> Traces:
    """Collect the traces of one benchmark's questions in one pass.

    Parameters
    ----------
    model, tokenizer : a causal language model and its fast tokenizer (character offsets are needed).
    questions : `text` (non-empty), and if present `question_id` and `choices`.
    tokens : length of the window after the first token; None reads whole texts up to the model's context.
    attention : also reduce attention; the model is switched to eager attention, its former implementation is
        noted in ``settings["attention_before"]`` and restored afterwards.
    batch_tokens : padded tokens a batch; bounds memory.
    first_token : id of the token that starts every text; default: the tokenizer's beginning-of-sequence
        token, else its end-of-sequence token.

    Returns
    -------
    Traces. A question longer than the window is cut there (``length`` > ``window`` shows it).

    Raises
    ------
    DataError : an empty text, with its row. ModelError : no first token, no attention weights, no fast
        tokenizer, states that are not finite.

    Notes
    -----
    Means are taken in float32 whatever the model's precision. Token moments are combined over batches by the
    update of Chan, Golub and LeVeque (1979), in float64.
    """
    texts = list(questions["text"])
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"'{benchmark}', question {row} ({text!r}) is empty; leave it out first.")
    if not texts:
        raise DataError(f"'{benchmark}' has no questions.")
    known = (first_token, tokenizer.bos_token_id, tokenizer.eos_token_id)
    first = next((t for t in known if t is not None), None)
    if first is None:
        raise ModelError("the tokenizer has neither a beginning- nor an end-of-sequence token to start texts with.")
    choices = list(questions["choices"]) if "choices" in questions else [[]] * len(texts)
    limit = int(getattr(model.config, "max_position_embeddings", None) or 4096)
    rows, marks, lengths = _prepare(tokenizer, texts, choices, tokens, limit, first)
    window = np.array([len(r) - 1 for r in rows], dtype=np.int32)
    known, largest = model.get_input_embeddings().weight.shape[0], max(map(max, rows))
    if largest >= known:
        raise ModelError(
            f"{model_name}: '{benchmark}' gives token number {largest:,}, the model's embedding has {known:,} rows; tokenizer and "
            "weights do not belong together."
        )
    if (window == 0).any():
        raise DataError(f"'{benchmark}', question {int(np.argmin(window))}: the tokenizer makes no token of its text.")
    trunk, _ = trunk_and_head(model, model_name)
    before = use_attention(model) if attention else None
    reducer = _Reducer(trunk, attention)
    count, layers, width = len(rows), len(reducer.blocks), model.config.hidden_size
    states = np.empty((count, layers + 1, width), dtype=np.float32)
    heads = np.full((count, layers, model.config.num_attention_heads, len(STATISTICS)), np.nan, np.float32)
    total, mean = 0, np.zeros((layers + 1, width))
    spread = np.zeros((layers + 1, width))
    was_training = model.training
    model.eval()
    try:
        order = np.argsort(window, kind="stable")
        for batch in _split(order, window + 1, batch_tokens):
            size = int(window[batch].max()) + 1
            ids, marked, mask = (torch.zeros((len(batch), size), dtype=torch.long) for _ in range(3))
            for i, index in enumerate(batch):
                ids[i, : len(rows[index])] = torch.tensor(rows[index])
                marked[i, : len(rows[index])] = torch.tensor(marks[index])
                mask[i, : len(rows[index])] = 1
            inside = mask.clone()
            inside[:, 0] = 0
            with torch.inference_mode():
                ids, mask, inside, marked = (x.to(model.device) for x in (ids, mask, inside, marked))
                reducer.start(inside, marked)
                out = trunk(input_ids=ids, attention_mask=mask, use_cache=False)
                reducer.add_state(out.last_hidden_state)
            states[batch] = torch.stack(reducer.states, 1).cpu().numpy()
            if attention:
                heads[batch] = torch.stack(reducer.heads, 1).cpu().numpy()
            added = int(inside.sum())
            own = np.stack([s[0].cpu().numpy() for s in reducer.sums]) / added
            squares = np.stack([s[1].cpu().numpy() for s in reducer.sums])
            shift = own - mean
            spread += squares + shift**2 * total * added / (total + added)
            mean += shift * added / (total + added)
            total += added
    finally:
        reducer.close()
        model.train(was_training)
        if before not in (None, "eager"):
            model.set_attn_implementation(before)
    if not np.isfinite(states).all():
        where = np.argwhere(~np.isfinite(states))[0]
        raise ModelError(
            f"'{benchmark}', question {where[0]}: states of layer {where[1]} are not finite in {model_name}."
        )
    scale = np.maximum(np.abs(states).max((0, 2)) / 2.0**10, 1e-12).astype(np.float32)
    ids = questions["question_id"] if "question_id" in questions else range(count)
    return Traces(
        model=model_name,
        benchmark=benchmark or "",
        question_id=tuple(str(i) for i in ids),
        states=(states / scale[:, None]).astype(np.float16),
        scale=scale,
        attention=heads,
        length=lengths,
        window=window,
        token_mean=mean.astype(np.float32),
        token_variance=(spread / max(total - 1, 1)).astype(np.float32),
        token_count=total,
        settings={
            "tokens": tokens, "attention": attention, "attention_before": before, "first_token": int(first),
            "dtype": str(model.dtype).removeprefix("torch."), "version": VERSION,
        },
    )  # fmt: skip


def _split(order: np.ndarray, lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Cut indices sorted by length into batches whose padded size stays within `batch_tokens`."""
    batches, start = [], 0
    for stop in range(1, len(order) + 1):
        if stop == len(order) or (stop - start + 1) * lengths[order[stop]] > batch_tokens:
            batches.append(order[start:stop])
            start = stop
    return batches


def file_name(name: str) -> str:
    """Return a file name for a model or benchmark name: letters, digits, dot, dash; a digest keeps it unique.

    >>> file_name("MMLU: law / 5-shot")
    'MMLU-law-5-shot-5fd8e153'
    """
    plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "x"
    return plain if plain == name else f"{plain}-{provenance.content_key(name)[:8]}"


def collect_all(
    load: Callable[[], tuple],
    model_name: str,
    questions: pd.DataFrame,
    folder: Path | str | None = None,
    *,
    identity: str = "",
    tokens: int | None = 32,
    attention: bool = True,
    batch_tokens: int = 2048,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Traces]:
    """Collect the traces of all benchmarks in one model, one file a benchmark, resuming where a run stopped.

    Parameters
    ----------
    load : returns (model, tokenizer); called only when a file is missing or was made from something else.
    questions : `benchmark`, `text`, and if present `question_id`, `choices`.
    folder : files go to ``<folder>/<model>/<benchmark>.safetensors``; None keeps nothing.
    identity : whatever else identifies the model (revision, checksum); part of every file's key.

    Returns
    -------
    dict from benchmark to Traces. A file whose texts, settings or model changed is made again; a damaged
    file too.
    """
    result, loaded = {}, None
    for name, group in questions.groupby("benchmark", sort=False):
        name = str(name)
        choices = [list(map(str, c)) for c in group["choices"]] if "choices" in group else None
        key = provenance.content_key(VERSION, model_name, identity, list(group["text"]), choices, tokens, attention)
        path = None if folder is None else Path(folder) / file_name(model_name) / f"{file_name(name)}.safetensors"
        if path is not None and path.exists():
            try:
                stored = Traces.load(path)
            except StaleArtifactError:
                stored = None
            if stored is not None and stored.settings.get("key") == key:
                result[name] = stored
                continue
        loaded = loaded or load()
        began = time.perf_counter()
        traces = collect(
            *loaded, group, tokens=tokens, attention=attention, batch_tokens=batch_tokens,
            model_name=model_name, benchmark=name,
        )  # fmt: skip
        traces.settings.update(key=key, seconds=round(time.perf_counter() - began, 2))
        if path is not None:
            traces.save(path)
        result[name] = traces
        if progress:
            progress(f"{model_name}: {name} ({len(result)} of {questions['benchmark'].nunique()})")
    return result


def layer_units(traces: Mapping[str, Traces]) -> np.ndarray:
    """Return (layers + 1,) float32: root mean square deviation of each layer from its centre."""
    _same_model(traces)
    units = []
    for layer in range(next(iter(traces.values())).layers + 1):
        own = [t.vectors(layer) for t in traces.values()]
        center = np.mean([v.mean(0) for v in own], axis=0)
        units.append(np.sqrt(np.mean([np.mean((v - center) ** 2) for v in own])))
    return np.maximum(np.array(units, dtype=np.float32), 1e-12)


def spaces(
    traces: Mapping[str, Traces], layer: int | str = "mean", units: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return (n, hidden) vectors by benchmark: one layer's mean states, or the mean over layers.

    For "mean", each layer (the embedding layer left out) is divided by its unit (:func:`layer_units`, or
    given), so that late layers with large states do not drown the early ones.
    """
    _same_model(traces)
    if layer != "mean":
        return {name: t.vectors(int(layer)) for name, t in traces.items()}
    units = layer_units(traces) if units is None else units
    depth = len(units) - 1
    return {
        name: sum(t.vectors(index) / (units[index] * depth) for index in range(1, depth + 1))
        for name, t in traces.items()
    }


def _same_model(traces: Mapping[str, Traces]) -> None:
    if not traces:
        raise DataError("no traces given.")
    known = {(t.model, t.states.shape[1:], t.settings.get("tokens")) for t in traces.values()}
    if len(known) > 1:
        shown = sorted(map(str, known))[:3]
        raise DataError(f"traces of different models or windows cannot be compared: {shown}")


def profiles(traces: Mapping[str, Traces]) -> dict[str, np.ndarray]:
    """Return (n, layers * heads * 3) attention profiles by benchmark: see :meth:`Traces.profile`."""
    _same_model(traces)
    missing = [n for n, t in traces.items() if not np.isfinite(t.profile()).all()]
    if missing:
        raise DataError(f"'{missing[0]}' has no attention statistics; collect it with attention=True.")
    return {name: t.profile() for name, t in traces.items()}


def similarity(
    traces: Mapping[str, Traces] | Mapping[str, Mapping[str, Traces]],
    kind: str = "activation",
    measure: str | None = None,
    *,
    layer: int | str = "mean",
    bootstraps: int = 200,
    splits: int = 50,
    seed: int = 0,
) -> Comparison:
    """Compare benchmarks by their traces in one model, or in several models with the matrices averaged.

    Parameters
    ----------
    traces : maps benchmark to Traces, or model to such a mapping (same benchmarks, same questions).
    kind : "activation" (mean states) or "attention" (profile of every head).
    measure : see ``helpers.geometry.compare``; default "whitened" for activations, "zscored" for attention
        (the profile has more numbers than there are questions).
    layer : a layer's index (0: embedding layer) or "mean", for activations.

    Returns
    -------
    Comparison; benchmarks with fewer than 4 questions, or missing in a model, stand in `excluded`.
    """
    first = next(iter(traces.values()), None)
    models = {"model": traces} if isinstance(first, Traces) else dict(traces)
    if not models or not all(models.values()):
        raise DataError("no traces given.")
    if kind not in ("activation", "attention"):
        raise ValueError(f"kind is 'activation' or 'attention', not '{kind}'")
    measure = measure or ("whitened" if kind == "activation" else "zscored")
    excluded, kept = [], []
    for name in dict.fromkeys(n for own in models.values() for n in own):
        absent = [m for m, own in models.items() if name not in own]
        counts = {len(own[name].states) for own in models.values() if name in own}
        if absent:
            excluded.append((name, f"no traces in {absent[0]}"))
        elif len(counts) > 1:
            raise DataError(f"'{name}' has {sorted(counts)} questions in different models; use the same.")
        elif min(counts) < geometry.MINIMUM:
            excluded.append((name, f"{min(counts)} question(s); at least {geometry.MINIMUM} are needed"))
        else:
            kept.append(name)
    clouds = []
    for own in models.values():
        own = {n: own[n] for n in kept}
        clouds.append(spaces(own, layer) if kind == "activation" else profiles(own))
    options = {"bootstraps": bootstraps, "splits": splits, "seed": seed}
    result = (
        geometry.compare(clouds[0], measure, **options)
        if len(clouds) == 1
        else geometry.compare_mean(clouds, measure, **options)
    )
    settings = {**result.settings, "kind": kind, "layer": layer, "models": list(models)}
    left_out = pd.DataFrame(excluded, columns=["benchmark", "reason"])
    return dataclasses.replace(result, excluded=left_out, settings=settings)


def debiased_cka(vectors: Sequence[np.ndarray]) -> np.ndarray:
    """Return the (k, k) debiased linear CKA of k representations of the same n questions, each (n, d_k).

    Uses the unbiased estimator of HSIC (Song et al. 2012), so that unrelated representations give 0 on
    average however wide they are; values can be slightly negative. Kornblith et al. (2019); Nguyen et al.
    (2021). Raises DataError for fewer than 4 questions or different numbers of them.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(30, 5))
    >>> np.round(debiased_cka([x, 3 * x @ np.linalg.qr(rng.normal(size=(5, 5)))[0]]), 6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    sizes = {len(v) for v in vectors}
    if len(sizes) != 1 or min(sizes) < 4:
        raise DataError(f"CKA needs at least 4 questions, the same in every model; found {sorted(sizes)}.")
    n = sizes.pop()
    grams = np.stack([np.asarray(v, dtype=np.float64) @ np.asarray(v, dtype=np.float64).T for v in vectors])
    grams[:, np.arange(n), np.arange(n)] = 0
    sums = grams.sum(2)
    totals = sums.sum(1)
    flat = grams.reshape(len(grams), -1)
    hsic = flat @ flat.T + np.outer(totals, totals) / ((n - 1) * (n - 2)) - 2 / (n - 2) * sums @ sums.T
    own = np.sqrt(np.maximum(np.diag(hsic), 1e-30))
    return hsic / np.outer(own, own)


def second_order(
    models: Mapping[str, Mapping[str, Traces]],
    *,
    layer: int | str = "mean",
    bootstraps: int = 100,
    splits: int = 20,
    seed: int = 0,
) -> Comparison:
    """Compare benchmarks by how they arrange the models: second-order similarity analysis.

    For each benchmark, the models are compared with each other on its questions (debiased CKA); two
    benchmarks are alike when they make the same pairs of models alike (Spearman over model pairs). Needs no
    common space between models, but many models: with m models there are m (m - 1) / 2 pairs, of which m
    are independent.

    Returns
    -------
    Comparison with intervals from resampled questions and split-half reliability over questions. Raises
    DataError for fewer than 5 models.
    """
    if len(models) < 5:
        raise DataError(f"second-order similarity needs at least 5 models, found {len(models)}.")
    shared = [n for n in next(iter(models.values())) if all(n in own for own in models.values())]
    clouds = {m: spaces({n: own[n] for n in shared}, layer) for m, own in models.items()}
    rng = np.random.default_rng(seed)

    def matrix(pick: Callable[[int], np.ndarray]) -> np.ndarray:
        rows = []
        for name in shared:
            chosen = pick(len(next(iter(clouds.values()))[name]))
            rows.append(inference.upper(debiased_cka([c[name][chosen] for c in clouds.values()])))
        return inference.spearman(rows)

    value = matrix(np.arange)
    draws = np.stack([matrix(lambda n: rng.choice(n, n)) for _ in range(bootstraps)]) if bootstraps else None
    bounds = (np.full_like(value, np.nan),) * 2
    if bootstraps:
        bounds = inference.interval(draws, estimate=value, fisher=True)
    halves = np.full((max(splits, 1), len(shared)), np.nan)
    sizes = {len(t.states) for t in next(iter(models.values())).values()}
    for split in range(splits):
        orders = {n: rng.permutation(n) for n in sizes}
        first = matrix(lambda n, orders=orders: orders[n][: n // 2])
        second = matrix(lambda n, orders=orders: orders[n][n // 2 :])
        columns = rng.integers(0, len(shared), len(shared))
        halves[split] = geometry.row_correlation(first, second, columns)
    frames = [pd.DataFrame(m, index=shared, columns=shared) for m in (value, *bounds)]
    return Comparison(
        *frames,
        reliability=inference.reliability_table(halves, shared),
        interval="recentred, Fisher z" if bootstraps else "none",
        settings={"measure": "second-order", "layer": layer, "models": list(models), "seed": seed},
    )


def anisotropy(traces: Mapping[str, Traces], top: int = 3) -> pd.DataFrame:
    """Return `layer` and `share` of the squared mean state held by its `top` largest dimensions.

    A share near one means that raw cosines compare little more than those dimensions: centre first.
    """
    _same_model(traces)
    weight = np.array([t.token_count for t in traces.values()], dtype=float)
    mean = np.average([t.token_mean for t in traces.values()], axis=0, weights=weight).astype(np.float64)
    squared = np.sort(mean**2, axis=1)[:, ::-1]
    share = squared[:, :top].sum(1) / np.maximum(squared.sum(1), 1e-30)
    return pd.DataFrame({"layer": np.arange(len(share)), "share": share})


def length_difference(traces: Mapping[str, Traces], whole: bool = True) -> pd.DataFrame:
    """Return the difference of mean log length in tokens, benchmark x benchmark: the length covariate.

    `whole`: of the whole text; else of the part inside the window.
    """
    mean = pd.Series({n: np.log(t.length if whole else t.window).mean() for n, t in traces.items()})
    return pd.DataFrame(np.abs(mean.to_numpy()[:, None] - mean.to_numpy()), mean.index, mean.index)


def agreement(
    models: Mapping[str, Mapping[str, Traces]], kind: str = "activation", *, splits: int = 20, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare models: does one model's map of the benchmarks come back in another, on other questions?

    Returns
    -------
    pairs : `first`, `second` model, `rho` (mean Spearman of the two matrices, each from another half of the
        questions), `ceiling` (from the models' own half-to-half correlations), `disattenuated` (their ratio).
    benchmarks : `benchmark`, `agreement` (Spearman of the benchmark's row between models, mean over pairs of
        models), `low`, `high` (95 % over splits and resampled other benchmarks), `confirmed`: low > 0. A
        trace that no second model confirms is not to be interpreted.
    """
    names = list(models)
    if len(names) < 2:
        raise DataError("agreement needs at least two models.")
    shared = [n for n in models[names[0]] if all(n in models[m] for m in names)]
    default = "whitened" if kind == "activation" else "zscored"
    statistics = []
    for model in names:
        own = {n: models[model][n] for n in shared}
        cloud = spaces(own) if kind == "activation" else profiles(own)
        statistics.append(geometry.CentroidStatistic(cloud, default))
    sizes = np.array([len(models[names[0]][n].states) for n in shared])
    rng = np.random.default_rng(seed)
    cross = np.zeros((splits, len(names), len(names)))
    rows = []
    for split in range(splits):
        first, second = geometry.question_weights(sizes, rng, "halves")
        halves = [(s(first), s(second)) for s in statistics]
        columns = rng.integers(0, len(shared), len(shared))
        for i, own in enumerate(halves):
            for j, other in enumerate(halves):
                cross[split, i, j] = inference.matrix_spearman(own[0], other[1])
                if i < j:
                    rows.append(geometry.row_correlation(own[0], other[1], columns))
    mean = cross.mean(0)
    pairs = []
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            rho, ceiling = (mean[i, j] + mean[j, i]) / 2, float(inference.noise_ceiling(mean[i, i], mean[j, j]))
            pairs.append((names[i], names[j], rho, ceiling, float(inference.disattenuate(rho, mean[i, i], mean[j, j]))))
    every = np.ma.masked_invalid(np.array(rows).reshape(splits, -1, len(shared)))
    per_split = every.mean(1).filled(np.nan)  # NaN: a draw left too few other benchmarks
    low, high = inference.interval(per_split)
    table = pd.DataFrame(
        {
            "benchmark": shared,
            "agreement": np.ma.masked_invalid(per_split).mean(0).filled(np.nan),
            "low": low,
            "high": high,
            "confirmed": low > 0,
        }
    )
    return pd.DataFrame(pairs, columns=["first", "second", "rho", "ceiling", "disattenuated"]), table
