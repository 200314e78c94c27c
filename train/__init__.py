"""What consumes a plan: the plan itself, batch streaming, encoders, loss, trainer, evaluation."""

from __future__ import annotations

from .plan import AlignedPlan, Plan

__all__ = ["AlignedPlan", "Plan"]
