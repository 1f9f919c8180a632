"""Traces in one pass of hooks against the obvious way: stack all hidden states and attentions, then average.

Both see the same model and texts and give the same numbers (asserted). Reported: time (pytest-benchmark) and peak
memory of each way, in a fresh process each, as ratios. Run: ``pytest benchmarks/bench_traces.py -s``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

SETUP = """
import json, resource, sys, time
import numpy as np, pandas as pd, torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from tokenizers import Tokenizer, models, pre_tokenizers
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
from helpers import traces
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
    code = (
        SETUP.replace("QUESTIONS", str(questions))
        + textwrap.dedent(way).replace("TOKENS", str(tokens))
        + REPORT
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize("questions", [32, 128])
def test_hooks_against_stacking(tmp_path, questions):
    import numpy as np

    obvious = run(OBVIOUS, tmp_path / "a.npz", questions)
    hooks = run(HOOKS, tmp_path / "b.npz", questions)
    window = run(HOOKS, tmp_path / "c.npz", questions, tokens=32)
    one, other = (np.load(tmp_path / f"{n}.npz") for n in "ab")
    np.testing.assert_allclose(one["mean"], other["mean"], atol=2e-3 * np.abs(one["mean"]).max())
    np.testing.assert_allclose(one["first"], other["first"], atol=1e-5)
    for name, result in (("hooks, whole texts", hooks), ("hooks, first 32 tokens", window)):
        print(
            f"\n{questions} questions, {name}: time x{obvious['seconds'] / result['seconds']:.1f} faster, peak memory "
            f"x{obvious['megabytes'] / max(result['megabytes'], 1):.1f} smaller "
            f"({obvious['megabytes']:.0f} MB -> {result['megabytes']:.0f} MB)"
        )
