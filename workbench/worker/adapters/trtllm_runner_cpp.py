"""ModelRunnerCpp of TensorRT-LLM as a runtime: the C++ executor without the LLM API.

It answers one call at a time, and blocks in it; a thread runs each call.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from .tensorrt_llm_session import Step
from .trtllm_lacks import runner_lacks
from .trtllm_llm_api import chosen_options, until_end


class RunnerCpp:
    """A loaded `ModelRunnerCpp`."""

    concurrent = 1
    lacks = runner_lacks()

    def __init__(self, engine: Path, limits: dict[str, Any], ends: list[int]) -> None:
        """Load the engine with its own limits: each step costs work for max_seq_len tokens."""
        from tensorrt_llm.runtime import ModelRunnerCpp

        self._ends = ends
        self._runner = ModelRunnerCpp.from_dir(
            str(engine),
            max_batch_size=limits["max_batch_size"],
            max_input_len=limits["max_input_len"],
            max_output_len=limits["max_seq_len"] - limits["max_input_len"],
            max_beam_width=limits["max_beam_width"],
            kv_cache_free_gpu_memory_fraction=limits["kv_cache_free_gpu_memory_fraction"],
            kv_cache_enable_block_reuse=limits["enable_block_reuse"],
            enable_chunked_context=limits["enable_chunked_context"],
            max_tokens_in_paged_kv_cache=limits["kv_cache_tokens"],
            gpu_weights_percent=limits["gpu_weights_percent"],
            # More than one GPU: the executor starts the other ranks itself.
            is_orchestrator_mode=limits["world_size"] > 1,
        )

    async def generate(
        self, ids: list[int], length: int, sampling: dict[str, Any]
    ) -> AsyncIterator[Step]:
        """Generate after `ids`; closing the iterator cancels the request in the executor."""
        loop = asyncio.get_running_loop()
        steps: asyncio.Queue[Step | Exception | None] = asyncio.Queue()
        stop = threading.Event()

        def work() -> None:
            try:
                for step in self._steps(ids, length, sampling, stop):
                    loop.call_soon_threadsafe(steps.put_nowait, step)
                loop.call_soon_threadsafe(steps.put_nowait, None)
            except Exception as error:  # noqa: BLE001 - handed over to whoever waits
                loop.call_soon_threadsafe(steps.put_nowait, error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while (step := await steps.get()) is not None:
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            stop.set()
            # The next call may only come when this one is over.
            await asyncio.to_thread(thread.join)

    def _steps(
        self, ids: list[int], length: int, sampling: dict[str, Any], stop: threading.Event
    ) -> Iterator[Step]:
        """Yield what is new in each of the runner's outputs (runs in a thread).

        An output is a tensor of shape (batch, beams, max_seq_len), int32: the prompt and all that
        was generated, filled up with the end token; "sequence_lengths" of shape (batch, beams)
        says how much of it counts.
        """
        import torch

        ends = [] if sampling["ignore_eos"] else self._ends
        # None would break the filling; -1 is a token that never comes.
        end = ends[0] if ends else -1
        options = chosen_options(sampling)
        if "seed" in options:
            options["random_seed"] = options.pop("seed")
        outputs = self._runner.generate(
            batch_input_ids=[torch.tensor(ids, dtype=torch.int32)],
            max_new_tokens=length,
            end_id=end,
            pad_id=max(end, 0),
            streaming=True,
            return_dict=True,
            output_sequence_lengths=True,
            **options,
        )
        seen = len(ids)
        reason = ""
        for output in self._watched(outputs):
            total = int(output["sequence_lengths"][0][0])
            new = output["output_ids"][0][0][seen:total].tolist()
            seen = total
            if not reason and stop.is_set():
                reason = "cancelled"
                self._cancel(outputs)
            elif not reason and len(kept := until_end(new, ends)) < len(new):
                reason = "stop"
                yield Step(kept)
                self._cancel(outputs)
            elif not reason:
                yield Step(new)
        if not reason:
            reason = "length" if seen - len(ids) >= length else "stop"
        yield Step([], reason=reason)

    def _watched(self, outputs: Any) -> Iterator[Any]:
        """Yield outputs; when one fails, take what the executor still says about the request.

        The next call would read it as its own answer.
        """
        numbers: set[int] = set()
        try:
            for output in outputs:
                numbers.update(_request_ids(outputs))
                yield output
        except Exception:
            for number in numbers:
                self._runner.session.cancel_request(number)
            while numbers:
                for response in self._runner.session.await_responses():
                    if response.has_error() or response.result.is_final:
                        numbers.discard(response.request_id)
            raise

    def _cancel(self, outputs: Any) -> None:
        """Ask the executor to stop what `outputs` yields; then only its last word comes.

        The runner has no call for this; its generator knows the ids of the requests. Where a
        version keeps them elsewhere, the request runs on to its end, unseen.
        """
        for number in _request_ids(outputs):
            self._runner.session.cancel_request(number)

    def broken(self) -> bool:
        """Whether it can generate nothing any more; the executor does not tell."""
        return False

    def close(self) -> None:
        """Free the GPU."""
        del self._runner


def _request_ids(outputs: Any) -> list[int]:
    """Return the ids of the requests that a runner's generator answers, from its own variables."""
    frame = getattr(outputs, "gi_frame", None)
    return list((frame.f_locals if frame else {}).get("request_ids", ()))
