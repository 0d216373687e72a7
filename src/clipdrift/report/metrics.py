"""What a metric is called on paper, in which unit, and how its values are printed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from clipdrift.analysis.rows import UNDEFINED
from clipdrift.analysis.statistics.columns import is_size
from clipdrift.analysis.statistics.extras import PATHS, corrupted, interpolated
from clipdrift.report.digits import NBSP, fixed, significant

EPOCH1 = "epoch1."


SIGNALS = {
    "cls_entropy": "CLS entropy",
    "erf95": "ERF@0.95",
    "gini": "CLS Gini",
    "head_diversity": "Head diversity",
    "head_diversity_paper": "Head diversity (batch map)",
    "patch_entropy": "Patch entropy",
    "rollout_entropy": "Rollout entropy",
    "rollout_erf95": "Rollout ERF@0.95",
    "rollout_gini": "Rollout Gini",
    "cka": "Linear CKA",
    "embedding_drift": "Embedding drift",
    "weight_drift": "Weight drift, encoder",
    "projection_drift": "Weight drift, projection",
    "text_weight_drift": "Weight drift, text tower",
    "text_projection_drift": "Weight drift, text projection",
    "debiased_cka": "Debiased CKA",
    "rsa": "RSA",
    "procrustes_residual": "Procrustes residual",
    "gram_distortion": "Gram distortion",
    "subspace_angle": "Angle of activation subspaces",
    "embedding_drift_inside": "Embedding drift inside the texts' span",
    "embedding_drift_outside": "Embedding drift outside the texts' span",
    "transfer_embedding_drift": "Embedding drift of transfer images",
    "transfer_embedding_drift_inside": "Embedding drift of transfer images, inside the texts' span",
    "transfer_embedding_drift_outside": "Embedding drift of transfer images, outside it",
    "update_stable_rank": "Stable rank of updates",
    "update_effective_rank": "Effective rank of updates",
    "update_top_energy": "Update energy in top directions",
    "update_bottom_energy": "Update energy in bottom directions",
    "intruder_dimensions": "Intruder dimensions",
    "leading_angle": "Angle of leading weight directions",
    "gradient_erf95": "Gradient ERF@0.95",
    "flow_erf95": "Attention flow ERF@0.95",
    "flow_entropy": "Attention flow entropy",
    "log10_learning_rate": "log₁₀ learning rate",
}
UNITS = {
    "embedding_drift": "1 − cos",
    "nats": "nats",
    "bits": "bits",
    "deg": "°",
}
PLAIN = {
    "suite.mean_retention_pct": "Retention, mean over sets",
    "suite.worst_retention_pct": "Retention, worst set",
    "suite.mean_chance_corrected_retention_pct": "Chance-corrected retention, mean over sets",
    "test_accuracy": "Test accuracy",
    "val_accuracy": "Validation accuracy",
    "train_loss": "Training loss",
    "target_zero_shot.accuracy": "Zero-shot accuracy on the target",
    "target_zero_shot.baseline_accuracy": "Untouched zero-shot accuracy on the target",
    "target_zero_shot.chance": "Chance on the target",
    "log10_learning_rate": "log₁₀ learning rate",
}
RECALLS = {
    **{f"i2t_r{k}": f"R@{k} of captions for images" for k in (1, 5, 10)},
    **{f"t2i_r{k}": f"R@{k} of images for captions" for k in (1, 5, 10)},
    "mean_recall": "Mean recall",
    "i2t_median_rank": "Median rank of captions for images",
    "t2i_median_rank": "Median rank of images for captions",
}
TRANSFER = {
    "lost_pp": "Lost zero-shot, {}",
    "gone_pp": "Gone (ridge read-out), {}",
    "misaligned_pp": "Misaligned (lost less gone), {}",
    "ridge_accuracy": "Ridge read-out, {}",
    "knn_accuracy": "Nearest neighbours, {}",
    "ece": "Calibration error, {}",
    "ece_equal_mass": "Calibration error by equal bins, {}",
    "ece_refit": "Calibration error, temperature refit, {}",
    "nll": "Negative log likelihood, {}",
    "nll_refit": "Negative log likelihood, temperature refit, {}",
    "brier": "Brier score, {}",
    "margin": "Margin, {}",
    "modality_gap": "Modality gap, {}",
    "energy_distance": "Energy distance of images and texts, {}",
    "effective_rank": "Effective rank, {}",
    "negative_flips": "Right before, wrong now, {}",
    "positive_flips": "Wrong before, right now, {}",
    "churn": "Of another class than before, {}",
    **{field: f"{label}, {{}}" for field, label in RECALLS.items()},
    "baseline_mean_recall": "Untouched mean recall, {}",
    "accuracy": "Zero-shot accuracy, {}",
    "baseline_accuracy": "Untouched zero-shot accuracy, {}",
    "retention_pct": "Retention, {}",
    "chance_corrected_retention_pct": "Chance-corrected retention, {}",
    "delta_accuracy_pp": "Zero-shot change, {}",
    "chance": "Chance, {}",
}


@dataclass(frozen=True)
class Metric:
    """How a record field is shown: `value * scale` with `decimals`, in `unit`."""

    name: str
    label: str
    unit: str
    scale: float = 1.0
    decimals: int | None = None
    signed: bool = False
    similarity: bool = False

    @property
    def axis(self) -> str:
        """Axis title with its unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def difference_unit(self) -> str:
        return "pp" if self.unit == "%" else self.unit

    def number(self, value: float | None, *, signed: bool | None = None) -> str:
        """The value without its unit; an en dash if undefined.

        >>> metric("test_accuracy").number(0.9876), metric("drift.gini_pct").number(-1.234)
        ('98.8', '−1.23')
        """
        if value is None or not math.isfinite(value):
            return UNDEFINED
        shown = value * self.scale
        sign = self.signed if signed is None else signed
        if self.decimals is None:
            return significant(shown, signed=sign)
        return fixed(shown, self.decimals, signed=sign)

    def with_unit(self, value: float | None) -> str:
        """The value and its unit, kept on one line.

        >>> metric("transfer.pets.retention_pct").with_unit(51.24)
        '51.2\xa0%'
        """
        text = self.number(value)
        return text if text == UNDEFINED or not self.unit else f"{text}{NBSP}{self.unit}"


@lru_cache(maxsize=4096)
def metric(name: str) -> Metric:
    """How a field of the run frame is shown; fields of other tools keep their own names.

    >>> metric("transfer.cifar100.retention_pct").axis
    'Retention, cifar100 (%)'
    >>> metric("|drift.gini_pct|").label
    '|CLS Gini drift|'
    """
    if is_size(name):
        inner = metric(name[1:-1])
        label = f"|{inner.label}|"
        return replace(inner, name=name, label=label, signed=False, similarity=False)
    plain = name.removeprefix(EPOCH1)
    found = _described(plain)
    if plain == name:
        return found
    label = f"{found.label}, epoch 1"
    return replace(found, name=name, label=label)


def _described(name: str) -> Metric:
    between, worsened = interpolated(name), corrupted(name)
    if between is not None:
        inner = metric(between.metric)
        lies = f" of {PATHS[between.path]}" if between.path else ""
        return replace(inner, name=name, label=f"{inner.label}, α = {between.alpha:g}{lies}")
    if worsened is not None:
        return Metric(name, f"Accuracy, {worsened.label}", "%", 100.0, 1)
    if name.startswith("last_epoch."):
        inner = metric(name.removeprefix("last_epoch."))
        return replace(inner, name=name, label=f"{inner.label}, last epoch")
    if name.startswith("untouched."):
        inner = metric("levels." + name.removeprefix("untouched."))
        return replace(inner, name=name, label=f"{inner.label}, untouched")
    if name.startswith("probe_cv."):
        inner = metric("levels." + name.removeprefix("probe_cv."))
        return Metric(name, f"CV over probe subsets, {inner.label}", "", 1.0, 5)
    if name.startswith(("transfer.", "target_zero_shot.")) and name not in PLAIN:
        place, _, field = name.rpartition(".")
        dataset = place.removeprefix("transfer.") if place != "target_zero_shot" else "the target"
        label = TRANSFER.get(field, "{} " + field).format(dataset)
        if field in RECALLS or field == "baseline_mean_recall":
            return _recall(name, field, label)
        if field.endswith(("accuracy", "chance")):
            return Metric(name, label, "%", 100.0, 1)
        if not field.endswith(("_pp", "_pct")):
            return Metric(name, label, "nats" if field.startswith("nll") else "")
        unit = "pp" if field.endswith("_pp") else "%"
        return Metric(name, label, unit, 1.0, 1, signed=unit == "pp")
    if name.startswith("test_retrieval."):
        field = name.removeprefix("test_retrieval.")
        return _recall(name, field, f"{RECALLS.get(field, field)}, test part")
    if name in PLAIN:
        accuracy, kept = name.endswith(("accuracy", "chance")), name.endswith("_pct")
        return Metric(
            name,
            PLAIN[name],
            "%" if accuracy or kept else "",
            100.0 if accuracy else 1.0,
            1 if accuracy or kept else None,
        )
    if name.startswith("penalty."):
        words = name.removeprefix("penalty.").replace("_", " ")
        return Metric(name, f"Penalty {words}, before its weight", "")
    kind, _, signal = name.rpartition(".")
    return _signal(name, kind, signal)


def _recall(name: str, field: str, label: str) -> Metric:
    if field.endswith("rank"):
        return Metric(name, label, "", 1.0, 1)
    return Metric(name, label, "%", 100.0, 1)


def _signal(name: str, kind: str, signal: str) -> Metric:
    """`drift.<stem>_pct` is a relative change; other drifts are read as they are."""
    stem, ending = signal, ""
    for suffix in ("_pct", "_rel", "_nats", "_bits", "_deg"):
        if signal.endswith(suffix):
            stem, ending = signal.removesuffix(suffix), suffix[1:]
    stem, place = _place(stem)
    if stem.endswith("_deg"):  # of a mean over blocks or the last one
        stem, ending = stem.removesuffix("_deg"), "deg"
    label = SIGNALS.get(stem, stem.replace("_", " "))
    if stem in ("cka", "debiased_cka", "rsa"):
        return Metric(name, label + place, "", 1.0, 3, similarity=True)
    if kind == "drift" and ending == "pct":
        return Metric(name, f"{label} drift{place}", "%", 1.0, 2, signed=True)
    unit = UNITS.get(ending) or UNITS.get(stem, "")
    if kind == "levels":
        return Metric(name, label + place, unit, 1.0, 3)
    if ending == "rel":
        return Metric(name, label + place, "% of ‖W₀‖", 100.0)
    return Metric(name, label + place, unit)


def _place(stem: str) -> tuple[str, str]:
    for suffix, words in (
        ("_last_block", ", last block"),
        ("_last", ", last block"),
        ("_mean", ""),
    ):
        if stem.endswith(suffix):
            return stem.removesuffix(suffix), words
    return stem, ""
