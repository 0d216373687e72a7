"""The commands, in panels by what they are for and in the order in which they are used."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import Annotated

import typer

import clipdrift
from clipdrift.cli import (
    after,
    caching,
    checkpoints,
    choosing,
    locating,
    losing,
    measuring,
    predicting,
    reading,
    replaying,
    sharing,
    tuning,
    watching,
)
from clipdrift.cli.terminal import say

HELP_NAMES = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    name="clipdrift",
    help="Matched fine-tuning studies of CLIP-style models: accuracy, the zero-shot transfer that "
    "survives, and drift, side by side.",
    epilog="Start with: clipdrift init photos/ --out study.yaml",
    context_settings=HELP_NAMES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        say(f"clipdrift {clipdrift.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="version alone"),
    ] = False,
) -> None:
    """Options of the program itself."""


def joined(text: str) -> str:
    """Paragraphs without the line breaks of the source: a terminal has its own.

    >>> joined("One sentence over\\ntwo lines.\\n\\nAnother.")
    'One sentence over two lines.\\n\\nAnother.'
    """
    return "\n\n".join(" ".join(part.split()) for part in cleandoc(text).split("\n\n"))


def _panel(panel: str) -> Callable[..., None]:
    def add(command: Callable[..., None], *examples: str, name: str = "") -> None:
        told = "Example: " if len(examples) == 1 else "Examples: "
        app.command(
            name or None,
            help=joined(command.__doc__ or ""),
            epilog=told + " | ".join(f"clipdrift {example}" for example in examples),
            rich_help_panel=panel,
            context_settings=HELP_NAMES,
        )(command)

    return add


_start, _run = _panel("Start a study"), _panel("Run it")
_read, _models = _panel("Read what came of it"), _panel("Models")
_share = _panel("Join and share studies")

_start(measuring.init, "init photos/ --out study.yaml")
_start(measuring.datasets, "datasets imagenet")
_start(caching.cache, "cache --older-than 30")
_start(measuring.check, "check study.yaml")
_start(measuring.plan, "plan study.yaml --json", "plan study.yaml --set schedule.epochs=2")
_run(
    measuring.run,
    "run study.yaml --out results/",
    "run study.yaml --out /shared/results --executor ray --gpus-per-run 0.5",
    "run study.yaml --out /shared/results --executor slurm --gpus-per-run 1 "
    "--slurm partition=gpu --time-limit 120",
    "run study.yaml --out results/ --race 40% --min-retention 98",
)
_run(measuring.status, "status results/")
_run(watching.watch, "watch results/", "watch results/ --page progress.html")
_read(reading.analyze, "analyze results/")
_read(reading.report, "report results/")
_read(reading.audit, "audit results/")
_read(choosing.choose, "choose results/ --min-accuracy 90 --min-retention 95")
_read(
    choosing.forecast,
    "forecast results/ --after-epoch 1",
    "forecast results/ others/ --before study.yaml",
)
_read(losing.lost, "lost results/ --top 10")
_read(replaying.replay, "replay paper-80 runs/paper-80")
_share(sharing.gallery, "gallery results/ others/*.tar.xz --out site/")
_share(
    sharing.pool,
    "pool ours/ theirs.tar.xz --out pooled/",
    "pool a/ b/ c/ --out pooled/ --method lora --method full_ft",
)
_share(
    reading.import_,
    "import runs.csv --map columns.yaml --out results/",
    "import method_comparison/MetaMathQA/results --out peft/",
    "import pets.tar.xz --out results/",
    name="import",
)
_share(
    sharing.bundle,
    "bundle results/ --out pets.tar.xz --licence CC-BY-4.0 --title 'Pets, three methods'",
)
_models(
    checkpoints.evaluate,
    "evaluate results/runs/pets-lora-lr0.0001-seed7-1a2b3c4d",
    "evaluate epoch_5.pt --baseline ViT-B-32/openai --transfers cifar100",
)
_models(
    checkpoints.convert,
    "convert epoch_5.pt models/mine --to transformers --model ViT-B-32",
    "convert openai/clip-vit-base-patch32 models/b32 --to open_clip",
)
_models(locating.locate, "locate results/ --images 100", "locate results/ --what attention")
_models(after.after, "after results/ --soup --alpha 0.5 --scale 0.5 --scale 1.5")
_models(
    checkpoints.export_model,
    "export-model results/runs/RUN --out models/pets",
    "export-model results/runs/pets-lora-lr0.001-seed* --alpha 0.75 --out models/soup",
    name="export-model",
)
_models(
    tuning.tune,
    "tune photos/ --keep 98 --out tuned/",
    "tune photos/ --transfers cifar100 --min-accuracy 90 --budget 2h",
    "tune photos/ --dry-run",
)
_models(
    predicting.predict,
    "predict models/pets photos/ --csv classes.csv",
    "predict results/runs/RUN 'photos/**/*.jpg' --top 1",
)
