"""Score tables as people have them: wide or long tables, lm-evaluation-harness folders, DCLM evaluations.

Every reader returns one long table with the columns :data:`COLUMNS`: ``score`` is a fraction with higher better
wherever the source allows it, ``metric`` says what it was, ``num_fewshot``, ``chat_template`` and ``run`` carry the
settings along. Nothing is guessed in silence: what a reader decides (percent, decimal commas, which run, which
metric) is a note; what it cannot decide is a serious problem. With ``problems=None`` notes become warnings and
serious problems one DataError.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from helpers import paths
from helpers.errors import DataError, nearest
from helpers.problems import Problem, refuse

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
Scale = Literal["auto", "fraction", "percent", "raw"]
MAX_BYTES = 512 * 2**20
MISSING = {"", "na", "n/a", "nan", "none", "null", "-", "--", "?", "missing"}

_MODEL_NAMES = ("model", "model_name", "llm", "model id", "model_id", "models")
_BENCHMARK_NAMES = ("benchmark", "task", "dataset", "benchmark_name", "benchmarks", "tasks")
_SCORE_NAMES = ("score", "value", "accuracy", "acc", "result", "metric_value")
_EXTRA_NAMES = {
    "n_items": ("n_items", "n", "items", "n_samples", "samples"),
    "stderr": ("stderr", "se", "std_err"),
}
# Metrics of one harness task, the first present is taken unless the caller names another.
_PREFERRED = (
    "acc", "exact_match", "f1", "em", "mc2", "pass@1", "prompt_level_strict_acc", "acc_norm", "mc1", "word_perplexity",
    "perplexity", "byte_perplexity", "bits_per_byte",
)  # fmt: skip
_LOWER_IS_BETTER = (
    "perplexity",
    "ppl",
    "bits_per_byte",
    "bpb",
    "loss",
    "error",
    "err",
    "brier",
    "wer",
    "ter",
)


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
    lower_is_better: Iterable[str] = (),
    metric: str | None = None,
    runs: str = "newest",
    level: Literal["group", "subtask", "both"] = "group",
    problems: list[Problem] | None = None,
) -> pd.DataFrame:
    """Read scores from a table (``.csv``, ``.tsv``, ``.txt``, ``.parquet``), a results JSON or a harness folder.

    Parameters
    ----------
    benchmark
        Name for a long table without a benchmark column.
    benchmarks
        The benchmarks to keep, for tables with other columns of numbers; all when empty.
    scale
        How numbers are written: "auto" takes a benchmark with values above 1 as percent and says so, "fraction" and
        "percent" insist, "raw" leaves any number as it is.
    lower_is_better
        Benchmarks whose scores are turned: 1 - score for fractions, the negative otherwise. Perplexities, errors and
        losses of a harness folder are recognised and turned (perplexity as minus its logarithm).
    metric, runs, level
        Harness folders only: the metric to take (default: the first of a documented order), which run when several
        exist ("newest", or a part of the file name), and whether groups, their subtasks or both are kept.

    Returns
    -------
    DataFrame with the columns :data:`COLUMNS`, one row a measured score.

    Raises
    ------
    DataError
        listing every serious problem, each with file, row, column, what was found and what to do.
    """
    found: list[Problem] = []
    frame = pd.DataFrame(columns=list(COLUMNS))
    shown = _shown(path)
    try:
        path = Path(path)
        is_folder, is_file = path.is_dir(), path.is_file()
    except ValueError:  # a null byte in the name
        found.append(Problem(shown, None, None, "not a usable path", "give the path of a file or folder"))
        return _finish(frame, found, problems)
    if is_folder:
        frame = read_harness(path, metric=metric, runs=runs, level=level, problems=found)
        frame = _kept(frame, set(benchmarks), shown, found)
    elif not is_file:
        found.append(Problem(shown, None, None, "no such file or folder", "check the path"))
    elif path.stat().st_size > MAX_BYTES:
        size = path.stat().st_size / 2**20
        found.append(Problem(shown, None, None, f"{size:.0f} MiB", f"a score table has at most {MAX_BYTES >> 20} MiB"))
    elif path.suffix.lower() == ".json":
        frame = _read_json(path, metric, level, found)
    elif path.suffix.lower() in (".csv", ".tsv", ".txt", ".parquet"):
        table = _read_table(path, found)
        frame = _long(table, shown, benchmark, found) if table is not None else frame
        frame = _kept(frame, set(benchmarks), shown, found)
        frame = _scaled(frame, shown, scale, set(lower_is_better), found)
    else:
        do = "give a .csv, .tsv or .parquet table, a results .json or a folder of lm-evaluation-harness"
        found.append(Problem(shown, None, None, f"files of type '{path.suffix}' are not score tables", do))
    unknown = set(lower_is_better) - set(frame["benchmark"])
    for name in sorted(unknown) if len(frame) else ():
        found.append(Problem(shown, None, None, f"no benchmark '{name}' to turn around", "correct lower_is_better"))
    if len(frame):
        frame = _without_repeats(frame, shown, found)
    return _finish(frame.reset_index(drop=True), found, problems)


def _shown(path: Path | str) -> str:
    try:
        return paths.label(path)
    except (ValueError, OSError):
        return repr(str(path))


def _kept(frame: pd.DataFrame, wanted: set[str], shown: str, found: list[Problem]) -> pd.DataFrame:
    if not wanted:
        return frame
    for name in sorted(wanted - set(frame["benchmark"])):
        told = f"no benchmark '{name}'; {nearest(name, frame['benchmark'].unique())}"
        found.append(Problem(shown, None, name, told, "correct the name"))
    return frame[frame["benchmark"].isin(wanted)]


def _without_repeats(frame: pd.DataFrame, shown: str, found: list[Problem]) -> pd.DataFrame:
    twice = frame.duplicated(["benchmark", "model"], keep=False)
    for (name, model), group in frame[twice].groupby(["benchmark", "model"]):
        values = ", ".join(f"{v:g}" for v in group["score"])
        if group["score"].nunique() > 1:
            do = "keep one row per model and benchmark"
            found.append(Problem(shown, None, name, f"model '{model}' has {len(group)} scores ({values})", do))
        else:
            found.append(
                Problem(
                    shown,
                    None,
                    name,
                    f"model '{model}' is listed {len(group)} times with one score",
                    "one was used",
                    serious=False,
                )
            )
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


def _read_table(path: Path, found: list[Problem]) -> pd.DataFrame | None:
    """Return the table as strings (parquet: as stored) with a column ``__row__``, or None after saying why not."""
    shown = _shown(path)
    if path.suffix.lower() == ".parquet":
        try:
            table = pd.read_parquet(path)
        except Exception as error:  # pyarrow has many error types for a broken file
            found.append(Problem(shown, None, None, f"not a Parquet file ({type(error).__name__})", "write it again"))
            return None
        if table.index.name is not None:
            table = table.reset_index()
        table.columns = [str(c) for c in table.columns]
        return table.assign(__row__=np.arange(1, len(table) + 1))
    text = _decode(path, shown, found)
    if text is None:
        return None
    delimiter = _delimiter(text, path.suffix.lower())
    csv.field_size_limit(2**24)
    try:
        rows = [(n, r) for n, r in _rows(text, delimiter) if any(c.strip() for c in r)]
    except csv.Error as error:
        found.append(Problem(shown, None, None, f"not a valid table ({error})", "repair the quoting"))
        return None
    if not rows:
        found.append(Problem(shown, None, None, "no rows", "give a header and one row a model"))
        return None
    header = [c.strip() for c in rows[0][1]]
    before = len(found)
    _check_header(header, rows[0][0], shown, found, len(rows))
    for number, row in rows[1:]:
        if len(row) != len(header):
            told = f"{len(row)} fields, the header has {len(header)}"
            found.append(
                Problem(shown, number, None, told, "give every row the same number of fields; quote separators")
            )
    if len(found) > before:
        return None
    table = pd.DataFrame([[c.strip() for c in r] for _, r in rows[1:]], columns=header, dtype=object)
    return table.assign(__row__=[n for n, _ in rows[1:]])


def _rows(text: str, delimiter: str) -> Iterable[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for row in reader:
        yield reader.line_num, row


def _decode(path: Path, shown: str, found: list[Problem]) -> str | None:
    raw = path.read_bytes()
    if not raw.strip():
        found.append(Problem(shown, None, None, "an empty file", "give a header and one row a model"))
        return None
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        found.append(Problem(shown, None, None, "UTF-16 text, read as such", "UTF-8 is safer", serious=False))
        try:
            return raw.decode("utf-16")
        except UnicodeDecodeError:
            found.append(Problem(shown, None, None, "broken UTF-16 text", "save the table as UTF-8"))
            return None
    if b"\x00" in raw[:4096]:
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
    header = text.lstrip().splitlines()[0]
    counts = {d: header.count(d) for d in "\t;,|"}
    if suffix == ".tsv" and counts["\t"]:
        return "\t"
    return max(counts, key=lambda d: (counts[d], d == ","))


def _check_header(header: list[str], row: int, shown: str, found: list[Problem], rows: int) -> None:
    if len(header) < 2:
        do = "separate columns by commas, semicolons or tabs, with a header line"
        found.append(Problem(shown, row, None, f"one column only ('{header[0][:40]}')", do))
        return
    if rows < 2:
        found.append(Problem(shown, row, None, "a header without rows", "give one row a model"))
    for place, name in enumerate(header, 1):
        if not name or re.fullmatch(r"Unnamed: \d+", name):
            if place == 1 and name == "":
                continue  # a written index: looked at later
            found.append(
                Problem(shown, row, f"number {place}", "an empty header cell (merged cells?)", "name every column")
            )
    for name, count in Counter(h for h in header if h).items():
        if count > 1:
            found.append(Problem(shown, row, name, f"{count} columns of this name", "give every column its own name"))
    if all(_number(h)[0] is not None for h in header[1:]):
        found.append(Problem(shown, row, None, "numbers where the header should be", "add a header line"))


def _number(text: Any) -> tuple[float | None, bool]:
    """Return the number and whether it was written with a decimal comma; (None, False) when it is none."""
    if isinstance(text, (int, float, np.integer, np.floating)) and not isinstance(text, bool):
        return float(text), False
    text = str(text).strip().removesuffix("%").strip()
    if re.fullmatch(r"[+-]?\d+,\d+", text):
        return float(text.replace(",", ".")), True
    try:
        return float(text), False
    except ValueError:
        return None, False


def _column(table: pd.DataFrame, names: Iterable[str]) -> str | None:
    low = {str(c).strip().lower(): c for c in table.columns}
    return next((low[n] for n in names if n in low), None)


def _long(table: pd.DataFrame, shown: str, benchmark: str | None, found: list[Problem]) -> pd.DataFrame:
    """Return a long table of raw scores from a wide or a long one."""
    if "" in table.columns and _column(table, _MODEL_NAMES) is None:
        table = table.rename(columns={"": "model"})
    table = table.drop(columns="", errors="ignore")
    model = _column(table, _MODEL_NAMES)
    score = _column(table, _SCORE_NAMES)
    task = _column(table, _BENCHMARK_NAMES)
    others = [c for c in table.columns if c not in ("__row__", model, task)]
    notes = _known(table)
    if model is None and task is not None and score is None:  # one row a benchmark, one column a model
        pieces = table.melt([task, "__row__"], others, "model", "raw").rename(columns={task: "benchmark"})
        pieces["column"] = pieces["model"]
    elif model is None:
        listed = ", ".join(f"'{c}'" for c in table.columns if c != "__row__")
        found.append(
            Problem(shown, 1, None, f"no column of models; columns: {listed}", "name the column of models 'model'")
        )
        return pd.DataFrame(columns=list(COLUMNS))
    elif score is not None and (task is not None or len(set(others) - notes) <= 1):
        pieces = table.rename(columns={model: "model", score: "raw"} | ({task: "benchmark"} if task else {}))
        if task is None:
            pieces["benchmark"] = benchmark or Path(shown.rsplit(":", 1)[-1]).stem
        pieces["column"] = score
    else:
        numeric = [c for c in others if c not in notes and _mostly_numbers(table[c])]
        for name in sorted(set(others) - set(numeric) - notes):
            told = f"no numbers (first value '{str(table[name].iloc[0])[:30]}'); not a benchmark"
            found.append(Problem(shown, None, name, told, "nothing, if it is a note about the models", serious=False))
        if not numeric:
            found.append(Problem(shown, None, None, "no column of numbers", "give one column a benchmark, or 'score'"))
            return pd.DataFrame(columns=list(COLUMNS))
        extra = [c for c in (_column(table, v) for v in _EXTRA_NAMES.values()) if c]
        if len(numeric) > 1:
            for name in extra:
                told = f"it could belong to any of {len(numeric)} benchmarks; not used"
                found.append(Problem(shown, None, name, told, "write one row a score, with this column", False))
            extra = []
        pieces = table.melt([model, "__row__", *extra], numeric, "benchmark", "raw")
        pieces = pieces.rename(columns={model: "model"})
        pieces["column"] = pieces["benchmark"]
    for name, variants in _EXTRA_NAMES.items():
        known = _column(pieces, variants)
        given = pieces[known] if known else pd.Series(np.nan, pieces.index)
        pieces[name] = pd.to_numeric(given, errors="coerce")
        wrong = ~given.map(_is_missing) & ~(pieces[name] > 0 if name == "n_items" else pieces[name] >= 0)
        wrong |= np.isinf(pieces[name])
        for row, value in zip(pieces.loc[wrong, "__row__"], given[wrong]):
            told = "write the number of items, or leave it empty" if name == "n_items" else "write a standard error"
            found.append(
                Problem(
                    shown,
                    row,
                    known,
                    f"'{str(value)[:40]}' is no {'number of items' if name == 'n_items' else 'standard error'}",
                    told,
                )
            )
    return _parsed(pieces, shown, found)


def _known(table: pd.DataFrame) -> set[str]:
    extra = {_column(table, v) for v in _EXTRA_NAMES.values()}
    return {c for c in extra if c} | {c for c in table.columns if str(c).lower() in ("source", "metric", "num_fewshot")}


def _mostly_numbers(column: pd.Series) -> bool:
    values = [v for v in column if not _is_missing(v)]
    return bool(values) and sum(_number(v)[0] is not None for v in values) * 2 >= len(values)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value)) or str(value).strip().lower() in MISSING


def _parsed(pieces: pd.DataFrame, shown: str, found: list[Problem]) -> pd.DataFrame:
    rows, commas, missing = [], 0, 0
    fields = ("__row__", "column", "benchmark", "model", "raw", "n_items", "stderr")
    for row, column, name, model, raw, n_items, stderr in zip(*(pieces[f] for f in fields), strict=True):
        if _is_missing(model):
            found.append(Problem(shown, row, "model", "no model name", "name the model of every row"))
            continue
        if _is_missing(name):
            found.append(Problem(shown, row, "benchmark", "no benchmark name", "name the benchmark of every row"))
            continue
        if _is_missing(raw):
            missing += 1
            continue
        value, comma = _number(raw)
        if value is None:
            told = f"'{str(raw)[:40]}' is not a number"
            found.append(Problem(shown, row, column, told, "write a number such as 0.53, or leave it empty"))
            continue
        if not np.isfinite(value):
            found.append(Problem(shown, row, column, f"{value}", "write a finite number, or leave it empty"))
            continue
        commas += comma
        rows.append(
            {
                "benchmark": str(name).strip(),
                "model": str(model).strip(),
                "score": value,
                "n_items": n_items,
                "stderr": stderr,
                "source": shown,
                "__row__": row,
            }
        )
    if commas:
        found.append(
            Problem(
                shown,
                None,
                None,
                f"{commas} number(s) with a decimal comma, read as such",
                "decimal points are safer",
                serious=False,
            )
        )
    if missing:
        found.append(
            Problem(
                shown,
                None,
                None,
                f"{missing} empty score(s): not measured, left out",
                "nothing, if that is so",
                serious=False,
            )
        )
    if not rows and not any(p.serious for p in found):
        found.append(Problem(shown, None, None, "no scores", "give at least one number"))
    return pd.DataFrame(rows, columns=[*COLUMNS[:6], "__row__"])


def _scaled(frame: pd.DataFrame, shown: str, scale: Scale, lower: set[str], found: list[Problem]) -> pd.DataFrame:
    frame = frame.copy()
    frame["metric"] = "score"
    for name, group in frame.groupby("benchmark", sort=False):
        values = group["score"]
        rows = f"{group['__row__'].iloc[0]}" if "__row__" in group else None
        divide = scale == "percent"
        if scale == "auto":
            low, high = values.min(), values.max()
            if low < 0 or high > 100:
                row = group.loc[(values < 0) | (values > 100), "__row__"].iloc[0]
                bad = values[(values < 0) | (values > 100)].iloc[0]
                do = "correct it; for perplexities or losses say scale='raw' and lower_is_better"
                found.append(Problem(shown, row, name, f"{bad:g} is neither a fraction nor a percentage", do))
                continue
            divide = high > 1
            between = values[(values > 0) & (values < 1)]
            if divide and len(between) and (values <= 1).mean() >= 0.2:
                do = "write them all one way, or say scale='percent' or scale='fraction'"
                told = f"fractions and percentages mixed ({between.iloc[0]:g} and {high:g})"
                found.append(Problem(shown, rows, name, told, do))
                continue
            if divide:
                found.append(
                    Problem(
                        shown,
                        None,
                        name,
                        f"values up to {high:g}: read as percent",
                        "say scale='fraction' or 'raw' if not",
                        serious=False,
                    )
                )
        elif scale == "fraction" and (values.min() < 0 or values.max() > 1):
            found.append(
                Problem(shown, rows, name, f"{values.max():g} is not a fraction", "say scale='percent' if it is")
            )
            continue
        if divide:
            frame.loc[group.index, "score"] = values / 100
            error = group["stderr"]
            frame.loc[group.index, "stderr"] = error / 100
            if scale == "percent" and values.max() > 100:
                found.append(Problem(shown, rows, name, f"{values.max():g} is not a percentage", "correct it"))
        if name in lower:
            bounded = scale != "raw"
            turned = 1 - frame.loc[group.index, "score"] if bounded else -frame.loc[group.index, "score"]
            frame.loc[group.index, "score"] = turned
            frame.loc[group.index, "metric"] = "1 - score" if bounded else "-score"
            found.append(Problem(shown, None, name, "lower is better: turned around", "nothing", serious=False))
    for column in ("num_fewshot", "chat_template", "run"):
        frame[column] = None
    return frame[list(COLUMNS)]


# --- lm-evaluation-harness ------------------------------------------------------------------------------------------


def read_harness(
    folder: Path | str,
    *,
    metric: str | None = None,
    runs: str = "newest",
    level: Literal["group", "subtask", "both"] = "group",
    problems: list[Problem] | None = None,
) -> pd.DataFrame:
    """Read every results file under a folder of lm-evaluation-harness, old and new layouts mixed.

    Of several runs of one model and task the newest wins (date in the file, in its name, or of the file), unless
    `runs` is a part of the file name. Aggregate rows ("all", "average") are left out; of groups and subtasks `level`
    says which to keep. Perplexities, losses and errors are turned so that higher is better. Mixed few-shot counts,
    chat templates, limits and metrics of one task are noted.
    """
    found: list[Problem] = []
    parts = []
    folder = Path(folder)
    files = sorted(p for p in folder.rglob("*.json") if not p.name.startswith("."))
    if runs != "newest":
        files = [p for p in files if runs in p.name]
    for path in files:
        if path.stat().st_size > MAX_BYTES:
            found.append(Problem(_shown(path), None, None, "more than 512 MiB", "leave sample logs out", serious=False))
            continue
        frame = _read_json(path, metric, level, found, folder=folder)
        if len(frame):
            parts.append(frame)
    if not parts:
        what = "no results file" if not files else "no results"
        found.append(Problem(_shown(folder), None, None, f"{what} of lm-evaluation-harness", "give the output folder"))
        return _finish(pd.DataFrame(columns=list(COLUMNS)), found, problems)
    frame = pd.concat(parts, ignore_index=True)
    frame = frame.sort_values("run", kind="stable")
    older = frame.duplicated(["benchmark", "model"], keep="last")
    if older.any():
        pairs = len(frame[older].drop_duplicates(["benchmark", "model"]))
        told = f"{pairs} model and task pair(s) were run more than once; the newest run was taken"
        found.append(Problem(_shown(folder), None, None, told, "name another by runs='...'", serious=False))
    frame = frame[~older].sort_values(["benchmark", "model"], ignore_index=True)
    for name, group in frame.groupby("benchmark"):
        for column, word in (
            ("num_fewshot", "few-shot counts"),
            ("chat_template", "chat template settings"),
            ("metric", "metrics"),
        ):
            values = group[column].dropna().astype(str).unique()
            if len(values) > 1:
                told = f"mixed {word} across models: {', '.join(sorted(values))}"
                found.append(Problem(_shown(folder), None, name, told, "compare like with like", serious=False))
    return _finish(frame[list(COLUMNS)], found, problems)


def _read_json(
    path: Path, metric: str | None, level: str, found: list[Problem], folder: Path | None = None
) -> pd.DataFrame:
    shown = _shown(path)
    empty = pd.DataFrame(columns=list(COLUMNS))
    in_folder = folder is not None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        found.append(
            Problem(
                shown,
                getattr(error, "lineno", None),
                None,
                f"not valid JSON ({error})",
                "repair or remove it",
                serious=True,
            )
        )
        return empty
    if isinstance(content, Mapping) and isinstance(content.get("eval_metrics"), Mapping):
        return _dclm(content, path, shown, found)
    if not isinstance(content, Mapping) or not isinstance(content.get("results"), Mapping):
        found.append(
            Problem(
                shown,
                None,
                None,
                "no 'results' of lm-evaluation-harness in it",
                "ignored" if in_folder else "give a results file",
                serious=not in_folder,
            )
        )
        return empty
    return _harness_rows(content, path, shown, metric, level, found)


def _dclm(content: Mapping, path: Path, shown: str, found: list[Problem]) -> pd.DataFrame:
    tasks = content["eval_metrics"].get("icl", {})
    if not tasks:
        found.append(Problem(shown, None, "eval_metrics.icl", "no scores", "give a full DCLM evaluation"))
    name = path.stem.removeprefix("evaluation_").removesuffix("_heavy")
    rows = [
        {
            "benchmark": t,
            "model": name,
            "score": float(v),
            "source": shown,
            "metric": "accuracy",
            "run": content.get("creation_date"),
        }
        for t, v in tasks.items()
        if isinstance(v, (int, float))
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _model_of(content: Mapping, path: Path) -> str:
    config = content.get("config") or {}
    arguments = config.get("model_args") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except json.JSONDecodeError:
            arguments = dict(a.split("=", 1) for a in arguments.split(",") if "=" in a)
    name = (
        arguments.get("pretrained") or arguments.get("model") or content.get("model_name") or config.get("model_name")
    )
    if not name:
        folder = path.parent.name
        name = folder.replace("__", "/") if "__" in folder else path.stem
    revision = arguments.get("revision")
    return f"{name}@{revision}" if revision and revision != "main" else str(name)


def _moment(content: Mapping, path: Path) -> str:
    """Return a sortable time of a run: its date field, the time in its name, or the file's."""
    stamp = re.search(r"(\d{4}-\d{2}-\d{2})T(\d{2})-(\d{2})-(\d{2})", path.name)
    if stamp:
        return f"{stamp[1]}T{stamp[2]}:{stamp[3]}:{stamp[4]}"
    date = content.get("date")
    seconds = date if isinstance(date, (int, float)) else path.stat().st_mtime
    return pd.Timestamp(seconds, unit="s").isoformat(timespec="seconds")


def _leaves(group: str, tree: Mapping[str, list[str]], seen: frozenset[str] = frozenset()) -> list[str]:
    children = [c for c in tree.get(group, []) if c not in seen]
    return [leaf for c in children for leaf in (_leaves(c, tree, seen | {group}) or [c])]


def _harness_rows(
    content: Mapping, path: Path, shown: str, metric: str | None, level: str, found: list[Problem]
) -> pd.DataFrame:
    results = content["results"] | (content.get("groups") or {})
    tree = content.get("group_subtasks") or {}
    groups = {g for g, children in tree.items() if children}
    inside = {leaf for g in groups for leaf in tree[g]}
    samples = content.get("n-samples") or {}
    config = content.get("config") or {}
    model, moment = _model_of(content, path), _moment(content, path)
    chat = content.get("chat_template_sha") or ("yes" if content.get("chat_template") else "no")
    if "chat_template" not in content:
        chat = None
    if config.get("limit"):
        found.append(
            Problem(
                shown,
                None,
                None,
                f"run with limit {config['limit']}",
                "full runs compare better",
                serious=False,
            )
        )
    rows = []
    for task, values in results.items():
        task_name, shots = _old_task_name(task)
        if not isinstance(values, Mapping) or task in ("all", "average", "avg", "mean"):
            continue
        if (level == "group" and task in inside) or (level == "subtask" and task in groups):
            continue
        chosen = _choose_metric(values, metric, shown, task_name, found)
        if chosen is None:
            continue
        name, value, error = chosen
        wrong_way = (content.get("higher_is_better") or {}).get(task, {}).get(name) is False
        score, error, label = _oriented(value, error, name, wrong_way)
        count = samples.get(task, {}).get("effective") if isinstance(samples.get(task), Mapping) else None
        if count is None and task in groups:
            each = [samples.get(leaf, {}).get("effective") for leaf in _leaves(task, tree)]
            count = sum(each) if each and None not in each else None
        count = values.get("sample_len", count) if count is None else count
        shots = _shots(content, task, shots)
        rows.append(
            {
                "benchmark": task_name,
                "model": model,
                "score": score,
                "n_items": count,
                "stderr": error,
                "source": shown,
                "metric": label,
                "num_fewshot": shots,
                "chat_template": chat,
                "run": moment,
            }
        )
    if not rows:
        found.append(Problem(shown, None, None, "no usable result in this file", "look at its metrics", serious=False))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _old_task_name(task: str) -> tuple[str, int | None]:
    """Return the plain name and shots of names such as ``harness|arc:challenge|25``."""
    parts = task.split("|")
    if len(parts) == 3 and parts[2].isdigit():
        return parts[1].replace(":", "_"), int(parts[2])
    return task, None


def _shots(content: Mapping, task: str, named: int | None) -> int | None:
    if named is not None:
        return named
    for source in (
        (content.get("n-shot") or {}).get(task),
        ((content.get("configs") or {}).get(task) or {}).get("num_fewshot"),
        (content.get("config") or {}).get("num_fewshot"),
    ):
        if isinstance(source, int):
            return source
    return None


def _choose_metric(
    values: Mapping, metric: str | None, shown: str, task: str, found: list[Problem]
) -> tuple[str, float, float] | None:
    """Return (metric, value, standard error) of a task's preferred metric, or None after a note."""
    numbers: dict[str, dict[str, float]] = {}
    for key, value in values.items():
        name, _, filter_name = key.partition(",")
        if name.endswith("_stderr") or name in ("alias", "name", "sample_len"):
            continue
        if isinstance(value, (int, float)) and not isinstance(value, bool) and np.isfinite(value):
            numbers.setdefault(name, {})[filter_name] = float(value)
    order = [metric] if metric else [*_PREFERRED, *sorted(numbers)]
    name = next((m for m in order if m in numbers), None)
    if name is None:
        if not metric and not numbers:
            return None  # a heading row of a group
        has = ", ".join(sorted(numbers)) or "none"
        found.append(Problem(shown, None, task, f"no metric '{metric}' (has: {has})", "left out", serious=False))
        return None
    filters = numbers[name]
    chosen = next((f for f in ("none", "", "strict-match") if f in filters), sorted(filters)[0])
    if len(filters) > 1 and len(set(filters.values())) > 1:
        told = f"metric '{name}' under several filters ({', '.join(sorted(filters))}); '{chosen}' was taken"
        found.append(Problem(shown, None, task, told, "name one as 'metric,filter' if another is meant", serious=False))
    error = values.get(f"{name}_stderr,{chosen}", values.get(f"{name}_stderr"))
    error = float(error) if isinstance(error, (int, float)) and not isinstance(error, bool) else np.nan
    return name, filters[chosen], error


def _oriented(value: float, error: float, name: str, wrong_way: bool) -> tuple[float, float, str]:
    """Return the score with higher better, its standard error and what it now is."""
    if "perplexity" in name or name == "ppl":
        return (-np.log(value), error / value, f"-ln {name}") if value > 0 else (np.nan, np.nan, name)
    if wrong_way or falls(name):
        return -value, error, f"-{name}"
    return value, error, name


def falls(name: str) -> bool:
    """Return whether the name of a metric or column says that lower is better.

    >>> falls("word_perplexity"), falls("accuracy")
    (True, False)
    """
    return any(name == w or name.endswith(f"_{w}") for w in _LOWER_IS_BETTER)


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

    The rule: address of a hub and white space removed, lower case, a revision ``@main`` or ``:main`` dropped and any
    other kept, ``_``, ``.`` and space written ``-``, a closing ``-hf`` dropped.

    >>> normalise_model("https://huggingface.co/EleutherAI/Pythia_160M@main")
    'eleutherai/pythia-160m'
    """
    name = re.sub(r"^https?://[^/]+/", "", str(name).strip().strip("/")).lower()
    name = name.replace("__", "/") if "/" not in name else name
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
    for name in dict.fromkeys(str(g) for g in given):
        form = normalise_model(name)
        if name in exact:
            rows.append((name, name, "exact"))
        elif len(normal.get(form, [])) == 1:
            rows.append((name, normal[form][0], "normalised"))
        elif len(base.get(form.rsplit("/", 1)[-1], [])) == 1 and _owners_agree(form, base[form.rsplit("/", 1)[-1]][0]):
            rows.append((name, base[form.rsplit("/", 1)[-1]][0], "base name"))
        else:
            unmatched[name] = _suggestions(form, normal, base)
    return Matching(pd.DataFrame(rows, columns=["given", "known", "how"]), unmatched)


def _owners_agree(form: str, known: str) -> bool:
    """A base name matches only when one of the two names has no owner: two owners mean two models."""
    return "/" not in form or "/" not in normalise_model(known)


def _suggestions(form: str, normal: Mapping[str, list[str]], base: Mapping[str, list[str]]) -> list[str]:
    short = form.rsplit("/", 1)[-1]
    close = difflib.get_close_matches(form, normal, n=3, cutoff=0.75)
    close_base = difflib.get_close_matches(short, base, n=3, cutoff=0.75)
    found = [n for c in close for n in normal[c]] + [n for c in close_base for n in base[c]]
    ranked = sorted(set(found), key=lambda n: -difflib.SequenceMatcher(None, form, normalise_model(n)).ratio())
    return ranked[:3]
