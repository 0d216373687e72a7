"""Screened predictions: those of float32, and most of them without it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_models import adapted, land_cover, mini_clip, perturb
from torch import Tensor

from clipdrift.data.drawn.world import WORLD_CLASSES, render_world
from clipdrift.data.images import Images
from clipdrift.probes.zero_shot import cosines
from clipdrift.reading.screening import SAMPLE, Predictor, worth_screening

CPU = torch.device("cpu")
N = 300


class Scores:
    """Scores by image number, exact in float32 and off by given errors under autocast."""

    def __init__(self, exact: Tensor, error: Tensor) -> None:
        self.exact, self.rough = exact, exact + error
        self.asked: list[int] = []

    def images(self) -> Images:
        """Images whose one pixel holds their number."""
        n = len(self.exact)
        numbers = np.stack([np.arange(n) // 256, np.arange(n) % 256, np.zeros(n)], axis=-1)
        pixels = numbers.astype(np.uint8).reshape(n, 1, 1, 3)
        return Images(pixels, np.arange(n), self.exact.argmax(dim=1).numpy())

    def __call__(self, pixels: Tensor) -> Tensor:
        number = pixels[:, 0, 0, 0].long() * 256 + pixels[:, 0, 0, 1]
        if torch.is_autocast_enabled("cpu"):
            return self.rough[number]
        self.asked += number.tolist()
        return self.exact[number]


def clear_scores(n: int = N, classes: int = 5) -> Tensor:
    """A margin of one for class n mod 5."""
    return torch.eye(classes)[torch.arange(n) % classes]


def test_clear_calls_are_never_made_twice() -> None:
    error = 0.05 * torch.rand(N, 5, generator=torch.Generator().manual_seed(0))
    scores, predict = Scores(clear_scores(), error), Predictor(64, screened=True)
    assert predict.correct(scores, scores.images(), CPU).accuracy == 1.0
    assert len(scores.asked) == len(set(scores.asked)) == SAMPLE
    assert np.diff(sorted(scores.asked)).max() <= N // SAMPLE + 1  # all over the set
    assert (predict.images, predict.settled) == (N, SAMPLE)


def test_close_calls_are_decided_in_float32() -> None:
    exact = clear_scores()
    exact[7] = torch.tensor([0.50, 0.51, 0.0, 0.0, 0.0])
    error = 0.01 * torch.randn(N, 5, generator=torch.Generator().manual_seed(0))
    error[7] = torch.tensor([0.02, 0.0, 0.0, 0.0, 0.0])
    scores, predict = Scores(exact, error), Predictor(64, screened=True)
    assert scores.rough[7].argmax() == 0  # screening alone would be wrong
    assert 7 not in np.linspace(0, N - 1, SAMPLE).astype(int)
    found = predict.classes(scores, scores.images(), CPU)
    assert found.tolist() == exact.argmax(dim=1).tolist()
    assert (7 in scores.asked, predict.settled) == (True, SAMPLE + 1)


def test_an_error_that_is_seen_late_widens_the_bound() -> None:
    """Image 7 is close and turns out far off; then image 8, clear until then, is looked at too."""
    exact, error = clear_scores(), torch.full((N, 5), 1e-3) * (torch.arange(5) % 2)
    exact[7] = torch.tensor([0.500, 0.499, 0.9, 0.0, 0.0])
    exact[7, 2], error[7] = 0.4, torch.tensor([0.0, 0.0, 0.1, 0.0, 0.0])
    exact[8], error[8] = torch.tensor([0.9, 1.0, 0.0, 0, 0]), torch.tensor([0.2, 0.0, 0, 0, 0])
    scores, predict = Scores(exact, error), Predictor(64, screened=True)
    found = predict.classes(scores, scores.images(), CPU)
    assert found.tolist() == exact.argmax(dim=1).tolist()
    assert {7, 8} <= set(scores.asked)
    assert predict.settled == SAMPLE + 2


def test_scores_that_are_not_finite_are_settled_and_never_right() -> None:
    exact, error = clear_scores(), torch.zeros(N, 5)
    error[7, 0], exact[8, 3] = torch.nan, torch.inf  # float32 alone can read 7; nothing reads 8
    scores, predict = Scores(exact, error), Predictor(64, screened=True)
    found = predict.classes(scores, scores.images(), CPU)
    assert found[7] == 7 % 5
    assert found[8] == -1
    assert predict.settled == SAMPLE + 2


def test_where_float32_is_not_finite_on_the_sample_nothing_is_screened() -> None:
    exact = torch.full((N, 5), torch.nan)
    scores, predict = Scores(exact, torch.zeros(N, 5)), Predictor(64, screened=True)
    scores.rough = clear_scores()
    assert predict.classes(scores, scores.images(), CPU).tolist() == [-1] * N
    assert predict.settled == N


@pytest.mark.parametrize("predict", [Predictor(64), Predictor(64, screened=True)])
def test_small_sets_and_float32_runs_are_read_in_float32(predict: Predictor) -> None:
    n = 2 * SAMPLE if predict.screened else N
    exact = torch.rand(n, 5, generator=torch.Generator().manual_seed(0))
    scores = Scores(exact, torch.ones(n, 5))
    found = predict.classes(scores, scores.images(), CPU)
    assert found.tolist() == exact.argmax(dim=1).tolist()
    assert (scores.asked, predict.images, predict.settled) == (list(range(n)), 0, 0)


def world_text(*, close: bool) -> Tensor:
    """The embeddings of forty classes, or four hundred within a thousandth of the first."""
    text = mini_clip().text_features([[f"a photo of a {c}"] for c in WORLD_CLASSES[:40]])
    noise = torch.randn(400, text.shape[1], generator=torch.Generator().manual_seed(0))
    return text[:1] + 1e-3 * noise if close else text


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full_ft", "lora"])
@pytest.mark.parametrize("close", [False, True], ids=["apart", "close"])
def test_zero_shot_classes_are_those_of_float32(method: str, close: bool) -> None:
    """Also where the embeddings of the classes are hardly to be told apart."""
    images = Images(render_world(np.arange(N) % 40, seed=5), np.arange(N), np.arange(N) % 40)
    encoder, text = perturb(adapted(method), 0.02).encoder, world_text(close=close)
    with torch.inference_mode():
        expected = cosines(encoder(torch.from_numpy(images.pixels)), text).argmax(dim=1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = encoder(torch.from_numpy(images.pixels)).float()
    if close:  # or nothing would be tested
        assert (cosines(rough, text).argmax(dim=1) != expected).any()
    predict = Predictor(100, screened=True)
    found = predict.classes(lambda p: cosines(encoder(p).float(), text), images, CPU)
    assert torch.equal(found, expected)
    assert SAMPLE <= predict.settled <= N
    assert close or predict.settled < N


def test_classes_of_the_head_are_those_of_float32() -> None:
    images, model = land_cover(N), perturb(adapted("full_ft"), 0.02)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images.pixels)).argmax(dim=1)
    predict = Predictor(100, screened=True)
    assert torch.equal(predict.classes(model, images, CPU), expected)
    assert predict.settled < N


def backbone_of(**vision: Any) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    with torch.device("meta"):
        tower = CLIPVisionModel(CLIPVisionConfig(**vision))
    return SimpleNamespace(model=SimpleNamespace(vision_model=tower))


def test_large_towers_are_screened_and_small_ones_are_not() -> None:
    large = backbone_of(hidden_size=768, intermediate_size=3072, image_size=224, patch_size=32)
    assert worth_screening(large, "bfloat16")
    assert not worth_screening(large, "float32")
    assert not worth_screening(mini_clip(), "bfloat16")
