"""From a Hugging Face directory to the class of its architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorrt_llm._settings import FAIL, error, fields, follows
from tensorrt_llm._transformers import read_config

from .modeling_utils import PretrainedModel

MODEL_MAP = dict.fromkeys(fields.ARCHITECTURES, PretrainedModel)


class AutoModelForCausalLM:
    """The door to every model."""

    @staticmethod
    @follows("AutoModelForCausalLM.get_trtllm_model_class")
    def get_trtllm_model_class(**given: Any) -> type[PretrainedModel]:
        """Return the class of a directory's architecture.

        Raises:
            NotImplementedError: There is none.
        """
        path = Path(given["hf_model_or_dir"]) / "config.json"
        assert path.exists(), error("no_model")
        config = read_config(path.parent, trust_remote_code=given["trust_remote_code"])
        architecture = config["architectures"][0]
        if FAIL == "unsupported_architecture" or architecture not in MODEL_MAP:
            raise NotImplementedError(error("architecture", name=architecture))
        model: type[PretrainedModel] = MODEL_MAP[architecture]
        return model

    @staticmethod
    @follows("AutoModelForCausalLM.from_hugging_face")
    def from_hugging_face(**given: Any) -> PretrainedModel:
        """Convert one rank of a model, in memory."""
        directory = given.pop("hf_model_or_dir")
        kind = AutoModelForCausalLM.get_trtllm_model_class(directory)
        model: PretrainedModel = kind.from_hugging_face(directory, **given)
        return model
