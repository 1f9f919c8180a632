"""Studies made of published numbers: their tables in the schema of CONTRIBUTING.md, every known defect handled.

``dclm``: 156 DCLM evaluations; 66 of the LLMs also have token losses on 57 labelled corpora.
``entigraph``: 89 LLMs with bits per byte on 263 documents of synthetic text, and scores from three sources.

The facts that no upstream file states (what a row is, which LLMs share a lineage, which benchmark a corpus belongs
to) lie in small tables in ``data/``; the numbers all come from the files of ``data/manifest.yml``.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pandas as pd

from helpers import datasets, limits, paths, provenance, questions
from helpers.errors import DataError, StudyError, nearest
from helpers.studies import Study

# A benchmark is usable when it is measured on most LLMs, enough of them are clearly above chance, and sampling noise
# explains little of the variance. The same three numbers hold for every published study.
COMPLETE = 0.9
ABOVE_CHANCE = 0.25
RELIABLE = 0.8
MOST_NATS = 100.0  # of a loss a token: the largest vocabularies make 13 nats for a uniform guess
MOST_BITS = 100.0  # a byte
FLOOR_OF_FREE_ANSWERS = 0.05
FEW_ITEMS = 100
MOST_QUESTIONS = 2000  # of larger sets a fixed sample is kept: no axis reads more

# Training data of a DCLM run, read off its file name; the first pattern that occurs decides. One lineage shares its
# text pool and its filter, at whatever scale, and is held out together.
_LINEAGES = (
    (r"sftv3|wiseft|f0\.07_ccv3", "mixtures-and-soups"),
    (r"^hero", "openhermes-eli5-code-math"),
    (r"fineweb_edu", "fineweb-edu"),
    (r"dfn", "dfn"),
    (r"mates|ask_llm|bge-base|perplexity_f", "other-model-based"),
    (r"wo_metamath|decontaminated|openhermes_vs|OH_fasttext|_OH_vs|rwv2OH", "openhermes"),
    (r"OH_eli5|openhermes_reddit_eli5|open_lm_dclm", "openhermes-eli5"),
    (
        r"gpt3_hq|openwebtext2|fasttext_wiki|sharegpt|open_orca|fasttext_reddit|fasttext_vs",
        "other-classifiers",
    ),
    (r"^(rpj_.*_as_CC|mix_cc95)", "redpajama-mix"),
    (r"^rpj_original", "redpajama"),
    (r"^(c4_original)", "c4"),
    (r"^dolma", "dolma"),
    (r"^rw_(original|pagerank)", "refinedweb"),
    (r"rw_v2", "refinedweb-2"),
)
# 20 tokens a parameter at scale 1x: the token counts in the file names give these sizes.
_SCALES = {"412M": 8_232_325_120 // 20, "1b": 28_795_904_000 // 20, "7b": 137_788_211_200 // 20}
_SETTINGS = {
    "mult": r"mult=([\dp]+)",
    "lr": r"lr=(\w+)",
    "wd": r"wd=(\w+)",
    "arch": r"open_lm_\w+?_(swiglu)torch",
    "seed": r"seed=(\d+)",
    "note": r"(?:tokens=|seed=)\d+_?((?:avg|rho1|oh_ft|copy).*)$",
    "run": r"open_lm_\w+?-([\d.]+)$",
}
_DCLM_CORRECTIONS = {"arc_challenge": {"n_items": 1172}, "math_qa": {"chance": 0.25}}
_DCLM_UNIT = "nats per token, mean over one benchmark's texts (which tokens is not documented)"


def prepare(study: Study) -> None:
    """Write units, models, benchmarks, scores, surprisal and questions of a published study into its folder.

    Units keep the unit of the source (column ``unit`` of units.parquet): losses in nats per token, bits per byte.
    Raises UnavailableError when a file is neither here nor reachable, DataError when its bytes are wrong,
    StudyError for a study that is not published.
    """
    makers = {"dclm": _dclm, "entigraph": _entigraph}
    if study.name not in makers:
        raise StudyError(f"'{study.name}' is not a published study; {nearest(study.name, makers)}")
    start = time.perf_counter()
    tables, inputs = makers[study.name](study)
    benchmarks = tables["benchmarks.csv"]
    if "same_items_as" not in benchmarks:  # not told by the publishers, but the questions show it
        benchmarks["same_items_as"] = benchmarks["benchmark"].map(questions.repeated(tables["questions.parquet"]))
    shares = {
        "seconds": time.perf_counter() - start,
        "code": [Path(__file__)],
        "parameters": {"study": study.name},
    }
    for name, frame in tables.items():
        provenance.write_table(study.results / name, frame, inputs=inputs, **shares)


def reliability(scores: pd.DataFrame, n_items: pd.Series) -> pd.Series:
    """Return the share of the between-model variance of each benchmark that is not binomial sampling noise.

    `scores` is (n_benchmarks, n_models) in 0 to 1, `n_items` has the same index. The noise of a model is
    ``p (1 - p) / (n - 1)``, the binomial variance of a mean of right-or-wrong items. For scores with partial credit
    (F1) true noise is smaller, so the value is a lower bound; it says nothing about other noise (prompts, seeds).
    NaN where `n_items` is unknown.

    >>> float(reliability(pd.DataFrame([[0.0, 0.5, 1.0]], index=["b"]), pd.Series([1001], index=["b"])).round(4)["b"])
    0.9997
    """
    noise = (scores * (1 - scores)).mean(axis=1) / (n_items - 1)
    spread = scores.var(axis=1)
    return 1 - noise / spread


def above_chance(scores: pd.DataFrame, n_items: pd.Series, chance: pd.Series) -> pd.Series:
    """Return the share of models more than two binomial standard errors above chance.

    Where chance is 0 (free answers) a model counts when it reaches 5 %. NaN where chance or `n_items` is unknown.
    """
    error = np.sqrt(np.maximum(chance * (1 - chance), 0) / n_items)
    bar = (chance + 2 * error).where(chance > 0, FLOOR_OF_FREE_ANSWERS)
    share = scores.gt(bar, axis=0).sum(axis=1) / scores.notna().sum(axis=1)
    return share.where(chance.notna() & n_items.notna())


def _long(scores: pd.DataFrame, source: pd.Series | str, n_items: pd.Series, binomial: pd.Series) -> pd.DataFrame:
    """Return the long score table of a (benchmark, model) frame; not measured means no row."""
    long = scores.rename_axis("benchmark").reset_index().melt("benchmark", var_name="model", value_name="score")
    long = long.dropna(subset="score")
    long["n_items"] = long["benchmark"].map(n_items).astype("Int64")
    variance = long["score"] * (1 - long["score"]) / long["n_items"].astype(float)
    long["stderr"] = np.sqrt(variance.where(long["benchmark"].map(binomial).astype(bool)).clip(lower=0))
    long["source"] = source if isinstance(source, str) else long["benchmark"].map(source)
    return long.sort_values(["benchmark", "model"], ignore_index=True)


def _facts(name: str) -> pd.DataFrame:
    return pd.read_csv(paths.DATA / name)


def _texts(wanted: pd.Series) -> tuple[pd.DataFrame, list[Path]]:
    """Return the question table of the benchmarks in `wanted` (benchmark -> name of a question file).

    Two benchmarks may share one file; every file is read once.
    """
    wanted = wanted.dropna()
    wanted = wanted[wanted != ""]
    gauntlet = datasets.files("gauntlet-questions")
    place = {Path(p).stem: f for p, f in gauntlet.items()}
    parts, inputs = [], []
    for source, sharing in wanted.groupby(wanted):
        benchmark = sharing.index[0]
        if source == "truthfulqa":
            path = datasets.fetch("truthfulqa")
            parts.append(questions.read_truthfulqa(path, benchmark))
        elif source == "xwinograd":
            path = datasets.fetch("xwinograd")
            parts.append(questions.read_xwinograd(path).assign(benchmark=benchmark))
        else:
            path = place[source]
            parts.append(questions.read(path, benchmark, problems=[]))
        inputs.append(path)
        parts += [parts[-1].assign(benchmark=other) for other in sharing.index[1:]]
    everything = pd.concat(parts, ignore_index=True)
    return questions.sample(everything, MOST_QUESTIONS, seed=0).reset_index(drop=True), inputs


# --- dclm -----------------------------------------------------------------------------------------------------------


def lineage(file: str) -> str:
    """Return the training lineage of a DCLM run, read off its file name.

    >>> lineage("evaluation_c4_original-open_lm_1b-5.0_heavy.json")
    'c4'
    """
    stem = Path(file).stem.removeprefix("evaluation_")
    for pattern, family in _LINEAGES:
        if re.search(pattern, stem):
            return family
    raise DataError(f"{file}: no lineage is known for this training run; add a pattern to helpers.published.")


def dclm_wide() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, list[Path]]:
    """Read the 156 DCLM evaluations.

    Returns models (156 rows), scores (57 tasks x 156 models, 0 to 1), losses (57 corpora x 66 models, nats per
    token) and the files read. Model names are unique: hub ids for public LLMs, ``<recipe>/<scale>`` with what else
    tells them apart for training runs.
    """
    files = list(datasets.files("dclm-evaluations").values())
    public = _facts("dclm-public-models.csv").set_index("file")
    rows, scores, losses = [], {}, {}
    for path in files:
        shown = limits.name(path)
        content, metrics = _dclm_file(path, shown)
        row = {
            "file": path.name,
            "val_loss": metrics.get("perplexity", np.nan),
        }  # upstream's key; it holds a loss
        row |= _public(public, path.name) if path.name in public.index else _run(path.name, content["model"])
        rows.append(row)
        scores[path.name] = {k: limits.number(v, f"{shown}, icl '{k}'", 0, 1) for k, v in metrics["icl"].items()}
        if "downstream_perpexity" in metrics:  # upstream's spelling
            told = metrics["downstream_perpexity"]
            losses[path.name] = {k: limits.number(v, f"{shown}, loss '{k}'", 0, MOST_NATS) for k, v in told.items()}
    models = pd.DataFrame(rows)
    models["model"] = _unique(models)
    name = models.set_index("file")["model"]
    score_frame = pd.DataFrame(scores).rename(columns=name).sort_index()
    loss_frame = pd.DataFrame(losses).rename(columns=name).sort_index()
    models["has_losses"] = models["model"].isin(loss_frame.columns)
    order = [
        "model",
        "family",
        "parameters",
        "kind",
        "scale",
        "recipe",
        "tokens",
        "val_loss",
        "has_losses",
        "file",
    ]
    return models[order], score_frame, loss_frame, files


def _dclm_file(path: Path, shown: str) -> tuple[dict, dict]:
    """Return one evaluation and its metrics, whose mappings and names are what is read; DataError says what they are not."""
    try:
        content = limits.parse_json(limits.decode(limits.read_bytes(path, limits.MAX_JSON), shown))
    except DataError as error:
        raise DataError(f"{shown}: {str(error).removeprefix(shown + ': ').rstrip('.')}.") from None
    metrics = content.get("eval_metrics") if isinstance(content, dict) else None
    if not isinstance(metrics, dict) or not isinstance(metrics.get("icl"), dict) or not metrics["icl"]:
        raise DataError(f"{shown}: no scores in 'eval_metrics', 'icl'; fetch the file again.")
    if not isinstance(content.get("model"), str):
        raise DataError(f"{shown}: 'model' is no name; fetch the file again.")
    if not isinstance(metrics.get("downstream_perpexity", {}), dict):
        raise DataError(f"{shown}: 'downstream_perpexity' holds no losses by corpus; fetch the file again.")
    if metrics.get("perplexity") is not None:
        limits.number(metrics["perplexity"], f"{shown}, 'perplexity'", 0, MOST_NATS)
    return content, metrics


def _public(public: pd.DataFrame, file: str) -> dict:
    row = public.loc[file]
    return {
        "model": row["model"],
        "family": row["family"],
        "parameters": int(row["parameters"]),
        "kind": "public LLM",
        "scale": "",
        "recipe": "",
        "tokens": np.nan,
    }


def _run(file: str, architecture: str) -> dict:
    stem = Path(file).stem.removeprefix("evaluation_").removesuffix("_heavy")
    recipe = re.split(r"-(?=open_lm_|d=1024)", stem)[0]
    scale = "412M" if architecture.startswith("d=1024") else "7b" if "7b" in architecture else "1b"
    tokens = re.search(r"tokens=(\d+)", stem)
    return {
        "model": f"{recipe}/{scale}",
        "family": lineage(file),
        "parameters": _SCALES[scale],
        "kind": "DCLM run",
        "scale": scale,
        "recipe": recipe,
        "tokens": float(tokens.group(1)) if tokens else np.nan,
    }


def _unique(models: pd.DataFrame) -> pd.Series:
    """Return the names; runs of one recipe and scale carry the settings of their file names that differ."""
    names = models["model"].copy()
    for name, group in models.groupby("model"):
        if len(group) == 1:
            continue
        stems = group["file"].str.removesuffix(".json").str.removesuffix("_heavy")
        found = {key: stems.str.extract(pattern)[0].fillna("") for key, pattern in _SETTINGS.items()}
        telling = [key for key, values in found.items() if values.nunique() > 1]
        for index in group.index:
            parts = [
                f"{key} {re.sub(r'(?<=[0-9])p(?=[0-9])', '.', found[key][index])}"
                for key in telling
                if found[key][index]
            ]
            names[index] = f"{name} ({', '.join(parts) or 'plain'})"
    if names.duplicated().any():
        raise DataError(f"dclm: two runs share the name '{names[names.duplicated()].iloc[0]}'.")
    return names


def _dclm(study: Study) -> tuple[dict[str, pd.DataFrame], list[Path]]:
    models, scores, losses, inputs = dclm_wide()
    facts = _facts("dclm-benchmarks.csv").set_index("benchmark")
    meta_file = datasets.fetch("dclm-tasks")
    wanted = ("Eval Task", "#datapoints", "Random baseline", "Task Type", "Task Category")
    meta = limits.read_csv(meta_file, columns=wanted).set_index("Eval Task")
    missing = scores.index.difference(facts.index)
    if len(missing):
        raise DataError(f"data/dclm-benchmarks.csv does not know the task '{missing[0]}'.")
    bench = facts.loc[scores.index].copy()
    # tasks without chain of thought have no row of their own; their items are those of the row with it
    row = [t if t in meta.index else f"{t}_cot" for t in bench.index]
    bench["title"] = bench.index.str.replace("_", " ")
    bench["n_items"] = meta["#datapoints"].reindex(row).to_numpy()
    bench["chance"] = meta["Random baseline"].reindex(row).to_numpy() / 100
    kind = meta["Task Type"].reindex(row).replace("question answering", "generation")
    bench["format"] = kind.to_numpy()
    bench["category_upstream"] = meta["Task Category"].reindex(row).to_numpy()
    for task, values in _DCLM_CORRECTIONS.items():
        bench.loc[task, list(values)] = list(values.values())
    runs = losses.columns
    for suffix, part in (("", scores), ("_losses", scores[runs])):
        bench[f"n_models{suffix}"] = part.notna().sum(axis=1)
        bench[f"above_chance{suffix}"] = above_chance(part, bench["n_items"], bench["chance"])
        bench[f"reliability{suffix}"] = reliability(part, bench["n_items"])
    verdicts = {s: [_verdict(r, s, n) for _, r in bench.iterrows()] for s, n in (("", 156), ("_losses", 66))}
    bench["usable_performance"] = [not v for v in verdicts[""]]
    bench["usable"] = [not a and not b for a, b in zip(verdicts[""], verdicts["_losses"], strict=True)]
    bench["reason"] = [
        _dclm_reason(*vs, r) for *vs, (_, r) in zip(verdicts[""], verdicts["_losses"], bench.iterrows(), strict=True)
    ]
    bench = _chosen(bench, study)
    units = _loss_units(losses.index, facts)
    texts, text_files = _texts(bench["questions"])
    everything = [
        *inputs,
        meta_file,
        paths.DATA / "dclm-benchmarks.csv",
        paths.DATA / "dclm-public-models.csv",
        *text_files,
    ]
    tables = {
        "units.parquet": units,
        "models.csv": models,
        "benchmarks.csv": _benchmarks(bench),
        "scores.csv": _long(scores.loc[bench.index], "DCLM evaluation", bench["n_items"], bench["n_items"].notna()),
        "surprisal.parquet": _matrix(losses.set_axis(units.index)),
        "questions.parquet": texts,
    }
    return tables, list(dict.fromkeys(everything))


def _loss_units(corpora: pd.Index, facts: pd.DataFrame) -> pd.DataFrame:
    owners: dict[str, list[str]] = {c: [] for c in corpora}
    for task, fact in facts.iterrows():
        for corpus in {fact["own_corpus"], facts["own_corpus"].get(fact["same_items_as"])}:
            if isinstance(corpus, str) and corpus in owners:
                owners[corpus].append(str(task))
    units = pd.DataFrame({"doc_id": corpora, "source": "mlfoundations/dclm", "start": 0, "end": 0, "bytes": pd.NA})
    units["bytes"] = units["bytes"].astype("Int64")
    units["unit"] = _DCLM_UNIT
    units["own_benchmarks"] = [";".join(owners[c]) for c in corpora]
    return units.rename_axis("unit_id")


def leakage(units: pd.DataFrame, benchmarks: pd.Index | list[str]) -> pd.DataFrame:
    """Return a boolean frame (units x benchmarks): True where the unit IS the benchmark's own text.

    Selection that may look at its own benchmark's loss is circular in the plainest way; mask these units
    (set their screening statistic to NaN) to see what is left. Empty of True where nothing is known.

    >>> u = pd.DataFrame({"own_benchmarks": ["a;b", ""]}, index=pd.Index([0, 1], name="unit_id"))
    >>> leakage(u, ["b", "c"]).to_numpy().tolist()
    [[True, False], [False, False]]
    """
    own = units.get("own_benchmarks", pd.Series("", index=units.index)).fillna("").str.split(";")
    index = units.set_index("unit_id").index if "unit_id" in units else units.index
    return pd.DataFrame({b: [b in o for o in own] for b in benchmarks}, index=index)


def _verdict(row: pd.Series, suffix: str, population: int) -> str:
    """Return why a benchmark is not usable on a population, or an empty string."""
    if pd.isna(row["n_items"]):
        return "number of items unknown"
    n_models = int(row[f"n_models{suffix}"])
    if n_models < COMPLETE * population:
        return f"measured on {n_models} of {population} LLMs"
    if row["n_items"] < FEW_ITEMS:
        return f"only {int(row['n_items'])} items"
    above = row[f"above_chance{suffix}"]
    if above < ABOVE_CHANCE:
        return f"floor: {above:.0%} of {n_models} LLMs clearly above {'chance' if row['chance'] > 0 else '5 %'}"
    if row[f"reliability{suffix}"] < RELIABLE:
        return f"noise: reliability {max(row[f'reliability{suffix}'], 0):.2f} over {n_models} LLMs"
    return ""


def _dclm_reason(everyone: str, with_losses: str, row: pd.Series) -> str:
    if everyone:
        return f"no: {everyone}"
    if with_losses:
        return f"no: fit for performance over all 156, but among the LLMs with losses {with_losses}"
    caveats = []
    if isinstance(row["own_corpus"], str) and row["own_corpus"]:
        caveats.append(f"corpus '{row['own_corpus']}' is this benchmark's own text")
    if isinstance(row["same_items_as"], str) and row["same_items_as"]:
        caveats.append(f"same items as {row['same_items_as']}")
    if row.name in _DCLM_CORRECTIONS:
        caveats.append("metadata corrected (see data/README.md)")
    if row["chance"] in (0.62, 0.403):
        caveats.append("chance is the rate of the most frequent answer")
    return "; ".join(caveats)


# --- entigraph ------------------------------------------------------------------------------------------------------


def _entigraph(study: Study) -> tuple[dict[str, pd.DataFrame], list[Path]]:
    names = ("entigraph-bpb", "entigraph-errors", "entigraph-core", "leaderboard-v1", "obsscaling")
    place = {n: datasets.fetch(n) for n in names}
    facts = _facts("entigraph-models.csv")
    rows = _facts("entigraph-benchmarks.csv")
    bpb = limits.read_csv(place["entigraph-bpb"], columns=("id",)).set_index("id")
    unknown = set(bpb.columns) ^ set(facts["column"])
    if unknown:
        raise DataError(
            f"{paths.label(place['entigraph-bpb'])}: column {unknown.pop()} is not in both tables; see data/entigraph-models.csv."
        )
    _within(bpb, limits.name(place["entigraph-bpb"]), 0, MOST_BITS)
    column = facts.set_index("column")
    for twin in facts.loc[facts["duplicate_of"].notna(), "column"]:  # Amber under a second family name
        original = facts.loc[
            (facts["model"] == column.loc[twin, "model"]) & facts["duplicate_of"].isna(), "column"
        ].item()
        if not np.array_equal(bpb[twin], bpb[original]):
            raise DataError(f"{twin} is listed as a repeat of {original} but their bits per byte differ.")
    kept = facts[facts["duplicate_of"].isna()]
    model_of = kept.set_index("column")["model"]
    models = pd.DataFrame(
        {
            "model": kept["model"],
            "family": kept["lineage"],
            "parameters": (kept["parameters_b"] * 1e9).round(),
            "upstream_family": kept["upstream_family"],
            "revision": kept["revision"],
            "tokenizer_group": np.where(kept["zero_group"] == 1, "byte level (zero group)", "other"),
            "note": kept["note"],
        }
    ).reset_index(drop=True)
    scores = _entigraph_scores(place, rows, kept, model_of)
    bench = rows.set_index("benchmark")
    binomial = bench["metric"].isin(["error", "accuracy", "percent"])
    fractions = scores.where(bench["metric"] != "perplexity", axis=0)
    bench["n_models"] = scores.notna().sum(axis=1)
    bench["above_chance"] = above_chance(fractions, bench["n_items"], bench["chance"])
    bench["reliability"] = reliability(fractions, bench["n_items"])
    bench["usable"] = bench["usable"].astype(bool)
    bench = _chosen(bench, study)
    units = pd.DataFrame(
        {
            "doc_id": [str(i).strip() for i in bpb.index],
            "source": "entigraph (GPT-4-turbo on QuALITY)",
            "start": 0,
            "end": 0,
            "bytes": pd.Series(pd.NA, index=range(len(bpb)), dtype="Int64"),
            "unit": "bits per byte, mean over one source article's synthetic text",
        }
    )
    units = units.rename_axis("unit_id")
    if units["doc_id"].duplicated().any():
        raise DataError(
            f"{paths.label(place['entigraph-bpb'])}: two rows have the id '{units.loc[units['doc_id'].duplicated(), 'doc_id'].iloc[0]}'."
        )
    matrix = bpb[model_of.index].rename(columns=model_of).set_axis(units.index)
    texts, text_files = _texts(bench["questions"])
    inputs = [
        *place.values(),
        paths.DATA / "entigraph-models.csv",
        paths.DATA / "entigraph-benchmarks.csv",
        *text_files,
    ]
    source = "perplexity-correlations " + bench["table"]
    source = source.where(bench["table"].isin(["error", "core"]), bench["table"])
    tables = {
        "units.parquet": units,
        "models.csv": models,
        "benchmarks.csv": _benchmarks(bench),
        "scores.csv": _long(scores.loc[bench.index], source, bench["n_items"], binomial),
        "surprisal.parquet": _matrix(matrix),
        "questions.parquet": texts,
    }
    return tables, list(dict.fromkeys(inputs))


def _entigraph_scores(
    place: dict[str, Path], rows: pd.DataFrame, kept: pd.DataFrame, model_of: pd.Series
) -> pd.DataFrame:
    """Return scores (benchmarks x 89 models), higher is better, artefact zeros left out."""
    errors = limits.read_csv(place["entigraph-errors"], columns=("benchmark", *model_of.index)).set_index("benchmark")
    core = limits.read_csv(place["entigraph-core"], columns=tuple(model_of.index))
    board = leaderboard(place["leaderboard-v1"], kept.loc[kept["revision"].isna(), "hub_id"]).set_index("Model")
    scaling = limits.read_csv(place["obsscaling"], columns=("Model",)).set_index("Model")
    hub = kept.set_index("model")["hub_id"].where(kept.set_index("model")["revision"].isna())
    result = {}
    for row in rows.itertuples():
        if row.table == "error":
            label = errors.index[int(row.row)]
            if label != row.benchmark:
                raise DataError(
                    f"{paths.label(place['entigraph-errors'])}, row {row.row}: '{label}', expected '{row.benchmark}'."
                )
            values = errors.iloc[int(row.row)][model_of.index].rename(model_of).astype(float)
            values = 1 - values if row.metric == "error" else -np.log(values)
        elif row.table == "core":
            values = core.iloc[int(row.row)][model_of.index].rename(model_of).astype(float)
        else:
            column = (board if row.table == "leaderboard" else scaling)[row.row]
            values = hub.map(column) / (100 if row.metric == "percent" else 1)
        low, high = {"perplexity": (-np.inf, 0)}.get(row.metric, (0, 1))
        shown = f"{row.table} table, '{row.benchmark}'"
        result[row.benchmark] = _within(values.rename(row.benchmark).to_frame(), shown, low, high, missing=True).iloc[
            :, 0
        ]
    scores = pd.DataFrame(result).T.reindex(columns=model_of.to_list())
    zero = kept.loc[kept["zero_group"] == 1, "model"]
    artefact = [
        "bigbench_qa_wikidata",
        "bigbench_operators",
        "bigbench_repeat_copy_logic",
        "bigbench_cs_algorithms",
    ]
    if (scores.loc["bigbench_cs_algorithms", zero] != 0).any():
        raise DataError(
            "data/entigraph-models.csv: an LLM of the zero group has a score above 0 on bigbench_cs_algorithms."
        )
    scores.loc[artefact, zero] = np.nan
    return scores


def _within(frame: pd.DataFrame, shown: str, low: float, high: float, missing: bool = False) -> pd.DataFrame:
    """Return a table of numbers as float64; DataError for the first that is none or outside [low, high]."""
    for name, column in frame.items():
        for row, value in column.items():
            if not (missing and pd.isna(value)):
                limits.number(value, f"{shown}, row '{row}', column '{name}'", low, high)
    return frame.astype(float)


def leaderboard(path: Path, hub_ids: pd.Series) -> pd.DataFrame:
    """Return one row of Open LLM Leaderboard v1 a model (percent), names matched exactly.

    Of several submissions the one not in 4bit goes first, then the one marked pretrained, then the earliest.
    """
    board = limits.read_csv(path, columns=("Model", "Precision", "Type", "date"))
    board = board[board["Model"].isin(set(hub_ids))].copy()
    board["quantised"] = board["Precision"].eq("4bit")
    board["tuned"] = ~board["Type"].eq("pretrained")
    board = board.sort_values(["quantised", "tuned", "date"], kind="stable")
    return board.drop_duplicates("Model")


# --- both -----------------------------------------------------------------------------------------------------------


def _chosen(bench: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Apply the study's include and exclude; unknown names are errors."""
    for name in (*study.benchmarks.include, *study.benchmarks.exclude):
        if name not in bench.index:
            raise StudyError(f"study '{study.name}': no benchmark '{name}'; {nearest(name, bench.index)}")
    if study.benchmarks.include:
        bench = bench.loc[[b for b in bench.index if b in study.benchmarks.include]]
    return bench.drop(index=list(study.benchmarks.exclude))


def _benchmarks(bench: pd.DataFrame) -> pd.DataFrame:
    first = ["benchmark", "title", "function", "family", "format", "n_items", "chance", "usable", "reason"]
    frame = bench.rename_axis("benchmark").reset_index()
    frame["n_items"] = frame["n_items"].astype("Int64")
    frame["reason"] = frame["reason"].fillna("")
    rest = [c for c in frame.columns if c not in first and c not in ("table", "row", "questions")]
    return frame[first + rest]


def _matrix(frame: pd.DataFrame) -> pd.DataFrame:
    """Return surprisal (units x models) as float32, complete and finite."""
    if not np.isfinite(frame.to_numpy(dtype=float)).all():
        raise DataError("surprisal has values that are missing or not finite.")
    return frame.astype(np.float32).rename_axis("unit_id")
