"""What open_clip itself makes of small models: a program, for an interpreter that has open_clip.

    python open_clip_program.py make FOLDER
    python open_clip_program.py read FOLDER

make: for each of the small models it writes a folder as open_clip keeps them, with random weights,
and beside it `NAME.safetensors`: tokens, embeddings and shown images, by open_clip's own code. They
are configurations of open_clip's with fewer blocks and heads; all else is as it is there. The two
SigLIPs have a trunk of a size that timm has no name for: one is given to it here. A live model of
open_clip's is read by a gauge as well, and the names that it knows are listed.
read: it loads every folder in a folder, and writes embeddings beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from open_clip_names import names
from open_clip_stub import open_clip
from safetensors.torch import save_file
from small_open_clip import MODELS, TEXTS, pictures

HEADS, BLOCKS, TEXT_WIDTH, EMBEDDING = 2, 2, 64, 32
TRUNKS = {"siglip": "vit_tiny_patch16_siglip_32", "siglip2": "vit_tiny_patch16_siglip_48"}


def small_cfg(key: str, name: str) -> dict[str, Any]:
    cfg: dict[str, Any] = open_clip.get_model_config(name)
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    text |= {"width": TEXT_WIDTH, "heads": HEADS, "layers": BLOCKS}
    if key in TRUNKS:
        size = int(TRUNKS[key].rpartition("_")[2])
        vision |= {"timm_model_name": TRUNKS[key], "image_size": size}
        text |= {"vocab_size": 64}
        return {**cfg, "embed_dim": TEXT_WIDTH}
    width = HEADS * vision.get("head_width", 64)
    vision |= {"layers": BLOCKS, "width": width}
    return {**cfg, "embed_dim": EMBEDDING}


def register_trunks() -> None:
    import timm
    from timm.models.vision_transformer import VisionTransformer

    def trunk(name: str, act: str | None) -> None:
        def make(pretrained: bool = False, **kwargs: Any) -> Any:
            kwargs = {k: v for k, v in kwargs.items() if k in ("num_classes", "global_pool")}
            size = int(name.rpartition("_")[2])
            return VisionTransformer(
                img_size=size,
                patch_size=16,
                embed_dim=TEXT_WIDTH,
                depth=BLOCKS,
                num_heads=HEADS,
                class_token=False,
                act_layer=act,
                **kwargs,
            )

        make.__name__, make.__module__ = name, "timm.models.vision_transformer"
        timm.models.register_model(make)

    trunk(TRUNKS["siglip"], None)
    trunk(TRUNKS["siglip2"], "gelu_tanh")


def write_t5_tokenizer(folder: Path) -> None:
    """A fast tokenizer of the kind that open_clip's SigLIPs have, its words as small_siglip's."""
    from small_siglip import write_tokenizer
    from transformers import T5Tokenizer

    write_tokenizer(folder)
    tokenizer = T5Tokenizer.from_pretrained(folder, extra_ids=0, pad_token="</s>")
    for path in folder.iterdir():
        path.unlink()
    tokenizer.save_pretrained(folder)


def make(key: str, out: Path) -> None:
    name, tag = MODELS[key]
    folder = out / key
    folder.mkdir()
    cfg = small_cfg(key, name)
    known = open_clip.get_pretrained_cfg(name, tag)
    shown = {k: known[k] for k in ("mean", "std", "interpolation", "resize_mode")}
    said = {"model_cfg": cfg, "preprocess_cfg": shown}
    if key in TRUNKS:
        write_t5_tokenizer(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(said))
    torch.manual_seed(list(MODELS).index(key))
    where = f"local-dir:{folder}"
    model, _, show = open_clip.create_model_and_transforms(where)
    with torch.no_grad():  # as large as trained ones: an activation or an epsilon must tell
        for parameter in model.parameters():
            noise = 0.1 * torch.randn_like(parameter)
            parameter.copy_(noise + parameter * (3 if parameter.ndim > 1 else 1))
    model.eval()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    embed(where, model, show, out / f"{key}.safetensors")


def embed(where: str, model: Any, show: Any, out: Path) -> None:
    tokens = open_clip.get_tokenizer(where)(TEXTS)
    images = torch.stack([show(one) for one in pictures()])
    with torch.no_grad():
        found = {
            "tokens": tokens,
            "text": model.encode_text(tokens),
            "shown": images,
            "image": model.encode_image(images),
        }
    save_file(found, out)


def write_openai(out: Path) -> None:
    """A file as OpenAI's: TorchScript's zip, in half precision but for norms."""
    model = open_clip.create_model(f"local-dir:{out / 'b32-quickgelu'}")
    open_clip.model.convert_weights_to_fp16(model)
    save_file(model.state_dict(), out / "openai.safetensors")
    torch.jit.script(model.eval()).save(str(out / "ViT-B-32.pt"))


def trunks() -> dict[str, list[Any]]:
    """What timm makes of the names of SigLIP's ViTs: sizes, activations, layer norm epsilon."""
    import timm

    found = {}
    for name in timm.list_models("vit_*_siglip_*", exclude_filters=["*_gap_*", "*tiny*"]):
        with torch.device("meta"):
            trunk = timm.create_model(name, num_classes=0, global_pool="map")
        block, embed = trunk.blocks[0], trunk.patch_embed
        acts = {type(one).__name__ for one in (block.mlp.act, trunk.attn_pool.mlp.act)}
        found[name] = [trunk.embed_dim, len(trunk.blocks), block.attn.num_heads,
                       block.mlp.fc1.out_features, trunk.attn_pool.num_heads,
                       embed.patch_size[0], embed.img_size[0],
                       *sorted(acts), trunk.norm.eps]  # fmt: skip
    return found


def read_live(out: Path) -> None:
    """What a gauge reads of live models: moved, under LoRA, and with another activation."""
    import peft

    import clipdrift

    where = f"local-dir:{out / 'b32'}"
    gauge = clipdrift.Gauge(out / "b32", probe=pictures())
    moved = open_clip.create_model(where).train()
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    config = peft.LoraConfig(r=2, target_modules=["attn", "c_fc"], init_lora_weights=False)
    adapted = peft.get_peft_model(open_clip.create_model(where), config)
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    found = {"moved": gauge.read(moved).drift, "lora": gauge.read(adapted).drift}
    assert moved.training
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())
    try:
        gauge.read(open_clip.create_model(where, force_quick_gelu=True))
    except clipdrift.ClipdriftError as error:
        found["quick"] = str(error)
    (out / "live.json").write_text(json.dumps(found))
    save_file(moved.state_dict(), out / "moved.safetensors")
    save_file(adapted.merge_and_unload().state_dict(), out / "lora.safetensors")


def main(mode: str, out: Path) -> None:
    register_trunks()
    if mode == "read":
        for folder in [path for path in out.iterdir() if path.is_dir()]:
            where = f"local-dir:{folder}"
            model, _, show = open_clip.create_model_and_transforms(where)
            embed(where, model.eval(), show, out / f"{folder.name}.safetensors")
        return
    for key in MODELS:
        make(key, out)
    write_openai(out)
    (out / "names.json").write_text(json.dumps(names(open_clip)))
    (out / "trunks.json").write_text(json.dumps(trunks()))
    read_live(out)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
