"""Somebody's own benchmark among the known ones of a study: checked, compared on every axis, judged, planned.

:func:`check_benchmark` reads the files and says everything that is wrong with them at once; :func:`place` compares
the new benchmark with each known one, on the models that both share; :func:`plan` says by simulation what more
models or more questions would buy. Scores are (n_benchmarks, n_models), surprisal (n_units, n_models).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from helpers import (
    datasets,
    geometry,
    inference,
    overlap,
    paths,
    preparation,
    provenance,
    questions,
    scores,
    semantics,
)
from helpers.errors import CompanionError, DataError, StaleArtifactError, StudyError, nearest
from helpers.fragments import literal
from helpers.problems import Problem, refuse
from helpers.studies import Study

FEW_MODELS = 20  # below this no interval is narrow enough to say much
FEW_LINEAGES = 8
FEW_QUESTIONS = 30
FEW_ITEMS = 100  # below this one standard error is up to five points
FLOOR = 0.3  # share of models at one value, the lowest or the highest
RELIABLE = 0.8
REDUNDANT = 0.8  # lower bound of the performance overlap with one known benchmark
ORTHOGONAL = 0.3  # upper bound of every pair beyond the common factor
AXES = {
    "performance": "performance",
    "beyond": "performance beyond the common factor",
    "signature-crossfit": "signature (cross-fitted)",
    "semantic": "meaning of the questions",
    "neural": "what the questions do inside the models",
}
_MARKUP = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*(?:\s[^<>]*)?/?>|&[a-z]+;")


@dataclass(frozen=True)
class Submission:
    """A new benchmark whose files were read.

    `scores` and `stderr` are Series over the study's model names (NaN where no standard error is known),
    `n_items` the number of items or None, `questions` a question table or None, `matching` says how model names
    were matched, `problems` is everything there is to say about the files, `not_compared` names the benchmarks of the
    study that cannot be compared with it -> why not.
    """

    name: str
    scores: pd.Series
    stderr: pd.Series
    n_items: float | None
    questions: pd.DataFrame | None
    matching: scores.Matching
    problems: tuple[Problem, ...]
    not_compared: dict[str, str] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Whether nothing serious is wrong."""
        return not any(p.serious for p in self.problems)


def source(name: str) -> Path:
    """Return the file or folder that a name means.

    ``dataset:NAME`` is a published file of ``data/manifest.yml`` (downloaded if need be), ``dataset:NAME/STEM``
    the one of its files with that stem; any other name is a path, relative to the present folder or to the project.

    >>> source("data/README.md").name
    'README.md'
    """
    if name.startswith("dataset:"):
        dataset, _, stem = name.removeprefix("dataset:").partition("/")
        found = datasets.files(dataset)
        chosen = [f for p, f in found.items() if not stem or Path(p).stem == stem]
        if len(chosen) != 1:
            stems = [Path(p).stem for p in found]
            raise DataError(f"'{name}' means {len(chosen)} files; {nearest(stem, stems)}")
        return chosen[0]
    path = Path(name)
    try:
        here = path.is_absolute() or path.exists()
    except (ValueError, OSError):
        here = True
    return path if here else paths.ROOT / name


def ready(
    study: Study, own: Mapping[str, str] | None = None, families: Mapping[str, str] | None = None
) -> overlap.Tables:
    """Return the tables of a study, preparing it and extracting surprisal where they are missing or stale.

    `own` are the reader's checkpoints, name -> folder or hub id; they are measured on the study's text and join its
    models, each a lineage of its own unless `families` says otherwise (see ``own_models.join`` and what it raises).
    """
    if own:
        from helpers import own_models  # torch is slow to import: only where models must run

        reason = own_models.refusal(study)
        if reason:
            raise StudyError(reason)
        return own_models.join(study, ready(study), own, families)
    try:
        return overlap.load(study.results, study.overlap.groups, study.screening.memory_gib)
    except StaleArtifactError:
        preparation.prepare(study)
    if study.models.kind != "table" and not _sound(study.results / "surprisal.parquet"):
        from helpers import extraction  # as above

        extraction.extract(study)
    return overlap.load(study.results, study.overlap.groups, study.screening.memory_gib)


def _sound(path: Path) -> bool:
    return provenance.stale_reason(path) is None


def check_benchmark(
    scores_path: Path | str,
    questions_path: Path | str | None = None,
    *,
    tables: overlap.Tables,
    benchmark: str | None = None,
    scale: scores.Scale = "auto",
    lower_is_better: bool = False,
    metric: str | None = None,
    runs: str = "newest",
    aliases: Mapping[str, str] | None = None,
) -> Submission:
    """Read the files of a new benchmark and say everything that is wrong with them.

    Parameters
    ----------
    scores_path, questions_path
        See ``scores.read`` and ``questions.read``; questions are optional.
    tables
        The study's tables, see :func:`ready`.
    benchmark
        Which benchmark of the file is meant, when it holds several. A file that names none is called so.
    scale, lower_is_better, metric, runs
        As in ``scores.read``; `lower_is_better` turns scores whose direction is not known, and no others.
    aliases
        Your model name -> the study's, for names that no rule can match.

    Returns
    -------
    Submission, whose `problems` list all there is to say; call ``refuse(submission.problems)`` to insist.
    """
    problems: list[Problem] = []
    shown = _label(scores_path)
    pieces = scores.gather(scores_path, benchmark=benchmark, metric=metric, runs=runs, problems=problems)
    name, pieces = _chosen(pieces, benchmark, tables, shown, problems)
    known = list(tables.all_scores.columns)
    pieces = _aliases(pieces, aliases or {}, known, shown, problems)
    own, matching = scores.of_models(pieces, known, shown, problems, alias=" or say --alias YOURS=STUDYS")
    table = scores.judge(own, scale=scale, lower_is_better=lower_is_better, problems=problems)
    values = _in_order(table, matching, known)
    asked = _read_questions(questions_path, name, problems) if questions_path else None
    count = float(values["n_items"].median()) if values["n_items"].notna().any() else None
    error = values["stderr"]
    metric_label = table["metric"].iloc[0] if len(table) else ""
    if count is None and asked is not None and len(asked):
        count = float(len(asked))
        problems.append(
            Problem(shown, None, "n_items", f"not given; the {len(asked)} questions are taken as its items",
                    "add a column n_items if the scores are over other items", serious=False)
        )  # fmt: skip
        if error.isna().all() and scores.is_share(metric_label):
            error = pd.Series(scores.binomial_error(values["score"], count), values.index)
    _check_values(values["score"], error, count, metric_label, lower_is_better, tables, name, shown, problems)
    _check_copies(values.index, tables, shown, problems)
    left = not_compared(tables, values.index)
    return Submission(name, values["score"], error, count, asked, matching, tuple(problems), left)


def not_compared(tables: overlap.Tables, models: Iterable[str]) -> dict[str, str]:
    """Return the benchmarks of a study that cannot be compared on the scores of these models -> why not."""
    sat = tables.all_scores[list(models)]
    known, varied = sat.notna().sum(axis=1), sat.nunique(axis=1)
    left = {
        b: f"not usable in this study{': ' + why.removeprefix('no: ') if why else ''}"
        for b, why in tables.unusable.items()
    }
    for b in sat.index[(known < inference.MIN_MODELS) | (varied < 2)]:
        few = known[b] < inference.MIN_MODELS
        left[b] = (
            f"{known[b]} shared models have a score, {inference.MIN_MODELS} are needed"
            if few
            else "the shared models all score alike"
        )
    return left


def _label(path: Path | str) -> str:
    try:
        return paths.label(path).encode("utf-8", "replace").decode()
    except (ValueError, OSError, RuntimeError):  # RuntimeError: a loop of links
        return repr(str(path)).encode("utf-8", "replace").decode()


def _chosen(
    pieces: pd.DataFrame, benchmark: str | None, tables: overlap.Tables, shown: str, problems: list[Problem]
) -> tuple[str, pd.DataFrame]:
    names = [str(n) for n in pieces["benchmark"].dropna().unique()]
    if benchmark:
        written = pieces["column"].iloc[0] if len(pieces) else benchmark
        if written != benchmark and written in {*tables.all_scores.index, *tables.unusable}:
            problems[:] = [p for p in problems if f"read as '{benchmark}'" not in p.found]
            told = f"no benchmark '{benchmark}': the only one is '{written}', which the study knows as another"
            problems.append(Problem(shown, None, None, told, f"leave --benchmark out if '{written}' is meant"))
            return benchmark, pieces.iloc[:0]
        return benchmark, pieces
    if len(names) > 1:
        listed = ", ".join(f"'{n}'" for n in names[:8]) + (" ..." if len(names) > 8 else "")
        told = f"{len(names)} benchmarks in the file ({listed})"
        problems.append(Problem(shown, None, None, told, "say which one is yours: --benchmark NAME"))
        return "yours", pieces.iloc[:0]
    return (names or ["yours"])[0], pieces


def _aliases(
    pieces: pd.DataFrame, aliases: Mapping[str, str], known: list[str], shown: str, problems: list[Problem]
) -> pd.DataFrame:
    for given, target in aliases.items():
        if target not in known:
            told = f"alias '{given}' points at '{target}', which the study lacks; {nearest(target, known)}"
            problems.append(Problem(shown, None, "model", told, "correct the alias"))
        if given not in set(pieces["model"]):
            told = f"alias '{given}' is no model of the file"
            problems.append(Problem(shown, None, "model", told, "correct or remove the alias", serious=False))
    return pieces.assign(model=pieces["model"].map(lambda m: aliases.get(m, m)))


def _in_order(table: pd.DataFrame, matching: scores.Matching, known: list[str]) -> pd.DataFrame:
    """Return score, stderr and n_items over the study's models that have a score, in the study's order."""
    names = matching.matched.drop_duplicates("known").set_index("given")["known"]
    kept = table[table["model"].isin(names.index)]
    kept = kept.assign(model=kept["model"].map(names)).drop_duplicates("model").set_index("model")
    order = [m for m in known if m in kept.index]
    return kept.loc[order, ["score", "stderr", "n_items"]].astype(float)


def _check_values(
    values: pd.Series,
    error: pd.Series,
    count: float | None,
    metric: str,
    flagged: bool,
    tables: overlap.Tables,
    name: str,
    shown: str,
    problems: list[Problem],
) -> None:
    if any(p.serious for p in problems) and values.empty:
        return
    if len(values) < inference.MIN_MODELS:
        told = f"{len(values)} models are shared with the study, at least {inference.MIN_MODELS} are needed"
        problems.append(Problem(shown, None, "model", told, "score more of the study's models"))
        return
    sat = tables.all_scores[values.index].notna().any(axis=0)
    if sat.sum() < inference.MIN_MODELS:
        told = f"only {sat.sum()} of the {len(values)} shared models have a score on any known benchmark"
        problems.append(Problem(shown, None, "model", told, f"score {inference.MIN_MODELS} of the study's models"))
        return
    if values.nunique() == 1:
        problems.append(Problem(shown, None, name, f"every model scores {values.iloc[0]:g}", "nothing can be compared"))
        return
    if values.nunique() < 3:
        told = f"only {values.nunique()} different scores among {len(values)} models"
        problems.append(Problem(shown, None, name, told, "give scores with more decimals or more items"))
        return
    tied = 1 - values.nunique() / len(values)
    if tied > 0.5:
        told = f"{tied:.0%} of the scores are tied"
        problems.append(Problem(shown, None, name, told, "give more decimals if you have them", serious=False))
    _check_noise(values, error, count, name, shown, problems)
    reference = tables.all_scores[values.index]
    common = _common_factor(reference)
    rho = values.corr(common, method="spearman")
    if rho < -0.5:
        told = f"scores fall where the study's rise (Spearman {rho:.2f} with the mean of the known benchmarks)"
        known = metric.startswith(("-", "1 - ")) or not (metric == "raw score" or metric == "score")
        do = "if lower is better, say --lower-is-better"
        if metric.startswith(("-", "1 - ")):
            do = "leave --lower-is-better out if higher is better" if flagged else "check whether the file is right"
        elif known:
            do = "check whether the file is right; if lower is better, say --lower-is-better"
        problems.append(Problem(shown, None, name, told, do, serious=False))
    for other, row in reference.iterrows():
        both = row.notna()
        if both.sum() >= inference.MIN_MODELS and np.allclose(row[both], values[both], atol=5e-4):
            told = f"the scores are those of '{other}'"
            problems.append(Problem(shown, None, name, told, "nothing, if that is meant", serious=False))


def _check_noise(
    values: pd.Series, error: pd.Series, count: float | None, name: str, shown: str, problems: list[Problem]
) -> None:
    """Say what keeps ranks from being trusted: a floor or ceiling, few items, noise as large as the differences."""
    for value, word in ((values.min(), "a floor"), (values.max(), "a ceiling")):
        share = float(np.isclose(values, value, rtol=0, atol=1e-9).mean())
        if share >= FLOOR:
            told = (
                f"{share:.0%} of the models ({round(share * len(values))} of {len(values)}) score {value:.4g}: {word}"
            )
            do = "their order is not known; comparisons rest on the others"
            problems.append(Problem(shown, None, name, told, do, serious=False))
    if count is not None and count < FEW_ITEMS:
        told = f"{count:.0f} items"
        do = f"scores over fewer than {FEW_ITEMS} items are coarse; give more if you have them"
        problems.append(Problem(shown, None, "n_items", told, do, serious=False))
    if any(p.serious for p in problems):
        return  # of scores that are wrong nothing more is to be said
    quality = float(inference.rank_reliability(values.to_frame().T, error.to_frame().T)[0])
    if quality < RELIABLE:
        told = f"the reliability of its ranks is {quality:.2f}; {RELIABLE:g} is asked"
        do = "more items or models that differ more; until then overlaps are underestimated"
        problems.append(Problem(shown, None, name, told, do, serious=False))


def _check_copies(models: Iterable[str], tables: overlap.Tables, shown: str, problems: list[Problem]) -> None:
    """Say which models are copies of one another in different lineages: held out apart, they tell of themselves."""
    measured = [m for m in models if m in tables.surprisal.columns]
    some = tables.surprisal[measured].iloc[:: max(1, len(tables.surprisal) // 500)].to_numpy()
    for i, one in enumerate(measured):
        for k, other in enumerate(measured[:i]):
            if tables.groups[one] != tables.groups[other] and np.allclose(some[:, i], some[:, k], atol=1e-3):
                told = f"'{one}' has the surprisal of '{other}', of another lineage"
                do = f"name one lineage for both: --family {one}={tables.groups[other]}"
                problems.append(Problem(shown, None, "model", told, do, serious=False))


def _common_factor(frame: pd.DataFrame) -> pd.Series:
    """Return each model's mean standardised rank over the benchmarks that it sat."""
    ranks = frame.rank(axis=1)
    z = ranks.sub(ranks.mean(axis=1), axis=0).div(ranks.std(axis=1), axis=0)
    return z.mean(axis=0)


def _read_questions(path: Path | str, name: str, problems: list[Problem]) -> pd.DataFrame | None:
    shown = _label(path)
    try:
        table = questions.read(path, name, problems=problems)
    except (ValueError, OSError) as error:
        problems.append(Problem(shown, None, None, f"cannot be read ({error})", "check the path"))
        return None
    if 0 < len(table) < FEW_QUESTIONS:
        told = f"{len(table)} questions"
        problems.append(
            Problem(
                shown,
                None,
                None,
                told,
                f"at least {FEW_QUESTIONS} make the semantic axis steady",
                serious=False,
            )
        )
    marked = table["text"].str.contains(_MARKUP)
    if marked.any():
        told = f"{marked.sum()} question(s) carry markup (first: '{table.loc[marked, 'question_id'].iloc[0]}')"
        problems.append(
            Problem(
                shown,
                None,
                None,
                told,
                "remove it unless models saw it too; it is shown as text",
                serious=False,
            )
        )
    long = questions.words(table["text"]) > 2000
    if long.any():
        told = f"{long.sum()} question(s) of more than 2000 words"
        problems.append(Problem(shown, None, None, told, "encoders read only the beginning", serious=False))
    if len(table) and table["answer"].eq(table["answer"].iloc[0]).all() and len(table) > 5:
        told = f"every answer is '{str(table['answer'].iloc[0])[:30]}'"
        problems.append(Problem(shown, None, "answer", told, "check the answers", serious=False))
    return table if len(table) else None


# --- comparison -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """Where a new benchmark lies.

    `pairs` has one row an axis and known benchmark (``axis``, ``benchmark``, ``value``, ``low``, ``high``), most
    alike first; `matrices` the square frames (value, low, high) of each axis with the new benchmark in them;
    `reliability` the new benchmark's by axis; `flags` what to think of it, with the evidence; `missing` axes and
    benchmarks that could not be compared, with the reason; `units` the reference text that goes most with its
    scores; `models` the models used.
    """

    name: str
    pairs: pd.DataFrame
    matrices: dict[str, tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]]
    reliability: pd.DataFrame
    flags: pd.DataFrame
    missing: dict[str, str]
    units: pd.DataFrame
    models: list[str]
    settings: dict = field(default_factory=dict)


def place(
    study: Study,
    submission: Submission,
    tables: overlap.Tables,
    *,
    bootstraps: int | None = None,
    splits: int | None = None,
    seed: int = 0,
) -> Placement:
    """Compare a checked benchmark with every known one of a study, on the models that both share.

    Performance and signature intervals resample models by whole lineages (single models where there are fewer than
    eight lineages); semantic and neural intervals resample questions. `bootstraps` and `splits` are the study's
    ``inference.bootstraps`` and ``overlap.splits`` where they are not given. Raises DataError when something serious is
    wrong with the submission.
    """
    refuse(submission.problems)
    bootstraps = study.inference.bootstraps if bootstraps is None else bootstraps
    splits = study.overlap.splits if splits is None else splits
    name = submission.name
    missing: dict[str, str] = {}
    sat = tables.all_scores[list(submission.scores.index)].notna().any(axis=0)
    models = list(sat.index[sat])
    for model in sat.index[~sat]:
        missing[f"performance: model {model}"] = (
            "it has no score on a known benchmark; it counts for signatures only"
            + (f" ({tables.left_out[model]})" if model in tables.left_out else "")
        )
    both = tables.all_scores[models]
    left = not_compared(tables, models)
    missing |= {f"performance: {b}": reason for b, reason in left.items()}
    fit = ~both.index.isin(list(left))
    own = f"{name} (yours)" if name in both.index else name
    rows = pd.concat([submission.scores[models].to_frame(own).T, both[fit]])
    groups = tables.all_groups[models]
    # a bootstrap over a handful of lineages knows nothing: then single models are drawn, and the page says so
    by = groups if groups.nunique() >= FEW_LINEAGES else None
    matrices = {"performance": _performance(rows, by, None, bootstraps, seed)}
    factor = _common_factor(both[fit])
    try:
        matrices["beyond"] = _performance(rows, by, factor, bootstraps, seed)
    except DataError as error:
        missing["beyond"] = str(error)
    crossfit = _signature(own, study, submission, tables, splits, bootstraps, seed, missing)
    units = pd.DataFrame(columns=["unit_id", "rho"])
    if crossfit is not None:
        matrices["signature-crossfit"] = (crossfit.overlap, crossfit.low, crossfit.high)
        units = _telling_units(submission, tables)
    meaning = _semantic(own, study, submission, tables, seed, missing)
    if meaning is not None:
        matrices["semantic"] = (meaning.matrix, meaning.low, meaning.high)
    inside = _neural(own, study, submission, tables, seed, missing)
    if inside is not None:
        matrices["neural"] = (inside.matrix, inside.low, inside.high)
    pairs = pd.concat([_pairs(axis, own, *frames) for axis, frames in matrices.items()], ignore_index=True)
    reliability = _reliability(own, submission, crossfit, {"semantic": meaning, "neural": inside})
    flags = _flags(own, submission, tables, models, pairs, reliability, factor)
    settings = {"bootstraps": bootstraps, "splits": splits, "seed": seed, "lineages": int(groups.nunique())}
    settings["resampled"] = "single models" if by is None else "whole lineages of models"
    return Placement(own, pairs, matrices, reliability, flags, missing, units, models, settings)


def _performance(rows, groups, covariate, bootstraps, seed):
    known = None if covariate is None else covariate.to_numpy()
    value = overlap.performance(rows, covariate=known, undefined="nan")
    low, high = inference.bootstrap_models(
        rows, None if groups is None else groups.to_numpy(), covariate=known, bootstraps=bootstraps, seed=seed
    )
    return value, low, high


def _signature(own, study, submission, tables, splits, bootstraps, seed, missing) -> overlap.Crossfit | None:
    shared = [m for m in submission.scores.index if m in tables.surprisal.columns]
    if len(shared) < inference.MIN_MODELS:
        missing["signature-crossfit"] = f"{len(shared)} shared models have surprisal, {inference.MIN_MODELS} are needed"
        return None
    known = tables.scores[shared]
    fit = (known.notna().sum(axis=1) >= inference.MIN_MODELS) & (known.nunique(axis=1) >= 2)
    rows = pd.concat([submission.scores[shared].to_frame(own).T, known[fit]])
    exclude = np.column_stack([np.zeros(len(tables.units), dtype=bool), tables.exclude[:, fit.to_numpy()]])
    try:
        return overlap.crossfit(
            tables.surprisal[shared], rows, tables.groups[shared].to_numpy(),
            splits=splits, bootstraps=bootstraps, seed=seed, exclude=exclude, **overlap.of_study(study),
        )  # fmt: skip
    except DataError as error:
        missing["signature-crossfit"] = str(error)
        return None


def _telling_units(submission: Submission, tables: overlap.Tables, count: int = 20) -> pd.DataFrame:
    """Return the units whose surprisal goes most with the scores, each way; a description, not a test."""
    shared = [m for m in submission.scores.index if m in tables.surprisal.columns]
    values = tables.surprisal[shared].to_numpy(dtype=float)
    rho = inference.spearman_by_row(values, submission.scores[shared])
    frame = pd.DataFrame({"unit_id": tables.surprisal.index, "rho": rho})
    frame = frame.join(tables.units[["doc_id", "source"]], on="unit_id").dropna(subset="rho")
    frame = frame.sort_values("rho", kind="stable")
    return pd.concat([frame.head(count), frame.tail(count)]).drop_duplicates("unit_id").reset_index(drop=True)


def _questions(own, study, submission, tables) -> pd.DataFrame | str:
    """Return the new questions (benchmark `own`) and the known ones in one table, or why there is none."""
    if submission.questions is None:
        return "no questions were given"
    path = study.results / "questions.parquet"
    if not path.exists():
        return "the study has no question texts"
    known = provenance.read_table(path)
    known = known[known["benchmark"].isin(tables.all_scores.index)]
    if known.empty:
        return "no usable benchmark of the study has question texts"
    mine = submission.questions.assign(benchmark=own)
    return pd.concat([mine, known[mine.columns]], ignore_index=True)


def _semantic(own, study, submission, tables, seed, missing):
    asked = _questions(own, study, submission, tables)
    if isinstance(asked, str):
        missing["semantic"] = asked
        return None
    try:
        result = semantics.compare(
            asked, study.semantics.encoder,
            n_questions=study.semantics.questions, seed=seed, cache=paths.CACHE / "embeddings",
        )  # fmt: skip
    except CompanionError as error:
        missing["semantic"] = str(error)
        return None
    for row in result.excluded.itertuples():
        missing[f"semantic: {row.benchmark}"] = row.reason
    if own not in result.matrix.index:
        return None
    return result


def _neural(own, study, submission, tables, seed, missing):
    """Compare hidden states on the new questions with those on the known ones, in the study's trace models."""
    asked = _questions(own, study, submission, tables)
    if isinstance(asked, str):
        missing["neural"] = asked
        return None
    if study.models.kind == "table":
        missing["neural"] = (
            "the study's neural axis is a committed copy of numbers, without the states of single questions that a new "
            "benchmark would have to be compared with; a study whose models run here (lab, or your own) has them"
        )
        return None
    from helpers import atlas, models, traces  # torch is slow to import: only where models must run

    entries = atlas.study_entries(study)
    absent = [reason for reason in map(models.available, entries) if reason]
    if absent:
        missing["neural"] = f"its trace models are not all here: {absent[0]}"
        return None
    if len(submission.questions) < geometry.MINIMUM:
        missing["neural"] = f"{len(submission.questions)} questions, {geometry.MINIMUM} are needed"
        return None
    drawn = questions.sample(asked, study.traces.questions, study.seed)
    asked, _ = questions.strip_template(drawn)
    own_rows = asked["benchmark"] == own
    found: dict[str, dict] = {}
    try:
        for entry in entries:

            def load(entry=entry):
                loaded = models.load(entry)
                return loaded.model, loaded.tokenizer

            common = {"identity": atlas.identity(entry), "tokens": study.traces.tokens}
            # those of the study are kept, by content; a reader's questions leave nothing behind
            found[entry.name] = traces.collect_all(
                load, entry.name, asked[~own_rows], study.results / "traces", **common
            )
            found[entry.name] |= traces.collect_all(load, entry.name, asked[own_rows], None, **common)
        return traces.similarity(found, bootstraps=100, splits=20, seed=seed)
    except CompanionError as error:
        missing["neural"] = str(error)
        return None


def _pairs(axis, own, value, low, high) -> pd.DataFrame:
    others = [b for b in value.index if b != own]
    frame = pd.DataFrame({
        "axis": axis, "benchmark": others, "value": value.loc[own, others].to_numpy(float),
        "low": low.loc[own, others].to_numpy(float), "high": high.loc[own, others].to_numpy(float),
    })  # fmt: skip
    return frame.sort_values("value", ascending=False, kind="stable", ignore_index=True)


def _reliability(own, submission, crossfit, asked) -> pd.DataFrame:
    value = inference.rank_reliability(submission.scores.to_frame().T, submission.stderr.to_frame().T)[0]
    rows = [
        {
            "axis": "performance",
            "reliability": value,
            "what": "rank correlation to be expected with as many other items",
        }
    ]
    if crossfit is not None:
        rows.append({"axis": "signature-crossfit", "what": "agreement of signatures selected on different models"}
                    | crossfit.reliability.loc[own].to_dict())  # fmt: skip
    for axis, result in asked.items():
        if result is not None:
            row = result.reliability.set_index("benchmark").loc[own].to_dict()
            rows.append({"axis": axis, "what": "agreement of halves of its questions"} | row)
    frame = pd.DataFrame(rows)
    for column in ("low", "high"):
        frame[column] = frame[column] if column in frame else np.nan
    return frame[["axis", "reliability", "low", "high", "what"]]


def _flags(own, submission, tables, models, pairs, reliability, factor) -> pd.DataFrame:
    """Return one row a flag: raised (True, False, or None where it cannot be judged) and the evidence."""
    by = {a: g.set_index("benchmark") for a, g in pairs.groupby("axis")}
    direct, beyond = by["performance"], by.get("beyond")
    lineages = tables.all_groups[models].nunique()
    rows = [("too few models", len(models) < FEW_MODELS,
             f"{len(models)} shared models of {lineages} lineages; below {FEW_MODELS} models no interval says much, and below {FEW_LINEAGES} lineages relatives pass for independent")]  # fmt: skip
    quality = reliability.set_index("axis")["reliability"].get("performance", np.nan)
    rows.append(("too noisy", None if np.isnan(quality) else bool(quality < RELIABLE),
                 "no item count or standard error was given" if np.isnan(quality)
                 else f"with as many other items its ranks would agree at {quality:.2f}; {RELIABLE:g} is asked"))  # fmt: skip
    near = direct["value"].idxmax()
    top = direct.loc[near]
    extra = beyond.loc[near] if beyond is not None and near in beyond.index else None
    same = bool(top["low"] >= REDUNDANT and extra is not None and extra["low"] > 0)
    told = f"nearest is {near}: {_interval(top)}"
    told += "" if extra is None else f", beyond the common factor {_interval(extra)}"
    rows.append(("redundant", same, told))
    if beyond is None or beyond["high"].isna().all():
        rows.append(("orthogonal", None, "overlap beyond the common factor could not be computed"))
    else:
        highest = beyond["high"].idxmax()
        rows.append(("orthogonal", bool(beyond["high"].max() < ORTHOGONAL),
                     f"beyond the common factor its largest upper bound is {beyond['high'].max():.2f} ({highest}); {ORTHOGONAL} is the limit"))  # fmt: skip
    loading = submission.scores.corr(factor, method="spearman")
    if beyond is None:
        rows.append(("scale-driven", None, "overlap beyond the common factor could not be computed"))
    else:
        raw, left = direct["value"].median(), beyond["value"].median()
        rows.append(("scale-driven", bool(raw > ORTHOGONAL and left < raw / 2),
                     f"Spearman {loading:.2f} with the common factor of the known benchmarks; median overlap {raw:.2f}, beyond the factor {left:.2f}"))  # fmt: skip
    rows.append(("format-driven", *_format(submission, tables, beyond)))
    return pd.DataFrame(rows, columns=["flag", "raised", "evidence"])


def _format(submission, tables, beyond) -> tuple[bool | None, str]:
    if submission.questions is None or beyond is None:
        return None, "the format is not known without questions"
    form = submission.questions["format"].mode().iloc[0]
    formats = tables.benchmarks["format"].reindex(beyond.index)
    same, other = beyond.loc[formats == form, "value"].dropna(), beyond.loc[formats != form, "value"].dropna()
    if min(len(same), len(other)) < 4:
        return None, f"fewer than four known benchmarks in format '{form}' or in others"
    p = stats.mannwhitneyu(same, other, alternative="greater").pvalue
    told = f"beyond the common factor it goes with '{form}' benchmarks at {same.mean():.2f} on average, with others at {other.mean():.2f} (p = {p:.2g}, pairs not independent)"
    return bool(p < 0.01 and same.mean() - other.mean() > 0.1), told


def _interval(row: pd.Series) -> str:
    return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def verdict(placement: Placement) -> str:
    """Return one paragraph of Markdown that a person can read first; every number in it comes from the placement."""
    flags = placement.flags.set_index("flag")
    raised = [f for f in flags.index if flags.loc[f, "raised"] is True or flags.loc[f, "raised"] == True]  # noqa: E712
    near = placement.pairs[placement.pairs["axis"] == "performance"].iloc[0]
    say = f"On {len(placement.models)} shared models, {literal(placement.name)} ranks models most like **{literal(near['benchmark'])}** ({_interval(near)})."
    if "too few models" in raised:
        say += " With so few models this is a first impression, not a finding."
    if "redundant" in raised:
        say += " That agreement outlives the factor all benchmarks share: it is **redundant** with it."
    elif "orthogonal" in raised:
        say += " Beyond what all benchmarks share it goes with none of them: **orthogonal**."
    else:
        say += " It is neither clearly redundant nor clearly orthogonal."
    if "scale-driven" in raised:
        say += f" Most of its overlap is the common factor ({literal(flags.loc['scale-driven', 'evidence'])})."
    if "too noisy" in raised:
        say += f" Its scores are noisy: {literal(flags.loc['too noisy', 'evidence'])}."
    if "format-driven" in raised:
        say += f" Its format may matter: {literal(flags.loc['format-driven', 'evidence'])}."
    return say


def plan(
    placement: Placement,
    submission: Submission,
    *,
    target: float = 0.1,
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Say by simulation how wide the interval of the nearest pair would be with more models or more items.

    Two latent skills with the disattenuated correlation of the observed pair are drawn for `n_models` models, item
    noise is added by the reliability that `items` times as many items would give (Spearman-Brown), and the half
    width of the middle 95 % of the Spearman correlations is taken. It is scaled so that today's numbers reproduce
    today's bootstrap interval: models of one lineage count for less than independent ones.

    Returns one row a combination: ``n_models``, ``items`` (multiple of today's), ``half_width``, ``settles``
    (half width at most `target`).
    """
    near = placement.pairs[placement.pairs["axis"] == "performance"].iloc[0]
    quality = placement.reliability.set_index("axis")["reliability"].get("performance", np.nan)
    known = np.isfinite(quality) and quality > 0
    observed = float(np.clip(near["value"], -0.99, 0.99))
    latent = float(np.clip(observed / np.sqrt(quality), -0.99, 0.99)) if known else observed
    rng = np.random.default_rng(seed)
    today = len(placement.models)
    now = (near["high"] - near["low"]) / 2

    def half_width(n_models: int, items: float) -> float:
        r = latent * np.sqrt(inference.spearman_brown(quality, items)) if known else observed
        x = rng.normal(size=(draws, n_models))
        y = r * x + np.sqrt(1 - r**2) * rng.normal(size=(draws, n_models))
        return float(np.ptp(inference.interval(inference.spearman_by_row(x, y))) / 2)

    grid = {
        (round(today * factor), items): half_width(round(today * factor), items)
        for factor in (1, 1.5, 2, 3, 5)
        for items in ((1, 2, 4) if known else (1,))
    }
    scale = now / grid[today, 1] if np.isfinite(now) and now > 0 else 1.0
    rows = [
        {
            "n_models": n,
            "items": items,
            "half_width": min(scale * width, 1.0),
            "settles": scale * width <= target,
        }
        for (n, items), width in grid.items()
    ]
    return pd.DataFrame(rows)
