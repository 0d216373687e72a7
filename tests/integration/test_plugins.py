"""The package of docs/extending.md, installed by pip and run; packages not as promised."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_models import mini_clip
from tiny_study import tiny

from clipdrift import plugins
from clipdrift.errors import ClipdriftError, PluginError, RecordError
from clipdrift.executors.local import LocalExecutor
from clipdrift.finished.evaluate import evaluate_run
from clipdrift.materials import load_materials
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.spec import StudySpec, load_spec
from clipdrift.study.measure import run_study
from clipdrift.study.plan import plan_runs, require_fit

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
PROBE = "cls_shrinkage"


def files_of_the_page() -> dict[str, str]:
    blocks = re.findall(r"```(?:toml|python|yaml)\n# (\S+)\n(.*?)```", PAGE, re.DOTALL)
    return dict(blocks)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's package in a folder of installed packages of its own."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name, text in files_of_the_page().items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    pip += ["--no-build-isolation", "--target", str(site), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (site / "study.yaml").write_text(files_of_the_page()["study.yaml"], encoding="utf-8")
    return site


@pytest.fixture
def here(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StudySpec]:
    """The page's study, where its package can be imported."""
    monkeypatch.syspath_prepend(str(site))
    yield load_spec(site / "study.yaml")
    for name in [name for name in sys.modules if name.startswith("example_drift")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def record(site: Path, cache_dir: Path) -> tuple[Path, RunRecord]:
    """The study run by workers that find the package by themselves."""
    out = site / "out"
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        patch.syspath_prepend(str(site))
        spec = load_spec(site / "study.yaml")
        outcome = run_study(
            spec, out, executor=LocalExecutor(1, "cpu", cpus=1), cache_dir=cache_dir
        )
    assert (outcome.measured, outcome.failed) == (1, {})
    (record,) = StudyFolder(out).records()[0]
    return StudyFolder(out).run_path(record.run_id), record


def test_the_pages_study_runs_and_names_what_it_used(record: tuple[Path, RunRecord]) -> None:
    found = record[1]
    assert found.status == "finished"
    assert found.provenance["plugins"] == {
        "datasets.stripes": "example-drift 0.3",
        "methods.norms": "example-drift 0.3",
        "penalties.unit_norm": "example-drift 0.3",
        "probes.cls_shrinkage": "example-drift 0.3",
    }
    blocks = len(mini_clip().model.vision_model.encoder.layers)
    assert found.history[0].drift_per_block[PROBE] == pytest.approx([0.0] * blocks, abs=1e-6)
    assert len(found.result.drift_per_block[PROBE]) == blocks
    moved = found.result.drift_per_block[PROBE]
    assert any(moved)
    assert found.result.drift[PROBE] == pytest.approx(sum(map(float, moved)) / blocks)
    # Two norms of two vectors of the width in each of the last two blocks, projection and head.
    width, embedding = mini_clip().model.config.vision_config.hidden_size, mini_clip().width
    trained = 2 * 2 * 2 * width + width * embedding + 2 * (embedding + 1)
    assert found.result.parameters_trained == trained
    assert (found.history[1].penalties or {})["unit_norm"] > 0


@pytest.mark.usefixtures("here")
def test_its_run_is_read_again_from_its_files(
    record: tuple[Path, RunRecord], cache_dir: Path
) -> None:
    compared = evaluate_run(record[0], cache_dir=cache_dir, device="cpu")
    assert [row for row in compared if not row.agrees] == []
    assert "test_accuracy" in {row.name for row in compared}


def test_another_version_is_another_run(
    here: StudySpec,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    record: tuple[Path, RunRecord],
) -> None:
    materials = load_materials(here, cache_dir=cache_dir)
    (now,) = plan_runs(here, materials)
    assert now.identity == record[1].identity
    monkeypatch.setattr(plugins.Plugin, "origin", property(lambda self: f"{self.package} 0.4"))
    (later,) = plan_runs(here, materials)
    assert later.identity != now.identity
    with pytest.raises(RecordError, match=r"expected example-drift 0.3, .* got example-drift 0.4"):
        evaluate_run(record[0], cache_dir=cache_dir, device="cpu")


def installed(site: Path, package: str, entries: dict[str, str], code: str) -> None:
    """A package as an installer would leave it: its code, and metadata with entry points."""
    name = package.replace("-", "_")
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    text = "".join(f"[clipdrift.{group}]\n{line}\n" for group, line in entries.items())
    (info / "entry_points.txt").write_text(text)
    (site / f"{name}.py").write_text(code)


BAD = """
def adapt(encoder, spec, seed):
    raise KeyError("rank")
def effective_state(encoder): ...
def save(encoder, folder): ...
def restore(encoder, spec, folder): ...
def nan(adapted, baseline):
    return float("nan")
def text(adapted, baseline):
    return "much"
def fails(adapted, baseline):
    return 1 / 0
def leaves(adapted, baseline):
    raise SystemExit(0)
class Nothing: ...
nothing = Nothing()
def parts():
    return {"train": 7}
"""


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {
        "methods": "bad = bad_pack\nhalf = bad_pack:nothing\nlora = bad_pack\ngone = bad_pack:no\n"
        "twice = bad_pack",
        "penalties": "bad = bad_pack:nothing\nl2_sp = bad_pack:nothing",
        "probes": "nan = bad_pack:nan\ntext = bad_pack:text\nfails = bad_pack:fails\n"
        "leaves = bad_pack:leaves\nnone = bad_pack:nothing\ncka_mean = bad_pack:nan",
        "datasets": "parts = bad_pack:parts\nnone = bad_pack:nothing\ndigits = bad_pack:parts",
    }
    installed(tmp_path, "bad-pack", entries, BAD)
    installed(tmp_path, "exit-pack", {"probes": "quits = exit_pack"}, "raise SystemExit(0)\n")
    installed(tmp_path, "other-pack", {"methods": "twice = other_pack"}, "raise OSError('no')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bad_pack", raising=False)


def method(type_: str, **more: Any) -> dict[str, Any]:
    return {"methods": [{"name": "own", "kind": "plugin", "type": type_, **more}]}


def penalty(type_: str) -> dict[str, Any]:
    return {"methods": [{"kind": "full_ft", "penalties": [
        {"kind": "plugin", "type": type_, "weight": 0.1}]}]}  # fmt: skip


@pytest.mark.usefixtures("bad")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (method("bda"), ("method own type: expected a name in the entry points clipdrift.methods "
         "of installed packages (bad, gone, half, lora, twice), got 'bda'. Did you mean 'bad'?")),
        (method("lora"), ("method own type: expected a plugin with a name of its own, got 'lora', "
         "which clipdrift has itself. Ask its maker for another name, or use clipdrift's own.")),
        (method("twice"), "method own type: expected one package that adds 'twice', got "),
        (method("gone"), ("expected bad_pack:no of bad-pack 1.0 to be importable, got "
         "AttributeError: ")),
        (method("half"), ("method own type: expected a clipdrift.methods.Family, or a module with "
         "adapt, effective_state, save and restore, got bad_pack:nothing of bad-pack 1.0, Nothing. "
         "Mend bad-pack; docs/extending.md shows how.")),
        (method("bad"), ("method own type: expected bad of bad-pack 1.0 to work, got KeyError: "
         "'rank'. Mend the options, or update bad-pack.")),
        (penalty("bad"), ("method full_ft penalties bad: expected a clipdrift.penalties.Penalty, "
         "got bad_pack:nothing of bad-pack 1.0, Nothing.")),
        (penalty("l2_sp"), "expected a plugin with a name of its own, got 'l2_sp', which clipdri"),
        ({"evaluation": {"probes": ["none"]}}, ("evaluation.probes none: expected a function of "
         "two probe readings, got bad_pack:nothing of bad-pack 1.0, Nothing.")),
        ({"evaluation": {"probes": ["quits"]}}, ("expected exit_pack of exit-pack 1.0 to be "
         "importable, got SystemExit: 0.")),
        ({"evaluation": {"probes": ["cka_mean"]}}, "got 'cka_mean', which clipdrift has itself."),
    ],
)  # fmt: skip
def test_a_plugin_that_is_not_as_promised_is_refused_by_name(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ClipdriftError) as refused:
        require_fit(tiny(**changes), mini_clip())
    assert words in str(refused.value)


@pytest.mark.usefixtures("bad")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nan", ("evaluation.probes nan: expected a float, a list of floats, or None, none of them "
         "NaN or infinite, got bad_pack:nan of bad-pack 1.0, float.")),
        ("text", "none of them NaN or infinite, got bad_pack:text of bad-pack 1.0, str."),
        ("fails", ("evaluation.probes fails: expected fails of bad-pack 1.0 to work, got "
         "ZeroDivisionError: division by zero.")),
        ("leaves", "expected leaves of bad-pack 1.0 to work, got SystemExit: 0."),
    ],
)  # fmt: skip
def test_a_probe_that_gives_no_number_is_refused_by_name(name: str, words: str) -> None:
    from small_models import land_cover

    from clipdrift.probes.plugged import plugged_signals
    from clipdrift.reading.baseline import probe

    reading = probe(mini_clip().encoder(), land_cover(4))
    with pytest.raises(PluginError) as refused:
        plugged_signals([name], reading, reading)
    assert words in str(refused.value)


@pytest.mark.usefixtures("bad")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("parts", ("own.builtin: expected a function without arguments that gives DatasetParts or "
         "a mapping of train and test to ImagePart, got bad_pack:parts of bad-pack 1.0, dict.")),
        ("none", "got bad_pack:nothing of bad-pack 1.0, Nothing."),
    ],
)  # fmt: skip
def test_a_dataset_that_is_none_is_refused_by_name(name: str, words: str, cache_dir: Path) -> None:
    spec = tiny(targets=[{"name": "own", "builtin": name}])
    with pytest.raises(ClipdriftError) as refused:
        load_materials(spec, cache_dir=cache_dir)
    assert words in str(refused.value)


@pytest.mark.usefixtures("bad")
def test_names_of_ours_stay_ours(cache_dir: Path) -> None:
    """A package cannot take the place of a data set of ours; its code is not even imported."""
    spec = tiny(transfers=[{"name": "mine", "builtin": "digits", "n_images": 20}])
    assert len(load_materials(spec, cache_dir=cache_dir).transfers["mine"].images) == 20
    assert "bad_pack" not in sys.modules
