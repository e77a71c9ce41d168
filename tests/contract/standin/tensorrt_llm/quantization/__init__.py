"""Kinds of quantization, and ModelOpt's calibration."""

from .mode import QuantAlgo
from .quantize_by_modelopt import quantize_and_export

__all__ = ["QuantAlgo", "quantize_and_export"]
