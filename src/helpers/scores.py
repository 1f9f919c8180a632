"""Score tables as people have them: wide or long tables, lm-evaluation-harness folders, DCLM evaluations.

Every reader gives one long table with the columns :data:`COLUMNS`: ``score`` is a fraction with higher better
wherever the source allows it, ``metric`` says what it was, ``num_fewshot``, ``chat_template`` and ``run`` carry the
settings along. Reading has two steps. :func:`gather` finds what a file or folder holds, :func:`judge` checks it: one
check of ranges, units, counts, standard errors and orientation for all readers. Nothing is guessed in silence: what a
reader decides (percent, decimal commas, which run, which metric) is a note; what it cannot decide is a serious problem.
A cause is told once, with its first example and a count. With ``problems=None`` notes become warnings and serious
problems one DataError.
"""

from __future__ import annotations

import csv
import datetime
import html
import io
import itertools
import json
import math
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow.parquet

from helpers import paths
from helpers.errors import DataError, nearest
from helpers.problems import Problem, Tally, refuse

COLUMNS = (
    "benchmark",
    "model",
    "score",
    "n_items",
    "stderr",
    "source",
    "metric",
    "num_fewshot",
    "chat_template",
    "run",
)
# What `gather` finds, before anything is checked. `raw`, `n_items` and `stderr` are as written; `rises` is what the
# file itself says of the metric's direction (True, False, None); `origin` the kind of source; `path` the file.
PIECES = (
    "benchmark",
    "model",
    "raw",
    "n_items",
    "stderr",
    "source",
    "metric",
    "filter",
    "num_fewshot",
    "chat_template",
    "run",
    "rises",
    "row",
    "column",
    "origin",
    "path",
)
Scale = Literal["auto", "fraction", "percent", "raw"]
Level = Literal["group", "subtask", "both"]
MAX_BYTES = 64 * 2**20
MAX_CELLS = 5_000_000
MAX_COLUMNS = 20_000
MAX_FILES = 100_000  # results files of one folder
MAX_NUMBER = 1e12  # a larger score is a mistake, and its square overflows
MAX_ITEMS = 1e9
MISSING = {"", "na", "n/a", "nan", "none", "null", "-", "--", "–", "—", "?", "missing", "<na>"}

_MODEL_WORDS = {"model", "models", "llm", "llms", "fullname", "checkpoint"}
_MODEL_EXTRAS = {"name", "names", "id", "adapter", "path", "hub", "hf", "repo", "language", "full"}
_BENCHMARK_NAMES = (
    "benchmark", "benchmarks", "benchmark_name", "task", "tasks", "task_name", "dataset", "datasets", "dataset_name",
    "scenario", "scenarios", "scenario_name", "eval", "eval_name", "evaluation",
)  # fmt: skip
_SCORE_NAMES = ("score", "value", "accuracy", "acc", "result", "metric_value", "mean_score")
_COUNTS = (
    "n_items", "num_items", "items", "n", "n_total", "n_samples", "num_samples", "samples", "n_questions",
    "num_questions", "n_instances", "num_instances", "n_examples", "num_examples", "sample_size",
)  # fmt: skip
_ERRORS = ("stderr", "std_err", "se", "sem", "standard_error", "std_error", "standard_err")
# Notes about models or settings: never benchmarks, unless one is asked for by name.
_NOTES = {
    "source", "metric", "metric_name", "num_fewshot", "n_shot", "n_shots", "num_shots", "shots", "fewshot", "version",
    "versions", "mode", "filter", "split", "seed", "revision", "sha", "model_sha", "precision", "dtype", "license", "params", "params_b", "parameters", "n_params", "model_size", "model_size_b", "size", "size_b", "flops",
    "flops_1e21", "pretraining_data_size_t", "likes", "hub_likes", "hub", "rank", "date", "submission_date", "year",
    "average", "avg", "mean", "overall", "co2_cost_kg", "std", "stdev", "std_dev", "sd", "ci", "ci95", "ci_95", "lower",
    "upper", "ci_lower", "ci_upper",
}  # fmt: skip
# Metrics of one task, the first present is taken unless the caller names another.
_PREFERRED = (
    "acc", "accuracy", "score", "exact_match", "f1", "em", "mc2", "pass@1", "prompt_level_strict_acc", "acc_norm", "mc1",
    "word_perplexity", "perplexity", "byte_perplexity", "bits_per_byte",
)  # fmt: skip
_FILTERS = ("none", "", "strict-match")
_AGGREGATES = ("all", "average", "avg", "mean")
_NOT_METRICS = ("alias", "name", "sample_len", "sample_count", "bypass", "version", "num_fewshot")
_IDENTITY = (
    "peft", "delta", "lora_local_path", "subfolder", "load_in_4bit", "load_in_8bit", "gguf_file", "autogptq",
    "gptqmodel", "quantization",
)  # fmt: skip

# Families of metrics by the last words of their names: in which range they lie and which way they go.
_PERPLEXITY = ("perplexity", "ppl")
_LOSS = (
    "bits_per_byte", "bpb", "bits_per_character", "bpc", "loss", "nll", "cross_entropy", "negative_log_likelihood",
    "mse", "rmse", "mae",
)  # fmt: skip
_BRIER = ("brier", "brier_score")
_ERROR_RATE = ("error", "err", "error_rate", "wer", "cer", "ter", "ece", "calibration_error")
_SHARE = ("acc", "accuracy", "acc_norm", "exact_match", "mc1", "mc2", "pass_1", "acc_mutual_info")
_RISING = (
    *_SHARE, "f1", "em", "qem", "exact", "recall", "precision", "win_rate", "winrate", "bleu", "sacrebleu", "rouge1",
    "rouge2", "rougel", "rougelsum", "rouge", "chrf", "mcc", "success_rate", "pass_rate",
)  # fmt: skip
_MIXED = ("f1", "em", "qem", "exact", "recall", "precision", "win_rate", "winrate", "success_rate", "pass_rate")


class ScoreNote(UserWarning):
    """Something that a reader decided and says."""


def _finish(frame: pd.DataFrame, found: list[Problem], problems: list[Problem] | None) -> pd.DataFrame:
    if problems is not None:
        problems.extend(found)
        return frame
    refuse(found)
    for note in found:
        warnings.warn(str(note), ScoreNote, stacklevel=3)
    return frame


def read(
    path: Path | str,
    *,
    benchmark: str | None = None,
    benchmarks: Iterable[str] = (),
    scale: Scale = "auto",
    lower_is_better: Iterable[str] | bool = (),
    metric: str | None = None,
    runs: str = "newest",
    level: Level = "group",
    models: Iterable[str] | None = None,
    problems: list[Problem] | None = None,
) -> pd.DataFrame:
    """Read scores from a table (``.csv``, ``.tsv``, ``.txt``, ``.parquet``), a results JSON or a harness folder.

    Parameters
    ----------
    benchmark
        The one benchmark that is meant. It must be in the file, except in a table that names none: there it is the
        name of the column of scores.
    benchmarks
        The benchmarks to keep, for tables with other columns of numbers; all when empty.
    scale
        How numbers are written: "auto" takes a benchmark with values above 10 as percent and says so, "fraction" and
        "percent" insist, "raw" leaves any number as it is.
    lower_is_better
        Benchmarks whose scores are turned, or True for all: 1 - score for fractions, the negative otherwise. It only
        acts where the direction is not known: perplexities, losses, errors and Brier scores are recognised by their
        names and turned once, with or without it.
    metric, runs, level
        The metric to take where there are several ("acc_norm", or with its filter "exact_match,strict-match"), which
        run ("newest" by the time in the name, a part of the path, or shots such as "5shot"), and whether groups, their
        subtasks or both are kept.
    models
        Names of known models: rows about others are left out before anything is checked.

    Returns
    -------
    DataFrame with the columns :data:`COLUMNS`, one row a measured score. ``stderr`` is the binomial error where the
    score is a share of ``n_items`` items and none (or an impossible 0) was given.

    Raises
    ------
    DataError
        listing every serious problem, each with file, row, column, what was found and what to do.
    """
    found: list[Problem] = []
    pieces = gather(
        path, benchmark=benchmark, benchmarks=benchmarks, metric=metric, runs=runs, level=level, problems=found
    )
    if models is None or pieces.empty:
        frame = judge(pieces, scale=scale, lower_is_better=lower_is_better, problems=found)
        if frame.empty and not any(p.serious for p in found):
            do = "give a column of model names and a number for each score"
            found.append(Problem(_shown(path), None, None, "not one score", do))
        return _finish(frame, found, problems)
    pieces, matching = of_models(pieces, models, _shown(path), found)
    if matching.matched.empty:
        told = f"none of its {len(matching.unmatched)} models is known"
        found.append(Problem(_shown(path), None, "model", told, "correct the names"))
    frame = judge(pieces, scale=scale, lower_is_better=lower_is_better, problems=found)
    known = matching.matched.set_index("given")["known"]
    return _finish(frame.assign(model=frame["model"].map(known)), found, problems)


SHOWN_MODELS = 8  # unknown ones with a suggestion, in one message


def of_models(
    pieces: pd.DataFrame, models: Iterable[str], shown: str, problems: list[Problem], alias: str = ""
) -> tuple[pd.DataFrame, Matching]:
    """Return the rows about known models, names as written, and the matching; say once how names were matched.

    Rows about other models play no part: whatever is wrong with them does not matter. Rows without a model stay, to be
    refused. `alias` ends the advice on names that fit nothing.
    """
    named = pieces["model"].map(lambda m: None if _is_missing(m) else str(m).strip())
    matching = match_models(named.dropna(), models)
    doubtful = sorted(matching.unmatched, key=lambda g: (not matching.unmatched[g], g))
    if doubtful:
        listed = {g: " or ".join(f"'{n}'" for n in matching.unmatched[g]) for g in doubtful[:SHOWN_MODELS]}
        told = f"model '{doubtful[0]}' is not in the study"
        told += f"; nearest: {listed[doubtful[0]]}" if listed[doubtful[0]] else ""
        told += f"; nor are {len(doubtful) - 1} more" if len(doubtful) > 1 else ""
        alike = [f"'{g}', nearest {near}" for g, near in list(listed.items())[1:] if near]
        told += f" ({'; '.join(alike)})" if alike else ""
        do = f"left out; correct the name{alias}, if it is meant"
        problems.append(Problem(shown, None, "model", told, do, serious=False))
    for how, words in (("normalised", "normal form"), ("base name", "base name")):
        rule = matching.matched[matching.matched["how"] == how]
        if len(rule):
            given, target = rule.iloc[0][["given", "known"]]
            told = f"'{given}' was matched to '{target}' by its {words}"
            told += f" (and {len(rule) - 1} more)" if len(rule) > 1 else ""
            problems.append(Problem(shown, None, "model", told, "nothing, if that is the model", serious=False))
    tally = Tally()
    for target, group in matching.matched.groupby("known", sort=False):
        if len(group) > 1:
            told = f"{' and '.join(repr(g) for g in group['given'])} all mean '{target}'"
            tally.add("twice", Problem(shown, None, "model", told, "keep one of them"))
    problems += tally.told("models")
    return pieces[named.isna() | named.isin(matching.matched["given"])], matching


def gather(
    path: Path | str,
    *,
    benchmark: str | None = None,
    benchmarks: Iterable[str] = (),
    metric: str | None = None,
    runs: str = "newest",
    level: Level = "group",
    problems: list[Problem],
) -> pd.DataFrame:
    """Return what a file or folder holds as one row a score, before values are checked (columns :data:`PIECES`).

    Parameters are those of :func:`read`; what is to be said goes to `problems`.
    """
    shown = _shown(path)
    benchmarks = set(benchmarks)
    wanted = benchmarks | ({benchmark} if benchmark else set())
    empty = pd.DataFrame(columns=list(PIECES))
    try:
        path = Path(path)
        is_folder, is_file = path.is_dir(), path.is_file()
        size = path.stat().st_size if is_file else 0
        there = is_folder or is_file or path.exists()
    except (ValueError, OSError):  # a null byte in the name, a name too long, a loop of links
        problems.append(Problem(shown, None, None, "not a usable path", "give the path of a file or folder"))
        return empty
    suffix = path.suffix.lower()
    headings: dict[str, list[str]] = {}
    if is_folder:
        pieces = _harness_files(_json_files(path, problems), path, runs, level, wanted, headings, problems)
    elif not is_file:
        told = "no such file: a device, pipe or socket" if there else "no such file or folder"
        problems.append(Problem(shown, None, None, told, "check the path"))
        return empty
    elif size > MAX_BYTES:
        told, do = f"{size / 2**20:.0f} MiB", f"a score table has at most {MAX_BYTES >> 20} MiB"
        problems.append(Problem(shown, None, None, told, do))
        return empty
    elif suffix == ".json":
        pieces = _harness_files([path], None, runs, level, wanted, headings, problems)
    elif suffix in (".csv", ".tsv", ".txt", ".parquet"):
        table, european = _read_table(path, problems)
        if table is None:
            return empty
        pieces = _long(table, path, benchmark, wanted, problems)
        pieces["origin"] = "semicolons" if european else "table"
    else:
        do = "give a .csv, .tsv or .parquet table, a results .json or a folder of lm-evaluation-harness"
        problems.append(Problem(shown, None, None, f"files of type '{path.suffix}' are not score tables", do))
        return empty
    pieces = pieces.reindex(columns=list(PIECES)).astype(object)
    if len(pieces):
        pieces = _asked_for(pieces, benchmark, benchmarks, headings, shown, problems)
    if len(pieces):
        pieces = _one_setting(pieces, metric, runs, shown, problems)
    return pieces.reset_index(drop=True)


def _shown(path: Path | str) -> str:
    try:
        name = paths.label(path)
    except (ValueError, OSError, RuntimeError):  # RuntimeError: a loop of links
        name = repr(str(path))
    return name.encode("utf-8", "replace").decode()


def _asked_for(
    pieces: pd.DataFrame,
    benchmark: str | None,
    benchmarks: set[str],
    headings: Mapping[str, list[str]],
    shown: str,
    problems: list[Problem],
) -> pd.DataFrame:
    """Return the rows of the benchmarks that are meant; a name that the source lacks is a serious problem."""
    names = list(pieces["benchmark"].dropna().unique())
    # the only column of a table may well be the asked one under another name: read so, and both names are told
    renamed = (
        benchmark and len(names) == 1 and names[0] != benchmark and pieces["origin"].iloc[0] in ("table", "semicolons")
    )
    if renamed:
        told, do = (
            f"its only benchmark is '{names[0]}'; it is read as '{benchmark}'",
            "correct --benchmark if it is another",
        )
        problems.append(Problem(shown, None, None, told, do, serious=False))
    for name in () if renamed else sorted((benchmarks | ({benchmark} if benchmark else set())) - set(names)):
        if name in headings:
            listed = ", ".join(f"'{n}'" for n in headings[name][:6])
            told, do = f"'{name}' has no score of its own; its parts are {listed}", "name one of its parts"
        elif len(names) == 1:
            told = f"no benchmark '{name}': the only one is '{names[0]}'"
            do = f"leave --benchmark out if '{names[0]}' is meant"
        else:
            told, do = f"no benchmark '{name}'; {nearest(name, names)}", "correct the name"
        problems.append(Problem(shown, None, name if name in benchmarks else None, told, do))
    if benchmark and renamed:
        return pieces.assign(benchmark=benchmark)
    if benchmark:
        return pieces[pieces["benchmark"] == benchmark]
    return pieces[pieces["benchmark"].isin(benchmarks)] if benchmarks else pieces


# --- which run, which metric ----------------------------------------------------------------------------------------


def _one_setting(
    pieces: pd.DataFrame, metric: str | None, runs: str, shown: str, problems: list[Problem]
) -> pd.DataFrame:
    """Keep one shot count, run, metric and filter of each benchmark, and say what was decided."""
    pieces = _one_shot_count(pieces, shown, problems)
    pieces = _newest(pieces, shown, problems)
    pieces = _one_metric(pieces, metric, shown, problems)
    tally = Tally()
    for name, group in pieces[pieces["origin"] == "harness"].groupby("benchmark", sort=True):
        for column, word in (
            ("num_fewshot", "few-shot counts"),
            ("chat_template", "chat template settings"),
            ("metric", "metrics"),
        ):
            values = group[column].dropna().astype(str).unique()
            if len(values) > 1:
                told = f"mixed {word} across models: {', '.join(sorted(values)[:8])}"
                tally.add(word, Problem(shown, None, name, told, "compare like with like", serious=False))
    problems += tally.told("benchmarks")
    return pieces


def _one_shot_count(pieces: pd.DataFrame, shown: str, problems: list[Problem]) -> pd.DataFrame:
    """Where a model was run with several shot counts, keep the one that most models have."""
    counted = pieces.dropna(subset=["num_fewshot"])
    several = counted.groupby(["benchmark", "model"])["num_fewshot"].nunique()
    drop = pd.Series(False, pieces.index)
    tally = Tally()
    for name in several[several > 1].index.get_level_values("benchmark").unique():
        own = counted[counted["benchmark"] == name]
        having = own.groupby("num_fewshot")["model"].nunique()
        best = max(having.index, key=lambda shots: (having[shots], shots))
        models = set(own.loc[own["num_fewshot"] == best, "model"])
        own = pieces["benchmark"].eq(name) & pieces["model"].isin(models)
        drop |= own & pieces["num_fewshot"].notna() & pieces["num_fewshot"].ne(best)
        told = f"run with {' and '.join(map(str, sorted(having.index)))} shots; {best} taken ({len(models)} models)"
        do = f"choose another by --runs {next(s for s in having.index if s != best)}shot"
        tally.add("shots", Problem(shown, None, name, told, do, serious=False))
    problems += tally.told("benchmarks")
    return pieces[~drop]


def _newest(pieces: pd.DataFrame, shown: str, problems: list[Problem]) -> pd.DataFrame:
    """Keep the newest run of each model and benchmark; runs without a time all stay, and must then agree."""
    runs = pieces.groupby(["benchmark", "model"])["path"].nunique()
    again = set(runs[runs > 1].index)
    if not again:
        return pieces
    keep = pd.Series(True, pieces.index)
    replaced, first = 0, None
    keys = list(zip(pieces["benchmark"], pieces["model"]))
    where: dict[tuple, list] = {}
    for i, key in zip(pieces.index, keys):
        if key in again:
            where.setdefault(key, []).append(i)
    for key, places in where.items():
        times = pieces.loc[places, "run"]
        if times.isna().any():
            continue
        old = times.index[times < times.max()]
        keep[old] = False
        replaced += len(old) > 0
        first = first or key
    if replaced:
        told = f"{replaced} model and task pair(s) were run more than once; the newest run was taken"
        told += f" (first: '{first[1]}' on '{first[0]}')"
        do = "name another by --runs PART, a part of its path"
        problems.append(Problem(shown, None, None, told, do, serious=False))
    return pieces[keep]


def _one_metric(pieces: pd.DataFrame, metric: str | None, shown: str, problems: list[Problem]) -> pd.DataFrame:
    """Keep the metric that was asked for, or of those that most models have the first of a documented order."""
    asked, _, asked_filter = (metric or "").partition(",")
    tally = Tally()
    kept = []
    for name, group in pieces.groupby("benchmark", sort=False):
        measured = group[~group["raw"].map(_is_missing)]
        having = measured.dropna(subset="metric").groupby("metric")["model"].nunique()
        if having.empty and not metric:
            kept.append(group)
            continue
        order = [m for m in dict.fromkeys((*_PREFERRED, *sorted(having.index))) if m in having.index]
        if metric and asked not in having.index:
            told = f"no metric '{asked}' (has: {', '.join(sorted(having.index)) or 'none'})"
            tally.add("lacking", Problem(shown, None, name, told, "left out; correct --metric", serious=False))
            continue
        chosen = asked if metric else max(order, key=lambda m: (having[m], -order.index(m)))
        if len(having) > 1 and not metric:
            others = ", ".join(f"'{m}'" for m in order if m != chosen)
            told, do = f"metric '{chosen}' taken; also there: {others}", "take another by --metric NAME"
            tally.add(("several", chosen), Problem(shown, None, name, told, do, serious=False))
        own = measured[measured["metric"] == chosen]
        without = set(group["model"]) - set(own["model"])
        if without:
            told = f"no '{chosen}' of {len(without)} model(s), first '{sorted(without)[0]}'"
            tally.add("without", Problem(shown, None, name, told, "left out", serious=False))
        filters = own.groupby(own["filter"].fillna(""))["model"].nunique()
        if asked_filter:
            if asked_filter not in filters.index:
                told = f"no filter '{asked_filter}' of '{chosen}' (has: {', '.join(filters.index)})"
                tally.add("filter", Problem(shown, None, name, told, "left out; correct --metric", serious=False))
                continue
            best = asked_filter
        else:
            rank = list(dict.fromkeys((*_FILTERS, *sorted(filters.index))))
            best = max(filters.index, key=lambda f: (filters[f], -rank.index(f)))
            if len(filters) > 1:
                listed = ", ".join(f"'{f}'" for f in filters.index)
                told = f"metric '{chosen}' under several filters ({listed}); '{best}' was taken"
                other = next(f for f in filters.index if f != best)
                do = f"take another by --metric {chosen},{other}"
                tally.add("filters", Problem(shown, None, name, told, do, serious=False))
        own = own[own["filter"].fillna("") == best]
        kept.append(own)
    problems += tally.told("benchmarks")
    if not kept:
        problems.append(Problem(shown, None, None, f"no benchmark has the metric '{metric}'", "correct --metric"))
        return pieces.iloc[:0]
    return pd.concat(kept).sort_index()


# --- one check of values for all readers ----------------------------------------------------------------------------


def judge(
    pieces: pd.DataFrame,
    *,
    scale: Scale = "auto",
    lower_is_better: Iterable[str] | bool = (),
    problems: list[Problem],
) -> pd.DataFrame:
    """Return checked scores (columns :data:`COLUMNS`) of what :func:`gather` found.

    Numbers must be numbers and finite, in the range of their metric and all in one unit; counts whole; standard errors
    in the unit of their scores. Every score is turned at most once so that higher is better. `scale` and
    `lower_is_better` are those of :func:`read`; what is to be said goes to `problems`.
    """
    if pieces.empty:
        return pd.DataFrame(columns=list(COLUMNS))
    before = len([p for p in problems if p.serious])
    shown = str(pieces["source"].iloc[0])
    frame = _numbers(pieces, scale, problems)
    parts = []
    asked = set() if isinstance(lower_is_better, bool) else set(lower_is_better)
    for name in sorted(asked - set(frame["benchmark"])) if len(frame) else ():
        problems.append(Problem(shown, None, None, f"no benchmark '{name}' to turn around", "correct lower_is_better"))
    tally = Tally()
    for name, group in frame.groupby("benchmark", sort=False):
        group, share = _one_unit(name, group.copy(), scale, problems)
        if group is None:
            continue
        group = _with_errors(group, share, tally)
        parts.append(_oriented(name, group, share, lower_is_better is True or name in asked, tally))
    problems += tally.told("benchmarks")
    if not parts:
        if len([p for p in problems if p.serious]) == before:
            problems.append(Problem(shown, None, None, "no scores", "give at least one number"))
        return pd.DataFrame(columns=list(COLUMNS))
    frame = _without_repeats(pd.concat(parts), shown, problems)
    for column in ("score", "n_items", "stderr"):
        frame[column] = frame[column].astype(float)
    return frame[list(COLUMNS)].reset_index(drop=True)


def _numbers(pieces: pd.DataFrame, scale: Scale, problems: list[Problem]) -> pd.DataFrame:
    """Return the rows with a number, with float ``score``, ``n_items``, ``stderr`` and bool ``percent``."""
    read = [_number(v) for v in pieces["raw"]]
    kinds = Counter(kind for _, kind in read)
    points = kinds["point"] + kinds["thousands"]
    whole = sum(kind == "whole" and v >= 100 for v, kind in read)
    tally, rows, missing, commas = Tally(), [], 0, 0
    for piece, (value, kind) in zip(pieces.itertuples(index=False), read):
        place = (piece.source, piece.row)
        if _is_missing(piece.model):
            tally.add("model", Problem(*place, "model", "no model name", "name the model of every row"))
            continue
        if _is_missing(piece.benchmark):
            tally.add("benchmark", Problem(*place, "benchmark", "no benchmark name", "name it in every row"))
            continue
        if _is_missing(piece.raw):
            missing += 1
            continue
        written = str(piece.raw)[:40]
        if kind == "two":
            told, do = f"'{written}' holds two numbers", "put the second into a column of its own, such as 'stderr'"
            tally.add("two", Problem(*place, piece.column, told, do))
            continue
        if kind == "either":
            decimal = kinds["comma"] or piece.origin == "semicolons"
            grouped = points or whole or scale == "raw"
            if bool(decimal) == bool(grouped):
                plain = written.replace(",", "")
                told = f"'{written}' can be {written.replace(',', '.')} or {plain}"
                tally.add("either", Problem(*place, piece.column, told, "write numbers without a comma"))
                continue
            value = value if decimal else float(written.strip().strip("%").replace(",", ""))
            kind = "comma" if decimal else "thousands"
        if value is None:
            told, do = f"'{written}' is not a number", "write a number such as 0.53, or leave it empty"
            tally.add("number", Problem(*place, piece.column, told, do))
            continue
        if not math.isfinite(value) or abs(value) > MAX_NUMBER:
            told = f"{written} is no usable number"
            tally.add("finite", Problem(*place, piece.column, told, "write a finite number, or leave it empty"))
            continue
        commas += kind == "comma"
        items = _count(piece.n_items)
        if items is None:
            told = f"'{str(piece.n_items)[:40]}' is no number of items"
            do = f"write a whole number from 1 to {MAX_ITEMS:.0e}, or leave it empty"
            tally.add("items", Problem(*place, "n_items", told, do))
            items = np.nan
        error, kind = (np.nan, "") if _is_missing(piece.stderr) else _number(piece.stderr)
        if error is None or not (math.isnan(error) or 0 <= error < MAX_NUMBER):
            told = f"'{str(piece.stderr)[:40]}' is no standard error"
            tally.add("stderr", Problem(*place, "stderr", told, "write a standard error, or leave it empty"))
            error = np.nan
        rows.append(
            piece._asdict()
            | {
                "benchmark": str(piece.benchmark).strip(),
                "model": str(piece.model).strip(),
                "score": value,
                "n_items": items,
                "stderr": error,
                "percent": isinstance(piece.raw, str) and piece.raw.strip().endswith("%"),
            }
        )
    problems += tally.told("rows")
    shown = str(pieces["source"].iloc[0])
    if commas:
        told = f"{commas} number(s) with a decimal comma, read as such"
        problems.append(Problem(shown, None, None, told, "decimal points are safer", serious=False))
    if missing:
        told = f"{missing} empty score(s): not measured, left out"
        problems.append(Problem(shown, None, None, told, "nothing, if that is so", serious=False))
    return pd.DataFrame(rows, columns=[*PIECES, "score", "percent"])


def _count(value: Any) -> float | None:
    """Return a number of items, NaN for none, or None for what cannot be one."""
    if _is_missing(value):
        return np.nan
    number, kind = _number(value)
    if kind == "either":  # no count has a decimal comma
        number = float(str(value).strip().replace(",", ""))
    if number is None or not 1 <= number <= MAX_ITEMS or number != int(number):
        return None
    return number


def _one_unit(
    name: str, group: pd.DataFrame, scale: Scale, problems: list[Problem]
) -> tuple[pd.DataFrame | None, bool]:
    """Return the rows of one benchmark in one unit and whether they are shares of items; None after saying why not."""
    values = group["score"]
    kind = _kind(group["metric"].iloc[0]) or (_kind(name, names=True) if group["origin"].iloc[0] != "harness" else None)
    origin = group["origin"].iloc[0]

    def wrong(where: pd.Series, told: str, do: str, of: str = "values") -> tuple[None, bool]:
        first = group[where].iloc[0]
        more = f" (and {where.sum() - 1} more {of})" if where.sum() > 1 else ""
        row, column = first["row"], name if first["row"] is None or origin == "harness" else first["column"]
        found = told.format(first["raw"] if isinstance(first["raw"], str) else f"{first['score']:g}")
        problems.append(Problem(first["source"], row, column, found + more, do))
        return None, False

    correct = "correct it, or leave it empty"
    if kind == "perplexity" and (values < 1).any():
        return wrong(values < 1, "{} is no perplexity (at least 1)", correct)
    if kind == "loss" and (values < 0).any():
        return wrong(values < 0, "{} is negative, a loss is not", correct)
    if kind == "brier" and ((values < 0) | (values > 2)).any():
        return wrong((values < 0) | (values > 2), "{} is no Brier score (0 to 2)", correct)
    if kind in ("perplexity", "loss", "brier") or scale == "raw":
        return group, False
    outside = (values < 0) | (values > 1)
    if scale == "fraction":
        return (
            wrong(outside, "{} is not a fraction", "say --scale percent if it is one")
            if outside.any()
            else (group, True)
        )
    if origin in ("harness", "dclm") and scale == "auto":
        if kind == "share" or origin == "dclm":
            do = "correct it, or say --scale percent if all are percentages"
            return wrong(outside, "{} is not a fraction", do) if outside.any() else (group, True)
        if kind is None:  # an unknown metric has no known range, but its values must go together
            beside = (values < -1) | (values > 1)
            if beside.any() and (~beside).sum() >= len(values) / 2:
                return wrong(beside, "{} beside fractions", "correct it, or say --scale raw if it is right")
            return group, False
    hundred = (values < 0) | (values > 100)
    if scale == "percent" and hundred.any():
        return wrong(hundred, "{} is not a percentage", correct)
    if scale == "auto":
        told = "{} is neither a fraction nor a percentage"
        do = "correct it; for ratings or losses say --scale raw (and --lower-is-better, if it is)"
        if hundred.any():
            return wrong(hundred, told, do)
        signs = group["percent"].astype(bool)
        positive = values[values > 0]
        small = (values > 0) & (values <= 1) & ~signs
        large = (values > 1) | signs
        if not large.any():
            return group, True
        parts = small & (values < 1)
        mixed = parts.any() and ((values <= 1).mean() >= 0.2 or signs.any())
        lone = small & (values < positive[large].min() / 10)
        odd = large & (values > 1) & (small.sum() >= len(values) / 2)
        if mixed or lone.any() or odd.any():
            where = large if small.sum() > large.sum() else (parts if mixed else lone)
            low, high = positive[small].iloc[0], values.max()
            told = f"fractions and percentages mixed ({low:g} and {high:g}); first: '{{}}'"
            do = "write them all one way, or say --scale percent, fraction or raw"
            return wrong(where, told, do)
        if values.max() <= 10 and not signs.any():
            told = f"values up to {values.max():g}: ratings or small percentages; left as they are, without standard errors"
            do = "say --scale percent if they are percentages, --scale raw if not"
            problems.append(Problem(group["source"].iloc[0], None, name, told, do, serious=False))
            return group, False
        told, do = f"values up to {values.max():g}: read as percent", "say --scale fraction or --scale raw if not"
        problems.append(Problem(group["source"].iloc[0], None, name, told, do, serious=False))
    group[["score", "stderr"]] = group[["score", "stderr"]] / 100
    return group, True


def _with_errors(group: pd.DataFrame, share: bool, tally: Tally) -> pd.DataFrame | None:
    """Check counts and standard errors of one benchmark; fill in binomial errors where the scores are shares."""
    name, source = group["benchmark"].iloc[0], group["source"].iloc[0]
    score, items, error = group["score"], group["n_items"], group["stderr"]
    usual = items.median()
    odd = (items > 5 * usual) | (items < usual / 5)
    if odd.any() and odd.sum() < len(items) / 5:
        first = group[odd].iloc[0]
        told = f"{first['n_items']:.0f} items of '{first['model']}', most models have {usual:.0f}"
        problem = Problem(source, first["row"], name, told, "correct it, if it is a slip", serious=False)
        tally.add("odd count", problem)
    spread = np.sqrt((score * (1 - score)).clip(lower=0)) if share else pd.Series(np.nan, group.index)
    zero = error.eq(0) & (spread.gt(0) | items.notna()) if share else error.eq(0) & (score.nunique() > 1)
    if zero.any():
        first = group[zero].iloc[0]
        known = share and items[zero].notna().all()
        told = f"a standard error of 0 of {zero.sum()} model(s), first '{first['model']}' at {first['score']:.4g}: impossible"
        do = "computed from the number of items" if known else "not used; give the number of items"
        tally.add("zero error", Problem(source, first["row"], name, told, do, serious=False))
        error = error.mask(zero)
    # a share cannot have an error of another size than its items give: one in percent beside a fraction can
    sure = spread.where((score > 0.005) & (score < 0.995))
    relative = error / sure
    with_items = relative * np.sqrt(items)
    wrong = (error > 0.5) if share else pd.Series(False, group.index)
    wrong |= (with_items > 10) | (with_items < 0.1)
    usual = relative.median()
    if pd.notna(usual) and usual > 0:
        alone = items.isna()
        implied = 1 / usual**2
        wrong |= alone & relative.notna() & ((implied < 8) | (implied > 2e5))
        wrong |= alone & ((relative > 20 * usual) | (relative < usual / 20))
    if wrong.any():
        first = group[wrong].iloc[0]
        told = f"a standard error of {first['stderr']:.3g} for the score {first['score']:.3g}"
        told += f" over {first['n_items']:.0f} items" if pd.notna(first["n_items"]) else ""
        told += f" (and {wrong.sum() - 1} more)" if wrong.sum() > 1 else ""
        do = "write score and standard error in one unit (0.53 and 0.01, or 53 and 1)"
        tally.add("unit of error", Problem(source, first["row"], name, told + ": another unit", do))
    if share:
        error = error.fillna(binomial_error(score, items))
    return group.assign(stderr=error)


def binomial_error(score, n_items):
    """Return the standard error of shares of `n_items` items: ``sqrt(p (1 - p) / n)``, never 0.

    At 0 and 1 the share is taken half an item away: a finite number of items never proves a certainty.
    Arrays of one shape; NaN where the number of items is not known. For means of item scores between 0 and 1 that are
    not all 0 or 1 it is an upper bound.

    >>> round(float(binomial_error(2 / 132, 132)), 4)
    0.0106
    """
    edge = (score == 0) | (score == 1)
    nearest_inside = (score * n_items + 0.5) / (n_items + 1)
    p = np.where(edge, nearest_inside, score)
    with np.errstate(invalid="ignore"):
        return np.sqrt(p * (1 - p) / n_items)


def _oriented(name: str, group: pd.DataFrame, share: bool, asked: bool, tally: Tally) -> pd.DataFrame:
    """Turn the scores of one benchmark once, if lower is better, and label what they now are."""
    metric, origin, source = group["metric"].iloc[0], group["origin"].iloc[0], group["source"].iloc[0]
    told_by_file = group["rises"].dropna()
    label = metric if isinstance(metric, str) else "score" if share else "raw score"
    rises = None
    if isinstance(metric, str) and falls(metric):
        rises = False
    elif len(told_by_file):
        rises = bool(told_by_file.iloc[0])
    elif isinstance(metric, str) and _ends(metric, _RISING):
        rises = True
    elif origin != "harness" and falls(name):
        rises = False
        told = f"by its name '{name}', lower is better: turned around"
        tally.add(
            "turned by name", Problem(source, None, name, told, "rename the column if it is not so", serious=False)
        )
    if asked and rises is not None:
        what = label if isinstance(metric, str) else name
        told = f"'{what}' is known to {'rise' if rises else 'fall'} as models get better"
        told += (
            "; --lower-is-better changes nothing" if rises else " and is turned once; --lower-is-better adds nothing"
        )
        tally.add("known direction", Problem(source, None, name, told, "leave --lower-is-better out", serious=False))
    if rises is None and asked:
        rises = False
        tally.add("turned", Problem(source, None, name, "lower is better: turned around", "nothing", serious=False))
    elif rises is None and origin == "harness":
        told = f"nobody says whether '{label}' rises as models get better; it is taken to"
        tally.add("unknown", Problem(source, None, name, told, "say --lower-is-better if it falls", serious=False))
    if rises is not False:
        return group.assign(metric=label)
    score, error = group["score"], group["stderr"]
    if isinstance(metric, str) and _kind(metric) == "perplexity":
        return group.assign(score=-np.log(score), stderr=error / score, metric=f"-ln {metric}")
    if share and not isinstance(metric, str):
        return group.assign(score=1 - score, metric="1 - score")
    if share:
        return group.assign(score=1 - score, metric=f"1 - {metric}")
    return group.assign(score=-score, metric=f"-{metric if isinstance(metric, str) else 'score'}")


def is_share(metric: object) -> bool:
    """Return whether scores with this label of :func:`read` are shares of items, so that binomial errors apply.

    >>> is_share("score"), is_share("1 - error"), is_share("-ln word_perplexity"), is_share("raw score")
    (True, True, False, False)
    """
    name = str(metric)
    return name == "score" or name.startswith("1 - ") or _kind(name) in ("share", "mixed")


def _ends(name: str, endings: Iterable[str]) -> bool:
    low = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return any(low == e or low.endswith("_" + e) for e in endings)


def _kind(name: object, names: bool = False) -> str | None:
    """Return the family of a metric: its range. `names`: the name of a benchmark, of which only falling ones tell."""
    if not isinstance(name, str) or _negated(name):
        return None
    for kind, endings in (("perplexity", _PERPLEXITY), ("loss", _LOSS), ("brier", _BRIER)):
        if _ends(name, endings):
            return kind
    if names:
        return None
    return "share" if _ends(name, _SHARE) else "mixed" if _ends(name, (*_MIXED, *_ERROR_RATE)) else None


def _negated(name: str) -> bool:
    return bool(re.match(r"\s*(-|−|(neg(ative)?|minus)[_ -](?!log[_ -]likelihood))", name.lower()))


def falls(name: str) -> bool:
    """Return whether the name of a metric or column says that lower is better.

    >>> falls("word_perplexity"), falls("brier_score"), falls("accuracy"), falls("neg_loss")
    (True, True, False, False)
    """
    return not _negated(name) and _ends(name, (*_PERPLEXITY, *_LOSS, *_BRIER, *_ERROR_RATE))


def _without_repeats(frame: pd.DataFrame, shown: str, found: list[Problem]) -> pd.DataFrame:
    twice = frame.duplicated(["benchmark", "model"], keep=False)
    tally = Tally()
    for (name, model), group in frame[twice].groupby(["benchmark", "model"], sort=False):
        if group["score"].nunique() > 1:
            values = ", ".join(f"{v:g}" for v in group["score"].head(4))
            do = "keep one row per model and benchmark"
            if group["origin"].iloc[0] == "harness":
                do = "their runs carry no time: name one by --runs PART, a part of its path"
                do = do if group["path"].nunique() > 1 else "keep one of the tasks that are called so"
            told = f"model '{model}' has {len(group)} scores ({values})"
            tally.add("several", Problem(shown, group["row"].iloc[0], name, told, do))
        else:
            told = f"model '{model}' is listed {len(group)} times with one score"
            tally.add("one", Problem(shown, None, name, told, "one was used", serious=False))
    found += tally.told("models")
    return frame.drop_duplicates(["benchmark", "model"])


def to_matrix(scores: pd.DataFrame) -> pd.DataFrame:
    """Return scores as (benchmarks x models), NaN where not measured, both in order of appearance.

    Raises DataError when a model has two scores on one benchmark.

    >>> long = pd.DataFrame({"benchmark": ["b", "b"], "model": ["m", "n"], "score": [0.5, 0.75]})
    >>> to_matrix(long).loc["b", "n"].item()
    0.75
    """
    twice = scores.duplicated(["benchmark", "model"])
    if twice.any():
        row = scores[twice].iloc[0]
        raise DataError(f"model '{row['model']}' has several scores on '{row['benchmark']}'; keep one.")
    matrix = scores.pivot(index="benchmark", columns="model", values="score")
    matrix = matrix.loc[scores["benchmark"].unique(), scores["model"].unique()]
    return matrix.rename_axis(index=None, columns=None).astype(float)


# --- tables ---------------------------------------------------------------------------------------------------------


def _read_table(path: Path, found: list[Problem]) -> tuple[pd.DataFrame | None, bool]:
    """Return the table as strings (parquet: as stored) with a column ``__row__`` and whether semicolons part it.

    The table is None after the reason was told.
    """
    shown = _shown(path)
    before = len([p for p in found if p.serious])
    if path.suffix.lower() == ".parquet":
        table = _read_parquet(path, shown, found)
        if table is None:
            return None, False
        header = list(table.columns)
        _check_header(header, None, shown, found, len(table) + 1)
        if len([p for p in found if p.serious]) > before:
            return None, False
        return table.assign(__row__=np.arange(1, len(table) + 1)), False
    text = _decode(path, shown, found)
    if text is None:
        return None, False
    delimiter = _delimiter(text, path.suffix.lower())
    csv.field_size_limit(2**24)
    rows, cells = [], 0
    try:
        for number, row in _rows(text, delimiter):
            cells += len(row)
            if len(row) > MAX_COLUMNS:
                told = f"{len(row)} columns"
                found.append(Problem(shown, number, None, told, f"a score table has at most {MAX_COLUMNS}"))
                return None, False
            if cells > MAX_CELLS:
                do = f"a score table has at most {MAX_CELLS:,} cells"
                found.append(Problem(shown, number, None, "too many cells", do))
                return None, False
            if any(c.strip() for c in row):
                rows.append((number, row))
    except csv.Error as error:
        found.append(Problem(shown, None, None, f"not a valid table ({error})", "repair the quoting"))
        return None, False
    if not rows:
        found.append(Problem(shown, None, None, "no rows", "give a header and one row a model"))
        return None, False
    header = [c.strip() for c in rows[0][1]]
    _check_header(header, rows[0][0], shown, found, len(rows))
    tally = Tally()
    for number, row in rows[1:]:
        if len(row) != len(header):
            told = f"{len(row)} fields, the header has {len(header)}"
            do = "give every row the same number of fields; quote separators"
            tally.add("fields", Problem(shown, number, None, told, do))
        elif row[0].strip() == header[0] and header[0] and _number(header[0])[0] is None:
            told = f"a second header line: '{row[-1].strip()[:40]}' is not a number"
            tally.add("header", Problem(shown, number, None, told, "give one table a file"))
    found += tally.told("rows")
    if len([p for p in found if p.serious]) > before:
        return None, False
    table = pd.DataFrame([[c.strip() for c in r] for _, r in rows[1:]], columns=header, dtype=object)
    return pd.concat([table, pd.Series([n for n, _ in rows[1:]], name="__row__")], axis=1), delimiter == ";"


def _read_parquet(path: Path, shown: str, found: list[Problem]) -> pd.DataFrame | None:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
            columns, rows = file.metadata.num_columns, file.metadata.num_rows
            if size > 4 * MAX_BYTES or columns > MAX_COLUMNS or columns * rows > MAX_CELLS:
                told = f"{rows} rows of {columns} columns, {size / 2**20:.0f} MiB"
                do = f"a score table has at most {MAX_COLUMNS} columns, {MAX_CELLS:,} cells and {4 * MAX_BYTES >> 20} MiB"
                found.append(Problem(shown, None, None, told, do))
                return None
            held, parts = 0, []
            for batch in file.iter_batches(batch_size=1024):
                held += batch.nbytes
                if held > 4 * MAX_BYTES:
                    do = f"a score table has at most {4 * MAX_BYTES >> 20} MiB"
                    found.append(Problem(shown, None, None, "it opens to more than its size says", do))
                    return None
                parts.append(batch)
            table = pyarrow.Table.from_batches(parts, schema=file.schema_arrow).to_pandas()
    except Exception as error:  # pyarrow has many error types for a broken file
        found.append(Problem(shown, None, None, f"not a Parquet file ({type(error).__name__})", "write it again"))
        return None
    if table.index.name is not None and table.index.name not in table.columns:
        table = table.reset_index()
    table.columns = [str(c) for c in table.columns]
    return table


def _rows(text: str, delimiter: str) -> Iterable[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for row in reader:
        yield reader.line_num, row


def _decode(path: Path, shown: str, found: list[Problem]) -> str | None:
    try:
        raw = path.read_bytes()
    except OSError as error:
        found.append(Problem(shown, None, None, f"cannot be read ({error.strerror})", "check its permissions"))
        return None
    if not raw.strip():
        found.append(Problem(shown, None, None, "an empty file", "give a header and one row a model"))
        return None
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        found.append(Problem(shown, None, None, "UTF-16 text, read as such", "UTF-8 is safer", serious=False))
        try:
            text = raw.decode("utf-16")
            if "\x00" in text:
                found.append(Problem(shown, None, None, "binary content (null bytes)", "give a text table"))
                return None
            return text
        except UnicodeDecodeError:
            found.append(Problem(shown, None, None, "broken UTF-16 text", "save the table as UTF-8"))
            return None
    if b"\x00" in raw:
        found.append(Problem(shown, None, None, "binary content (null bytes)", "give a text table"))
        return None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        told = f"byte {raw[error.start]:#04x} is not UTF-8"
        found.append(Problem(shown, line, None, told, "save the table as UTF-8 (CSV UTF-8 in a spreadsheet)"))
        return None


def _delimiter(text: str, suffix: str) -> str:
    """Return the separator of the header line; what stands in quotes does not count."""
    header = re.sub(r'"[^"]*"', "", re.split(r"\r\n|\n|\r", text.lstrip("\ufeff \t\r\n"), maxsplit=1)[0])
    counts = {d: header.count(d) for d in "\t;,|"}
    if suffix == ".tsv" and counts["\t"]:
        return "\t"
    return max(counts, key=lambda d: (counts[d], d == ","))


def _check_header(header: list[str], row: int | None, shown: str, found: list[Problem], rows: int) -> None:
    if len(header) < 2:
        do = "separate columns by commas, semicolons or tabs, with a header line"
        found.append(Problem(shown, row, None, f"one column only ('{''.join(header)[:40]}')", do))
        return
    if len(header) > MAX_COLUMNS:
        found.append(Problem(shown, row, None, f"{len(header)} columns", f"a score table has at most {MAX_COLUMNS}"))
        return
    if rows < 2:
        found.append(Problem(shown, row, None, "a header without rows", "give one row a model"))
    tally = Tally()
    for place, name in enumerate(header, 1):
        if not name or re.fullmatch(r"Unnamed: \d+", name):
            if place == 1 and name == "":
                continue  # a written index: looked at later
            told = "an empty header cell (merged cells?)"
            tally.add("empty", Problem(shown, row, f"number {place}", told, "name every column"))
    for name, count in Counter(h for h in header if h).items():
        if count > 1:
            told = f"{count} columns of this name"
            tally.add("twice", Problem(shown, row, name[:80], told, "give every column its own name"))
        if name == "__row__":
            tally.add("row", Problem(shown, row, name, "a reserved name", "rename the column"))
    found += tally.told("columns")
    if all(_number(h)[0] is not None for h in header[1:]):
        found.append(Problem(shown, row, None, "numbers where the header should be", "add a header line"))


_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4})?", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d{1,3}([,.'’\u0020\u00a0\u2009\u202f])\d{3}(?:\1\d{3})*(?:[.,]\d+)?", re.ASCII)
_TWO = re.compile(r"[+-]?\d*[.,]?\d+\s*%?\s*(?:±|\+/-|\+-|\(|\[)\D{0,4}\d.*", re.ASCII | re.DOTALL)


def _number(value: Any) -> tuple[float | None, str]:
    """Return a number and how it was written; (None, "") when it is none, (None, "two") for two in one cell.

    The way is "whole", "point" (a decimal point), "comma" (a decimal comma), "thousands", or "either": 1,287 may be
    either of the last two, and its value here is the one with a decimal comma.

    >>> _number("1,234.5"), _number("0,31"), _number("1,287"), _number("21.3 (0.4)")
    ((1234.5, 'thousands'), (0.31, 'comma'), (1.287, 'either'), (None, 'two'))
    """
    if isinstance(value, (bool, np.bool_)):
        return None, ""
    if isinstance(value, (int, float, np.integer, np.floating)):
        try:
            number = float(value)
        except OverflowError:
            return math.inf, "whole"
        return number, "whole" if number.is_integer() else "point"
    text = str(value).strip().replace("\u2212", "-").removesuffix("%").strip()
    if len(text) > 60:
        return None, ""
    if text.lower().lstrip("+-") in ("inf", "infinity"):
        return math.inf, "point"
    if _PLAIN.fullmatch(text):
        number = float(text)
        return number, "point" if "." in text or not number.is_integer() else "whole"
    if re.fullmatch(r"[+-]?\d+,\d+", text, re.ASCII):
        either = re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text)
        return float(text.replace(",", ".")), "either" if either else "comma"
    grouped = _GROUPED.fullmatch(text)
    if grouped:
        sign = grouped[1]
        last = re.search(r"[.,](\d+)$", text)
        decimal = last[0][0] if last and last[0][0] != sign else None
        plain = text.replace(sign, "")
        return float(plain.replace(decimal, ".") if decimal else plain), "thousands"
    return (None, "two") if _TWO.fullmatch(text) else (None, "")


def _plain_name(name: object) -> str:
    """Return a heading in its plain form: lower case, words joined by ``_``, signs dropped."""
    return re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")


def _column(table: pd.DataFrame, names: Iterable[str]) -> str | None:
    low: dict[str, str] = {}
    for c in table.columns:
        low.setdefault(_plain_name(c), c)
    return next((low[n] for n in names if n in low), None)


def _model_column(table: pd.DataFrame) -> str | None:
    """Return the column of model names: ``model``, ``Model Name``, ``Model/adapter``, ``LLM`` and the like."""
    for c in table.columns:
        words = _plain_name(c).split("_")
        if set(words) <= _MODEL_WORDS | _MODEL_EXTRAS and set(words) & _MODEL_WORDS:
            return c
    return None


def _long(
    table: pd.DataFrame, path: Path, benchmark: str | None, wanted: set[str], found: list[Problem]
) -> pd.DataFrame:
    """Return a wide or a long table as one row a score, values as written."""
    shown = _shown(path)
    if "" in table.columns and _model_column(table) is None:
        table = table.rename(columns={"": "model"})
    table = table.drop(columns="", errors="ignore")
    model = _model_column(table)
    score = None if _column(table, _SCORE_NAMES) in wanted else _column(table, _SCORE_NAMES)
    task = _column(table.drop(columns=[model] if model else []), _BENCHMARK_NAMES)
    others = [c for c in table.columns if c not in ("__row__", model, task)]
    notes = {c for c in others if c not in wanted and _plain_name(c) in {*_NOTES, *_COUNTS, *_ERRORS}}
    metric, filters = _column(table, ("metric", "metric_name")), _column(table, ("filter",))
    shots = _column(table, ("num_fewshot", "n_shot", "n_shots", "num_shots", "shots", "fewshot"))
    empty = pd.DataFrame(columns=list(PIECES))
    settings = {c: n for c, n in ((metric, "metric"), (filters, "filter"), (shots, "num_fewshot")) if c}
    if model is None and task is not None and score is None:  # one row a benchmark, one column a model
        columns = [c for c in others if c not in notes and _mostly_numbers(table[c])]
        left = sorted(set(others) - set(columns) - notes)
        _tell_left_out(table, left, shown, "a model", found)
        pieces = table.melt([task, "__row__", *settings], columns, "model", "raw")
        pieces = pieces.rename(columns={task: "benchmark"} | settings)
        pieces["column"] = pieces["model"]
    elif model is None:
        listed = ", ".join(f"'{c}'" for c in [c for c in table.columns if c != "__row__"][:12])
        told = f"no column of models; columns: {listed}"
        found.append(Problem(shown, 1, None, told, "name the column of models 'model'"))
        return empty
    elif score is not None and (task is not None or len(set(others) - notes) <= 1):
        extra = {c: n for n, names in (("n_items", _COUNTS), ("stderr", _ERRORS)) if (c := _column(table, names))}
        pieces = table.rename(columns={model: "model", score: "raw"} | ({task: "benchmark"} if task else {}))
        pieces = pieces.rename(columns=extra | {c: n for c, n in settings.items() if c != score})
        if task is None:
            pieces["benchmark"] = benchmark or Path(shown.rsplit(":", 1)[-1]).stem
        if metric is None and _plain_name(score) in ("accuracy", "acc"):
            pieces["metric"] = _plain_name(score)
        pieces["column"] = score
    else:
        pieces = _wide(table, model, others, notes, wanted, shown, found)
        if pieces is None:
            return empty
    pieces = pieces.rename(columns={"__row__": "row"})
    pieces["source"], pieces["path"] = shown, shown
    pieces["row"] = pd.Series([int(n) for n in pieces["row"]], pieces.index, dtype=object)
    pieces["model"] = pieces["model"].map(_link_text)
    if "metric" in pieces:
        pieces["metric"] = pieces["metric"].map(lambda m: None if _is_missing(m) else str(m))
    return pieces.loc[:, ~pieces.columns.duplicated()]


def _wide(table, model, others, notes, wanted, shown, found) -> pd.DataFrame | None:
    """Return one row a score of a table with one row a model; each benchmark with its own errors and counts."""
    belongs: dict[str, dict[str, str]] = {}  # benchmark -> n_items, stderr -> their columns
    plain = {_plain_name(c): c for c in reversed(others) if c not in notes}
    for c in others:
        name = _plain_name(c)
        for word, endings in (("stderr", _ERRORS), ("n_items", _COUNTS)):
            for ending in sorted(endings, key=len, reverse=True):
                base = name.removesuffix("_" + ending) if name.endswith("_" + ending) else ""
                base = base or (name.removeprefix(ending + "_") if name.startswith(ending + "_") else "")
                owner = plain.get(base) or plain.get(re.sub(r"_(acc|acc_norm|score|exact_match)$", "", base))
                if base and owner and owner != c and c not in wanted:
                    belongs.setdefault(owner, {}).setdefault(word, c)
                    break
            else:
                continue
            break
    taken = {c for own in belongs.values() for c in own.values()}
    odd = sorted(c for c in others if c not in wanted | taken | notes and _is_companion(c))
    if odd:
        told = f"{len(odd)} column(s) of errors or counts belong to no benchmark, first '{odd[0]}'; not used"
        found.append(Problem(shown, None, odd[0], told, "name them as the benchmark, then '_stderr' or '_n'", False))
    numeric = [c for c in others if c not in notes | taken | set(odd) and (c in wanted or _mostly_numbers(table[c]))]
    _tell_left_out(table, sorted(set(others) - set(numeric) - notes - taken - set(odd)), shown, "a benchmark", found)
    if not numeric:
        do = "give one column a benchmark, or 'score'"
        found.append(Problem(shown, None, None, "no column of numbers", do))
        return None
    shared = {n: c for n, names in (("n_items", _COUNTS), ("stderr", _ERRORS)) if (c := _column(table, names)) in notes}
    if len(numeric) > 1:
        for name in shared.values():
            told = f"it could belong to any of {len(numeric)} benchmarks; not used"
            do = "write one row a score, with this column"
            found.append(Problem(shown, None, name, told, do, serious=False))
        shared = {}
    told_of = {c for names in (_COUNTS, _ERRORS) if (c := _column(table, names))}
    left = [c for c in table.columns if c in notes - told_of and _mostly_numbers(table[c])]
    if left:
        told = f"{len(left)} column(s) of numbers are notes, not benchmarks: {', '.join(left[:6])}"
        found.append(Problem(shown, None, None, told, "say --benchmark NAME if one is meant", serious=False))
    parts = []
    for name in numeric:
        part = table[[model, "__row__"]].rename(columns={model: "model"})
        part["benchmark"], part["column"], part["raw"] = name, name, table[name]
        for word, column in (shared | belongs.get(name, {})).items():
            part[word] = table[column]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _is_companion(column: str) -> bool:
    """Return whether a heading is that of standard errors or counts of something: a benchmark never ends so."""
    return _ends(str(column), ("stderr", "std_err", "standard_error", "std_error", "n_items", "n_samples", "num_items"))


def _tell_left_out(table: pd.DataFrame, names: list[str], shown: str, what: str, found: list[Problem]) -> None:
    tally = Tally()
    for name in names:
        told = next((str(v)[:30] for v in table[name] if not _is_missing(v) and _number(v) == (None, "")), "")
        told = f"no column of numbers (first value that is none: '{told}'); not {what}"
        tally.add("text", Problem(shown, None, name, told, "nothing, if it is a note", serious=False))
    found += tally.told("columns")


def _link_text(name: object) -> object:
    """Return the text of a link, HTML or Markdown, as leaderboards write model names; other names as they are.

    >>> _link_text('<a href="https://hf.co/o/m" style="x">o/m</a> <a href="d">details</a>'), _link_text("[m](http://x)")
    ('o/m', 'm')
    """
    if not isinstance(name, str):
        return name
    tag = re.search(r"<a\b[^<>]*>(.*?)</a>", name, re.DOTALL | re.IGNORECASE)
    if tag:
        return html.unescape(re.sub(r"<[^<>]*>", "", tag[1])).strip()
    link = re.match(r"\s*\[([^\[\]]+)\]\([^()\s]*\)", name)
    return link[1].strip() if link else name


def _mostly_numbers(column: pd.Series) -> bool:
    values = [v for v in column if not _is_missing(v)]
    return bool(values) and sum(_number(v) != (None, "") for v in values) * 2 >= len(values)


def _is_missing(value: Any) -> bool:
    if (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, (float, np.floating)) and value != value)
    ):
        return True
    return isinstance(value, str) and value.strip().lower() in MISSING


# --- lm-evaluation-harness ------------------------------------------------------------------------------------------


def read_harness(
    folder: Path | str,
    *,
    metric: str | None = None,
    runs: str = "newest",
    level: Level = "group",
    problems: list[Problem] | None = None,
) -> pd.DataFrame:
    """Read every results file under a folder of lm-evaluation-harness, old and new layouts mixed.

    Of several runs of one model and task the newest wins (the time in the name, else the date in the file), unless
    `runs` is a part of the path or a shot count ("5shot"). Aggregate rows ("all", "average") are left out; of groups
    and subtasks `level` says which to keep, and a group without a number never hides its parts. Perplexities, losses
    and errors are turned so that higher is better. Mixed few-shot counts, chat templates, limits and metrics of one
    task are noted. The file layouts of lighteval and the first Open LLM Leaderboard are read too.
    """
    return read(folder, metric=metric, runs=runs, level=level, problems=problems)


def _json_files(folder: Path, found: list[Problem]) -> list[Path]:
    """Return the regular .json files under a folder, links to folders not followed."""
    files = []
    for here, folders, names in os.walk(folder, followlinks=False):
        folders.sort()
        files += [Path(here, n) for n in sorted(names) if n.lower().endswith(".json") and not n.startswith(".")]
        if len(files) > MAX_FILES:
            do = f"give a folder with at most {MAX_FILES} results files"
            found.append(Problem(_shown(folder), None, None, "too many files", do))
            return []
    return files


def _harness_files(
    files: list[Path],
    folder: Path | None,
    runs: str,
    level: Level,
    wanted: set[str],
    headings: dict[str, list[str]],
    problems: list[Problem],
) -> pd.DataFrame:
    """Return the rows of all results files; `headings` collects groups without a number and their parts."""
    tally, rows = Tally(), []
    shots = re.fullmatch(r"(\d+)[ _-]?shots?", runs.lower())
    shown_folder = _shown(folder if folder is not None else files[0])
    used = 0
    for path in files:
        place = path.relative_to(folder).as_posix() if folder is not None else path.name
        place = place.encode("utf-8", "replace").decode()
        if runs != "newest" and not shots and not _is_part(runs, place):
            continue
        content = _load_json(path, folder is not None, tally)
        if content is None:
            continue
        own = _file_rows(content, path, place, folder is not None, level, wanted, headings, tally)
        if shots:
            named = re.search(rf"(?<!\d){shots[1]}[ _-]?shots?(?![a-z])", place.lower())
            own = [r for r in own if r["num_fewshot"] == int(shots[1]) or (r["num_fewshot"] is None and named)]
        used += bool(own)
        rows += own
    problems += tally.told("files")
    if not rows and not any(p.serious for p in problems):
        if runs != "newest":
            told, do = (
                f"no results of run '{runs}' among {len(files)} file(s)",
                "correct --runs: a part of a path, or 5shot",
            )
        else:
            what = "no results file" if not files else "no results"
            told, do = f"{what} of lm-evaluation-harness", "give the output folder"
        problems.append(Problem(shown_folder, None, None, told, do))
    return pd.DataFrame(rows, columns=list(PIECES))


def _is_part(wanted: str, place: str) -> bool:
    """Return whether a run's name is a part of a path; a number in it is a whole number (run1 is not run10)."""
    before = r"(?<!\d)" if wanted[:1].isdigit() else ""
    after = r"(?!\d)" if wanted[-1:].isdigit() else ""
    return re.search(before + re.escape(wanted) + after, place) is not None


def _load_json(path: Path, in_folder: bool, tally: Tally) -> Mapping | None:
    """Return the mapping that a results file holds, or None after saying why not."""
    shown = _shown(path)
    do = "repair or remove it"
    try:
        if not path.is_file():
            tally.add("kind", Problem(shown, None, None, "not a regular file", "passed over", serious=False))
            return None
        size = path.stat().st_size
        if size > MAX_BYTES:
            told = f"{size / 2**20:.0f} MiB; results files have at most {MAX_BYTES >> 20}"
            tally.add("size", Problem(shown, None, None, told, "leave sample logs out", serious=not in_folder))
            return None
        content = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_unique)
    except _TwiceError as error:
        told = f"the key '{str(error)[:60]}' stands twice in one object"
        tally.add("key twice", Problem(shown, None, None, told, "keep one"))
        return None
    except (OSError, ValueError, RecursionError) as error:  # ValueError: syntax, encoding, endless digits
        told = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        tally.add("json", Problem(shown, getattr(error, "lineno", None), None, f"not valid JSON ({told})", do))
        return None
    if isinstance(content, Mapping) and ("results" in content or "eval_metrics" in content):
        return content
    told = "no 'results' of lm-evaluation-harness in it"
    do = "ignored" if in_folder else "give a results file"
    tally.add("other", Problem(shown, None, None, told, do, serious=not in_folder))
    return None


class _TwiceError(ValueError):
    """A key stands twice in one JSON object: which of its values is meant cannot be known."""


def _unique(pairs: list[tuple[str, Any]]) -> dict:
    out = dict(pairs)
    if len(out) < len(pairs):
        raise _TwiceError(next(k for k, n in Counter(k for k, _ in pairs).items() if n > 1))
    return out


def _file_rows(
    content: Mapping,
    path: Path,
    place: str,
    in_folder: bool,
    level: Level,
    wanted: set[str],
    headings: dict[str, list[str]],
    tally: Tally,
) -> list[dict]:
    shown = _shown(path)

    def part(key: str) -> dict:
        """Return a mapping of the file; what is none is told and counts as absent."""
        value = content.get(key)
        if value is not None and not isinstance(value, Mapping):
            told = f"'{key}' is {type(value).__name__}, expected an object"
            tally.add(("shape", key), Problem(shown, None, key, told, "give the file as the harness wrote it"))
        return dict(value) if isinstance(value, Mapping) else {}

    evaluation = part("eval_metrics")
    if evaluation and "results" not in content:
        return _dclm(evaluation, content, path, shown, tally)
    results = {**part("groups"), **part("results")}
    listed = part("group_subtasks")
    tree = {}
    for group, members in listed.items():
        if isinstance(members, list) and all(isinstance(m, str) for m in members):
            tree[group] = members
        else:
            told = f"the members of '{group}' are no list of names"
            tally.add("members", Problem(shown, None, "group_subtasks", told, "give the file as the harness wrote it"))
    names = {task: _task_name(task) for task in results}
    for task in results:  # lighteval: the mean over the parts of a task
        if ":_average" in task and task not in tree:
            stem = task.split(":_average")[0] + ":"
            tree[task] = [t for t in results if t.startswith(stem) and t != task]
    metrics: dict[str, dict] = {}
    for task, values in results.items():
        if task.lower() in _AGGREGATES:
            continue
        if not isinstance(values, Mapping):
            told = f"the results of '{task}' are {type(values).__name__}, expected an object"
            tally.add("values", Problem(shown, None, task, told, "give the file as the harness wrote it"))
            continue
        metrics[task] = _metrics(values)
    measured = {t for t, own in metrics.items() if any(not _is_missing(v) for v, _ in own.values())}
    for task, own in metrics.items():
        if task in measured or (not own and task in tree):
            continue
        tally.add("blank", Problem(shown, None, task, f"'{task}' has no number", "left out", serious=False))
    for group, members in tree.items():
        if group not in measured and group in results:
            headings.setdefault(names[group][0] if group in names else group, [m for m in members if m in measured])
    kept = _at_level(measured, tree, level)
    kept |= {t for t in measured if names[t][0] in wanted or t in wanted}
    config, general = part("config"), part("config_general")
    samples, configs, shots = part("n-samples"), part("configs"), part("n-shot")
    rising = part("higher_is_better")
    model = _model_of(content, config, general, place, in_folder)
    run = _moment(content, place)
    chat = content.get("chat_template_sha") or ("yes" if content.get("chat_template") else "no")
    chat = str(chat) if "chat_template" in content or "chat_template_sha" in content else None
    limit = config.get("limit")
    if limit and kept:
        told = f"run with limit {str(limit)[:20]}"
        tally.add("limit", Problem(shown, None, None, told, "full runs compare better", serious=False))
    rows = []
    for task in results:
        if task not in kept:
            continue
        name, named_shots = names[task]
        count = _items(task, samples, tree, results[task])
        own_shots = _shots(task, named_shots, shots, configs, config)
        told = rising.get(task)
        for (metric, flt), (value, error) in metrics[task].items():
            way = told.get(metric) if isinstance(told, Mapping) else None
            rows.append({
                "benchmark": name, "model": model, "raw": value, "n_items": count, "stderr": error, "source": shown,
                "metric": metric, "filter": flt, "num_fewshot": own_shots, "chat_template": chat, "run": run,
                "rises": way if isinstance(way, bool) else None, "row": None, "column": name, "origin": "harness",
                "path": place,
            })  # fmt: skip
    if not rows and not metrics:
        told = "no usable result in this file"
        tally.add("nothing", Problem(shown, None, None, told, "look at its metrics", serious=False))
    return rows


def _metrics(values: Mapping) -> dict[tuple[str, str], tuple[Any, Any]]:
    """Return (metric, filter) -> (value, standard error) as written; what is plainly no metric is left out."""
    found = {}
    for key, value in values.items():
        name, _, flt = str(key).partition(",")
        if name.endswith("_stderr") or name in _NOT_METRICS or isinstance(value, (list, Mapping)):
            continue
        if isinstance(value, str) and not _is_missing(value) and _number(value) == (None, ""):
            continue  # a text field; a number written as text is kept and judged
        error = values.get(f"{name}_stderr,{flt}", values.get(f"{name}_stderr"))
        if isinstance(value, str) and _is_missing(value):
            value = None
        found[name, flt] = (value, error)
    return found


def _at_level(measured: set[str], tree: Mapping[str, list[str]], level: Level) -> set[str]:
    """Return the tasks with numbers to show: whole groups, their parts or both. No group hides what it does not give."""
    if level == "both":
        return set(measured)
    inside = {m for members in tree.values() for m in members}
    shown: set[str] = set()
    hidden: set[str] = set()
    seen: set[str] = set()

    def below(task: str) -> set[str]:
        reached, open_tasks = set(), list(tree.get(task, ()))
        while open_tasks:
            one = open_tasks.pop()
            if one not in reached and one != task:
                reached.add(one)
                open_tasks += tree.get(one, ())
        return reached

    if level == "subtask":
        return {t for t in measured if not below(t) & measured}
    todo = [t for t in (*tree, *sorted(measured)) if t not in inside]
    while todo:
        task = todo.pop()
        if task in seen:
            continue
        seen.add(task)
        if task in measured:
            shown.add(task)
            if task in tree:
                hidden |= below(task)
        else:
            todo += tree.get(task, ())
    return (shown - hidden) | (measured - seen - hidden - shown)


def _dclm(evaluation: Mapping, content: Mapping, path: Path, shown: str, tally: Tally) -> list[dict]:
    tasks = evaluation.get("icl")
    if not isinstance(tasks, Mapping) or not tasks:
        told, do = "no scores in 'eval_metrics.icl'", "give a full DCLM evaluation"
        tally.add("dclm", Problem(shown, None, "eval_metrics.icl", told, do))
        return []
    name = path.stem.removeprefix("evaluation_").removesuffix("_heavy").encode("utf-8", "replace").decode()
    run = _moment(content, path.name)
    return [
        {
            "benchmark": str(task), "model": name, "raw": value, "n_items": None, "stderr": None, "source": shown,
            "metric": "accuracy", "num_fewshot": None, "run": run, "column": str(task), "origin": "dclm",
            "path": path.name,
        }
        for task, value in tasks.items()
        if not isinstance(value, (list, Mapping))
    ]  # fmt: skip


def _model_of(content: Mapping, config: Mapping, general: Mapping, place: str, in_folder: bool) -> str:
    """Return the name of the model that a results file is about, with what makes it another model than its name says."""
    arguments = config.get("model_args") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = dict(a.split("=", 1) for a in arguments.split(",") if "=" in a)
    arguments = (
        {k.strip(): v for k, v in arguments.items() if isinstance(k, str)} if isinstance(arguments, Mapping) else {}
    )
    lighteval = general.get("model_config")
    lighteval = lighteval if isinstance(lighteval, Mapping) else {}
    places = (
        arguments.get("pretrained"), arguments.get("model"), general.get("model_name"), lighteval.get("model_name"),
        content.get("model_name"), config.get("model_name"),
    )  # fmt: skip
    name = next((p.strip() for p in places if isinstance(p, str) and p.strip()), None)
    if name is None:
        parts = place.split("/")
        folder = parts[-2] if len(parts) > 1 else ""
        if "__" in folder:
            name = folder.replace("__", "/", 1)
        elif parts[-1].startswith("results") and len(parts) > 1:
            name = "/".join(parts[-3:-1])
        else:
            name = Path(place).stem
    revision = arguments.get("revision") or general.get("model_revision")
    if isinstance(revision, str) and revision.strip() not in ("", "main", "None"):
        name = f"{name}@{revision.strip()}"
    other = [
        f"{k}={v}" for k in _IDENTITY
        if (v := arguments.get(k)) and str(v).lower() not in ("false", "none", "") and isinstance(v, (str, bool, int))
    ]  # fmt: skip
    name = f"{name} ({', '.join(other)})" if other else name
    return name.encode("utf-8", "replace").decode()


_STAMP = re.compile(
    r"(\d{4})-?(\d{2})-?(\d{2})(?:[T_ -](\d{2})(?:[-:_.：]|%3A)?(\d{2})(?:[-:_.：]|%3A)?(\d{2})(?:[.,](\d+))?)?"
)


def _moment(content: Mapping, place: str) -> str | None:
    """Return a sortable time of a run: the one in its name, in a folder's name, or its date field; None if none is told."""
    for part in reversed(place.split("/")):
        for stamp in reversed(list(_STAMP.finditer(part))):
            year, month, day, hour, minute, second = (int(v or 0) for v in stamp.groups()[:6])
            fraction = (stamp[7] or "0")[:6].ljust(6, "0")
            try:
                when = datetime.datetime(year, month, day, hour, minute, second, int(fraction))
            except ValueError:
                continue
            if 2015 <= year <= 2100:
                return _time(when)
    for date in (content.get("date"), content.get("creation_date")):
        try:
            if isinstance(date, str):
                when = datetime.datetime.fromisoformat(date.strip().replace("Z", "+00:00"))
            elif isinstance(date, (int, float)) and not isinstance(date, bool):
                when = datetime.datetime.fromtimestamp(date, datetime.UTC)
            else:
                continue
        except (ValueError, OverflowError, OSError):
            continue
        if 2015 <= when.year <= 2100:
            return _time(when.astimezone(datetime.UTC) if when.tzinfo else when)
    return None


def _time(when: datetime.datetime) -> str:
    return when.replace(tzinfo=None).isoformat(timespec="microseconds" if when.microsecond else "seconds")


def _items(task: str, samples: Mapping, tree: Mapping[str, list[str]], values: object) -> Any:
    """Return the number of items of a task as written, of a group the sum over its parts."""

    def own(name: str) -> Any:
        value = samples.get(name)
        return value.get("effective") if isinstance(value, Mapping) else None

    count = own(task)
    if count is None and task in tree:
        leaves, seen, todo = [], set(), list(tree[task])
        while todo:
            one = todo.pop()
            if one not in seen:
                seen.add(one)
                todo += tree.get(one, ())
                leaves += [] if tree.get(one) else [own(one)]
        good = bool(leaves) and all(isinstance(n, int) and not isinstance(n, bool) for n in leaves)
        count = sum(leaves) if good else None
    return values.get("sample_len") if count is None and isinstance(values, Mapping) else count


def _task_name(task: str) -> tuple[str, int | None]:
    """Return the plain name and shots of names such as ``harness|arc:challenge|25`` or ``leaderboard|gsm8k|5|0``.

    >>> _task_name("leaderboard|arc:challenge|25|0"), _task_name("arc_easy")
    (('arc_challenge', 25), ('arc_easy', None))
    """
    parts = task.split("|")
    place = 2 if len(parts) in (3, 4) else 1
    if len(parts) in (2, 3, 4) and parts[place].isdecimal() and len(parts[place]) < 5:
        return parts[place - 1].split(":_average")[0].replace(":", "_"), int(parts[place])
    return task, None


def _shots(task: str, named: int | None, shots: Mapping, configs: Mapping, config: Mapping) -> int | None:
    own = configs.get(task)
    told = (shots.get(task), own.get("num_fewshot") if isinstance(own, Mapping) else None, config.get("num_fewshot"))
    if named is not None:
        return named
    return next((s for s in told if isinstance(s, int) and not isinstance(s, bool) and 0 <= s < 10_000), None)


# --- model names ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matching:
    """How given model names relate to known ones.

    `matched` has ``given``, ``known``, ``how`` (exact, normalised, base name); `unmatched` maps each other name to
    its nearest known names, best first.
    """

    matched: pd.DataFrame
    unmatched: dict[str, list[str]]


def normalise_model(name: str) -> str:
    """Return a model name in its normal form.

    The rule: address of a hub and white space removed, a folder of the hub's cache (``models--owner--name``) read as
    owner/name, of any other path the last part, lower case, a revision ``@main`` or ``:main`` dropped and any other
    kept, ``_``, ``.`` and space written ``-``, a closing ``-hf`` dropped.

    >>> normalise_model("https://huggingface.co/EleutherAI/Pythia_160M@main")
    'eleutherai/pythia-160m'
    >>> normalise_model("/cache/models--EleutherAI--pythia-160m/snapshots/0a1b"), normalise_model("/data/Llama-2-7b-hf")
    ('eleutherai/pythia-160m', 'llama-2-7b')
    """
    name = str(_link_text(str(name))).strip()
    cached = re.search(r"models--([^/\\]+)", name)
    address = re.match(r"https?://[^/]+/", name)
    if cached:
        name = cached[1].replace("--", "/", 1)
    elif address:
        parts = re.sub(r"[?#].*$", "", name[address.end() :]).strip("/").split("/")
        query = re.search(r"\?revision=([^&]+)", name)
        revision = parts[3] if len(parts) > 3 and parts[2] in ("tree", "blob") else query[1] if query else "main"
        name = "/".join(parts[:2])
        name += "" if "@" in name else f"@{revision}"
    elif re.match(r"[/~.]|[A-Za-z]:[\\/]", name) or name.count("/") > 1 or "\\" in name:
        name = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    name = name.strip("/").lower()
    name = name.replace("__", "/", 1) if "/" not in name else name
    name = re.sub(r"(@|:|#|\?revision=|,revision=|\s+revision=)main$", "", name)
    name = re.sub(r"@|:|#|\?revision=|,revision=|\s+revision=", "-", name)
    name = re.sub(r"[\s_.]+", "-", name)
    return name.removesuffix("-hf")


def match_models(given: Iterable[str], known: Iterable[str]) -> Matching:
    """Match model names exactly, then by :func:`normalise_model`, then by the part after the owner.

    A name that fits several known ones, or none, is not matched but gets suggestions by similarity.

    >>> match_models(["pythia-160m", "gpt9"], ["EleutherAI/pythia-160m"]).matched["how"].tolist()
    ['base name']
    """
    known = list(dict.fromkeys(known))
    exact = set(known)
    normal, base = {}, {}
    for name in known:
        normal.setdefault(normalise_model(name), []).append(name)
        base.setdefault(normalise_model(name).rsplit("/", 1)[-1], []).append(name)
    rows, unmatched = [], {}
    spelt = {name: _pieces(form) for form, names in normal.items() for name in names}
    for name in dict.fromkeys(str(g) for g in given):
        form = normalise_model(name)
        short = form.rsplit("/", 1)[-1]
        if name in exact:
            rows.append((name, name, "exact"))
        elif len(normal.get(form, [])) == 1:
            rows.append((name, normal[form][0], "normalised"))
        elif len(base.get(short, [])) == 1 and _owners_agree(form, base[short][0]):
            rows.append((name, base[short][0], "base name"))
        else:
            unmatched[name] = _suggestions(form, spelt) if len(unmatched) < SUGGESTED else []
    return Matching(pd.DataFrame(rows, columns=["given", "known", "how"]), unmatched)


SUGGESTED = 2000  # so many unknown names get suggestions; more are only counted


def _owners_agree(form: str, known: str) -> bool:
    """A base name matches only when one of the two names has no owner: two owners mean two models."""
    return "/" not in form or "/" not in normalise_model(known)


def _pieces(form: str) -> tuple[str, frozenset[str], frozenset[str]]:
    """Return a normal form and the pairs of letters of it and of the part after the owner."""
    short = form.rsplit("/", 1)[-1][:200]
    form = form[:200]
    return form, *(frozenset(map("".join, itertools.pairwise(word))) for word in (form, short))


def _suggestions(form: str, spelt: Mapping[str, tuple[str, frozenset[str], frozenset[str]]]) -> list[str]:
    """Return up to three known names that are spelt much alike; pairs of letters sort out what is not worth a look."""
    form, whole, short = _pieces(form)
    if not short:
        return []
    near = []
    for name, (other, other_whole, other_short) in spelt.items():
        alike = max(
            2 * len(whole & other_whole) / max(len(whole) + len(other_whole), 1),
            2 * len(short & other_short) / max(len(short) + len(other_short), 1),
        )
        if alike > 0.6:
            near.append((alike, name, other))
    near = sorted(near, reverse=True)[:5]
    ratio = {
        n: max(
            SequenceMatcher(None, form, other).ratio(),
            SequenceMatcher(None, form.rsplit("/", 1)[-1], other.rsplit("/", 1)[-1]).ratio() - 0.01,
        )
        for _, n, other in near
    }
    return sorted((n for n in ratio if ratio[n] >= 0.74), key=lambda n: -ratio[n])[:3]
