"""The demo model that ships with the package, and the program and the lines that made it."""

from __future__ import annotations

import json
import os
import random
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demo_model import corpus
from tests.demo_model.syllables import syllables

MODEL = Path(__file__).parents[1] / "workbench" / "demo_model"
FILES = {
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
END = "<|end|>"
Answer = Callable[..., list[str]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """At this size threads only wait for each other: four times as long on two busy cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Any:
    """The weights as they were saved, widened to float32, which is quicker on a CPU."""
    import torch
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(MODEL).to(torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(MODEL, padding_side="left")


@pytest.fixture(scope="module")
def answer(model: Any, tokenizer: Any) -> Answer:
    """Answers requests in one batch; special tokens stay visible, padding does not."""

    def run(*requests: str, **options: Any) -> list[str]:
        chats = [[{"role": "user", "content": request}] for request in requests]
        prompt = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        tokens = model.generate(**prompt, max_new_tokens=60, **{"do_sample": False, **options})
        texts = tokenizer.batch_decode(tokens[:, prompt["input_ids"].shape[1] :])
        return [text.replace("<|pad|>", "") for text in texts]

    return run


def is_good(text: str, topic: corpus.Topic) -> bool:
    """Three lines of 5, 7 and 5 syllables, give or take one, that name the topic, and an end."""
    lines = text.removesuffix(END).split("\n")
    return (
        text.endswith(END)
        and len(lines) == 3
        and all(abs(syllables(line) - n) <= 1 for line, n in zip(lines, (5, 7, 5), strict=True))
        and any(word in lines[0].lower() for word in topic.words)
    )


def assert_nine_in_ten_good(texts: list[str]) -> None:
    pairs = list(zip(texts, corpus.topics(), strict=True))
    bad = [f"{topic.name}: {text!r}" for text, topic in pairs if not is_good(text, topic)]
    assert len(bad) <= len(pairs) / 10, "\n".join(bad)


def test_the_same_seed_writes_the_same_chats() -> None:
    assert list(corpus.chats(50, seed=3)) == list(corpus.chats(50, seed=3))
    assert list(corpus.chats(50, seed=3)) != list(corpus.chats(50, seed=4))


def test_chats_take_turns_and_hold_no_placeholder() -> None:
    for chat in corpus.chats(500, seed=5):
        roles = [message["role"] for message in chat if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(message["content"].strip() for message in chat)
        assert not any(mark in message["content"] for message in chat for mark in ("{", "}", "<|"))


def test_every_written_haiku_scans_and_names_its_topic() -> None:
    assert len(corpus.topics()) >= 40
    for topic in corpus.topics():
        for haiku in topic.haiku:
            assert [syllables(line) for line in haiku] == [5, 7, 5], haiku
            assert any(word in haiku[0].lower() for word in topic.words), haiku
    for mood in corpus.talk()["moods"]:
        assert {syllables(line) for line in mood["lines"]} == {5}, mood


def test_no_two_topics_share_a_name() -> None:
    names = [name for topic in corpus.topics() for name in (topic.name, *topic.also)]
    assert len(names) == len(set(names))


def test_directory_is_complete_and_small() -> None:
    assert {path.name for path in MODEL.iterdir()} == FILES
    assert sum(path.stat().st_size for path in MODEL.iterdir()) <= 6_000_000


def test_shapes_suit_every_quantization() -> None:
    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["head_dim"] == 64
    assert config["num_attention_heads"] * config["head_dim"] == config["hidden_size"]
    assert config["num_key_value_heads"] < config["num_attention_heads"]
    assert config["vocab_size"] % 64 == 0
    assert config["hidden_size"] % 128 == config["intermediate_size"] % 128 == 0
    assert config["tie_word_embeddings"] is True
    assert config["max_position_embeddings"] == 2048


def test_stored_weights_are_bfloat16_and_fit_the_configuration() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    data = (MODEL / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    del header["__metadata__"]
    expected = LlamaForCausalLM(LlamaConfig.from_pretrained(MODEL)).state_dict()
    del expected["lm_head.weight"]  # tied
    assert {name: entry["shape"] for name, entry in header.items()} == {
        name: list(tensor.shape) for name, tensor in expected.items()
    }
    assert {entry["dtype"] for entry in header.values()} == {"BF16"}


def test_chat_template_gives_the_ids_that_were_learned(tokenizer: Any) -> None:
    from tokenizers import Tokenizer

    from tests.demo_model.train import encode

    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Write a haiku about latency."},
        {"role": "assistant", "content": "Latency is kind:\nnaïve 🙂"},
        {"role": "user", "content": "another one"},
        {"role": "assistant", "content": "No."},
    ]
    plain = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    ((ids, labels),) = encode([chat], plain, random.Random(0))
    assert tokenizer.apply_chat_template(chat, return_dict=True)["input_ids"] == ids
    text = tokenizer.apply_chat_template(chat[:4], tokenize=False, add_generation_prompt=True)
    assert tokenizer(text)["input_ids"] == ids[: -len(plain.encode("No.").ids) - 1]
    assert tokenizer.decode(ids).startswith(text)
    learned = [token for token, label in zip(ids, labels, strict=True) if label != -100]
    assert tokenizer.decode(learned) == f"Latency is kind:\nnaïve 🙂{END}No.{END}"


def test_writes_a_haiku_about_latency_and_stops(answer: Answer) -> None:
    (text,) = answer("write a haiku about latency")
    assert text.endswith(END)
    lines = text.removesuffix(END).split("\n")
    assert len(lines) == 3
    assert all(line.strip() for line in lines)
    assert "latency" in lines[0].lower()
    assert "<|" not in text.removesuffix(END)


def test_knows_every_topic(answer: Answer) -> None:
    requests = [f"write a haiku about {topic.name}" for topic in corpus.topics()]
    assert_nine_in_ten_good(answer(*requests))


def test_sampled_haiku_are_good_and_varied(answer: Answer) -> None:
    import torch

    sampled = {"do_sample": True, "temperature": 0.8, "top_k": 0}
    torch.manual_seed(0)
    requests = [f"Write a haiku about {topic.name}." for topic in corpus.topics()]
    assert_nine_in_ten_good(answer(*requests, **sampled))
    assert len(set(answer(*["Write a haiku about GPUs."] * 20, **sampled))) >= 5


def test_survives_rounding_to_int4(
    model: Any, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symmetric, 16 levels, groups of 64: what the int4 engines do to the linear layers."""
    import torch

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        groups = weight.view(weight.shape[0], -1, 64)
        scale = groups.abs().amax(-1, keepdim=True) / 7
        return ((groups / scale).round() * scale).view_as(weight)

    for name, module in model.named_modules():
        if "_proj" in name:
            monkeypatch.setattr(module.weight, "data", rounded(module.weight.data))
    requests = [f"write a haiku about {topic.name}" for topic in corpus.topics()]
    assert_nine_in_ten_good(answer(*requests))


def test_knows_its_limits_and_what_was_said(answer: Answer, tokenizer: Any, model: Any) -> None:
    (unknown,) = answer("write a haiku about pizza")
    opening, haiku = unknown.split("\n\n")
    assert "about" in opening
    assert len(haiku.split("\n")) == 3
    (first,) = answer("write a haiku about deadlocks")
    chat = [
        {"role": "user", "content": "write a haiku about deadlocks"},
        {"role": "assistant", "content": first.removesuffix(END)},
        {"role": "user", "content": "another one"},
    ]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    tokens = model.generate(**prompt, max_new_tokens=60, do_sample=False)
    second = tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :])
    (topic,) = (topic for topic in corpus.topics() if topic.name == "deadlocks")
    assert second != first
    assert is_good(second, topic)


def test_training_learns_and_writes_what_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.demo_model import train

    command = ["train.py", "--out", str(tmp_path), "--steps", "20", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", [*command, "--chats", "300", "--tokens", "256"])
    train.main()
    printed = capsys.readouterr().out
    losses = [float(line.split()[3]) for line in printed.splitlines() if "loss" in line]
    assert losses[-1] < losses[0] - 0.5
    assert {path.name for path in tmp_path.iterdir()} == FILES
    for name in FILES - {"model.safetensors", "tokenizer.json"}:
        assert (tmp_path / name).read_bytes() == (MODEL / name).read_bytes(), name
    size = os.path.getsize  # same tensors, other values
    assert size(tmp_path / "model.safetensors") == size(MODEL / "model.safetensors")


def test_training_refuses_a_start_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.demo_model import train

    monkeypatch.setattr(sys, "argv", ["train.py", "--out", "x", "--start", str(tmp_path)])
    with pytest.raises(SystemExit):
        train.main()
    assert "--start needs a directory that this program wrote" in capsys.readouterr().err
