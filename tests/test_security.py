"""What comes from elsewhere is text; what is ours is private; what can run is refused."""

from __future__ import annotations

import json
import os
import re
import stat
import struct
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ipywidgets as widgets
import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench
from tests.test_archive import publish
from tests.test_model import write_model, write_safetensors
from workbench import files, jobs, store
from workbench.backends import get_backend, make_spec
from workbench.build import DEMO_MODEL, Plan
from workbench.cli import main
from workbench.console import follow, print_plan, print_stream
from workbench.containers import Door
from workbench.doctor import examine, lines
from workbench.errors import JobError, ModelError
from workbench.generation import Generation
from workbench.jobs import Job
from workbench.journal import Journal
from workbench.model import Model
from workbench.notebook import publish_result, run_notebook, run_path
from workbench.plots import latency_figure, literal, show
from workbench.rules import Finding
from workbench.sampling import Sampling
from workbench.toolchain import Toolchain
from workbench.units import printable, printable_json
from workbench.widgets.build import BuildPanel
from workbench.widgets.form import BuildForm
from workbench.widgets.jobs import JobsPanel
from workbench.widgets.panel import STYLE, Panel
from workbench.widgets.progress import stages_html, tail
from workbench.widgets.stream import StreamPanel
from workbench.widgets.tokens import TokenView

STATIC = Path(workbench.__file__).parent / "widgets" / "static"

MARKUP = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>"
    "<a href=\"javascript:alert(1)\">x</a><b onclick='alert(1)'>&lt;"
)
# A colour, a window's title, a clipboard write, a line written over, C1's CSI, reversed text,
# an isolate, and half a character.
CONTROLS = (
    "\x1b[31m\x1b]0;owned\x07\x1b]52;c;ZXZpbA==\x07\rover\x9b2J"
    "\u202egpj.exe\u202c\u2066x\u2069\ud800"
)
HOSTILE = MARKUP + CONTROLS

DECEIVING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
TAGS = {"div", "span", "b", "h3", "p", "pre", "table", "thead", "tbody", "tr", "th", "td"} | {
    "caption",
    "details",
    "summary",
    "style",
}
ATTRIBUTES = {"class", "role", "style", "title", "aria-label", "aria-hidden"}


class _Markup(HTMLParser):
    """Collects what is not among the few tags and attributes that our panels are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.foreign: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.foreign += [tag] if tag not in TAGS else []
        self.foreign += [name for name, _ in attrs if name not in ATTRIBUTES]


def assert_shown_as_text(source: str) -> None:
    """HTML from a panel has no markup but our own, and nothing that deceives."""
    parser = _Markup()
    parser.feed(source)
    assert parser.foreign == []
    assert not DECEIVING.search(source)


def assert_harmless(text: str) -> None:
    """A text for a terminal or a plain rendering has nothing that deceives."""
    assert not DECEIVING.search(text), ascii(DECEIVING.findall(text))


def walk(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


def assert_panel_is_text(panel: Panel) -> None:
    for widget in walk(panel):
        if isinstance(widget, widgets.HTML):
            assert_shown_as_text(widget.value)
        # These show text unless they are told otherwise.
        assert not getattr(widget, "description_allow_html", False)
    bundle = panel._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert_harmless(data["text/plain"])


@pytest.fixture
def hostile_model(tmp_path: Path) -> Path:
    """A model that can be read, with a name and an architecture that are out for harm."""
    name = HOSTILE[:-1].replace("/", "")
    return write_model(
        tmp_path / name, architectures=[MARKUP + CONTROLS[:-1] + "ForCausalLM"], model_type=HOSTILE
    )


@pytest.fixture
def hostile_job(home: Path) -> Job:
    """A job whose journal and log are out for harm; it has ended."""
    path = jobs.folder() / "0123456789ab-001"
    path.mkdir()
    spec = make_spec({"backend": "openvino"}).model_dump(mode="json")
    files.write_json(path / "spec.json", {"kind": "build", "spec": spec, "toolchain": "x"})
    journal = Journal(path)
    journal.own()
    journal.stage(HOSTILE, HOSTILE)
    journal.count(HOSTILE, 1, 2, HOSTILE)
    journal.note(HOSTILE)
    journal.fact(tensorrt_phase=HOSTILE)
    journal.end("failed", text=HOSTILE)
    # A terminal shows what follows the last \r of a line.
    (path / "log.txt").write_bytes(HOSTILE.replace("\r", "").encode("utf-8", "surrogatepass"))
    return Job(path)


def hostile_generation() -> Generation:
    generation = Generation(Sampling(), lambda: None)
    generation.take({"event": "started", "input_tokens": 1, "time": 0.0})
    generation.take_tokens([1], HOSTILE, [], 0.1)
    generation.take({"event": "end", "text": HOSTILE, "reason": "stop", "cache_usage": 0.0})
    return generation


# --- one function for terminals and plain texts


@given(st.text())
def test_printable_leaves_nothing_that_deceives(text: str) -> None:
    shown = printable(text)
    assert_harmless(shown)
    assert len(shown) == len(text)
    shown.encode()


@pytest.mark.parametrize(
    "text",
    ["tab\tline\n", "Zwölf Boxkämpfer", "早く起きた朝", "שלום עולם", "مرحبا", "👩\u200d🔬", "½°"],
)
def test_printable_leaves_what_people_write(text: str) -> None:
    assert printable(text) == text


def test_json_for_a_terminal_is_the_same_data() -> None:
    text = printable_json({"name": HOSTILE, "plain": "Zwölf 早く"})
    assert_harmless(text)
    assert json.loads(text) == {"name": HOSTILE, "plain": "Zwölf 早く"}
    assert "Zwölf 早く" in text


def test_an_error_can_be_printed_by_whoever_catches_it() -> None:
    assert_harmless(str(JobError(HOSTILE)))
    assert MARKUP in str(JobError(HOSTILE))
    assert_harmless(str(Finding("warn", "model", HOSTILE, HOSTILE)))


# --- the terminal


def test_a_plan_is_printed_as_text(hostile_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan.make(make_spec({"backend": "openvino", "model": str(hostile_model)}))
    print_plan(plan)
    printed = capsys.readouterr().out
    assert_harmless(printed)
    assert "<script>" in printed


def test_a_followed_job_is_printed_as_text(
    hostile_job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    follow(hostile_job, Plan.make(make_spec({"backend": "openvino"})))
    printed = capsys.readouterr().out
    assert printed.count("<script>") >= 2
    assert_harmless(printed)


def test_a_stream_is_printed_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_stream(hostile_generation())
    printed = capsys.readouterr().out
    assert_harmless(printed)
    assert printed.count("<script>") == 2


def test_engines_and_jobs_are_listed_as_text(
    hostile_job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = publish()
    model = {**engine.manifest["model"], "name": HOSTILE, "source": HOSTILE}
    manifest = {**engine.manifest, "model": model}
    (engine.path / "manifest.json").write_text(json.dumps(manifest))
    assert_harmless(repr(store.find_engine(engine.key)))
    for words in (
        ["engines"],
        ["engines", "show", engine.key],
        ["jobs"],
        ["jobs", "show", hostile_job.id],
        ["jobs", "attach", hostile_job.id],
        ["engines", "show", HOSTILE[:-1]],
        ["jobs", "show", HOSTILE[:-1]],
        ["build", "--model", HOSTILE[:-1]],
        ["commands", "--model", HOSTILE[:-1]],
        [f"--{HOSTILE[:-1]}"],
    ):
        try:
            main(words)
        except SystemExit:
            continue  # argparse quotes what the user typed
        printed = capsys.readouterr()
        assert printed.out + printed.err
        assert_harmless(printed.out + printed.err)


def test_the_doctor_speaks_plainly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_OPENVINO", str(tmp_path / HOSTILE[:-1]))
    for words in (["doctor"], ["doctor", "--json"]):
        main(words)
        printed = capsys.readouterr().out
        assert "<script>" in printed
        assert_harmless(printed)


# --- panels


def test_a_form_shows_a_hostile_model_as_text(hostile_model: Path, clicking: None) -> None:
    form = BuildForm(make_spec({"backend": "openvino", "model": str(hostile_model)}))
    assert form._plan is not None
    assert "&lt;script&gt;" in form._facts.value
    assert_panel_is_text(form)
    for backend in ("tensorrt_llm", "tensorrt_llm_torch"):
        form = BuildForm(make_spec({"backend": backend, "model": str(hostile_model)}))
        assert_panel_is_text(form)


def test_a_form_shows_an_error_as_text(clicking: None) -> None:
    form = BuildForm(make_spec({"backend": "openvino", "model": HOSTILE[:-1]}))
    assert "&lt;script&gt;" in form._fields["model"]._message.value
    assert_panel_is_text(form)


def test_a_build_panel_shows_a_hostile_job_as_text(hostile_job: Job, clicking: None) -> None:
    view = hostile_job.view()
    for html in (stages_html(view, {}, 0.0), tail(hostile_job.log)):
        assert "&lt;script&gt;" in html
        assert_shown_as_text(html)
    panel = BuildPanel(make_spec({"backend": "openvino"}))
    panel.progress.show(hostile_job, view)
    panel.progress.say(HOSTILE)
    panel.show_error(HOSTILE)
    assert "<script>" in panel.plain()
    assert_panel_is_text(panel)


def test_the_builds_panel_shows_a_hostile_job_as_text(hostile_job: Job, clicking: None) -> None:
    panel = JobsPanel(job=hostile_job.id)
    (row,) = panel.table.rows
    assert "<script>" in row[-1]
    for cell in row:
        assert_harmless(cell)
    assert_panel_is_text(panel)
    assert_shown_as_text(panel.static().removeprefix(STYLE))


def test_a_stream_panel_shows_text(demo_engine: Any, clicking: None) -> None:
    panel = StreamPanel.__new__(StreamPanel)
    StreamPanel._attach, attach = (lambda *_: None), StreamPanel._attach  # type: ignore[method-assign]
    try:
        panel.__init__(demo_engine, prompt=HOSTILE[:-1])  # type: ignore[misc]
    finally:
        StreamPanel._attach = attach  # type: ignore[method-assign]
    panel._view.append(HOSTILE)
    panel._view.finish("failed", reason=HOSTILE)
    panel.show_error(HOSTILE)
    assert_panel_is_text(panel)


def test_a_token_view_gives_plain_text_that_is_harmless() -> None:
    view = TokenView(HOSTILE)
    view.append(HOSTILE)
    view.finish("failed", reason=HOSTILE)
    bundle = view._repr_mimebundle_()
    assert bundle is not None
    assert "<script>" in bundle[0]["text/plain"]
    assert_harmless(bundle[0]["text/plain"])
    assert view.text.startswith(MARKUP)  # the view itself keeps what was generated


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")), ids=lambda path: path.name)
def test_no_script_of_ours_makes_markup_from_text(path: Path) -> None:
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|srcdoc"
    source = path.read_text(encoding="utf-8")
    assert not re.findall(ways, source)


# --- figures and published results


def test_a_figure_shows_markup_as_text() -> None:
    # Plotly knows these tags, entities, formulas between dollars, and fields of hover templates.
    text = f"<b>x</b><br><a href='javascript:alert(1)'>y</a>&amp;$\\alpha$%{{x}}{CONTROLS}"
    shown = literal(text)
    assert_harmless(shown)
    assert not re.search(r"[<>$]|%\{|&(?!amp;|lt;|gt;|#\d+;)", shown)
    from html import unescape

    assert unescape(shown) == printable(text)


def test_a_record_cannot_bring_markup_into_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    displayed: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: displayed.append(data))
    record = {"ttft": 0.5, "itl_seconds": [0.1], "itl": {"p50": 0.1}, "output_tokens": HOSTILE}
    figure = latency_figure(record)
    assert "<" not in figure.layout.title.text
    show(figure)
    assert "<script>" in displayed[0]["text/plain"]
    assert_harmless(displayed[0]["text/plain"])


def test_published_results_have_a_harmless_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    displayed: list[dict[str, Any]] = []
    monkeypatch.setattr("IPython.display.display", lambda data, **_: displayed.append(data))
    publish_result(text=HOSTILE)
    assert_harmless(displayed[0]["text/plain"])
    assert set(displayed[0]) == {"application/vnd.trtllm-workbench.result+json", "text/plain"}


# --- private to the user


@pytest.fixture
def open_umask() -> Iterator[None]:
    """An umask that hides nothing, as some machines have."""
    before = os.umask(0)
    yield
    os.umask(before)


SECRET = "hf_ThisIsNobodysToken0123456789"


def assert_private(home: Path) -> None:
    for path in [home, *home.rglob("*")]:
        if not path.is_symlink():
            rights = stat.S_IMODE(path.stat().st_mode)
            assert not rights & 0o077, f"{path} has the rights {rights:o}"


def test_a_demo_leaves_nothing_for_others_and_no_token(
    home: Path, open_umask: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WORKBENCH_SECRET"):
        monkeypatch.setenv(name, SECRET)
    assert main(["demo", "--max-output-len", "64", "--max-tokens", "4"]) == 0
    (job,) = jobs.list_jobs()
    assert {path.name for path in home.iterdir()} >= {"engines", "jobs", "accounts", "fingerprints"}
    assert {path.name for path in job.path.iterdir()} >= {"log.txt", "journal.jsonl", "spec.json"}
    assert_private(home)
    for path in home.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def test_a_run_notebook_is_private(home: Path, open_umask: None, tmp_path: Path) -> None:
    notebook = tmp_path / "made.ipynb"
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python"}
    nbformat.write(made, notebook)
    run_notebook(notebook)
    run_notebook(notebook, run_path(notebook))
    assert len(list((home / "runs").iterdir())) >= 1
    assert_private(home)


def test_a_door_is_private(open_umask: None) -> None:
    with Door() as door:
        assert stat.S_IMODE(door.folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(door.path.stat().st_mode) == 0o600


def test_a_home_that_is_there_keeps_its_rights_and_the_doctor_says_so(home: Path) -> None:
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    store.folder()
    assert stat.S_IMODE(home.stat().st_mode) == 0o755
    assert stat.S_IMODE(store.folder().stat().st_mode) == 0o700
    (note,) = [line for line in lines(examine()) if line.startswith("Note")]
    assert "can be entered by other users (rights 755)" in note
    assert f"chmod 700 {home}" in note
    home.chmod(0o700)
    assert not [line for line in lines(examine()) if line.startswith("Note")]


@pytest.mark.parametrize("online", [False, True])
def test_only_a_worker_that_needs_the_hub_gets_its_token(
    online: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    _, environment = Toolchain("/usr/bin/python3").command(("build",), online=online)
    assert (environment.get("HF_TOKEN") == SECRET) is online


# --- what can run is refused


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A model that can be read."""
    return write_model(tmp_path / "model")


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "model.pt",
        "consolidated.00.pth",
        "last.ckpt",
        "weights.pkl",
        "adapter.pickle",
    ],
)
def test_weights_that_are_only_a_pickle_are_refused(plain: Path, name: str) -> None:
    (plain / "model.safetensors").rename(plain / name)
    (plain / "training_args.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=f"only as {re.escape(name)}, a pickle"):
        Model.read(plain)


def test_a_pickle_that_training_left_is_not_taken_for_weights(plain: Path) -> None:
    (plain / "model.safetensors").rename(plain / "training_args.bin")
    model = Model.read(plain)
    assert model.counted_from == "configuration"
    with pytest.raises(ModelError, match="holds no weights, only its configuration"):
        model.download()


def test_an_index_cannot_name_a_pickle(plain: Path) -> None:
    """The content would pass for safetensors, and loaders go by the ending."""
    (plain / "model.safetensors").rename(plain / "pytorch_model.bin")
    names = [tensor.name for tensor in Model.read(DEMO_MODEL).tensors]
    index = {"weight_map": dict.fromkeys(names, "pytorch_model.bin")}
    (plain / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"which is no safetensors file\. Convert it"):
        Model.read(plain)


@pytest.mark.parametrize("length", [0, 1, 100_000_001, 2**63, 2**64 - 1])
def test_an_absurd_header_is_refused_without_being_read(plain: Path, length: int) -> None:
    path = plain / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(ModelError, match="is not a safetensors file"):
        Model.read(plain)


@pytest.mark.parametrize("offsets", [[0, 8], [4, 12], [-8, 0], [16, 24]])
def test_data_that_overlap_or_leave_a_gap_are_refused(plain: Path, offsets: list[int]) -> None:
    header = {
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": offsets},
    }
    text = json.dumps(header).encode()
    (plain / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    with pytest.raises(ModelError, match="is damaged"):
        Model.read(plain)


def findings(**values: Any) -> list[str]:
    spec = make_spec({"backend": "tensorrt_llm", **values})
    found = get_backend("tensorrt_llm").findings(spec, None, ())
    return [f"{finding.level} {finding.field}: {finding.reason}" for finding in found]


def test_an_adapter_that_is_only_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    given = {"lora_plugin": "auto", "lora_dir": str(tmp_path)}
    assert any("refuse lora_dir" in line and "a pickle" in line for line in findings(**given))
    write_safetensors(tmp_path / "adapter_model.safetensors", {"a": (1,)})
    assert not any("lora_dir" in line for line in findings(**given))
    nemo = {**given, "lora_ckpt_source": "nemo"}
    assert any("warn lora_dir" in line and "a pickle" in line for line in findings(**nemo))


def test_calibration_texts_with_code_are_refused(tmp_path: Path) -> None:
    given = {"quantization": "fp8", "calib_dataset": str(tmp_path)}
    assert not any("calib_dataset" in line for line in findings(**given))
    (tmp_path / "load.py").write_text("")
    assert any("refuse calib_dataset" in line and "load.py" in line for line in findings(**given))
