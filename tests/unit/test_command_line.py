"""How the program is called: its help, version and completion, and keys given beside a study."""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from small_study import TEXT

import clipdrift
from clipdrift import __version__
from clipdrift.cli import main
from clipdrift.cli.app import app
from clipdrift.errors import SpecError
from clipdrift.spec import load_spec

Call = Callable[..., tuple[int, str, str]]
GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)  # type: ignore[attr-defined]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process: exit code, output and errors."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clipdrift", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "study.yaml").write_text(TEXT)
    return tmp_path / "study.yaml"


def test_version_and_help_are_told(call: Call) -> None:
    assert call("--version") == (0, f"clipdrift {__version__}\n", "")
    code, short, _ = call("-h")
    assert (code, call("--help")[1]) == (0, short)
    panels = re.findall(r"─ ([A-Z][^─]+) ─", short)
    assert panels == [
        "Options",
        "Start a study",
        "Run it",
        "Read what came of it",
        "Join and share studies",
        "Models",
    ]
    assert all(f" {name} " in short for name in COMMANDS)
    code, said, _ = call()
    assert (code, "Start a study" in said) == (2, True)


OTHERWISE_NAMED = {
    "run": "run_study",
    "status": "study_status",
    "report": "write_report",
    "import": "import_runs",
    "export-model": "export_model",
}
FOR_THE_TERMINAL = {"init", "datasets", "cache", "watch"}


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - FOR_THE_TERMINAL))
def test_a_command_is_a_function_with_the_same_defaults(name: str) -> None:
    function = getattr(clipdrift, OTHERWISE_NAMED.get(name, name))
    ours = inspect.signature(function).parameters
    options = {one.name: one for one in GROUP.commands[name].params}  # type: ignore[attr-defined]
    for option, one in options.items():
        known = ours.get(option) or ours.get(f"{option}s")
        if known is None or option == "executor":  # an object, which the option names by its kind
            continue
        said = one.default is not None and known.default is not inspect.Parameter.empty
        assert not said or (known.default or None) == (one.default or None), option


@pytest.mark.parametrize("name", COMMANDS)
def test_help_breaks_no_sentence(call: Call, name: str) -> None:
    code, said, _ = call(name, "-h")
    assert code == 0
    told = said.split("─ ")[0].splitlines()
    for line, following in pairwise(told):
        first = following.split(maxsplit=1)[0] if following.split() else ""
        # A line ends at a full stop, or because the next word would not have fitted.
        if line.strip() and first:
            assert len(line.rstrip()) + len(first) >= 98, line
    assert "--jobs" not in said
    assert said.count("--workers") == (1 if name in ("run", "locate", "tune") else 0)


def test_a_wrong_option_is_two_lines_and_exit_code_2(call: Call) -> None:
    code, out, err = call("status", "--nothing", "x")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "clipdrift status: No such option: --nothing",
        "Try 'clipdrift status --help'.",
    ]


@pytest.mark.parametrize(("typed", "found"), [("sta", {"status"}), ("ex", {"export-model"})])
def test_a_shell_completes_commands(
    call: Call, monkeypatch: pytest.MonkeyPatch, typed: str, found: set[str]
) -> None:
    monkeypatch.setenv("_CLIPDRIFT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"clipdrift {typed}")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert set(call()[1].split()) == found


def test_keys_of_the_study_are_set_beside_it(file: Path) -> None:
    wanted = {
        "schedule.epochs": "2",
        "seeds": "[3, 5]",
        "targets.0": "{name: pets, builtin: digits}",
        "methods.1": "{name: b, kind: lora, rank: 4}",
        "name": "other",
    }
    spec = load_spec(file, [*(f"{key}={value}" for key, value in wanted.items()), "name=last"])
    assert (spec.schedule.epochs, spec.seeds, spec.name) == (2, [3, 5], "last")
    assert [target.name for target in spec.targets] == ["pets"]
    assert spec.methods[1].rank == 4  # type: ignore[union-attr]
    rewritten = file.with_name("same.yaml")
    rewritten.write_text(TEXT.replace("[7, 11]", "[3, 5]"))
    assert load_spec(file, ["seeds=[3, 5]"]) == load_spec(rewritten)


@pytest.mark.parametrize(
    ("settings", "lines"),
    [
        (["seeds"], ["--set: expected KEY=VALUE, got seeds. Write"]),
        (["a..b=1", "=1"], ["--set: expected KEY=VALUE, got a..b=1", "--set: expected KEY=VALUE"]),
        (["targets.7.name=a"], ["--set targets.7.name: expected a key of the study, got nothing"]),
        (["name.a=1"], ["--set name.a: expected a key of the study"]),
        (["seeds=[1, 1]"], ["--set seeds: expected distinct"]),
        (["schedule.epoch=3"], ["--set schedule.epoch: expected a known key"]),
        (["seeds=[1"], ["--set seeds"]),
    ],
)
def test_what_is_set_is_checked_as_the_file_is(
    file: Path, settings: list[str], lines: list[str]
) -> None:
    with pytest.raises(SpecError) as refused:
        load_spec(file, settings)
    told = [str(fault) for fault in refused.value.faults]
    assert len(told) == len(lines)
    for said, expected in zip(told, lines, strict=True):
        assert said.startswith(expected), told


@pytest.mark.parametrize("command", ["check", "plan"])
def test_faults_are_json_where_json_is_asked_for(call: Call, file: Path, command: str) -> None:
    code, out, err = call(
        command, file, "--json", "--set", "schedule.epochs=0", "--set", "epochs=1"
    )
    assert (code, err) == (2, "")
    faults = json.loads(out)["faults"]
    assert {fault["where"] for fault in faults} == {"--set epochs", "--set schedule.epochs"}
    assert set(faults[0]) == {"where", "expected", "got", "next_step"}
    assert "Traceback" not in out


def test_quiet_leaves_answers_and_faults(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text(TEXT)
    monkeypatch.setattr("clipdrift.machine.devices.crowded", lambda: "this machine is busy")
    words = ("check", tmp_path / "a.yaml", "--cache", tmp_path / "cache")
    code, out, _ = call(*words)
    assert (code, "Ready. Next:" in out) == (0, True)
    code, out, err = call(*words, "--quiet")
    assert (code, "Ready. Next:" in out, err) == (0, False, "")
    assert "small: backbone mini-clip" in out
    code, out, err = call(*words, "-q", "--set", "seeds=[1, 1]")
    assert (code, out, err.startswith("--set seeds: expected")) == (2, "", True)


def test_shares_are_percent_wherever_they_are_typed(call: Call, tmp_path: Path) -> None:
    code, _, err = call("choose", tmp_path, "--min-accuracy", "0.9", "--min-retention", "0.9")
    assert code == 2
    assert [line.split(". ")[-1] for line in err.splitlines()] == ["Write 90.", "Write 90."]
    code, _, err = call("forecast", tmp_path, "--level", "0.8")
    assert (code, err.splitlines()) == (
        2, ["--level: expected percent between 50 and 100, got 0.8. Write 80."],
    )  # fmt: skip
