"""Several studies: which are one by their conditions, what each says, what all of them say."""

from clipdrift.analysis.pooled.effects import StudyEffect
from clipdrift.analysis.pooled.join import Joined, join
from clipdrift.analysis.pooled.over import Pooled, pool

__all__ = ["Joined", "Pooled", "StudyEffect", "join", "pool"]
