"""Calibration of probabilities after training: kernel estimate of E[y | f] and temperature scaling.

Both are fitted on predictions with known classes and then applied to others:
``fit(...).transform(...)``. They need PyTorch and NumPy only.
"""

from dmseg.calibration.calibrator import KernelCalibrator
from dmseg.calibration.kernel import BANDWIDTHS, Keys, choose_bandwidth, kernel_estimate
from dmseg.calibration.pixels import PixelKernel, draw_keys, recalibrate, recalibrate_heads
from dmseg.calibration.table import BetaTable
from dmseg.calibration.temperature import TemperatureScaling, fit_temperature

__all__ = [
    "BANDWIDTHS",
    "BetaTable",
    "KernelCalibrator",
    "Keys",
    "PixelKernel",
    "TemperatureScaling",
    "choose_bandwidth",
    "draw_keys",
    "fit_temperature",
    "kernel_estimate",
    "recalibrate",
    "recalibrate_heads",
]
