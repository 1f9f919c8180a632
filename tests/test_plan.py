"""The plan of a run: what it would cost is computed from the study, says where its numbers come from, and stays offline."""

from __future__ import annotations

import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from helpers import plan, studies


def hub_study(**extraction) -> studies.Study:
    """Return a study of two hub models, one of unknown size, on a known data set."""
    return studies.Study(
        name="hub",
        title="two models",
        description="Nothing is downloaded.",
        models={
            "kind": "list",
            "entries": [
                {"name": "one", "source": "hub", "id": "no-such/one", "parameters": 1.0},
                {"name": "two", "source": "hub", "id": "no-such/two", "parameters": 2.0},
            ],
        },
        corpus={
            "kind": "hub",
            "sources": ["togethercomputer/RedPajama-Data-1T-Sample:*.jsonl"],
            "max_documents": 93_051,
        },
        benchmarks={"kind": "none"},
        extraction=extraction,
        notebooks={"extract-perplexity": {}},
    )


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_hours_follow_size_tokens_and_mode():
    study = hub_study(mode="stream", window=64, stride=32)
    table = plan.plan(study, speed=1e12).set_index("model")
    documents, tokens, known = plan.corpus_size(study)
    assert documents == 93_051 and tokens == pytest.approx(1e8, rel=1e-3) and "data set" in known
    assert table.loc["one", "hours"] == pytest.approx(2 * 1e9 * tokens * 2 / 1e12 / 3600)
    assert table.loc["two", "hours"] == pytest.approx(2 * table.loc["one", "hours"])
    paper = plan.plan(hub_study(mode="paper", context_pieces=30), speed=1e12).set_index("model")
    assert paper.loc["one", "hours"] == pytest.approx(15.5 * table.loc["one", "hours"])
    assert table.loc["one", "download GB"] == pytest.approx(2.0)  # two bytes a parameter
    assert (table["size from"] == "estimate").all()


def test_offline_access_is_said_not_guessed():
    table = plan.plan(hub_study(), speed=1e12)
    assert table["ok"].isna().all() and table["access"].str.contains("not checked: HF_HUB_OFFLINE").all()


def test_what_the_hub_says_is_passed_on(monkeypatch, capsys):
    """Gated, missing and pickled models and data sets are refused before anything starts; sizes come from the hub."""
    import huggingface_hub
    from huggingface_hub import errors

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")

    class Response:
        headers: dict = {}  # noqa: RUF012
        request = None
        status_code = 404

    class File:
        def __init__(self, name, size):
            self.rfilename, self.size = name, size

    class Info:
        sha = "abc"

        def __init__(self, *files, gated=False):
            self.siblings, self.gated = files, gated

    def jsonl(gated=False):
        return Info(File("a/b.jsonl", 7), File("c.jsonl", 2), File("readme.md", 99), gated=gated)

    answers = {
        "fine": lambda: Info(File("a.safetensors", 10), File("b.safetensors", 5), File("c.bin", 99)),
        "pickled": lambda: Info(File("c.bin", 99)),
        "gated": lambda: (_ for _ in ()).throw(errors.GatedRepoError("x", response=Response())),
        "missing": lambda: (_ for _ in ()).throw(errors.RepositoryNotFoundError("x", response=Response())),
        "terms": lambda: Info(File("a.safetensors", 10), gated="manual"),
        "moved": lambda: (_ for _ in ()).throw(errors.RevisionNotFoundError("x", response=Response())),
        "unplugged": lambda: (_ for _ in ()).throw(ConnectionError("x")),
    }

    class Api:
        def model_info(self, name, **options):
            return answers[name]()

        def dataset_info(self, name, **options):
            return texts[name]()

        def auth_check(self, name, **options):
            raise errors.GatedRepoError("x", response=Response())

    texts = {"fine/text": jsonl, "gated/text": lambda: jsonl("auto"), "no/text": answers["missing"]}

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    found = {n: plan.access(studies.ModelEntry(name=n, source="hub", id=n, revision="r1")) for n in answers}
    assert found["fine"] == {"ok": True, "state": "reachable, revision abc", "bytes": 15}
    assert [found[n]["ok"] for n in ("pickled", "gated", "missing", "unplugged")] == [False] * 3 + [None]
    for name, said in (("gated", "gated: accept its terms"), ("terms", "gated: accept its terms")):
        assert found[name]["ok"] is False and said in found[name]["state"]
    assert found["moved"] == {"ok": False, "state": "no revision 'r1'", "bytes": None}
    assert "cannot be reached (ConnectionError)" in found["unplugged"]["state"]

    sources = ("fine/text:*.jsonl", "fine/text:plain", "fine/text:*.csv", "gated/text", "no/text:*.jsonl")
    study = hub_study().model_copy(update={"corpus": studies.Corpus(kind="hub", sources=sources)})
    asked = plan.corpus_access(study)
    assert [row["ok"] for row in asked] == [True, True, False, False, False]
    assert [row["bytes"] for row in asked] == [9, None, None, None, None]
    assert [row["state"] for row in asked][2:] == [
        "no file matches '*.csv'",
        "gated: accept its terms, then `hf auth login`",
        "no such data set, or private",
    ]

    answers["no-such/one"], answers["no-such/two"] = answers["fine"], answers["gated"]
    texts["togethercomputer/RedPajama-Data-1T-Sample"] = jsonl
    monkeypatch.setattr(studies, "load", lambda name: hub_study())
    assert plan.main(["--study", "hub", "--tflops", "100"]) == 1  # one model is gated: nothing should start
    said = capsys.readouterr().out
    assert "1 models and data sets cannot be had" in said and "not checked" not in said
    assert "bytes of 1 of 2 models are an estimate" in said
    answers["no-such/two"] = answers["fine"]
    assert plan.main(["--study", "hub", "--tflops", "100"]) == 0
    assert "9 bytes read through once" in capsys.readouterr().out


def test_the_paper_study_prints_its_price_and_where_it_comes_from(capsys):
    assert plan.main(["--study", "paper", "--tflops", "100"]) == 0
    said = capsys.readouterr().out
    for word in (
        "models      32",
        "documents",
        "positions",
        "TFLOP/s (as given by --tflops)",
        "hours",
        "GB of shards",
    ):
        assert word in said, word
    assert "not checked for 33 models and data sets" in said and "bytes not known" in said
    assert "estimate after its data-set card" in said and "bytes of 32 of 32 models are an estimate" in said


def test_sizes_come_from_weights_where_nobody_states_them(tmp_path, monkeypatch, capsys):
    save_file({"w": np.zeros((1000, 2000), np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    entries = [
        {"name": "mine", "source": "folder", "id": str(tmp_path)},
        {"name": "far", "source": "hub", "id": "no-such/far"},
    ]
    study = hub_study().model_copy(update={"models": studies.Models(kind="list", entries=entries)})
    table = plan.plan(study, speed=1e12).set_index("model")
    assert table.loc["mine", "billion parameters"] == pytest.approx(0.002) and table.loc["mine", "hours"] > 0
    monkeypatch.setattr(studies, "load", lambda name: study)
    plan.main(["--study", "hub", "--tflops", "100"])
    assert "without 1 models whose size nobody stated" in capsys.readouterr().out


def test_prices_are_in_units_that_people_use(tmp_path, monkeypatch, capsys):
    """A laptop once had to compute 3,717,680.0 hours on weights of 0.00 GB, and corpora of nan documents."""
    assert plan.main(["--study", "paper", "--tflops", "0.01"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"computing   \d+ years on one such device", said) and " hours" not in said
    assert re.search(r"'mode: stream' would take \d+ years, 1/16 of that", said)
    assert plan.main(["--study", "paper", "--tflops", "1e-9"]) == 0
    assert "computing   more than 1,000 years on" in capsys.readouterr().out
    study = hub_study(mode="stream").model_copy(update={"corpus": studies.Corpus(kind="hub", sources=("a/b",))})
    monkeypatch.setattr(studies, "load", lambda name: study)
    assert plan.main(["--study", "hub", "--tflops", "1"]) == 0
    said = capsys.readouterr().out
    assert "corpus      not known: the size of a/b is not known here" in said and "computing   not known" in said
    assert "nan" not in said and "0.00" not in said and "'mode: stream'" not in said


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "fast"])
def test_an_impossible_rate_is_refused(rate, capsys):
    with pytest.raises(SystemExit):
        plan.main(["--study", "paper", "--tflops", rate])
    assert "POSITIVE NUMBER" in capsys.readouterr().err


def test_what_is_wrong_with_a_model_stands_in_its_row(tiny, monkeypatch, capsys):
    """Folders of every kind that is no checkpoint, and ids that no hub knows: never a stack trace."""
    damaged, empty = tiny.folder("damaged"), tiny.root / "empty"
    (damaged / "model.safetensors").write_bytes(b"x")
    empty.mkdir()
    given = {
        "damaged": damaged,
        "empty": empty,
        "gone": "no/such",
        "long": "x" * 900,
        "null": "a\0b",
        "file": __file__,
    }
    entries = [{"name": n, "source": "folder", "id": str(p)} for n, p in given.items()]
    entries += [{"name": "odd", "source": "hub", "id": "a b//c"}, {"name": "pack", "source": "package", "id": "../x y"}]
    study = hub_study().model_copy(update={"models": studies.Models(kind="list", entries=entries)})
    table = plan.plan(study, speed=1e12).set_index("model")
    assert (table["ok"].drop("odd") == False).all() and table["hours"].isna().all()  # noqa: E712
    assert "damaged or half-written" in table.loc["damaged", "access"] and "is empty" in table.loc["empty", "access"]
    monkeypatch.setattr(studies, "load", lambda name: study)
    assert plan.main(["--study", "hub", "--tflops", "1"]) == 1
    assert "7 models and data sets cannot be had" in capsys.readouterr().out


def test_a_hub_that_is_down_is_asked_once(monkeypatch):
    """20,000 models would otherwise wait 20 seconds each."""
    import huggingface_hub

    asked = []

    class Api:
        def model_info(self, name, **options):
            asked.append(name)
            raise ConnectionError("down")

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    entries = [{"name": f"m{k}", "source": "hub", "id": f"o/m{k}", "parameters": 1} for k in range(2000)]
    study = hub_study().model_copy(update={"models": studies.Models(kind="list", entries=entries)})
    table = plan.plan(study, speed=1e12)
    assert asked == ["o/m0"] and len(table) == 2000 and table["access"].str.contains("cannot be reached").all()


def test_a_measured_rate_names_its_device(capsys, monkeypatch):
    monkeypatch.setattr(plan, "rate", lambda dtype, precision: (5e10, "CPU, 1 thread(s)"))
    assert plan.main(["--study", "paper"]) == 0
    assert "0.05 TFLOP/s (CPU, 1 thread(s))" in capsys.readouterr().out


def test_the_rate_is_measured_through_the_engine():
    speed, device = plan.rate(seconds=0.1)
    assert 1e8 < speed < 1e16 and device


def test_studies_without_models_and_wrong_names_say_so(capsys):
    assert plan.main(["--study", "dclm"]) == 0
    assert "downloads no model" in capsys.readouterr().out
    assert plan.main(["--study", "papper"]) == 1
    assert "paper" in capsys.readouterr().err


def test_unknown_corpora_have_no_size(tiny):
    study = hub_study().model_copy(update={"corpus": studies.Corpus(kind="hub", sources=("a/b",))})
    documents, _, known = plan.corpus_size(study)
    assert documents != documents and "a/b is not known" in known
    documents, tokens, known = plan.corpus_size(studies.load(tiny.study(models=1, documents=7)))
    assert documents == 7 and tokens > 0 and "counted" in known
