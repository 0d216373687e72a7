"""What `tune` tells of the model it made: one screen, `answer.json`, and the model's own card."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipdrift.analysis.questions.choice import Candidacy
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.intervals import Interval, of_share
from clipdrift.analysis.usable import numbers
from clipdrift.checkpoint.find import ORIGIN_FILE, read_json
from clipdrift.commands.reading import lost
from clipdrift.commands.tuned_words import HEADING, Figure, card_of, lines_of
from clipdrift.data.cache import default_cache_dir
from clipdrift.data.images import Images as Pixels
from clipdrift.errors import Fault, RecordError
from clipdrift.finished.card_head import RETENTION, TARGET, ZERO_SHOT, Told, with_head
from clipdrift.finished.classifier import MODEL, Classifier, load
from clipdrift.finished.runs import study_with_runs
from clipdrift.machine.energy import Energy
from clipdrift.materials import load_materials
from clipdrift.probes.calibration import calibration_error
from clipdrift.records import RunRecord, StudyFolder, atomic_write
from clipdrift.records.after import AfterReading
from clipdrift.records.race_log import RaceLog
from clipdrift.records.transfer import Z
from clipdrift.training.loop import in_batches

ANSWER = "answer.json"
READ_AT_ONCE = 256
AGREES = 0.01
"""Share of test images by which the written model may differ from what was measured."""
FELL = 0.05
"""p after Holm's correction, below which a class fell."""
NAMED = 5


@dataclass(frozen=True)
class Tuned:
    """What came of `tune`.

    accuracy: a fraction, on test images. kept: transfer set -> retention in percent. ece: expected
    calibration error on test images, a fraction. fell: what classes of transfer sets lost, in
    words. met: whether the figures, as they were confirmed, reach the floors; None without a floor
    that one model can be held against.
    """

    folder: str
    name: str
    budget: str
    met: bool | None
    accuracy: Figure
    kept: dict[str, Figure]
    ece: float
    worst_classes: dict[str, float]
    fell: list[str]
    race: str
    n_candidates: int
    runs: int
    runs_spared: float
    hours: float
    energy: str
    search_report: str

    def write(self) -> None:
        """`answer.json`, and the figures in the card of the model.

        Raises:
            StudyFolderError: if the folder cannot be written.
        """
        place = Path(self.folder)
        atomic_write(place / ANSWER, json.dumps(asdict(self), indent=1, ensure_ascii=False))
        card = place / MODEL / "README.md"
        own, _, _ = card.read_text(encoding="utf-8").partition(HEADING)
        origin = read_json(place / MODEL / ORIGIN_FILE)
        headed = with_head(
            own.rstrip() + "\n\n" + card_of(self),
            self._figures(str(origin["target"])),
            name=self.name,
            backbone=str(origin["backbone"]["id"]),
        )
        atomic_write(card, headed)

    def lines(self) -> Iterator[str]:
        """The answer, for one screen."""
        return lines_of(self)

    def _figures(self, target: str) -> Iterator[Told]:
        yield Told(TARGET, target, "accuracy", self.accuracy.value, "accuracy, test part")
        yield Told(TARGET, target, "ece", self.ece, "expected calibration error, test part")
        for name, one in self.kept.items():
            yield Told(ZERO_SHOT, name, "retention", one.value, RETENTION)


def told_of(
    place: Path,
    *,
    best: Candidacy,
    log: RaceLog,
    search: StudyFolder,
    confirmed: StudyFolder,
    shipped: RunRecord | AfterReading,
    prefix: str,
    cache_dir: Path | None,
    device: str,
    energy: Callable[[float], Energy],
) -> Tuned:
    """The figures of the model that lies in `place`, held to what it gives when it is loaded.

    Args:
        shipped: what was read of its weights, or of the run that it is made of, where its names
            begin with `prefix`.
        energy: of so many core seconds.

    Raises:
        RecordError: if the written model is not as accurate as the measured one.
    """
    records = [r for r in confirmed.records()[0] if r.status == "finished"]
    images = Images(records, [shipped] if isinstance(shipped, AfterReading) else [])
    key = shipped.identity if isinstance(shipped, AfterReading) else shipped.run_id
    values = numbers(shipped.result)
    seeds = [numbers(r.result) for r in records] if isinstance(shipped, RunRecord) else []
    sets = shipped.result.transfer
    before = next((r.result.target_zero_shot for r in records if r.result.target_zero_shot), None)
    name = f"{prefix}test_accuracy"
    accuracy = _figure(
        images,
        key,
        name,
        values,
        seeds,
        before=before.baseline_accuracy if before else None,
        chance=records[0].result.test_chance,
    )
    kept = {
        set_: _figure(images, key, f"{prefix}transfer.{set_}.retention_pct", values, seeds)
        for set_, reading in sets.items()
        if reading.retention_pct is not None
    }
    target, model = _test_part(confirmed, cache_dir, device), load(place / MODEL, device=device)
    scores = _scores(model, target)
    labels = np.asarray(target.labels)
    found = float((scores.argmax(axis=1) == labels).mean())
    if abs(found - accuracy.value) > AGREES:
        step = "Export the run by hand and compare; do not use this model"
        expected = f"the accuracy that was measured, {accuracy.value:.1%}"
        raise RecordError(Fault(str(place / MODEL), expected, f"{found:.1%}", step))
    everything = [*search.records()[0], *records]
    seconds = sum(r.timing.get("wall_seconds") or 0.0 for r in everything)
    return Tuned(
        folder=str(place),
        name=best.name,
        budget=best.budget,
        met=_met(best, accuracy, kept.values()),
        accuracy=accuracy,
        kept=kept,
        ece=calibration_error(np.log(np.maximum(scores, 1e-12)), labels),
        worst_classes=_worst(model, scores, labels),
        fell=_fell(confirmed),
        race=log.words(best.target),
        n_candidates=best.n_candidates,
        runs=len(everything),
        runs_spared=log.n_runs - log.spent,
        hours=seconds / 3600,
        energy=energy(sum(r.core_seconds for r in everything)).words,
        search_report=str(search.report_path),
    )


def _figure(
    images: Images,
    key: str,
    name: str,
    values: dict[str, Any],
    seeds: Sequence[dict[str, Any]],
    *,
    before: float | None = None,
    chance: float | None = None,
) -> Figure:
    """One model is a fixed thing: its interval draws images alone."""
    value, influence = float(values[name]), images.influence([key], name)
    ends = Interval(None, None)
    if influence is not None:
        half = Z * influence.crossed().image_se
        ends = Interval(value - half, value + half)
    if name.endswith("accuracy"):
        ends = of_share(ends, value)
    each = [float(one[name]) for one in seeds if one.get(name) is not None]
    return Figure(value, *ends, images.count([key], name), before, chance, each)


def _met(asked: Candidacy, accuracy: Figure, kept: Iterable[Figure]) -> bool | None:
    """Whether floors are reached; "within a point of the best" is none for one model alone."""
    least, most_lost = asked.min_accuracy, asked.min_retention_pct
    if least is None and most_lost is None:
        return None
    return (least is None or accuracy.value >= least) and (
        most_lost is None or all(one.value >= most_lost for one in kept)
    )


def _test_part(folder: StudyFolder, cache_dir: Path | None, device: str) -> Pixels:
    spec, cache = study_with_runs(folder), cache_dir or default_cache_dir()
    found = load_materials(spec, cache_dir=cache, device=device).targets
    return found[spec.targets[0].name].test


def _scores(model: Classifier, images: Pixels) -> np.ndarray:
    import torch

    found: np.ndarray = torch.cat([model(b) for b in in_batches(images, READ_AT_ONCE)]).numpy()
    return found.astype(np.float64)


def _worst(model: Classifier, scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    right = scores.argmax(axis=1) == labels
    share = {
        name: float(right[labels == i].mean())
        for i, name in enumerate(model.classes)
        if (labels == i).any()
    }
    return dict(sorted(share.items(), key=lambda item: item[1])[:NAMED])


def _fell(folder: StudyFolder) -> list[str]:
    rows = [row for row in lost(folder).rows if row.p_holm is not None and row.p_holm < FELL]
    fallen = sorted((row for row in rows if row.change_pp < 0), key=lambda row: row.change_pp)
    return [
        f"{row.class_name} of {row.transfer} ({row.change_pp:+.0f} points)"
        for row in fallen[:NAMED]
    ]
