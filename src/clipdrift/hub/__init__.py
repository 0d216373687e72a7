"""Asking a hub, which is a stranger: what it sends is looked at before any library uses it."""

from clipdrift.hub.models import open_clip_snapshot, snapshot
from clipdrift.hub.watch import Unfit, answers, watched

__all__ = ["Unfit", "answers", "open_clip_snapshot", "snapshot", "watched"]
