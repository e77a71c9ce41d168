"""Exports run without the workbench, are the same each time, and say nothing of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests import stock
from tests.faults import Faulty
from workbench import export, store
from workbench.cli import main
from workbench.engine import Engine
from workbench.errors import StoreError
from workbench.eviction import evict
from workbench.export import export_to_run
from workbench.session import Session

PROMPT = "write a haiku about latency"


def _contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _in_a_clean_environment(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the exported script with the packages that it names, and nothing else of ours.

    Isolated from the environment and the user's packages; none that it does not name, nor what
    compiled the engine, nor the workbench can be imported.
    """
    packages = sysconfig.get_path("purelib")
    hidden = ("workbench", "torch", "transformers", "optimum", "nncf", "tokenizers")
    script = (
        "import runpy, sys\n"
        f"sys.path.append({packages!r})\n"
        f"sys.modules.update(dict.fromkeys({hidden!r}))\n"
        f"sys.argv = ['stream.py', *{list(words)!r}]\n"
        "runpy.run_path('stream.py', run_name='__main__')\n"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        cwd=folder,
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_it_answers_elsewhere_with_the_notebooks_own_text(
    stocked: Engine, demo_session: Session, tmp_path: Path
) -> None:
    folder = export_to_run(stocked, tmp_path / "out")
    moved = folder.rename(tmp_path / "elsewhere")
    shutil.rmtree(stocked.path)
    ours = demo_session.generate([{"role": "user", "content": PROMPT}]).wait()
    theirs = _in_a_clean_environment(moved, PROMPT)
    assert theirs.returncode == 0, theirs.stderr
    assert theirs.stdout == ours.text + "\n"


def test_an_engine_that_is_being_exported_is_not_removed(
    stocked: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = []

    def write(engine: Engine) -> dict[str, str]:
        with pytest.raises(StoreError, match="uses it") as caught:
            evict(engine.key)
        refused.append(caught)
        return {}

    monkeypatch.setattr(export, "_WRITERS", {"openvino": write})
    export_to_run(stocked, tmp_path / "out")
    assert len(refused) == 1
    evict(stocked.key)
    with pytest.raises(StoreError, match="was removed by somebody else"):
        export_to_run(stocked, tmp_path / "again")


def test_an_environment_of_its_requirements_alone_is_all_that_it_needs(
    stocked: Engine, demo_session: Session, tmp_path: Path
) -> None:
    """As its README says, with pip; from the index that pip is configured with."""
    folder = export_to_run(stocked, tmp_path / "out")
    venv.create(folder / "venv", with_pip=True)
    install = ["-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"]
    own = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "WORKBENCH_"))}

    def run(*words: str) -> str:
        answer = subprocess.run(
            [folder / "venv" / "bin" / "python", *words],
            cwd=folder,
            env=own,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    run(*install)
    ours = demo_session.generate([{"role": "user", "content": PROMPT}]).wait()
    assert run("stream.py", PROMPT) == ours.text + "\n"


def test_its_script_keeps_to_the_engines_limits(stocked: Engine, tmp_path: Path) -> None:
    folder = export_to_run(stocked.under({"max_input_len": 3}), tmp_path / "out")
    answer = _in_a_clean_environment(folder, PROMPT)
    assert answer.returncode == 1
    assert "tokens; this engine accepts 1 to 3." in answer.stderr


def test_its_requirements_are_the_versions_that_compiled_it(
    stocked: Engine, tmp_path: Path
) -> None:
    folder = export_to_run(stocked, tmp_path / "out")
    versions = stocked.manifest["identity"]["toolchain"]
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert lines == [
        f"{name}=={versions[name]}"
        for name in ("openvino", "openvino-genai", "openvino-tokenizers")
    ]


def test_the_same_engine_gives_the_same_bytes(stocked: Engine, tmp_path: Path) -> None:
    first = _contents(export_to_run(stocked, tmp_path / "a"))
    # From another place, copied at another time.
    copied = shutil.copytree(stocked.path, tmp_path / stocked.key, copy_function=shutil.copy)
    second = _contents(export_to_run(Engine(copied, stocked.manifest), tmp_path / "b"))
    assert first == second


def test_it_names_no_place_of_this_machine_unless_asked(
    stocked: Engine, home: Path, tmp_path: Path
) -> None:
    source = stocked.manifest["model"]["source"].encode()
    quiet = _contents(export_to_run(stocked, tmp_path / "a"))
    open_ = _contents(export_to_run(stocked, tmp_path / "b", paths=True))
    assert source in open_["engine.json"][1]
    for place in (source, bytes(home), bytes(tmp_path), b"/home/", os.uname().nodename.encode()):
        assert [name for name, (_, data) in quiet.items() if place in data] == []


def test_an_engine_whose_own_files_name_a_place_is_only_exported_when_asked(
    embedded: Engine, home: Path, tmp_path: Path
) -> None:
    (embedded.path / "words.json").write_text(f'{{"where": "{home}"}}')
    engine = _resealed(embedded)
    with pytest.raises(StoreError, match=r"words\.json of the engine .* names a path"):
        export_to_run(engine, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert export_to_run(engine, tmp_path / "out", paths=True).is_dir()


@pytest.mark.parametrize(
    ("name", "text", "field"),
    [
        # As an engine says of the machine that built it, wherever it came from since.
        (
            "words.json",
            '{"build_config": {"input_timing_cache": "/home/me/x.cache"}}',
            "input_timing_cache",
        ),
        ("words.json", '{"_name_or_path": "~/models/small"}', "_name_or_path"),
        ("words.json", '{"from": ["C:\\\\models\\\\small"]}', "from"),
        ("words.json", '{"cache": "model.cache", "api": "/v1", "think": "/ or /"}', ""),
        ("words.json", "no JSON: /home/me/engines", ""),
        ("tokenizer/vocab.json", '["/usr/bin"]', ""),
    ],
)
def test_an_engine_that_names_a_path_of_a_former_machine_is_only_exported_when_asked(
    embedded: Engine, tmp_path: Path, *, name: str, text: str, field: str
) -> None:
    (embedded.path / name).parent.mkdir(exist_ok=True)
    (embedded.path / name).write_text(text)
    engine = _resealed(embedded, name)
    if field:
        with pytest.raises(
            StoreError, match=rf"words\.json of .* some machine in {field}, and was"
        ):
            export_to_run(engine, tmp_path / "out")
    assert export_to_run(engine, tmp_path / "out", paths=bool(field)).is_dir()


@pytest.fixture
def embedded(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine of the played backend, which can be exported."""
    monkeypatch.setattr(export, "_WRITERS", {"fault": lambda _: {}})
    return stock.make()


def _resealed(engine: Engine, *more: str) -> Engine:
    from workbench import files
    from workbench.engine import sealed

    entries = {
        name: {
            "bytes": (engine.path / name).stat().st_size,
            "sha256": files.checksum(engine.path / name),
        }
        for name in {*engine.manifest["files"], *more}
    }
    plain = {k: v for k, v in engine.manifest.items() if k != "checksum"}
    return Engine(engine.path, sealed({**plain, "files": entries}))


def test_nothing_that_exists_is_replaced_but_an_earlier_export_when_asked(
    stocked: Engine, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    for overwrite, words in ((False, "exists, and it was not overwritten"), (True, "no export")):
        with pytest.raises(StoreError, match=words):
            export_to_run(stocked, target, overwrite=overwrite)
    target.rmdir()
    whole = _contents(export_to_run(stocked, target))
    (target / "more.txt").write_text("mine")
    with pytest.raises(StoreError, match="--overwrite"):
        export_to_run(stocked, target)
    assert (target / "more.txt").exists()
    assert _contents(export_to_run(stocked, target, overwrite=True)) == whole
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["out"]


@pytest.mark.parametrize("harm", ["missing", "shorter", "changed"])
def test_a_half_engine_is_refused_by_name(stocked: Engine, tmp_path: Path, harm: str) -> None:
    path = stocked.path / "openvino_model.bin"
    data = path.read_bytes()
    if harm == "missing":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if harm == "shorter" else bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(StoreError, match=rf"{stocked.key} is damaged: .*openvino_model\.bin"):
        export_to_run(stocked, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_an_engine_that_changes_while_it_is_copied_is_refused(
    stocked: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "damage", lambda _: "")  # it was sound a moment ago
    (stocked.path / "tokenizer_config.json").write_bytes(b"{}")
    with pytest.raises(StoreError, match=r"is damaged: tokenizer_config\.json ends"):
        export_to_run(stocked, tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_an_engine_of_another_backend_is_refused_by_name(faulty: Faulty, tmp_path: Path) -> None:
    engine = stock.make()
    with pytest.raises(StoreError, match=rf"{engine.key} is of the backend fault, which has noth"):
        export_to_run(engine, tmp_path / "out")


def test_the_command_line_exports(
    stocked: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", stocked.key[:8], str(tmp_path / "out")]) == 0
    assert stocked.key in capsys.readouterr().out
    assert (tmp_path / "out" / "stream.py").is_file()
    assert main(["export", stocked.key[:8], str(tmp_path / "out")]) == 1
    assert "was not overwritten" in capsys.readouterr().err
    assert main(["export", stocked.key[:8], str(tmp_path / "out"), "--overwrite"]) == 0
    assert main(["export", "ffff", str(tmp_path / "none")]) == 1
    assert store.find_engine(stocked.key)
