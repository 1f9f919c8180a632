"""The traces of a study as an atlas: matrices, layers, heads, controls, agreement; numbers only.

:func:`trace_study` collects (``helpers.traces``), compares and writes; :func:`thaw` copies the committed,
dated atlas of a study whose models are too slow for every build. ``python -m helpers.atlas STUDY``, part of
``make study``, collects those here; from then on the study's pages show them. An atlas holds no question text
and no hidden state of a single question.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import ttest_ind_from_stats

from helpers import errors, geometry, inference, overlap, paths, preparation, provenance
from helpers import studies as study_files
from helpers.errors import (
    DataError,
    StaleArtifactError,
    StudyError,
    UnavailableError,
    nearest,
)
from helpers.geometry import Comparison
from helpers.models import available, fingerprint
from helpers.models import load as load_model
from helpers.questions import sample, strip_template
from helpers.studies import ModelEntry, Study
from helpers.traces import (
    STATISTICS,
    Traces,
    agreement,
    anisotropy,
    collect_all,
    profiles,
    random_twin,
    second_order,
    similarity,
    spaces,
)

MEASURES = {  # the first is the default of the axis, the others its controls
    "activation": ("whitened", "centroid", "centred", "zscored"),
    "attention": ("zscored", "centroid", "centred"),
}
AXES = ("neural", "attention")
COLLECTED = "traces/collected.csv"
TABLES = ("matrices", "layers", "curve", "heads", "anisotropy", "lengths", "agreement", "agreement-models")


@dataclass(frozen=True)
class Atlas:
    """What the traces of a study say, as numbers only: no question text, no hidden state of a question.

    Attributes
    ----------
    neural, attention : the two axes, averaged over the trained models.
    tables : by name (:data:`TABLES`; `second-order` where a study has five models or more):
        matrices: `model`, `twin` (untrained), `kind`, `measure`, `a`, `b`, `value`;
        layers: `model`, `twin`, `layer` (0: embedding), `a`, `b`, `value` (whitened);
        curve: `model`, `twin`, `layer`, `reliability` (mean over benchmarks);
        heads: `model`, `benchmark`, `layer`, `head`, `statistic`, `mean`, `sd`, `n`;
        anisotropy: `model`, `twin`, `layer`, `share`; lengths: `benchmark`, `questions`, `tokens`, `window`;
        agreement and agreement-models: see :func:`agreement`, with `kind`.
    about : settings, models, minutes, date.
    """

    neural: Comparison
    attention: Comparison
    tables: dict[str, pd.DataFrame]
    about: dict


def _pairs(matrix: pd.DataFrame, **constant) -> pd.DataFrame:
    rows, columns = np.triu_indices(len(matrix), 1)
    names = np.asarray(matrix.index, dtype=object)
    values = inference.upper(matrix.to_numpy(dtype=np.float32))
    return pd.DataFrame({**constant, "a": names[rows], "b": names[columns], "value": values})


def measure_all(
    models: Mapping[str, Mapping[str, Traces]],
    twins: Mapping[str, Mapping[str, Traces]],
    *,
    bootstraps: int = 200,
    splits: int = 50,
    seed: int = 0,
) -> Atlas:
    """Turn traces of trained models and of their untrained twins into an :class:`Atlas`."""
    common = {"bootstraps": bootstraps, "splits": splits, "seed": seed}
    brief = {"bootstraps": 0, "splits": 6, "seed": seed}
    neural, attention = (similarity(models, kind, **common) for kind in ("activation", "attention"))
    kept = list(neural.matrix.index)
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    for twin, group in ((False, models), (True, twins)):
        for model, own in group.items():
            own = {n: own[n] for n in kept if n in own}
            who = {"model": model, "twin": twin}
            parts["anisotropy"].append(anisotropy(own).assign(**who))
            for kind, measures in MEASURES.items():
                cloud = spaces(own) if kind == "activation" else profiles(own)
                for name in measures:
                    result = geometry.compare(cloud, name, bootstraps=0, splits=0)
                    parts["matrices"].append(_pairs(result.matrix, **who, kind=kind, measure=name))
            depth = next(iter(own.values())).layers
            for layer in sorted({*range(0, depth, -(-depth // 12)), depth}):  # a dozen layers draw the curve
                result = similarity(own, layer=layer, **brief)
                parts["layers"].append(_pairs(result.matrix, **who, layer=layer))
                reliability = geometry.matrix_reliability(result)
                parts["curve"].append(pd.DataFrame([who | {"layer": layer, "reliability": reliability}]))
    for name, kind in (("neural", "activation"), ("attention", "attention")):
        result = neural if name == "neural" else attention
        default = result.settings["measure"]
        parts["matrices"].append(_pairs(result.matrix, model="mean", twin=False, kind=kind, measure=default))
        if twins:
            control = similarity(twins, kind, bootstraps=0, splits=0)
            parts["matrices"].append(_pairs(control.matrix, model="mean", twin=True, kind=kind, measure=default))
        if len(models) > 1:
            pairs, table = agreement({m: {n: own[n] for n in kept} for m, own in models.items()}, kind, seed=seed)
            parts["agreement"].append(table.assign(kind=kind))
            parts["agreement-models"].append(pairs.assign(kind=kind))
    for model, own in models.items():
        for name in kept:
            parts["heads"].append(_heads(own[name]).assign(model=model, benchmark=name))
    first = next(iter(models.values()))
    parts["lengths"].append(
        pd.DataFrame(
            [
                {
                    "benchmark": n,
                    "questions": len(first[n].states),
                    "tokens": first[n].length.mean(),
                    "log_tokens": np.log(first[n].length).mean(),
                    "window": first[n].window.mean(),
                }
                for n in kept
            ]
        )
    )
    tables = {name: pd.concat(found, ignore_index=True) for name, found in parts.items() if found}
    if len(models) >= 5:
        second = second_order({m: {n: own[n] for n in kept} for m, own in models.items()}, seed=seed)
        tables["second-order"] = overlap.to_long(second.matrix, second.low, second.high, interval=second.interval)
        tables["second-order-reliability"] = second.reliability
    about = {
        "models": list(models),
        "twins": list(twins),
        "settings": next(iter(first.values())).settings,
        **common,
    }
    about["settings"] = {k: v for k, v in about["settings"].items() if k not in ("key", "seconds")}
    return Atlas(neural, attention, tables, about)


def _heads(traces: Traces) -> pd.DataFrame:
    """Mean and standard deviation over questions of every head's statistics, in long form."""
    mean = traces.attention.mean(0)
    spread = traces.attention.std(0, ddof=1)
    layer, head, statistic = np.indices(mean.shape)
    frame = pd.DataFrame(
        {
            "layer": (layer + 1).ravel().astype(np.int16),
            "head": (head + 1).ravel().astype(np.int16),
            "statistic": np.array(STATISTICS)[statistic.ravel()],
            "mean": mean.ravel(),
            "sd": spread.ravel(),
            "n": len(traces.attention),
        }
    )
    return frame[np.isfinite(frame["mean"])]


def contrast_tables(heads: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Return what every head does differently in two benchmarks, from an atlas' `heads` table.

    Columns `model`, `layer`, `head`, `statistic`, `first`, `second` (means), `d` (Cohen's d), `p` (Welch's
    test). The same numbers as :func:`head_contrast`, from means and standard deviations.
    """
    keys = ["model", "layer", "head", "statistic"]
    parts = [heads[heads["benchmark"] == name].set_index(keys)[["mean", "sd", "n"]] for name in (first, second)]
    for name, part in zip((first, second), parts):
        if part.empty:
            raise DataError(f"no attention statistics for '{name}'; {nearest(name, set(heads['benchmark']))}")
    both = parts[0].join(parts[1], lsuffix="_a", rsuffix="_b", how="inner").astype(float)
    pooled = np.sqrt(
        (both["sd_a"] ** 2 * (both["n_a"] - 1) + both["sd_b"] ** 2 * (both["n_b"] - 1))
        / (both["n_a"] + both["n_b"] - 2)
    )
    means_a, sd_a, n_a, means_b, sd_b, n_b = both.to_numpy().T
    test = ttest_ind_from_stats(means_a, sd_a, n_a, means_b, sd_b, n_b, equal_var=False)
    return pd.DataFrame(
        {
            "first": both["mean_a"], "second": both["mean_b"],
            "d": (both["mean_a"] - both["mean_b"]) / pooled.where(pooled > 0), "p": test.pvalue,
        }
    ).reset_index()  # fmt: skip


def pairs_of(matrix: pd.DataFrame, value: str = "value") -> pd.DataFrame:
    """Return the pairs above the diagonal as `a`, `b` (in alphabetical order) and their value.

    >>> pairs_of(pd.DataFrame([[1, 0.5], [0.5, 1]], ["y", "x"], ["y", "x"])).values.tolist()
    [['x', 'y', 0.5]]
    """
    names = np.sort(np.asarray(matrix.index, dtype=object))
    rows, columns = np.triu_indices(len(names), 1)
    values = inference.upper(matrix.loc[names, names].to_numpy(dtype=float))
    return pd.DataFrame({"a": names[rows], "b": names[columns], value: values})


def square(pairs: pd.DataFrame, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a symmetric matrix, diagonal 1, from rows `a`, `b`, `value`.

    >>> square(pd.DataFrame({"a": ["x"], "b": ["y"], "value": [0.5]})).values.tolist()
    [[1.0, 0.5], [0.5, 1.0]]
    """
    names = list(dict.fromkeys([*pairs["a"], *pairs["b"]])) if names is None else list(names)
    position = {n: i for i, n in enumerate(names)}
    matrix = np.eye(len(names))
    rows, columns = (pairs[k].map(position).to_numpy() for k in ("a", "b"))
    matrix[rows, columns] = matrix[columns, rows] = pairs["value"]
    return pd.DataFrame(matrix, index=names, columns=names)


def separation(
    tables: pd.DataFrame,
    by: Sequence[str],
    labels: Mapping[str, pd.Series],
    among: pd.DataFrame | None = None,
    *,
    bootstraps: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how well each matrix of a long table separates labels: one row a matrix and label.

    `tables` has `a`, `b`, `value` and the columns `by` that name a matrix; `labels` maps a target's name to a
    Series over benchmarks; `among`: `pairs` of ``helpers.inference.auc``. Columns: `by`, `target`, `auc`, `low`,
    `high`.
    """
    rows = []
    for key, part in tables.groupby(list(by), sort=False):
        matrix = square(part)
        for target, groups in labels.items():
            result = inference.auc(matrix, groups, pairs=among, bootstraps=bootstraps, seed=seed)
            rows.append({**dict(zip(by, key)), "target": target, **result})
    return pd.DataFrame(rows)


def by_depth(table: pd.DataFrame, values: Sequence[str], by: str | None = None, most: int = 3) -> pd.DataFrame:
    """Return a table of layers with `depth` (0: embedding, 1: last layer) and `series`, ready to be drawn.

    Up to `most` models keep a series each. More are averaged, trained and untrained apart, and since their
    layers then lie at different depths, everything between embedding and last layer is averaged at 0.5.

    Parameters
    ----------
    table : `model`, `twin`, `layer` (0: embedding), the columns `values`, and `by`, which also splits series.

    >>> rows = [(m, False, k, k / d) for m, d in (("a", 2), ("b", 4)) for k in range(d + 1)]
    >>> table = pd.DataFrame(rows, columns=["model", "twin", "layer", "value"])
    >>> by_depth(table, ["value"], most=1)[["series", "depth", "value"]].values.tolist()
    [['trained', 0.0, 0.0], ['trained', 0.5, 0.5], ['trained', 1.0, 1.0]]
    """
    table = table.assign(depth=table["layer"] / table.groupby("model")["layer"].transform("max"))
    untrained = pd.Series(np.where(table["twin"], " (untrained)", ""), table.index)
    if table["model"].nunique() <= most:
        prefix = "" if by is None else table[by] + ", "
        return table.assign(series=prefix + table["model"] + untrained).sort_values("depth", kind="stable")
    table["depth"] = np.ceil(table["depth"]) / 2 + np.floor(table["depth"]) / 2
    table["series"] = np.where(table["twin"], "untrained", "trained") if by is None else table[by] + untrained
    keys = ["series", "twin", "depth", *([by] if by else [])]
    return table.groupby(keys, as_index=False)[list(values)].mean().sort_values("depth", kind="stable")


def write_atlas(folder: Path | str, atlas: Atlas, **provenance_arguments) -> None:
    """Write an atlas: ``overlap/neural.*``, ``overlap/attention.*`` and ``atlas/<table>.parquet``."""
    arguments = {
        "code": [paths.SOURCE / "traces.py", paths.SOURCE / "atlas.py", paths.SOURCE / "geometry.py"],
        **provenance_arguments,
    }
    arguments["parameters"] = atlas.about
    for axis in AXES:
        geometry.write_axis(folder, axis, getattr(atlas, axis), **arguments)
    for name, table in atlas.tables.items():
        provenance.write_table(Path(folder) / "atlas" / f"{name}.parquet", _slim(table), **arguments)


def _slim(table: pd.DataFrame) -> pd.DataFrame:
    """Store numbers in 32 bits and four decimals: enough to draw and to rank, a third of the size."""
    table = table.copy()
    for column in table.select_dtypes("number"):
        if table[column].dtype.kind == "f" and column != "p":
            table[column] = table[column].round(4).astype(np.float32)
    return table


def read_atlas(folder: Path | str) -> dict[str, pd.DataFrame]:
    """Read the tables that :func:`write_atlas` wrote; StaleArtifactError when one is missing or outdated."""
    found = sorted((Path(folder) / "atlas").glob("*.parquet"))
    if not found:
        raise StaleArtifactError(f"no atlas of traces in {paths.label(folder)}; run the notebook that makes it.")
    return {path.stem: provenance.read_table(path) for path in found}


def frozen(study: str) -> Path:
    """Return the folder of a study's committed, dated traces (numbers only); it need not exist."""
    return paths.DATA / "traces" / study


def thaw(study: str, folder: Path | str) -> str:
    """Copy a study's committed neural and attention axes into its artifact folder; return their date.

    The copies name the committed files as inputs; an atlas that an earlier run computed here is deleted, so
    that no page mixes the two. Raises UnavailableError when the study has none.
    """
    source = frozen(study) / "overlap"
    if not (source / "neural.parquet").exists():
        raise UnavailableError(f"study '{study}' has no committed traces; `make study STUDY={study}` collects them.")
    shutil.rmtree(Path(folder) / "atlas", ignore_errors=True)
    for path in sorted(source.glob("*.parquet")) + sorted(source.glob("*.csv")):
        table = provenance.read_table(path)
        parameters = json.loads(provenance.sidecar(path).read_text(encoding="utf-8"))["parameters"]
        provenance.write_table(Path(folder) / "overlap" / path.name, table, inputs=[path], parameters=parameters)
    return json.loads(provenance.sidecar(source / "neural.parquet").read_text(encoding="utf-8"))["created"][:10]


def identity(entry: ModelEntry) -> str:
    """Return what identifies a model without loading it: its settings and the fingerprint of its weights.

    Raises ModelError as ``helpers.models.fingerprint`` does.
    """
    return provenance.content_key(entry.model_dump(mode="json"), fingerprint(entry))


def study_entries(study: Study) -> tuple[ModelEntry, ...]:
    """Return the models whose traces a study takes: its own list, or every fourth of the laboratory's."""
    if study.traces.models:
        return study.traces.models
    if study.models.kind == "list":
        return study.models.entries
    if study.models.kind == "lab":
        from helpers import lab

        names = lab.model_names("main")[::4]
        return tuple(ModelEntry(name=n, source="lab", id=n) for n in names)
    raise StudyError(f"study '{study.name}' names no trace models; add them under 'traces: models:'.")


def collect_study(
    study: Study,
    questions: pd.DataFrame,
    *,
    results: Path | str | None = None,
    entries: Sequence[ModelEntry] | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[dict[str, dict[str, Traces]], dict[str, dict[str, Traces]], list[str]]:
    """Collect the traces of a study's questions in its models and their untrained twins, or read them.

    One file a model and benchmark, in ``<results>/traces``: a run that was stopped goes on with the first
    missing file. Trained models come before the twins.

    Returns
    -------
    Traces by model and benchmark; those of the untrained twins, by the same names (empty without
    ``random_twin``); the benchmarks left out for having too few questions with text.
    """
    chosen, few = _texts(study, questions)
    settings = study.traces
    models: dict[str, dict[str, Traces]] = {}
    twins: dict[str, dict[str, Traces]] = {}
    for untrained in (False, True) if settings.random_twin else (False,):
        for entry in entries or study_entries(study):

            def load(entry: ModelEntry = entry, untrained: bool = untrained) -> tuple:
                loaded = load_model(entry)
                return (random_twin(loaded.model, 0) if untrained else loaded.model), loaded.tokenizer

            (twins if untrained else models)[entry.name] = collect_all(
                load,
                f"{entry.name}-untrained" if untrained else entry.name,
                chosen,
                Path(results or study.results) / "traces",
                identity=identity(entry),
                tokens=settings.tokens,
                progress=progress,
            )
    return models, twins, few


def _texts(study: Study, questions: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the sampled questions of a study without their templates, and the benchmarks with too few."""
    filled = questions["text"].map(lambda t: isinstance(t, str) and bool(t.strip()))
    counts = questions[filled]["benchmark"].value_counts()
    few = sorted(set(questions["benchmark"]) - set(counts.index[counts >= geometry.MINIMUM]))
    chosen = sample(questions[filled & ~questions["benchmark"].isin(few)], study.traces.questions, study.seed)
    return strip_template(chosen)[0], few


def _asked(study: Study) -> dict:
    """Return the settings that a study's traces depend on, besides its questions."""
    entries = [e.model_dump(mode="json") for e in study_entries(study)]
    return {
        "models": entries,
        "questions": study.traces.questions,
        "tokens": study.traces.tokens,
        "random_twin": study.traces.random_twin,
        "seed": study.seed,
    }


def _marks(study: Study) -> dict[str, str]:
    return {e.name: identity(e) for e in study_entries(study)}


def write_collected(study: Study, models: Mapping, twins: Mapping) -> Path:
    """Write ``traces/collected.csv``: `model`, `twin`, `benchmark`, `questions`, `seconds` (of reading).

    The file says that all traces of a study are here; notebooks declare it as an input, so that their pages
    are made again after a collection, and only then.
    """
    rows = [
        (model, twin, name, len(t.states), t.settings.get("seconds"))
        for twin, group in ((False, models), (True, twins))
        for model, own in group.items()
        for name, t in own.items()
    ]
    table = pd.DataFrame(rows, columns=["model", "twin", "benchmark", "questions", "seconds"])
    return provenance.write_table(
        study.results / COLLECTED,
        table,
        inputs=[study.results / "questions.parquet"],
        parameters=_asked(study) | {"weights": _marks(study)},
    )


def uncollected(study: Study) -> str | None:
    """Return why the real models' traces cannot be shown from files collected here, or None when they can."""
    path = study.results / COLLECTED
    if not path.exists():
        return "none were collected here"
    try:
        provenance.read_table(path)
    except StaleArtifactError:
        return "those collected here were made from other questions"
    known = json.loads(provenance.sidecar(path).read_text(encoding="utf-8"))["parameters"]
    changed = [k for k, v in json.loads(json.dumps(_asked(study))).items() if known.get(k) != v]
    if changed:
        return f"those collected here were made with other settings ({', '.join(changed)})"
    absent = next((reason for e in study_entries(study) if (reason := available(e))), None)
    if absent is None and known.get("weights") != _marks(study):
        return "those collected here were made with other weights"
    return absent


def trace_study(
    study: Study,
    questions: pd.DataFrame,
    *,
    results: Path | str | None = None,
    entries: Sequence[ModelEntry] | None = None,
    bootstraps: int = 200,
    splits: int = 50,
    inputs: Sequence[Path | str] = (),
    progress: Callable[[str], None] | None = None,
) -> Atlas:
    """Collect a study's traces, compare them, and write the neural and the attention axis.

    Settings come from the study's section ``traces``: `models`, `questions` (a benchmark), `tokens` (the
    window), `random_twin`. Texts are stripped of the words that a benchmark's questions share at both ends.
    Per-question traces stay in ``<results>/traces`` and a second run resumes there
    (:func:`collect_study`); the atlas is written by :func:`write_atlas`.

    Returns
    -------
    Atlas; ``about["excluded"]`` lists benchmarks left out, with reasons, ``about["minutes"]`` the minutes that
    the models took to read all questions, in this run or an earlier one, ``about["read_now"]`` how many of
    the ``about["files"]`` traces were made in this run.
    """
    started = time.monotonic()
    results = Path(results or study.results)
    made: list[str] = []

    def note(line: str) -> None:
        made.append(line)
        if progress:
            progress(line)

    models, twins, few = collect_study(study, questions, results=results, entries=entries, progress=note)
    atlas = measure_all(models, twins, bootstraps=bootstraps, splits=splits, seed=study.seed)
    found = [t for own in (*models.values(), *twins.values()) for t in own.values()]
    atlas.about["minutes"] = round(sum(t.settings.get("seconds", 0) for t in found) / 60, 2)
    atlas.about["files"], atlas.about["read_now"] = len(found), len(made)
    atlas.about["excluded"] = {n: f"fewer than {geometry.MINIMUM} questions with text" for n in few}
    write_atlas(results, atlas, inputs=inputs, seconds=time.monotonic() - started)
    return atlas


def freeze(study: str, folder: Path | str) -> Path:
    """Copy a study's atlas and its neural and attention axes to ``data/traces/<study>``, to be committed.

    The copies hold numbers only and name no inputs, so that they can be read without the study's questions.
    """
    target = frozen(study)
    wanted = [p for kind in ("overlap", "atlas") for p in sorted((Path(folder) / kind).iterdir())]
    for path in wanted:
        axis = path.name.removesuffix("-reliability.csv").removesuffix(".parquet")
        if path.suffix not in (".parquet", ".csv") or (path.parent.name == "overlap" and axis not in AXES):
            continue
        table = provenance.read_table(path)
        known = json.loads(provenance.sidecar(path).read_text(encoding="utf-8"))
        provenance.write_table(
            target / path.parent.name / path.name,
            table,
            parameters=known["parameters"],
            seconds=known["seconds"],
        )
    return target


@errors.command
def main(arguments: Sequence[str] | None = None) -> int:
    """Collect the real models' traces of a study, or keep its atlas as the committed one; exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.atlas", description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("--freeze", action="store_true", help="copy the atlas computed here to data/traces")
    options = parser.parse_args(arguments)
    try:
        study = study_files.load(options.study)
        if options.freeze:
            print(paths.label(freeze(study.name, study.results)))
        elif not study.traces.models:
            print(f"{study.name} names no models under 'traces: models:'; none are to be collected beforehand.")
        elif reason := uncollected(study):
            print(f"{study.name}: traces are collected ({reason}).", flush=True)
            with provenance.lock([study.name]):
                preparation.prepare(study)
                items = provenance.read_table(study.results / "questions.parquet")
                models, twins, _ = collect_study(study, items, progress=lambda line: print(line, flush=True))
                print(f"All traces are here: {paths.label(write_collected(study, models, twins))}")
        else:
            print(f"{study.name}: all traces are here.")
    except UnavailableError as error:  # the study's pages show committed traces, or are frozen themselves
        print(f"{options.study}: no traces collected: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
