"""Test equipment for TensorRT-LLM: what we rely on, and a stand-in that holds to it."""
