"""clipdrift: matched fine-tuning studies of CLIP-style models."""

__version__ = "0.1.0"
