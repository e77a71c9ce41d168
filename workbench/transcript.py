"""Exports: a transcript as Markdown, the Python that does the same, and the curl line."""

from __future__ import annotations

import json
import pprint
import re
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.backends import get_backend
from workbench.conversation import Turn
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.opened import Prompt
from workbench.sampling import Sampling
from workbench.sides import Side
from workbench.sources import Source, source_label, spec_of
from workbench.steering import Trail
from workbench.summaries import timing_line
from workbench.units import format_bytes


def markdown(turns: Sequence[Turn], source: Source, system_prompt: str = "") -> str:
    """Return a transcript with what it was made with.

    Texts stand in fences longer than any that they contain, so that nothing in them is taken for
    Markdown or HTML.
    """
    parts = [f"# Transcript\n\n{_code(source_label(source))}"]
    if system_prompt:
        parts.append(f"## System prompt\n\n{_fenced(system_prompt)}")
    for number, turn in enumerate(turns, 1):
        parts.append(f"## Turn {number}\n\n**Asked**\n\n{_fenced(turn.asked)}")
        parts.append(f"**Answered**\n\n{_fenced(turn.answered)}")
        if turn.record:
            parts.append(f"{_options(turn.record)}\n\n{timing_line(turn.record)}")
        for sample in turn.record.get("samples", []):
            parts.append(f"**Another sample**\n\n{_fenced(sample['text'])}")
            parts.append(f"{_options(sample)}\n\n{timing_line(sample)}")
    return "\n\n".join(parts) + "\n"


def comparison_markdown(
    record: Mapping[str, Any],
    sides: Sequence[Side],
    agreed: Sequence[str],
    parted: Sequence[Sequence[str]],
) -> str:
    """Return what several sources answered to the same prompts; in fences, as in `markdown`.

    Args:
        record: Of the comparison, see `sides.comparison_record`.
        sides: The sources with their answers; after a Stop not to all prompts.
        agreed: A sentence for each side after the first: how far it agrees with that one.
        parted: For each prompt, the sentences on where its answers part; none without answers.
    """
    parts = ["# Comparison", *map(_side_line, record["sides"]), *map(_code, agreed)]
    for number, (prompt, lines) in enumerate(zip(record["prompts"], parted, strict=True)):
        parts.append(f"## Prompt {number + 1}\n\n**Asked**\n\n{_fenced(prompt)}")
        for side in sides:
            parts += _answer(side, number)
        if lines:
            told = "\n".join(lines)
            parts.append(f"**Where they part**\n\n{_fenced(told)}")
    return "\n\n".join(parts) + "\n"


def _side_line(side: Mapping[str, Any]) -> str:
    memory = side["memory_bytes"]
    known = f", memory {format_bytes(memory)}" if memory else ""
    return f"{_code(side['source'])}{known}"


def _answer(side: Side, number: int) -> list[str]:
    """Return the parts on what a side answered to a prompt; one that says so without an answer."""
    name = f"**Answered by** {_code(source_label(side.source))}"
    if number >= len(side.records):
        return [f"{name}: no answer"]
    record = side.records[number]
    return [f"{name}\n\n{_fenced(record['text'])}", f"{_options(record)}\n\n{timing_line(record)}"]


def record_json(records: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """Return a record, or records of generations, as JSON text."""
    values = dict(records) if isinstance(records, Mapping) else list(records)
    return json.dumps(values, indent=2, ensure_ascii=False)


def python_snippet(
    source: Source,
    prompt: Prompt,
    sampling: Sampling,
    others: Sequence[int] = (),
    head: Trail | None = None,
) -> str:
    """Return Python that streams the same prompt with the same options.

    Args:
        source: What was asked.
        prompt: What it was given.
        sampling: Options.
        others: Seeds of further samples of the prompt, which run at once with the first.
        head: The beginning of the answer, where a person chose a token of it.
    """
    if others:
        return _samples_snippet(source, prompt, sampling, others)
    begun, said = "", ""
    if head:
        begun = f'    print({head.text!r}, end="", flush=True)\n'
        said = f", said={head.said!r}"
    return (
        f"{_prompt_and_session(source, prompt)}{begun}"
        f"    for delta in session.generate(prompt{said}{_keywords(_changed(sampling))}):\n"
        '        print(delta.text, end="", flush=True)\n'
    )


def prompts_snippet(source: Source, prompts: Sequence[Prompt], sampling: Sampling) -> str:
    """Return Python that asks one prompt after the other with the same options."""
    shown = pprint.pformat(list(prompts), width=90, sort_dicts=False)
    return (
        f"import workbench as wb\n\nprompts = {shown}\nwith {_opening(source)} as session:\n"
        "    for prompt in prompts:\n"
        f"        generation = session.generate(prompt{_keywords(_changed(sampling))})\n"
        '        print(generation.wait().text, end="\\n\\n")\n'
    )


def _samples_snippet(
    source: Source, prompt: Prompt, sampling: Sampling, others: Sequence[int]
) -> str:
    options = {name: value for name, value in _changed(sampling).items() if name != "seed"}
    return (
        f"{_prompt_and_session(source, prompt)}"
        "    samples = [\n"
        f"        session.generate(prompt{_keywords(options)}, seed=seed)\n"
        f"        for seed in {[sampling.seed, *others]}\n"
        "    ]\n"
        "    for sample in samples:\n"
        '        print(sample.wait().text, end="\\n\\n")\n'
    )


def _keywords(values: Mapping[str, Any]) -> str:
    return "".join(f", {name}={value!r}" for name, value in values.items())


def _prompt_and_session(source: Source, prompt: Prompt) -> str:
    """Return the lines of Python up to the open session."""
    shown = pprint.pformat(prompt, width=90, sort_dicts=False)
    return f"import workbench as wb\n\nprompt = {shown}\nwith {_opening(source)} as session:\n"


def _opening(source: Source) -> str:
    """Return the expression that opens a source as it was open."""
    if isinstance(source, Endpoint):
        named = {"model": source.model, "key_env": source.key_env}
        words = _keywords({name: value for name, value in named.items() if value})
        words += f", extra={dict(source.extra)!r}" if source.extra else ""
        return f"wb.Endpoint({source.url!r}{words}).open()"
    if not source.asked:
        return f"wb.open_engine({source.key!r})"
    # Limits and precisions that are given at load are not in the key.
    return f"wb.open_engine(wb.find_engine({source.key!r}).under({dict(source.asked)!r}))"


def curl_line(
    source: Source, prompt: Prompt, sampling: Sampling, others: Sequence[int] = ()
) -> str:
    """Return the shell line that asks a server the same; one for each further seed of `others`.

    An engine of the store has no server: then these are comments that say how it gets one.
    """
    if isinstance(source, Endpoint):
        asked = [sampling, *(sampling.replace(seed=seed) for seed in others)]
        return "\n\n".join(source.curl(prompt, one) for one in asked)
    serving = _serving(source)
    lines = [
        f"The engine {source.key} runs in a worker of this machine, and has no address to ask."
    ]
    if serving:
        lines += ["A server gives it one; open that as an endpoint for a curl line:", *serving]
    else:
        lines.append(
            "Open an endpoint for a curl line: any OpenAI-compatible server will do, such as "
            "trtllm-serve for engines of TensorRT-LLM."
        )
    return "\n".join(f"# {line}" for line in lines)


def _serving(engine: Engine) -> list[str]:
    """Return the lines of the command that serves an engine elsewhere; none without one."""
    commands = get_backend(engine.backend).commands(spec_of(engine), None)
    texts = [command.text for command in commands if "trtllm-serve" in command.text]
    return texts[-1].splitlines() if texts else []


def _changed(sampling: Sampling) -> dict[str, Any]:
    """Return the options that are not at their defaults."""
    defaults = Sampling().model_dump()
    return {name: value for name, value in sampling.model_dump().items() if value != defaults[name]}


def options_line(record: Mapping[str, Any]) -> str:
    """Return one line with the sampling options of a record that are not at their defaults."""
    changed = _changed(Sampling.parse(record["sampling"]))
    return ", ".join(f"{name}={value!r}" for name, value in changed.items())


def _options(record: Mapping[str, Any]) -> str:
    return _code(options_line(record))


def _fenced(text: str) -> str:
    """Return a text in a fence that it cannot end."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _code(text: str) -> str:
    """Return a line as code, however many backticks it has."""
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    return (
        f"{ticks} {text} {ticks}"
        if text.startswith("`") or text.endswith("`")
        else (f"{ticks}{text}{ticks}")
    )
