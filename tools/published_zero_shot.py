"""Hold zero-shot accuracies of untouched models against published ones; needs the hub.

    python tools/published_zero_shot.py            # exit code 1 where one is half a point off

Published: open_clip, docs/openclip_classification_results.csv (models of the same weights there:
ViT-B-32 and ViT-B-16 of openai, ViT-B-16-SigLIP of webli), with the prompts published with CLIP.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Table

import clipdrift

PUBLISHED = {
    "openai/clip-vit-base-patch32": {"cifar10": 0.8983, "cifar100": 0.6423, "food101": 0.8400},
    "openai/clip-vit-base-patch16": {"cifar10": 0.9077, "cifar100": 0.6695, "food101": 0.8872},
    "google/siglip-base-patch16-224": {"cifar10": 0.9234, "cifar100": 0.7223, "food101": 0.9162},
}
POINTS = 0.5
PROBE = {"name": "few", "builtin": "land-cover", "n_images": 10}
"""Something to read drift on, which is not looked at."""


def main() -> int:
    """Print a row a model and set; whether all are near enough."""
    table = Table(
        "model", "set", "read %", "published %", "points apart", title="Zero-shot accuracy"
    )
    far = 0
    for backbone, sets in PUBLISHED.items():
        transfers = {name: {"builtin": name, "templates": "ensemble"} for name in sets}
        gauge = clipdrift.Gauge(backbone, probe=PROBE, transfers=transfers)
        for name, published in sets.items():
            read = gauge.baseline.transfer[name].accuracy
            apart = 100 * (read - published)
            far += abs(apart) > POINTS
            table.add_row(
                backbone, name, *(f"{100 * x:.2f}" for x in (read, published)), f"{apart:+.2f}"
            )
    Console().print(table)
    return int(far > 0)


if __name__ == "__main__":
    sys.exit(main())
