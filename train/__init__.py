"""What consumes a plan: the plan itself, batch streaming, encoders, loss, trainer, evaluation.

Three ways to train on a plan, all exact:

- ``from tonics.train import Plan``: the rows of every batch, for any code; numpy and pyarrow.
- ``from tonics.train import PlanBatchSampler``: the same through a torch ``DataLoader``, in your
  own trainer; torch, imported when the name is first asked for.
- ``from tonics.train.stream import stream``: ready batches of region features and texts; torch and
  webdataset.

The rest is imported from its module: ``tonics.train.trainer.train``,
``tonics.train.evaluation.evaluate``.
"""

from typing import TYPE_CHECKING, Any

from .alignment import AlignedPlan
from .plan import Plan

if TYPE_CHECKING:
    from .sampler import PlanBatchSampler

__all__ = ["AlignedPlan", "Plan", "PlanBatchSampler"]


def __getattr__(name: str) -> Any:
    if name != "PlanBatchSampler":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .sampler import PlanBatchSampler

    return PlanBatchSampler
