"""Saved weights: measured, changed after training, exported."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from clipdrift.checkpoint.find import kind_of
from clipdrift.checkpoint.measure import (
    Evaluation,
    OnFound,
    evaluate_checkpoint,
    evaluate_on_images,
)
from clipdrift.errors import Fault, SpecError
from clipdrift.finished import predict as predicting
from clipdrift.finished.after import Asked, CellName, read_after_training
from clipdrift.finished.classifier import Classifier, load
from clipdrift.finished.convert import convert
from clipdrift.finished.evaluate import Compared, evaluate_run
from clipdrift.finished.export import export_adapter, export_merged, export_open_clip
from clipdrift.finished.predict import Prediction
from clipdrift.finished.runs import Done
from clipdrift.formats.rows import Layout
from clipdrift.records import AnyFolder, StudyFolder
from clipdrift.records.after import Kind
from clipdrift.spec import AnyStudy, as_spec


def evaluate(
    folder: str | Path,
    *,
    baseline: str | None = None,
    study: AnyStudy | None = None,
    images: str | None = None,
    transfers: Sequence[str] = (),
    cache_dir: Path | None = None,
    device: str = "auto",
    on_found: OnFound = lambda findings: None,
) -> list[Compared] | Evaluation:
    """Measure saved weights: a run again, or an adapter or CLIP of anyone's against its baseline.

    Args:
        folder: a run, which knows its study; a peft adapter, a CLIP or a SigLIP of transformers or
            open_clip; or a file of weights.
        baseline: untouched model of an adapter or CLIP; default: the study's backbone.
        study: names probe images and transfers for an adapter or CLIP.
        images: in place of a study: a folder of class folders, or a dataset's name.
        transfers: more of them, on which zero-shot accuracy is read and no drift; of `images` where
            these are not given, the first.
        on_found: told what an adapter or CLIP is, before anything is measured.

    Returns:
        Of a run: every number of its record, then and now. Else drift, transfers and findings.

    Raises:
        ClipdriftError: if weights or data cannot be used, or it is not said what to measure on.
    """
    path = Path(folder)
    if kind_of(path) == "run":
        asked = (study, baseline, images, transfers or None)
        given = zip(("--spec", "--baseline", "--images", "--transfers"), asked, strict=True)
        if got := [name for name, value in given if value is not None]:
            expected = "a run alone: it knows its study"
            raise SpecError(Fault(str(folder), expected, ", ".join(got), "Leave it away"))
        return evaluate_run(path, cache_dir=cache_dir, device=device)
    sets = list(dict.fromkeys([*([images] if images else []), *transfers]))
    if study is not None and not sets:
        return evaluate_checkpoint(
            path,
            as_spec(study),
            baseline=baseline,
            cache_dir=cache_dir,
            device=device,
            on_found=on_found,
        )
    if study is None and sets and baseline is not None:
        return evaluate_on_images(
            path, sets, baseline, cache_dir=cache_dir, device=device, on_found=on_found
        )
    raise SpecError(_unsaid(path, baseline, twice=study is not None, images=bool(sets)))


def _unsaid(folder: Path, baseline: str | None, *, twice: bool, images: bool) -> list[Fault]:
    """What to evaluate a folder on and against is not said, or said twice."""
    both = "a study file (--spec), or images and the untouched model (--images, --baseline)"
    command = f"clipdrift evaluate {shlex.quote(str(folder))} --images photos/ --baseline ID"
    example = f"{command}, with photos/CLASS/..."
    if twice:
        return [Fault("--images", both, "--spec too", "Leave one of them away")]
    faults = []
    if not images:
        faults.append(Fault("--images", both, "neither", f"For example: {example}"))
    if baseline is None:
        expected = "the untouched model that the folder was made from, by hub id or folder"
        faults.append(Fault("--baseline", expected, "none", "Name it"))
    return faults


def after(
    folder: AnyFolder,
    *,
    soup: bool = False,
    alphas: Sequence[float] = (),
    scales: Sequence[float] = (),
    lines: Sequence[float] = (),
    damp: Sequence[float] = (),
    temper: Sequence[float] = (),
    cells: Collection[CellName] | None = None,
    cache_dir: Path | None = None,
    device: str = "auto",
    say: Callable[[str], None] = lambda text: None,
) -> Done:
    """Make weights from finished runs without training, and read what they keep.

    Args:
        soup: average the weights of each cell's seeds; the default where nothing else is asked.
        alphas: read soups also at (1 - a) untouched + a soup.
        scales: read each run with its tower's movement times this, from 0 to 10.
        lines: with the movement of its blocks growing from this at the first to 1 at the last.
        damp: with the intruder dimensions of its weights times this, 0 to 1.
        temper: with each head's attention brought back to the untouched entropy, 1 wholly.
        cells: those alone, by method and learning rate; default all.

    Raises:
        ClipdriftError: if a value makes no sense, or there is no finished run with weights.
    """
    rescaled: dict[Kind, list[float]] = {
        "scaled": [*scales],
        "lines": [*lines],
        "damped": [*damp],
        "tempered": [*temper],
    }
    soups = [1.0] if soup or not (alphas or any(rescaled.values())) else []
    asked = Asked({"soup": list(dict.fromkeys([*soups, *alphas])), **rescaled})
    place = StudyFolder.at(folder)
    return read_after_training(
        place, asked, cells=cells, cache_dir=cache_dir, device=device, say=say
    )


def export_model(
    run_dirs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    adapter: bool = False,
    to: Layout = "transformers",
    alpha: float = 1.0,
    scale: float = 1.0,
) -> Path:
    """Write the model of a run for transformers, open_clip or peft, read it back and compare.

    Args:
        run_dirs: one run, or the seeds of one cell: a soup, the mean of their weights.
        out: new folder.
        adapter: what peft loads onto the vision tower, in place of a whole model.
        to: the library that loads the whole model.
        alpha: mix with the untouched weights: 0 those alone, 1 the adapted ones.
        scale: of what training moved in the towers, from 0 to 10.

    Raises:
        MethodError: if the run's method cannot be exported so.
        ClipdriftError: if a run cannot be read, or `out` has something in it.
    """
    given = [run_dirs] if isinstance(run_dirs, str | Path) else run_dirs
    runs = [Path(one) for one in given]
    if not adapter:
        whole = export_open_clip if to == "open_clip" else export_merged
        whole(runs, Path(out), alpha=alpha, scale=scale)
        return Path(out)
    if to == "open_clip":
        expected, step = "a whole model for open_clip", "Leave --adapter away"
        raise SpecError(Fault("--to open_clip", expected, "--adapter", step))
    if len(runs) > 1 or (alpha, scale) != (1.0, 1.0):
        expected, step = "one run as it was trained for --adapter", "Leave --adapter away"
        raise SpecError(Fault("--adapter", expected, "several runs, an alpha or a scale", step))
    export_adapter(runs[0], Path(out))
    return Path(out)


def predict(
    model: str | Path | Classifier,
    images: Sequence[str | Path],
    *,
    top: int = 3,
    image_column: str = "image",
    device: str = "auto",
) -> Iterator[Prediction]:
    """Classify images with a run, or with a folder that `export_model` wrote.

    Args:
        model: or what `load` gives.
        images: files, folders, patterns such as `photos/**/*.jpg`, and Parquet files.
        top: classes that are told of each.
        image_column: of a Parquet file.

    Raises:
        ClipdriftError: if the model cannot be used, or what is not there is named; of one image
            that cannot be read its prediction has the reason.
    """
    if not isinstance(model, Classifier):
        model = load(model, device=device)
    return predicting.predict(model, images, top=top, image_column=image_column)


__all__ = ["after", "convert", "evaluate", "export_model", "load", "predict"]
