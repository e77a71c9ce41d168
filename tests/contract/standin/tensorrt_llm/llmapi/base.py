"""What both backends' LLM have: requests in, outputs out."""

from __future__ import annotations

from typing import Any

from tensorrt_llm._settings import error, follows
from tensorrt_llm.executor.engine import Executor, Request
from tensorrt_llm.executor.result import RequestOutput, new_queue
from tensorrt_llm.sampling_params import SamplingParams

NAMED = (
    *("model", "tokenizer", "tokenizer_mode", "skip_tokenizer_init", "trust_remote_code"),
    *("tensor_parallel_size", "dtype", "revision", "tokenizer_revision"),
)


class BaseLLM:
    """A loaded model; a backend sets its attributes, and says what a request may be."""

    args: dict[str, Any]
    tokenizer: Any
    _ends: list[int]
    _executor: Executor | None

    def _check_request(self, length: int, sampling: Any) -> None:
        raise NotImplementedError

    @follows("LLM.generate_async")
    def generate_async(self, **given: Any) -> RequestOutput:
        """Queue one prompt: text, or token ids.

        Raises:
            RequestError, ValueError: The request does not fit.
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
        if self.args["return_perf_metrics"]:
            sampling.return_perf_metrics = True
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
            guide=self._guide(sampling),
        )
        self._executor.submit(request)
        return RequestOutput(self._executor, request, sampling, prompt, self.tokenizer)

    def _guide(self, sampling: Any) -> list[int] | None:
        """Return the tokens that a form of output allows; None where everything is allowed."""
        if sampling.guided_decoding is None:
            return None
        if self.args["guided_decoding_backend"] is None:
            raise ValueError("(stand-in) A guide needs guided_decoding_backend.")
        text = sampling.guided_decoding.text()
        return list(self.tokenizer.encode(text, add_special_tokens=False))

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
        """Unload the model."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None

    def __enter__(self) -> BaseLLM:  # noqa: PYI034 - Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
