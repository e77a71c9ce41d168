"""Models: what a Hugging Face checkpoint is, read from config.json and safetensors headers.

No weight is loaded: a local model is read in milliseconds, one on the hub in a few requests. Where
a directory holds config.json and no weights, or the hub gives that and no headers, the tensors are
derived from it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench import checkpoint, hub
from workbench.architectures import tensors_of_config
from workbench.errors import ModelError
from workbench.model_card import licence_of
from workbench.sizes import network_sizes
from workbench.stored_quantization import kv_cache_type_of, method_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.tensors import Tensor

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

WEIGHTLESS = "holds no weights, only its configuration: it can be planned with, but not built."
UNREAD = (
    "the headers of its weights cannot be read, so its tensors are counted from config.json: it "
    "can be planned with, but not built."
)
BRING_WEIGHTS = "Copy its safetensors files and its tokenizer there, or give its hub id."

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64"}
"""torch's names of the types that weights usually have."""


@dataclass(frozen=True)
class Model:
    """A checkpoint of a decoder-only language model.

    Attributes:
        source: The directory or hub id as given.
        revision: The branch, tag or commit as given; a local directory has none.
        commit: The commit that was read from the hub.
        path: The local directory; None while the hub's local cache lacks files of it, and for a
            directory without weights.
        architecture: First entry of `architectures`, such as "LlamaForCausalLM".
        model_type: The family in transformers; that of the text part of a multimodal model.
        layers: Decoder layers.
        hidden_size: Width of the residual stream.
        heads: Query heads.
        kv_heads: Heads for keys and values.
        head_size: Width of one head.
        intermediate_size: Width inside the feed-forward part; 0 where nothing tells.
        vocab_size: Rows of the embedding table.
        context_length: Positions that the model was made for, in tokens; 0 where nothing tells.
        dtype: Type of the weights: the configuration's, else the one that most bytes have.
        tied_embeddings: Whether the output layer is the embedding table.
        sliding_window: Tokens that windowed layers look back, or None.
        has_chat_template: Whether the tokenizer brings one.
        tensors: The stored tensors of the language model, a tied one once.
        config: The whole config.json.
        quantization: The whole hf_quant_config.json; empty where there is none.
        licence: As its model card names it; empty where nothing tells.
        gate: Who grants access to it on the hub, see `hub.Gate`; empty where nobody has to, and
            where the hub was not asked because all files are here.
        code: Files with Python code of the repository that its configurations point to.
        counted_from: Where the tensors are from: the weights' own headers, or the configuration,
            which can be planned with but not built.
        unread: Why the headers of a model on the hub were not read, as a sentence.
    """

    source: str
    revision: str | None
    commit: str | None
    path: Path | None
    architecture: str
    model_type: str
    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    vocab_size: int
    context_length: int
    dtype: str
    tied_embeddings: bool
    sliding_window: int | None
    has_chat_template: bool
    # A hash over all of them would take as long as what is remembered by it.
    tensors: tuple[Tensor, ...] = field(repr=False, hash=False)
    config: Mapping[str, Any] = field(repr=False, hash=False)
    quantization: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)
    licence: str = ""
    gate: hub.Gate = ""
    code: tuple[str, ...] = ()
    counted_from: Literal["headers", "configuration"] = "headers"
    unread: str = ""

    @classmethod
    def read(cls, source: str | Path, revision: str | None = None) -> Model:
        """Read a local directory or a model on the hub.

        Args:
            source: A directory, or a hub id "owner/name". What exists as a path is a path.
            revision: Branch, tag or commit on the hub; a local directory ignores it.

        Raises:
            ModelError: There is no such model, it is damaged, or it is not a decoder-only
                language model with safetensors weights; or it has no weights at all or, on the
                hub, none that can be read, and its tensors cannot be derived from config.json.
        """
        if path := directory_of(source):
            try:
                return _interpret(_Found(str(source), revision, None, path, path))
            except OSError as error:
                why = error.strerror or str(error)
                raise ModelError(f"{source} cannot be read: {why}.") from error
        if os.path.exists(os.path.expanduser(source)):  # noqa: PTH110, PTH111 - as below
            raise ModelError(
                f"{source} is a file. A model is the directory that holds config.json and the "
                "safetensors files."
            )
        if isinstance(source, Path) or not HUB_ID.fullmatch(source):
            raise ModelError(
                f"There is no directory {source}. Give the path of a model's directory, or a hub "
                "id of the form owner/name."
            )
        return _read_hub(source, revision)

    def download(self) -> Path:
        """Bring everything that a build needs to this machine, unless it is here.

        Returns:
            The local directory.

        Raises:
            ModelError: The hub does not give it, or what came is incomplete.
        """
        if self.path:
            return self.path
        if self.unread:
            raise ModelError(self.unread)
        if self.counted_from == "configuration":
            raise ModelError(f"{self.source} {WEIGHTLESS} {BRING_WEIGHTS}")
        path = hub.download(self.source, self.commit or self.revision)
        checkpoint.read_weights(path)
        return path

    @cached_property  # a form asks with every change
    def parameters(self) -> int:
        """Number of stored parameters, exact; a tied tensor counts once.

        Counted from the configuration it is what transformers would save; a checkpoint may hold
        more, such as a tied output layer a second time.
        """
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the stored weights; a tied tensor counts once."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def bytes_by_dtype(self) -> dict[str, int]:
        """Bytes of the stored weights by type, the largest share first."""
        return _bytes_by_dtype(self.tensors)

    @property
    def quantized_with(self) -> str:
        """The method by which the checkpoint itself is quantized, such as "gptq", or ""."""
        return method_of(self.config, self.quantization)

    @property
    def kv_cache_type(self) -> str:
        """The type that the checkpoint wants its KV cache in, such as "fp8", or ""."""
        return kv_cache_type_of(self.config, self.quantization)


def directory_of(source: str | Path) -> Path | None:
    """Return the directory that a model's name means, if there is one that we may look at.

    pathlib raises where a name is too long, its ~ is nobody's or a folder above it is closed.
    """
    path = os.path.expanduser(source)  # noqa: PTH111 - see the docstring
    return Path(path) if os.path.isdir(path) else None  # noqa: PTH112 - see the docstring


@dataclass(frozen=True)
class _Found:
    """Where a model was found; `descriptions` is the directory of its small files."""

    source: str
    revision: str | None
    commit: str | None
    path: Path | None
    descriptions: Path


def _read_hub(source: str, revision: str | None) -> Model:
    """Read a model on the hub, from the local cache where that has all of it."""
    snapshot = hub.fetch_descriptions(source, revision)
    if not (snapshot / checkpoint.CONFIG).is_file():
        raise ModelError(
            f"{source} has no {checkpoint.CONFIG} on the hub (or, without a network, in the local "
            "cache). A model for transformers has one."
        )
    path = snapshot if checkpoint.is_complete(snapshot) else None
    return _interpret(_Found(source, revision, snapshot.name, path, snapshot))


def _interpret(found: _Found) -> Model:
    """Read configuration and headers, and make the record."""
    config = checkpoint.read_config(found.descriptions)
    architecture = _decoder(found.source, config)
    text = config.get("text_config", config)
    weights = _weights(found, config)
    stored = weights.tensors
    language = stored if text is config else _language_part(found.source, stored)
    tied = _is_tied(config, text, language)
    tensors = tuple(tensor for tensor in language if not _is_repeated(tensor, tied))
    return Model(
        source=found.source,
        revision=found.revision,
        commit=found.commit,
        path=found.path if weights.counted_from == "headers" else None,
        architecture=architecture,
        model_type=str(text.get("model_type", "")),
        dtype=_dtype(config, text, tensors),
        tied_embeddings=tied,
        sliding_window=_sliding_window(text),
        has_chat_template=checkpoint.has_chat_template(found.descriptions),
        tensors=tensors,
        config=config,
        quantization=checkpoint.read_quantization(found.descriptions),
        code=checkpoint.own_code(found.descriptions),
        licence=weights.licence,
        gate=weights.gate,
        counted_from=weights.counted_from,
        unread=weights.unread,
        **network_sizes(found.source, text, tensors),
    )


@dataclass(frozen=True)
class _Weights:
    """The tensors of a model, where they are from, and what was learned on the way."""

    tensors: tuple[Tensor, ...]
    counted_from: Literal["headers", "configuration"]
    licence: str = ""
    gate: hub.Gate = ""
    unread: str = ""


def _weights(found: _Found, config: Mapping[str, Any]) -> _Weights:
    """Return the tensors from the headers, or else from the configuration."""
    if found.path is None:
        return _hub_weights(found, config)
    licence = licence_of(found.path)
    if checkpoint.is_described_only(found.path):
        return _Weights(tensors_of_config(found.source, config), "configuration", licence)
    return _Weights(checkpoint.read_weights(found.path), "headers", licence)


def _hub_weights(found: _Found, config: Mapping[str, Any]) -> _Weights:
    """Return the tensors of a model on the hub, from config.json where their headers are not given.

    Raises:
        ModelError: Neither tells; says why the headers do not.
    """
    page = hub.Page((), "", "")
    try:
        page = hub.fetch_page(found.source, found.descriptions.name)
        tensors = checkpoint.read_hub_weights(found.source, found.descriptions, page.files)
    except ModelError as error:
        try:
            tensors = tensors_of_config(found.source, config)
        except ModelError:
            raise error from None
        return _Weights(tensors, "configuration", page.licence, page.gate, str(error))
    return _Weights(tensors, "headers", page.licence, page.gate)


def _decoder(source: str, config: Mapping[str, Any]) -> str:
    """Return the architecture; refuse what does not generate text from a decoder alone."""
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise ModelError(
            f"config.json of {source} names no architecture, so nothing says that it is a language "
            "model. Save the model with transformers, which writes it."
        )
    name: str = names[0]
    generates = name.endswith(("ForCausalLM", "LMHeadModel")) or (
        name.endswith("ForConditionalGeneration") and isinstance(config.get("text_config"), dict)
    )
    if not generates or config.get("is_encoder_decoder"):
        raise ModelError(
            f"{source} is not a decoder-only language model: its architecture is {name}. One like "
            "LlamaForCausalLM is expected."
        )
    return name


def _language_part(source: str, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Leave out the vision and audio parts of a multimodal checkpoint."""
    part = tuple(t for t in tensors if "language_model." in t.name or t.name == "lm_head.weight")
    if not part:
        raise ModelError(
            f"{source} is a multimodal model, and no tensor name tells which part is the language "
            "model (language_model. is expected). Use the text-only variant of the model."
        )
    return part


def _is_tied(
    config: Mapping[str, Any], text: Mapping[str, Any], tensors: tuple[Tensor, ...]
) -> bool:
    """Say whether the output layer is the embedding table.

    Configurations that leave the key to the default of their class do store an output layer of
    its own where there is one.
    """
    for place in (text, config):
        if isinstance(place.get("tie_word_embeddings"), bool):
            return bool(place["tie_word_embeddings"])
    return not any(_is_output(tensor) for tensor in tensors)


def _is_output(tensor: Tensor) -> bool:
    return tensor.name.endswith(("lm_head.weight", "embed_out.weight"))


def _is_repeated(tensor: Tensor, tied: bool) -> bool:
    """Whether a stored tensor is no parameter of its own.

    A tied output layer repeats the embedding table; old Llama checkpoints store the rotary
    frequencies, which follow from the configuration.
    """
    return (tied and _is_output(tensor)) or tensor.name.endswith("rotary_emb.inv_freq")


def _dtype(config: Mapping[str, Any], text: Mapping[str, Any], tensors: tuple[Tensor, ...]) -> str:
    # transformers wrote torch_dtype until version 5 renamed it.
    for place in (text, config):
        for key in ("dtype", "torch_dtype"):
            if isinstance(place.get(key), str):
                return str(place[key]).removeprefix("torch.")
    most = next(iter(_bytes_by_dtype(tensors)), "")
    return DTYPES.get(most, most.lower())


def _bytes_by_dtype(tensors: tuple[Tensor, ...]) -> dict[str, int]:
    counter: Counter[str] = Counter()
    for tensor in tensors:
        counter[tensor.dtype] += tensor.bytes
    return dict(counter.most_common())


def _sliding_window(text: Mapping[str, Any]) -> int | None:
    # Qwen2 states a window and switches it off by another key.
    window = text.get("sliding_window")
    return window if type(window) is int and text.get("use_sliding_window", True) else None
