"""Files of weights: what is taken of them, what is refused, and that nothing of them runs."""

from __future__ import annotations

import argparse
import io
import pickle
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clipdrift.errors import BackboneError
from clipdrift.formats.archive import Unreadable, read_archive
from clipdrift.formats.state import clip_state, read_content

BLOCK = "visual.transformer.resblocks.0.ln_1.weight"


def weights() -> dict[str, Tensor]:
    """Of a CLIP, a few: enough to be known."""
    torch.manual_seed(0)
    wide = torch.randn(6, 8)
    return {
        "visual.conv1.weight": torch.randn(4, 3, 2, 2),
        BLOCK: torch.randn(4).half(),
        "visual.proj": wide[1:5, ::2],  # offset and strides of a tensor within another's bytes
        "text_projection": torch.randn(4, 4).bfloat16().T,
        "logit_scale": torch.tensor(2.5),
    }


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def same(found: dict[str, Tensor], given: dict[str, Tensor]) -> bool:
    return found.keys() == given.keys() and all(
        torch.equal(found[name], given[name]) and found[name].dtype == given[name].dtype
        for name in given
    )


def test_an_archive_holds_what_torch_reads_of_it(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(3))], lr=1e-3)
    content = {
        "epoch": 3,
        "name": "run",
        "state_dict": OrderedDict(weights()),
        "optimizer": optimizer.state_dict(),
        "scaler": {"scale": 65536.0, "growth": [1, 2**40, -3], "none": None, "on": True},
        "shape": torch.Size([2, 3]),
        "parameter": nn.Parameter(torch.ones(2)),
        "flags": torch.tensor([True, False]),
        "empty": torch.empty(0, 3),
    }
    path = saved(tmp_path / "epoch_3.pt", content)
    found, theirs = read_archive(path), torch.load(path, weights_only=True)
    assert same(found["state_dict"], theirs["state_dict"])
    assert found["state_dict"]["visual.proj"].stride() == weights()["visual.proj"].stride()
    for key in ("epoch", "name", "optimizer", "scaler", "shape"):
        assert found[key] == theirs[key]
    for key in ("parameter", "flags", "empty"):
        assert torch.equal(found[key], theirs[key])


def test_a_module_of_torchscript_is_its_attributes(tmp_path: Path) -> None:
    module = nn.Sequential(OrderedDict(visual=nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 4, 2)))))
    path = tmp_path / "scripted.pt"
    torch.jit.script(module).save(str(path))
    state = clip_state(read_content(path), "scripted.pt")
    assert same(state.tensors, dict(module.state_dict()))


WRAPPED: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "a state dict": lambda w: w,
    "a training checkpoint": lambda w: {"epoch": 1, "state_dict": w, "optimizer": {}},
    "of several processes": lambda w: {"state_dict": {f"module.{k}": t for k, t in w.items()}},
    "compiled": lambda w: {"model": {f"_orig_mod.{k}": t for k, t in w.items()}},
    "with an averaged copy": lambda w: {
        "state_dict": w,
        "state_dict_ema": {k: t + 1 for k, t in w.items()},
    },
    "an averaged copy alone": lambda w: {"model_ema": w},
    "wise-ft, with its head": lambda w: {
        **{f"image_encoder.model.{k}": t for k, t in w.items()},
        "classification_head.weight": torch.ones(2, 4),
    },
    "with OpenAI's sizes": lambda w: {**w, "input_resolution": torch.tensor(224)},
    "with a mask": lambda w: {**w, "transformer.resblocks.0.attn_mask": torch.ones(2, 2)},
}


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_weights_are_found_whatever_stands_around_them(
    tmp_path: Path, wrap: Callable[[dict[str, Tensor]], Any]
) -> None:
    state = clip_state(read_content(saved(tmp_path / "a.pt", wrap(weights()))), "a.pt")
    assert same(state.tensors, weights())
    assert state.layout == "open_clip"


def test_what_is_beside_the_weights_is_told(tmp_path: Path) -> None:
    wise = WRAPPED["wise-ft, with its head"](weights())
    assert set(clip_state(wise, "a.pt").beside) == {"classification_head.weight"}
    averaged = WRAPPED["with an averaged copy"](weights())
    assert clip_state(averaged, "a.pt").said[1:] == ("not read: state_dict_ema",)
    trained = {"state_dict": weights(), "optimizer": {0: {"exp_avg": torch.ones(1)}}}
    assert clip_state(trained, "a.pt").said[1:] == ("not read: optimizer",)


REFUSED: dict[str, tuple[Any, str]] = {
    "two models": (
        {"student": weights(), "other": weights()},
        "got \"several, under 'other.', 'student.'\". Save the one that is meant",
    ),
    "a ResNet": (
        {"visual.attnpool.positional_embedding": torch.ones(1)},
        "plain ViTs, got a convolutional tower",
    ),
    "an EVA": ({"visual.trunk.blocks.0.attn.q_bias": torch.ones(1)}, "got an EVA tower"),
    "an optimizer": ({"state": {0: torch.ones(1)}}, "got 1 tensors, none of them an image tower's"),
    "nothing": ({"epoch": 1}, "got no tensors"),
}


@pytest.mark.parametrize(("content", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_clip_is_named(content: Any, said: str) -> None:
    with pytest.raises(BackboneError) as refused:
        clip_state(content, "a.pt")
    assert said in str(refused.value)


def archive(pickled: bytes, *, compress: bool = False, **parts: bytes) -> bytes:
    out = io.BytesIO()
    how = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(out, "w", how) as made:
        made.writestr("archive/data.pkl", pickled)
        for name, data in parts.items():
            made.writestr(f"archive/data/{name}", data)
    return out.getvalue()


def tensor(size: str = "K\x04\x85", stride: str = "K\x01\x85", numbers: int = 4) -> bytes:
    """The pickle of one tensor over the bytes of part 0, by its instructions."""
    text = (
        "\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage"
    )
    text += f"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK{chr(numbers)}tQK\x00{size}{stride}\x89}}tR."
    return text.encode("latin-1")


def nested(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def laughs(levels: int) -> bytes:
    """A mapping of ten times the one before, level by level: as text it would be endless."""
    out = b"\x80\x02}q\x00"
    for level in range(1, levels):
        pairs = b"".join(b"K" + bytes([n]) + b"h" + bytes([level - 1]) for n in range(10))
        out += b"}q" + bytes([level]) + b"(" + pairs + b"u"
    return out + b"."


HUGE = "\x8a\x06\x00\x00\x00\x00\x00\x01\x85"
"""A size or stride of 2 to the 40th."""
HOSTILE: dict[str, Callable[[], bytes]] = {
    "a plain pickle": lambda: pickle.dumps({"a": 1}),
    "another file": lambda: b"GIF89a",
    "empty": lambda: b"",
    "a compressed part": lambda: archive(pickle.dumps({}, 2), compress=True),
    "a bomb of zeros": lambda: archive(b"\x80\x02" + b"0" * 200_000_000, compress=True),
    "no end": lambda: archive(b"\x80\x02}"),
    "a torn instruction": lambda: archive(b"\x80\x02X\xff\xff\xff\x7fabc"),
    "an empty stack": lambda: archive(b"\x80\x02."),
    "no mark": lambda: archive(b"\x80\x02}u."),
    "a number of a billion digits": lambda: archive(b"\x80\x02L" + b"9" * 1_000_000 + b"L\n."),
    "three million instructions": lambda: archive(b"\x80\x02" + b"]" * 3_000_000 + b"."),
    "a pickle above the limit": lambda: archive(b"\x80\x02" + b"N" * 33_000_000 + b"."),
    "a call": lambda: archive(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R."),
    "a call by another instruction": lambda: archive(b"\x80\x02(X\x02\x00\x00\x00idios\nsystem\n."),
    "a persistent object": lambda: archive(b"\x80\x02K\x01Q."),
    "an extension": lambda: archive(b"\x80\x02\x82\x01."),
    "a key of tuples": lambda: archive(b"\x80\x02})" + b"\x85" * 500_000 + b"Ns."),
    "no such bytes": lambda: archive(tensor()),
    "fewer bytes than numbers": lambda: archive(tensor(), **{"0": bytes(12)}),
    "more numbers than bytes, by a stride of 0": lambda: archive(
        tensor(size=HUGE, stride="K\x00\x85"), **{"0": bytes(16)}
    ),
    "a stride that leaves the bytes": lambda: archive(tensor(stride=HUGE), **{"0": bytes(16)}),
    "a size below 0": lambda: archive(tensor(size="J\xff\xff\xff\xff\x85"), **{"0": bytes(16)}),
    "axes without strides": lambda: archive(tensor(stride=")"), **{"0": bytes(16)}),
    "numpy's scalar": lambda: archive(pickle.dumps({"lr": np.float64(1)}, 2)),
    "options of a program": lambda: archive(pickle.dumps({"args": argparse.Namespace(lr=1)}, 2)),
}
"""Made when they are asked for: some are large, and every test process imports this file."""


REASONS = {
    "a plain pickle": "as pickle.dump or torch before 1.6 writes it",
    "another file": "neither a zip",
    "empty": "neither a zip",
    "a compressed part": "compressed",
    "a bomb of zeros": "compressed",
    "no end": "before seeing STOP",
    "a torn instruction": "but only 3 remain",
    "an empty stack": "empty list",
    "no mark": "empty list",
    "a number of a billion digits": "digits",
    "three million instructions": "a longer one",
    "a pickle above the limit": "33,000,003",
    "a call": "os.system, which would be imported",
    "a call by another instruction": "the instruction INST",
    "a persistent object": "must be an iterable",
    "an extension": "the instruction EXT1",
    "a key of tuples": "a tuple",
    "no such bytes": "archive/data/0",
    "fewer bytes than numbers": "4 numbers in 3",
    "more numbers than bytes, by a stride of 0": "1,099,511,627,776 numbers in 4",
    "a stride that leaves the bytes": "4 numbers in 4",
    "a size below 0": "no whole numbers",
    "axes without strides": "other axes than strides",
    "numpy's scalar": "multiarray.scalar, which would",
    "options of a program": "argparse.Namespace, which would",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_in_little_time(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(HOSTILE[name]())
    since = time.process_time()
    with pytest.raises(
        BackboneError, match=r"torch.load\(weights_only=False\) and save"
    ) as refused:
        read_content(path)
    assert time.process_time() - since < 20
    assert REASONS[name] in str(refused.value)


def test_what_is_deep_or_manifold_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    for pickled in (nested(100_000), laughs(200)):
        path.write_bytes(archive(pickled))
        with pytest.raises(BackboneError, match=r"one CLIP or SigLIP|at most 100,000 entries"):
            clip_state(read_content(path), "model.pt")
    path.write_bytes(archive(b"\x80\x02}q\x00K\x01h\x00s."))  # a mapping that holds itself
    with pytest.raises(BackboneError, match="got no tensors"):
        clip_state(read_content(path), "model.pt")


def test_a_good_tensor_of_the_same_making_is_read(tmp_path: Path) -> None:
    """Without this, the files above could all be refused for another reason."""
    path = tmp_path / "model.pt"
    path.write_bytes(archive(tensor(), **{"0": torch.arange(4.0).numpy().tobytes()}))
    assert torch.equal(read_archive(path), torch.arange(4.0))


def test_a_file_without_end_is_not_read_into_memory(tmp_path: Path) -> None:
    """A sparse file of 40 GB whose zip says that all of it is a directory."""
    path = tmp_path / "model.pt"
    end = b"PK\x05\x06" + bytes(4) + b"\xff\xff\xff\xff" + b"\xf0\xff\xff\xff" + bytes(6)
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(4_400_000_000)
        file.write(end)
    with pytest.raises(Unreadable):
        read_archive(path)


def test_safetensors_whose_parts_overlap_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(4), "b": torch.ones(4)}, path)
    data = path.read_bytes()
    assert b"[16,32]" in data
    path.write_bytes(data.replace(b"[16,32]", b"[08,24]").replace(b"[08,24]", b"[8,24] "))
    with pytest.raises(BackboneError, match="a readable file of weights"):
        read_content(path)


def test_tensors_stay_in_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", {str(i): torch.zeros(2_000_000) for i in range(4)})
    tracemalloc.start()
    found = read_archive(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(t.nbytes for t in found.values()) == 32_000_000
    assert peak < 2_000_000
