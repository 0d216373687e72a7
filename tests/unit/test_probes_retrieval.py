"""Retrieval against a second implementation that sorts lists, query by query."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
import torch
from torch import Tensor

from clipdrift.probes import retrieval as module
from clipdrift.probes.retrieval import chance_recall, retrieval

Captions = list[list[str]]


def columns(captions: Captions) -> tuple[list[str], Tensor, Tensor]:
    """Distinct texts in order; image and text of each caption."""
    flat = [(i, text) for i, own in enumerate(captions) for text in own]
    texts = list(dict.fromkeys(text for _, text in flat))
    return (
        texts,
        torch.tensor([i for i, _ in flat]),
        torch.tensor([texts.index(text) for _, text in flat]),
    )


def by_hand(images: Tensor, features: dict[str, Tensor], captions: Captions) -> dict[str, float]:
    """Candidates sorted by cosine, wrong ones before right ones of the same cosine."""
    flat = [text for own in captions for text in own]

    def cosine(a: Tensor, b: Tensor) -> float:
        x, y = a.tolist(), b.tolist()
        length = math.sqrt(sum(v * v for v in x)) * math.sqrt(sum(v * v for v in y))
        value = sum(p * q for p, q in zip(x, y, strict=True)) / length if length else math.nan
        return -math.inf if math.isnan(value) else round(value, 9)

    def rank(ordered: list[tuple[float, bool]]) -> int:
        ordered = sorted(ordered, key=lambda one: (-one[0], one[1]))
        place = [right for _, right in ordered].index(True)
        return place + 1

    ranks = {
        "i2t": [
            rank([(cosine(image, features[text]), text in captions[i]) for text in flat])
            for i, image in enumerate(images)
        ],
        "t2i": [
            rank([(cosine(image, features[text]), text in own)
                  for image, own in zip(images, captions, strict=True)])
            for text in flat
        ],
    }  # fmt: skip
    out = {
        f"{way}_r{k}": sum(r <= k for r in own) / len(own)
        for way, own in ranks.items()
        for k in (1, 5, 10)
    }
    out["mean_recall"] = statistics.fmean(out.values())
    return out | {f"{way}_median_rank": statistics.median(own) for way, own in ranks.items()}


def drawn(seed: int, n: int, most: int, words: int) -> Captions:
    """1 to `most` captions an image, of a few words: some stand under several images, or twice."""
    draw = torch.Generator().manual_seed(seed)
    counts = torch.randint(1, most + 1, (n,), generator=draw).tolist()
    return [
        [f"text {int(torch.randint(words, (1,), generator=draw))}" for _ in range(count)]
        for count in counts
    ]


@pytest.mark.parametrize(
    ("seed", "n", "most", "words"),
    [(0, 30, 5, 10_000), (1, 30, 5, 25), (2, 13, 1, 10_000), (3, 40, 3, 60), (4, 3, 2, 4)],
)
@pytest.mark.parametrize("ties", [False, True])
def test_recalls_and_ranks_are_those_of_sorted_lists(
    seed: int, n: int, most: int, words: int, ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 7)
    captions = drawn(seed, n, most, words)
    texts, owner, text = columns(captions)
    draw = torch.Generator().manual_seed(seed)
    if ties:  # few directions, exact in floating point: many cosines are equal
        directions = torch.eye(4)
        images = directions[torch.randint(4, (n,), generator=draw)] * 2
        found = directions[torch.randint(4, (len(texts),), generator=draw)]
    else:
        images = torch.randn(n, 6, generator=draw, dtype=torch.float64)
        found = torch.randn(len(texts), 6, generator=draw, dtype=torch.float64)
        found[:n] += images[: len(found[:n])]
    named = dict(zip(texts, found, strict=True))
    assert retrieval(images, found, owner, text) == pytest.approx(by_hand(images, named, captions))


def test_equal_embeddings_find_nothing_and_what_is_not_finite_ranks_last() -> None:
    n = 20
    same, own = torch.ones(n, 3), torch.arange(n)
    collapsed = retrieval(same, same, own, own)
    assert collapsed["mean_recall"] == 0
    assert collapsed["i2t_median_rank"] == n
    images = torch.eye(n)
    broken = images.clone()
    broken[0] = 0
    broken[1, 0] = math.nan
    found = retrieval(broken, images, own, own)
    assert found["i2t_r10"] == pytest.approx((n - 2) / n)
    assert found["t2i_r1"] == pytest.approx((n - 2) / n)


def test_a_text_under_two_images_is_right_for_both() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    owner, text = torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1])
    found = retrieval(features[[0, 0]], features, owner, text)
    assert found["i2t_r1"] == 1.0  # the second image is found by the text that it shares
    assert found["t2i_r1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("n", "most", "words"), [(4, 1, 100), (3, 2, 4), (2, 2, 3)])
def test_chance_is_the_mean_over_all_orders(n: int, most: int, words: int) -> None:
    captions = drawn(5, n, most, words)
    _, owner, text = columns(captions)
    flat = [one for own in captions for one in own]

    def share(right: list[bool], k: int) -> float:
        orders = list(itertools.permutations(right))
        return statistics.fmean(any(order[:k]) for order in orders)

    images = [[one in own for one in flat] for own in captions]
    texts = [[one in own for own in captions] for one in flat]
    expected = statistics.fmean(
        statistics.fmean(share(right, k) for right in queries)
        for queries in (images, texts)
        for k in (1, 5, 10)
    )
    assert chance_recall(owner, text) == pytest.approx(expected)
