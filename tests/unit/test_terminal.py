"""What is printed: texts of others reach the terminal as text, whatever they hold."""

from __future__ import annotations

import ast
import io
import json
import logging
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from report_study import study_folder, write_page
from small_study import TEXT, study
from synthetic_records import synthetic_records

import clipdrift.cli
from clipdrift.analysis.choose import choose
from clipdrift.analysis.questions.budget import budget
from clipdrift.checkpoint.checks import Finding
from clipdrift.cli import main
from clipdrift.cli.checkpoint_tables import findings_table
from clipdrift.cli.choice_tables import choice_text
from clipdrift.cli.progress import StudyProgress
from clipdrift.cli.tables import audit_table, cell_table, dataset_table, run_table
from clipdrift.cli.terminal import Sheet, Terminal
from clipdrift.errors import printable
from clipdrift.records import StudyFolder
from clipdrift.spec import expand
from clipdrift.spec.audit import audit
from clipdrift.spec.load import with_checksum

PLANTED = (
    "\x1b[31m",  # a colour
    "\x1b]0;title\x07",  # the window's title
    "\x1b]8;;http:x\x07",  # a link
    "\x9b2J",  # C1: clears the screen
    "\x90q\x9c",
    "\u202e\u2066\u2069\u200f",  # turns the direction of writing
    "\u200b\u2060\ufeff\u00ad",  # zero-width
    "\u200d",  # a joiner where there is nothing to join
    "\r\x08\x7f",
    "\u0b45\ue000",  # codes without a character
    "\n3 runs finished",  # another line
)
WRITTEN = "Größe 猫 कि 👩‍🔬🇩🇪 ±%"
NAME = WRITTEN + "".join(f"{code}x" for code in PLANTED)

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command line in this process: exit code, and all that it printed."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)

    def run(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["clipdrift", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        logging.setLogRecordFactory(logging.LogRecord)
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study whose records have such names throughout, with a report that somebody changed."""
    records = synthetic_records(
        targets=(NAME,), methods=("lora", f"m {NAME}"), rates=(1e-5, 1e-4), backbone=NAME, blocks=1
    )
    for number, record in enumerate(records):
        record.leaks = [NAME]
        record.result.transfer[NAME] = record.result.transfer["cifar10"]
        record.run_id = f"{NAME} {number}"  # a folder's name has at most 255 bytes
    records[0] = records[0].model_copy(update={"status": "failed", "reason": NAME})
    folder = study_folder(tmp_path_factory.mktemp("hostile") / NAME, records)
    folder.spec_path.write_text(with_checksum(TEXT))
    write_page(folder)
    page = folder.report_path.read_text()
    folder.report_path.write_text(page.replace("Accuracy", "Accuracies", 1))
    return folder


def unsafe(text: str) -> set[str]:
    """Characters that a terminal obeys or hides; joiners of the writing are counted apart."""
    without = text.replace("👩‍🔬", "").replace("\n", "")
    return {
        c for c in without if unicodedata.category(c) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("status",), 2),
        (("analyze",), 0),
        (("choose",), 0),
        (("choose", "--target", NAME, "--min-accuracy", "100"), 0),
        (("choose", "--target", f"no such {NAME}"), 2),
        (("audit",), 1),
        (("forecast",), 2),  # too few cells to learn from
        (("evaluate",), 2),
        (("status", f"--no{NAME}"), 2),
    ],
)
def test_no_command_prints_what_a_terminal_would_obey(
    hostile: StudyFolder, call: Call, words: tuple[str, ...], code: int
) -> None:
    ended, said = call(words[0], hostile.path, *words[1:])
    assert (ended, unsafe(said)) == (code, set()), said
    assert WRITTEN.split()[0] in said
    assert "\n3 runs finished" not in said
    assert "Traceback" not in said


def test_json_holds_the_same_texts_as_escapes(hostile: StudyFolder, call: Call) -> None:
    _, said = call("choose", hostile.path, "--json")
    assert said.isascii()
    assert unsafe(said) == set()
    found = json.dumps(json.loads(said), ensure_ascii=False)
    assert WRITTEN in found
    assert "\u202e" in found


def test_states_of_runs_are_plain_in_lines_and_in_json(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("clipdrift.study.status.study_status", lambda _: {NAME: "to do"})
    code, said = call("status", tmp_path)
    assert (code, unsafe(said), len(said.splitlines())) == (0, set(), 2)
    code, said = call("status", tmp_path, "--json")
    assert (code, said.isascii(), "\x7f" in said) == (0, True, False)
    assert json.loads(said) == {NAME: {"state": "to do"}}


def test_a_class_folder_is_named_in_an_error_as_it_can_be_read(call: Call, tmp_path: Path) -> None:
    name = NAME
    for folder in (name, "b"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        (tmp_path / "photos" / folder / "1.png").write_bytes(b"none")
    spec = {**yaml.safe_load(TEXT), "targets": [{"name": "x", "folder": str(tmp_path / "photos")}]}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(spec))
    code, said = call("check", tmp_path / "study.yaml", "--cache", tmp_path / "cache")
    assert (code, unsafe(said)) == (2, set())
    assert WRITTEN.split()[0] in said


def test_keys_of_an_adapter_and_words_of_a_worker_are_plain() -> None:
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=True, color_system=None, width=500)
    console.print(
        findings_table(NAME, [Finding(NAME, "wrong", f"keys that act on nothing: {NAME}")])
    )
    console.print(NAME)  # not by way of a table
    StudyProgress(console)({"event": "prepare", "text": NAME})
    StudyProgress(console)({"event": "retry", "key": NAME, "reason": NAME})
    assert unsafe(out.getvalue()) == set()
    assert out.getvalue().count(WRITTEN) == 7


def test_markup_and_the_names_of_emoji_are_text() -> None:
    out = io.StringIO()
    Terminal(file=out, width=80).print("[red]a[/red] :smile:")
    assert out.getvalue() == "[red]a[/red] :smile:\n"


def test_warnings_logs_and_bugs_are_plain_too(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(_: object) -> None:
        warnings.warn(f"a warning {NAME}", stacklevel=1)
        logging.getLogger("clipdrift").warning("a log %s", NAME)
        raise RuntimeError(f"a bug {NAME}")

    monkeypatch.setattr("clipdrift.study.status.study_status", broken)
    monkeypatch.setattr(logging.getLogger("clipdrift"), "propagate", False)
    monkeypatch.setattr(logging.getLogger("clipdrift"), "handlers", [logging.StreamHandler()])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "showwarning", _to_stderr)
        code, said = call("status", tmp_path)
    assert (code, unsafe(said)) == (1, set())
    for kind in ("a warning", "a log", "RuntimeError: a bug"):
        assert f"{kind} {WRITTEN}" in said


def _to_stderr(
    message: Warning, category: type[Warning], filename: str, lineno: int, *_: object
) -> None:
    """As Python does; pytest puts its own in the place."""
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))


@pytest.mark.parametrize(
    "text", [WRITTEN, "می‌خواهم", "क्‍ष", "👨🏽‍🚀", "全角　空白", "naïve e\u0301"]
)
def test_writing_of_people_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("text", ["a\u200db", "a\u200cb", "\u200d", "\u3164", "\ud800", *PLANTED])
def test_what_hides_or_acts_is_written_as_its_code(text: str) -> None:
    assert unsafe(printable(text)) == set()
    assert printable(text).isascii()
    assert printable(text).encode().decode("unicode_escape") == text


def test_nothing_is_printed_but_by_the_one_module() -> None:
    for path in Path(clipdrift.cli.__file__).parent.glob("*.py"):
        if path.name == "terminal.py":
            continue
        tree = ast.parse(path.read_text())
        calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        assert not calls & {"print", "typer.echo", "Console", "Table", "sys.stdout.write"}, path


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Sheet]]:
    """What commands print in tables, of a study with long names."""
    records = synthetic_records(targets=("land-cover",), methods=("full_ft", "lora-rank-8"))
    folder = study_folder(tmp_path_factory.mktemp("wide") / "study", records)
    found = choose(folder, budget(min_retention=90), targets=[], transfers=[], top=5)
    spec = study(learning_rates=[1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4])
    return {
        "choose": [part for part in choice_text(found.rows, []) if isinstance(part, Sheet)],
        "run": [cell_table(json.loads(folder.analysis_path.read_text()))],
        "plan": [run_table(expand(spec, precision="float32")), audit_table(audit(spec))],
        "datasets": [dataset_table()],
        "evaluate": [
            findings_table("a", [Finding("adapters active", "ok", "all 1,234 keys " * 9)])
        ],
    }


@pytest.mark.parametrize("width", [25, 40, 60, 80, 120, None])
@pytest.mark.parametrize("command", ["choose", "run", "plan", "datasets", "evaluate"])
def test_no_number_is_cut_or_broken_however_narrow(
    sheets: dict[str, list[Sheet]],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    width: int | None,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert sheets[command]
    for sheet in sheets[command]:
        out = io.StringIO()
        Terminal(file=out, **({} if width is None else {"width": width})).print(sheet)
        said = out.getvalue()
        assert "…" not in said
        assert max(map(len, said.splitlines())) <= (width or 10_000)
        for column in sheet.columns:
            for cell in map(str, column.cells):
                numbers = [word for word in cell.split() if any(map(str.isdigit, word))]
                for number in [cell] if cell[:1].isdigit() and len(cell) < 15 else numbers:
                    assert number in said or len(number) > 20, (number, said)
        if width is None:  # a pipe: one line for each row
            rows = list(zip(*(map(str, column.cells) for column in sheet.columns), strict=True))
            lines = said.splitlines()
            assert all(any(all(c in line for c in row) for line in lines) for row in rows)
