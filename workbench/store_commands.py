"""The verbs of the command line that care for the engines of the store."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workbench import archive, eviction, store, usage
from workbench.console import ByteProgress
from workbench.errors import InputError, StoreError
from workbench.units import format_bytes, printable, printable_json
from workbench.verbs import Action, Verb, declare_verbs, json_flag


def declare_engines(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench engines ...`."""
    del words
    return declare_verbs(parser, _ENGINES)


def _key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="Key of an engine, or the beginning of one.")


def _list_engines(parsed: argparse.Namespace) -> int:
    engines = store.list_engines()
    if parsed.json:
        print(printable_json([dict(engine.manifest) for engine in engines]))
        return 0
    for engine in engines:
        why = "; ".join(filter(None, [usage.crash(engine.key), eviction.why_kept(engine.key)]))
        print(printable(f"{engine}{f'  ({why})' if why else ''}"))
    if not engines:
        print("The store holds no engine yet. `workbench demo` builds one.")
    for path in store.list_damaged():
        print(f"{path.name}  was damaged and set aside")
    print(f"Together {eviction.store_usage()}")
    return 0


def _show_engine(parsed: argparse.Namespace) -> int:
    engine = store.find_engine(parsed.key)
    print(printable_json(engine.manifest))
    if suspicion := usage.suspicion(engine.key):
        print(suspicion.strip(), file=sys.stderr)
    return 0


def _some_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", nargs="*", metavar="KEY", help="Engines; by default all.")


def _verify(parsed: argparse.Namespace) -> int:
    """Read every byte of engines; set aside what is damaged, and say so with the status."""
    engines = [store.find_engine(key) for key in parsed.keys] or store.list_engines()
    if not engines:
        print("The store holds no engine yet.")
    damaged = 0
    for engine in engines:
        try:
            with ByteProgress(f"{engine.key}  reading") as progress:
                why = engine.damage(thorough=True, progress=progress)
        except StoreError as error:
            damaged += 1
            print(f"{engine.key}  {error}", flush=True)
            continue
        if why and not engine.path.exists():
            print(f"{engine.key}  was removed meanwhile", flush=True)
            continue
        damaged += bool(why)
        print(
            printable(store.set_aside(engine, why) if why else f"{engine.key}  sound"), flush=True
        )
    return 1 if damaged else 0


def _evict_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "keys",
        nargs="*",
        metavar="KEY",
        help="Engines to remove; also the name of one that was set aside.",
    )
    parser.add_argument(
        "--to",
        metavar="SIZE",
        help="Remove the least recently used engines until the store holds no more than this; "
        "without keys, the budget counts.",
    )


def _tell(text: str) -> None:
    print(printable(text), flush=True)


def _evict(parsed: argparse.Namespace) -> int:
    for key in parsed.keys:
        if key.startswith(store.DAMAGED):
            eviction.drop(key, tell=_tell)
            continue
        key = store.find_engine(key).key  # noqa: PLW2901 - the whole key from here on
        print(f"Removed the engine {key} ({format_bytes(eviction.evict(key))}).")
    if parsed.keys and not parsed.to:
        return 0
    limit = eviction.parse_bytes(parsed.to, "--to") if parsed.to else eviction.budget()
    if limit is None:
        raise InputError(
            "Say what shall go: keys of engines, or --to SIZE. There is no budget yet; "
            "`workbench engines budget 200GiB` sets one."
        )
    over = eviction.make_room(limit, tell=_tell)
    print(f"The store holds {eviction.store_usage()}.")
    if over:
        raise StoreError(
            f"It is still {format_bytes(over)} too large: everything else is in use or pinned."
        )
    return 0


def _pin_flags(parser: argparse.ArgumentParser) -> None:
    _key(parser)
    parser.add_argument("--why", default="", help="A note on why it is kept.")


def _pin(parsed: argparse.Namespace) -> int:
    key = store.find_engine(parsed.key).key
    usage.pin(key, parsed.why)
    print(f"The engine {key} is kept whatever the budget is. `workbench engines unpin {key}`")
    return 0


def _unpin(parsed: argparse.Namespace) -> int:
    key = store.find_engine(parsed.key).key
    usage.unpin(key)
    print(f"The engine {key} may be removed again.")
    return 0


def _budget_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("size", nargs="?", help="Such as 200GiB; none takes the budget away.")


def _budget(parsed: argparse.Namespace) -> int:
    if parsed.size:
        eviction.set_budget(eviction.read_size(parsed.size))
    held = eviction.store_usage()
    print(f"The store holds {held}{'' if held.budget else ', without a budget'}.")
    return 0


def _export_flags(parser: argparse.ArgumentParser) -> None:
    _key(parser)
    parser.add_argument("file", type=Path, help="The archive to write.")
    parser.add_argument("--overwrite", action="store_true", help="Replace a file of that name.")


def _export(parsed: argparse.Namespace) -> int:
    engine = store.find_engine(parsed.key)
    with ByteProgress("writing") as progress:
        archive.export_engine(engine, parsed.file, overwrite=parsed.overwrite, progress=progress)
    size = format_bytes(parsed.file.stat().st_size)
    print(f"The engine {engine.key} is in {parsed.file} ({size}).")
    return 0


def _import_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="An archive that `engines export` wrote.")
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="Take also an engine that may run code of its model's repository.",
    )


def _import(parsed: argparse.Namespace) -> int:
    told: list[str] = []
    with ByteProgress("reading") as progress:
        engine, new = archive.import_engine(
            parsed.file,
            trust_remote_code=parsed.trust_remote_code,
            progress=progress,
            tell=told.append,
        )
    print(f"{'Imported' if new else 'It is there already:'} {printable(str(engine))}")
    for sentence in told:
        _tell(sentence)
    return 0


_ENGINES: dict[str, Verb] = {
    "list": ("list the engines and what the store holds", json_flag, _list_engines),
    "show": ("show the manifest of an engine", _key, _show_engine),
    "verify": ("read every byte of engines and compare checksums", _some_keys, _verify),
    "evict": ("remove engines by key, or the least recently used", _evict_flags, _evict),
    "pin": ("keep an engine whatever the budget is", _pin_flags, _pin),
    "unpin": ("let an engine be removed again", _key, _unpin),
    "budget": ("show or set the most that the store shall hold", _budget_flags, _budget),
    "export": ("write an engine into one file", _export_flags, _export),
    "import": ("bring an engine from such a file into the store", _import_flags, _import),
}
