"""From a folder of images to a model: what is written, told and left alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import InProcess
from PIL import Image
from torch.nn.functional import normalize
from typer.testing import CliRunner

import clipdrift
from clipdrift.analysis.questions.choice import Candidacy
from clipdrift.cli.app import app
from clipdrift.commands.confirming import Made, confirmation, export_made, shipped
from clipdrift.commands.proposing import proposed
from clipdrift.commands.tuned import _met
from clipdrift.commands.tuned_words import Figure
from clipdrift.data.drawn.landcover import LAND_COVER_CLASSES, render_land_cover
from clipdrift.errors import ClipdriftError, DataError, RecordError, SpecError
from clipdrift.records import StudyFolder
from clipdrift.spec import StudySpec, dump_spec, expand, load_spec
from clipdrift.study.measure import run_study
from clipdrift.study.ramp import BROKEN, LADDER, ramp

OPTIONS = ["--backbone", "mini-clip"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders train/ and test/ of drawn fields, 12 and 6 a class."""
    folder = tmp_path_factory.mktemp("tune") / "photos"
    for part, n, seed in (("train", 12, 5), ("test", 6, 6)):
        labels = np.repeat(np.arange(10), n)
        for i, image in enumerate(render_land_cover(labels, seed=seed)):
            place = folder / part / LAND_COVER_CLASSES[labels[i]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{i}.png")
    return folder


def small(spec: StudySpec) -> StudySpec:
    """The proposal, cut down to seconds."""
    body = spec.model_dump(mode="json", exclude_none=True)
    body["methods"] = [m for m in body["methods"] if m["name"] in ("lp_ft", "linear_probe")]
    body["methods"][1]["learning_rates"] = [0.01]
    body["transfers"][0]["n_images"] = 100
    body |= {"learning_rates": [1e-3, 3e-3], "seeds": [7, 11]}
    body["schedule"]["epochs"] = 2
    body["evaluation"] |= {"interpolation": [0.5], "epoch_transfer_images": 100}
    return StudySpec.model_validate(body)


@pytest.fixture(scope="module")
def tuned(
    photos: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, clipdrift.Tuned]:
    out = tmp_path_factory.mktemp("tuned") / "out"
    found = proposed(photos, backbone="mini-clip", transfers=[], cache_dir=cache_dir)
    out.mkdir()
    (out / "study.yaml").write_text(dump_spec(small(found.spec)))
    return out, again(photos, out, cache_dir)


def again(photos: Path, out: Path, cache_dir: Path) -> clipdrift.Tuned:
    rest = {"executor": InProcess(), "cache_dir": cache_dir, "device": "cpu"}
    return clipdrift.tune(photos, out, keep=50, budget="100%", **rest)


def accuracy_of(model: Path, photos: Path) -> float:
    """Share of the test files whose folder is what the model calls them."""
    found = list(clipdrift.predict(model, [photos / "test"], top=1))
    assert len(found) == 60
    return float(np.mean([Path(one.file).parent.name == one.label for one in found]))


def test_what_is_told_is_what_the_written_model_does(
    tuned: tuple[Path, clipdrift.Tuned], photos: Path
) -> None:
    out, told = tuned
    assert told.accuracy.value == pytest.approx(accuracy_of(out, photos))
    assert told.accuracy.n_images == 60
    assert told.accuracy.chance == pytest.approx(0.1)
    low, high = told.accuracy.low, told.accuracy.high
    assert low is not None
    assert high is not None
    assert low < told.accuracy.value < high
    assert json.loads((out / "answer.json").read_text())["accuracy"]["value"] == told.accuracy.value
    card = (out / "model" / "README.md").read_text()
    assert f"{100 * told.accuracy.value:.1f} %" in card
    assert card.count("## What was measured") == 1
    assert (out / "search" / "report.html").is_file()
    assert told.met is all(one.value >= 50 for one in told.kept.values())


def test_floors_are_held_against_what_was_confirmed_and_no_floor_against_nothing() -> None:
    reached, kept = Figure(0.9, None, None, 10), [Figure(98.0, None, None, 10)]
    said = {
        floors: _met(candidacy(*floors), reached, kept)
        for floors in ((None, None), (0.9, 98.0), (0.91, None), (None, 98.1))
    }
    assert list(said.values()) == [None, True, False, False]


def candidacy(min_accuracy: float | None, min_retention_pct: float | None) -> Candidacy:
    return Candidacy(
        backbone="b", target="t", budget="", min_accuracy=min_accuracy, within_pp=None,
        min_retention_pct=min_retention_pct, transfers=[], selected_on="val_accuracy", leak=False,
        n_candidates=1,
    )  # fmt: skip


def test_what_chose_has_no_part_in_what_is_told(tuned: tuple[Path, clipdrift.Tuned]) -> None:
    out, _ = tuned
    search, confirmed = StudyFolder(out / "search"), StudyFolder(out / "confirmation")
    chose, told = search.records()[0], confirmed.records()[0]
    assert len(told) == 3
    assert not {r.seed for r in chose} & {r.seed for r in told}
    assert len({(r.method, r.learning_rate) for r in told}) == 1
    specs = [folder.read_spec() for folder in (search, confirmed)]
    drawn = [spec.transfers[0].seed for spec in specs if spec]
    assert drawn == [0, 1]


def test_the_same_call_goes_on_and_redoes_nothing(
    tuned: tuple[Path, clipdrift.Tuned], photos: Path, cache_dir: Path, tmp_path: Path
) -> None:
    out, told = tuned
    written = [*out.glob("*/runs/*/record.json"), *out.glob("model/*.safetensors")]
    before = {path: path.stat().st_mtime_ns for path in written}
    assert again(photos, out, cache_dir) == told
    assert {path: path.stat().st_mtime_ns for path in written} == before
    with pytest.raises(SpecError, match=r"expected a study of .*, got a study of .*photos"):
        clipdrift.tune(tmp_path, out, backbone="mini-clip", cache_dir=cache_dir)


@pytest.fixture(scope="module")
def confirmed(
    tuned: tuple[Path, clipdrift.Tuned], cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> StudyFolder:
    """Three fresh seeds of a fine-tuned model, read at alpha 0.5 too."""
    study, made = load_spec(tuned[0] / "study.yaml"), Made("lp_ft", 3e-3, "interpolated", 0.5)
    place = StudyFolder(tmp_path_factory.mktemp("made") / "confirmation")
    run_study(confirmation(study, made), place.path, executor=InProcess(), cache_dir=cache_dir)
    return place


@pytest.mark.parametrize(
    "made",
    [
        Made("lp_ft", 3e-3, "interpolated", alpha=0.5),
        Made("lp_ft", 3e-3, "soup", alpha=0.5),
        Made("lp_ft", 3e-3, "scaled", scale=1.25),
    ],
    ids=lambda made: str(made.kind),
)
def test_every_kind_of_weights_is_written_as_it_was_read(
    confirmed: StudyFolder, photos: Path, cache_dir: Path, made: Made
) -> None:
    if made.kind != "interpolated":
        of = {"alphas": [made.alpha]} if made.soup else {"scales": [made.scale]}
        clipdrift.after(confirmed, cache_dir=cache_dir, device="cpu", **of)
    runs, reading = shipped(confirmed, made)
    out = confirmed.path.parent / "model"
    export_made(confirmed, runs, made, out, lambda text: None)
    told = runs[0].result.extra.get(f"interpolation.{made.alpha:g}.test_accuracy")
    if reading is not None:
        told = reading.result.test_accuracy
    assert len(runs) == (3 if made.soup else 1)
    assert told == pytest.approx(accuracy_of(out.parent, photos))
    other = made._replace(alpha=0.25) if made.kind != "scaled" else made._replace(scale=2.0)
    with pytest.raises(RecordError, match=r"expected a model of .*\. Move .* away"):
        export_made(confirmed, runs, other, out, lambda text: None)
    shutil.rmtree(out)


def test_a_strangers_folder(photos: Path, cache_dir: Path, tmp_path: Path) -> None:
    """Copies leave the training part, one picture of two classes is named, few bad files go."""
    folder = tmp_path / "mine"
    shutil.copytree(photos, folder)
    first, second = LAND_COVER_CLASSES[:2]
    some = sorted((folder / "test" / first).iterdir())
    shutil.copy(some[0], folder / "train" / first / "copied.png")
    shutil.copy(some[1], folder / "train" / second / "wrong.png")
    (folder / "train" / first / "broken.jpg").write_text("no image")
    Image.new("RGBA", (30, 40), "red").save(folder / "train" / first / "clear.webp")
    before, found = (
        proposed(path, backbone="mini-clip", transfers=[], cache_dir=cache_dir)
        for path in (photos, folder)
    )
    sizes = [
        {name: len(part) for name, part in one.materials.targets[name_of(one.spec)].sets.items()}
        for one in (before, found)
    ]
    assert sizes[0]["test"] == sizes[1]["test"] == 60
    assert sum(sizes[1].values()) == sum(sizes[0].values()) + 1  # clear.webp alone
    text = "\n".join(found.seen)
    assert "1 images cannot be read and are left out: ['train" in text
    assert "2 images equal others" in text
    for i in range(12):
        (folder / "train" / second / f"bad{i}.jpg").write_text("no image")
    with pytest.raises(DataError, match="at most 5% cannot be read, got 13 unreadable of 194"):
        proposed(folder, backbone="mini-clip", transfers=[], cache_dir=cache_dir)
    (folder / "train" / "rare").mkdir()
    shutil.copy(some[2], folder / "train" / "rare" / "only.png")
    with pytest.raises(ClipdriftError, match="rare"):
        proposed(folder, backbone="mini-clip", transfers=[], cache_dir=cache_dir)


def name_of(spec: StudySpec) -> str:
    return spec.targets[0].name


def test_heads_start_at_the_texts_only_where_these_say_more_than_chance(
    photos: Path, cache_dir: Path, tmp_path: Path
) -> None:
    """Images in the folders of two classes as the model sees them, and in those the other way."""
    found = proposed(photos, backbone="mini-clip", transfers=[], cache_dir=cache_dir)
    target, backbone = found.materials.targets["photos"], found.materials.backbone
    pixels = np.concatenate([target.train.take(slice(None)), target.test.take(slice(None))])
    seen = normalize(backbone.encoder()(torch.from_numpy(pixels)))
    called = (seen @ normalize(backbone.text_features(target.prompts)).T).argmax(1).numpy()
    two = np.bincount(called).argsort()[-2:]
    for head, where, names in (
        ("text", "the class texts", two),
        ("random", "random", two[::-1]),
    ):
        for label, name in zip(two, names, strict=True):
            place = tmp_path / head / target.class_names[name]
            place.mkdir(parents=True)
            for i in np.flatnonzero(called == label)[:30]:
                Image.fromarray(pixels[i]).save(place / f"{i}.png")
        asked = proposed(tmp_path / head, backbone="mini-clip", transfers=[], cache_dir=cache_dir)
        assert {method.head_init for method in asked.spec.methods} == {head}
        assert asked.seen[-1].endswith(f"chance 50.0%: heads start at {where}")


def test_a_ramp_falls_before_it_breaks(photos: Path, cache_dir: Path) -> None:
    """Nearly still at a millionth, lower where the encoder learns, ended where it is ruined."""
    found = proposed(photos, backbone="mini-clip", transfers=[], cache_dir=cache_dir)
    run = next(r for r in expand(found.spec, precision="float32") if r.method.name == "lp_ft")
    rates, losses = zip(*ramp(run, found.materials, "cpu"), strict=True)
    assert rates == LADDER[: len(rates)]
    assert min(losses) < 0.9 * losses[0]
    assert max(losses[1:]) <= BROKEN * losses[0]
    assert losses.index(min(losses)) > 2


def test_the_command_says_what_it_would_do_and_names_faults(
    photos: Path, cache_dir: Path, tmp_path: Path
) -> None:
    run = CliRunner().invoke
    given = ["tune", str(photos), *OPTIONS, "--cache", str(cache_dir)]
    plain = run(app, [*given, "--dry-run", "--out", str(tmp_path / "new")])
    assert plain.exit_code == 0, plain.output
    assert "Would race lp_ft, held, lora, linear_probe: 42 runs" in plain.stdout
    assert not (tmp_path / "new").exists()
    for option, value, fault in (
        ("--keep", "0.98", "--keep: expected percent of the untouched accuracy"),
        ("--min-accuracy", "0.9", "--min-accuracy: expected percent above 1"),
        ("--budget", "2x", "--budget: expected a time"),
    ):
        failed = run(app, [*given, option, value])
        assert isinstance(failed.exception, SpecError)
        assert fault in str(failed.exception)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("kept")
    failed = run(app, [*given, "--out", str(tmp_path / "full")])
    assert "expected a new folder, got one with something in it" in str(failed.exception)
