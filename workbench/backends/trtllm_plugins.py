"""The plugin flags of trtllm-build: which kernels TensorRT-LLM puts in place of TensorRT's own.

Names, choices and defaults are those of trtllm-build.
"""

from __future__ import annotations

from typing import Literal

from workbench.spec import BuildSpec, parameter

Kernels = Literal["auto", "float16", "float32", "bfloat16", "int32", "disable"]
"""A plugin's precision: auto is the model's dtype, disable leaves the work to TensorRT."""

Switch = Literal["enable", "disable"]

_SOURCE = "tensorrt_llm plugin/plugin.py"


class PluginParameters(BuildSpec):
    """The 28 plugin flags."""

    gemm_plugin: (
        Literal["auto", "float16", "float32", "bfloat16", "int32", "fp8", "nvfp4", "disable"] | None
    ) = parameter(
        None,
        help="Matrix products by cuBLASLt instead of TensorRT's own kernels; auto takes the "
        "model's dtype. NVIDIA advises auto for float16 and bfloat16, and none for FP8.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
        none_means="TensorRT's own kernels, or nvfp4 where the weights are NVFP4",
    )
    gpt_attention_plugin: Kernels = parameter(
        "auto",
        help="Attention kernels of decoders, which update the KV cache in place. In-flight "
        "batching needs them.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    context_fmha: Switch = parameter(
        "enable",
        help="Fused attention over the prompt; without it memory grows with the square of the "
        "prompt's length.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    use_fp8_context_fmha: Switch = parameter(
        "enable",
        help="Fused attention over the prompt in FP8; has an effect with fp8, nvfp4 or "
        "w4a8_awq weights and an FP8 KV cache.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    remove_input_padding: Switch = parameter(
        "enable",
        help="Pack the tokens of all requests without padding. In-flight batching needs it.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    multiple_profiles: Switch = parameter(
        "disable",
        help="Tune kernels for several numbers of tokens: the build takes longer, the engine "
        "is faster.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    use_fused_mlp: Switch = parameter(
        "enable",
        help="Join the two products at the beginning of a gated feed-forward part into one.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    gemm_swiglu_plugin: Literal["fp8", "disable"] = parameter(
        "disable",
        help="Join the products and SwiGLU of the feed-forward part into one kernel: FP8 on "
        "Hopper, with use_fused_mlp.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    low_latency_gemm_plugin: Literal["fp8", "disable"] = parameter(
        "disable",
        help="FP8 matrix products that are quick when few requests run.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    low_latency_gemm_swiglu_plugin: Literal["fp8", "disable"] = parameter(
        "disable",
        help="As gemm_swiglu_plugin, for few requests.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    fp8_rowwise_gemm_plugin: Kernels = parameter(
        "disable",
        help="Matrix products with one FP8 scale a token and a channel; quantization "
        "fp8_rowwise enables it by itself.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    norm_quant_fusion: Switch = parameter(
        "disable",
        help="Join normalization and quantization into one kernel: Llama with NVFP4.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    fuse_fp4_quant: Switch = parameter(
        "disable",
        help="Quantize to FP4 inside the attention kernel.",
        group="Plugins",
        effect="compiled",
        source=_SOURCE,
    )
    use_paged_context_fmha: Switch = parameter(
        "enable",
        help="Let the prompt's attention read the paged KV cache: reuse of cached prompts and "
        "chunked context need it.",
        group="KV cache",
        effect="compiled",
        source=_SOURCE,
    )
    tokens_per_block: int = parameter(
        32,
        help="Tokens in one block of the paged KV cache.",
        group="KV cache",
        effect="compiled",
        source=_SOURCE,
        ge=1,
        unit="tokens",
    )
    paged_state: Switch = parameter(
        "enable",
        help="Paged state of recurrent models (Mamba, RecurrentGemma); other models have none.",
        group="KV cache",
        effect="compiled",
        source=_SOURCE,
    )
    nccl_plugin: Kernels = parameter(
        "auto",
        help="Exchange between GPUs by NCCL. The build sets it by itself from the number of GPUs.",
        group="Parallelism",
        effect="compiled",
        source=_SOURCE,
    )
    reduce_fusion: Switch = parameter(
        "disable",
        help="Join the sum over GPUs and the normalization after it: Llama and Gemma 2 with "
        "tp_size above 1.",
        group="Parallelism",
        effect="compiled",
        source=_SOURCE,
    )
    user_buffer: Switch = parameter(
        "disable",
        help="Spare a copy in the sum over GPUs: FP8 Llama, with reduce_fusion.",
        group="Parallelism",
        effect="compiled",
        source=_SOURCE,
    )
    gemm_allreduce_plugin: Literal["float16", "bfloat16", "disable"] = parameter(
        "disable",
        help="Join a matrix product and the sum over GPUs into one kernel.",
        group="Parallelism",
        effect="compiled",
        source=_SOURCE,
    )
    pp_reduce_scatter: Switch = parameter(
        "disable",
        help="Send less between pipeline stages: Mixtral only.",
        group="Parallelism",
        effect="compiled",
        source=_SOURCE,
    )
    lora_plugin: Kernels = parameter(
        "disable",
        help="Build the engine so that LoRA adapters can be applied at run time.",
        group="LoRA",
        effect="compiled",
        source=_SOURCE,
    )
    dora_plugin: Switch = parameter(
        "disable",
        help="Support DoRA adapters besides LoRA.",
        group="LoRA",
        effect="compiled",
        source=_SOURCE,
    )
    moe_plugin: Kernels = parameter(
        "auto",
        help="Kernels for layers of experts.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    mamba_conv1d_plugin: Kernels = parameter(
        "auto",
        help="Kernels for the convolutions of Mamba.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    bert_attention_plugin: Kernels = parameter(
        "auto",
        help="Attention kernels of encoders such as BERT.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    bert_context_fmha_fp32_acc: Switch = parameter(
        "disable",
        help="Accumulate the attention of encoders in float32: slower, more exact.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    streamingllm: Switch = parameter(
        "disable",
        help="Attention with a window and sinks over long texts; no longer supported, and not "
        "the streaming of tokens.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
