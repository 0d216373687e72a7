"""Edits of weights against transformers itself, identities, and numpy."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from small_models import write_random_clip
from small_siglip import write_random_siglip
from torch import Tensor

from clipdrift.backbone import Backbone, load_backbone
from clipdrift.data.images import Images
from clipdrift.interventions.asked import Asked, about_blocks
from clipdrift.interventions.edits import Edit, Editor
from clipdrift.interventions.parts import Ends, Weights, ends_of, parts
from clipdrift.interventions.patches import (
    Patch,
    patch_passes,
    patched,
    patches,
    with_rule,
)
from clipdrift.interventions.states import States, embeddings_of, passes
from clipdrift.interventions.walk import Walk
from clipdrift.methods.tower_weights import in_encoder
from clipdrift.records.located import WHAT, What
from clipdrift.spec.parts import BackboneSpec

Both = tuple[Backbone, Ends]


def moved(weights: Weights, names: Iterator[str] | None = None) -> dict[str, Tensor]:
    """Every tensor, or some of them, moved by noise."""
    draw = torch.Generator().manual_seed(2)
    which = set(weights if names is None else names)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=draw) if name in which else value
        for name, value in weights.items()
    }


def every_edit(ends: Ends, n: int, draws: int = 1, *, seed: int = 0) -> list[Edit]:
    """With kinds and both controls in all blocks."""
    return list(Editor(ends, n, draws, elsewhere=True, seed=seed).edits(range(1, n + 1)))


def both_ends(backbone: Backbone) -> Ends:
    untouched = in_encoder(backbone.vision_state(), backbone.projection_state())
    return ends_of(untouched, moved(untouched))


@pytest.fixture(scope="module", params=["clip", "siglip"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    folder = tmp_path_factory.mktemp("model") / request.param
    write = write_random_clip if request.param == "clip" else write_random_siglip
    backbone = load_backbone(BackboneSpec(id=str(write(folder, dtype=torch.float32))))
    return backbone, both_ends(backbone)


def n_blocks(backbone: Backbone) -> int:
    return len(backbone.model.vision_model.encoder.layers)


def noise(backbone: Backbone, n: int = 5) -> Images:
    shape = (n, backbone.image_size, backbone.image_size, 3)
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    return Images(pixels, np.arange(n), np.arange(n) % 2)


def whole_pass(backbone: Backbone, weights: Weights, images: Images) -> Tensor:
    """By transformers' own tower, from pixels to the end, with weights loaded into it."""
    encoder = backbone.encoder()
    encoder.load_state_dict({**encoder.state_dict(), **weights})
    with torch.inference_mode():
        pixels = encoder.normalise(torch.from_numpy(images.pixels))
        found: Tensor = encoder.projection(encoder.tower(pixel_values=pixels).pooler_output)
    return found


def test_every_tensor_is_in_one_part_and_in_one_kind(both: Both) -> None:
    backbone, ends = both
    n = n_blocks(backbone)
    every = parts(ends.untouched, n)
    whole = [part for part in every if part.kind in ("embeddings", "block", "projection")]
    assert sorted(n for part in whole for n in part.names) == sorted(ends.untouched)
    for block in range(1, n + 1):
        inside = [part for part in every if part.block == block]
        assert [part.kind for part in inside] == ["block", "attention", "mlp", "norms"]
        assert sorted(n for part in inside[1:] for n in part.names) == sorted(inside[0].names)
        assert all(f"layers.{block - 1}." in name for name in inside[0].names)


@pytest.mark.slow
def test_edits_go_on_from_kept_states_to_what_whole_passes_give(both: Both) -> None:
    """Transformers' own tower under the same weights: no state of another model leaked in."""
    backbone, ends = both
    walk, images = Walk(backbone.encoder()), noise(backbone)
    edits = every_edit(ends, walk.n_blocks)
    states = States(walk, [ends.adapted, ends.untouched], images)
    found = embeddings_of(states, [e.weights for e in edits])
    for edit, embedded in zip(edits, found, strict=True):
        expected = whole_pass(backbone, edit.weights, images)
        torch.testing.assert_close(embedded, expected, rtol=1e-5, atol=1e-6)
    # One at a time and without a kept state it is the same bit by bit.
    for edit, embedded in list(zip(edits, found, strict=True))[::5]:
        copied = {name: value.clone() for name, value in edit.weights.items()}
        (alone,) = embeddings_of(States(walk, [ends.adapted], images), [copied])
        assert torch.equal(alone, embedded)


def of_place(edits: list[Edit], name: str, block: int | None, kind: str) -> Edit:
    (found,) = [
        e for e in edits if (e.edit, e.block, e.kind, e.beside) == (name, block, kind, None)
    ]
    return found


def test_all_put_back_is_untouched_and_all_moved_is_adapted(both: Both) -> None:
    backbone, ends = both
    walk, images = Walk(backbone.encoder()), noise(backbone)
    edits = every_edit(ends, walk.n_blocks)
    last = walk.n_blocks
    back, whole = of_place(edits, "revert", None, "all"), of_place(edits, "graft", None, "all")
    above = of_place(edits, "revert_above", 1, "block")
    embeddings = of_place(edits, "graft", None, "embeddings")
    below = of_place(edits, "revert_below", last, "block")
    projection = of_place(edits, "graft", None, "projection")
    for one, same in (
        *((back.weights, ends.untouched), (whole.weights, ends.adapted)),
        *((above.weights, embeddings.weights), (below.weights, projection.weights)),
    ):
        assert all(torch.equal(one[name], same[name]) for name in same)
    got = embeddings_of(
        States(walk, [ends.adapted, ends.untouched], images),
        [back.weights, whole.weights, ends.untouched, ends.adapted],
    )
    assert torch.equal(got[0], got[2])
    assert torch.equal(got[1], got[3])
    assert not torch.equal(got[0], got[1])


def test_kinds_of_a_block_commute_and_make_the_block(both: Both) -> None:
    backbone, ends = both
    edits = every_edit(ends, n_blocks(backbone))
    block = of_place(edits, "revert", 2, "block").weights
    kinds = [of_place(edits, "revert", 2, kind).weights for kind in ("attention", "mlp", "norms")]
    for order in (kinds, kinds[::-1]):
        together = dict(ends.adapted)
        for one in order:
            together |= {n: v for n, v in one.items() if v is not ends.adapted[n]}
        assert all(together[name] is block[name] for name in block)


def size(one: Weights, other: Weights) -> float:
    return float(np.sqrt(sum(((one[n] - other[n]).double().numpy() ** 2).sum() for n in one)))


def test_controls_are_as_large_as_the_edit_and_where_they_say(both: Both) -> None:
    backbone, ends = both
    edits = every_edit(ends, n_blocks(backbone), 3, seed=4)
    for edit in edits:
        if edit.beside is None:
            continue
        base = ends.adapted if edit.of == "adapted" else ends.untouched
        own = of_place(edits, edit.edit, edit.block, edit.kind)
        assert size(edit.weights, base) == pytest.approx(size(own.weights, base), rel=1e-4)
        inside = {n for n in base if edit.weights[n] is not base[n]}
        where = {n for n in base if own.weights[n] is not base[n]}
        assert (inside == where) if edit.beside == "random" else not inside & where
    draws = [e for e in edits if e.beside == "random" and (e.block, e.kind) == (1, "mlp")]
    assert [e.draw for e in draws] == [0, 1, 2, 0, 1, 2]
    again = every_edit(ends, n_blocks(backbone), 3, seed=4)
    other = every_edit(ends, n_blocks(backbone), 3, seed=5)
    at = edits.index(draws[0])
    name = "tower.encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(again[at].weights[name], edits[at].weights[name])
    assert not torch.equal(other[at].weights[name], edits[at].weights[name])


def test_what_did_not_move_is_neither_edited_nor_passed_again(both: Both) -> None:
    """Of a model whose attention moved, a block is its attention: one pass for both."""
    backbone, _ = both
    untouched = in_encoder(backbone.vision_state(), backbone.projection_state())
    ends = ends_of(untouched, moved(untouched, (n for n in untouched if "q_proj" in n)))
    n = n_blocks(backbone)
    edits = every_edit(ends, n)
    block, attention = (of_place(edits, "graft", n, kind) for kind in ("block", "attention"))
    assert all(block.weights[name] is attention.weights[name] for name in untouched)
    assert of_place(edits, "revert", n, "mlp").moved_rel == 0
    assert not [e for e in edits if e.beside and e.kind in ("mlp", "norms", "projection")]
    # Two evaluations a block for revert and graft, each from its own block on.
    pair = [of_place(edits, name, b, "block").weights for name in ("revert", "graft")
            for b in range(1, n + 1)]  # fmt: skip
    both_ways = passes(pair, [ends.adapted, ends.untouched], n)
    assert both_ways <= 2 * sum(n + 1 - b for b in range(1, n + 1))


@pytest.mark.parametrize("what", [("weights",), ("kinds",), ("kinds", "elsewhere")])
@pytest.mark.parametrize("controls", [True, False])
def test_the_cost_told_before_is_about_what_is_passed(
    both: Both, what: tuple[What, ...], controls: bool
) -> None:
    backbone, ends = both
    walk = Walk(backbone.encoder())
    editor = Editor(ends, walk.n_blocks, draws=2, elsewhere="elsewhere" in what)
    first = (
        range(1, walk.n_blocks + 1) if "kinds" in what else () if controls else (1, walk.n_blocks)
    )
    stages = [editor.edits(first, controls=controls)]
    if not first:  # of transfer sets the blocks are known after a first stage
        stages.append(editor.edits_inside((1, walk.n_blocks), controls=controls))
    passed = 2 * walk.n_blocks + sum(
        passes([e.weights for e in edits], [ends.adapted, ends.untouched], walk.n_blocks)
        for edits in stages
    )
    told = about_blocks(walk, Asked(what, draws=2), on_transfer=controls)
    assert 0.85 * told <= passed <= 1.15 * told


def test_a_model_patched_with_its_own_attention_is_as_it_was(both: Both) -> None:
    backbone, ends = both
    walk = Walk(backbone.encoder())
    staged = walk.staged(ends.adapted)
    pixels = next(iter(walk.batches(noise(backbone))))
    with torch.inference_mode():
        states = walk.states(staged, pixels)
        hidden = states[0]
        for number in range(1, walk.n_blocks + 1):
            own = walk.pattern(number, staged, states[number - 1])
            torch.testing.assert_close(own.sum(-1), torch.ones(own.shape[:-1]))
            hidden = with_rule(walk, number, staged, hidden, lambda now, own=own: own)
    apart = float((hidden - states[-1]).norm() / states[-1].norm())
    assert apart < 1e-6


def by_hand(
    backbone: Backbone,
    weights: Weights,
    other: Weights,
    images: Images,
    edit: str,
    block: int,
    head: int | None = None,
) -> Tensor:
    """One block of transformers' tower with a pattern that its eager attention reports.

    head: None for all, each on the state that enters the block unedited.
    """

    def maps(values: Weights) -> Tensor:
        encoder = backbone.encoder()
        encoder.tower.set_attn_implementation("eager")
        encoder.load_state_dict({**encoder.state_dict(), **values})
        out = encoder.tower(
            pixel_values=encoder.normalise(torch.from_numpy(images.pixels)), output_attentions=True
        )
        found: Tensor = out.attentions[block - 1]
        return found

    given = {
        "attention_other_model": lambda: maps(other),
        "attention_other_image": lambda: maps(weights).roll(1, dims=0),
        "attention_uniform": lambda: torch.full_like(maps(weights), 1 / maps(weights).shape[-1]),
    }[edit]
    encoder = backbone.encoder()
    encoder.load_state_dict({**encoder.state_dict(), **weights})
    attention = encoder.tower.encoder.layers[block - 1].self_attn
    with torch.no_grad():
        pattern_given = given()
        if head is not None:
            own = maps(weights).clone()
            own[:, head - 1] = pattern_given[:, head - 1]
            pattern_given = own

        def instead(hidden_states: Tensor, **_: object) -> tuple[Tensor, None]:
            n, t, d = hidden_states.shape
            values = attention.v_proj(hidden_states).view(n, t, attention.num_heads, -1)
            mixed = torch.einsum("bhqk,bkhd->bqhd", pattern_given, values)
            return attention.out_proj(mixed.reshape(n, t, d)), None

        attention.forward = instead
        pixels = encoder.normalise(torch.from_numpy(images.pixels))
        found: Tensor = encoder.projection(encoder.tower(pixel_values=pixels).pooler_output)
    return found


def test_patched_attention_is_what_transformers_gives_with_it(both: Both) -> None:
    backbone, ends = both
    walk, images = Walk(backbone.encoder()), noise(backbone)
    wanted = patches(walk, ["attention", "ablations"])
    assert len(wanted) == 8 * (walk.n_blocks + 1)
    found = patched(States(walk, [ends.adapted, ends.untouched], images), wanted)
    assert list(found) == wanted
    sides = {"adapted": (ends.adapted, ends.untouched), "untouched": (ends.untouched, ends.adapted)}
    for of, (own, other) in sides.items():
        for edit in ("attention_other_model", "attention_other_image", "attention_uniform"):
            for block in (1, walk.n_blocks):
                expected = by_hand(backbone, own, other, images, edit, block)
                got = found[Patch(edit, of, block)]  # type: ignore[arg-type]
                torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_head_is_patched_alone(both: Both) -> None:
    backbone, ends = both
    walk, images = Walk(backbone.encoder()), noise(backbone)
    states = States(walk, [ends.adapted, ends.untouched], images)
    wanted = patches(walk, ["heads"])
    assert len(wanted) == 2 * walk.n_blocks * walk.n_heads
    found = patched(states, wanted)
    for block in (1, walk.n_blocks):
        for head in (1, walk.n_heads):
            expected = by_hand(
                backbone, ends.adapted, ends.untouched, images, "attention_other_model", block, head
            )
            got = found[Patch("attention_other_model", "adapted", block, head=head)]
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    one, other = (found[Patch("attention_other_model", "adapted", 1, head=h)] for h in (1, 2))
    assert not torch.allclose(one, other, atol=1e-4)


def test_states_put_in_whole_are_weights_put_back_below(both: Both) -> None:
    """So that only the CLS token's state and that of the patches are put in apart."""
    backbone, ends = both
    walk, images = Walk(backbone.encoder()), noise(backbone)
    states = States(walk, [ends.adapted, ends.untouched], images)
    edits = every_edit(ends, walk.n_blocks)
    (batch,) = states
    with torch.inference_mode():
        for block in range(1, walk.n_blocks):
            below = of_place(edits, "revert_below", block, "block").weights
            whole = walk.go_on(walk.staged(ends.adapted), batch.states[1][block], block + 1)
            (expected,) = embeddings_of(States(walk, [ends.untouched], images), [below])
            assert torch.equal(whole, expected)
    wanted = patches(walk, ["states"])
    assert len(wanted) == (2 * 2 * (walk.n_blocks - 1) if walk.has_cls else 0)
    for patch, got in patched(states, wanted).items():
        tokens = slice(0, 1) if patch.kind == "cls" else slice(1, None)
        own, other = (ends.adapted, ends.untouched)
        if patch.of == "untouched":
            own, other = other, own
        expected = with_state(backbone, own, other, images, patch.block or 0, tokens)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def with_state(
    backbone: Backbone, own: Weights, other: Weights, images: Images, block: int, tokens: slice
) -> Tensor:
    """transformers' own tower, into which a hook puts some tokens of another pass."""
    found: list[Tensor] = []

    def keep(module: object, args: object, out: Tensor) -> None:
        found.append(out)

    def put(module: object, args: object, out: Tensor) -> Tensor:
        mixed = out.clone()
        mixed[:, tokens] = found[0][:, tokens]
        return mixed

    for weights, hook in ((other, keep), (own, put)):
        encoder = backbone.encoder()
        encoder.load_state_dict({**encoder.state_dict(), **weights})
        encoder.tower.encoder.layers[block - 1].register_forward_hook(hook)
        with torch.inference_mode():
            pixels = encoder.normalise(torch.from_numpy(images.pixels))
            embedded: Tensor = encoder.projection(encoder.tower(pixel_values=pixels).pooler_output)
    return embedded


def test_shuffled_attention_is_the_same_weights_in_another_order(both: Both) -> None:
    backbone, ends = both
    walk, images = Walk(backbone.encoder()), noise(backbone)
    states = States(walk, [ends.adapted, ends.untouched], images)
    at, all_else = Patch("attention_shuffled", "adapted", 1), patches(walk, WHAT)
    first, again, other = (
        patched(states, wanted, seed=seed) for wanted, seed in (([at], 3), (all_else, 3), ([at], 4))
    )
    plain = whole_pass(backbone, ends.adapted, images)
    assert torch.equal(first[at], again[at])
    assert not torch.equal(first[at], other[at])
    assert not torch.allclose(first[at], plain, atol=1e-4)


def test_patching_a_block_alone_and_in_all_agree_on_a_model_of_one_block(both: Both) -> None:
    """And the attention implementation is put back."""
    backbone, ends = both
    encoder = backbone.encoder()
    encoder.tower.encoder.layers = encoder.tower.encoder.layers[:1]
    walk = Walk(encoder)
    kept = {n: v for n, v in ends.untouched.items() if ".layers." not in n or ".layers.0." in n}
    one = ends_of(kept, {n: ends.adapted[n] for n in kept})
    before = encoder.tower.config._attn_implementation
    wanted = patches(walk, ["attention", "ablations", "states"])
    assert patch_passes(wanted, 1) == 1 + 16
    found = patched(States(walk, [one.adapted, one.untouched], noise(backbone)), wanted)
    for patch, embedded in found.items():
        if patch.edit != "attention_shuffled":  # drawn anew
            same = found[Patch(patch.edit, patch.of, 1)]
            torch.testing.assert_close(embedded, same, rtol=1e-6, atol=1e-6)
    assert encoder.tower.config._attn_implementation == before
    edits = every_edit(one, 1)
    assert not [e for e in edits if e.beside == "elsewhere"]
