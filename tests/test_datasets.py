"""Downloads from a tiny local server, damaged files, no network, and the real files where they are."""

import functools
import hashlib
import http.server
import json
import shutil
import threading
import time

import pytest
import yaml

from helpers import datasets, paths
from helpers.errors import DataError, UnavailableError

CONTENT = {"o/r/" + "a" * 40 + "/one file.csv": b"a,b\n1,2\n", "o/r/" + "a" * 40 + "/d/two.json": b"{}"}


@pytest.fixture
def server(tmp_path_factory):
    """Serve CONTENT on localhost; yields (base address, list of requested paths)."""
    root = tmp_path_factory.mktemp("served")
    for name, content in CONTENT.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=root))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}", asked
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A fresh cache, no COMPANION_DATA, nothing remembered from other tests."""
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.delenv("COMPANION_DATA", raising=False)
    monkeypatch.setattr(datasets, "_checked", {})
    monkeypatch.setattr(datasets, "_reachable", {})
    return tmp_path / "cache" / "upstream"


def manifest(tmp_path, base, wrong=False):
    digest = {n.split("/", 3)[3]: hashlib.sha256(c + b"x" * wrong).hexdigest() for n, c in CONTENT.items()}
    entry = {
        "title": "t",
        "source": "s",
        "commit": "a" * 40,
        "class": "metadata",
        "checked": "c",
        "consumers": [],
        "defects": ["a defect"],
    }
    content = {
        "base": base,
        "sources": {"s": {"repository": "o/r", "licence": "MIT"}},
        "datasets": {
            "one": entry | {"files": {"one file.csv": digest["one file.csv"]}},
            "both": entry | {"files": digest},
        },
    }
    path = tmp_path / "manifest.yml"
    path.write_text(json.dumps(content))
    return datasets.read_manifest(path)


def test_download_verify_and_cache(tmp_path, place, server):
    base, asked = server
    known = manifest(tmp_path, base)
    path = datasets.fetch("one", known)
    assert path == place / "o+r" / "one file.csv" and path.read_bytes() == b"a,b\n1,2\n"
    assert len(asked) == 1
    assert datasets.fetch("one", known) == path and len(asked) == 1  # cached
    assert set(datasets.files("both", known)) == {"one file.csv", "d/two.json"} and len(asked) == 2
    assert datasets.fetch("both", known) == place / "o+r"
    assert not [p for p in place.rglob("*") if p.is_file() and p.name not in ("one file.csv", "two.json")]


def test_wrong_bytes_from_the_network_are_refused_and_not_kept(tmp_path, place, server):
    known = manifest(tmp_path, server[0], wrong=True)
    with pytest.raises(DataError, match="do not have the sha256"):
        datasets.fetch("one", known)
    assert not (place / "o+r" / "one file.csv").exists()


def test_missing_on_the_server_is_unavailable(tmp_path, place, server):
    known = manifest(tmp_path, server[0] + "/nowhere")
    with pytest.raises(UnavailableError, match="could not be downloaded"):
        datasets.fetch("one", known)


def test_damaged_cache_is_fetched_again(tmp_path, place, server):
    known = manifest(tmp_path, server[0])
    path = datasets.fetch("one", known)
    path.write_bytes(b"damaged!")
    assert datasets.unavailable(["one"], known) is None
    assert datasets.fetch("one", known).read_bytes() == b"a,b\n1,2\n"


def test_damaged_cache_without_network_names_file_and_hashes(tmp_path, place, server):
    known = manifest(tmp_path, server[0])
    path = datasets.fetch("one", known)
    path.write_bytes(b"damaged!")
    dead = manifest(tmp_path, "http://127.0.0.1:9")
    assert "damaged" in datasets.unavailable(["one"], dead)
    with pytest.raises(DataError) as error:
        datasets.fetch("one", dead)
    text = str(error.value)
    for part in (
        "one file.csv",
        hashlib.sha256(b"damaged!").hexdigest(),
        hashlib.sha256(b"a,b\n1,2\n").hexdigest(),
    ):
        assert part in text
    assert path.read_bytes() == b"damaged!"  # nothing is thrown away that cannot be replaced


def test_companion_data_is_read_first_and_never_written(tmp_path, place, server, monkeypatch):
    mirror = tmp_path / "mirror"
    (mirror / "o+r").mkdir(parents=True)
    (mirror / "o+r" / "one file.csv").write_bytes(b"a,b\n1,2\n")
    monkeypatch.setenv("COMPANION_DATA", str(mirror))
    known = manifest(tmp_path, server[0])
    before = sorted(mirror.rglob("*"))
    places = datasets.files("both", known)
    assert places["one file.csv"].is_relative_to(mirror) and places["d/two.json"].is_relative_to(place)
    assert len(before) == 2 and sorted(mirror.rglob("*")) == before
    (mirror / "o+r" / "one file.csv").write_bytes(b"damaged")
    with pytest.raises(DataError, match="never written to: replace it there"):
        datasets.fetch("one", known)
    assert datasets.unavailable(["one"], known)
    assert (mirror / "o+r" / "one file.csv").read_bytes() == b"damaged"


def test_offline_is_unavailable_quickly_and_asked_once(tmp_path, place, monkeypatch):
    known = manifest(tmp_path, "http://127.0.0.1:9")
    probes = []
    real = datasets._probe
    monkeypatch.setattr(datasets, "_probe", lambda *a: probes.append(a) or real(*a))
    assert not datasets.available(["one"], known)
    with pytest.raises(UnavailableError, match="cannot be downloaded"):
        datasets.fetch("one", known)
    with pytest.raises(UnavailableError):
        datasets.files("both", known)
    assert len(probes) == 1


def test_a_silent_host_costs_at_most_the_limit(monkeypatch):
    monkeypatch.setattr(datasets, "PROBE_SECONDS", 0.2)
    release = threading.Event()

    def hang(*_args, **_kwargs):
        release.wait(10)
        raise OSError("too late")

    monkeypatch.setattr(datasets.socket, "create_connection", hang)
    begun = time.perf_counter()
    assert "did not answer" in datasets._probe("example.invalid", 443)
    assert time.perf_counter() - begun < 5
    release.set()


def test_full_disk_leaves_nothing(tmp_path, place, server, monkeypatch):
    known = manifest(tmp_path, server[0])

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.pooch, "retrieve", full)
    with pytest.raises(DataError, match="No space left"):
        datasets.fetch("one", known)
    assert not (place / "o+r" / "one file.csv").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["datasets"]["one"].update(source="t"), "no source 't'"),
        (lambda c: c["datasets"]["one"].update(commit="main"), "commit"),
        (lambda c: c["datasets"]["one"].update(files={"../../etc/x": "0" * 64}), "leaves the repository"),
        (lambda c: c["datasets"]["one"].update(files={"x": "abc"}), "64 hex digits"),
        (lambda c: c["datasets"]["one"].update(colour="red"), "colour"),
        (lambda c: c["datasets"]["one"].update(files={}), "files"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path, change, message):
    manifest(tmp_path, "http://x")
    content = yaml.safe_load((tmp_path / "manifest.yml").read_text())
    change(content)
    (tmp_path / "manifest.yml").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        datasets.read_manifest(tmp_path / "manifest.yml")


def test_unknown_dataset_names_the_nearest():
    with pytest.raises(DataError, match="did you mean 'truthfulqa'"):
        datasets.fetch("thruthfulqa")


def test_project_manifest_is_complete():
    known = datasets.manifest()
    assert {"entigraph-bpb", "dclm-evaluations", "gauntlet-questions"} <= set(known.datasets)
    for name, dataset in known.datasets.items():
        assert dataset.defects and dataset.consumers and dataset.checked
        assert known.url(name, next(iter(dataset.files))).startswith("https://raw.githubusercontent.com/")
    assert len(known.dataset("dclm-evaluations").files) == 156
    # nothing that the manifest lists is committed here
    listed = {name.rsplit("/", 1)[-1] for d in known.datasets.values() for name in d.files}
    committed = {p.name for p in paths.DATA.rglob("*") if p.is_file() and paths.CACHE not in p.parents}
    assert len(committed) > 10 and not listed & committed


def test_real_files_are_what_the_manifest_says(tmp_path, monkeypatch):
    """Every byte of every file that lies here; one damaged copy is noticed."""
    reason = datasets.unavailable(datasets.manifest().datasets)
    if reason or not any(
        datasets._find(datasets.manifest().folder(n), p)
        for n in ("xwinograd",)
        for p in datasets.manifest().dataset(n).files
    ):
        pytest.skip(f"published files are not here: {reason}")
    for name in datasets.manifest().datasets:
        assert datasets.files(name)
    place = datasets.fetch("dclm-tasks")
    copy = tmp_path / "mlfoundations+dclm" / "eval" / "eval_meta_data.csv"
    copy.parent.mkdir(parents=True)
    shutil.copyfile(place, copy)
    copy.write_bytes(copy.read_bytes()[:-1])
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path))
    with pytest.raises(DataError, match="damaged"):
        datasets.fetch("dclm-tasks")
