"""One declaration gives validation, flags, cells and tables, all with the same words."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given as cases
from hypothesis import strategies as st

from workbench.backends import make_spec
from workbench.backends.openvino import OpenVinoSpec
from workbench.docs import parameters_cell
from workbench.errors import SpecError
from workbench.flags import add_flags, given
from workbench.sampling import Sampling
from workbench.spec import parameters_of


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"'max_bach_size' is not a known parameter. Did you mean"):
        make_spec({"max_bach_size": 8})


def test_every_unknown_name_is_named() -> None:
    with pytest.raises(SpecError) as caught:
        make_spec({"max_bach_size": 8, "qantization": "int4"})
    assert "'max_batch_size'" in str(caught.value)
    assert "'quantization'" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"max_batch_size": "8"},
            "max_batch_size must be a whole number from 1 to 256; got the text '8'",
        ),
        ({"max_batch_size": 0}, "max_batch_size must be a whole number from 1 to 256; got 0"),
        ({"max_batch_size": True}, "max_batch_size must be a whole number"),
        ({"quantization": "int3"}, "quantization must be one of none, fp16, int8, int4; got"),
        ({"group_size": 48}, "group_size must be one of 32, 64, 128, -1; got 48"),
        ({"symmetric": "yes"}, "symmetric must be true or false; got 'yes'"),
        ({"max_seq_len": 1.5}, "or none (max_input_len + max_output_len); got 1.5"),
        ({"model": 3}, "model must be text; got 3"),
    ],
)
def test_ill_typed_values_say_what_was_expected(values: dict, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        make_spec(values)
    assert sentence in str(caught.value)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(SpecError, match="There is no backend 'onnx'; there is: openvino"):
        make_spec({"backend": "onnx"})


def test_specs_are_frozen_and_replaced() -> None:
    spec = make_spec({})
    with pytest.raises(ValueError, match="frozen"):
        spec.max_batch_size = 2  # type: ignore[attr-defined]
    assert spec.replace(max_batch_size=2).model_dump()["max_batch_size"] == 2


def test_the_canonical_spec_leaves_the_model_to_its_fingerprint() -> None:
    here, there = make_spec({"model": "here"}), make_spec({"model": "there"})
    assert here.canonical() == there.canonical()
    assert make_spec({"group_size": 32}).canonical() != here.canonical()
    # What is only given to the runtime makes no other engine.
    assert make_spec({"max_batch_size": 5}).canonical() == here.canonical()


def test_every_parameter_explains_itself() -> None:
    for parameter in [*parameters_of(OpenVinoSpec).values(), *parameters_of(Sampling).values()]:
        assert parameter.help.endswith("."), parameter.name
        assert parameter.none_means or not parameter.optional, parameter.name
        assert parameter.group or parameter.name in Sampling.model_fields, parameter.name


def _value(name: str) -> st.SearchStrategy:
    """Any valid value of a parameter."""
    parameter = parameters_of(OpenVinoSpec)[name]
    if parameter.kind == "choice":
        values = st.sampled_from(parameter.choices)
    elif parameter.kind == "switch":
        values = st.booleans()
    elif parameter.kind == "text":
        values = st.text("abc/-.", min_size=1).filter(lambda text: not text.startswith("-"))
    else:
        values = st.integers(int(parameter.minimum or 0), int(parameter.maximum or 9999))
    return st.none() | values if parameter.optional else values


SPECS = st.fixed_dictionaries(
    {}, optional={name: _value(name) for name in parameters_of(OpenVinoSpec)}
)


@cases(SPECS)
def test_flags_give_the_spec_back(values: dict) -> None:
    words = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words.append(f"{flag}={value}")
    parser = argparse.ArgumentParser()
    add_flags(parser, OpenVinoSpec, "parameters")
    assert given(parser.parse_args(words), OpenVinoSpec) == values


def test_flags_may_be_spelled_with_underscores_as_trtllm_build_spells_them() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser, OpenVinoSpec, "parameters")
    assert given(parser.parse_args(["--max_batch_size", "3"]), OpenVinoSpec) == {
        "max_batch_size": 3
    }


@cases(SPECS)
def test_a_spec_survives_json(values: dict) -> None:
    spec = make_spec(values)
    assert make_spec(spec.model_dump(mode="json")) == spec


def test_the_notebook_cell_gives_the_default_spec() -> None:
    names: dict = {}
    exec(parameters_cell("openvino"), names)
    names.pop("__builtins__")
    assert make_spec(names) == make_spec({})


def test_sampling_takes_whole_numbers_for_numbers_and_one_stop_string() -> None:
    sampling = Sampling.parse({"temperature": 1, "stop": "\n"})
    assert sampling.temperature == 1.0
    assert sampling.stop == ("\n",)
    with pytest.raises(SpecError, match="temperature must be a number from 0 to 5"):
        Sampling.parse({"temperature": "hot"})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"top_p": 1.5}, "top_p must be a number above 0 to 1; got 1.5."),
        ({"min_p": 1.0}, "min_p must be a number from 0 below 1; got 1.0."),
        ({"top_k": -1}, "top_k must be a whole number of at least 0; got -1."),
    ],
)
def test_bounds_are_named_as_they_are(values: dict, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        Sampling.parse(values)
    assert str(caught.value) == sentence


def test_a_missing_seed_is_chosen_and_kept() -> None:
    assert Sampling().with_seed().seed is not None
    assert Sampling(seed=7).with_seed().seed == 7
