"""Configurations of known models, and the exact number of parameters that was published of each.

Of each config.json only what decides about tensors. `parameters` is what the model's page on the
hub shows (it counts the safetensors headers), a tied output layer counted once; where headers hold
more than parameters, `stored` is what the page shows, and `why` says the difference. The pages and
config.json are https://huggingface.co/<name> and its /blob/main/config.json. About half of the
numbers were compared with public copies of the hub's answers and of index files (total_size); all
are transformers' own count, which `tests/test_architectures.py` takes, and for the others that is
the only check.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Known:
    """A model of the hub; its page is https://huggingface.co/<name>."""

    name: str
    architecture: str
    parameters: int
    config: dict[str, Any]
    stored: int = 0
    why: str = field(default="", repr=False)


_SIZES = (
    "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
    "num_key_value_heads", "vocab_size",
)  # fmt: skip


def _llama(*sizes: int, **more: Any) -> dict[str, Any]:
    return {**dict(zip(_SIZES, sizes, strict=True)), **more}


_TIED = {"tie_word_embeddings": True}
_REPEATED = "the file holds the tied output layer a second time"
_DEEPSEEK = {
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "kv_lora_rank": 512,
}

KNOWN = (
    Known("meta-llama/Llama-2-7b-hf", "LlamaForCausalLM", 6_738_415_616,
          _llama(32, 4096, 11008, 32, 32, 32000), 6_738_417_664,
          "the index counts rotary frequencies as well"),
    Known("meta-llama/Llama-2-13b-hf", "LlamaForCausalLM", 13_015_864_320,
          _llama(40, 5120, 13824, 40, 40, 32000)),
    Known("meta-llama/Llama-2-70b-hf", "LlamaForCausalLM", 68_976_648_192,
          _llama(80, 8192, 28672, 64, 8, 32000)),
    Known("meta-llama/Llama-3.1-8B", "LlamaForCausalLM", 8_030_261_248,
          _llama(32, 4096, 14336, 32, 8, 128256, attention_bias=False, mlp_bias=False)),
    Known("meta-llama/Llama-3.1-70B", "LlamaForCausalLM", 70_553_706_496,
          _llama(80, 8192, 28672, 64, 8, 128256)),
    Known("meta-llama/Llama-3.1-405B", "LlamaForCausalLM", 405_853_388_800,
          _llama(126, 16384, 53248, 128, 8, 128256)),
    Known("meta-llama/Llama-3.2-1B", "LlamaForCausalLM", 1_235_814_400,
          _llama(16, 2048, 8192, 32, 8, 128256, head_dim=64, **_TIED)),
    Known("meta-llama/Llama-3.2-3B", "LlamaForCausalLM", 3_212_749_824,
          _llama(28, 3072, 8192, 24, 8, 128256, head_dim=128, **_TIED)),
    Known("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "LlamaForCausalLM", 1_100_048_384,
          _llama(22, 2048, 5632, 32, 4, 32000)),
    Known("mistralai/Mistral-7B-v0.1", "MistralForCausalLM", 7_241_732_096,
          _llama(32, 4096, 14336, 32, 8, 32000)),
    Known("mistralai/Mistral-7B-v0.3", "MistralForCausalLM", 7_248_023_552,
          _llama(32, 4096, 14336, 32, 8, 32768)),
    Known("mistralai/Mistral-Nemo-Base-2407", "MistralForCausalLM", 12_247_782_400,
          _llama(40, 5120, 14336, 32, 8, 131072, head_dim=128)),
    Known("mistralai/Mixtral-8x7B-v0.1", "MixtralForCausalLM", 46_702_792_704,
          _llama(32, 4096, 14336, 32, 8, 32000, num_local_experts=8)),
    Known("mistralai/Mixtral-8x22B-v0.1", "MixtralForCausalLM", 140_620_634_112,
          _llama(56, 6144, 16384, 48, 8, 32000, num_local_experts=8)),
    Known("Qwen/Qwen2-7B", "Qwen2ForCausalLM", 7_615_616_512,
          _llama(28, 3584, 18944, 28, 4, 152064)),
    Known("Qwen/Qwen2.5-0.5B", "Qwen2ForCausalLM", 494_032_768,
          _llama(24, 896, 4864, 14, 2, 151936, **_TIED)),
    Known("Qwen/Qwen2.5-72B", "Qwen2ForCausalLM", 72_706_203_648,
          _llama(80, 8192, 29568, 64, 8, 152064)),
    Known("Qwen/Qwen1.5-MoE-A2.7B", "Qwen2MoeForCausalLM", 14_315_784_192,
          _llama(24, 2048, 5632, 16, 16, 151936, num_experts=60, moe_intermediate_size=1408,
                 shared_expert_intermediate_size=5632, decoder_sparse_step=1)),
    Known("Qwen/Qwen3-0.6B", "Qwen3ForCausalLM", 596_049_920,
          _llama(28, 1024, 3072, 16, 8, 151936, head_dim=128, **_TIED), 751_632_384, _REPEATED),
    Known("Qwen/Qwen3-8B", "Qwen3ForCausalLM", 8_190_735_360,
          _llama(36, 4096, 12288, 32, 8, 151936, head_dim=128)),
    Known("Qwen/Qwen3-30B-A3B", "Qwen3MoeForCausalLM", 30_532_122_624,
          _llama(48, 2048, 6144, 32, 4, 151936, head_dim=128, num_experts=128,
                 moe_intermediate_size=768, decoder_sparse_step=1, mlp_only_layers=[])),
    Known("Qwen/Qwen3-235B-A22B", "Qwen3MoeForCausalLM", 235_093_634_560,
          _llama(94, 4096, 12288, 64, 4, 151936, head_dim=128, num_experts=128,
                 moe_intermediate_size=1536, decoder_sparse_step=1, mlp_only_layers=[])),
    Known("google/gemma-7b", "GemmaForCausalLM", 8_537_680_896,
          _llama(28, 3072, 24576, 16, 16, 256000, head_dim=256)),
    Known("google/gemma-2b", "GemmaForCausalLM", 2_506_172_416,
          _llama(18, 2048, 16384, 8, 1, 256000, head_dim=256)),
    Known("google/gemma-2-9b", "Gemma2ForCausalLM", 9_241_705_984,
          _llama(42, 3584, 14336, 16, 8, 256000, head_dim=256)),
    Known("google/gemma-2-27b", "Gemma2ForCausalLM", 27_227_128_320,
          _llama(46, 4608, 36864, 32, 16, 256000, head_dim=128)),
    Known("google/gemma-3-1b-it", "Gemma3ForCausalLM", 999_885_952,
          _llama(26, 1152, 6912, 4, 1, 262144, head_dim=256)),
    Known("google/gemma-3-4b-it", "Gemma3ForConditionalGeneration", 3_880_263_168,
          {"text_config": {"model_type": "gemma3_text", "hidden_size": 2560,
                           "intermediate_size": 10240, "num_hidden_layers": 34}},
          4_300_079_472, "with its vision part, which is no part of the language model"),
    Known("microsoft/phi-2", "PhiForCausalLM", 2_779_683_840,
          _llama(32, 2560, 10240, 32, 32, 51200, qk_layernorm=False, tie_word_embeddings=False)),
    Known("microsoft/Phi-3-mini-4k-instruct", "Phi3ForCausalLM", 3_821_079_552,
          _llama(32, 3072, 8192, 32, 32, 32064)),
    Known("microsoft/phi-4", "Phi3ForCausalLM", 14_659_507_200,
          _llama(40, 5120, 17920, 40, 10, 100352)),
    Known("microsoft/Phi-4-mini-instruct", "Phi3ForCausalLM", 3_836_021_760,
          _llama(32, 3072, 8192, 24, 8, 200064, **_TIED)),
    Known("tiiuae/falcon-7b", "FalconForCausalLM", 6_921_720_704,
          {"num_hidden_layers": 32, "hidden_size": 4544, "num_attention_heads": 71,
           "vocab_size": 65024, "multi_query": True, "parallel_attn": True, "bias": False,
           "new_decoder_architecture": False}, 7_217_189_760, _REPEATED),
    Known("tiiuae/falcon-40b", "FalconForCausalLM", 41_303_293_952,
          {"num_hidden_layers": 60, "hidden_size": 8192, "num_attention_heads": 128,
           "num_kv_heads": 8, "vocab_size": 65024, "parallel_attn": True, "bias": False,
           "new_decoder_architecture": True}, 41_835_970_560, _REPEATED),
    Known("openai-community/gpt2", "GPT2LMHeadModel", 124_439_808,
          {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
          137_022_720, "the file holds the causal mask of each layer"),
    Known("openai-community/gpt2-xl", "GPT2LMHeadModel", 1_557_611_200,
          {"n_layer": 48, "n_embd": 1600, "n_head": 25, "n_positions": 1024, "vocab_size": 50257}),
    Known("EleutherAI/gpt-neox-20b", "GPTNeoXForCausalLM", 20_554_567_680,
          {"num_hidden_layers": 44, "hidden_size": 6144, "intermediate_size": 24576,
           "num_attention_heads": 64, "vocab_size": 50432}),
    Known("EleutherAI/pythia-1b", "GPTNeoXForCausalLM", 1_011_781_632,
          {"num_hidden_layers": 16, "hidden_size": 2048, "intermediate_size": 8192,
           "num_attention_heads": 8, "vocab_size": 50304}),
    Known("EleutherAI/gpt-j-6b", "GPTJForCausalLM", 6_050_882_784,
          {"n_layer": 28, "n_embd": 4096, "n_head": 16, "vocab_size": 50400,
           "tie_word_embeddings": False}),
    Known("facebook/opt-1.3b", "OPTForCausalLM", 1_315_758_080,
          {"num_hidden_layers": 24, "hidden_size": 2048, "ffn_dim": 8192,
           "num_attention_heads": 32, "max_position_embeddings": 2048, "vocab_size": 50272,
           "word_embed_proj_dim": 2048}),
    Known("facebook/opt-350m", "OPTForCausalLM", 331_196_416,
          {"num_hidden_layers": 24, "hidden_size": 1024, "ffn_dim": 4096,
           "num_attention_heads": 16, "max_position_embeddings": 2048, "vocab_size": 50272,
           "word_embed_proj_dim": 512, "do_layer_norm_before": False}),
    Known("bigscience/bloom", "BloomForCausalLM", 176_247_271_424,
          {"n_layer": 70, "hidden_size": 14336, "n_head": 112, "vocab_size": 250880}),
    Known("bigscience/bloom-560m", "BloomForCausalLM", 559_214_592,
          {"n_layer": 24, "hidden_size": 1024, "n_head": 16, "vocab_size": 250880}),
    Known("bigcode/starcoder2-3b", "Starcoder2ForCausalLM", 3_030_371_328,
          _llama(30, 3072, 12288, 24, 2, 49152)),
    Known("CohereForAI/c4ai-command-r-v01", "CohereForCausalLM", 34_980_831_232,
          _llama(40, 8192, 22528, 64, 64, 256000, use_qk_norm=False)),
    Known("ibm-granite/granite-3.1-8b-base", "GraniteForCausalLM", 8_170_848_256,
          _llama(40, 4096, 12800, 32, 8, 49155, **_TIED)),
    Known("bigcode/starcoderbase-1b", "GPTBigCodeForCausalLM", 1_137_207_296,
          {"n_layer": 24, "n_embd": 2048, "n_head": 16, "n_inner": 8192, "n_positions": 8192,
           "vocab_size": 49152, "multi_query": True}),
    Known("allenai/OLMo-2-1124-7B", "Olmo2ForCausalLM", 7_298_617_344,
          _llama(32, 4096, 11008, 32, 32, 100352)),
    Known("deepseek-ai/DeepSeek-V2-Lite", "DeepseekV2ForCausalLM", 15_706_484_224,
          _llama(27, 2048, 10944, 16, 16, 102400, q_lora_rank=None, n_routed_experts=64,
                 n_shared_experts=2, moe_intermediate_size=1408, first_k_dense_replace=1,
                 **_DEEPSEEK)),
    Known("deepseek-ai/DeepSeek-V2", "DeepseekV2ForCausalLM", 235_741_434_880,
          _llama(60, 5120, 12288, 128, 128, 102400, q_lora_rank=1536, n_routed_experts=160,
                 n_shared_experts=2, moe_intermediate_size=1536, first_k_dense_replace=1,
                 **_DEEPSEEK)),
    Known("deepseek-ai/DeepSeek-V3", "DeepseekV3ForCausalLM", 684_531_386_000,
          _llama(61, 7168, 18432, 128, 128, 129280, q_lora_rank=1536, n_routed_experts=256,
                 n_shared_experts=1, moe_intermediate_size=2048, first_k_dense_replace=3,
                 num_nextn_predict_layers=1,
                 quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]},
                 **_DEEPSEEK)),
)  # fmt: skip
