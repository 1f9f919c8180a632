"""Kill an extraction 50 times at random moments (SIGKILL); the matrix must be the undisturbed one, bit for bit.

    python benchmarks/kill_extraction.py [kills]     (writes benchmarks/results/kills.csv)

Uses random models of a few thousand parameters, so that the time goes into writing, where kills hurt most. Runs
are forked from a process that has imported everything, so a run lives for milliseconds to a second.
"""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


RESULTS = Path(__file__).parent / "results" / "kills.csv"


def make(root: Path, models: int = 4, documents: int = 160) -> Path:
    """Write random models, a corpus and a study; return the study's path."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(kinds.BPE({"<s>": 0} | {c: k for k, c in enumerate(alphabet, 1)}, []))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    entries = []
    for seed in range(models):
        torch.manual_seed(seed)
        sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=257, max_position_embeddings=64, **sizes))
        model.save_pretrained(root / f"m{seed}")
        PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>").save_pretrained(root / f"m{seed}")
        entries.append({"name": f"m{seed}", "source": "folder", "id": str(root / f"m{seed}")})
    words = "surprise belongs to the text and not to the tokens that a model happens to read it in".split()
    rows = [{"text": " ".join(random.Random(k).choices(words, k=5 + k % 20)) + f" {k}"} for k in range(documents)]
    (root / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    study = {
        "name": "kills",
        "title": "kills",
        "description": "Random models.",
        "models": {"kind": "list", "entries": entries},
        "corpus": {"kind": "files", "sources": [str(root / "corpus.jsonl")]},
        "benchmarks": {"kind": "none"},
        "extraction": {"window": 64, "stride": 32, "shard_documents": 4, "workers": 1},
        "notebooks": {"extract-perplexity": {}},
    }
    (root / "kills.yml").write_text(json.dumps(study))
    return root / "kills.yml"


def run(path: str) -> None:
    from helpers import extraction, studies

    extraction.extract(studies.load(path))


def main(kills: int) -> int:
    import pandas as pd
    import torch

    from helpers import corpora, provenance, studies

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["COMPANION_RESULTS"] = str(root)
        path = make(root)
        study = studies.load(path)
        corpora.prepare(study)
        run(str(path))
        matrix, shards = study.results / "surprisal.parquet", study.results / "surprisal"
        wanted, count = provenance.sha256_file(matrix), len(list(shards.rglob("*.parquet")))
        shutil.rmtree(shards)
        matrix.unlink()
        context, chance = multiprocessing.get_context("fork"), random.Random(1)
        killed = finished = 0
        began = time.time()
        while killed < kills:
            process = context.Process(target=run, args=(str(path),))
            process.start()
            process.join(chance.uniform(0.0, 1.0))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                killed += 1
            else:  # a run got through: check, damage, start again
                finished += 1
                if provenance.sha256_file(matrix) != wanted:
                    print(f"after {killed} kills the matrix differs")
                    return 1
                shutil.rmtree(shards)
                matrix.unlink()
            process.join()
        left = len(list(shards.rglob("*.json")))
        run(str(path))
        same = provenance.sha256_file(matrix) == wanted
        remains = [p.name for p in study.results.rglob("*.part")]
        row = {
            "kills": killed,
            "seconds": round(time.time() - began),
            "runs_finished_between": finished,
            "shards": count,
            "shards_kept_at_the_end": left,
            "identical": same,
            "temporary_files_left": len(remains),
            "date": datetime.date.today().isoformat(),
        }
        print(row)
        RESULTS.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([row]).to_csv(RESULTS, index=False)
        return int(not same)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50))
