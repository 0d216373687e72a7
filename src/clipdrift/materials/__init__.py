"""What the runs of a study share, and how it is found, checked and prepared."""

from clipdrift.materials.kinds import Materials, TargetMaterial, TransferMaterial
from clipdrift.materials.loading import load_materials, transfer_material
from clipdrift.materials.missing import without_missing

__all__ = [
    "Materials",
    "TargetMaterial",
    "TransferMaterial",
    "load_materials",
    "transfer_material",
    "without_missing",
]
