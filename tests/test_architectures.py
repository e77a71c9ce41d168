"""Tensors that are derived from config.json are those of transformers, and those of checkpoints."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.known_models import KNOWN, Known
from tests.tiny_models import Kind, make_tiny_model
from workbench.architectures import FAMILIES, tensors_of_config
from workbench.build import DEMO_MODEL
from workbench.errors import ModelError
from workbench.model import Model
from workbench.tensors import Tensor, read_tensors

LAYERS = ("num_hidden_layers", "n_layer")

# transformers 5.0 compiles a function of GPT-BigCode when it imports it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")

each = pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.name)


def config_of(known: Known, **changes: Any) -> dict[str, Any]:
    return {
        "architectures": [known.architecture],
        "torch_dtype": "bfloat16",
        **known.config,
        **changes,
    }


def derive(config: dict[str, Any]) -> tuple[Tensor, ...]:
    return tensors_of_config("a/model", config)


def network(known: Known, **changes: Any) -> Any:
    """Instantiate transformers' class without memory; what it does not have is left out."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    types = {name: kind for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()}
    types["Gemma3ForConditionalGeneration"] = "gemma3_text"
    values = {**known.config.get("text_config", known.config), **changes}
    # Second-token layers and quantization are of checkpoints alone.
    for key in ("model_type", "num_nextn_predict_layers", "quantization_config"):
        values.pop(key, None)
    config = AutoConfig.for_model(types[known.architecture], pad_token_id=None, **values)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def stored(model: Any) -> dict[str, tuple[int, ...]]:
    """Return what save_pretrained would write, a tied output layer once."""
    from transformers.core_model_loading import revert_weight_conversion

    state = revert_weight_conversion(model, model.state_dict())
    if model.config.tie_word_embeddings:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("lm_head")}
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def test_every_architecture_is_tested_with_a_known_model() -> None:
    assert {known.architecture for known in KNOWN} == set(FAMILIES)
    assert len(KNOWN) >= 20


@each
def test_parameters_are_those_that_were_published(known: Known) -> None:
    total = sum(tensor.elements for tensor in derive(config_of(known)))
    assert total == known.parameters


@each
def test_parameters_are_those_of_transformers(known: Known) -> None:
    plain = {
        key: value
        for key, value in config_of(known).items()
        if key not in ("num_nextn_predict_layers", "quantization_config")
    }
    model = network(known)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    saved = set(model.state_dict())
    is_tied = model.config.tie_word_embeddings
    total = sum(
        tensor.numel()
        for name, tensor in tensors
        if name in saved and not (is_tied and name.startswith("lm_head"))
    )
    assert sum(tensor.elements for tensor in derive(plain)) == total


@each
def test_names_and_shapes_are_those_of_transformers(known: Known) -> None:
    """Of the first layers, one of which has experts where there are any."""
    text = known.config.get("text_config", known.config)
    [key] = [key for key in LAYERS if key in text]
    few = {key: text.get("first_k_dense_replace", 1) + 1}
    config = config_of(known)
    for gone in ("num_nextn_predict_layers", "quantization_config"):
        config.pop(gone, None)
    if "text_config" in config:
        config["text_config"] = {**config["text_config"], **few}
    else:
        config.update(few)
    derived = {
        tensor.name.removeprefix("language_model."): tensor.shape for tensor in derive(config)
    }
    assert derived == stored(network(known, **few))


def test_deepseek_v3_is_derived_with_its_quantization() -> None:
    """Its page on the hub shows these numbers of elements by type."""
    [known] = [known for known in KNOWN if known.architecture == "DeepseekV3ForCausalLM"]
    elements: Counter[str] = Counter()
    for tensor in derive(config_of(known)):
        elements[tensor.dtype] += tensor.elements
    assert elements == {"BF16": 3_918_786_560, "F8_E4M3": 680_571_043_840, "F32": 41_555_600}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "phi3", "gemma3"])
def test_tensors_are_those_of_a_saved_checkpoint(kind: Kind, tmp_path: Path) -> None:
    directory = make_tiny_model(kind, tmp_path / kind, dtype="bfloat16")
    config = json.loads((directory / "config.json").read_text())
    real = read_tensors(directory / "model.safetensors")
    assert sorted(map(repr, derive(config))) == sorted(map(repr, real))


def test_tensors_are_those_of_the_shipped_model() -> None:
    model = Model.read(DEMO_MODEL)
    assert sorted(map(repr, derive(dict(model.config)))) == sorted(map(repr, model.tensors))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["UnheardForCausalLM"]}, "UnheardForCausalLM is not among those"),
        ({"architectures": []}, r"the architecture \(none given\)"),
        ({"intermediate_size": None}, "has no intermediate_size, and without weights nothing"),
        ({"vocab_size": "many"}, "gives 'many' for vocab_size; a positive whole number"),
        ({"hidden_size": True}, "gives True for hidden_size"),
        ({"attention_bias": "yes"}, "gives 'yes' for attention_bias; true or false"),
        ({"torch_dtype": "float7"}, "gives 'float7' for torch_dtype; one of float32, bfloat16"),
        ({"quantization_config": {"quant_method": "awq"}}, r"they are quantized \(awq\)"),
        ({"quantization_config": "odd"}, r"they are quantized \(odd\)"),
    ],
)
def test_what_is_not_known_exactly_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        derive(config_of(KNOWN[0], **changes))


@pytest.mark.parametrize(
    ("architecture", "changes", "words"),
    [
        ("CohereForCausalLM", {"use_qk_norm": True}, "sets use_qk_norm to True"),
        ("PhiForCausalLM", {"qk_layernorm": True}, "sets qk_layernorm to True"),
        ("MistralForCausalLM", {"num_key_value_heads": None}, "has no num_key_value_heads"),
        ("DeepseekV2ForCausalLM", {"moe_layer_freq": 2}, "sets moe_layer_freq to 2"),
    ],
)
def test_a_switch_whose_tensors_nobody_described_is_refused(
    architecture: str, changes: dict[str, Any], words: str
) -> None:
    known = next(known for known in KNOWN if known.architecture == architecture)
    with pytest.raises(ModelError, match=words):
        derive(config_of(known, **changes))


def test_without_a_type_weights_are_what_torch_makes_by_default() -> None:
    config = config_of(KNOWN[0])
    del config["torch_dtype"]
    assert {tensor.dtype for tensor in derive(config)} == {"F32"}
