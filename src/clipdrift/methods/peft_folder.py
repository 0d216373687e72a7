"""The folder of an adapter as peft writes and reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = "adapter"
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def write_config(config: Any, folder: Path) -> None:
    """Write a configuration of peft's into the folder of an adapter."""
    text = json.dumps(config.to_dict(), indent=1, sort_keys=True, default=_plain)
    (folder / CONFIG).write_text(text)


def _plain(value: object) -> Any:
    return sorted(value) if isinstance(value, set) else getattr(value, "value", str(value))
