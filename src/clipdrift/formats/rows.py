"""Weights of open_clip and of transformers, name by name, for both directions.

A row says which tensors of the one are which tensors of the other. Whatever goes through the rows
there and back is what it was, bit for bit: tensors are renamed, turned, cut and joined, and no
number is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from clipdrift.errors import BackboneError, Fault

Layout = Literal["open_clip", "transformers"]


@dataclass(frozen=True)
class Row:
    """Tensors that hold the same numbers.

    open_clip, transformers: their names; several are one tensor cut along its first axis, in the
    `shares` that each has of it, equal where none are said. turned: a matrix against its
    transpose. axes: how many axes of each, where the one has a leading axis of 1 more.
    """

    open_clip: tuple[str, ...]
    transformers: tuple[str, ...]
    shares: tuple[int, ...] = ()
    turned: bool = False
    axes: tuple[int, int] | None = None

    def names(self, layout: Layout) -> tuple[str, ...]:
        return self.open_clip if layout == "open_clip" else self.transformers

    def moved(self, tensors: Sequence[Tensor], to: Layout) -> list[Tensor]:
        """The tensors of the other layout.

        Raises:
            ValueError: of a shape that cannot be cut or turned so.
        """
        whole = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
        if self.turned:
            whole = _matrix(whole).T
        if self.axes is not None:
            whole = _with_axes(whole, self.axes[to == "transformers"])
        names = self.names(to)
        if len(names) == 1:
            return [whole.contiguous()]
        shares = self.shares or (1,) * len(names)
        rows, rest = divmod(whole.shape[0] if whole.ndim else 0, sum(shares))
        if rest or not rows:
            raise ValueError(f"of shape {tuple(whole.shape)}, not {sum(shares)} equal parts")
        # Of their own: one block of memory is written once, however many tensors are parts of it.
        return [part.clone() for part in torch.split(whole, [rows * share for share in shares])]


def _matrix(tensor: Tensor) -> Tensor:
    if tensor.ndim != 2:
        raise ValueError(f"of {tensor.ndim} axes, not a matrix")
    return tensor


def _with_axes(tensor: Tensor, axes: int) -> Tensor:
    while tensor.ndim > axes and tensor.shape[0] == 1:
        tensor = tensor[0]
    while tensor.ndim < axes:
        tensor = tensor[None]
    if tensor.ndim != axes:
        raise ValueError(f"of {tensor.ndim} axes, not {axes}")
    return tensor


Q_K_V = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
CLIP_BLOCK = {
    "ln_1.": ("layer_norm1",),
    "attn.in_proj_": Q_K_V,
    "attn.out_proj.": ("self_attn.out_proj",),
    "ln_2.": ("layer_norm2",),
    "mlp.c_fc.": ("mlp.fc1",),
    "mlp.c_proj.": ("mlp.fc2",),
}
"""A block of open_clip's own towers, and of OpenAI's."""

TIMM_BLOCK = {
    "norm1.": ("layer_norm1",),
    "attn.qkv.": Q_K_V,
    "attn.proj.": ("self_attn.out_proj",),
    "norm2.": ("layer_norm2",),
    "mlp.fc1.": ("mlp.fc1",),
    "mlp.fc2.": ("mlp.fc2",),
}
"""A block of timm's ViT, in which open_clip keeps the image tower of a SigLIP."""


@dataclass(frozen=True)
class Rows:
    """All rows of a model, by what they make: `scale` is what embeddings do not depend on."""

    image: tuple[Row, ...]
    text: tuple[Row, ...]
    scale: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        yield from (*self.image, *self.text, *self.scale)


def rows_of(config: Mapping[str, Any], names: Iterable[str] = ()) -> Rows:
    """The rows of a model.

    Args:
        config: the content of transformers' config.json, with the number of blocks of each tower.
        names: of the tensors to be moved. open_clip keeps the text tower of every SigLIP under
            `text.`, and may that of a CLIP.
    """
    blocks = [int(config[f"{part}_config"]["num_hidden_layers"]) for part in ("vision", "text")]
    if config["model_type"] == "siglip":
        scale = _scale("logit_scale", "logit_bias", axes=1)
        return Rows(_siglip_image(blocks[0]), _siglip_text(blocks[1]), scale)
    scale = _scale("logit_scale", axes=0)
    under = "text." * any(name.startswith("text.") for name in names)
    return Rows(_clip_image(blocks[0]), _clip_text(blocks[1], under), scale)


def _clip_image(blocks: int) -> tuple[Row, ...]:
    ours, theirs = "vision_model.", "visual."
    return (
        _one(f"{theirs}class_embedding", f"{ours}embeddings.class_embedding"),
        _one(f"{theirs}conv1.weight", f"{ours}embeddings.patch_embedding.weight"),
        _one(f"{theirs}positional_embedding", f"{ours}embeddings.position_embedding.weight"),
        *_both(f"{theirs}ln_pre.", f"{ours}pre_layrnorm"),
        *_blocks(f"{theirs}transformer.resblocks.", f"{ours}encoder.layers.", blocks, CLIP_BLOCK),
        *_both(f"{theirs}ln_post.", f"{ours}post_layernorm"),
        Row((f"{theirs}proj",), ("visual_projection.weight",), turned=True),
    )


def _text(blocks: int, theirs: str) -> Iterator[Row]:
    """What text towers of both kinds have."""
    ours = "text_model."
    embeddings = f"{ours}embeddings."
    yield _one(f"{theirs}token_embedding.weight", f"{embeddings}token_embedding.weight")
    yield _one(f"{theirs}positional_embedding", f"{embeddings}position_embedding.weight")
    layers = f"{ours}encoder.layers."
    yield from _blocks(f"{theirs}transformer.resblocks.", layers, blocks, CLIP_BLOCK)
    yield from _both(f"{theirs}ln_final.", f"{ours}final_layer_norm")


def _clip_text(blocks: int, theirs: str) -> tuple[Row, ...]:
    projection = Row((f"{theirs}text_projection",), ("text_projection.weight",), turned=True)
    return (*_text(blocks, theirs), projection)


def _siglip_image(blocks: int) -> tuple[Row, ...]:
    ours, theirs = "vision_model.", "visual.trunk."
    embeddings, pool = f"{ours}embeddings.", f"{theirs}attn_pool."
    position = (f"{theirs}pos_embed",), (f"{embeddings}position_embedding.weight",)
    return (
        *_both(f"{theirs}patch_embed.proj.", f"{embeddings}patch_embedding"),
        Row(*position, axes=(3, 2)),
        *_blocks(f"{theirs}blocks.", f"{ours}encoder.layers.", blocks, TIMM_BLOCK),
        *_both(f"{theirs}norm.", f"{ours}post_layernorm"),
        _one(f"{pool}latent", f"{ours}head.probe"),
        *(
            Row(
                (f"{pool}q.{kind}", f"{pool}kv.{kind}"),
                (f"{ours}head.attention.in_proj_{kind}",),
                shares=(1, 2),
            )
            for kind in ("weight", "bias")
        ),
        *_both(f"{pool}proj.", f"{ours}head.attention.out_proj"),
        *_both(f"{pool}norm.", f"{ours}head.layernorm"),
        *_both(f"{pool}mlp.fc1.", f"{ours}head.mlp.fc1"),
        *_both(f"{pool}mlp.fc2.", f"{ours}head.mlp.fc2"),
    )


def _siglip_text(blocks: int) -> tuple[Row, ...]:
    return (*_text(blocks, "text."), *_both("text.text_projection.", "text_model.head"))


def _scale(*names: str, axes: int) -> tuple[Row, ...]:
    """axes: of transformers; open_clip has none."""
    return tuple(Row((name,), (name,), axes=(0, axes)) for name in names)


def _blocks(theirs: str, ours: str, n: int, block: Mapping[str, tuple[str, ...]]) -> Iterator[Row]:
    for i in range(n):
        for one, several in block.items():
            for kind in ("weight", "bias"):
                names = tuple(f"{ours}{i}.{name}.{kind}" for name in several)
                yield Row((f"{theirs}{i}.{one}{kind}",), names)


def _both(theirs: str, ours: str) -> list[Row]:
    return [_one(f"{theirs}{kind}", f"{ours}.{kind}") for kind in ("weight", "bias")]


def _one(theirs: str, ours: str) -> Row:
    return Row((theirs,), (ours,))


def moved(
    tensors: Mapping[str, Tensor], rows: Iterable[Row], to: Layout, where: str, next_step: str
) -> dict[str, Tensor]:
    """The state dict of the other layout, every name accounted for.

    Args:
        where, next_step: what a fault says of the file.

    Raises:
        BackboneError: naming tensors that are missing, left over, or of a shape that is not that
            of the row.
    """
    source: Layout = "transformers" if to == "open_clip" else "open_clip"
    made: dict[str, Tensor] = {}
    missing: list[str] = []
    odd: list[str] = []
    left = set(tensors)
    for row in rows:
        names = row.names(source)
        left -= set(names)
        if lacking := [name for name in names if name not in tensors]:
            missing += lacking
            continue
        try:
            parts = row.moved([tensors[name] for name in names], to)
        except (ValueError, RuntimeError) as error:
            odd.append(f"{names[0]!r} {error}")
        else:
            made |= zip(row.names(to), parts, strict=True)
    if missing or left or odd:
        counted = [(len(missing), "missing"), (len(left), "left over"), (len(odd), "misshapen")]
        said = ", ".join(f"{n} {what}" for n, what in counted if n)
        first = [*odd, *map(repr, missing), *map(repr, sorted(left))][0]
        expected = "the weights of the model that its configuration describes, name by name"
        raise BackboneError(Fault(where, expected, f"{said}, first {first[:200]}", next_step))
    return made
