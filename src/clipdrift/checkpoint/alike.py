"""What a folder's files make of weights, beside what the baseline's make of the same ones.

Activation, heads, epsilon, the id a text is pooled at, the tokenizer: none of them is a weight, and
each changes what a model reads. So the folder's configuration is tried with the baseline's weights.
"""

from __future__ import annotations

import copy
import string
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.backbone.text import TRIAL
from clipdrift.checkpoint.checks import Finding
from clipdrift.formats.onto import ACTING
from clipdrift.methods.guard import ROUNDING, relative

SPELT = (*TRIAL, string.ascii_lowercase, "A Photo of TWO dogs, 123.", "caf\u00e9 & b\u00e4r #7")
"""Texts that tokenizers of one vocabulary may still split in several ways."""


@torch.inference_mode()
def configuration_findings(found: Backbone, baseline: Backbone) -> Iterator[Finding]:
    """A row a tower: what differs, and whether the same weights then embed otherwise.

    None for a tower of other sizes than the baseline's, which has no weights in common with it.
    """
    kind = baseline.architecture
    tried = replace(baseline, model=copy.deepcopy(found.model))
    images = baseline.trial_images()
    if _take(tried.model, baseline.model, kind.image_path):
        pair = (tried.live_encoder()(images), baseline.live_encoder()(images))
        yield _configuration("images", "vision_config", found, baseline, pair)
    if _take(tried.model, baseline.model, kind.text_path):
        pair = (tried.live_text_encoder()(TRIAL), baseline.live_text_encoder()(TRIAL))
        yield _configuration("texts", "text_config", found, baseline, pair)


def _take(model: Any, other: Any, path: tuple[str, ...]) -> bool:
    """Give modules of a model the weights of another's, if they have the same shapes."""
    for name in path:
        own, theirs = (m.get_submodule(name).state_dict() for m in (model, other))
        if {k: t.shape for k, t in own.items()} != {k: t.shape for k, t in theirs.items()}:
            return False
        model.get_submodule(name).load_state_dict(theirs)
    return True


def _configuration(
    what: str, part: str, found: Backbone, baseline: Backbone, pair: tuple[Tensor, Tensor]
) -> Finding:
    own, base = (getattr(backbone.model.config, part) for backbone in (found, baseline))
    values = {word: (getattr(own, k, None), getattr(base, k, None)) for k, word in ACTING.items()}
    said = [f"{word} {a}, the baseline's is {b}" for word, (a, b) in values.items() if a != b]
    check, apart = f"configuration, {what}", relative(*pair)
    if apart <= ROUNDING:
        alike = f"; {what} are read alike" if said else "acts as the baseline's"
        return Finding(check, "note" if said else "ok", "; ".join(said) + alike)
    named = "; ".join(said) or "another one"
    moved = f"the same weights then move embeddings of {what} by {apart:.2%}"
    return Finding(check, "wrong", f"{named}: {moved}")


def tokenizer_finding(found: Backbone, baseline: Backbone, *, own_text: bool) -> Finding:
    """Whether texts become the same tokens.

    Args:
        own_text: whether the text tower has weights of its own, which may read tokens of its own.
    """
    if found.tokenizer is baseline.tokenizer:
        return Finding("tokenizer", "ok", "none in the folder: the baseline's is used")
    split = [backbone.live_text_encoder().tokens for backbone in (found, baseline)]
    other = [text for text in SPELT if not _same(*(tokens([text]) for tokens in split))]
    if not other:
        said = "splits a few texts as the baseline's does"
        if found.tokenizer.get_vocab() == baseline.tokenizer.get_vocab():
            return Finding("tokenizer", "ok", said)
        return Finding("tokenizer", "note", f"{said}; other words of its vocabulary differ")
    said = f"splits {other[0]!r} otherwise than the baseline's ({len(other)} of {len(SPELT)} texts)"
    if own_text:
        return Finding("tokenizer", "note", said)
    return Finding("tokenizer", "wrong", f"{said}, for the same text tower")


def _same(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
