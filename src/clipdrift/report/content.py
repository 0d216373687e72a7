"""What the page says beside its figures: facts, answer, tables, the list of sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from clipdrift.analysis.statistics.extras import corruptions
from clipdrift.report import comparison_tables as comparison
from clipdrift.report import design_tables as design
from clipdrift.report import forewarning as warning
from clipdrift.report import predictor_tables as predictor
from clipdrift.report.answer import answers
from clipdrift.report.attention import attention_images
from clipdrift.report.charts import Charts
from clipdrift.report.chosen import choice_table, choices
from clipdrift.report.figures.history import history_metrics
from clipdrift.report.figures.layers import layer_signals
from clipdrift.report.made_after import after_table
from clipdrift.report.notices import notices
from clipdrift.report.origins import (
    conditions_table,
    design_table,
    matchedness_table,
    runs_table,
)
from clipdrift.report.printed import DERIVED, Printed, Sentence
from clipdrift.report.ranking_tables import agreement_table, ranking_table
from clipdrift.report.source import Study
from clipdrift.report.tables import Table, cell_table
from clipdrift.report.untouched import untouched_table


def content(study: Study, figures: Charts) -> dict[str, Any]:
    """Every variable of the page's template except its script, style and figure data."""
    found = notices(study)
    images, omitted = attention_images(study)
    out = {
        "title": _title(study),
        "description": study.spec.description if study.spec else "",
        "facts": _facts(study),
        "answers": answers(study),
        "several_seeds": study.several_seeds,
        "choices": choices(study),
        "forewarning": warning.forewarning(study),
        "urgent": [notice for notice in found if notice.urgent],
        "notices": [notice for notice in found if not notice.urgent],
        **figures,
        "layer_signals": layer_signals(study),
        "history_metrics": history_metrics(study),
        "tables": _tables(study),
        "attention": images,
        "attention_omitted": omitted,
        "spec_text": study.folder.spec_path.read_text() if study.spec else "",
        "records_hash": study.analysis["generated_from"]["records_hash"][:16],
        "version": version("clipdrift"),
    }
    return {**out, "absent": _absent(out), "sections": _sections(out)}


def _tables(study: Study) -> dict[str, Any]:
    accuracy = [name for name in ("val_accuracy", "test_accuracy") if name in study.metrics]
    transfer = [
        f"transfer.{name}.{field}"
        for name in study.transfers
        for field in ("accuracy", "retention_pct")
        if f"transfer.{name}.{field}" in study.metrics
    ]
    main = [*accuracy, *transfer, *study.main_drifts]
    rest = [name for name in study.drifts if name not in study.main_drifts]
    note = (
        "Grey cells underfit, and keep what they keep because they barely trained, or are damaged."
    )
    return {
        "robustness": _robustness(study),
        "choice": choice_table(study),
        "untouched": untouched_table(study),
        "cells": cell_table(study, main, table_id="cells", caption="All cells", note=note),
        "drifts": cell_table(study, rest, table_id="drifts", caption="Drift") if rest else None,
        "paired_per_lr": comparison.paired_table(study, "per_lr", every_metric=False),
        "paired_grid_mean": comparison.paired_table(study, "grid_mean", every_metric=False),
        "paired_both_fit": comparison.paired_table(study, "both_fit", every_metric=False),
        "paired_all_pairs": comparison.paired_table(study, "all_pairs", every_metric=False),
        "paired_per_lr_all": comparison.paired_table(study, "per_lr", every_metric=True),
        "paired_grid_mean_all": comparison.paired_table(study, "grid_mean", every_metric=True),
        "mixed": comparison.mixed_table(study),
        "equivalence": comparison.equivalence_table(study),
        "dose": comparison.dose_table(study),
        "predictors": predictor.predictor_table(study),
        "selection": predictor.selection_table(study, 2.0),
        "mediation": predictor.mediation_table(study),
        "matched": comparison.matched_table(study),
        "ranking": ranking_table(study),
        "ranking_agreement": agreement_table(study),
        "after": after_table(study),
        "validation": warning.validation_table(study),
        "saving": warning.saving_table(study),
        "stopped": warning.stopped_table(study),
        "grid": design.grid_table(study),
        "power": design.power_table(study),
        "sensitivity": design.sensitivity_table(study),
        "reproduction": design.reproduction_table(study),
        "matchedness": matchedness_table(study),
        "design": design_table(study),
        "conditions": conditions_table(study),
        "runs": runs_table(study),
    }


def _robustness(study: Study) -> Table | None:
    names = [kind.name for kind in corruptions(study.metrics)]
    caption = "Accuracy on corrupted test parts"
    names.insert(0, study.accuracy)
    return cell_table(study, names, table_id="robust", caption=caption) if len(names) > 1 else None


def _absent(content: Mapping[str, Any]) -> str:
    """What this page would show had it been measured."""
    parts = {
        "drift per block": content["heat"],
        "readings after every epoch": content["history"],
        "weights between untouched and adapted": content["ways"],
        "corrupted test parts": content["robustness"],
        "attention pictures": content["attention"],
    }
    return ", ".join(name for name, there in parts.items() if not there)


def _sections(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    tables = content["tables"]
    known: Sequence[tuple[str, str, Any]] = [
        ("answer", "Answer", True),
        ("choice", "Choice", tables["choice"]),
        ("trade-off", "Trade-off", content["planes"]),
        ("dose", "Dose-response", content["dose"]),
        ("layers", "Layers", content["heat"]),
        ("training", "Training", content["history"]),
        ("predictors", "Predictors", content["predictors"] or tables["predictors"]),
        ("after-training", "After training", tables["after"]),
        ("early-warning", "Early warning", tables["validation"] or tables["stopped"]),
        ("matched", "Matched views", content["matched"]),
        ("robustness", "Robustness", content["robustness"]),
        ("tests", "Tests", tables["paired_per_lr"] or tables["dose"]),
        ("cells", "Cells", True),
        ("design", "Grid and power", tables["grid"] or tables["power"]),
        ("reproduction", "Reproduction", tables["reproduction"]),
        ("attention", "Attention", content["attention"]),
        ("provenance", "Provenance", True),
    ]
    return [(section, name) for section, name, there in known if there]


def _title(study: Study) -> str:
    names = dict.fromkeys(record.study for record in study.records)
    return study.spec.name if study.spec else ", ".join(names) or study.folder.path.name


def _facts(study: Study) -> list[Sentence]:
    matched = [name for name, look in study.looks.items() if look.role == "matched"]
    references = [name for name in study.looks if name not in matched]
    seeds = sorted({record.seed for record in study.usable})
    used = study.index.encode(record.run_id for record in study.usable)
    everything = study.index.encode(record.run_id for record in study.records)
    facts = [
        f"backbone {', '.join(study.backbones)}",
        f"targets {', '.join(dict.fromkeys(place.target for place in study.places))}",
        f"methods {', '.join(matched) or '–'}",
        f"references {', '.join(references)}" if references else "",
        f"seeds {', '.join(map(str, seeds))}" if len(seeds) <= 10 else f"{len(seeds)} seeds",
    ]
    counts: Sentence = [
        Printed(str(len(study.usable)), "", DERIVED, used),
        " runs used of ",
        Printed(str(len(study.records)), "", DERIVED, everything),
    ]
    origin = study.analysis["generated_from"]
    if origin["n_to_do"]:
        counts += [f", {origin['n_planned']} planned, {origin['n_to_do']} to do"]
    others: list[Sentence] = [[fact] for fact in facts if fact]
    return [counts, *others]


__all__ = ["content"]
