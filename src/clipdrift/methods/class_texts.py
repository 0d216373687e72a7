"""The text side of contrastive fine-tuning: class prompts as they are read now, and a logit scale.

Cosines are multiplied with exp(s), s CLIP's own logit scale. It trains, as in pretraining and in
the code of FLYP (Goyal et al. 2023), at the rate of everything else, and is kept at most ln 100
after every step, as in Radford et al. 2021, section 2.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clipdrift.backbone import Backbone, TextEncoder

MOST = math.log(100)
Prompts = Sequence[Sequence[str]]


class ClassTexts(nn.Module):
    """Numbers of prompts -> text embeddings; classes -> their zero-shot features.

    Prompts are numbered through: class c, template t is c T + t, with T templates for each class.
    """

    def __init__(self, backbone: Backbone, prompts: Prompts, *, trains: bool) -> None:
        """trains: whether there is a text tower to be adapted; else what it reads is fixed."""
        super().__init__()
        self.prompts = [list(group) for group in prompts]
        self.encoder: TextEncoder | None = backbone.text_encoder() if trains else None
        self.log_scale = nn.Parameter(backbone.model.logit_scale.detach().clone())
        flat = [prompt for group in self.prompts for prompt in group]
        live = backbone.live_text_encoder()
        self._tokens = live.tokens(flat) if flat and trains else {}
        fixed = classes = torch.empty(0)
        if flat and not trains:
            with torch.no_grad():
                fixed = live(flat).float()
            classes = live.class_features(self.prompts)
        self._fixed: Tensor
        self._classes: Tensor
        self.register_buffer("_fixed", fixed, persistent=False)
        self.register_buffer("_classes", classes, persistent=False)

    @property
    def n_templates(self) -> int:
        """T, prompts for each class."""
        return len(self.prompts[0])

    @property
    def scale(self) -> float:
        """What cosines are multiplied with now."""
        return float(self.log_scale.detach().exp())

    def forward(self, numbers: Tensor) -> Tensor:
        """Prompts by number [U] -> un-normalised text embeddings [U, E], with their gradient."""
        if self.encoder is None:
            return self._fixed[numbers]
        rows = numbers.cpu()
        return self.encoder.encode({name: value[rows] for name, value in self._tokens.items()})

    def class_features(self) -> Tensor:
        """Unit class embeddings [C, E] as the text tower reads them now, without a gradient."""
        return self._classes if self.encoder is None else self.encoder.class_features(self.prompts)

    @torch.no_grad()
    def keep_bounds(self) -> None:
        """CLIP's bound on the logit scale."""
        self.log_scale.clamp_(max=MOST)


__all__ = ["ClassTexts", "Prompts"]
