"""Where the LLM of the TensorRT backend is found."""

from tensorrt_llm.llmapi import llm

LLM = llm.TrtLLM

__all__ = ["LLM"]
