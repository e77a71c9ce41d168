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

KINDS = ("demo", "llama", "qwen2", "qwen3", "phi3", "gemma3")
PROMPTS, TOKENS = 8, 64

Prompts = list[list[int]]


def eager(prompts: dict[Path, Prompts]) -> dict[Path, Prompts]:
    """Return the greedy tokens of each model after its prompts."""
    answer = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("eager.py")), str(TOKENS)],
        input=json.dumps({str(path): ids for path, ids in prompts.items()}),
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return {Path(path): tokens for path, tokens in json.loads(answer.stdout).items()}


def prompts_for(model: Path, kind: str) -> Prompts:
    generator = random.Random(kind)
    vocabulary = Model.read(model).vocab_size
    return [
        [generator.randrange(vocabulary) for _ in range(generator.randrange(4, 60))]
        for _ in range(PROMPTS)
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    made = {kind: make_tiny_model(kind, folder / kind) for kind in KINDS if kind != "demo"}
    return {"demo": DEMO_MODEL, **made}


@pytest.fixture(scope="module")
def expected(models: dict[str, Path]) -> dict[Path, Prompts]:
    """What transformers says, of all models in one process."""
    return eager({path: prompts_for(path, kind) for kind, path in models.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_equal_eager_token_for_token(
    kind: str,
    models: dict[str, Path],
    expected: dict[Path, Prompts],
    build_engine: Callable[..., Engine],
) -> None:
    path = models[kind]
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
        running = [
            session.generate(prompt, max_tokens=TOKENS, ignore_eos=True)
            for prompt in prompts_for(path, kind)
        ]
        ours = [generation.wait().token_ids for generation in running]
    assert ours == expected[path]
