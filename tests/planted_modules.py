"""Python files that lie where somebody's images are, named as modules that everybody imports."""

from __future__ import annotations

from pathlib import Path

NAMES = ("yaml", "json", "typing", "pathlib", "torch", "numpy", "pydantic", "fcntl", "clipdrift")


def plant(folder: Path, *names: str) -> Path:
    """Lay them into a folder; returns the file that exists once one of them was imported."""
    marker = folder / "a-planted-module-was-run"
    for name in names or NAMES:
        text = f"import sys\nopen({str(marker)!r}, 'a').write('{name} ' + ' '.join(sys.argv))\n"
        (folder / f"{name}.py").write_text(text)
    return marker


__all__ = ["NAMES", "plant"]
