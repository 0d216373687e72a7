"""The commands, put together in the order in which they are used."""

from __future__ import annotations

import typer

from clipdrift.cli import after, caching, checkpoints, choosing, measuring, reading, replaying

app = typer.Typer(
    name="clipdrift",
    help="Matched fine-tuning studies of CLIP-style models: accuracy, the zero-shot transfer that "
    "survives, and drift, side by side.",
    epilog="Start with: clipdrift init photos/ --out study.yaml",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command(epilog="Example: clipdrift init photos/ --out study.yaml")(measuring.init)
app.command(epilog="Example: clipdrift check study.yaml")(measuring.check)
app.command(epilog="Example: clipdrift plan study.yaml --json")(measuring.plan)
app.command(
    epilog="Examples: clipdrift run study.yaml --out results/ | "
    "clipdrift run study.yaml --out /shared/results --executor ray --gpus-per-run 0.5 | "
    "clipdrift run study.yaml --out /shared/results --executor slurm --gpus-per-run 1 "
    "--slurm partition=gpu --time-limit 120 | "
    "clipdrift run wide.yaml --out wide/ --stop-below 80 --forecast-from results/"
)(measuring.run)
app.command(epilog="Example: clipdrift status results/")(measuring.status)
app.command(epilog="Example: clipdrift evaluate results/runs/pets-lora-lr0.0001-seed7-1a2b3c4d")(
    checkpoints.evaluate
)
app.command(epilog="Example: clipdrift after results/ --soup --alpha 0.5 --scale 0.5 --scale 1.5")(
    after.after
)
app.command(
    "export-model", epilog="Example: clipdrift export-model results/runs/RUN --out models/pets"
)(checkpoints.export_model)
app.command(epilog="Example: clipdrift analyze results/")(reading.analyze)
app.command(epilog="Example: clipdrift report results/")(reading.report)
app.command(epilog="Example: clipdrift audit results/")(reading.audit)
app.command(epilog="Example: clipdrift choose results/ --min-accuracy 0.9 --min-retention 95")(
    choosing.choose
)
app.command(epilog="Example: clipdrift forecast results/ --after-epoch 1 --stop-below 90")(
    choosing.forecast
)
app.command(epilog="Example: clipdrift replay paper-80 runs/paper-80")(replaying.replay)
app.command(
    "import", epilog="Example: clipdrift import runs.csv --map columns.yaml --out results/"
)(reading.import_)
app.command(epilog="Example: clipdrift datasets imagenet")(measuring.datasets)
app.command(epilog="Example: clipdrift cache --older-than 30")(caching.cache)
