"""A float32 engine gives the very tokens of transformers in eager float32."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import open_session
from tests.tiny_models import make_tiny_model
from workbench.build import DEMO_MODEL
from workbench.engine import Engine
from workbench.model import Model

PROMPTS, TOKENS = 8, 64


def eager(model: Path, prompts: list[list[int]]) -> list[list[int]]:
    answer = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("eager.py")), str(model), str(TOKENS)],
        input=json.dumps(prompts),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return json.loads(answer.stdout)


@pytest.mark.parametrize("kind", ["demo", "llama", "qwen2", "qwen3", "phi3", "gemma3"])
def test_greedy_tokens_equal_eager_token_for_token(
    kind: str, build_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    path = DEMO_MODEL if kind == "demo" else make_tiny_model(kind, tmp_path / kind)
    generator = random.Random(kind)
    vocabulary = Model.read(path).vocab_size
    prompts = [
        [generator.randrange(vocabulary) for _ in range(generator.randrange(4, 60))]
        for _ in range(PROMPTS)
    ]
    engine = build_engine(
        model=str(path),
        quantization="none",
        dtype="float32",
        kv_cache_dtype="float32",
        max_batch_size=4,
        max_input_len=64,
        max_output_len=TOKENS,
        # Smaller than the prompts together, so that they are cut into chunks and batched.
        max_num_tokens=64,
    )
    with open_session(engine) as session:
        running = [session.generate(p, max_tokens=TOKENS, ignore_eos=True) for p in prompts]
        ours = [generation.wait().token_ids for generation in running]
    assert ours == eager(path, prompts)
