"""All answers together: `analysis.json` and the same rows as CSV tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pandas as pd
from threadpoolctl import threadpool_limits

from clipdrift.analysis.choose import unfinished_cells
from clipdrift.analysis.frame import at_chance, history_frame, per_block_frame, runs_frame
from clipdrift.analysis.questions import (
    after_training,
    calibrated,
    caveats,
    cell_metrics,
    choice,
    dose,
    dose_axes,
    early_warning,
    equivalence,
    forecast_trial,
    frontier,
    grid_adequacy,
    located,
    lost_classes,
    lost_images,
    matched_views,
    matchedness,
    mediation,
    mixed,
    operating,
    paired,
    power,
    predictors,
    probe_sensitivity,
    profiles,
    ranking,
    ranking_agreement,
    reproduction,
    selection,
    signal_ranks,
    untouched,
)
from clipdrift.analysis.questions.families import QUESTIONS
from clipdrift.analysis.questions.supporting import with_supporting
from clipdrift.analysis.raced import contenders
from clipdrift.analysis.rows import Row
from clipdrift.analysis.statistics.columns import matched_runs
from clipdrift.analysis.statistics.fit import UNDERFIT_FRACTION
from clipdrift.analysis.statistics.influence import Images
from clipdrift.analysis.statistics.pairs import compared_with, without_conflicts
from clipdrift.errors import Fault, RecordError
from clipdrift.records import RunRecord, StudyFolder
from clipdrift.records.after import AfterReading, readings
from clipdrift.records.located import LocatedRun
from clipdrift.records.located import located as read_edits
from clipdrift.records.race_log import RaceLog, read_race
from clipdrift.spec import StudySpec, content_hash

SCHEMA_VERSION = 5
LISTS: tuple[type[Row], ...] = (
    caveats.Caveat,
    untouched.Untouched,
    cell_metrics.CellMetric,
    profiles.BlockMean,
    profiles.EpochMean,
    paired.Paired,
    mixed.Mixed,
    equivalence.Equivalence,
    dose.DoseResponse,
    matched_views.MatchedView,
    dose_axes.DoseAxis,
    ranking.Ranked,
    ranking_agreement.RankingAgreement,
    operating.AtBest,
    selection.Selection,
    predictors.Predictor,
    signal_ranks.SignalRank,
    mediation.Mediation,
    frontier.Unbeaten,
    lost_classes.LostClass,
    lost_images.LostFlow,
    lost_images.LostImage,
    calibrated.Calibrated,
    located.EditEffect,
    located.LossPlace,
    choice.Candidacy,
    after_training.AfterTraining,
    forecast_trial.EarlyWarning,
    grid_adequacy.GridAdequacy,
    probe_sensitivity.ProbeSensitivity,
    power.Power,
    matchedness.SharedFactor,
    reproduction.Reproduction,
)
"""Every list of an analysis, in the order of the file."""


@dataclass(frozen=True, kw_only=True)
class Origin(Row):
    """Which records the numbers come from.

    n_planned: runs that the study was to have; null where no plan was kept
    n_to_do: planned runs without a record
    records_hash: SHA-256 over the content of all records
    """

    table: ClassVar = "generated_from"

    n_records: int
    n_runs_used: int
    n_planned: int | None
    n_to_do: int
    records_hash: str


@dataclass(frozen=True, kw_only=True)
class Settings(Row):
    """What was asked.

    compare_with: methods of which every compared pair holds one; null: all pairs
    families: questions whose paired tests are corrected by Holm's method
    """

    table: ClassVar = "settings"

    underfit_fraction: float
    varied: list[str]
    preset: str | None
    compare_with: list[str] | None
    families: list[str]


def analyze(
    records: Sequence[RunRecord],
    *,
    spec: StudySpec | None = None,
    published: str | None = None,
    probe_tables: Mapping[str, pd.DataFrame] | None = None,
    transfer_tables: Mapping[str, pd.DataFrame] | None = None,
    made: Sequence[AfterReading] = (),
    edits: Mapping[str, LocatedRun] | None = None,
    faults: Sequence[Fault] = (),
    planned: Collection[str] | None = None,
    race: RaceLog | None = None,
) -> dict[str, Any]:
    """Every statistic of a study, as `schema` says.

    A pure function: the same records in any order give the same numbers, digit by digit.

    Args:
        records: of one study, or imported.
        spec: the study, for its `underfit_fraction` and the factors it varies on purpose.
        published: preset whose published figures to hold against; default the one of this name.
        probe_tables: run id -> per-image readings of the probe set, for `probe_sensitivity`.
        transfer_tables: run id -> per-image readings of transfer sets, for `lost_classes` and
            `lost_images`.
        made: readings of weights made after training, of these records.
        edits: run id -> how the edits of the run were read.
        faults: of records that could not be read; they become warnings.
        planned: run ids that the study was to have, where that is known; those without a record
            are told.
        race: of a study that was raced: what is chosen from are its contenders.

    Returns:
        `schema_version`, `generated_from`, `settings`, `warnings` and one list of flat rows per
        question. Undefined is None with a `reason`.
    """
    underfit = UNDERFIT_FRACTION if spec is None else spec.underfit_fraction
    varied: list[str] = [] if spec is None else [*sorted(spec.varied)]
    preset = published or _preset(records, spec)
    asked = None if spec is None else spec.compare_with
    families: list[str] = [*(QUESTIONS if spec is None else spec.families)]
    # More threads would change the order of sums, and with it the last digits, from machine to
    # machine; on matrices of this size they are slower too.
    with threadpool_limits(limits=1):
        runs = runs_frame(records)
        images = Images(records, made)
        agreeing = without_conflicts(runs, varied)
        compared = compared_with(set(matched_runs(runs)["method"]), asked)
        sensitivity = probe_sensitivity.rows(probe_tables or {})
        flows, examples = lost_images.rows(records, transfer_tables or {})
        effects, places = located.rows(records, edits or {})
        ranked = ranking.rows(agreeing, underfit_fraction=underfit, images=images)
        supported = with_supporting(runs, records, sensitivity)
        pairing: dict[str, Any] = {
            "varied": varied,
            "compare_with": compared,
            "images": images,
            "underfit_fraction": underfit,
        }
        lists: Sequence[Sequence[Row]] = (
            [
                *caveats.of_race(records, planned, race),
                *caveats.rows(records, faults, varied, compared, None if race else planned),
            ],
            untouched.rows(records),
            cell_metrics.rows(runs, images=images, underfit_fraction=underfit),
            profiles.by_block(per_block_frame(records)),
            profiles.by_epoch(history_frame(records)),
            paired.rows(runs, questions=families, **pairing),
            mixed.rows(runs),
            equivalence.rows(runs, **pairing),
            dose.rows(runs),
            matched_views.rows(agreeing, compare_with=compared, images=images),
            dose_axes.rows(agreeing),
            ranked,
            ranking_agreement.agreement(ranked),
            operating.rows(runs, images=images, underfit_fraction=underfit),
            selection.rows(runs),
            predictors.rows(runs),
            signal_ranks.rows(runs),
            mediation.rows(agreeing, compare_with=compared),
            frontier.rows(runs, underfit_fraction=underfit),
            lost_classes.rows(records, transfer_tables or {}),
            flows,
            examples,
            calibrated.rows(runs),
            effects,
            places,
            choice.rows(
                contenders(runs, race),
                made=made,
                images=images,
                at_chance=at_chance(records),
                unfinished=unfinished_cells(records),
                underfit_fraction=underfit,
            ),
            after_training.rows(runs, made),
            early_warning.rows(records),
            grid_adequacy.rows(runs, underfit_fraction=underfit),
            sensitivity,
            power.rows(runs, varied=varied, compare_with=compared, images=images),
            matchedness.rows(records, varied),
            reproduction.rows(supported, preset) if preset else [],
        )
    return {
        "schema_version": SCHEMA_VERSION,
        "generated_from": vars(_origin(records, runs, planned)),
        "settings": vars(
            Settings(
                underfit_fraction=underfit,
                varied=varied,
                preset=preset,
                compare_with=compared,
                families=families,
            )
        ),
        **{row.table: [vars(one) for one in rows] for row, rows in zip(LISTS, lists, strict=True)},
    }


def analyze_folder(folder: StudyFolder, *, published: str | None = None) -> dict[str, Any]:
    """What `write_analysis` writes, computed from the records and not written.

    Args:
        published: as for `analyze`.

    Raises:
        RecordError: if no record can be used; the faults of the unusable ones are named.
        StudyFolderError: if the folder does not exist.
    """
    records, faults = folder.records()
    if not any(record.status == "finished" for record in records):
        step = "Run the study, or import records, first"
        nothing = Fault(str(folder.path), "at least one finished run", "none", step)
        raise RecordError([nothing, *faults])
    tables, table_faults = probe_sensitivity.read_tables(folder, records)
    images, image_faults = lost_classes.read_tables(folder, records)
    made, made_faults = readings(folder, records)
    edits, edit_faults = read_edits(folder, records)
    return analyze(
        records,
        spec=folder.read_spec(),
        published=published,
        probe_tables=tables,
        transfer_tables=images,
        made=made,
        edits=edits,
        faults=[*faults, *table_faults, *image_faults, *made_faults, *edit_faults],
        planned=folder.planned(),
        race=read_race(folder),
    )


def row_keys() -> list[str]:
    """Keys of an analysis that hold lists of rows."""
    return [row.table for row in LISTS]


def _preset(records: Sequence[RunRecord], spec: StudySpec | None) -> str | None:
    """The known preset that the study is by its name, if it is one."""
    names = {record.study for record in records} if spec is None else {spec.name}
    known = names & set(reproduction.published())
    return known.pop() if len(names) == 1 and known else None


def _origin(
    records: Sequence[RunRecord], runs: pd.DataFrame, planned: Collection[str] | None
) -> Origin:
    """The hash changes with any content of the records."""
    return Origin(
        n_records=len(records),
        n_runs_used=len(runs),
        n_planned=None if planned is None else len(planned),
        n_to_do=0 if planned is None else len(caveats.to_do(records, planned)),
        records_hash=content_hash(sorted(record.model_dump_json() for record in records)),
    )
