"""Commands for weights: those of a run, and those that others made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunDir = Annotated[Path, typer.Argument(help="folder of one run", show_default=False)]


def export_model(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option(help="new folder for the model", show_default=False)],
    adapter: Annotated[
        bool,
        typer.Option(
            "--adapter/--merged",
            help="merged: a whole CLIP for transformers; adapter: LoRA factors for peft",
        ),
    ] = False,
) -> None:
    """Write the model of a run for transformers or peft, read it back and compare."""
    from clipdrift.backbone import backbone_folder
    from clipdrift.evaluate import finished_run
    from clipdrift.export import export_adapter, export_merged

    (export_adapter if adapter else export_merged)(run_dir, out)
    base = finished_run(run_dir)[1].backbone
    where = str(backbone_folder(base))
    study = run_dir.resolve().parent.parent / "study.yaml"
    load = f"CLIPModel.from_pretrained({str(out)!r})"
    if adapter:
        tower = f"CLIPModel.from_pretrained({where!r}).vision_model"
        load = f"PeftModel.from_pretrained({tower}, {str(out)!r})"
    print(f"Wrote {out}; read back, its embeddings are those of the run.")
    print(f"In Python: {load}")
    if adapter:
        print("Classifier and projection, which lie outside the adapter: head.safetensors")
    print(f"Next: clipdrift evaluate {out} --baseline {base.id} --spec {study}")


__all__ = ["export_model"]
