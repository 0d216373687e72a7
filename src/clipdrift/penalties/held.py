"""The penalties of one training: what they hold the encoder against, and what they come to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from clipdrift.backbone import Backbone, ImageEncoder
from clipdrift.errors import Fault, MethodError
from clipdrift.methods.adapted import AdaptedModel
from clipdrift.penalties import Compared, penalty_of
from clipdrift.penalties.seen import Seen, watch
from clipdrift.probes.attention_maps import has_cls_token
from clipdrift.spec.method_base import MethodBase
from clipdrift.spec.penalties import PenaltySpec


class HeldNear:
    """Penalties that hold a model's encoder near an untouched one, and near where it is now."""

    def __init__(
        self, specs: Sequence[PenaltySpec], model: AdaptedModel, untouched: ImageEncoder
    ) -> None:
        """specs: at least one. model: at step 0. untouched: of the baseline."""
        self.specs = list(specs)
        self._kinds = [penalty_of(spec, _where(model.spec, spec)) for spec in specs]
        self._encoder, self._untouched = model.encoder, untouched
        self.sees_images = any(kind.images for kind in self._kinds)
        self.sees_attention = any(kind.attention for kind in self._kinds)
        by_weight = any(not kind.images for kind in self._kinds)
        self._start = {n: p.detach().clone() for n, p in self._trained() if by_weight}

    @property
    def names(self) -> list[str]:
        """Of the penalties, in the order of their values."""
        return [spec.name for spec in self.specs]

    @contextmanager
    def watching(self) -> Iterator[Seen]:
        """Open it around the pass of a batch through the model, and hand what it yields on."""
        if not self.sees_images:
            yield Seen()
            return
        with watch(self._encoder, attention=self.sees_attention) as seen:
            yield seen

    def values(self, live: Seen, pixels: Tensor | None) -> list[Tensor]:
        """Each penalty, a scalar before its weight; without a gradient if its weight is 0.

        Args:
            live: what `watching` yielded.
            pixels: uint8 [B, S, S, 3] of that batch; None where no penalty `sees_images`.
        """
        compared = Compared(live, self._before(pixels), dict(self._trained()), self._start)
        found = []
        for spec, kind in zip(self.specs, self._kinds, strict=True):
            with torch.set_grad_enabled(spec.weight > 0):
                found.append(kind.value(spec, compared))
        return found

    @torch.no_grad()
    def _before(self, pixels: Tensor | None) -> Seen:
        """The untouched encoder on the same pixels, in the precision that is in force."""
        if pixels is None:
            return Seen()
        with watch(self._untouched, attention=self.sees_attention) as seen:
            # In one pass: without a gradient a call of the encoder may take several.
            self._untouched.encode(self._untouched.normalise(pixels))
        return seen

    def _trained(self) -> Iterator[tuple[str, Tensor]]:
        return ((n, p) for n, p in self._encoder.named_parameters() if p.requires_grad)


def held_near(spec: MethodBase, model: AdaptedModel, backbone: Backbone) -> HeldNear | None:
    """The penalties of a method over a model at step 0; None without any.

    Raises:
        MethodError: if one looks at CLS attention and the backbone has no CLS token.
    """
    if not spec.penalties:
        return None
    if not has_cls_token(backbone.model.vision_model):
        _refuse_attention(spec, backbone.name)
    return HeldNear(spec.penalties, model, backbone.live_encoder())


def _where(method: MethodBase, penalty: PenaltySpec) -> str:
    return f"method {method.name} penalties {penalty.name}"


def _refuse_attention(spec: MethodBase, backbone: str) -> None:
    faults = [
        Fault(
            _where(spec, penalty),
            "a backbone with a CLS token, whose attention it holds",
            f"{backbone}, which has none",
            "Choose feature_distillation or l2_sp, or another backbone",
        )
        for penalty in spec.penalties
        if penalty_of(penalty, _where(spec, penalty)).attention
    ]
    if faults:
        raise MethodError(faults)
