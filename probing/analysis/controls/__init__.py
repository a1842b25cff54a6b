"""Controls: what remains of the accuracy without each input."""

from probing.analysis.controls.experiment import ControlSettings, measure_controls, run_controls

__all__ = ["ControlSettings", "measure_controls", "run_controls"]
