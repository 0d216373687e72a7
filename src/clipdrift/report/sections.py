"""The sections of the page, in its order: each one declaration."""

from __future__ import annotations

from clipdrift.analysis.questions.located import LossPlace
from clipdrift.analysis.questions.reproduction import Reproduction
from clipdrift.report import contents
from clipdrift.report.attention import attention_images
from clipdrift.report.blocks import (
    Charts,
    Choices,
    Group,
    Pictures,
    Section,
)
from clipdrift.report.chosen import choices
from clipdrift.report.contents import LEGEND, by_seeds, said
from clipdrift.report.figures.interpolation import interpolation_chart
from clipdrift.report.figures.plane import plane_chart
from clipdrift.report.made_after import after_table
from clipdrift.report.tables import listing

SECTIONS = (
    Section("answer", "Answer", "The answer", contents.answer),
    Section(
        "choice",
        "Choice",
        "The choice",
        lambda study: [Choices(choices(study))],
        said(
            "Which method, learning rate and α (the share of the adapted weights, mixed with the "
            "untouched ones) best meets a budget: chosen by means over seeds of validation "
            "accuracy and retention, reported on the test part. A share of draws tells how far an "
            "answer hangs on single seeds among those that were run, and nothing of seeds that "
            "were not. Retention has no validation part, so what the chosen one keeps is a little "
            "flattered. <code>clipdrift choose</code> answers other budgets."
        ),
    ),
    Section(
        "trade-off",
        "Trade-off",
        "Accuracy against retention",
        lambda study: [
            LEGEND,
            Charts(contents.planes(study, plane_chart, "plane"), "two"),
            Group(
                "Between untouched and adapted weights",
                [
                    Charts(
                        contents.planes(study, interpolation_chart, "way"),
                        "two",
                        otherwise="weights between untouched and adapted",
                    )
                ],
                "Each dotted line is a cell whose adapted weights were mixed with the untouched "
                "ones, the adapted head kept; the large marker is the adapted model. The grey edge "
                "is that of the figures above.",
            ),
        ],
        by_seeds(
            "Each marker is one method at one learning rate, which stands beside it where there is "
            "room; of many methods, only beside those that none beats",
            "; bars are SDs over seeds",
            ". Large outlined markers on the grey edge are not beaten by any cell in both. Cells "
            "that underfit or are damaged are hollow: those that underfit keep what they keep "
            "because they barely trained. Dotted upright lines are lines of equal accuracy, so "
            "many points below the best cell.",
        ),
    ),
    Section(
        "in-full",
        "Hidden or gone",
        "What was lost: hidden or gone",
        lambda study: list(contents.in_full(study)),
        said(
            "Zero-shot accuracy also falls where image embeddings only move away from the texts. A "
            "ridge read-out, fitted to the labels of one half of a set and read on the other, "
            "tells what embeddings still hold: what it lost too is gone, the rest is misaligned."
        ),
    ),
    Section(
        "dose",
        "Dose-response",
        "Dose-response",
        contents.dose,
        by_seeds(
            "Points are runs, ",
            "lines join the means of cells, bands are ± 1 SD over seeds",
            ". Reference methods at rates outside the grid are dashed lines across.",
            one="lines join the cells",
        ),
    ),
    Section(
        "layers",
        "Layers",
        "Drift by layer",
        contents.layers,
        said(
            "Mean over seeds, block by learning rate. One colour scale serves all panels of a "
            "signal; the pale (in dark mode: dark) middle is the untouched model."
        ),
    ),
    Section(
        "training",
        "Training",
        "During training",
        contents.training,
        said(
            "Mean over seeds after every epoch; epoch 0 is the untouched model with the fresh "
            "head. Retention after an epoch is read on a fixed part of each transfer dataset."
        ),
    ),
    Section(
        "predictors",
        "Predictors",
        "What foretells retention",
        contents.predictors,
        by_seeds(
            "Rank correlation over matched runs of each signal with final retention, and with "
            "what is gone of sets that were read in full",
            "; bars are 95\u00a0% intervals over seeds, one left out at a time",
            ". Dark circles: read at the end; light diamonds: after epoch\u00a01. |Drift| is the "
            "size of a drift, either way; where it ranks the runs as the drift itself does, only "
            "that is drawn. A correlation is no cause.",
        ),
    ),
    Section(
        "after-training",
        "After training",
        "After training",
        lambda study: [after_table(study)],
        said(
            "Soups and rescaled movements, made from the weights of finished runs without further "
            "training, and read by the same code as the runs. They are candidates of the choice."
        ),
    ),
    Section(
        "located",
        "Where it lies",
        "Where the loss lies",
        lambda study: [listing(study, LossPlace, "The part that carries each loss")],
        said(
            "Parts of finished image encoders put back to their untouched weights, and moved alone "
            "in the untouched model. A part is named where, over seeds, it carries more of the "
            "loss than every other one. This is the effect of an edit: what lies behind a part "
            "has adapted to it, so it is no proof of what training did there. Every edit beside "
            "its controls: <code>tables/located.csv</code>."
        ),
    ),
    Section("early-warning", "Early warning", "Early warning", contents.early_warning),
    Section(
        "matched",
        "Matched views",
        "Matched views",
        contents.matched,
        by_seeds(
            "Equal learning rate is not an equal dose. The same difference at equal validation "
            "accuracy and at equal weight movement, interpolated between cells where the curves of "
            "both methods overlap",
            "; bands are 95\u00a0% intervals over seeds, and over images where single answers are "
            "known",
            ".",
        ),
    ),
    Section(
        "robustness",
        "Robustness",
        "Corrupted test parts",
        contents.robustness,
        said(
            "Numbers are accuracies in percent, means over seeds; colour is the change against the "
            "clean test part, on one scale for all panels."
        ),
    ),
    Section("tests", "Tests", "Tests", contents.tests),
    Section("cells", "Cells", "Cells", contents.cells),
    Section("design", "Grid and power", "Grid and power", contents.design),
    Section(
        "reproduction",
        "Reproduction",
        "Reproduction",
        lambda study: [listing(study, Reproduction, "Against the published figures")],
    ),
    Section(
        "attention",
        "Attention",
        "Attention on probe images",
        lambda study: [Pictures(*attention_images(study), "attention pictures")],
        said(
            "Where the CLS token looks in the last block, and its rollout through all blocks: "
            "untouched and adapted, as written when the run was measured."
        ),
    ),
    Section("provenance", "Provenance", "Provenance", contents.provenance),
)
