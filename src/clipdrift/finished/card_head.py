"""The head of a model's card, which the Hub reads: what it is, and its `model-index` of figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from clipdrift.backbone import at_hand
from clipdrift.formats.known import is_tagged
from clipdrift.records.readings import Result

TARGET, ZERO_SHOT = "image-classification", "zero-shot-image-classification"
DRIFT = ("weight_drift_rel", "embedding_drift", "cls_entropy_pct")
RETENTION = "retention: zero-shot accuracy, percent of the untouched model's"


class Told(NamedTuple):
    """One figure: of which set, by which task of the Hub, under which metric, what it says."""

    task: str
    dataset: str
    metric: str
    value: float
    name: str


def told_of_run(result: Result, target: str) -> Iterable[Told]:
    """Accuracy, retention and drift of a run as it was measured."""
    if result.test_accuracy is not None:
        yield Told(TARGET, target, "accuracy", result.test_accuracy, "accuracy, test part")
    for name, one in result.transfer.items():
        if one.accuracy is not None:
            yield Told(ZERO_SHOT, name, "accuracy", one.accuracy, "zero-shot accuracy")
        if one.retention_pct is not None:
            yield Told(ZERO_SHOT, name, "retention", one.retention_pct, RETENTION)
    drift: Mapping[str, float | None] = result.drift
    for key in DRIFT:
        if (value := drift.get(key)) is not None:
            yield Told(TARGET, target, key, value, f"{key}, against the untouched model")


def with_head(
    text: str,
    figures: Iterable[Told],
    *,
    name: str,
    backbone: str,
    library: str = "transformers",
    task: str = TARGET,
) -> str:
    """A card under its head; another head that it had is replaced.

    Args:
        backbone: as a study names it; told where it is a hub id.
        library: "transformers" or "peft".
        task: what the model is for, in the Hub's words.

    Reference: the Hub's documentation of model cards, "Evaluation results" (`model-index`).
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=one.task,
            dataset_type=one.dataset,
            dataset_name=one.dataset,
            metric_type=one.metric,
            metric_value=round(one.value, 4),
            metric_name=one.name,
        )
        for one in figures
    ]
    data = ModelCardData(
        model_name=name,
        base_model=None if at_hand(backbone) or is_tagged(backbone) else backbone,
        library_name=library,
        pipeline_tag=task,
        tags=["clip", "clipdrift"],
        eval_results=results or None,
    )
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    return f"---\n{data.to_yaml()}\n---\n\n{text.lstrip()}"
