"""How often `clipdrift.locate` names a part that was damaged by hand.

    python benchmarks/located_truth.py [TRIALS [MOVED]]

In each trial one kind of one block of mini-clip, both drawn, gets normal noise of 2, 4 or 8 times
its own norm; in the last MOVED trials every other tensor is moved by 0.3 % as well. `locate` sees
the model alone, with its defaults; attention patterns, which have no say in the answer, are left
out.
"""

from __future__ import annotations

import copy
import sys
import time
from collections import Counter

import numpy as np
import torch

import clipdrift
from clipdrift.interventions.parts import parts
from clipdrift.methods.tower_weights import in_encoder

SIZES, LITTLE = (2.0, 4.0, 8.0), 0.003


def damaged(backbone, trial: int, *, moved: bool):  # type: ignore[no-untyped-def]
    """A copy of the backbone's model with one part damaged, and which part that is."""
    draw = np.random.default_rng([21, trial])
    noise = torch.Generator().manual_seed(trial)
    weights = in_encoder(backbone.vision_state(), backbone.projection_state())
    blocks = len(backbone.model.vision_model.encoder.layers)
    kinds = [p for p in parts(weights, blocks) if p.kind in ("attention", "mlp", "norms")]
    part, size = kinds[draw.integers(len(kinds))], SIZES[draw.integers(len(SIZES))]
    model = copy.deepcopy(backbone.model)
    named = dict(model.vision_model.named_parameters(prefix="tower"))
    with torch.no_grad():
        for name, value in sorted(named.items()):
            share = size if name in part.names else LITTLE if moved else 0.0
            change = torch.randn(value.shape, generator=noise)
            value.add_(share * value.norm() / change.norm() * change)
    return model, part, size


def main(trials: int, moved: int) -> None:
    gauge = clipdrift.Gauge(
        "mini-clip",
        probe="digits",
        transfers={"world": {"builtin": "world", "n_images": 300}},
        device="cpu",
    )
    counts: Counter[tuple[bool, str]] = Counter()
    started = time.process_time()
    for trial in range(trials):
        rest = trial >= trials - moved
        model, part, size = damaged(gauge.backbone, trial, moved=rest)
        found = clipdrift.locate(gauge, model, what=["weights"])
        told = found.carriers["world"]
        named = (told.block, told.kind)
        right = named == (part.block, part.kind)
        blank = told.kind is None or (told.block == part.block and told.kind == "block")
        outcome = "right" if right else "cannot tell" if blank else "wrong"
        counts[rest, outcome] += 1
        lost = next(
            row for row in found.edits["model"] if row.edit == "graft" and row.kind == "all"
        )
        if not right:
            print(
                f"trial {trial}: block {part.block}, {part.kind}, size {size:g}, "
                f"{lost.change_pp:+.0f} pp: {told.words} ({told.reason})",
                flush=True,
            )
    for (rest, outcome), n in sorted(counts.items()):
        print("all else moved by 0.3 %" if rest else "all else untouched", outcome, n)
    print(f"{time.process_time() - started:.0f} s of CPU time")


if __name__ == "__main__":
    main(*(int(text) for text in (*sys.argv[1:], *("100", "0")[len(sys.argv) - 1 :])))
