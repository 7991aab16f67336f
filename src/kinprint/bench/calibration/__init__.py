"""Calibration: are the p-values of every exact test uniform on pairs of independent models?"""

from kinprint.bench.calibration.records import CalibrationResult
from kinprint.bench.calibration.run import calibrate

__all__ = ["CalibrationResult", "calibrate"]
