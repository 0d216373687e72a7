"""Movements rescaled by depth, direction and head, against numpy and transformers."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_models import adapted, land_cover, mini_clip, perturb
from small_siglip import small_siglip
from torch import Tensor

from clipdrift.backbone import Backbone
from clipdrift.data.images import Images
from clipdrift.errors import MethodError
from clipdrift.interventions.rescaled import damped, lines, tempered
from clipdrift.methods.merged import Merged, merged, untouched_text


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return mini_clip()


@pytest.fixture(scope="module")
def moved() -> Merged:
    """Every weight of the vision tower moved at random."""
    part = merged(perturb(adapted("full_ft")))
    assert part is not None
    return part


def test_lines_grow_from_the_first_block_to_the_last(backbone: Backbone, moved: Merged) -> None:
    before, made = backbone.vision_state(), lines(moved, backbone, 0.4).tower
    for name, value in moved.tower.items():
        factor = {"embeddings": 0.4, "pre_layrnorm": 0.4, "post_layernorm": 1.0}.get(
            name.split(".")[0]
        )
        if factor is None:
            factor = 0.4 + 0.6 * int(name.split(".")[2]) / 5
        expected = before[name].numpy() + factor * (value - before[name]).numpy()
        np.testing.assert_allclose(made[name].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_ends_of_lines_are_the_trained_tower_and_an_untouched_first_block(
    backbone: Backbone, moved: Merged
) -> None:
    for name, value in lines(moved, backbone, 1.0).tower.items():
        assert torch.equal(value, moved.tower[name])
    none = lines(moved, backbone, 0.0)
    for name, value in none.tower.items():
        if "layers.0." in name or name.startswith("embeddings"):
            assert torch.equal(value, backbone.vision_state()[name])
    assert (none.projection, none.head) == (moved.projection, moved.head)


def test_lines_scale_a_text_tower_by_its_own_depth(backbone: Backbone, moved: Merged) -> None:
    named = {f"tower.{name}": value + 1.0 for name, value in backbone.text_state().items()}
    made = lines(replace(moved, text=named), backbone, 0.5).text
    before = untouched_text(backbone, named)
    for name, value in made.items():
        shift = 1.0 if "layers.1." in name or "final" in name else 0.5
        torch.testing.assert_close(value, before[name] + shift)


def test_a_planted_intruder_is_damped_and_nothing_else(backbone: Backbone, moved: Merged) -> None:
    name = "encoder.layers.2.mlp.fc1.weight"
    before = backbone.vision_state()
    weight = before[name].double().numpy()
    left = np.linalg.svd(weight)[0]
    outside = left[:, -1]  # of no singular value: a matrix with more rows than columns
    right = np.ones(weight.shape[1]) / np.sqrt(weight.shape[1])
    size = 3 * np.linalg.norm(weight, 2)
    tower = dict(before) | {
        name: torch.from_numpy(weight + size * np.outer(outside, right)).float()
    }
    made = damped(replace(moved, tower=tower), backbone, 0.25).tower
    u, s, v = np.linalg.svd(tower[name].double().numpy(), full_matrices=False)
    intruder = int(np.argmax(np.abs(outside @ u)))
    assert np.abs(left[:, : weight.shape[1]].T @ u[:, intruder]).max() < 0.5
    s[intruder] *= 0.25
    np.testing.assert_allclose(made[name].numpy(), u * s @ v, atol=1e-5)
    for other, value in made.items():
        if other != name:
            assert torch.equal(value, before[other])


def test_without_intruders_damping_changes_nothing_but_rounding(
    backbone: Backbone, moved: Merged
) -> None:
    doubled = {name: 2 * value for name, value in backbone.vision_state().items()}
    made = damped(replace(moved, tower=doubled), backbone, 0.0).tower
    for name, value in made.items():
        torch.testing.assert_close(value, doubled[name])


def entropies(backbone: Backbone, tower: dict[str, Tensor], images: Images) -> np.ndarray:
    """[L, H]: mean entropy of attention from CLS as transformers' eager attention gives it."""
    from transformers import CLIPVisionModel

    config = deepcopy(backbone.model.config.vision_config)  # which is told the implementation
    model = CLIPVisionModel._from_config(config, attn_implementation="eager").eval()
    named = {f"vision_model.{name}": value for name, value in tower.items()}
    own = model.state_dict()
    weights = named if set(named) == set(own) else tower
    model.load_state_dict(weights)
    pixels = backbone.encoder().normalise(torch.from_numpy(images.take(slice(0, len(images)))))
    with torch.no_grad():
        maps = model(pixels, output_attentions=True).attentions
    rows = torch.stack([one[:, :, 0].double() for one in maps])
    return (-(rows * rows.log()).sum(dim=-1).mean(dim=1)).numpy()


def test_tempered_attention_is_as_spread_out_as_before(backbone: Backbone, moved: Merged) -> None:
    images = land_cover(12)
    wanted = entropies(backbone, dict(backbone.vision_state()), images)
    trained = entropies(backbone, dict(moved.tower), images)
    made = tempered(moved, backbone, images, 1.0)
    np.testing.assert_allclose(entropies(backbone, dict(made.tower), images), wanted, atol=1e-4)
    assert np.abs(trained - wanted).max() > 0.05
    changed = {n for n, v in made.tower.items() if not torch.equal(v, moved.tower[n])}
    assert {name.split(".")[-2] for name in changed} == {"q_proj"}
    for name, value in tempered(moved, backbone, images, 0.0).tower.items():
        assert torch.equal(value, moved.tower[name])


def test_a_tower_without_a_cls_token_cannot_be_tempered(moved: Merged) -> None:
    with pytest.raises(MethodError, match="expected a CLS token, got a SigLIP"):
        tempered(moved, small_siglip(), land_cover(2), 1.0)
