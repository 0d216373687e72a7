"""The head alone, on the untouched encoder, before the first step: the first stage of LP-FT.

Reference: Kumar et al. (2022), "Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution", ICLR.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clipdrift.data.images import Images
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.parts import ScheduleSpec
from clipdrift.training.loop import EpochDone, train


def probe_head(
    model: AdaptedModel,
    images: Images,
    spec: MethodBase,
    *,
    schedule: ScheduleSpec,
    seed: int,
    precision: str,
    stop: Callable[[], bool] = lambda: False,
) -> list[EpochDone]:
    """Train the head as a linear probe of `spec.probe_epochs` at `spec.probe_lr` would.

    The same loop, schedule and images in the same order: the head is bit by bit that of such a
    probe. Its steps are no part of those of fine-tuning, whose schedule starts afterwards.

    Raises:
        Diverged, Stopped, TrainingError: as `train` does; a probe that was stopped starts anew.
    """
    probed = schedule.model_copy(update={"epochs": spec.probe_epochs})
    with _head_alone(model):
        return list(
            train(
                model,
                images,
                schedule=probed,
                learning_rate=spec.probe_lr,
                head_rate=spec.probe_lr,
                seed=seed,
                precision=precision,
                stop=stop,
            )
        )


@contextmanager
def _head_alone(model: AdaptedModel) -> Iterator[None]:
    trained = [p for p in model.encoder.parameters() if p.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
