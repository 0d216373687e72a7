"""Folders of weights as other tools leave them, that are not read as they are, and the way on."""

from __future__ import annotations

from pathlib import Path

from clipdrift.errors import Fault

TRAINER = ("trainer_state.json", "training_args.bin")
OF_TRAINING = ("optimizer", "scheduler", "scaler", "rng_state", "training_args")
"""Beginnings of names of what Trainer pickles beside the weights to go on from."""


def foreign_fault(folder: Path) -> Fault | None:
    """What a folder without a configuration of ours, peft's or transformers' is, if it is known."""
    here = {path.name for path in folder.iterdir()}
    if steps := sorted(_steps(folder)):
        names = ", ".join(f"checkpoint-{step}" for step in steps[:5])
        got = f"the output of a Trainer: {names}{', ...' if len(steps) > 5 else ''}"
        step = f"Name one, such as {folder / f'checkpoint-{steps[-1]}'}"
        return Fault(str(folder), "one checkpoint", got, step)
    if here & set(TRAINER):
        got = "a checkpoint of Trainer's without config.json, as of a model of one's own"
        step = "Save the CLIP inside that model, such as model.clip.save_pretrained(FOLDER)"
        return Fault(str(folder), "a CLIP in transformers format, or a peft adapter", got, step)
    return None


def is_of_training(path: Path) -> bool:
    """Whether a pickle is Trainer's own, and holds no weights of the model."""
    return path.name.startswith(OF_TRAINING)


def _steps(folder: Path) -> list[int]:
    return [
        int(path.name.removeprefix("checkpoint-"))
        for path in folder.glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdecimal() and path.is_dir()
    ]
