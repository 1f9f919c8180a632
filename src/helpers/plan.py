"""What a study's extraction would download, compute and store, before it starts: ``make plan STUDY=paper``.

Nothing is downloaded. Access to every model and data set is checked first, so that a missing licence or a wrong
name shows now and not after a night. Time is estimated from the multiply-add rate that the engine reaches on this machine
on a random model, measured in a few seconds.
"""

from __future__ import annotations

import argparse
import fnmatch
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import pandas as pd

from helpers import errors, preparation, studies

# Sizes of streamed corpora as their data-set cards state them (documents, tokens). Written down without the hub
# at hand and never counted here, so every output calls them estimates.
CORPORA = {"togethercomputer/RedPajama-Data-1T-Sample": (930_514, 1.0e9)}
TOKENS_PER_PIECE = 1.35  # English web text, subword tokenizers of 32k to 256k entries
DEAR = 5  # times the price of mode stream at which the plan says so
BYTES_PER_UNIT = 4 * 0.93  # float32, as zstd leaves it


def passes(settings: studies.Extraction) -> float:
    """Return how many positions go through the model for each token of text.

    ``stream``: a window of w with s new positions costs w/s. ``paper``: each piece carries its context along.

    >>> passes(studies.Extraction(mode="stream", window=64, stride=32))
    2.0
    >>> passes(studies.Extraction(mode="paper", context_pieces=30))
    31.0
    """
    if settings.mode == "stream":
        return settings.window / settings.stride
    return float(settings.context_pieces + 1)


def corpus_size(study: studies.Study) -> tuple[float, float, str]:
    """Return (documents, tokens, how that is known) of a study's sample."""
    if study.corpus.kind == "hub":
        documents = tokens = 0.0
        for source in study.corpus.sources:
            name = source.partition(":")[0]
            if name not in CORPORA:
                return float("nan"), float("nan"), f"the size of {name} is not known here"
            documents += CORPORA[name][0]
            tokens += CORPORA[name][1]
        share = min(1.0, (study.corpus.max_documents or documents) / documents)
        return (
            documents * share,
            tokens * share,
            f"{share:.1%} of the data set; estimate after its data-set card",
        )
    if study.corpus.kind in ("files", "packages"):
        from helpers import corpora

        table, _ = corpora.load(study.corpus, study.seed)
        pieces = table["text"].str.split().str.len().sum()
        return float(len(table)), float(pieces * TOKENS_PER_PIECE), "counted in pieces, 1.35 tokens each"
    return float("nan"), float("nan"), "the corpus is generated when the study is prepared"


def access(entry: studies.ModelEntry) -> dict[str, Any]:
    """Return `state` (a sentence), `ok` (bool, None when it cannot be told) and `bytes` to download (or None)."""
    from helpers import models

    missing = models.available(entry)
    if missing is None:
        return {"ok": True, "state": "here", "bytes": 0}
    if entry.source != "hub":
        return {"ok": False, "state": missing, "bytes": None}

    def ask(api: Any) -> tuple[bool, str, int | None]:
        info = api.model_info(entry.id, revision=entry.revision, files_metadata=True, timeout=20)
        weights = [f.size or 0 for f in info.siblings if f.rfilename.endswith(".safetensors")]
        if not weights:
            return False, "no safetensors weights at this revision", None
        if info.gated:
            api.auth_check(entry.id)
        return True, f"reachable, revision {info.sha}", sum(weights)

    return _asked(ask, "model", entry.revision)


def corpus_access(study: studies.Study) -> list[dict[str, Any]]:
    """Return `source` and what :func:`access` returns, for every hub data set of the study's corpus.

    `bytes` are what a run reads through: a sample is drawn by hash, so the whole data set passes by once and only the
    sample is kept. A configuration without a file pattern has no bytes that could be told beforehand.
    """
    if study.corpus.kind != "hub":
        return []
    rows = []
    for source in study.corpus.sources:
        name, _, part = source.partition(":")

        def ask(api: Any, name: str = name, part: str = part) -> tuple[bool, str, int | None]:
            info = api.dataset_info(name, revision=study.corpus.revision, files_metadata=True, timeout=20)
            if info.gated:
                api.auth_check(name, repo_type="dataset")
            state = f"reachable, revision {info.sha}"
            if not any(c in part for c in "*./"):
                return True, state, None
            chosen = [f.size or 0 for f in info.siblings if fnmatch.fnmatch(f.rfilename, part)]
            return (True, state, sum(chosen)) if chosen else (False, f"no file matches '{part}'", None)

        rows.append({"source": source} | _asked(ask, "data set", study.corpus.revision))
    return rows


def _asked(ask: Callable[[Any], tuple[bool, str, int | None]], what: str, revision: str | None) -> dict:
    """Put a question to the hub; every way in which it refuses becomes a sentence."""
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return {"ok": None, "state": "not checked: HF_HUB_OFFLINE is set", "bytes": None}
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return dict(zip(("ok", "state", "bytes"), ask(HfApi())))
    except GatedRepoError:
        return {"ok": False, "state": "gated: accept its terms, then `hf auth login`", "bytes": None}
    except RevisionNotFoundError:
        return {"ok": False, "state": f"no revision '{revision}'", "bytes": None}
    except RepositoryNotFoundError:
        return {"ok": False, "state": f"no such {what}, or private", "bytes": None}
    except Exception as error:  # network failures come in many types
        return {
            "ok": None,
            "state": f"not checked: the hub cannot be reached ({type(error).__name__})",
            "bytes": None,
        }


def rate(
    dtype: str = "float32", precision: Literal["exact", "fast"] = "exact", seconds: float = 3.0
) -> tuple[float, str]:
    """Return the floating-point operations per second that the engine reaches here, and the device's name.

    A random Llama-shaped model is scored through the engine: 0.05 billion parameters on a CPU, 1.1 on a GPU. Where
    ``precision="fast"`` gains nothing this is the exact rate.
    """
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from helpers import perplexity

    cuda = torch.cuda.is_available()
    width, layers = (2048, 16) if cuda else (512, 8)
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        tie_word_embeddings=True,
    )
    device = "cuda" if cuda else "cpu"
    with torch.device(device):
        model = LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
    size = sum(p.numel() for p in model.parameters())
    ids = [np.random.default_rng(k).integers(1, 32_000, 255) for k in range(256 if cuda else 4)]
    perplexity.surprisal_of_ids(model, ids[:2], 0, window=256)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        perplexity.surprisal_of_ids(
            model, ids, 0, batch_tokens=65_536 if cuda else 1024, window=256, precision=precision
        )
        count += sum(map(len, ids))
    name = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} thread(s)"
    return 2 * size * count / (time.perf_counter() - began), name


def plan(study: studies.Study, speed: float) -> pd.DataFrame:
    """Return one row a model: access, gigabytes to download and hours of computing at `speed` operations/s.

    `size from` says how gigabytes are known: counted by the hub, already here, or estimated as two bytes for each
    parameter of the study file (whose numbers are rounded and were written down from the models' names and cards).
    Operations are 2 x parameters x positions (a lower bound: attention itself is left out).
    """
    _, tokens, _ = corpus_size(study)
    rows, unreachable = [], None
    for entry in study.models.entries:
        found = unreachable if unreachable and entry.source == "hub" else access(entry)
        if found["ok"] is None:
            unreachable = found  # asked once: a network that is down is waited for once, not for every model
        size = preparation.parameters(entry)
        download = found["bytes"] if found["bytes"] is not None else 2 * size
        hours = 2 * size * tokens * passes(study.extraction) / speed / 3600
        rows.append(
            {
                "model": entry.name,
                "billion parameters": size / 1e9,
                "download GB": download / 1e9,
                "size from": "hub" if found["bytes"] else "here" if found["bytes"] == 0 else "estimate",
                "hours": hours,
                "access": found["state"],
                "ok": found["ok"],
            }
        )
    return pd.DataFrame(rows)


def duration(hours: float) -> str:
    """Return a time in the unit that people would use for it.

    >>> [duration(h) for h in (0.001, 0.2, 30, 300, 3e5, 3e9)]
    ['under a minute', '12 minutes', '30 hours', '12 days', '34 years', 'more than 1,000 years']
    >>> duration(float("nan"))
    'not known'
    """
    if math.isnan(hours):
        return "not known"
    if hours < 1 / 60:
        return "under a minute"
    years = hours / 24 / 365.25
    if years > 1000:
        return "more than 1,000 years"
    number, unit = (
        (hours * 60, "minutes") if hours < 1 else (hours, "hours") if hours < 72 else (hours / 24, "days") if years < 2 else (years, "years")
    )  # fmt: skip
    return f"{number:.0f} {unit}" if number >= 10 else f"{number:.2g} {unit}"


def amount(size: float) -> str:
    """Return a number of bytes in the unit that people would use for it.

    >>> [amount(b) for b in (0, 9, 5_400, 3.3e6, 2.82e9, 4.1e14)]
    ['0', '9 bytes', '5.4 kB', '3.3 MB', '2.8 GB', '410 TB']
    """
    if math.isnan(size):
        return "not known"
    if size < 1000:
        return f"{size:.0f} bytes" if size else "0"
    unit = min(int(math.log10(size) // 3), 4) if math.isfinite(size) else 4
    number = size / 1000**unit
    return f"{number:,.0f} {'kMGT'[unit - 1]}B" if number >= 100 else f"{number:.2g} {'kMGT'[unit - 1]}B"


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


@errors.command
def main(arguments: list[str] | None = None) -> int:
    """Print the plan; return 1 when a model or a data set is certainly not to be had, 0 otherwise."""
    parser = argparse.ArgumentParser(prog="helpers.plan", description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="paper")
    parser.add_argument(
        "--tflops", type=_positive, metavar="POSITIVE NUMBER", help="use this rate instead of measuring one here"
    )
    options = parser.parse_args(arguments)
    study = studies.load(options.study)
    if study.models.kind != "list":
        print(f"Study '{study.name}' downloads no model: nothing to plan.")
        return 0
    if options.tflops:
        speed, device = options.tflops * 1e12, "as given by --tflops"
    else:
        speed, device = rate(study.extraction.dtype, study.extraction.precision)
    documents, tokens, known = corpus_size(study)
    table, corpora = plan(study, speed), corpus_access(study)
    units = tokens / TOKENS_PER_PIECE
    settings = study.extraction
    print(f"Study '{study.name}': {study.title}\n")
    shown = table.drop(columns="ok").rename(columns={"download GB": "download", "hours": "computing"})
    shown["billion parameters"] = [f"{b:.3g}" if b == b else "not known" for b in table["billion parameters"]]
    shown["download"] = [amount(g * 1e9) for g in table["download GB"]]
    shown["computing"] = list(map(duration, table["hours"]))
    print(shown.to_string(index=False))
    estimated = (table["size from"] == "estimate").sum()
    print(f"\nmodels      {len(table)}, {amount(table['download GB'].sum() * 1e9)} to download")
    print(
        f"sizes       parameters as the study file states them or the weights here have them; bytes of {estimated} of {len(table)} models are "
        "an estimate, 2 a parameter"
    )
    counted = f"{documents:,.0f} documents, about {tokens:.3g} tokens ({known}), about {units:.3g} pieces"
    print(f"corpus      {counted if tokens == tokens else f'not known: {known}'}")
    for row in corpora:
        size = "bytes not known" if row["bytes"] is None else f"{amount(row['bytes'])} read through once"
        print(f"            {row['source']}: {row['state']}; {size}")
    print(f"mode        {settings.mode}: {passes(settings):g} positions through the model for each token")
    print(f"rate        {speed / 1e12:.3g} TFLOP/s ({device}), {settings.dtype}, products {settings.precision}")
    unsized = table["hours"].isna().sum()
    left_out = f", without {unsized} models whose size nobody stated: add 'parameters' to them" if unsized else ""
    hours = table["hours"].sum(min_count=1)
    print(f"computing   {duration(hours)} on one such device, estimated without attention{left_out}")
    stream = settings.model_copy(update={"mode": "stream"})
    dearer = passes(settings) / passes(stream)
    if dearer >= DEAR:
        print(
            f"            'mode: stream' would take {duration(hours / dearer)}, 1/{dearer:.0f} of that: it reads each text once, in "
            "long context, and scores every token instead of the last of each piece"
        )
    if units == units:
        print(f"disk        about {amount(units * BYTES_PER_UNIT * len(table))} of shards, as much for the matrix")
    answers = [*table["ok"], *(row["ok"] for row in corpora)]
    unknown, refused = (sum(answer is state for answer in answers) for state in (None, False))
    if unknown:
        print(f"access      not checked for {unknown} models and data sets: no hub within reach; connect and ask again")
    if refused:
        print(f"access      {refused} models and data sets cannot be had as things stand (see above)")
    return int(refused > 0)


if __name__ == "__main__":
    sys.exit(main())
