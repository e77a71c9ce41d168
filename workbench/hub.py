"""What is asked of the Hugging Face hub: small files, safetensors headers, a download.

`huggingface_hub` loads its parts when they are first used, so a local model never pays for them.
Every error of the hub, the network or the local cache becomes one sentence.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import huggingface_hub

from workbench.errors import ModelError
from workbench.hardware import free_disk
from workbench.model_card import licence_in
from workbench.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Otherwise huggingface_hub finds out which program uses it, and tells the hub. It reads this when
# its first part is loaded.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

ENGINE_FILES = (
    "*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "*.py",
    "merges.txt", "vocab.txt",
)  # fmt: skip
"""Files of a checkpoint that can decide what an engine is. One too many costs a download or a
build; one too few would give a wrong engine."""

OTHER_WEIGHTS = ("consolidated*", "*/*")
"""Second copies of the weights: Mistral's own layout, and anything in subfolders."""

DESCRIPTIONS = (
    "config.json", "generation_config.json", "model.safetensors.index.json",
    "tokenizer_config.json", "chat_template.*", "hf_quant_config.json",
)  # fmt: skip
"""Small files that, with the headers, say everything about a model."""


FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""What the system says of a local cache that is full, and of one that may not be written to."""

Gate = Literal["", "auto", "manual"]
"""Who grants access to a gated model: nobody has to, the hub at once, or its owners."""


@dataclass(frozen=True)
class Page:
    """What the hub tells everybody about a repository, also where it keeps the files for some."""

    files: tuple[str, ...]
    licence: str
    gate: Gate


def fetch_descriptions(repository: str, revision: str | None) -> Path:
    """Bring the small files of a repository into the local cache.

    Without a network, what the cache holds has to do.

    Returns:
        The snapshot's directory in the cache; its name is the commit.

    Raises:
        ModelError: The hub cannot be reached, knows no such model or revision, or refuses it.
    """
    return _snapshot(repository, revision, DESCRIPTIONS, quiet=True)


def cached(repository: str, revision: str | None) -> Path | None:
    """Return the snapshot's directory in the local cache, as far as it is there; asks nobody."""
    found = huggingface_hub.try_to_load_from_cache(repository, "config.json", revision=revision)
    return Path(found).parent if isinstance(found, str) else None


def download(repository: str, revision: str | None) -> Path:
    """Download everything that a build needs; what is in the local cache is not loaded again.

    Returns:
        The snapshot's directory in the cache.

    Raises:
        ModelError: As `fetch_descriptions`; or the disk has no room for what is missing.
    """
    with _one_sentence(repository, revision):
        missing = _missing_bytes(repository, revision)
    cache = _cache()
    free = free_disk(cache)
    if missing > free:
        raise ModelError(
            f"{repository} was not downloaded: {format_bytes(missing)} of it are missing, and only "
            f"{format_bytes(free)} are free on the disk of {cache}. {_MORE_ROOM}"
        )
    return _snapshot(repository, revision, ENGINE_FILES, quiet=False)


def _missing_bytes(repository: str, revision: str | None) -> int:
    """Return the bytes that a download would load, as far as the hub tells; 0 without a network.

    What it cannot tell here it can neither when asked to download, which then says why.
    """
    from huggingface_hub import errors, utils  # noqa: PLC0415 - brings the HTTP library

    try:
        info = huggingface_hub.HfApi().model_info(
            repository, revision=revision, files_metadata=True
        )
    except _network_errors():
        return 0
    except errors.HfHubHTTPError:
        return 0
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    # utils documents this name, but does not mark it as exported for type checkers.
    wanted = utils.filter_repo_objects(  # type: ignore[attr-defined]
        sizes, allow_patterns=list(ENGINE_FILES), ignore_patterns=list(OTHER_WEIGHTS)
    )
    return sum(
        sizes[name]
        for name in wanted
        if not isinstance(
            huggingface_hub.try_to_load_from_cache(repository, name, revision=info.sha), str
        )
    )


def _cache() -> Path:
    """Return the folder into which huggingface_hub downloads."""
    return Path(huggingface_hub.constants.HF_HUB_CACHE)


def fetch_headers(
    repository: str, commit: str, names: Iterable[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Read safetensors headers by range requests.

    Returns:
        For each file the entries of its header: name to dtype, shape and data_offsets.

    Raises:
        ModelError: As `fetch_descriptions`, or a file is missing or damaged.
    """

    def fetch(name: str) -> dict[str, dict[str, Any]]:
        metadata = api.parse_safetensors_file_metadata(repository, name, revision=commit)
        return {
            tensor: {
                "dtype": info.dtype,
                "shape": info.shape,
                "data_offsets": list(info.data_offsets),
            }
            for tensor, info in metadata.tensors.items()
        }

    with _one_sentence(repository, commit):
        api = huggingface_hub.HfApi()
        names = list(names)
        with ThreadPoolExecutor(max_workers=8) as pool:
            return dict(zip(names, pool.map(fetch, names), strict=True))


def fetch_page(repository: str, commit: str) -> Page:
    """Return the files of a repository, its licence and its gate, in one request.

    Raises:
        ModelError: As `fetch_descriptions`.
    """
    with _one_sentence(repository, commit):
        return _page(repository, commit)


def _page(repository: str, revision: str | None) -> Page:
    info = huggingface_hub.HfApi().model_info(repository, revision=revision)
    files = tuple(file.rfilename for file in info.siblings or ())
    gate: Gate = "" if not info.gated else "auto" if info.gated == "auto" else "manual"
    return Page(files, licence_in(vars(info.card_data)) if info.card_data else "", gate)


def _snapshot(
    repository: str, revision: str | None, patterns: tuple[str, ...], *, quiet: bool
) -> Path:
    bars = _without_bars() if quiet else contextlib.nullcontext()
    with _one_sentence(repository, revision), bars:
        return Path(
            huggingface_hub.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(OTHER_WEIGHTS),
            )
        )


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Show no progress bars for files of a few kilobytes."""
    # utils documents these names, but does not mark them as exported for type checkers.
    from huggingface_hub import utils  # noqa: PLC0415 - brings the HTTP library

    before = utils.are_progress_bars_disabled()  # type: ignore[attr-defined]
    utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if not before:
            utils.enable_progress_bars()  # type: ignore[attr-defined]


@contextlib.contextmanager
def _one_sentence(repository: str, revision: str | None) -> Iterator[None]:
    """Turn what huggingface_hub raises into a ModelError.

    The order matters: a gated repository counts as not found, and everything below counts as an
    HTTP error, in some of the versions from 0.34 to 1.x.
    """
    from huggingface_hub import errors  # noqa: PLC0415 - brings the whole HTTP library

    # hf_xet, which downloads most weights, says RuntimeError of most that goes wrong.
    failures: tuple[type[Exception], ...] = (*_network_errors(), RuntimeError)
    try:
        yield
    except errors.GatedRepoError as error:
        raise _no_access(repository) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{repository} looks like a hub id, but there is no such directory here and no such "
            "model on the hub, or it is private. Check the name; for a private model log in with "
            "`hf auth login` or set HF_TOKEN."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(
            f"{repository} has no revision {revision!r} on the hub. Give a branch, a tag or a "
            "commit."
        ) from error
    except errors.HFValidationError as error:
        raise ModelError(
            f"{repository} is neither a directory here nor a valid hub id: {error}"
        ) from error
    except errors.SafetensorsParsingError as error:
        raise ModelError(
            f"The weights of {repository} are damaged on the hub: {_first_line(error)}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(repository, error) from error
    except errors.EntryNotFoundError as error:
        raise ModelError(f"{repository} lacks a file on the hub: {_first_line(error)}") from error
    except errors.HfHubHTTPError as error:
        raise ModelError(
            f"The hub did not give {repository}: {_first_line(error)} Try again later."
        ) from error
    except failures as error:
        raise _unreachable(repository, error) from error


_MORE_ROOM = "Free some space, or set HF_HOME to a folder on a larger disk."


def _refused(repository: str, error: OSError) -> ModelError:
    """Say what the local cache's disk refused: the network has no part in it."""
    cache = _cache()
    if error.errno in FULL:
        return ModelError(
            f"{repository} was not downloaded as a whole: {error.strerror} in {cache} "
            f"({format_bytes(free_disk(cache))} are free there). {_MORE_ROOM} Then try again: what "
            "is there is not loaded again."
        )
    return ModelError(
        f"{repository} was not downloaded: {error.filename or cache} cannot be written to "
        f"({error.strerror}). Make it writable, or set HF_HOME to a folder that is."
    )


def _network_errors() -> tuple[type[Exception], ...]:
    """Return what the HTTP library below huggingface_hub raises, and what a proxy's page leads to.

    It is requests up to 0.36, whose errors are OSErrors, and httpx since 1.0, whose are not.
    """
    try:
        import httpx  # noqa: PLC0415 - there is none beside huggingface_hub below 1.0
    except ImportError:
        return (OSError, json.JSONDecodeError)
    return (OSError, httpx.HTTPError, json.JSONDecodeError)


def _no_access(repository: str) -> ModelError:
    """Say what to do about a gated model that the hub does not give to this user."""
    from huggingface_hub import errors  # noqa: PLC0415 - as in _one_sentence

    page = Page((), "", "")
    # Its page is for everybody. Without it, the sentence only says less.
    with contextlib.suppress(errors.HfHubHTTPError, *_network_errors()):
        page = _page(repository, None)
    licence = f" under the licence {page.licence}" if page.licence else ""
    who = " and its owners grant access one by one" if page.gate == "manual" else ""
    then = (
        "with the account whose token is used here; that one has no access yet"
        if huggingface_hub.get_token()
        else "then log in with `hf auth login` or set HF_TOKEN"
    )
    return ModelError(
        f"{repository} is gated{licence}{who}: accept its terms on "
        f"{huggingface_hub.constants.ENDPOINT}/{repository}, {then}. To plan without its weights, "
        "give a directory that holds a copy of its config.json."
    )


def _unreachable(repository: str, error: Exception) -> ModelError:
    if refusal := _refusal(error):
        return _refused(repository, refusal)
    if isinstance(error, RuntimeError):
        return ModelError(
            f"{repository} was not downloaded as a whole ({_first_line(error)}). Try again; where "
            "it comes back, set HF_HUB_DISABLE_XET=1, which downloads in another way."
        )
    return ModelError(
        f"{repository} looks like a hub id, since there is no such directory here, but the hub "
        "cannot be reached, or a proxy answers in its place, and the local cache lacks files of "
        "it. Check the path, or connect to the network (HF_HUB_OFFLINE must not be set)."
    )


def _refusal(error: Exception) -> OSError | None:
    """Return what the system refused, where the local cache's disk is why a download failed.

    hf_xet tells of it in words alone, in an OSError or a RuntimeError without a number: "No space
    left on device (os error 28)", as Rust writes it (xet-core, xet_pkg/src/error.rs).
    """
    if found := re.search(r"\(os error (\d+)\)", str(error)):
        number = int(found[1])
        error = OSError(number, os.strerror(number))
    return error if isinstance(error, OSError) and error.errno in FULL | CLOSED else None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
