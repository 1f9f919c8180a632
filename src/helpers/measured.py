"""The pages *Extraction, measured* and *Traces, measured*: what ``benchmarks/`` wrote, told with its own numbers.

Performance depends on the machine and is never asserted by a test. The scripts in ``benchmarks/`` write small tables
with date and machine, which are committed; this page reads them at every build, so no number is typed.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from helpers import paths
from helpers.errors import DataError
from helpers.pages import markdown_table

TABLES = ("extraction", "kills", "traces")


def folder() -> Path:
    """Return the folder of the committed measurements."""
    return paths.ROOT / "benchmarks" / "results"


def read(name: str, base: Path | None = None) -> pd.DataFrame | None:
    """Return one table of measurements, None where it was never measured.

    Raises DataError for a table without date, or one that cannot be read.
    """
    path = (base or folder()) / f"{name}.csv"
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{paths.label(path)} is no table ({error}); run its script in benchmarks/.") from None
    if table.empty or "date" not in table:
        raise DataError(f"{paths.label(path)} has no row or no date; run its script in benchmarks/.")
    return table


def when(table: pd.DataFrame) -> str:
    """Return day and machine of a table as words.

    >>> when(pd.DataFrame({"date": ["2026-01-02", "2026-01-01"], "machine": ["a CPU", "a CPU"]}))
    'on 2026-01-01 and 2026-01-02 on a CPU'
    """
    days = " and ".join(sorted(set(table["date"])))
    return f"on {days} on {' and '.join(sorted(set(table['machine'])))}"


def page(base: Path | None = None) -> str:
    """Return the page as MyST, from the tables in `base` (default: the committed ones)."""
    extraction, kills, traces = (read(name, base) for name in TABLES)
    parts = [
        "# Extraction, measured\n",
        "How fast the engine reads, beside other programs on the same machine, and whether it gives the same numbers. "
        "These are measurements of one day on one machine, kept in `benchmarks/results` and read by this page; the "
        "commands below make them again on yours. Ratios are within one run: another machine changes both sides.\n",
    ]
    if extraction is not None:
        parts += _extraction(extraction)
    parts.append("## Killed at random moments\n")
    if kills is None:
        parts.append("Not measured yet: `python benchmarks/kill_extraction.py 50`.\n")
    else:
        row = kills.iloc[-1]
        same = "**identical, bit for bit**" if row["identical"] else "**DIFFERENT**"
        parts.append(
            f"An extraction of {row['shards']} shards was killed **{row['kills']} times** at random moments (SIGKILL) and "
            f"started again each time ({row['date']}; {row['runs_finished_between']} runs came through in between and were "
            f"checked too). The matrix at the end, compared with that of an undisturbed run: {same}. Kills left "
            f"{row['temporary_files_left']} temporary files.\n\n`python benchmarks/kill_extraction.py 50`\n"
        )
    parts.append("## Traces\n")
    parts += ["Not measured yet: `python benchmarks/bench_traces.py`.\n"] if traces is None else _traces(traces)
    parts.append(
        "## Not measured\n\nNo GPU was at hand. The same commands measure one: `bench_extraction.py` uses it by itself, "
        "with wall time instead of CPU time and the GPU's own peak memory. A model of a billion parameters and more, the "
        "share of a chip's matrix rate, and several GPUs on one host remain to be measured.\n"
    )
    return "\n".join(parts)


def _extraction(table: pd.DataFrame) -> list[str]:
    parts = [f"Measured {when(table)}; speed is tokens per second of one core's time.\n"]
    methods = table[table["part"] == "methods"]
    if len(methods):
        rounds = int(methods["rounds"].max())
        parts += ["## Beside other programs\n", _judge(methods)]
        parts.append(_show(methods, ["method", "tokens", *SPEED, *GAPS, "megabytes"]))
        parts.append(
            f"\n{rounds} rounds in turns, median ratio (lowest to highest); differences to the plain loop in nats a token "
            "(lm-evaluation-harness gives the sum of a document only: its difference is per token of a document). Memory is "
            "what a method adds to the loaded model at its peak.\n"
        )
    rounding = table[table["part"] == "rounding"]
    if len(rounding):
        parts += ["## Cheaper products\n", _rounding(rounding, table)]
        parts.append(_show(rounding, ["method", "tokens", *SPEED, *GAPS]) + "\n")
    for part, title, text, columns in (
        ("lengths", "Length of the documents", "The same number of tokens in documents of different length; `setting` is "
         "tokens a document. Short documents are read together, which a loop cannot.", [*SPEED, "largest_gap", "megabytes"]),
        ("vocabulary", "Size of the vocabulary", "Random models that differ in the vocabulary only (`setting`). The engine "
         "forms logits in tiles, so its memory does not follow the vocabulary.", [*SPEED, "largest_gap", "megabytes"]),
        ("workers", "Number of workers", "Whole extractions in wall time, loading of the model included; `setting` is the "
         "number of worker processes; the ratio is to one worker.", [*SPEED, "largest_gap"]),
    ):  # fmt: skip
        rows = table[table["part"] == part]
        if part == "workers" and len(rows) and rows["ratio"].iloc[-1] < 1:
            text += (
                " Here more workers were **slower**: with so little text, on a machine that others used too, starting a "
                "process and loading the model cost more than they saved."
            )
        if len(rows):
            text += f" {rows['tokens'].iloc[0]:,} tokens each time."
            parts.append(f"## {title}\n\n{text}\n\n{_show(rows, ['setting', 'method', *columns])}\n")
    return [*parts, "`python benchmarks/bench_extraction.py --peers PYTHON_WITH_THE_PEERS`\n"]


SPEED = ["tokens_per_second", "ratio"]
GAPS = ["mean_gap", "largest_gap"]


def _show(rows: pd.DataFrame, columns: list[str]) -> str:
    shown = rows[columns].copy()
    for column in ("setting", "tokens", "megabytes"):
        if column in shown:
            shown[column] = [
                str(v) if isinstance(v, str) else "–" if pd.isna(v) else f"{int(float(v)):,}" for v in shown[column]
            ]
    shown["ratio"] = [_span(*row) for row in rows[["ratio", "ratio_low", "ratio_high"]].to_numpy(dtype=float)]
    shown["tokens_per_second"] = [None if pd.isna(v) else f"{v:,.0f}" for v in shown["tokens_per_second"]]
    names = {
        "tokens_per_second": "tokens/s", "ratio": "times the loop", "mean_gap": "mean difference",
        "largest_gap": "largest difference", "megabytes": "memory (MiB)",
    }  # fmt: skip
    if "setting" in columns and set(rows["part"]) == {"workers"}:
        names["ratio"] = "times one worker"
    return markdown_table(shown.rename(columns=names))


def _span(middle: float, low: float, high: float) -> str | None:
    """Return a median with its range: narrow enough for a phone."""
    if pd.isna(middle):
        return None
    return f"{middle:.2f}" if low == high else f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _judge(methods: pd.DataFrame) -> str:
    by = methods.set_index("method")
    exact = by.loc["engine exact"]
    faster = (
        "faster than" if exact["ratio_low"] > 1 else "slower than" if exact["ratio_high"] < 1 else "about as fast as"
    )
    agreed = "within" if exact["largest_gap"] <= 1e-4 else "NOT within"
    text = (
        f"In float32 the engine is **{faster} the plain loop** ({exact['ratio']:.2f} times) and agrees with it {agreed} 1e-4 "
        f"nats for every token (largest difference {exact['largest_gap']:.1e})."
    )
    if "minicons" in by.index:
        text += f" It is {exact['ratio'] / by.loc['minicons', 'ratio']:.1f} times as fast as minicons."
    harness = "lm-evaluation-harness"
    if harness in by.index:
        text += f" It is {exact['ratio'] / by.loc[harness, 'ratio']:.1f} times as fast as {harness}'s rolling log-likelihood."
    reached = methods.loc[methods["mean_gap"] <= 0.02, "ratio"].max()
    text += (
        " The aim of twice the plain loop within 0.02 nats a token is reached."
        if reached >= 2
        else f" The aim of **twice the plain loop within 0.02 nats a token is not reached** on this machine: the best is "
        f"{reached:.2f} times."
    )
    return text + "\n"


def _rounding(rounding: pd.DataFrame, table: pd.DataFrame) -> str:
    by = rounding.set_index("method")
    text = ""
    if "bfloat16" not in set(table["products"].dropna()):
        text += "This CPU has no instructions for bfloat16 products: a study that asks for `precision: fast` is refused here. "
    text += "What would cheaper products do to the numbers? "
    if "bfloat16 products, imitated" in by.index:
        gap = by.loc["bfloat16 products, imitated", "mean_gap"]
        inside = "inside" if gap <= 0.02 else "outside"
        text += (
            f"Rounding the factors of every matrix product to bfloat16 and keeping everything else in float32, which is what "
            f"`fast` does where the hardware can, moves a token by {gap:.3f} nats on average, {inside} the 0.02 that were asked "
            "for. **Its speed has not been measured**: that takes such hardware. "
        )
    if "int8 trunk" in by.index:
        row = by.loc["int8 trunk"]
        text += (
            f"PyTorch's dynamic int8 layers in the trunk are {row['ratio']:.2f} times as fast as the loop and off by "
            f"{row['mean_gap']:.2f} nats a token"
            + (": too far for any use, so the engine does not offer them." if row["mean_gap"] > 0.02 else ".")
        )
    return text + "\n"


def _traces(table: pd.DataFrame) -> list[str]:
    parts = []
    ways = table[table["part"] == "ways"]
    if len(ways):
        largest = ways["questions"].max()
        row = ways[(ways["method"] == "hooks") & (ways["questions"] == largest)].iloc[0]
        base = ways[(ways["method"] == "stack, then average") & (ways["questions"] == largest)].iloc[0]
        parts.append(
            f"Hooks that reduce states and attention while the model runs, against stacking all of them and averaging "
            f"afterwards ({when(ways)}). For {largest} questions: **{row['time_ratio']:.1f} times as fast, "
            f"{base['megabytes'] / max(row['megabytes'], 1):.1f} times less memory**, the same numbers (largest relative "
            f"difference {row['largest_gap']:.1e}, the float16 of what is kept). The hooks also take entropy "
            "and reach of every head, which the obvious way here does not.\n"
        )
        names = {"time_ratio": "times the obvious way", "megabytes": "memory (MiB)"}
        shown = ways[["method", "questions", "seconds", "time_ratio", "megabytes"]].rename(columns=names)
        parts.append(markdown_table(shown) + "\n")
    real = table[table["part"] == "real"]
    if len(real):
        row = real.iloc[-1]
        parts.append(
            f"Traces of **{row['benchmarks']:.0f} real benchmarks, {row['questions']:.0f} questions** together "
            f"({row['tokens']:,.0f} tokens read), in SmolLM2-135M-Instruct: **{row['seconds'] / 60:.1f} minutes** "
            f"{when(real)}, loading included.\n"
        )
    return [*parts, "`python benchmarks/bench_traces.py`\n"]
