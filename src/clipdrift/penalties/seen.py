"""What a batch shows on its way through an encoder, with its gradient where there is one.

Read by hooks on the modules themselves, so that it is that of the very pass that is trained,
adapters and fast kernels included, whatever attention kernel is in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clipdrift.backbone import ImageEncoder
from clipdrift.probes.attention_maps import added_tokens, original_tokens, tower_blocks


@dataclass
class Seen:
    """One pass of B images, in float32.

    embeddings: [B, E] projected, un-normalised. cls_log_attention: block -> [B, H, T] natural
    logarithm of the CLS row over the original tokens, renormalised where there are prompts beside
    them; blocks that were not run, as they do not train, are not in it.
    """

    embeddings: Tensor = field(default_factory=lambda: torch.empty(0))
    cls_log_attention: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def watch(encoder: ImageEncoder, *, attention: bool) -> Iterator[Seen]:
    """Fills what it yields during the next pass through the encoder.

    Args:
        attention: read the CLS rows too, of a tower with a CLS token.
    """
    seen = Seen()
    with ExitStack() as stack:

        def embedded(_: Any, __: Any, out: Tensor) -> None:
            seen.embeddings = out.float()

        stack.callback(encoder.projection.register_forward_hook(embedded).remove)
        added = added_tokens(encoder.tower)
        for number, block in enumerate(tower_blocks(encoder.tower) if attention else ()):
            parts: dict[str, Tensor] = {}
            layer = block.self_attn
            for name in ("q_proj", "k_proj"):
                hook = getattr(layer, name).register_forward_hook(partial(_keep, parts, name))
                stack.callback(hook.remove)
            hook = layer.register_forward_hook(partial(_read, seen, number, parts, added))
            stack.callback(hook.remove)
        yield seen


def _keep(parts: dict[str, Tensor], name: str, _: Any, __: Any, out: Tensor) -> None:
    parts[name] = out


def _read(
    seen: Seen, number: int, parts: dict[str, Tensor], added: int, layer: Any, _: Any, __: Any
) -> None:
    query, key = parts.pop("q_proj"), parts.pop("k_proj")
    row = cls_log_attention(query, key, layer.num_heads, layer.scale)
    if added:
        row = original_tokens(row, added, -1).log_softmax(dim=-1)
    seen.cls_log_attention[number] = row


def cls_log_attention(query: Tensor, key: Tensor, n_heads: int, scale: float) -> Tensor:
    """Row of token 0: log softmax(q_0 K' scale), one head at a time.

    Args:
        query, key: [B, T, D], heads side by side in D.

    Returns:
        [B, H, T] float32, in nats.
    """
    with torch.autocast(query.device.type, enabled=False):
        n, n_tokens, width = key.shape
        q = query[:, 0].float().reshape(n, n_heads, width // n_heads)
        k = key.float().reshape(n, n_tokens, n_heads, width // n_heads)
        scores = torch.einsum("bhd,bthd->bht", q, k) * scale
        return scores.log_softmax(dim=-1)
