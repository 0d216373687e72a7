"""Bad input at the command line: plain lines, exit code 2, nothing written, nothing lost."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from command_process import exit_code_here
from PIL import Image
from planted_modules import NAMES, plant

from clipdrift.commands.scaffold import study_text

LINE = re.compile(r"^.+: expected .+, got .+\. .+[.?]$", re.DOTALL)
Call = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    cache_dir: Path,
    no_processes: None,
    no_figures: None,
) -> Call:
    """Run the command line in this process; gives exit code, output and error lines."""
    monkeypatch.setenv("CLIPDRIFT_CACHE", str(cache_dir))
    monkeypatch.setattr("clipdrift.machine.devices.crowded", lambda: None)

    def run(*words: object) -> tuple[int, str, list[str]]:
        code = exit_code_here(*words)
        said = capsys.readouterr()
        return code, said.out, said.err.splitlines()

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of eight small images."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    return tmp_path / "photos"


def study(tmp_path: Path, photos: Path, **changes: Any) -> Path:
    body: dict[str, Any] = {
        "name": "mine",
        "targets": [{"name": "photos", "folder": str(photos)}],
        "transfers": [{"name": "digits", "builtin": "digits", "n_images": 20}],
        "methods": ["lora"],
        "learning_rates": [1e-3],
        "seeds": [1],
        "schedule": {"epochs": 1, "batch_size": 8},
        "splits": {"val_per_class": 1},
        "probe": {"per_class": 1},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**body, **changes}))
    return path


def refused(result: tuple[int, str, list[str]], *texts: str) -> None:
    code, _, errors = result
    errors = [line for line in errors if " images" not in line.split(": expected")[0]]
    assert code == 2
    assert "Traceback" not in "\n".join(errors)
    for line in errors:
        assert LINE.match(line), line
    for text in texts:
        assert any(text in line for line in errors), errors


def test_malformed_yaml_and_unknown_keys(call: Call, tmp_path: Path, photos: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: x\ntargets: [\n")
    refused(call("run", path, "--out", tmp_path / "out"), "broken.yaml:3")
    path = study(tmp_path, photos, learning_rate=[1e-3])
    refused(call("run", path, "--out", tmp_path / "out"), "learning_rate")
    assert not (tmp_path / "out").exists()


def test_every_fault_of_the_grid_at_once(call: Call, tmp_path: Path, photos: Path) -> None:
    path = study(tmp_path, photos, learning_rates=[], seeds=[7, 7], methods=["lora", "lora"])
    result = call("check", path)
    refused(result, "learning_rates")
    path = study(tmp_path, photos, seeds=[7, 7], learning_rates=[1e-3, 0.001])
    refused(call("check", path), "seeds", "learning_rates")


def test_a_class_of_one_image(call: Call, tmp_path: Path, photos: Path) -> None:
    for image in sorted((photos / "owl").iterdir())[1:]:
        image.unlink()
    refused(call("check", study(tmp_path, photos)), "photos, owl")


def test_splits_larger_than_the_data(call: Call, tmp_path: Path, photos: Path) -> None:
    splits = {"train_per_class": 20, "val_per_class": 1}
    result = call("check", study(tmp_path, photos, splits=splits))
    refused(result, "photos")
    assert any("20" in line for line in result[2])


def test_more_transfer_images_than_there_are(call: Call, tmp_path: Path, photos: Path) -> None:
    transfers = [{"name": "many", "builtin": "digits", "n_images": 5000}]
    result = call("check", study(tmp_path, photos, transfers=transfers))
    refused(result, "many.n_images: expected 1 to 600, the images there are, got 5,000. Change it.")


def test_truncated_images_are_named_and_tolerated_only_as_stated(
    call: Call, tmp_path: Path, photos: Path
) -> None:
    whole = (photos / "cat" / "3.png").read_bytes()
    (photos / "cat" / "3.png").write_bytes(whole[: len(whole) // 2])
    (photos / "dog" / "5.png").write_text("no image at all")
    refused(call("check", study(tmp_path, photos)), "3.png", "max_bad_images")
    targets = [{"name": "photos", "folder": str(photos), "max_bad_images": 1}]
    refused(call("check", study(tmp_path, photos, targets=targets)), "5.png")
    targets[0]["max_bad_images"] = 2
    path = study(tmp_path, photos, targets=targets)
    code, out, _ = call("run", path, "--out", tmp_path / "out", "--workers", 1)
    assert code == 0, out
    record = next((tmp_path / "out").glob("runs/*/record.json")).read_text()
    assert "2 unreadable images left out" in record
    assert "3.png" in record


def test_a_study_without_validation_images_keeps_the_last_epoch(
    call: Call, tmp_path: Path, photos: Path
) -> None:
    import json

    more = {"splits": {"val_fraction": 0}, "evaluation": {"interpolation": [0.5]}}
    refused(call("check", study(tmp_path, photos, **more)), "splits.val_fraction")
    more["schedule"] = {"epochs": 2, "batch_size": 8}
    path, out = study(tmp_path, photos, checkpoint="last", **more), tmp_path / "out"
    code, said, _ = call("plan", path, "--json")
    assert (code, json.loads(said)["estimate"]["reason"]) == (0, None)
    code, said, _ = call("run", path, "--out", out, "--workers", 1)
    assert code == 0, said
    (run,) = out.glob("runs/*")
    record = json.loads((run / "record.json").read_text())
    assert (record["status"], record["selected_epoch"]) == ("finished", 2)
    assert record["result"]["val_accuracy"] is None
    assert record["undefined"]["val_accuracy"] == "no validation images in this study"
    assert record["result"]["test_n_images"] == 6
    prompts = [[f"a photo of a {name}"] for name in ("cat", "dog", "owl")]
    written = json.dumps(prompts, separators=(",", ":")).encode()
    assert record["provenance"]["prompts"]["target"] == hashlib.sha256(written).hexdigest()
    code, said, errors = call("evaluate", run)
    assert code == 0, errors


def test_datasets_are_listed_and_shown_one_by_one(call: Call) -> None:
    code, said, _ = call("datasets")
    assert code == 0
    assert {"eurosat-motion-blur", "imagenet", "world"} <= set(said.replace("│", " ").split())
    code, said, _ = call("datasets", "imagenet")
    assert (code, "In a study: {name: imagenet, builtin: imagenet, folder: /path" in said) == (0, 1)
    assert "templates: ensemble 80 prompts" in said
    assert "tench, goldfish, great white shark" in said
    refused(call("datasets", "imagnet"), "NAME: expected one of world, land-cover", "'imagnet'")


def test_a_missing_model_folder(call: Call, tmp_path: Path, photos: Path) -> None:
    path = study(tmp_path, photos, backbone="./no-such-model")
    refused(call("run", path, "--out", tmp_path / "out"), "no-such-model")
    assert not (tmp_path / "out").exists()


def test_a_transfer_set_without_class_names(call: Call, tmp_path: Path, photos: Path) -> None:
    rows = [f"{photos}/cat/{i}.png,{i % 2}" for i in range(8)]
    (tmp_path / "set.csv").write_text("\n".join(["image,label", *rows]))
    transfers = [{"name": "bare", "files": {"test": str(tmp_path / "set.csv")}}]
    refused(call("check", study(tmp_path, photos, transfers=transfers)), "bare", "class_names")


def test_an_output_folder_that_is_a_file(call: Call, tmp_path: Path, photos: Path) -> None:
    (tmp_path / "out").write_text("mine")
    refused(call("run", study(tmp_path, photos), "--out", tmp_path / "out"), "got a file")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_half_written_record_is_said_and_redone(call: Call, tmp_path: Path, photos: Path) -> None:
    path, out = study(tmp_path, photos), tmp_path / "out"
    assert call("run", path, "--out", out, "--workers", 1)[0] == 0
    record = next(out.glob("runs/*/record.json"))
    record.write_text(record.read_text()[:500])
    refused(call("analyze", out), "record.json", "half-written")
    code, said, _ = call("status", out)
    assert (code, "1 to do" in said) == (0, True)
    assert call("run", path, "--out", out, "--workers", 1)[0] == 0
    code, said, _ = call("status", out)
    assert (code, "1 finished" in said) == (0, True)


def test_init_writes_a_study_that_checks(call: Call, tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "my new.yaml"
    code, said, _ = call("init", photos, "--out", out)
    assert (code, said) == (0, f"Wrote {out}. Next: clipdrift check '{out}'\n")
    text = out.read_text()
    # Each backbone with a transfer set that it knows: photographs teach nothing of the drawn world.
    assert ("builtin: cifar100" in text, "world" in text) == (True, False)
    embedded = study_text(None, out)
    assert ("builtin: world" in embedded, "cifar100" in embedded) == (True, False)
    out.unlink()
    assert call("init", photos, "--out", out, "--backbone", "mini-clip", "--quick")[0] == 0
    code, said, errors = call("check", out)
    assert code == 0, errors
    assert "3 classes" in said
    assert said.endswith(f"Next: clipdrift plan '{out}'\n")
    refused(call("init", photos, "--out", out), "a new file")
    refused(call("init", tmp_path / "nowhere", "--out", tmp_path / "b.yaml"), "nothing there")
    assert not (tmp_path / "b.yaml").exists()


def test_a_study_file_that_cannot_be_written_is_a_fault(
    call: Call, tmp_path: Path, photos: Path
) -> None:
    refused(call("init", photos, "--out", tmp_path / "gone" / "study.yaml"), "No such file")


def test_plan_counts_runs_as_json(call: Call, tmp_path: Path, photos: Path) -> None:
    import json

    path = study(tmp_path, photos, learning_rates=[1e-4, 1e-3], seeds=[1, 2, 3])
    code, out, _ = call("plan", path, "--json")
    plan = json.loads(out)
    assert (code, plan["n_runs"], plan["n_cells"]) == (0, 6, 2)
    assert plan["estimate"]["seconds"] > 0
    assert {row["status"] for row in plan["audit"]} == {"shared", "crossed"}


def test_plan_times_a_study_of_one_step(call: Call, tmp_path: Path, photos: Path) -> None:
    import json

    schedule = {"epochs": 1, "batch_size": 8, "max_steps": 1}
    code, out, _ = call("plan", study(tmp_path, photos, schedule=schedule), "--json")
    assert (code, json.loads(out)["estimate"]["seconds"] > 0) == (0, True)


def test_python_m_runs_nothing_of_the_working_directory(tmp_path: Path) -> None:
    """But for what Python itself loads before our first line, which the command does not do."""
    marker = plant(tmp_path, *(set(NAMES) - {"typing", "clipdrift"}))
    words = [sys.executable, "-m", "clipdrift", "check", "study.yaml"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, marker.exists()) == (2, False)
    assert LINE.match(done.stderr.strip()), done.stderr


@pytest.mark.parametrize("words", [["--version"], ["datasets"], ["check", "gone.yaml", "--json"]])
def test_a_full_disk_behind_standard_output_is_told_on_standard_error(words: list[str]) -> None:
    command = [sys.executable, "-m", "clipdrift", *words]
    with Path("/dev/full").open("w") as full:
        told = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        (line,) = told.stderr.splitlines()
        assert told.returncode == 2
        assert LINE.match(line)
        assert "standard output: expected a place that takes it, got [Errno 28]" in line
        mute = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, check=False)
    assert mute.returncode == (2 if "check" in words else 0)
    assert mute.stdout
