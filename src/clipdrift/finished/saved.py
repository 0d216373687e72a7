"""Finished runs reloaded from their files, and the weights that are made of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from clipdrift.backbone import Backbone, load_backbone
from clipdrift.errors import Fault, MethodError, RecordError, SpecError
from clipdrift.finished.evaluate import finished_run
from clipdrift.methods.adapted import HEAD_FILE, NOT_PLAIN, AdaptedModel, reload
from clipdrift.methods.guard import assert_adapted
from clipdrift.methods.interpolate import mixed
from clipdrift.methods.merged import Merged, as_model, merged, scaled, soup
from clipdrift.methods.weights_file import load_tensors
from clipdrift.records import RunRecord
from clipdrift.spec import RunConfig

ADAPTED = 1.0
LARGEST_SCALE = 10.0
"""Of a movement; far beyond what keeps anything."""


@dataclass(frozen=True)
class Saved:
    """A run reloaded from its files."""

    run_dir: Path
    record: RunRecord
    config: RunConfig
    backbone: Backbone
    model: AdaptedModel
    made: dict[str, Any] = field(default_factory=dict)
    """How its weights were made of those of runs: `runs`, `alpha`, `scale`; empty as trained."""

    @property
    def cell(self) -> tuple[str, str, float]:
        """Target, method and learning rate."""
        return self.record.target, self.record.method, self.record.learning_rate


def saved_run(run_dir: Path) -> Saved:
    """A finished run from its files, proven to be the one that was measured.

    Raises:
        RecordError: if files or backbone are not those of the run.
        AdapterInactiveError: if what was reloaded is not adapted.
    """
    record, config = finished_run(run_dir)
    backbone = load_backbone(config.backbone)
    was = record.provenance.get("data", {}).get("backbone")
    if was != backbone.sha256:
        raise RecordError(
            Fault(
                f"{record.run_id} backbone",
                f"content {was}",
                backbone.sha256,
                "Restore the backbone that was used",
            )
        )
    n_classes = len(load_tensors(run_dir / HEAD_FILE)["head.weight"])
    model = reload(backbone, config.method, n_classes, run_dir)
    assert_adapted(model, backbone, backbone.trial_images())
    return Saved(run_dir, record, config, backbone, model)


def made_of(run_dirs: Sequence[Path], alpha: float = ADAPTED, scale: float = ADAPTED) -> Saved:
    """The first of some runs with weights made of all: their mean, rescaled, mixed with untouched.

    Args:
        run_dirs: one run, or all those of a soup: of one target, method and learning rate.
        alpha: 0 the untouched encoder, 1 the adapted one.
        scale: of what training moved in the towers.

    Raises:
        SpecError: if runs are of different cells, or a number makes no sense.
        MethodError: if no plain weights amount to what the method makes of the vision tower.
        ClipdriftError: if a run cannot be read.
    """
    if not 0 <= alpha <= 1 or not 0 <= scale <= LARGEST_SCALE:
        rule = f"alpha from 0 to 1, scale from 0 to {LARGEST_SCALE:g}"
        got = f"alpha {alpha:g}, scale {scale:g}"
        raise SpecError(Fault(str(run_dirs[0]), rule, got, "Correct the number"))
    first, *rest = [saved_run(path) for path in dict.fromkeys(run_dirs)]
    for other in rest:
        if other.cell != first.cell:
            rule = "runs of one target, method and learning rate, to average them"
            step = "Name the seeds of one cell"
            raise SpecError(Fault(str(other.run_dir), rule, f"{other.cell}", step))
    if not rest and alpha == scale == ADAPTED:
        return first
    weights = soup([plain_weights(one) for one in (first, *rest)])
    weights = mixed(scaled(weights, first.backbone, scale), first.backbone, alpha)
    prompts = first.model.texts.prompts if first.model.texts else None
    model = as_model(weights, first.backbone, first.config.method, prompts)
    made = {"runs": [one.record.run_id for one in (first, *rest)], "alpha": alpha, "scale": scale}
    return replace(first, model=model.eval(), made=made)


def plain_weights(saved: Saved) -> Merged:
    """
    Raises:
        MethodError: if no plain weights amount to what the method makes of the vision tower.
    """
    weights = merged(saved.model)
    if weights is None:
        kind = saved.config.method.kind
        step = "Read the run with clipdrift itself: its files hold all that trained"
        expected = "a method whose towers a plain model can hold, for --merged"
        raise MethodError(Fault(str(saved.run_dir), expected, f"{kind}: {NOT_PLAIN}", step))
    return weights


def plain_model(saved: Saved) -> Any:
    """A copy of the backbone's model that holds the adapted weights.

    Raises:
        MethodError: as `plain_weights`.
    """
    weights = plain_weights(saved)
    model = copy.deepcopy(saved.backbone.model)
    with torch.no_grad():
        for name, value in weights.tower.items():
            model.vision_model.get_parameter(name).copy_(value)
        saved.backbone.architecture.projection(model).load_state_dict(dict(weights.projection))
        text = replace(saved.backbone, model=model).live_text_encoder()
        beside = {"log_scale": "logit_scale", "bias": "logit_bias"}
        for name, value in weights.text.items():
            own = model if name in beside else text
            own.get_parameter(beside.get(name, name)).copy_(value)
    return model
