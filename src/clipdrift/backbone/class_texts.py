"""Whether a model can tell the classes of a dataset apart by their prompts, before it is asked to.

Two classes of one text get one embedding: accuracy is then that of a coin, before and after, and
all of it is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from clipdrift.errors import Fault, brief

if TYPE_CHECKING:
    from clipdrift.backbone.model import Backbone

Prompts = Sequence[Sequence[str]]

CLOSEST = 1e-6
"""Largest difference of a coordinate between unit embeddings that rounding may make."""
TRIED = 64
"""Classes whose embeddings are compared, where tokens differ: this finds a broken tower."""
_NAMED = 3


def same_texts(backbone: Backbone, prompts: Prompts, where: str) -> list[Fault]:
    """Classes whose prompts are the same tokens as far as the tower reads them, or one embedding.

    Args:
        prompts: of each class; any one of a class may tell it from another.
        where: the dataset, for messages.
    """
    read = iter(_read_tokens(backbone, [prompt for group in prompts for prompt in group]))
    classes: dict[tuple[tuple[int, ...], ...], list[str]] = defaultdict(list)
    for group in prompts:
        classes[tuple(next(read) for _ in group)].append(group[0])
    found = [_same(where, texts, seen[0], backbone) for seen, texts in classes.items() if texts[1:]]
    distinct = {seen[0]: [texts[0]] for seen, texts in classes.items()}
    return found or _one_embedding(backbone, list(distinct.values())[:TRIED], where)


def _one_embedding(backbone: Backbone, prompts: Prompts, where: str) -> list[Fault]:
    features = backbone.text_features(prompts)
    near = torch.cdist(features, features, p=float("inf")) < CLOSEST
    pairs = torch.nonzero(torch.triu(near, diagonal=1)).tolist()
    if not pairs:
        return []
    named = "; ".join(f"{prompts[a][0]!r} and {prompts[b][0]!r}" for a, b in pairs[:_NAMED])
    got = f"one for {named} ({len(pairs):,} pairs in all)"
    step = "Check the weights of the model's text tower"
    return [Fault(where, "a text embedding of its own for each class", got, step)]


def _read_tokens(backbone: Backbone, prompts: Sequence[str]) -> list[tuple[int, ...]]:
    """The tokens that each embedding depends on."""
    ids = backbone.live_text_encoder().tokens(prompts)["input_ids"]
    lengths = backbone.architecture.read_length(backbone.model.config.text_config, ids)
    return [tuple(row[:n]) for row, n in zip(ids.tolist(), lengths, strict=True)]


def _same(where: str, texts: Sequence[str], seen: Sequence[int], backbone: Backbone) -> Fault:
    named = ", ".join(map(repr, texts[:_NAMED])) + (", ..." if len(texts) > _NAMED else "")
    longest = backbone.model.config.text_config.max_position_embeddings
    if seen[-1] != backbone.tokenizer.eos_token_id and len(seen) < longest:
        why = f"of which the tower reads {backbone.tokenizer.decode(list(seen))!r} only"
        step = "Correct eos_token_id in the text_config of config.json, or merge these classes"
    elif len(seen) >= longest:
        why = f"of which the tower reads {longest} tokens"
        step = "Shorten the templates or the class names, so that they differ within that"
    else:
        why = f"all read as {backbone.tokenizer.decode(list(seen))!r}"
        step = "Give class_names in letters that the tokenizer knows, or use another model"
    expected = "prompts that tell classes apart"
    return Fault(where, expected, f"{len(texts)} classes with one text, {named}, {why}", step)


def partly_read(
    backbone: Backbone, prompts: Prompts, where: str, *, what: str = "prompts"
) -> list[str]:
    """Texts that are longer than the tower reads, or hold letters the tokenizer lacks, in words.

    Args:
        prompts, where: as for `same_texts`. what: they are, in words.
    """
    tokenizer, found = backbone.tokenizer, []
    flat = [prompt for group in prompts for prompt in group]
    ids = backbone.uncut_ids(flat)
    longest = backbone.model.config.text_config.max_position_embeddings
    room = longest - tokenizer.num_special_tokens_to_add()
    cut = [prompt for prompt, one in zip(flat, ids, strict=True) if len(one) > room]
    if cut:
        found.append(f"{_share(cut, flat, what)} are cut to {longest} tokens ({brief(cut[0])})")
    lacking = tokenizer.unk_token_id  # None equals no id
    unknown = [prompt for prompt, one in zip(flat, ids, strict=True) if lacking in one]
    if unknown:
        told = f"{_share(unknown, flat, what)} hold what the tokenizer lacks"
        found.append(f"{told} ({brief(unknown[0])})")
    return [f"{where}: {text}" for text in found]


def _share(some: Sequence[str], of: Sequence[str], what: str) -> str:
    """How many, and of captions, which are many, the share."""
    if what == "prompts":
        return f"{len(some):,} {what}"
    return f"{len(some):,} of {len(of):,} {what} ({len(some) / len(of):.1%})"
