"""The model of a run at step 0: what it trains from, and where some interpolated weights start."""

from __future__ import annotations

from clipdrift.methods.adapted import AdaptedModel, build
from clipdrift.reading.gauge import Gauge
from clipdrift.spec import RunConfig


def model_at_start(gauge: Gauge, config: RunConfig, device: str) -> AdaptedModel:
    """The untouched backbone under the run's method with a fresh head: the same at every call."""
    prompts, captions = gauge.target.prompts, gauge.target.train.captions
    text = None
    if config.method.head_init == "text" and prompts:
        text = gauge.backbone.text_features(prompts)
    model = build(
        gauge.backbone,
        config.method,
        len(prompts),
        seed=config.seed,
        text_features=text,
        prompts=prompts,
        captions=captions.texts if captions is not None else (),
    )
    return model.to(device)
