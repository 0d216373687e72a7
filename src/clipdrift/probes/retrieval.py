"""Retrieval between images and their captions, both ways."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from clipdrift.machine.devices import for_float64
from clipdrift.probes.zero_shot import cosines

KS = (1, 5, 10)
AT_ONCE = 1024
"""Queries whose scores are in memory at a time."""


def retrieval(
    image_features: Tensor, text_features: Tensor, owner: Tensor, text: Tensor
) -> dict[str, float]:
    """Recall at 1, 5 and 10 and median rank, of captions for each image and of images for each one.

    Candidates are ranked by cosine. A caption is right for an image if its text is one of the
    image's own; an image is right for a caption if that text is one of its own. So a text that
    stands under two images is right for both. The rank of a query is 1 + the number of wrong
    candidates whose cosine is not below that of the best right one: what is equal counts against
    the model, which then gains nothing by making all embeddings equal. A query with an embedding
    that is zero or not finite ranks last. R@k is the share of queries of rank k or better: any of
    an image's captions among the first k, or its image. The size of the gallery is part of each
    number.

    Args:
        image_features: [N, E], need not be normalised.
        text_features: [U, E] of distinct texts, likewise.
        owner, text: [M] the image and the text of each caption.

    Returns:
        `i2t_r1`, `i2t_r5`, `i2t_r10` over images, `t2i_r1`, `t2i_r5`, `t2i_r10` over captions,
        fractions; `mean_recall`, the mean of these six; `i2t_median_rank`, `t2i_median_rank`, from
        1; of an even number of queries the mean of the two in the middle.

    Reference: Karpathy & Fei-Fei 2015, "Deep visual-semantic alignments for generating image
    descriptions", section 4.1; Faghri et al. 2018, "VSE++", section 4 for both ways.

    >>> one = torch.eye(2)
    >>> found = retrieval(one, one, torch.arange(2), torch.arange(2))
    >>> found["i2t_r1"], found["t2i_median_rank"], found["mean_recall"]
    (1.0, 1.0, 1.0)
    """
    n_texts = len(text_features)
    copies = torch.bincount(text, minlength=n_texts).to(image_features.device)
    owner, text = owner.to(image_features.device), text.to(image_features.device)
    of_images = torch.cat([
        _ranks(cosines(part, text_features), _right(at, owner, text, n_texts), copies)
        for at, part in _parts(image_features)
    ])  # fmt: skip
    alone = torch.ones(len(image_features), dtype=torch.int64, device=image_features.device)
    of_texts = torch.cat([
        _ranks(cosines(part, image_features), _right(at, text, owner, len(alone)), alone)
        for at, part in _parts(text_features)
    ])  # fmt: skip
    out: dict[str, float] = {}
    for way, ranks in (("i2t", of_images), ("t2i", of_texts[text])):
        out |= {f"{way}_r{k}": float(for_float64(ranks <= k).double().mean()) for k in KS}
    out["mean_recall"] = sum(out.values()) / len(out)
    for way, ranks in (("i2t", of_images), ("t2i", of_texts[text])):
        out[f"{way}_median_rank"] = float(for_float64(ranks).double().quantile(0.5))
    return out


def chance_recall(owner: Tensor, text: Tensor) -> float:
    """Mean recall of candidates in random order.

    Of n candidates of which r are right, one is among the first k with probability
    1 - prod_{j < k} (n - r - j) / (n - j).

    Args:
        owner, text: [M] as for `retrieval`; every image has a caption.

    >>> round(chance_recall(torch.arange(20), torch.arange(20)), 9)  # (1 + 5 + 10) / 20 / 3
    0.266666667
    """
    pairs = torch.unique(torch.stack([owner, text]), dim=1)
    copies = torch.bincount(text)
    n_images = int(owner.max()) + 1
    captions = torch.zeros(n_images, dtype=torch.int64).index_add(0, pairs[0], copies[pairs[1]])
    images = torch.bincount(pairs[1])[text]
    means = [
        _first(k, n, right) for n, right in ((len(text), captions), (n_images, images)) for k in KS
    ]
    return sum(means) / len(means)


def _first(k: int, n: int, right: Tensor) -> float:
    missed = torch.ones(len(right), dtype=torch.float64)
    for j in range(min(k, n)):
        missed = missed * ((n - right.double() - j).clamp_min(0) / (n - j))
    return float((1 - missed).mean())


def _parts(features: Tensor) -> Iterator[tuple[range, Tensor]]:
    for start in range(0, len(features), AT_ONCE):
        stop = min(start + AT_ONCE, len(features))
        yield range(start, stop), features[start:stop]


def _right(at: range, query: Tensor, candidate: Tensor, n: int) -> Tensor:
    """bool [len(at), n]: which candidates are right for which of some queries."""
    right = torch.zeros(len(at), n, dtype=torch.bool, device=query.device)
    inside = (query >= at.start) & (query < at.stop)
    right[query[inside] - at.start, candidate[inside]] = True
    return right


def _ranks(scores: Tensor, right: Tensor, copies: Tensor) -> Tensor:
    """[B] from scores and truth [B, n]; copies [n]: how often each candidate is there."""
    scores = scores.nan_to_num(nan=-torch.inf)
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return 1 + ((scores >= best) & ~right).to(copies.dtype) @ copies
