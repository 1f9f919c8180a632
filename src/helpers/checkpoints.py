"""What lies in the folder of a checkpoint: the files that a loader opens, their fingerprint, and why a folder is none.

Nothing here imports torch: the runner keys notebooks on the same fingerprint by which extraction, traces and a reader's
own checkpoints know that weights, configuration or tokenizer changed.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from helpers import paths, provenance
from helpers.errors import ModelError

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
# What no loader reads: everything else counts, since a file too many costs a repeated run, one too few a wrong number.
NEVER_OPENED = (*PICKLES, ".h5", ".msgpack", ".onnx", ".md", ".py", ".log", ".png")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
RANKS = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")  # of a training on several machines
LARGEST = 2**26  # bytes of a JSON file; the largest index of a public model has a hundredth of it


def fingerprint(folder: Path) -> str:
    """Return a sha256 over everything in a folder that a loader may open, by path within the folder and content.

    Weights (also those in sub-folders that an index names), configuration and tokenizer count; pickles, which are never
    read, do not. A copy of the folder elsewhere has the same fingerprint. Whether the folder is sound is not asked: see
    :func:`weights`. Raises ModelError when a file cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as made:
    ...     before = fingerprint(Path(made))
    ...     _ = Path(made, "config.json").write_text("{}")
    ...     before == fingerprint(Path(made))
    False
    """
    try:
        opened = {p for p in folder.iterdir() if p.suffix.lower() not in NEVER_OPENED and not p.name.startswith(".")}
        for index in folder.glob("*.index.json"):
            try:
                opened |= {folder / n for n in shards(index) if not _outside(n)}
            except ModelError:
                continue  # its own content counts; loading says what is wrong with it
        digests = {p.relative_to(folder).as_posix(): provenance.sha256_file(p) for p in sorted(opened) if p.is_file()}
    except (OSError, ValueError) as error:
        raise ModelError(f"{_label(folder)} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    return provenance.content_key(digests)


def weights(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder that a loader opens, each whole.

    The choice is transformers' own: what ``transformers_weights`` in config.json names, else model.safetensors, else the
    files that its index names.

    Raises ModelError for a folder without config.json or without such weights (the message says what is there instead and
    what to do), for an adapter, for an index that names a pickle, a missing file or one outside the folder, for a tensor
    in two files, for what is not an ordinary file, and for a damaged or half-written file.
    """
    for path in _listed(folder):
        if path.is_symlink() and not path.exists():
            raise ModelError(f"{_label(path)} is a link to a file that is gone; copy the file itself here.")
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ModelError(f"{_label(path)} is a pipe or device, not a file; remove it.")
        if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(b"version https://git-lfs"):
            raise ModelError(
                f"{_label(path)} only says where the file is kept (Git LFS); run `git lfs pull` in its folder."
            )
    if (folder / "adapter_config.json").is_file():
        base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
        raise ModelError(
            f"{_label(folder)} holds an adapter (adapter_config.json), which changes the model '{base}' and is no model by "
            "itself. Merge them with the package peft: AutoPeftModelForCausalLM.from_pretrained(folder).merge_and_unload()"
            ".save_pretrained(other), save the tokenizer there too, and name that folder."
        )
    if not (folder / "config.json").is_file():
        raise ModelError(f"no config.json in {_label(folder)}{_instead(folder)}")
    if any(RANKS.fullmatch(p.name) for p in _listed(folder)):
        raise ModelError(
            f"{_label(folder)} holds the parts of a training on several machines (shard-...-model-...); load them there and "
            "save the whole model with save_pretrained."
        )
    config = read_json(folder / "config.json")
    for key in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        if "/" in str(config.get(key)):
            raise ModelError(
                f"{_label(folder / 'config.json')}: '{key}' names code of the hub ({config[key]}), which is never run here; "
                "delete the key."
            )
    named = config.get("transformers_weights")
    if named is not None and (not isinstance(named, str) or _outside(named) or not named.endswith((".safetensors", ".index.json"))):  # fmt: skip
        raise ModelError(f"{_label(folder / 'config.json')}: 'transformers_weights' is {named!r}; name a .safetensors file of the folder.")  # fmt: skip
    first = next((folder / n for n in ([named] if named else (SINGLE, INDEX)) if (folder / n).is_file()), None)
    if first is None:
        raise ModelError(f"no {named or SINGLE} in {_label(folder)}{_instead(folder)}")
    files = [first]
    if first.name.endswith(".index.json"):
        files = []
        for name in sorted(shards(first)):
            if _outside(name):
                raise ModelError(
                    f"{_label(first)} names '{name}', outside of the folder; only files within it are read."
                )
            if not name.endswith(".safetensors"):
                raise ModelError(
                    f"{_label(first)} names '{name}', which is not safetensors (pickles are never read). {CONVERT}"
                )
            files.append(folder / name)
    for path in files:
        if not path.is_file():
            raise ModelError(
                f"{_label(first)} names '{path.name}', which is not there; copy it, or save the model again."
            )
    owner: dict[str, Path] = {}
    for path in files:
        for name in tensors(path):
            if name in owner:
                raise ModelError(
                    f"'{name}' is in {_label(owner[name])} and in {path.name}; nobody can tell which is meant: save the model again."
                )
            owner[name] = path
    if not owner:
        raise ModelError(f"{_label(first)} holds no tensor; save the model again.")
    return files


CONVERT = (
    "Where you trust the pickle, convert it once: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder) writes "
    "model.safetensors (for an encoder AutoModel)."
)


def tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return name -> (number format, shape) of the tensors in a safetensors file, from its header alone.

    Raises ModelError for a file that is damaged or shorter than its header says.
    """
    try:
        with safe_open(path, framework="numpy") as stored:
            parts = {k: stored.get_slice(k) for k in stored.keys()}
            return {k: (p.get_dtype(), tuple(p.get_shape())) for k, p in parts.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"{_label(path)} is damaged or half-written ({error}): delete it and fetch or save it again."
        ) from None


def parameters(folder: Path) -> int:
    """Return how many numbers the weights of a folder hold, each file counted once; raises as :func:`weights` does."""
    return sum(math.prod(shape) for path in weights(folder) for _, shape in tensors(path).values())


def read_json(path: Path) -> dict[str, Any]:
    """Return the mapping in a JSON file; ModelError for anything else, of any size or depth."""
    try:
        if path.stat().st_size > LARGEST:
            raise ModelError(
                f"{_label(path)} has {path.stat().st_size / 1e6:,.0f} MB; this is no file of a checkpoint."
            )
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError, OSError) as error:
        raise ModelError(
            f"{_label(path)} is not readable JSON ({type(error).__name__}: {error}); fetch it again."
        ) from None
    if not isinstance(content, dict):
        raise ModelError(
            f"{_label(path)} holds a {type(content).__name__} where keys and values belong; fetch it again."
        )
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"key '{Counter(k for k, _ in pairs).most_common(1)[0][0]}' is given twice")
    return content


def shards(index: Path) -> set[str]:
    """Return the file names in an index of weights; ModelError when it maps no tensor names to file names."""
    known = read_json(index).get("weight_map")
    if not isinstance(known, dict) or not known or not all(isinstance(v, str) for v in known.values()):
        raise ModelError(f"{_label(index)}: 'weight_map' maps no tensor names to file names; save the model again.")
    return set(known.values())


def _outside(name: str) -> bool:
    """Return whether a name leads out of the folder. Links are followed: the hub's cache consists of them."""
    return os.path.isabs(name) or "\0" in name or "\\" in name or ".." in PurePosixPath(name).parts


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (OSError, ValueError) as error:
        raise ModelError(f"{_label(folder)} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _label(path: Path) -> str:
    """Return a path from the project's root, or else its last two parts: enough to find it, no machine's folders."""
    place = Path(os.path.abspath(path))  # links stay: the hub's cache links to files whose names say nothing
    return place.relative_to(paths.ROOT).as_posix() if place.is_relative_to(paths.ROOT) else "/".join(place.parts[-2:])


def _instead(folder: Path) -> str:
    """Return the end of a sentence about a missing file: what the folder holds instead and what to do."""
    listed = _listed(folder)
    names = [p.name for p in listed]
    inner = [p for p in listed if p.is_dir() and (p / "config.json").is_file()]
    snapshots = sorted(p for p in folder.glob("snapshots/*") if (p / "config.json").is_file())
    pickled = [p.name for p in listed if p.suffix.lower() in PICKLES]
    dense = [p.name for p in listed if p.suffix == ".safetensors" and p.is_file()]
    quantised = [n for n in names if n.endswith(".gguf")]
    if inner:
        latest = max(inner, key=lambda p: [int(d) for d in re.findall(r"\d+", p.name)][-1:])
        said = ", ".join(f"'{p.name}'" for p in inner[:6]) + (" and others" if len(inner) > 6 else "")
        return f"; its checkpoints lie in the folders {said}: name one of them, for instance {_label(latest)}."
    if snapshots:
        return f"; this is a folder of the hub's cache: name {_label(snapshots[-1].parent)}/{snapshots[-1].name}."
    if any(n.startswith("global_step") for n in names) or "zero_to_fp32.py" in names:
        return "; it holds a DeepSpeed checkpoint: run its zero_to_fp32.py with --safe_serialization, then name the result."
    if any(n.endswith(".distcp") for n in names) or any(n.startswith("pytorch_model_fsdp") for n in names):
        return "; it holds the parts of a sharded training (FSDP): `accelerate merge-weights` makes one safetensors of them."
    if len(quantised) > 1:
        return f"; it holds {len(quantised)} GGUF files ({', '.join(quantised[:3])}): keep one in a folder of its own."
    if dense:
        said = ", ".join(dense[:3]) + (" and others" if len(dense) > 3 else "")
        if "config.json" not in names:
            return f"; it holds {said}: copy the model's config.json and tokenizer files beside the weights."
        if any(n.startswith("consolidated") for n in dense):
            return f"; {said} is in its maker's own layout: fetch the files called model*.safetensors, or convert it."
        if len(dense) == 1:
            return f"; it holds {said}: if that is the whole model, rename it to {SINGLE}."
        return f"; it holds {said}, but not {INDEX}, which says what lies where: fetch it, or save the model again."
    if pickled:
        return f"; it holds {', '.join(pickled[:3])}, which are pickles and never read. {CONVERT}"
    other = [n for n in names if n.endswith((".h5", ".msgpack", ".onnx"))]
    if other:
        return f"; it holds {other[0]}, of another library: load it there and save safetensors."
    if not names:
        return ": the folder is empty."
    return (
        f"; it holds {', '.join(names[:5])}{' and others' if len(names) > 5 else ''}, but no weights: save the model with "
        "save_pretrained, or choose another folder."
    )
