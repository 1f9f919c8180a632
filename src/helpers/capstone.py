"""Score a benchmark that was designed to stand apart from a given suite of the laboratory.

``python -m helpers.capstone --questions FILE`` (or ``--scores FILE``) says how far a new benchmark's scores are real
differences between models that the suite does not explain. What may explain them are the suite's own scores and the
laboratory's truth, what each model read; the best explanation is sought on half of the models and judged on the other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import errors, inference, lab, paths, preparation, provenance, questions, scores, studies
from helpers.errors import DataError, StaleArtifactError, nearest
from helpers.problems import Problem, refuse

SUITE = ("knowledge", "logic", "language", "culture", "world")
PASS = 0.5  # of the variance; the capstone's page shows where the laboratory's own benchmarks fall
FEWEST = 30  # questions; fewer cannot be reliable


@dataclass(frozen=True)
class Grade:
    """What a benchmark is worth beside a suite; shares are of the variance of its scores over models.

    `score` = max(0, `reliability` - `explained`); `low`, `high`: 95 % interval, models resampled within the halves.
    `reliability` is the share that is not item sampling, `explained` the share that the suite explains on models that
    did not choose the explanation, `nearest` the suite's benchmark with the highest Spearman correlation `rho`.
    """

    name: str
    suite: tuple[str, ...]
    score: float
    low: float
    high: float
    reliability: float
    explained: float
    nearest: str
    rho: float
    models: int

    @property
    def passed(self) -> bool:
        """Whether the score reaches the pass mark."""
        return self.score >= PASS

    def __str__(self) -> str:
        """Return the verdict in three lines."""
        word = "PASSED" if self.passed else "not passed"
        return (
            f"'{self.name}' beside {', '.join(self.suite)}: {self.score:.2f} [{self.low:.2f}, {self.high:.2f}], "
            f"{word} ({PASS} is asked)\n"
            f"  share of its variance over {self.models} models that is not item sampling: {self.reliability:.2f}; "
            f"that the suite explains on held-out models: {self.explained:.2f}\n"
            f"  nearest of the suite: {self.nearest} (Spearman {self.rho:.2f})"
        )


def split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return two halves of the models: every second one, so that each shape is in both.

    >>> split(["a", "b", "c", "d"])
    (['a', 'c'], ['b', 'd'])
    """
    return list(names[::2]), list(names[1::2])


def grade_questions(path: Path | str, suite: Sequence[str] = SUITE, *, seed: int = 0) -> Grade:
    """Let the laboratory's population answer a question file, and grade the scores.

    Every question needs choices, equally many, each a single token of the laboratory (one lower-case word of its
    vocabulary). Raises DataError that lists all problems of the file.
    """
    found: list[Problem] = []
    shown = paths.label(path)
    table = questions.read(path, Path(path).stem, problems=found)
    _, tokenizer = lab.load_model(lab.model_names()[0])
    found += _unfit(table, shown, tokenizer)
    refuse(found)
    answered = lab.score_population(lab.load_model, lab.model_names(), table)
    return grade(answered.set_index("model")[["score", "n_items"]], suite, name=Path(path).stem, seed=seed)


def _unfit(table: pd.DataFrame, shown: str, tokenizer) -> list[Problem]:
    """Return what keeps the laboratory's models from answering: they only choose between single tokens."""
    found = []
    if len(table) < FEWEST:
        found.append(Problem(shown, None, None, f"{len(table)} sound questions", f"write at least {FEWEST}"))
    counts = table["choices"].map(len)
    usual = int(counts.mode().iloc[0]) if len(counts) else 0
    for row, own, answer, prompt in zip(
        table["question_id"], table["choices"], table["answer"], table["prompt"], strict=True
    ):
        if len(own) < 2:
            found.append(
                Problem(
                    shown,
                    f"with question_id {row}",
                    "choices",
                    "no choices",
                    "give two or more: models choose",
                )
            )
        elif len(own) != usual:
            found.append(Problem(shown, f"with question_id {row}", "choices", f"{len(own)} choices, most questions have {usual}", "give equally many"))  # fmt: skip
        elif answer not in own:
            found.append(
                Problem(
                    shown,
                    f"with question_id {row}",
                    "answer",
                    f"'{answer}' is not among the choices",
                    "correct it",
                )
            )
        for word in own:
            pieces = len(tokenizer(str(word), add_special_tokens=False)["input_ids"])
            if pieces != 1:
                found.append(Problem(shown, f"with question_id {row}", "choices", f"'{word}' is {pieces} tokens", "use one word of the laboratory's vocabulary"))  # fmt: skip
        size = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if size > 63:
            found.append(Problem(shown, f"with question_id {row}", "question", f"{size} tokens", "at most 63"))
    return found


def grade_scores(
    path: Path | str, suite: Sequence[str] = SUITE, *, benchmark: str | None = None, seed: int = 0
) -> Grade:
    """Grade a score file of the laboratory's population (see ``scores.read``); it needs the column ``n_items``.

    Raises DataError when a model of the population is missing or unknown, and for everything ``scores.read`` finds.
    """
    shown = paths.label(path)
    table = scores.read(path)
    names = list(table["benchmark"].unique())
    chosen = benchmark or names[0]
    if chosen not in names:
        raise DataError(f"{shown} has no benchmark '{chosen}'; {nearest(chosen, names)}")
    if benchmark is None and len(names) > 1:
        raise DataError(
            f"{shown} holds {len(names)} benchmarks; say which one (BENCHMARK=name): {', '.join(names[:8])}"
        )
    own = table[table["benchmark"] == chosen].set_index("model")
    unknown = [m for m in own.index if m not in lab.model_names()]
    if unknown:
        hint = nearest(unknown[0], lab.model_names())
        raise DataError(f"{shown}: '{unknown[0]}' is no model of the laboratory; {hint}")
    if own["n_items"].isna().any():
        raise DataError(f"{shown}: the number of items is not given; add a column n_items.")
    return grade(own[["score", "n_items"]], suite, name=chosen, seed=seed)


def grade(
    answered: pd.DataFrame,
    suite: Sequence[str] = SUITE,
    *,
    name: str = "yours",
    leave_out: Sequence[str] = (),
    bootstraps: int = 500,
    seed: int = 0,
) -> Grade:
    """Grade scores over the laboratory's population.

    Parameters
    ----------
    answered
        Index: all 32 models of the population; columns ``score`` (fraction) and ``n_items``.
    suite
        Domains of the suite, from the laboratory's eight.
    leave_out
        Benchmarks of the suite that do not count, e.g. the one that is graded.
    bootstraps
        Resamples of models behind the interval; 0: none (NaN).

    Returns
    -------
    Grade. Raises DataError for an unknown domain, missing models, or scores that do not vary.

    Notes
    -----
    Witnesses are the exposure to each domain of the suite, the mean standing on each domain's benchmarks, and each of
    these benchmarks. The witness that goes best with the scores on one half of the models is judged on the other half
    (squared Spearman correlation, 0 when the sign turns), and the other way round; the mean is the explained share.
    """
    exposure = lab.exposure_table().set_index("model")
    for domain in suite:
        if domain not in lab.text.world():
            raise DataError(f"no domain '{domain}' in the laboratory; {nearest(domain, lab.text.world())}")
    if not suite:
        raise DataError(f"the suite is empty; name at least one domain of {', '.join(lab.text.world())}.")
    if len(set(suite)) < len(suite):
        raise DataError(f"the suite names a domain twice ({', '.join(suite)}); name each once.")
    twice = answered.index[answered.index.duplicated()]
    if len(twice):
        raise DataError(f"'{name}': model '{twice[0]}' is given twice ({len(twice)} such rows); keep one row a model.")
    absent = [m for m in exposure.index if m not in answered.index]
    if absent:
        raise DataError(f"{len(absent)} of {len(exposure)} models have no score (first: '{absent[0]}'); score all of them.")  # fmt: skip
    answered = answered.loc[exposure.index].astype(float)
    for column, sound, wanted in (
        ("score", answered["score"].between(0, 1), "a fraction from 0 to 1"),
        ("n_items", answered["n_items"].between(1, np.inf, inclusive="left"), "a number of questions, at least 1"),
    ):
        if not sound.all():
            model = answered.index[~sound][0]
            raise DataError(
                f"'{name}': {column} of model '{model}' is {answered.loc[model, column]:g} ({int((~sound).sum())} of "
                f"{len(sound)} models are like this); give {wanted}."
            )
    halves = [np.array([exposure.index.get_loc(m) for m in half]) for half in split(list(exposure.index))]
    own = answered["score"].to_numpy()
    if min(len(np.unique(own[half])) for half in halves) < 2:
        raise DataError(f"'{name}': all models score alike; nothing can be compared.")
    known, domains = suite_scores(suite, list(exposure.index))
    known, domains = (x.drop(list(leave_out), errors="ignore") for x in (known, domains))
    if known.empty:
        raise DataError(f"no benchmark of {', '.join(suite)} is left to compare with; name more domains.")
    means = known.rank(axis=1).groupby(domains).mean()
    witnesses = np.vstack([exposure[list(suite)].T.to_numpy(float), means.to_numpy(), known.to_numpy()])
    error = own * (1 - own) / answered["n_items"].to_numpy()
    value, explained, reliability = _share(own, error, witnesses, halves)
    rng = np.random.default_rng(seed)
    drawn = [[rng.choice(half, len(half)) for half in halves] for _ in range(bootstraps)]
    draws = [_share(own, error, witnesses, one)[0] for one in drawn]
    low, high = inference.interval(draws) if bootstraps else (np.nan, np.nan)
    rho = known.T.corrwith(answered["score"], method="spearman")
    return Grade(
        name=name, suite=tuple(suite), score=value, low=float(low), high=float(high), reliability=reliability,
        explained=explained, nearest=str(rho.idxmax()), rho=float(rho.max()), models=len(own),
    )  # fmt: skip


def _share(
    own: np.ndarray, error: np.ndarray, witnesses: np.ndarray, halves: Sequence[np.ndarray]
) -> tuple[float, float, float]:
    """Return (score, explained share, reliability); `error` are squared standard errors, `halves` positions."""
    both = np.concatenate(halves)
    variance = own[both].var(ddof=1)
    reliability = float(np.clip(1 - error[both].mean() / variance, 0, 1)) if variance else 0.0
    by_half = []
    for half in halves:
        by_half.append(np.nan_to_num(inference.spearman_by_row(witnesses[:, half], own[half])))
    shares = []
    for here, there in (by_half, by_half[::-1]):
        best = np.abs(here).argmax()
        shares.append(max(0.0, float(there[best] * np.sign(here[best]))) ** 2)
    explained = float(np.mean(shares))
    return max(0.0, reliability - explained), explained, reliability


def suite_scores(suite: Sequence[str], models: list[str]) -> tuple[pd.DataFrame, pd.Series]:
    """Return the scores of the suite's usable benchmarks over the population, and each one's domain."""
    study = studies.load("lab")
    try:
        known = [provenance.read_table(study.results / f"{n}.csv") for n in ("scores", "benchmarks")]
    except StaleArtifactError:
        preparation.prepare(study)
        known = [provenance.read_table(study.results / f"{n}.csv") for n in ("scores", "benchmarks")]
    kept = known[1][known[1]["usable"] & known[1]["function"].isin(suite)].set_index("benchmark")["function"]
    return known[0].pivot(index="benchmark", columns="model", values="score").loc[kept.index, models], kept


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        """Raise: argparse would end with status 2, which here says "graded but not passed"."""
        raise DataError(f"{message}; `python -m helpers.capstone --help` names the arguments.")


@errors.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; exit status 0: passed, 2: graded but not passed, 1: a file or argument is wrong."""
    parser = _Parser(prog="python -m helpers.capstone", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--questions", help="question file; the laboratory's models answer it")
    parser.add_argument("--scores", help="score file of the laboratory's 32 models, with n_items")
    parser.add_argument("--benchmark", help="which benchmark of the score file")
    parser.add_argument("--suite", default=",".join(SUITE), help="domains of the suite (default: %(default)s)")
    options = parser.parse_args(arguments)
    asked, scored = (str(f or "").strip() for f in (options.questions, options.scores))
    if bool(asked) == bool(scored):
        found = "both a question file and a score file are" if asked else "neither a question file nor a score file is"
        raise DataError(f"{found} given; give one: `make capstone QUESTIONS=file` or `make capstone SCORES=file`.")
    if asked and options.benchmark:
        raise DataError("a benchmark is chosen in a score file, but a question file is given; leave BENCHMARK out.")
    suite = tuple(d.strip() for d in options.suite.split(",") if d.strip())
    if not Path(asked or scored).is_file():
        raise DataError(f"'{asked or scored}' is no file; give the path of a file.")
    made = grade_questions(asked, suite) if asked else grade_scores(scored, suite, benchmark=options.benchmark)
    print(made)
    return 0 if made.passed else 2


if __name__ == "__main__":
    sys.exit(main())
