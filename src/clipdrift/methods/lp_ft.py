"""LP-FT (Kumar et al. 2022): full fine-tuning from the head of a linear probe.

What the tower is and how it is kept is full fine-tuning; that the head is probed before the first
step is `head_first`'s.
"""

from __future__ import annotations

from clipdrift.methods.full_ft import FILE, adapt, effective_state

__all__ = ["FILE", "adapt", "effective_state"]
