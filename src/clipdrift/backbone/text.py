"""The text path: class prompts to embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from clipdrift.backbone.encoder import ImageEncoder

Tokens = Mapping[str, Tensor]
AT_ONCE = 256
"""Texts that pass the tower at a time where nothing trains."""
TRIAL = (
    "a photo of a red circle",
    "two",
    "a drawing",
    "the blue square on the left",
    "",
    "of a cat",
)
"""Prompts of several lengths, to see what changes a tower."""


class TextEncoder(nn.Module):
    """Prompts -> un-normalised text embeddings, through the text tower as it is now.

    The counterpart of `ImageEncoder`: whatever adapts the tower does so in place. The projection is
    the identity, without weights, where a model has none.
    """

    def __init__(
        self,
        tower: nn.Module,
        projection: nn.Module,
        tokens: Callable[[Sequence[str]], Tokens],
    ) -> None:
        """tokens: prompts -> inputs of the tower, [N, T] each."""
        super().__init__()
        self.tower, self.projection, self.tokens = tower, projection, tokens

    def pooled_trial(self) -> Tensor:
        """Pooled [N, D] of `TRIAL`: whether two towers read alike."""
        return self._pooled(self.tokens(TRIAL))

    def encode(self, tokens: Tokens) -> Tensor:
        """Inputs of the tower, [N, T] each -> embeddings [N, E]."""
        embeddings: Tensor = self.projection(self._pooled(tokens))
        return embeddings

    def _pooled(self, tokens: Tokens) -> Tensor:
        device = next(self.tower.parameters()).device
        on_device = {name: value.to(device) for name, value in tokens.items()}
        pooled: Tensor = self.tower(**on_device).pooler_output
        return pooled

    def forward(self, prompts: Sequence[str]) -> Tensor:
        return self.encode(self.tokens(prompts))

    @torch.no_grad()
    def features(self, texts: Sequence[str]) -> Tensor:
        """Texts, such as captions -> un-normalised embeddings [U, E] in float32."""
        parts = [texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE)]
        return torch.cat([self(part).float() for part in parts])

    @torch.no_grad()
    def class_features(self, prompts: Sequence[Sequence[str]]) -> Tensor:
        """Unit text embeddings of classes, averaged over their prompts.

        Args:
            prompts: for each class its prompts, e.g. `[["a photo of a cat"], ["a dog"]]`.

        Returns:
            [C, E] float32, rows of unit length (the ensembling of Radford et al. 2021, sec. 3.1.4).
        """
        features = []
        for group in prompts:
            unit = nn.functional.normalize(self(group).float(), dim=-1)
            features.append(nn.functional.normalize(unit.mean(dim=0), dim=0))
        return torch.stack(features)


Encoder = ImageEncoder | TextEncoder
"""What a method adapts: a tower, and the projection behind it."""
