"""What lies in a folder is told before it is read; what could run code is never read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from small_models import EMBEDDED

from clipdrift.checkpoint.find import kind_of, read_tensors
from clipdrift.errors import BackboneError, RecordError


class Planted:
    """A pickle of this writes a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def refusal(folder: Path) -> str:
    with pytest.raises(RecordError) as refused:
        kind_of(folder)
    return str(refused.value)


def test_three_kinds_are_told_apart(tmp_path: Path) -> None:
    assert kind_of(EMBEDDED) == "clip"
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").touch()
    assert kind_of(tmp_path) == "adapter"
    (tmp_path / "record.json").touch()
    assert kind_of(tmp_path) == "run"


@pytest.mark.parametrize(
    ("config", "weights", "kind"),
    [
        ("config.json", "pytorch_model.bin", "clip"),
        ("adapter_config.json", "adapter_model.bin", "adapter"),
        (None, "model.pt", "weights"),
        (None, "model.pth", "weights"),
    ],
)
def test_pickles_are_told_as_what_they_should_be_and_never_unpickled(
    tmp_path: Path, config: str | None, weights: str, kind: str
) -> None:
    folder, mark = tmp_path / "model", tmp_path / "code-has-run"
    folder.mkdir()
    torch.save(Planted(mark), folder / weights)
    if config:
        (folder / config).write_text("{}")
    assert kind_of(folder) == kind
    assert kind_of(folder / weights) == "weights"
    with pytest.raises(BackboneError, match="which would be imported and called to read it"):
        read_tensors(folder / weights)
    assert not mark.exists()


def test_weights_by_another_name_are_told(tmp_path: Path) -> None:
    for name in ("config.json", "model.ckpt"):
        (tmp_path / name).write_text("{}")
    text = refusal(tmp_path)
    assert (
        "model.safetensors: expected weights, got model.ckpt. Call the file of weights so, or p"
        in text
    )


def test_safetensors_beside_a_pickle_are_used(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").touch()
    (tmp_path / "adapter_model.bin").touch()
    assert kind_of(tmp_path) == "adapter"


def test_every_missing_shard_is_named(tmp_path: Path) -> None:
    names = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    index = {"weight_map": {f"w{i}": name for i, name in enumerate(names)}}
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / names[1]).touch()
    text = refusal(tmp_path)
    assert text.count("expected a shard of the weights, got nothing there. Copy it too.") == 2
    assert names[0] in text
    assert names[1] not in text


def test_a_shard_cannot_lie_outside_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "other.safetensors").touch()
    (folder / "config.json").write_text("{}")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "w" * 300}}))  # no file system takes it
    assert "expected a shard of the weights, got nothing there" in refusal(folder)
    index.write_text(json.dumps({"weight_map": {"w": "../other.safetensors"}}))
    assert "expected the name of a file in the folder, got a path" in refusal(folder)
    index.write_text("[]")
    assert "expected a weight_map, got none. Restore the file" in refusal(folder)
    index.write_text("{}")
    assert "expected a weight_map, got none" in refusal(folder)


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    assert "expected a run (record.json), a peft adapter" in refusal(tmp_path)
    assert "a folder or file of weights, got nothing there" in refusal(tmp_path / "nowhere")
    (tmp_path / "weights.pkl").touch()
    assert "got another file. Name the folder or the file" in refusal(tmp_path / "weights.pkl")
    for name in ("epoch_1.pt", "epoch_2.pt"):
        (tmp_path / name).touch()
    step = f"Name one, such as {tmp_path / 'epoch_2.pt'}."
    assert f"expected one file of weights, got epoch_1.pt, epoch_2.pt. {step}" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    for path in tmp_path.glob("*.pt"):
        path.unlink()
    assert "model.safetensors: expected weights, got nothing there" in refusal(tmp_path)


def test_an_adapter_that_is_a_link_to_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "weights").touch()
    (tmp_path / "a" / "adapter_config.json").write_text("{}")
    (tmp_path / "a" / "adapter_model.safetensors").symlink_to(tmp_path / "weights")
    assert "got a link out of it" in refusal(tmp_path / "a")


def test_the_output_of_a_trainer_is_named(tmp_path: Path) -> None:
    for step in (50, 100, 9):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "training_args.bin").touch()
    assert refusal(tmp_path) == (
        f"{tmp_path}: expected one checkpoint, got the output of a Trainer: checkpoint-9, "
        f"checkpoint-50, checkpoint-100. Name one, such as {tmp_path / 'checkpoint-100'}."
    )
    one = tmp_path / "checkpoint-100"
    for name in ("trainer_state.json", "optimizer.pt", "rng_state.pth", "model.safetensors"):
        (one / name).touch()
    assert "a checkpoint of Trainer's without config.json" in refusal(one)
    assert "Save the CLIP inside that model" in refusal(one)
    (one / "config.json").write_text("{}")
    assert kind_of(one) == "clip"


def test_torn_and_broken_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(b"torn")
    with pytest.raises(BackboneError, match="expected a readable file of weights"):
        read_tensors(path)
    save_file({"fine": torch.ones(2), "broken": torch.tensor([1.0, float("nan")])}, path)
    with pytest.raises(RecordError, match="broken: expected finite values, got NaN or infinity"):
        read_tensors(path)
