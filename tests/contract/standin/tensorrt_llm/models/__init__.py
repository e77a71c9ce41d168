"""The architectures that have an engine, and the loading of checkpoints."""

from .automodel import MODEL_MAP, AutoModelForCausalLM
from .modeling_utils import PretrainedModel, QuantConfig

__all__ = ["MODEL_MAP", "AutoModelForCausalLM", "PretrainedModel", "QuantConfig"]
