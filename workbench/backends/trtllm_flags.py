"""The flags of trtllm-build that are no plugins; names, choices and defaults are its own."""

from __future__ import annotations

from typing import Literal

from workbench.spec import BuildSpec, parameter

_SOURCE = "tensorrt_llm commands/build.py"

LORA_MODULES = (
    "attn_qkv",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_dense",
    "mlp_h_to_4h",
    "mlp_4h_to_h",
    "mlp_gate",
    "cross_attn_qkv",
    "cross_attn_q",
    "cross_attn_k",
    "cross_attn_v",
    "cross_attn_dense",
    "moe_h_to_4h",
    "moe_4h_to_h",
    "moe_gate",
    "moe_router",
    "mlp_router",
    "mlp_gate_up",
)
"""Names that lora_target_modules may hold (tensorrt_llm lora_manager.py)."""


class ShapeParameters(BuildSpec):
    """How many requests of which length an engine serves."""

    max_batch_size: int = parameter(
        2048,
        ge=1,
        help="Requests that run at the same time; more wait. Much memory is set aside for each.",
        unit="requests",
        group="Shapes",
        effect="compiled",
        source=_SOURCE,
    )
    max_input_len: int = parameter(
        1024,
        ge=1,
        help="Longest prompt. With packed input and fused attention the engine itself has no such "
        "limit; it then counts only towards max_output_len.",
        unit="tokens",
        group="Shapes",
        effect="compiled",
        source=_SOURCE,
    )
    max_output_len: int | None = parameter(
        None,
        ge=1,
        help="Gone from trtllm-build since 0.12: when it is given and max_seq_len is not, "
        "max_seq_len becomes max_input_len + max_output_len.",
        unit="tokens",
        group="Shapes",
        effect="compiled",
        none_means="max_seq_len decides",
        source="TensorRT-LLM release notes 0.11.0 and 0.12.0",
    )
    max_seq_len: int | None = parameter(
        None,
        ge=2,
        help="Longest prompt plus output of one request.",
        unit="tokens",
        group="Shapes",
        effect="compiled",
        none_means="max_input_len + max_output_len where that is given, else the model's context",
        source=_SOURCE,
    )
    max_num_tokens: int = parameter(
        8192,
        ge=1,
        help="Tokens of all requests that one step of the engine works on.",
        unit="tokens",
        group="Shapes",
        effect="compiled",
        source=_SOURCE,
    )
    opt_num_tokens: int | None = parameter(
        None,
        ge=1,
        help="Number of tokens in a step that kernels are tuned for.",
        unit="tokens",
        group="Shapes",
        effect="compiled",
        none_means="max_batch_size x max_beam_width",
        source=_SOURCE,
    )
    max_beam_width: int = parameter(
        1,
        ge=1,
        help="Most beams that one request may search with.",
        unit="beams",
        group="Shapes",
        effect="compiled",
        source=_SOURCE,
    )


class FlagParameters(BuildSpec):
    """The remaining flags."""

    kv_cache_type: Literal["continuous", "paged", "disabled"] | None = parameter(
        None,
        help="How the KV cache is stored. In-flight batching needs paged; disabled is for engines "
        "that only read prompts.",
        group="KV cache",
        effect="compiled",
        none_means="paged",
        source=_SOURCE,
    )
    speculative_decoding_mode: (
        Literal[
            "draft_tokens_external",
            "lookahead_decoding",
            "medusa",
            "explicit_draft_tokens",
            "eagle",
        ]
        | None
    ) = parameter(
        None,
        help="How several tokens are guessed and then checked in one step.",
        group="Speculative decoding",
        effect="compiled",
        none_means="no guessing",
        source=_SOURCE,
    )
    max_draft_len: int = parameter(
        0,
        ge=0,
        help="Most tokens that are guessed at a time.",
        unit="tokens",
        group="Speculative decoding",
        effect="compiled",
        source=_SOURCE,
    )
    lora_dir: str | None = parameter(
        None,
        help="Directories of LoRA adapters, separated by commas; the first one configures.",
        group="LoRA",
        effect="compiled",
        none_means="no adapters at build time",
        source=_SOURCE,
    )
    lora_ckpt_source: Literal["hf", "nemo"] = parameter(
        "hf",
        help="Whether the adapters come from Hugging Face PEFT or from NeMo.",
        group="LoRA",
        effect="compiled",
        source=_SOURCE,
    )
    lora_target_modules: str | None = parameter(
        None,
        help="Modules that adapters may change, separated by commas, such as attn_q,attn_k,attn_v.",
        group="LoRA",
        effect="compiled",
        none_means="those of lora_dir",
        source=_SOURCE,
    )
    max_lora_rank: int = parameter(
        64,
        ge=1,
        help="Highest rank of an adapter; working memory is set aside for it.",
        group="LoRA",
        effect="compiled",
        source=_SOURCE,
    )
    log_level: Literal[
        "internal_error", "error", "warning", "info", "verbose", "debug", "trace"
    ] = parameter(
        "info",
        help="How much the build writes into its log. Progress is read from info.",
        group="Diagnostics",
        effect="run",
        source=_SOURCE,
    )
    monitor_memory: bool = parameter(
        default=False,
        help="Report the memory that TensorRT uses while it builds.",
        group="Diagnostics",
        effect="run",
        source=_SOURCE,
    )
    profiling_verbosity: Literal["layer_names_only", "detailed", "none"] = parameter(
        "layer_names_only",
        help="What the engine tells profilers about its layers; detailed shows chosen kernels.",
        group="Diagnostics",
        effect="compiled",
        source=_SOURCE,
    )
    enable_debug_output: bool = parameter(
        default=False,
        help="Make the outputs of inner layers outputs of the engine.",
        group="Diagnostics",
        effect="compiled",
        source=_SOURCE,
    )
    logits_dtype: Literal["float16", "float32"] | None = parameter(
        None,
        help="Precision of the logits.",
        group="Advanced",
        effect="compiled",
        none_means="what the converted checkpoint says",
        source=_SOURCE,
    )
    gather_context_logits: bool = parameter(
        default=False,
        help="Return the logits of the prompt, which its log-probabilities need; takes memory and "
        "ends the reuse of cached prompts.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    gather_generation_logits: bool = parameter(
        default=False,
        help="Deprecated: logits of generated tokens are asked for at run time.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    gather_all_token_logits: bool = parameter(
        default=False,
        help="Both gather_context_logits and gather_generation_logits.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    weight_streaming: bool = parameter(
        default=False,
        help="Let a session keep a part of the weights in host memory, see gpu_weights_percent.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    weight_sparsity: bool = parameter(
        default=False,
        help="Use sparse kernels where weights have two zeros in every four.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    strip_plan: bool = parameter(
        default=False,
        help="Leave the weights out of the engine; trtllm-refit puts them back before it can run.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    fast_build: bool = parameter(
        default=False,
        help="Build faster, with the weights in a file beside the engine; it may run slower.",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    max_prompt_embedding_table_size: int = parameter(
        0,
        ge=0,
        help="Rows for prompt tuning or multimodal input; above 0 switches them on.",
        unit="tokens",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    max_encoder_input_len: int = parameter(
        1024,
        ge=1,
        help="Longest input of the encoder, for models that have one.",
        unit="tokens",
        group="Advanced",
        effect="compiled",
        source=_SOURCE,
    )
    workers: int = parameter(
        1,
        ge=1,
        help="Ranks that are built at the same time, each on a GPU of its own.",
        unit="processes",
        group="Advanced",
        effect="run",
        source=_SOURCE,
    )
