"""Write assets/open_clip.json: the models and tags that the installed open_clip knows.

    python tools/open_clip_names.py

Of a tag: the hub repository of its weights, whether they were trained with QuickGELU, and how they
are shown images where that is not as open_clip shows them by default.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

OUT = Path(__file__).parent.parent / "src" / "clipdrift" / "assets" / "open_clip.json"


def names(open_clip: Any) -> dict[str, Any]:
    """What the file holds, from the library."""
    usual = vars(open_clip.transform.PreprocessCfg())
    tags: dict[str, dict[str, Any]] = {}
    for name, tag in open_clip.list_pretrained():
        known = open_clip.get_pretrained_cfg(name, tag)
        if not known.get("hf_hub") or name.endswith("-quickgelu"):
            continue  # named there once more
        shown = {
            key: list(known[key]) if isinstance(known[key], tuple) else known[key]
            for key in ("mean", "std", "interpolation", "resize_mode")
            if known.get(key) not in (None, usual[key])
        }
        quick = {"quick_gelu": True} if known.get("quick_gelu") else {}
        hub = "/".join(known["hf_hub"].split("/")[:2])
        tags.setdefault(name, {})[tag] = {"hub": hub, **quick, "preprocess": shown}
    models = {name: open_clip.get_model_config(name) for name in open_clip.list_models()}
    return {"models": models, "tags": tags}


if __name__ == "__main__":
    from open_clip_stub import open_clip

    OUT.write_text(json.dumps(names(open_clip), separators=(",", ":")) + "\n")
