"""One direction of flow: which room may import which, read from every import in the source."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import clipdrift

ROOT = Path(clipdrift.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))

BASE = {"errors", "paths", "spec", "records"}
BACKBONE = BASE | {"plugins", "data", "formats", "backbone"}
TRAINED = BACKBONE | {"methods", "probes", "penalties", "step", "training"}
MEASURED = TRAINED | {"machine", "materials"}
ONE_RUN = MEASURED | {"reading", "run"}
WHOLE_STUDY = ONE_RUN | {"executors", "study"}

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "paths": {"errors"},
    "spec": {"errors", "paths"},
    "records": {"errors", "paths", "spec"},
    # measuring side
    "machine": {"errors"},
    "hub": {"errors"},
    "plugins": {"errors"},
    "data": BASE | {"plugins", "hub", "machine"},
    "formats": BASE,
    "backbone": BASE | {"hub", "data", "formats"},
    "methods": BASE | {"plugins", "backbone"},
    "probes": BACKBONE | {"machine"},
    "penalties": BACKBONE | {"methods", "probes"},
    "step": BACKBONE | {"machine", "methods", "penalties"},
    "training": BACKBONE | {"machine", "methods", "penalties", "step"},
    "materials": BACKBONE,
    "reading": MEASURED,
    "interventions": MEASURED | {"reading"},
    "own_loop": BASE | {"machine", "reading"},
    "run": ONE_RUN - {"run"},
    "executors": BASE | {"machine"},
    "study": ONE_RUN | {"executors"},
    "checkpoint": WHOLE_STUDY,
    "finished": WHOLE_STUDY | {"checkpoint", "interventions"},
    # reading side
    "analysis": BASE,
    "racing": BASE | {"analysis"},
    "report": BASE | {"analysis"},
    # both
    "commands": WHOLE_STUDY
    | {"checkpoint", "interventions", "finished", "analysis", "racing", "report"},
    "cli": WHOLE_STUDY | {"checkpoint", "finished", "analysis", "racing", "report", "commands"},
    "__main__": {"cli"},
}
"""Rooms in the order of the flow: a room imports only rooms above it."""

FACADE = "__init__"
READING = ("errors", "spec", "records", "analysis", "racing", "report")
MEASURING_LIBRARIES = {"torch", "transformers", "peft", "safetensors", "datasets"}
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(source: str) -> Iterator[str]:
    """Dotted names of everything imported anywhere in a source, in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be read"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def called(source: str) -> Iterator[str]:
    """Text of what is called, e.g. `yaml.load`, followed by its keywords."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            keywords = {f"{k.arg}={ast.unparse(k.value)}" for k in node.keywords}
            yield " ".join([ast.unparse(node.func), *sorted(keywords)])


def rooms_imported(source: str) -> set[str]:
    parts = [name.split(".") for name in imported(source)]
    return {p[1] for p in parts if p[0] == "clipdrift" and len(p) > 1}


def fresh(code: str) -> set[str]:
    """Top-level modules loaded after some code, in an interpreter of its own."""
    code += "\nimport json, sys\nprint(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_every_kind_of_import_is_seen() -> None:
    source = """
import clipdrift.run
from clipdrift import report
if TYPE_CHECKING:
    from clipdrift.study.measure import Study
class A:
    def f(self):
        from clipdrift.cli.app import main as m
        import yaml, pickle as p
"""
    assert rooms_imported(source) == {"run", "report", "study", "cli"}
    assert {"yaml", "pickle"} <= set(imported(source))
    with pytest.raises(AssertionError, match="imports are absolute"):
        list(imported("from . import run"))
    assert list(called("x.load(a, allow_pickle=True)")) == ["x.load allow_pickle=True"]


def test_the_table_is_in_the_order_of_the_flow() -> None:
    above: set[str] = set()
    for room, allowed in MAY_IMPORT.items():
        assert allowed <= above, room
        above.add(room)


def test_a_room_imports_only_what_it_may() -> None:
    for path in SOURCES:
        room = room_of(path)
        if room != FACADE:
            assert room in MAY_IMPORT, f"{room} is a new room: give it a row in the table"
            assert rooms_imported(path.read_text()) - {room} <= MAY_IMPORT[room], path


@pytest.mark.parametrize("room", READING)
def test_the_reading_side_names_no_measuring_library(room: str) -> None:
    paths = [path for path in SOURCES if room_of(path) == room]
    assert paths
    for path in paths:
        libraries = {name.split(".")[0] for name in imported(path.read_text())}
        assert not libraries & MEASURING_LIBRARIES, path


@pytest.mark.slow
def test_reading_works_without_torch() -> None:
    """Every module of the reading side, and all they pull in."""
    names = [f"clipdrift.{room}" for room in READING]
    for room in READING:
        if (ROOT / room).is_dir():
            found = pkgutil.walk_packages([str(ROOT / room)], prefix=f"clipdrift.{room}.")
            names += [module.name for module in found]
    assert len(names) > 40
    loaded = fresh("\n".join(f"import {name}" for name in names))
    assert {"clipdrift", "numpy", "pandas"} <= loaded
    assert not loaded & MEASURING_LIBRARIES


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("clipdrift", {"numpy", "pydantic", "yaml", "rich", "typer"}),
        ("clipdrift.cli.app", {"numpy", "pydantic", "yaml"}),
        ("clipdrift.study.status", {"numpy"}),
    ],
)
def test_what_is_asked_often_starts_soon(module: str, heavy: set[str]) -> None:
    loaded = fresh(f"import {module}")
    heavy |= {"pandas", "scipy", "matplotlib", "plotly", "statsmodels", "sklearn", "PIL"}
    assert not loaded & (heavy | MEASURING_LIBRARIES)


def test_the_public_names_are_what_type_checkers_are_told() -> None:
    told = set(imported((ROOT / "__init__.py").read_text()))
    for name in clipdrift.__all__:
        assert f"{clipdrift._HOMES[name]}.{name}" in told
        assert getattr(clipdrift, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        clipdrift.nothing  # noqa: B018


RUN_CODE = {
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"),
    *("torch.load", "torch.save", "pd.read_pickle", "eval", "exec"),
}


def test_no_source_reads_what_could_run_code() -> None:
    for path in SOURCES:
        source = path.read_text()
        libraries = {name.split(".")[0] for name in imported(source)}
        assert not libraries & {*PICKLES, "torchvision"}, path
        for call in called(source):
            name, *keywords = call.split(" ")
            assert name not in RUN_CODE, path
            assert "allow_pickle=True" not in keywords, path


def test_there_is_no_room_for_odds_and_ends() -> None:
    assert not [path for path in SOURCES if path.stem in {"utils", "helpers", "common", "misc"}]
