"""What consumes a plan: the plan itself, batch streaming, encoders, loss, trainer, evaluation.

``Plan`` needs numpy and pyarrow. The rest is imported from its module, with torch:
``tonics.train.stream.stream``, ``tonics.train.trainer.train``,
``tonics.train.evaluation.evaluate``.
"""

from .alignment import AlignedPlan
from .plan import Plan

__all__ = ["AlignedPlan", "Plan"]
