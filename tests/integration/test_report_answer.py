"""The answer in words, on planted studies of which an expert knows what can be said."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_study import study_folder, write_page
from scipy import stats
from synthetic_records import synthetic_records, with_images

from clipdrift.analysis.files import write_analysis
from clipdrift.analysis.questions.untouched import Untouched
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.imported import import_runs
from clipdrift.records.transfer import TransferReading
from clipdrift.report.answer import Answer, answers
from clipdrift.report.digits import NBSP
from clipdrift.report.page_reader import read_page
from clipdrift.report.printed import Sentence
from clipdrift.report.read import read_study
from clipdrift.report.tables import listing

RATES = (1e-6, 5e-6, 1e-5, 5e-5)
SEEDS = (7, 11, 19)
EUROSAT = {"full_ft": (0.93, 0.96, 0.975, 0.985), "lora": (0.80, 0.935, 0.955, 0.97)}
PETS = {"full_ft": (0.60, 0.85, 0.88, 0.86), "lora": (0.10, 0.20, 0.35, 0.55)}
LEAD = (3.5, 4.0, 6.0)
"""By how many points lora keeps more than full_ft at equal accuracy, seed by seed."""
COLUMNS = {
    "target": "target",
    "method": "method",
    "lr": "lr",
    "seed": "seed",
    "val": "val_accuracy",
    "test": "test_accuracy",
    "zs": "transfer.cifar100.accuracy",
    "kept": "transfer.cifar100.retention_pct",
    "entropy": "drift.cls_entropy_pct",
    "early": "epoch1.cls_entropy_pct",
}


def kept(accuracy: float, lead: float) -> float:
    """On a straight line in accuracy, so that any curve through the cells is that line."""
    return 100.0 - 80.0 * (accuracy - 0.5) + lead


def table(
    targets: dict[str, dict[str, tuple[float, ...]]],
    seeds: Iterable[int] = SEEDS,
    rates: dict[str, tuple[float, ...]] | None = None,
) -> list[dict[str, Any]]:
    return [
        {
            "target": target,
            "method": method,
            "lr": rate,
            "seed": seed,
            "val": accuracy,
            "test": accuracy - 0.01,
            "zs": kept(accuracy, lead if method == "lora" else 0.0) * 0.0062,
            "kept": kept(accuracy, lead if method == "lora" else 0.0),
        }
        for target, methods in targets.items()
        for method, reached in methods.items()
        for rate, accuracy in zip((rates or {}).get(method, RATES), reached, strict=True)
        for seed, lead in zip(SEEDS, LEAD, strict=True)
        if seed in seeds
    ]


def imported(folder: Path, rows: list[dict[str, Any]]) -> StudyFolder:
    with (folder / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    columns = "".join(f"  {name}: {field}\n" for name, field in COLUMNS.items() if name in rows[0])
    text = f"columns:\n{columns}constants:\n  backbone: b32\nunits:\n"
    units = "  val_accuracy: fraction\n  test_accuracy: fraction\n  transfer: fraction\n"
    (folder / "map.yaml").write_text(text + units)
    import_runs(folder / "runs.csv", folder / "map.yaml", folder / "study")
    study = StudyFolder(folder / "study")
    write_analysis(study)
    return study


def with_drift(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With readings at the end and after epoch 1, of which a forecast can learn."""
    rng = np.random.default_rng(0)
    for row in rows:
        row["entropy"] = (row["kept"] - 100) / 5 + rng.normal()
        row["early"] = row["entropy"] / 2 + rng.normal()
    return rows


def said(answer: Answer) -> list[str]:
    return [plain(sentence) for sentence in answer.sentences]


def plain(sentence: Sentence) -> str:
    return "".join(map(str, sentence)).replace(NBSP, " ")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """Two targets x two methods x four rates x three seeds, without single images."""
    folder = tmp_path_factory.mktemp("published")
    study = imported(folder, table({"eurosat": EUROSAT, "pets": PETS}))
    return {answer.title: answer for answer in answers(read_study(study))}


def test_at_equal_accuracy_the_planted_lead_and_its_interval(
    published: dict[str, Answer],
) -> None:
    """Both curves reach 93.0 to 97.0 %; read at 96.6, nine tenths of the way."""
    low, high = stats.t.interval(0.95, 2, np.mean(LEAD), np.std(LEAD, ddof=1) / 3**0.5)
    first = said(published["eurosat"])[0]
    assert first == (
        "At equal validation accuracy, 96.6 %, near the highest that both reach, full_ft keeps "
        f"less of cifar100 than lora: −{np.mean(LEAD):.1f} pp (95 % CI −{high:.1f} to −{low:.1f})."
    )


def test_at_equal_rate_only_where_both_have_learned(published: dict[str, Answer]) -> None:
    """90 % of the best test accuracy is 0.8775: lora has not learned at 1e-6."""
    second = said(published["eurosat"])[1]
    gaps = np.array(
        [
            np.mean([kept(a, 0) - kept(b, lead) for a, b in zip(*cells, strict=True)])
            for lead in LEAD
            for cells in [(EUROSAT["full_ft"][1:], EUROSAT["lora"][1:])]
        ]
    )
    low, high = stats.t.interval(0.95, 2, gaps.mean(), gaps.std(ddof=1) / 3**0.5)
    start = "At equal learning rate both methods fit at 3 of 4 rates. There, full_ft keeps less of"
    assert second.startswith(
        f"{start} cifar100 than lora: −{-gaps.mean():.1f} pp on average over 5e-6, 1e-5, 5e-5 "
        f"(95 % CI −{-low:.1f} to −{-high:.1f} over 3 seeds); over the whole grid "
    )


def test_where_one_never_learned_nothing_is_compared(published: dict[str, Answer]) -> None:
    first, second, *others = said(published["pets"])
    assert first.startswith(
        "At equal validation accuracy nothing can be said of what full_ft keeps"
    )
    assert first.endswith("the curves do not overlap.")
    assert second == (
        "At equal learning rate both methods fit at 0 of 4 rates (full_ft fits at 5e-6, 1e-5, 5e-5 "
        "and underfits at 1e-6; lora underfits at 1e-6, 5e-6, 1e-5, 5e-5): a difference at equal "
        "rate says nothing of what they keep."
    )
    assert not any(" pp" in sentence for sentence in others)


def test_the_limits_say_that_images_are_not_drawn(published: dict[str, Answer]) -> None:
    limits = [plain(sentence) for sentence in published["eurosat"].limits]
    known = "these records do not say which images each run was right on"
    alone = "intervals of differences between methods draw seeds alone."
    assert f"Of retention, cifar100, {known}: {alone}" in limits
    barely = "they keep what they keep because they barely trained): lora at 1e-6."
    assert any(sentence.endswith(barely) for sentence in limits)


def test_the_highest_accuracy_with_an_interval_is_taken(tmp_path: Path) -> None:
    """Without its best seed full_ft does not reach the highest place: that has no interval."""
    rows = table({"eurosat": {"full_ft": (0.93, 0.96), "lora": (0.94, 0.99)}}, rates=TWO_RATES)
    for row in rows:
        if (row["method"], row["lr"], row["seed"]) == ("full_ft", 5e-6, 7):
            row |= {"val": 0.978, "kept": kept(0.978, 0.0)}
    study = read_study(imported(tmp_path, rows))
    views = [
        row
        for row in study.analysis["matched_views"]
        if row["metric"] == "transfer.cifar100.retention_pct"
        and row["view"] == "equal_val_accuracy"
    ]
    sure = [row["at"] for row in views if row["ci_low"] is not None]
    assert sure
    assert max(sure) < max(row["at"] for row in views)
    (answer,) = answers(study)
    start = f"At equal validation accuracy, {100 * max(sure):.1f} %, the highest with an interval, "
    assert said(answer)[0].startswith(start)


TWO_RATES = {"full_ft": (1e-6, 5e-6), "lora": (1e-6, 5e-6)}


def test_methods_without_a_common_rate_are_compared_at_equal_accuracy(tmp_path: Path) -> None:
    apart = {"full_ft": RATES, "lora": (1e-4, 5e-4, 1e-3, 5e-3)}
    study = imported(tmp_path, table({"eurosat": EUROSAT}, rates=apart))
    (answer,) = answers(read_study(study))
    first, second = said(answer)[:2]
    assert f"full_ft keeps less of cifar100 than lora: −{np.mean(LEAD):.1f} pp (95 % CI" in first
    assert second == "full_ft and lora have no learning rate in common to be compared at."


def test_many_methods_are_a_short_paragraph(
    make_records: Callable[..., list[RunRecord]], tmp_path: Path
) -> None:
    """`best` keeps 8 points more than `worse` in each seed, and 1 more or less than `near`."""
    records = make_records(methods=("best", "near", "worse", "far"), targets=("digits",))
    accuracy = dict(
        zip(sorted({r.learning_rate for r in records}), (0.8, 0.85, 0.9, 0.95), strict=True)
    )
    seeds = {7: 0.5, 11: -0.2, 19: 0.1}
    lead = {"best": (9.0, 9.0, 9.0), "near": (8.0, 10.0, 7.5), "worse": (1.0, 1.0, 1.0)}
    for record in records:
        own = accuracy[record.learning_rate]
        own -= 0.5 if record.method == "far" else 0.0
        record.result.val_accuracy = record.result.test_accuracy = own
        more = lead.get(record.method, (0.0,) * 3)[SEEDS.index(record.seed)]
        reading = record.result.transfer["cifar10"]
        reading.retention_pct = kept(own, more + seeds[record.seed] * (record.method == "best"))
        record.result.transfer = {"cifar10": reading}
    (answer,) = answers(read_study(study_folder(tmp_path / "study", records)))
    sentences = said(answer)
    assert len(sentences) <= 6
    assert sentences[0].startswith(
        "At equal validation accuracy, 85.5 %, which 3 of 4 methods reach, "
    )
    assert (
        f"best keeps most of cifar10: {kept(0.855, 9.0 + np.mean(list(seeds.values()))):.1f} %"
        in sentences[0]
    )
    beside = "pair by pair at the highest accuracy with one, "
    assert sentences[1].endswith(
        f"{beside}keep less: worse; may keep more or less: near; have no interval beside it: far."
    )
    assert sentences[2].startswith("At equal learning rate all methods fit at 0 of 4 rates: ")
    limits = [plain(sentence) for sentence in answer.limits]
    assert sum("underfit" in text.lower() for text in limits) == 1


def test_where_one_method_alone_reaches_an_accuracy_nothing_is_ranked(tmp_path: Path) -> None:
    reached = {"best": (0.6, 0.95), "low": (0.4, 0.5), "lower": (0.3, 0.4)}
    rates = dict.fromkeys(reached, (1e-6, 5e-6))
    (answer,) = answers(read_study(imported(tmp_path, table({"pets": reached}, rates=rates))))
    assert said(answer)[0] == (
        "Validation accuracy 85.5 % is reached by best alone, so no other method is ranked there; "
        "it keeps 71.6 % of cifar100."
    )


def test_a_study_of_one_seed_prints_no_interval_anywhere(tmp_path: Path) -> None:
    many = {"lora": RATES, "full_ft": RATES, "bitfit": RATES}
    targets = {
        name: {**methods, "bitfit": (0.2, 0.7, 0.8, 0.92)}
        for name, methods in (("eurosat", EUROSAT), ("pets", PETS))
    }
    study = imported(tmp_path, with_drift(table(targets, seeds=(7,), rates=many)))
    page = read_page(write_page(study).read_text(encoding="utf-8"))
    rows = json.loads(study.analysis_path.read_text())
    assert any(row["n"] for row in rows["early_warning"])  # so the section is there
    texts = [f"{item.text} {item.given.get('title') or ''}" for item in page.items.values()]
    texts += [p.read_text() for p in study.path.rglob("*.tex")]
    texts.append(json.dumps(page.data, ensure_ascii=False))
    none_of_it = "no (number here has an )?(SD and no |SD or an )?interval"
    for text in texts:
        found = re.search(r"\bCI\b|interval|±|\\pm|error bar", re.sub(none_of_it, "", text))
        assert found is None, text[max(0, found.start() - 100) : found.end() + 100]
    bars = [
        t["error_y"]["array"]
        for f in page.data["figures"].values()
        for t in f["data"]
        if "error_y" in t
    ]
    assert {value for bar in bars for value in bar} <= {None}


def photographed(n: int, rates: tuple[float, ...] = (1e-5,)) -> list[RunRecord]:
    return [with_images(r, n) for r in synthetic_records(targets=("digits",), rates=rates)]


def columns(answer: Answer, row: int) -> list[tuple[str, str]]:
    return [
        (column.label, str(value))
        for column, value in zip(answer.table.columns, answer.table.rows[row], strict=True)
    ]


def test_beside_each_accuracy_and_retention_stands_its_error_from_images(tmp_path: Path) -> None:
    """Of means over three seeds on the same images; two right and two wrong ones are added."""
    records = photographed(50)
    (answer,) = answers(read_study(study_folder(tmp_path / "study", records)))
    shown = columns(answer, 0)
    at = [label for label, _ in shown].index("Test accuracy (%)")
    own = [r for r in records if r.method == "full_ft"]
    right = np.mean([r.result.correct["test_accuracy"].hits for r in own], axis=0)
    se = 100 * np.std([*right, 1, 1, 0, 0], ddof=1) / 54**0.5
    accuracies = [100 * (r.result.test_accuracy or 0) for r in own]
    assert shown[at][1] == f"{np.mean(accuracies):.1f} ± {np.std(accuracies, ddof=1):.1f}"
    assert shown[at + 1] == ("± images", f"{se:.1f} (50)")
    labels = [label for label, _ in shown]
    for i, label in enumerate(labels):
        assert (labels[i + 1] == "± images") == label.startswith(("Test", "Retention")), label
        if label.startswith("CLS"):
            break


@pytest.mark.parametrize(("n", "said_so"), [(50, True), (8000, False)])
def test_few_validation_images_are_a_limit(tmp_path: Path, n: int, said_so: bool) -> None:
    """With 8,000 images twice the error of any accuracy above 93 or so is below a point."""
    (answer,) = answers(read_study(study_folder(tmp_path / "study", photographed(n))))
    limits = [plain(sentence) for sentence in answer.limits]
    found = [text for text in limits if text.startswith(f"With {n} validation images an accuracy")]
    assert bool(found) == said_so
    assert all("and 1 pp is less." in text for text in found)


def test_chance_stands_beside_what_the_untouched_model_can(tmp_path: Path) -> None:
    records = photographed(100, rates=(1e-5, 1e-4))
    for record in records:
        own = 0.7 if record.seed == 7 else 0.73
        record.result.target_zero_shot = TransferReading(
            accuracy=own, baseline_accuracy=0.64, n_images=100, n_classes=10, chance=0.12
        )
        record.result.transfer["noise"] = TransferReading(
            accuracy=0.02, baseline_accuracy=0.01, n_images=100, n_classes=100
        )
    study = read_study(study_folder(tmp_path / "study", records))
    table = listing(study, Untouched, "The untouched model")
    assert table is not None
    rows = {row[1].text: [value.text.replace(NBSP, " ") for value in row[2:]] for row in table.rows}
    se = 100 * (66 / 104 * 38 / 104 / 103) ** 0.5  # of Agresti and Coull's 66 right of 104
    assert rows["its own test part"] == ["100", "12.0", "64.0", f"{se:.1f}", "more than chance"]
    assert rows["cifar10"][1:3] == ["10.0", "62.0"]
    assert rows["noise"][4] == "no more than chance: nothing to keep"
    (answer,) = answers(study)
    untouched = "the model reaches 64.0 % on the target's test part (chance 12.0 %)."
    assert f"Untouched and by class texts alone, {untouched}" in said(answer)
    assert not any("noise" in text for text in said(answer))
    mean = 100 * (0.7 + 0.73 + 0.73) / 3
    assert ("Zero-shot accuracy on the target (%)", f"{mean:.1f} ± 1.7") in columns(answer, 0)
