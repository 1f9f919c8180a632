"""A reader's own checkpoints: the same column as the study's own model, or a clear refusal."""

import json

import huggingface_hub
import numpy as np
import pandas as pd
import pytest

from helpers import adapt, extraction, lab, overlap, own_models, placement, provenance, studies
from helpers.errors import ModelError, StudyError

NAMES = ["lab-48x2-0", "lab-64x2-1", "lab-64x3-2"]
SKILLS = ["knowledge-capitals-cloze", "code-returns-quiz"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The laboratory with a few of its documents, its columns measured by the ordinary extraction."""
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path / "results"))
    study = studies.load("lab")
    units = lab.text.units_table(lab.documents()[::60])
    provenance.write_table(study.results / "units.parquet", units)
    blocks = extraction.blocks(study)
    columns = {}
    for name in NAMES:
        entry = studies.ModelEntry(name=name, source="lab", id=name)
        columns[name] = np.concatenate([extraction.measure(entry, name, study.extraction, b)[0] for b in blocks])
    items = lab.questions()
    items = items[items["benchmark"].isin(SKILLS)]
    scored = lab.score_population(lab.load_model, NAMES, items)
    score, stderr = (
        scored.pivot(index="benchmark", columns="model", values=v).loc[SKILLS, NAMES] for v in ("score", "stderr")
    )
    groups = pd.Series([n.rsplit("-", 1)[0] for n in NAMES], NAMES)
    benchmarks = items.drop_duplicates("benchmark").set_index("benchmark")[["format"]].assign(function="x")
    return study, overlap.Tables(
        surprisal=pd.DataFrame(columns, index=units.index), scores=score, all_scores=score, stderr=stderr, groups=groups,
        all_groups=groups, benchmarks=benchmarks, units=units, exclude=np.zeros((len(units), 2), dtype=bool), left_out={},
    )  # fmt: skip


def export(folder, name):
    model, tokenizer = lab.load_model(name)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_copy_under_another_name_gets_the_same_column_and_scores(small, tmp_path):
    study, tables = small
    folder = export(tmp_path / "my-checkpoint", NAMES[1])
    joined = own_models.join(study, tables, own_models.parse(str(folder)), {"my-checkpoint": "lab-64x2"})
    assert list(joined.surprisal.columns) == [*NAMES, "my-checkpoint"] == list(joined.all_scores.columns)
    assert np.array_equal(joined.surprisal["my-checkpoint"], tables.surprisal[NAMES[1]])
    assert joined.surprisal["my-checkpoint"].dtype == np.float32
    assert joined.all_scores["my-checkpoint"].equals(tables.all_scores[NAMES[1]].rename("my-checkpoint"))
    assert joined.stderr["my-checkpoint"].notna().all()
    assert joined.groups["my-checkpoint"] == joined.groups[NAMES[1]] == "lab-64x2"
    assert not np.array_equal(joined.surprisal["my-checkpoint"], tables.surprisal[NAMES[0]])

    # a second call reads the kept column; other weights under the same name do not
    kept = list((study.results / "own-models").glob("*.parquet"))
    before = kept[0].stat().st_mtime_ns
    own_models.measure(study, own_models.entry("my-checkpoint", str(folder)))
    assert kept[0].stat().st_mtime_ns == before
    export(folder, NAMES[2])
    changed = own_models.measure(study, own_models.entry("my-checkpoint", str(folder)))
    assert np.array_equal(changed, tables.surprisal[NAMES[2]])


def test_a_model_with_another_tokenizer_is_measured_and_sits_nothing(small, tiny):
    study, tables = small
    joined = own_models.join(study, tables, {"other": str(tiny.folder("other", context=256))})
    assert joined.groups["other"] == "other" and np.isfinite(joined.surprisal["other"]).all()
    # the laboratory's options are several of its tokens: not measured, and said so by the placement
    assert joined.all_scores["other"].isna().all()
    assert "cannot ask it: option" in joined.left_out["other"]
    # a sum of nats is about the same whoever cuts the text: bytes at least log2(300) each for a random model
    per_byte = joined.surprisal["other"].sum() / tables.units["bytes"].sum()
    assert 2 < per_byte < 12


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "does not exist"),
        ("empty", "no config.json"),
        ("pickle", "pickles and never read"),
        ("damaged", "damaged"),
        ("encoder", "not a causal language model"),
        ("config", "cannot be loaded|no causal model|not a causal"),
        ("nan", "not finite"),
        ("hub", "not in the local cache"),
    ],
)
def test_bad_checkpoints_are_refused_with_the_reason(small, tiny, tmp_path, monkeypatch, what, message):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # read at import, long before this test
    study, tables = small
    folder = tmp_path / "bad"
    if what == "empty":
        folder.mkdir()
    elif what not in ("missing", "hub"):
        tiny.folder("bad", context=128)
        weights = folder / "model.safetensors"
        if what == "pickle":
            weights.rename(folder / "pytorch_model.bin")
        elif what == "damaged":
            weights.write_bytes(weights.read_bytes()[:200])
        elif what == "nan":
            from safetensors.torch import load_file, save_file

            tensors = load_file(weights)
            tensors["model.norm.weight"] *= float("nan")
            save_file(tensors, weights, {"format": "pt"})
        else:
            config = json.loads((folder / "config.json").read_text())
            config |= (
                {"architectures": ["BertForMaskedLM"], "model_type": "bert"}
                if what == "encoder"
                else {"architectures": None, "model_type": "nonsense"}
            )
            (folder / "config.json").write_text(json.dumps(config))
    place = "nobody/none" if what == "hub" else str(folder)
    with pytest.raises(ModelError, match=message) as caught:
        own_models.join(study, tables, {"bad": place})
    assert "bad" in str(caught.value)


def test_a_tokenizer_without_start_token_is_said_not_to_be_damaged_weights(small, tiny, tmp_path):
    """Nothing goes before the first token of a document, so it has no surprisal; the advice gives it one."""
    study, tables = small
    folder = tiny.folder("silent", context=256)
    tiny.tokenizer(bos=False).save_pretrained(folder)
    with pytest.raises(
        ModelError, match=r"^silent: .* first of a document, .* neither a start nor an end token"
    ) as caught:
        own_models.join(study, tables, {"silent": str(folder)})
    assert "damaged" not in str(caught.value) and '"bos_token"' in str(caught.value)
    told = json.loads((folder / "tokenizer_config.json").read_text()) | {"bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    assert np.isfinite(own_models.join(study, tables, {"silent": str(folder)}).surprisal["silent"]).all()


def test_names_and_lineages_are_checked_before_anything_is_measured(small):
    study, tables = small
    with pytest.raises(StudyError, match="already has a model 'lab-48x2-0'"):
        own_models.join(study, tables, {"lab-48x2-0": "x"})
    with pytest.raises(StudyError, match="lineage is given for 'b', which is not among MODELS"):
        own_models.join(study, tables, {"a": "x"}, {"b": "c"})
    assert own_models.join(study, tables, {}) is tables
    for text in ("a=", "=", "a=x,a=y", "runs/x,other/x"):
        with pytest.raises(StudyError, match="names no model|given twice"):
            own_models.parse(text)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dclm", "losses that others published"),
        ("entigraph", "losses that others published"),
        ("lab-format", "without the models"),
    ],
)
def test_studies_without_text_or_models_refuse(name, message, capsys, tmp_path):
    study = studies.load(name)
    with pytest.raises(StudyError, match=message):
        placement.ready(study, {"mine": "x"})
    (tmp_path / "s.csv").write_text("model,mine\na,1\n")
    assert adapt.main(["--scores", str(tmp_path / "s.csv"), "--study", name, "--models", "mine=x", "--check"]) == 1
    assert "Use the study lab" in capsys.readouterr().err
