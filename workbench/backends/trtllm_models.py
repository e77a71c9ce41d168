"""The architectures that TensorRT-LLM's engines know, by the class that implements each.

Source: MODEL_MAP of tensorrt_llm models/__init__.py.
"""

from __future__ import annotations

_BY_CLASS = {
    "GPTForCausalLM": "GPT2LMHeadModel GPT2LMHeadCustomModel GPTBigCodeForCausalLM "
    "Starcoder2ForCausalLM FuyuForCausalLM Kosmos2ForConditionalGeneration JAISLMHeadModel "
    "GPTForCausalLM NemotronForCausalLM",
    "OPTForCausalLM": "OPTForCausalLM",
    "BloomForCausalLM": "BloomForCausalLM",
    "FalconForCausalLM": "RWForCausalLM FalconForCausalLM",
    "PhiForCausalLM": "PhiForCausalLM",
    "Phi3ForCausalLM": "Phi3ForCausalLM Phi3VForCausalLM Phi3SmallForCausalLM PhiMoEForCausalLM "
    "Phi4MMForCausalLM",
    "MambaForCausalLM": "MambaForCausalLM",
    "GPTNeoXForCausalLM": "GPTNeoXForCausalLM",
    "GPTJForCausalLM": "GPTJForCausalLM",
    "MPTForCausalLM": "MptForCausalLM MPTForCausalLM",
    "ChatGLMForCausalLM": "GLMModel ChatGLMModel ChatGLMForCausalLM "
    "ChatGLMForConditionalGeneration",
    "LLaMAForCausalLM": "LlamaForCausalLM LlavaLlamaModel ExaoneForCausalLM MistralForCausalLM "
    "MixtralForCausalLM ArcticForCausalLM InternLMForCausalLM InternLM2ForCausalLM "
    "InternLMXComposer2ForCausalLM GraniteForCausalLM GraniteMoeForCausalLM SkyworkForCausalLM",
    "LlavaNextVisionWrapper": "LlavaNextForConditionalGeneration",
    "GrokForCausalLM": "Grok1ModelForCausalLM",
    "MedusaForCausalLm": "MedusaForCausalLM MedusaLlamaForCausalLM",
    "ReDrafterForLLaMALM": "ReDrafterForLLaMALM",
    "ReDrafterForQWenLM": "ReDrafterForQWenLM",
    "BaichuanForCausalLM": "BaichuanForCausalLM BaiChuanForCausalLM",
    "GemmaForCausalLM": "GemmaForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM",
    "QWenForCausalLM": "QWenLMHeadModel QWenForCausalLM Qwen2ForCausalLM Qwen2MoeForCausalLM "
    "Qwen2ForSequenceClassification Qwen2VLForConditionalGeneration Qwen2VLModel "
    "Qwen3ForCausalLM Qwen3MoeForCausalLM",
    "WhisperEncoder": "WhisperEncoder",
    "EncoderModel": "EncoderModel",
    "DecoderModel": "DecoderModel",
    "DbrxForCausalLM": "DbrxForCausalLM",
    "RecurrentGemmaForCausalLM": "RecurrentGemmaForCausalLM",
    "CogVLMForCausalLM": "CogVLMForCausalLM",
    "DiT": "DiT",
    "SD3Transformer2DModel": "SD3Transformer2DModel",
    "STDiT3Model": "STDiT3",
    "DeepseekForCausalLM": "DeepseekForCausalLM",
    "DeciLMForCausalLM": "DeciLMForCausalLM",
    "DeepseekV2ForCausalLM": "DeepseekV2ForCausalLM",
    "EagleForCausalLM": "EagleForCausalLM",
    "CohereForCausalLM": "CohereForCausalLM",
    "MLLaMAForCausalLM": "MLLaMAModel MllamaForConditionalGeneration",
    "BertForQuestionAnswering": "BertForQuestionAnswering",
    "BertForSequenceClassification": "BertForSequenceClassification",
    "BertModel": "BertModel",
    "RobertaModel": "RobertaModel",
    "RobertaForQuestionAnswering": "RobertaForQuestionAnswering",
    "RobertaForSequenceClassification": "RobertaForSequenceClassification",
}

MODEL_MAP = {
    architecture: name for name, names in _BY_CLASS.items() for architecture in names.split()
}
"""The implementing class by the architecture that config.json names."""

LLAMA = "LLaMAForCausalLM"
QWEN = "QWenForCausalLM"
GPT = "GPTForCausalLM"
GEMMA = "GemmaForCausalLM"

RECURRENT = ("MambaForCausalLM", "RecurrentGemmaForCausalLM")
"""Architectures with a recurrent state (tensorrt_llm builder.py, update_kv_cache_type)."""
