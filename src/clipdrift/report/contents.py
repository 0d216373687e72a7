"""What the sections of the page hold: the blocks of each, made from a study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from clipdrift.analysis.frame import SUITE
from clipdrift.analysis.questions.lost_classes import LostClass
from clipdrift.analysis.questions.lost_images import LostFlow, LostImage
from clipdrift.analysis.questions.matchedness import SharedFactor
from clipdrift.analysis.questions.probe_sensitivity import ProbeSensitivity
from clipdrift.analysis.questions.ranking_agreement import RankingAgreement
from clipdrift.analysis.questions.untouched import Untouched
from clipdrift.analysis.statistics.extras import corruptions
from clipdrift.records.lost_images import PICTURES
from clipdrift.report import listings
from clipdrift.report.answer import answers
from clipdrift.report.blocks import (
    Aid,
    Answers,
    Block,
    Charts,
    Group,
    Notices,
    Pictures,
    Pre,
    Words,
)
from clipdrift.report.figures.chart import Chart
from clipdrift.report.figures.dose import dose_chart
from clipdrift.report.figures.history import history_charts, history_metrics
from clipdrift.report.figures.layers import (
    heatmap_chart,
    layer_signals,
    panels,
    profile_chart,
    scales,
)
from clipdrift.report.figures.lost import lost_charts, of_set, read_in_full
from clipdrift.report.figures.matched import VIEWS, matched_chart, matched_pairs_of
from clipdrift.report.figures.predictors import predictor_chart
from clipdrift.report.figures.robustness import robustness_charts
from clipdrift.report.forewarning import forewarning, validation_table
from clipdrift.report.lost_pictures import lost_pictures
from clipdrift.report.metrics import metric
from clipdrift.report.notices import notices
from clipdrift.report.origins import conditions_table, design_table, runs_table
from clipdrift.report.ranking_tables import ranking_table
from clipdrift.report.source import Place, Study
from clipdrift.report.tables import Table, cell_table, listing

MAX_DOSE_TRANSFERS = 6
HIDDEN = "Hidden or gone"
IN_FULL = {
    HIDDEN: ("lost_pp", "gone_pp", "misaligned_pp", "ridge_accuracy", "knn_accuracy"),
    "Flips": ("negative_flips", "positive_flips", "churn"),
    "Calibration": ("ece", "ece_equal_mass", "nll", "brier", "ece_refit", "nll_refit"),
    "Geometry": (
        *("margin", "modality_gap", "energy_distance", "alignment", "uniformity"),
        "effective_rank",
    ),
}
"""Tables of what `evaluation.in_full` reads: title -> fields; the first one is not folded."""
LEGEND, RATES = Aid("legend"), Aid("rate_legend")


def said(text: str) -> Callable[[Study], str]:
    return lambda _: text


def by_seeds(before: str, several: str, after: str = "", one: str = "") -> Callable[[Study], str]:
    """A paragraph that says more where there are several seeds."""
    return lambda study: before + (several if study.several_seeds else one) + after


def _present(found: Iterator[Chart | None]) -> list[Chart]:
    return [chart for chart in found if chart is not None]


def planes(
    study: Study, draw: Callable[[Study, Place, str, str], Chart | None], prefix: str
) -> list[Chart]:
    pairs = [(place, outcome) for place in study.places for outcome in study.outcomes]
    return _present(draw(study, *pair, f"{prefix}-{i}") for i, pair in enumerate(pairs))


def answer(study: Study) -> Sequence[Block]:
    found = notices(study)
    return [
        Notices("Read this first", [one for one in found if one.urgent], urgent=True),
        Answers(answers(study)),
        listing(study, Untouched, "The untouched model"),
        Notices("Remarks on the records", [one for one in found if not one.urgent]),
        Aid("how_to_read"),
    ]


def in_full(study: Study) -> Iterator[Block]:
    """Each transfer set by what its embeddings tell, where records hold it."""
    yield from _lost_figures(study)
    for i, dataset in enumerate(study.transfers):
        for title, fields in IN_FULL.items():
            names = [f"transfer.{dataset}.{field}" for field in fields]
            names = [name for name in names if name in study.metrics]
            if names:
                caption, place = f"{title}, {dataset}", f"{title.split()[0].lower()}-{i}"
                table = cell_table(study, names, table_id=place, caption=caption)
                yield table if title == HIDDEN else Group(caption, [table], folded=True)
    fell = [row for row in study.rows(LostClass) if row.change_pp < 0 and study.at_best(row)]
    yield listing(study, LostClass, "Classes that fell, at each method's best rate", fell)
    flows = [row for row in study.rows(LostFlow) if study.at_best(row)]
    into = listing(study, LostFlow, "Into which classes, at each method's best rate", flows)
    yield Group("Into which classes the lost images fell", [into], folded=True)
    yield from _lost_images(study)


def _lost_figures(study: Study) -> Iterator[Block]:
    drawn = {place: list(lost_charts(study, place, i)) for i, place in enumerate(study.places)}
    if any(drawn.values()):
        names = [of_set(name) for name in read_in_full(study)]
        yield Aid("selector", ("lost", names, "Transfer set"))
    for place, charts in drawn.items():
        yield Group(study.title(place), [Charts(charts, "two", group="lost")])


def _lost_images(study: Study) -> Iterator[Block]:
    """Images that stand for the lost ones, as pictures where they may be shown."""
    rows = [row for row in study.rows(LostImage) if study.at_best(row)]
    shown, more = lost_pictures(study, rows)
    hidden = {row.reason for row in rows if row.reason is not None and not study.pictures}
    note = f"Pictures that are not shown: {'; '.join(sorted(hidden))}. " if hidden else ""
    note += "<code>clipdrift report --pictures</code> shows all that were kept." if hidden else ""
    lead = (
        "Of the first seed at each method's best rate: right before, wrong now, by how far their "
        "margin fell, no two of one class. Each picture: the image, where the CLS token looks in "
        "the last block, and its rollout, before and after; of a tower without a CLS token the "
        "image alone. "
    )
    pictures = Pictures(shown, more, where=f"runs/*/{PICTURES}")
    table = listing(study, LostImage, "Images that were lost", rows)
    listed = Group("All of them by number", [table], folded=True)
    yield Group("Images right before and wrong after", [pictures, listed], lead + note)


def dose(study: Study) -> Sequence[Block]:
    names = [study.accuracy, *study.main_drifts[:1], *study.outcomes[:MAX_DOSE_TRANSFERS]]
    groups = [
        Group(
            study.title(place),
            [
                Charts(
                    _present(
                        dose_chart(study, place, name, f"dose-{i}-{j}")
                        for j, name in enumerate(names)
                    )
                )
            ],
        )
        for i, place in enumerate(study.places)
    ]
    return [LEGEND, *groups]


def layers(study: Study) -> Sequence[Block]:
    ranges, shown = scales(study), list(enumerate(panels(study)))
    heat = [heatmap_chart(study, panel, f"heat-{i}", ranges) for i, panel in shown]
    profiles = [profile_chart(study, panel, f"profile-{i}", ranges) for i, panel in shown]
    return [
        Aid("selector", ("layers", layer_signals(study), "Signal")),
        Aid("scale", ("layers",)),
        Charts(heat, group="layers", otherwise="drift per block"),
        Group("Profiles over depth", [RATES, Charts(profiles, group="layers")]),
    ]


def training(study: Study) -> Sequence[Block]:
    names = history_metrics(study)
    found = [
        chart
        for i, place in enumerate(study.places if names else [])
        for chart in history_charts(study, place, f"history-{i}")
    ]
    return [
        Aid("selector", ("history", names, "Metric")),
        RATES,
        Charts(found, group="history", otherwise="readings after every epoch"),
    ]


def predictors(study: Study) -> Sequence[Block]:
    gone = [f"transfer.{name}.gone_pp" for name in read_in_full(study)[:MAX_DOSE_TRANSFERS]]
    pairs = [(b, outcome) for b in study.backbones for outcome in [*study.outcomes, *gone]]
    drawn = (predictor_chart(study, *pair, f"predictor-{i}") for i, pair in enumerate(pairs))
    between = [listings.mediation_table(study)]
    return [
        Charts(_present(drawn), "two"),
        listings.predictor_table(study),
        listings.rank_table(study),
        listings.selection_table(study),
        Group("Drift between method and retention", between, folded=True),
    ]


def early_warning(study: Study) -> Sequence[Block]:
    lead = by_seeds(
        "Do drift and retention after the first epoch foretell what a run keeps in the end, better "
        "than that retention does by itself? ",
        "Of a method or a backbone that it has not learned from the forecast gives no interval. ",
        "Every run is judged by a forecast that has not seen its cell, target, method or backbone. "
        "The form of the forecast was chosen on records of this kind.",
    )
    trial: list[Block] = [Words(forewarning(study)), validation_table(study)]
    return [Group("", trial, lead(study))]


def matched(study: Study) -> Sequence[Block]:
    return [
        ranking_table(study),
        listing(study, RankingAgreement, "Do the views rank alike?"),
        *_matched_charts(study),
        Group("Numbers", [listings.matched_table(study)], folded=True),
        Group("Other doses", [listings.dose_axis_table(study)], folded=True),
    ]


def _matched_charts(study: Study) -> Iterator[Block]:
    for i, place in enumerate(study.places):
        for j, pair in enumerate(matched_pairs_of(study, place)):
            for k, name in enumerate(study.outcomes):
                found = _present(
                    matched_chart(study, place, pair, view, name, f"matched-{i}-{j}-{k}-{v}")
                    for v, view in enumerate(VIEWS)
                )
                title = f"{study.title(place)}: {metric(name).label}, {pair[0]} − {pair[1]}"
                yield Group(title, [Charts(found, "three")])


def robustness(study: Study) -> Sequence[Block]:
    names = [study.accuracy, *(kind.name for kind in corruptions(study.metrics))]
    caption = "Accuracy on corrupted test parts"
    table = cell_table(study, names, table_id="robust", caption=caption) if names[1:] else None
    charts = Charts(robustness_charts(study), otherwise="corrupted test parts")
    return [charts, Group("Numbers", [table], folded=True)]


def tests(study: Study) -> Sequence[Block]:
    every = [listings.paired_table(study, "all_pairs")]
    rest = [listings.paired_table(study, scope, rest=True) for scope in ("grid_mean", "per_lr")]
    return [
        listings.paired_table(study, "both_fit"),
        listings.paired_table(study, "grid_mean"),
        listings.mixed_table(study),
        listings.paired_table(study, "per_lr"),
        listings.equivalence_table(study),
        listings.dose_table(study),
        Group("Every rate and seed as a replicate, which rates are not", every, folded=True),
        Group("All other metrics", rest, folded=True),
    ]


def cells(study: Study) -> Sequence[Block]:
    accuracy = [name for name in ("val_accuracy", "test_accuracy") if name in study.metrics]
    transfer = [
        name
        for dataset in study.transfers
        for field in ("accuracy", "retention_pct")
        if (name := f"transfer.{dataset}.{field}") in study.metrics
    ]
    over_sets = [name for name in study.metrics if name.startswith(SUITE)]
    main = [*accuracy, *transfer, *over_sets, *study.main_drifts]
    rest = [name for name in study.drifts if name not in study.main_drifts]
    note = (
        "Grey cells underfit, and keep what they keep because they barely trained, or are damaged."
    )
    drifts = cell_table(study, rest, table_id="drifts", caption="Drift") if rest else None
    return [
        cell_table(study, main, table_id="cells", caption="All cells", note=note),
        Group("Every drift signal", [drifts], folded=True),
    ]


def design(study: Study) -> Sequence[Block]:
    caption = "Do drift signals depend on the probe images?"
    probe: list[Table | None] = [listing(study, ProbeSensitivity, caption)]
    return [
        listings.grid_table(study),
        listings.power_table(study),
        Group("Sensitivity to the choice of probe images", probe, folded=True),
    ]


def provenance(study: Study) -> Sequence[Block]:
    written = study.folder.spec_path.read_text() if study.spec else ""
    return [
        listing(
            study,
            SharedFactor,
            "What matched runs share",
            note="Only runs whose fingerprints agree are paired.",
        ),
        design_table(study),
        runs_table(study),
        conditions_table(study),
        Group("The study as it was run", [Pre(written)], folded=True),
        Aid("origin"),
    ]
