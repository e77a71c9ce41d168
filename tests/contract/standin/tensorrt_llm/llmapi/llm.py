"""LLM on an engine, and the PyTorch one, which runs no engine."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

from tensorrt_llm._settings import error, fields, follows, gpu, line
from tensorrt_llm.executor.engine import Executor, Limits, Request
from tensorrt_llm.executor.result import RequestOutput, new_queue
from tensorrt_llm.logger import logger
from tensorrt_llm.sampling_params import SamplingParams

from .llm_args import KvCacheConfig
from .tokenizer import end_ids, load_tokenizer


class TrtLLM:
    """Runs an engine directory.

    Raises:
        ValueError: An argument is unknown, or contradicts the engine.
        RuntimeError: The engine does not load.
    """

    @follows("LLM")
    def __init__(self, **given: Any) -> None:
        level = logger.level
        logger.set_level("info")
        logger.say("trt_backend")
        logger.set_level(level)
        known = {**fields.LLM_ARGS, **fields.TRT_LLM_ARGS}
        for name in given:
            if name not in known and name not in _NAMED:
                raise ValueError(error("argument", cls="LLM", name=name))
        self.args = {**known, **given}
        self._executor: Executor | None = None
        directory = Path(given["model"])
        self._engine = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if "build_config" not in self._engine:
            raise NotImplementedError("(stand-in) LLM builds nothing; give it an engine directory.")
        self._check(given)
        self.tokenizer = None
        if not given["skip_tokenizer_init"]:
            self.tokenizer = load_tokenizer(given["tokenizer"] or directory)
        # The library reads it beside the model, and an engine directory has none.
        self._ends = end_ids(directory)
        self._executor = self._start(directory)

    def _check(self, given: dict[str, Any]) -> None:
        mapping = self._engine["pretrained_config"]["mapping"]
        if self.args["build_config"] is not None:
            logger.warn("ignored_build_config")
        if given["tensor_parallel_size"] not in (1, mapping["tp_size"]):
            values = {"value": given["tensor_parallel_size"], "limit": mapping["tp_size"]}
            raise ValueError(error("tp_size", **values))
        self.kv_cache_config = self.args["kv_cache_config"]
        if self.kv_cache_config == fields.LLM_ARGS["kv_cache_config"]:
            self.kv_cache_config = KvCacheConfig()
        assert self.kv_cache_config.dtype == "auto", error("kv_dtype")
        if mapping["world_size"] > gpu().count:
            raise RuntimeError(error("gpus", have=gpu().count, want=mapping["world_size"]))

    def _start(self, directory: Path) -> Executor:
        limits = Limits(
            max_batch_size=self.args["max_batch_size"],
            max_num_tokens=self.args["max_num_tokens"],
            max_beam_width=self.args["max_beam_width"] or 1,
            kv_fraction=self.kv_cache_config.free_gpu_memory_fraction,
            kv_tokens=self.kv_cache_config.max_tokens,
            chunked_context=self.args["enable_chunked_prefill"],
        )
        try:
            return Executor(directory, limits)
        except RuntimeError as failure:
            logger.error(line("init_error", error=traceback.format_exc()))
            raise RuntimeError(error("worker")) from failure

    @follows("LLM.generate_async")
    def generate_async(self, **given: Any) -> RequestOutput:
        """Queue one prompt: text, or token ids.

        Raises:
            ValueError: The request does not fit the engine.
        """
        if self._executor is None:
            raise RuntimeError(error("shutting_down"))
        sampling = given["sampling_params"]
        if sampling is None:
            sampling = SamplingParams()
        if not isinstance(sampling, SamplingParams):
            raise TypeError(
                f"The sampling_params must be type SamplingParams or None, but got {type(sampling)}"
            )
        if sampling.end_id is None:
            if self.tokenizer is None:
                raise ValueError(error("no_end_id"))
            sampling.setup(self.tokenizer, self._ends)
        prompt, ids = self._prompt(given["inputs"], sampling)
        self._check_request(len(ids), sampling)
        request = Request(
            ids,
            sampling.max_tokens,
            sampling.end_id,
            new_queue(),
            seed=0 if sampling.greedy else (sampling.seed or 0) + 1,
            ignore_eos=sampling.ignore_eos,
            min_tokens=sampling.min_tokens or 1,
            stops=[words for _, words in sampling.stops()],
            streaming=given["streaming"],
        )
        self._executor.submit(request)
        return RequestOutput(self._executor, request, sampling, prompt, self.tokenizer)

    def _prompt(self, inputs: Any, sampling: Any) -> tuple[str | None, list[int]]:
        if isinstance(inputs, dict):
            inputs = inputs.get("prompt_token_ids") or inputs["prompt"]
        if isinstance(inputs, list):
            return None, list(inputs)
        if not isinstance(inputs, str):
            raise TypeError(f"The inputs must be type str or list of int, but got {type(inputs)}")
        if self.tokenizer is None:
            raise ValueError("tokenizer is required to tokenize string prompt")
        special = sampling.add_special_tokens
        ids = self.tokenizer.encode(inputs, add_special_tokens=special)
        keep = sampling.truncate_prompt_tokens
        return inputs, ids[-keep:] if keep else ids

    def _check_request(self, length: int, sampling: Any) -> None:
        build = self._engine["build_config"]
        limit = build["max_seq_len"]
        chunked = self.args["enable_chunked_prefill"]
        if not chunked and length + (sampling.max_tokens or 0) > limit:
            values = {"prompt": length / 1, "tokens": sampling.max_tokens, "limit": limit}
            raise ValueError(error("too_long", **values))
        if sampling.use_beam_search and sampling.best_of > build["max_beam_width"]:
            values = {"value": sampling.n, "limit": build["max_beam_width"]}
            raise ValueError(error("beams", **values))
        if sampling.prompt_logprobs and not build["gather_context_logits"]:
            raise ValueError(error("prompt_logprobs", value=sampling.prompt_logprobs))
        if sampling.logprobs is not None and not self.args["gather_generation_logits"]:
            raise ValueError(error("logprobs", value=sampling.logprobs))

    def generate(
        self,
        inputs: Any,
        sampling_params: Any = None,
        use_tqdm: bool = True,  # noqa: ARG002 - the library's name
        **named: Any,
    ) -> RequestOutput | list[RequestOutput]:
        """Wait for one prompt, or for a list of them."""
        one = not isinstance(inputs, list) or isinstance(inputs[0], int)
        made = [
            self.generate_async(
                prompt,
                sampling_params[place] if isinstance(sampling_params, list) else sampling_params,
                **named,
            )
            for place, prompt in enumerate([inputs] if one else inputs)
        ]
        done = [output.result() for output in made]
        return done[0] if one else done

    def get_stats(self, timeout: float | None = 2) -> list[dict[str, Any]]:  # noqa: ARG002
        """Return the iterations since the last call."""
        if self._executor is None:
            return []
        rows = list(self._executor.stats)
        self._executor.stats.clear()
        return rows

    def shutdown(self) -> None:
        """Unload the engine."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None

    def __enter__(self) -> TrtLLM:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


_NAMED = (
    *("model", "tokenizer", "tokenizer_mode", "skip_tokenizer_init", "trust_remote_code"),
    *("tensor_parallel_size", "dtype", "revision", "tokenizer_revision"),
)


class LLM:
    """The PyTorch one: it knows its arguments, and refuses an engine."""

    @follows("LLM")
    def __init__(self, **given: Any) -> None:
        wrong = [name for name in given if name in fields.TRT_LLM_ARGS]
        if wrong:
            raise ValueError(error("torch_only", names=wrong))
        for name in given:
            if name not in fields.LLM_ARGS and name not in _NAMED:
                raise ValueError(error("argument", cls="LLM", name=name))
        config = json.loads((Path(given["model"]) / "config.json").read_text(encoding="utf-8"))
        assert "build_config" not in config  # self._engine_dir is None, as the library puts it
        raise NotImplementedError("(stand-in) The PyTorch backend is not played.")
