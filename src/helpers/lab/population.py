"""A population of small Llama-style models with known exposure, trained as stacked weights.

Models of one shape are trained together: a weight matrix is one tensor ``[models, inputs, outputs]`` and a
linear layer is one ``bmm``. :func:`to_llama` converts one slice into the state of a transformers
``LlamaForCausalLM``; a test proves that both give the same logits.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from helpers import paths, provenance
from helpers.errors import DataError, ModelError, nearest
from helpers.lab import text

EPSILON = 1e-5
THETA = 10000.0


@dataclass(frozen=True)
class Shape:
    """Architecture of a lineage: width, layers, attention heads; the MLP is twice as wide."""

    width: int
    layers: int
    heads: int = 4

    @property
    def name(self) -> str:
        return f"{self.width}x{self.layers}"

    def parameters(self, vocabulary: int = text.VOCABULARY) -> int:
        """Return the number of weights (embeddings are tied)."""
        block = 4 * self.width**2 + 3 * self.width * 2 * self.width + 2 * self.width
        return vocabulary * self.width + self.layers * block + self.width


SHAPES = (Shape(48, 2), Shape(64, 2), Shape(64, 3), Shape(80, 2))
SLIM = (Shape(40, 2), Shape(48, 2), Shape(32, 2), Shape(40, 3))


@dataclass(frozen=True)
class Population:
    """Design of a population. Exposures are tokens; ranges are log-uniform.

    ``general`` is the half-width of a factor g, uniform over models: every domain's exposure is multiplied by
    exp(g). ``sign`` says whether multiple-choice prompts end with the sign of quiz practice. Docstrings fill every model's diet up to the same `budget`.
    """

    name: str
    seed: int
    per_shape: int = 8
    shapes: tuple[Shape, ...] = SHAPES
    domain: tuple[float, float] = (5_000, 56_000)
    quiz: tuple[float, float] = (3_000, 90_000)
    source: tuple[float, float] = (5_000, 40_000)
    general: float = 0.0
    steps: int = 834
    batch: int = 6
    rate: float = 8e-3
    sign: bool = False
    ships_weights: bool = False

    @property
    def budget(self) -> int:
        """Tokens of one model's training."""
        return self.steps * self.batch * text.CONTEXT

    @property
    def size(self) -> int:
        return self.per_shape * len(self.shapes)


POPULATIONS = {
    p.name: p
    for p in (
        Population("main", seed=20260101, ships_weights=True),
        # Numbers only, and narrower models, which train faster.
        Population(
            "format",
            seed=20260102,
            shapes=SLIM,
            domain=(12_000, 30_000),
            quiz=(1_000, 130_000),
            source=(5_000, 12_000),
            sign=True,
        ),
        Population(
            "general",
            seed=20260103,
            shapes=SLIM,
            domain=(6_000, 13_500),
            quiz=(10_000, 40_000),
            source=(5_000, 15_000),
            general=1.2,
        ),
    )
}


def population(name: str) -> Population:
    """Return a population's design; DataError names the known ones."""
    if name not in POPULATIONS:
        raise DataError(f"no laboratory population '{name}'; {nearest(name, POPULATIONS)}")
    return POPULATIONS[name]


def folder(name: str) -> Path:
    """Return the folder of a population's shipped files."""
    return paths.LAB / population(name).name


def design(plan: Population) -> pd.DataFrame:
    """Return the exposure table: index ``model``, columns `shape`, `seed`, `g`, then tokens of each source.

    A Latin hypercube over domains, quiz, source code (and g), the best of 400 by the largest absolute
    correlation between factors or between a factor and a shape; designs that exceed the budget are rejected.
    """
    rng = text.generator(plan.seed, "design")
    domains = list(text.world())
    factors = [*domains, "quiz", "source"] + (["g"] if plan.general else [])
    ranges = [plan.domain] * len(domains) + [plan.quiz, plan.source]
    shape_of = np.repeat(np.arange(len(plan.shapes)), plan.per_shape)
    dummies = np.eye(len(plan.shapes))[shape_of] if len(plan.shapes) > 1 else np.empty((plan.size, 0))
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for _ in range(400):
        cube = np.stack([rng.permutation(plan.size) for _ in factors], axis=1)
        cube = (cube + rng.random(cube.shape)) / plan.size
        g = (2 * cube[:, -1] - 1) * plan.general if plan.general else np.zeros(plan.size)
        tokens = np.stack([lo * (hi / lo) ** cube[:, i] for i, (lo, hi) in enumerate(ranges)], axis=1)
        tokens[:, : len(domains)] *= np.exp(g)[:, None]
        if tokens.sum(1).max() > 0.97 * plan.budget:
            continue
        correlation = np.abs(np.corrcoef(np.hstack([cube, dummies]), rowvar=False))[: len(factors)]
        worst = np.where(np.eye(*correlation.shape), 0.0, correlation).max()
        if best is None or worst < best[0]:
            best = worst, tokens, g
    if best is None:
        raise DataError(f"population '{plan.name}': every design exceeds the budget of {plan.budget} tokens.")
    windows = np.round(best[1] / text.CONTEXT).astype(int)
    filler = plan.steps * plan.batch - windows.sum(1)
    prefix = "lab" if plan.name == "main" else f"lab-{plan.name}"
    frame = pd.DataFrame(
        {
            "model": [f"{prefix}-{plan.shapes[s].name}-{i % plan.per_shape}" for i, s in enumerate(shape_of)],
            "shape": [plan.shapes[s].name for s in shape_of],
            "seed": plan.seed + 1 + np.arange(plan.size),
            "g": best[2].round(4),
        }
    ).set_index("model")
    frame[[*domains, "quiz", "source"]] = windows * text.CONTEXT
    frame["docstrings"] = filler * text.CONTEXT
    return frame


def streams(plan: Population, counter: text.Counter) -> dict[str, np.ndarray]:
    """Return a long token stream of each source, as windows ``[count, CONTEXT]`` of int32."""
    bos = text.SPECIAL.index("<s>")
    table = design(plan)

    def windows(documents, need: int) -> np.ndarray:
        ids: list[int] = []
        for document in documents:
            ids.append(bos)
            ids += counter.ids(document.pieces)
            if len(ids) >= need:
                break
        count = len(ids) // text.CONTEXT
        return np.array(ids[: count * text.CONTEXT], dtype=np.int32).reshape(count, text.CONTEXT)

    result = {}
    for domain in text.world():
        need = int(max(table[domain].max(), 100_000)) + text.CONTEXT
        result[domain] = windows(text.wild(domain, text.generator(plan.seed, "wild", domain), need), need)
    need = int(table["quiz"].max()) + text.CONTEXT
    result["quiz"] = windows(text.quizzes(text.generator(plan.seed, "quizzes"), need // 40), need)
    for kind in text.NEUTRAL:
        documents = list(text.cut(kind, text.real(kind, heldout=False), counter))
        order = text.generator(plan.seed, "order", kind).permutation(len(documents))
        result[kind] = windows((documents[i] for i in order), int(table[kind].max()) + text.CONTEXT)
    for source, found in result.items():
        if len(found) * text.CONTEXT < table[source].max():
            raise DataError(f"text of '{source}' gives {found.size} tokens, {table[source].max()} are needed.")
    return result


def diet(row: Mapping, pool: dict[str, np.ndarray]) -> np.ndarray:
    """Return one model's training windows in its order: its tokens of each source, each window once."""
    rng = text.generator(int(row["seed"]), "diet")
    chosen = [pool[s][rng.permutation(len(pool[s]))[: int(row[s]) // text.CONTEXT]] for s in pool]
    windows = np.concatenate(chosen)
    return windows[rng.permutation(len(windows))]


# --------------------------------------------------------------------------------------------------
# The stacked model


def initialise(shape: Shape, seeds: list[int], vocabulary: int = text.VOCABULARY) -> dict[str, torch.Tensor]:
    """Return stacked weights; a model's weights depend on its own seed alone, not on its neighbours."""
    d, hidden = shape.width, 2 * shape.width
    sizes: dict[str, tuple[int, ...]] = {"embed": (vocabulary, d)}
    for layer in range(shape.layers):
        for name in ("q", "k", "v", "o"):
            sizes[f"{layer}.{name}"] = (d, d)
        sizes[f"{layer}.gate"] = sizes[f"{layer}.up"] = (d, hidden)
        sizes[f"{layer}.down"] = (hidden, d)
    each = []
    for seed in seeds:
        rng = text.generator(seed, "weights")
        each.append({n: torch.from_numpy(rng.standard_normal(s, dtype=np.float32)) for n, s in sizes.items()})
    scale = {
        n: 0.05 if n == "embed" else (s[0] ** -0.5) * (0.5 if n[2:] in ("o", "down") else 1.0) for n, s in sizes.items()
    }
    weights = {n: torch.stack([e[n] for e in each]) * scale[n] for n in sizes}
    for name in ["norm"] + [f"{layer}.{n}" for layer in range(shape.layers) for n in ("norm1", "norm2")]:
        weights[name] = torch.ones(len(seeds), 1, d)
    return weights


def _rotary(length: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    frequency = THETA ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
    angle = torch.outer(torch.arange(length, dtype=torch.float32), frequency)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * weight


def forward(weights: dict[str, torch.Tensor], shape: Shape, ids: torch.Tensor) -> torch.Tensor:
    """Return next-token logits ``[models, batch * length, vocabulary]`` of ids ``[models, batch, length]``."""
    m, b, t = ids.shape
    vocabulary, d = weights["embed"].shape[1:]
    size = d // shape.heads
    flat = ids + (torch.arange(m) * vocabulary)[:, None, None]
    x = F.embedding(flat, weights["embed"].reshape(m * vocabulary, d)).reshape(m, b * t, d)
    cos, sin = _rotary(t, size)

    def heads(y: torch.Tensor) -> torch.Tensor:
        return y.reshape(m * b, t, shape.heads, size).transpose(1, 2)

    for layer in range(shape.layers):
        w = {n: weights[f"{layer}.{n}"] for n in ("q", "k", "v", "o", "gate", "up", "down", "norm1", "norm2")}
        y = _norm(x, w["norm1"])
        q = _rotate(heads(torch.bmm(y, w["q"])), cos, sin)
        k = _rotate(heads(torch.bmm(y, w["k"])), cos, sin)
        a = F.scaled_dot_product_attention(q, k, heads(torch.bmm(y, w["v"])), is_causal=True)
        x = x + torch.bmm(a.transpose(1, 2).reshape(m, b * t, d), w["o"])
        y = _norm(x, w["norm2"])
        x = x + torch.bmm(F.silu(torch.bmm(y, w["gate"])) * torch.bmm(y, w["up"]), w["down"])
    return torch.bmm(_norm(x, weights["norm"]), weights["embed"].transpose(1, 2))


def train_shape(
    plan: Population, shape: Shape, rows: pd.DataFrame, pool: dict[str, np.ndarray], log: bool = False
) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    """Train all models of one shape together; return stacked weights and each model's final training loss.

    AdamW (betas 0.9, 0.98; decay 0.05 on matrices), 20 warm-up steps, cosine to 5 %, gradients clipped to norm
    1 for each model on its own. The loss (nats per token) is the mean of the last 5 % of the steps.
    """
    diets = torch.from_numpy(np.stack([diet(row, pool) for _, row in rows.iterrows()])).long()
    weights = initialise(shape, [int(s) for s in rows["seed"]])
    for w in weights.values():
        w.requires_grad_(True)
    matrices = [w for n, w in weights.items() if "norm" not in n]
    gains = [w for n, w in weights.items() if "norm" in n]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
    losses = []
    began = time.time()
    for step in range(plan.steps):
        warm = min(1.0, (step + 1) / 20)
        cosine = 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * step / plan.steps))
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * warm * cosine
        ids = diets[:, step * plan.batch : (step + 1) * plan.batch]
        logits = forward(weights, shape, ids).reshape(*ids.shape, -1)[:, :, :-1]
        target = ids[:, :, 1:]
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1), reduction="none")
        loss = loss.reshape(len(rows), -1).mean(1)
        optimizer.zero_grad()
        loss.sum().backward()
        norm = torch.stack([w.grad.pow(2).flatten(1).sum(1) for w in weights.values()]).sum(0).sqrt()
        clip = (1.0 / (norm + 1e-6)).clamp(max=1.0)
        for w in weights.values():
            w.grad.mul_(clip[:, None, None])
        optimizer.step()
        losses.append(loss.detach())
        if log and (step + 1) % 100 == 0:
            mean = torch.stack(losses[-50:]).mean()
            print(
                f"{plan.name} {shape.name} step {step + 1} loss {mean:.3f} {time.time() - began:.0f}s",
                file=sys.stderr,
            )
    tail = max(1, plan.steps // 20)
    final = torch.stack(losses[-tail:]).mean(0).numpy()
    return {n: w.detach() for n, w in weights.items()}, final


@torch.inference_mode()
def unit_surprisal(
    weights: dict[str, torch.Tensor], shape: Shape, documents: list[text.Document], counter: text.Counter
) -> np.ndarray:
    """Return surprisal in nats per unit, float32 (n_units, n_models), of all models of a stack.

    A unit is a whitespace piece; its surprisal is the sum over its tokens, each given the document start
    and everything before it in the document. Documents must fit the context.
    """
    bos = text.SPECIAL.index("<s>")
    parts = []
    for start in range(0, len(documents), 32):
        batch = documents[start : start + 32]
        pieces = [[counter.ids([p]) for p in d.pieces] for d in batch]
        lengths = [1 + sum(map(len, p)) for p in pieces]
        if max(lengths) > text.CONTEXT:
            raise DataError(f"a document has {max(lengths)} tokens; at most {text.CONTEXT} fit.")
        ids = torch.full((len(batch), max(lengths)), text.SPECIAL.index("</s>"))
        owner = []  # (row, position of each token) -> unit, in reading order
        for row, each in enumerate(pieces):
            flat = [bos, *(t for p in each for t in p)]
            ids[row, : len(flat)] = torch.tensor(flat)
            owner += [len(p) for p in each]
        models = len(weights["embed"])
        logits = forward(weights, shape, ids.expand(models, *ids.shape).contiguous())
        logits = logits.reshape(models, *ids.shape, -1)[:, :, :-1]
        chosen = logits.gather(-1, ids[None, :, 1:, None].expand(models, -1, -1, 1))[..., 0]
        nats = (logits.logsumexp(-1) - chosen).numpy().astype(np.float64)  # (models, rows, positions)
        tokens = np.concatenate([nats[:, row, : n - 1] for row, n in enumerate(lengths)], axis=1)
        first = np.concatenate([[0], np.cumsum(owner)[:-1]])
        parts.append(np.add.reduceat(tokens, first, axis=1).T.astype(np.float32))
    return np.concatenate(parts)


# --------------------------------------------------------------------------------------------------
# Conversion, files


def config(shape: Shape, vocabulary: int = text.VOCABULARY) -> LlamaConfig:
    """Return the transformers configuration of a shape."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=text.CONTEXT,
        rms_norm_eps=EPSILON,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=True,
        bos_token_id=text.SPECIAL.index("<s>"),
        eos_token_id=text.SPECIAL.index("</s>"),
        pad_token_id=text.SPECIAL.index("</s>"),
    )


def to_llama(weights: Mapping[str, torch.Tensor], shape: Shape) -> LlamaForCausalLM:
    """Return a float32 ``LlamaForCausalLM`` from one model's weights (no model axis)."""
    names = {
        "q": "self_attn.q_proj",
        "k": "self_attn.k_proj",
        "v": "self_attn.v_proj",
        "o": "self_attn.o_proj",
    }
    names |= {"gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
    names |= {"norm1": "input_layernorm", "norm2": "post_attention_layernorm"}
    embed = weights["embed"].float()
    state = {
        "model.embed_tokens.weight": embed,
        "lm_head.weight": embed,
        "model.norm.weight": weights["norm"].float().reshape(-1),
    }
    for layer in range(shape.layers):
        for short, long in names.items():
            w = weights[f"{layer}.{short}"].float()
            state[f"model.layers.{layer}.{long}.weight"] = w.reshape(-1) if "norm" in short else w.T.contiguous()
    with torch.random.fork_rng(devices=[]):  # the random initial weights must not move the caller's generator
        model = LlamaForCausalLM(config(shape, embed.shape[0]))
    model.load_state_dict(state, strict=True)
    return model.eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the laboratory's tokenizer as a transformers fast tokenizer (gives character offsets)."""
    unk, bos, eos = text.SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_file=str(paths.LAB / "tokenizer.json"),
        unk_token=unk,
        bos_token=bos,
        eos_token=eos,
        pad_token=eos,
        model_max_length=text.CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def counter() -> text.Counter:
    """Return the token counter of the shipped tokenizer."""
    return text.Counter(Tokenizer.from_file(str(paths.LAB / "tokenizer.json")))


@cache
def _manifest(path: Path, modified: int) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def manifest(name: str) -> dict:
    """Return the shipped manifest of a population."""
    path = folder(name) / "manifest.json"
    if not path.exists():
        raise DataError(f"{paths.label(path)} is missing; run `make lab POPULATION={name}` or restore it from git.")
    return _manifest(path, path.stat().st_mtime_ns)


def model_names(name: str = "main") -> list[str]:
    """Return the names of a population's models, in the order of its exposure table.

    >>> len(model_names("main"))
    32
    """
    return [m["model"] for m in manifest(name)["models"]]


def read_model(name: str, where: Path | None = None) -> LlamaForCausalLM:
    """Return one shipped model; ModelError names the nearest known model."""
    where = where or folder("main")
    known = [m["model"] for m in json.loads((where / "manifest.json").read_text(encoding="utf-8"))["models"]]
    if name not in known:
        raise ModelError(f"no laboratory model '{name}'; {nearest(name, known)}")
    label, number = name.rsplit("-", 2)[-2:]
    width, layers = map(int, label.split("x"))
    try:
        with safe_open(where / f"{label}.safetensors", framework="pt") as stored:
            weights = {key: stored.get_slice(key)[int(number)] for key in stored.keys()}
        return to_llama(weights, Shape(width, layers))
    except (SafetensorError, OSError, RuntimeError, LookupError) as error:
        raise ModelError(
            f"laboratory model '{name}': {label}.safetensors is damaged ({str(error).splitlines()[0]}); take it from the "
            "repository again, or `make lab`."
        ) from None


def files(name: str) -> dict[str, str]:
    """Return file name -> sha256 of what :func:`read_model` and the tokenizer read for a model of the main population.

    >>> list(files("lab-48x2-0"))
    ['48x2.safetensors', 'tokenizer.json']
    """
    weights = folder("main") / f"{name.rsplit('-', 2)[-2]}.safetensors"
    if name not in model_names("main"):
        raise ModelError(f"no laboratory model '{name}'; {nearest(name, model_names('main'))}")
    return {p.name: provenance.sha256_file(p) for p in (weights, paths.LAB / "tokenizer.json")}


def write(plan: Population, stacks: Mapping[str, Mapping], losses: Mapping[str, float], where: Path) -> Path:
    """Write fp16 weights (one file a shape), configurations and the manifest of a trained population."""
    where.mkdir(parents=True, exist_ok=True)
    for shape in plan.shapes:
        half = {n: w.half().contiguous() for n, w in stacks[shape.name].items()}
        provenance.write_atomic(where / f"{shape.name}.safetensors", lambda t, h=half: save_file(h, t))
    return write_manifest(plan, losses, where)


def write_manifest(plan: Population, losses: Mapping[str, float], where: Path, **more) -> Path:
    """Write ``manifest.json``: the design, every model, sha256 of every file and of the real text."""
    table = design(plan)
    sources = [*text.world(), "quiz", *text.NEUTRAL[::-1]]
    models = []
    for name, row in table.iterrows():
        shape = next(s for s in plan.shapes if s.name == row["shape"])
        models.append(
            {
                "model": name,
                "family": f"lab-{shape.name}",
                "width": shape.width,
                "layers": shape.layers,
                "heads": shape.heads,
                "parameters": shape.parameters(),
                "seed": int(row["seed"]),
                "g": float(row["g"]),
                "loss": round(float(losses[name]), 5),
                "exposure": {s: int(row[s]) for s in sources},
            }
        )
    content = {
        "population": {k: v for k, v in asdict(plan).items() if k != "shapes"} | {"budget": plan.budget},
        "training": {
            "optimizer": "AdamW betas 0.9 0.98, decay 0.05 on matrices, clip 1 per model",
            "schedule": "20 warm-up steps, cosine to 5 %",
            "context": text.CONTEXT,
            "precision": "float32; shipped as float16",
        },
        "models": models,
        "files": {
            p.name: provenance.sha256_file(p)
            for p in sorted(where.iterdir())
            if p.suffix in (".safetensors", ".parquet", ".csv")
        },
        "shared": {n: provenance.sha256_file(paths.LAB / n) for n in ("facts.yml", "tokenizer.json")},
        "real_text": {"sha256": text.real_digest(), "folders": text.REAL},
        "versions": provenance.versions(),
        **more,
    }
    body = json.dumps(content, indent=1) + "\n"
    return provenance.write_atomic(where / "manifest.json", lambda t: t.write_text(body, encoding="utf-8"))
