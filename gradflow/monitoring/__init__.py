"""Watching a training run: profiles of the loop's own batches, every so many steps, reduced to a history.

The callbacks for Lightning and for transformers' Trainer are in modules of their own, `gradflow.monitoring.lightning` and `gradflow.monitoring.trainer`,
which import those packages.
"""

from gradflow.monitoring.monitor import Monitor, SickTrainingWarning
from gradflow.monitoring.saving import save
from gradflow.monitoring.writers import TensorBoard, WandB, Writer

__all__ = ["Monitor", "SickTrainingWarning", "TensorBoard", "WandB", "Writer", "save"]
