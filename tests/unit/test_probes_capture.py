"""One streaming pass against transformers' own eager attentions and hidden states."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from clipdrift.probes import attention_maps
from clipdrift.probes.attention_maps import BlockAttention, attention_sink
from clipdrift.probes.capture import ProbeReading, read_probe

N, L, H, P = 7, 3, 2, 25
Array = NDArray[np.float64]
FLOAT32 = {"rtol": 1e-5, "atol": 1e-7}


@pytest.fixture
def clip() -> Any:
    """3 blocks, 2 heads, 5x5 patches, random; queries and keys enlarged so that heads differ."""
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=L,
        num_attention_heads=H,
        image_size=20,
        patch_size=4,
        projection_dim=6,
        attention_dropout=0.3,
    )
    model = CLIPVisionModelWithProjection(config)
    with torch.no_grad():
        for block in model.vision_model.encoder.layers:
            block.self_attn.q_proj.weight.mul_(8)
            block.self_attn.k_proj.weight.mul_(8)
    return model.requires_grad_(False).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(N, 3, 20, 20, generator=torch.Generator().manual_seed(1))


def encoder_of(clip: Any) -> Callable[[Tensor], Tensor]:
    def encode(pixels: Tensor) -> Tensor:
        projected: Tensor = clip.visual_projection(
            clip.vision_model(pixel_values=pixels).pooler_output
        )
        return projected

    return encode


def read(clip: Any, images: Tensor, size: int = N) -> ProbeReading:
    return read_probe(encoder_of(clip), clip.vision_model, images.split(size))


def assert_same(found: ProbeReading, expected: ProbeReading, **tolerance: float) -> None:
    for field in fields(ProbeReading):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        torch.testing.assert_close(a, b, msg=lambda m, n=field.name: f"{n}: {m}", **tolerance)


def eager(clip: Any, images: Tensor) -> Any:
    """transformers' own maps and states, by its slow path on a copy."""
    slow = copy.deepcopy(clip)
    slow.set_attn_implementation("eager")
    with torch.no_grad():
        return slow(pixel_values=images, output_attentions=True, output_hidden_states=True)


def gini_of(a: Array) -> float:
    return float(np.abs(a[:, None] - a[None, :]).sum() / (2 * len(a) ** 2 * a.mean()))


def erf_of(a: Array) -> float:
    return float((np.cumsum(np.sort(a)[::-1]) < 0.95 - 1e-6).sum() + 1) / len(a)


def entropy_of(a: Array) -> float:
    return float(-sum(p * np.log(p) for p in a if p > 0))


def diversity_of(maps: Array) -> float:
    unit = [m / np.sqrt((m * m).sum()) for m in maps]
    cosines = [unit[i] @ unit[j] for i in range(H) for j in range(i + 1, H)]
    return float(1 - np.mean(cosines))


def recomputed(out: Any) -> dict[str, Array]:
    """Every quantity with loops over images, blocks and heads in float64."""
    attn = np.stack([a.double().numpy() for a in out.attentions], axis=1)  # [N, L, H, T, T]
    cls = attn[:, :, :, 0, 1:] / attn[:, :, :, 0, 1:].sum(-1, keepdims=True)
    rows = attn[:, :, :, 1:, 1:] / attn[:, :, :, 1:, 1:].sum(-1, keepdims=True)
    r: dict[str, Array] = {}

    def per_head(measure: Callable[[Array], float]) -> Array:
        values = [measure(cls[i]) for i in np.ndindex(N, L, H)]
        return np.array(values).reshape(N, L, H).mean(-1)

    r["cls_entropy_nats"] = per_head(entropy_of)
    r["erf95"] = per_head(erf_of)
    r["gini"] = per_head(gini_of)
    r["head_diversity"] = np.array([diversity_of(cls[i]) for i in np.ndindex(N, L)]).reshape(N, L)
    r["head_diversity_paper"] = np.array([diversity_of(cls[:, b].mean(0)) for b in range(L)])
    bits = [entropy_of(rows[i]) / np.log(2) for i in np.ndindex(N, L, H, P)]
    r["patch_entropy_bits"] = np.array(bits).reshape(N, L, H, P).mean((2, 3))
    flow = []
    for image in attn:
        mixed = [0.5 * block.mean(0) + 0.5 * np.eye(P + 1) for block in image]
        row = np.linalg.multi_dot(mixed[::-1])[0, 1:]
        flow.append(row / row.sum())
    r["rollout_entropy_bits"] = np.array([entropy_of(a) / np.log(2) for a in flow])
    r["rollout_erf95"] = np.array([erf_of(a) for a in flow])
    r["rollout_gini"] = np.array([gini_of(a) for a in flow])
    r["cls_activations"] = np.stack([h[:, 0].double().numpy() for h in out.hidden_states[1:]])
    r["embeddings"] = out.image_embeds.double().numpy()
    return r


def test_a_pass_reads_what_transformers_returns(clip: Any, images: Tensor) -> None:
    reading, out = read(clip, images), eager(clip, images)
    assert len(out.attentions) == L
    assert float(out.attentions[0].std()) > 0.01  # far from uniform, or little would be tested
    for name, expected in recomputed(out).items():
        found = getattr(reading, name)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("size", [1, 3])
def test_batches_leave_no_trace(clip: Any, images: Tensor, size: int) -> None:
    assert_same(read(clip, images, size), read(clip, images), **FLOAT32)


def test_the_tower_is_left_as_it_was(clip: Any, images: Tensor) -> None:
    tower = clip.vision_model.train()
    tower.encoder.layers[1].eval()
    modes = [module.training for module in tower.modules()]
    before = tower.config._attn_implementation
    during = []

    def encode(pixels: Tensor) -> Tensor:
        during.append((tower.config._attn_implementation, any(m.training for m in tower.modules())))
        return encoder_of(clip)(pixels)

    first = read_probe(encode, tower, [images])
    assert during == [(attention_maps.IMPLEMENTATION, False)]
    assert [module.training for module in tower.modules()] == modes
    assert tower.config._attn_implementation == before
    assert_same(read(clip, images), first, rtol=0.0, atol=0.0)  # no dropout, nothing left behind


def test_the_tower_is_left_as_it_was_after_an_error(clip: Any, images: Tensor) -> None:
    tower = clip.vision_model.train()
    before = tower.config._attn_implementation
    hooks = [len(block._forward_hooks) for block in tower.encoder.layers]

    def encode(pixels: Tensor) -> Tensor:
        tower(pixel_values=pixels)
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        read_probe(encode, tower, [images])
    assert tower.config._attn_implementation == before
    assert tower.training
    assert [len(block._forward_hooks) for block in tower.encoder.layers] == hooks
    assert not attention_maps._SINKS


def pieces_of(monkeypatch: pytest.MonkeyPatch, heads: int) -> None:
    """Let a piece hold so many heads of a map of this test's tower."""
    monkeypatch.setitem(attention_maps.PIECE_BYTES, "cpu", heads * 4 * (P + 1) ** 2)


def test_only_one_piece_of_a_map_is_alive(
    clip: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores before the softmax count as a map; a storage also lives on in views of it."""
    maps: list[StorageWeakRef] = []
    alive: list[int] = []
    softmax, measure = torch.softmax, attention_maps.patch_entropy_bits

    def softmax_spy(scores: Tensor, **options: Any) -> Tensor:
        attn = softmax(scores, **options)
        maps.extend(StorageWeakRef(x.untyped_storage()) for x in (scores, attn))
        return attn

    def measure_spy(attn: Tensor) -> Tensor:
        assert attn.shape == (1, 1, P + 1, P + 1)
        alive.append(sum(not ref.expired() for ref in maps))
        return measure(attn)

    monkeypatch.setattr(torch, "softmax", softmax_spy)
    monkeypatch.setattr(attention_maps, "patch_entropy_bits", measure_spy)
    pieces_of(monkeypatch, 1)
    clip.requires_grad_(True)  # a graph would keep every map
    reading = read(clip, images, size=3)
    assert alive == [1] * (N * H * L)
    assert all(ref.expired() for ref in maps)
    assert not any(getattr(reading, f.name).requires_grad for f in fields(ProbeReading))


@pytest.mark.parametrize("heads", [0, 1, 2, 3, 5])
def test_pieces_leave_no_trace(
    clip: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch, heads: int
) -> None:
    whole = read(clip, images)
    pieces_of(monkeypatch, heads)
    assert_same(read(clip, images), whole, **FLOAT32)


@pytest.mark.parametrize("heads", [1, 3, 100])
def test_a_sink_hears_of_transformers_maps_in_order_of_the_blocks(
    clip: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch, heads: int
) -> None:
    pieces_of(monkeypatch, heads)
    seen: list[tuple[int, BlockAttention]] = []
    with torch.no_grad(), attention_sink(clip.vision_model, lambda *got: seen.append(got)):
        clip(pixel_values=images)
    assert [block for block, _ in seen] == [0, 1, 2]
    for (_, found), attn in zip(seen, eager(clip, images).attentions, strict=True):
        torch.testing.assert_close(found.cls, attn[:, :, 0], **FLOAT32)
        torch.testing.assert_close(found.mean, attn.mean(dim=1), **FLOAT32)
        rows = attn[:, :, 1:, 1:].double().numpy()
        bits = stats.entropy(rows, base=2, axis=-1).mean(axis=-1)  # renormalises each row
        np.testing.assert_allclose(found.patch_entropy_bits, bits, rtol=1e-5)


def test_a_masked_tower_is_refused(clip: Any, images: Tensor) -> None:
    block = clip.vision_model.encoder.layers[0]
    state = torch.zeros(1, P + 1, 16)
    with (
        attention_sink(clip.vision_model, lambda *got: None),
        pytest.raises(ValueError, match="attention: expected a vision tower without a mask"),
    ):
        block(state, attention_mask=torch.zeros(1, 1, P + 1, P + 1))


def test_another_tower_on_the_same_config_still_works(clip: Any, images: Tensor) -> None:
    other = copy.deepcopy(clip)
    for module in other.modules():
        if hasattr(module, "config"):
            module.config = clip.vision_model.config
    expected = other(pixel_values=images).image_embeds
    seen: list[int] = []
    with attention_sink(clip.vision_model, lambda block, attn: seen.append(block)):
        found = other(pixel_values=images).image_embeds
    # SDPA and the plain product round differently; elements near zero carry the others' rounding.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert seen == []


def test_autocast_around_it_changes_nothing(clip: Any, images: Tensor) -> None:
    expected = read(clip, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_same(read(clip, images), expected, rtol=0.0, atol=0.0)


def add_lora(module: Any, *, wrap: bool) -> Any:
    from peft import LoraConfig, get_peft_model, inject_adapter_in_model

    config = LoraConfig(r=2, lora_alpha=4, lora_dropout=0.5, target_modules=["q_proj", "v_proj"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted = (get_peft_model if wrap else lambda m, c: inject_adapter_in_model(c, m))(
            module, config
        )
    torch.manual_seed(2)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.5)
    return adapted


@pytest.mark.parametrize("wrap", [True, False], ids=["PeftModel", "in place"])
def test_live_adapters_are_read_as_merged(clip: Any, images: Tensor, wrap: bool) -> None:
    untouched = read(clip, images)
    adapted = copy.deepcopy(clip)
    adapted.vision_model = add_lora(adapted.vision_model, wrap=wrap)
    adapted.train()  # the adapters' dropout must not be read
    live = read(adapted, images, size=3)
    merged = copy.deepcopy(clip)
    factors = {n: p for n, p in adapted.vision_model.named_parameters() if "lora_" in n}
    for number, block in enumerate(merged.vision_model.encoder.layers):
        for layer in ("q_proj", "v_proj"):
            mine = [n for n in factors if f"layers.{number}.self_attn.{layer}." in n]
            a, b = (next(factors[n] for n in mine if f"lora_{x}." in n) for x in "AB")
            getattr(block.self_attn, layer).weight.add_(2.0 * (b @ a).detach())  # alpha / r = 2
    # Live and merged round differently before the softmax, which sharpens the difference.
    assert_same(live, read(merged, images), rtol=1e-4, atol=1e-5)
    for name in ("cls_entropy_nats", "patch_entropy_bits", "rollout_gini", "embeddings"):
        assert (getattr(live, name) - getattr(untouched, name)).abs().max() > 1e-3, name


def test_scoring_past_the_tower_is_refused(clip: Any, images: Tensor) -> None:
    other = copy.deepcopy(clip)
    encode = encoder_of(clip)
    message = "encode: expected one pass through vision_model per call.*very tower that is read"
    for wrong in (
        encoder_of(other),
        lambda pixels: encode(pixels) + encode(pixels),
        lambda pixels: clip.vision_model.embeddings(pixels)[:, 0],
    ):
        with pytest.raises(ValueError, match=message):
            read_probe(wrong, clip.vision_model, [images])


def test_what_cannot_be_read_is_named(clip: Any, images: Tensor) -> None:
    tower, encode = clip.vision_model, encoder_of(clip)
    with pytest.raises(ValueError, match=r"images: expected torch.float32, got torch.uint8"):
        read_probe(encode, tower, [images.to(torch.uint8)])
    with pytest.raises(ValueError, match="batches: expected probe images, got none"):
        read_probe(encode, tower, [])
    with pytest.raises(ValueError, match=r"embeddings \[B, E\], got \[7\] for 7 images"):
        read_probe(lambda x: encode(x)[:, 0], tower, [images])
    with pytest.raises(ValueError, match=r"weights: expected torch.float32, got torch.bfloat16"):
        read_probe(encode, tower.to(torch.bfloat16), [images])
    with pytest.raises(ValueError, match=r"with encoder.layers, got Linear. Pass the tower itself"):
        read_probe(encode, nn.Linear(1, 1), [images])
