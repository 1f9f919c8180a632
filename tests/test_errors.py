"""One boundary on every command: a message and an exit status, never a stack trace."""

import importlib
import os
import signal
import subprocess
import sys

import pytest
import yaml

from helpers import adapt, errors, studies
from helpers.errors import DataError, StudyError

# command -> the first function of it that does something, and arguments
COMMANDS = {
    "adapt": ("check", ["--scores", "x.csv"]),
    "atlas": ("uncollected", ["dclm"]),
    "book": ("make", None),
    "capstone": ("grade_scores", ["--scores", __file__]),
    "pins": ("direct", None),
    "plan": ("rate", ["--study", "paper"]),
    "report": ("build", ["--study", "lab"]),
    "runner": ("sync", ["sync"]),
    "lab.__main__": ("_train", None),
}
WRONG = [
    (DataError("scores.csv, row 3: 'x' is no number."), 1, "row 3"),
    (OSError(28, "No space left on device", "maps.csv"), 1, "No space left on device (maps.csv)"),
    (PermissionError(13, "Permission denied", "/etc/x"), 1, "Permission denied (/etc/x)"),
    (OSError("odd"), 1, "odd"),
    (MemoryError("Unable to allocate 9 GiB"), 1, "not enough memory (Unable to allocate 9 GiB)"),
    (KeyboardInterrupt(), 130, "Stopped"),
]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_shows_a_stack_trace(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COMPANION_RESULTS", str(tmp_path))
    module = importlib.import_module(f"helpers.{name}")
    function, arguments = COMMANDS[name]
    before = signal.getsignal(signal.SIGTERM)
    if arguments is None:
        monkeypatch.setattr(sys, "argv", [name])
    for error, status, words in WRONG:

        def fail(*_, error=error, **__):
            """Fail."""
            raise error

        monkeypatch.setattr(module, function, fail)
        if name == "lab.__main__":
            monkeypatch.setattr(module.joblib, "Parallel", lambda **_: fail)
        assert (module.main() if arguments is None else module.main(arguments)) == status
        said = capsys.readouterr().err
        assert words in said and "Traceback" not in said and len(said.strip().splitlines()) == 1, said
    signal.signal(signal.SIGTERM, before)


def test_errors_of_the_code_itself_are_not_hidden():
    @errors.command
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main()


def test_a_reader_that_stops_reading_and_a_terminal_without_letters_are_no_failure():
    code = (
        "import sys; from helpers import errors\n"
        "@errors.command\n"
        "def main():\n"
        "    print('\\u2013 \\u65e5', flush=True)\n"
        "    for _ in range(int(sys.argv[1])): print('x' * 99)\n"
        "sys.exit(main())"
    )
    reading, writing = os.pipe()
    os.close(reading)
    child = subprocess.run([sys.executable, "-c", code, "9999"], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert child.returncode == 141 and child.stderr == ""
    plain = os.environ | {"PYTHONIOENCODING": "ascii"}
    child = subprocess.run([sys.executable, "-c", code, "0"], env=plain, capture_output=True, text=True)
    assert child.returncode == 0 and child.stdout == "? ?\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "SCORES="),
        (["--scores", ""], "--scores is empty"),
        (["--scores", "  "], "--scores is empty"),
        (["--scores", "x.csv", "--study", ""], "--study is empty"),
        (["--scores", "x.csv", "--alias", "a"], "--alias a: write YOURS=STUDYS"),
    ],
)
def test_adapt_says_which_argument_is_missing(arguments, words, capsys):
    with pytest.raises(SystemExit) as ended:
        adapt.main(arguments)
    assert ended.value.code == 2 and words in capsys.readouterr().err


def test_capstone_without_a_file_says_so(capsys):
    from helpers import capstone

    assert capstone.main(["--questions", ""]) == 1
    assert "QUESTIONS=" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["2024", "null", "true", "1e5", "0x1f", "no", "a", "x-1"])
def test_every_scaffolded_study_loads(name, tmp_path):
    assert studies.load(adapt.new_study(name, tmp_path)).name == name


@pytest.mark.parametrize("name", ["", "a" * 300, "a/b", "../x", "Ä", "a b", "-a", "a\n"])
def test_names_that_cannot_be_a_study_are_refused_and_leave_no_file(name, tmp_path):
    with pytest.raises(StudyError, match="cannot name a study"):
        adapt.new_study(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_scaffold_that_cannot_be_written_leaves_no_half_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        adapt.new_study("mine", tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert yaml.safe_load(adapt.new_study("mine", tmp_path).read_text())["name"] == "mine"
