"""The pictures of the documentation, taken from the real thing.

    python -m tests.browser.screenshots {tour,build,compare} [--theme Dark] [--width 1000] [OUTPUT]

tour runs the tour in a real JupyterLab with a store of its own; build plans a known model, of
which only the configuration is there, for GPUs that are not here; compare measures the sweep of
the demo model, which takes some minutes, unless --store names a store that has it already.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

from tests.browser.lab import REPOSITORY, Lab, LabPage, open_chromium
from tests.known_models import KNOWN

PLAN = """
import workbench as wb
spec = wb.make_spec(
    backend="tensorrt_llm", model="Llama-3.1-70B", quantization="fp8", tp_size=4,
    max_seq_len=8192, max_batch_size=256, max_num_tokens=16384,
)
form = wb.BuildForm(spec, device="H100 SXM 80GB", gpu_count=4)
form
"""

COMPARE = """
import workbench as wb
sweep = wb.SweepPanel("sweep_demo.toml", start=True)
sweep.wait_trials()
compare = wb.ComparePanel(price=2.5, baseline="quantization=none max_batch_size=1 concurrency=1")
compare.choose(compare.table.rows[0][0])
compare
"""

FIRST = {"tour": ".js-plotly-plot"}
"""What is brought to the top of a picture; by default the first panel."""

HEIGHTS = {"tour": 2120, "build": 1500, "compare": 1500}


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["tour", "build", "compare"])
    parser.add_argument("output", nargs="?", type=Path)
    parser.add_argument("--theme", choices=["Light", "Dark"], default="Light")
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--store", type=Path, help="Default: an empty one.")
    options = parser.parse_args()
    output = options.output or REPOSITORY / f"notebooks/{options.what}.png"
    with tempfile.TemporaryDirectory() as scratch:
        folder, home = Path(scratch) / "notebooks", Path(scratch) / "home"
        folder.mkdir()
        home.mkdir()
        for name in ("00_tour.ipynb", "sweep_demo.toml"):
            shutil.copy(REPOSITORY / "notebooks" / name, folder)
        environment = {"WORKBENCH_HOME": str(options.store or home / "store")}
        with (
            Lab(folder, home, environment) as lab,
            open_chromium() as chromium,
            LabPage(chromium, lab, _notebook(lab, options.what)) as page,
        ):
            # Tall enough for all panels: Lab renders only what is in view.
            height = HEIGHTS[options.what]
            page.page.set_viewport_size({"width": options.width, "height": height})
            page.set_theme(options.theme)
            page.command("application:toggle-left-area")
            page.run_all(timeout=600)
            while options.what == "tour" and not page.value("stream.record is not None"):
                time.sleep(0.5)
            page.command("notebook:hide-all-cell-code")
            _scroll(page, FIRST.get(options.what, ".workbench-panel"))
            page.screenshot(output, ".jp-WindowedPanel-outer")
            page.shut_down_kernel()


def _notebook(lab: Lab, what: str) -> str:
    """Return the notebook that is shown, written where it is none of ours."""
    if what == "compare":
        return lab.write_notebook("compare.ipynb", COMPARE)
    return _write_plan(lab) if what == "build" else "00_tour.ipynb"


def _write_plan(lab: Lab) -> str:
    """Write a notebook that plans Llama-3.1-70B, and the configuration that it reads."""
    [known] = [model for model in KNOWN if model.name.endswith("Llama-3.1-70B")]
    folder = lab.folder / "Llama-3.1-70B"
    folder.mkdir()
    about = {"architectures": [known.architecture], "model_type": "llama"}
    context = {"max_position_embeddings": 131_072, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps({**about, **known.config, **context}))
    return lab.write_notebook("plan.ipynb", PLAN)


def _scroll(page: LabPage, selector: str) -> None:
    """Bring the first of what is selected to the top."""
    for _ in range(3):  # cells that come into view take their heights
        page.page.wait_for_timeout(1500)
        page.page.locator(".jp-WindowedPanel-outer").evaluate(
            """(e, selector) => { e.scrollTop += document.querySelector(selector)
              .getBoundingClientRect().top - e.getBoundingClientRect().top - 100; }""",
            selector,
        )
    page.page.wait_for_timeout(1500)


if __name__ == "__main__":
    main()
