"""Runners."""

from .model_runner_cpp import ModelRunnerCpp

PYTHON_BINDINGS = True

__all__ = ["PYTHON_BINDINGS", "ModelRunnerCpp"]
