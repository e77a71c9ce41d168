"""Documentation derived from the declared parameters: the README's table, the notebooks' cells.

python -m workbench.docs            write what has drifted
python -m workbench.docs --check    say what has drifted, and fail
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import nbformat

from workbench.backends import DEFAULT, get_backend
from workbench.quality import Quality
from workbench.server_spec import ServerSpec
from workbench.spec import Declared, Parameter, parameters_of
from workbench.spec_text import declaration
from workbench.workload import Workload

ROOT = Path(__file__).parents[1]

RECORDS: dict[str, type[Declared]] = {
    "workload": Workload,
    "quality": Quality,
    "server": ServerSpec,
}
"""What a notebook declares between "# --- NAME" and "# --- end" beside build parameters."""

EFFECTS = {
    "identity": "which model",
    "compiled": "compiled into the engine",
    "load": "given to the runtime when the engine is loaded, and enforced",
    "run": "how the build runs, not what it makes",
}


def parameter_table(backend: str) -> str:
    """Return the parameters of a backend as a Markdown table."""
    lines = ["| parameter | default | what it does | takes effect |", "|---|---|---|---|"]
    for parameter in parameters_of(get_backend(backend).spec_class).values():
        unit = f" ({parameter.unit})" if parameter.unit else ""
        lines.append(
            f"| `{parameter.name}`{unit} | {_default(parameter)} | "
            f"{parameter.help}{_choices(parameter)} | {EFFECTS[parameter.effect]} |"
        )
    return "\n".join(lines)


def record_table(name: str) -> str:
    """Return the parameters of one of `RECORDS` as a Markdown table."""
    lines = ["| parameter | default | what it does |", "|---|---|---|"]
    for parameter in parameters_of(RECORDS[name]).values():
        unit = f" ({parameter.unit})" if parameter.unit else ""
        lines.append(
            f"| `{parameter.name}`{unit} | {_default(parameter)} | "
            f"{parameter.help}{_choices(parameter)} |"
        )
    return "\n".join(lines)


def _backend_line(backend: str) -> str:
    """Return the line of a notebook that declares the backend; see `notebook.spec_from`."""
    words = "the values below are for it, and do not count where another one is passed"
    return f'backend = "{backend}"  # what compiles and runs the engine; {words}'


def parameters_cell(backend: str) -> str:
    """Return the lines that declare a backend's parameters in a notebook."""
    lines = [_backend_line(backend)]
    lines += [
        declaration(parameter, parameter.default)
        for parameter in parameters_of(get_backend(backend).spec_class).values()
    ]
    return "\n".join(lines)


def chosen_cell(backend: str, lines: str) -> str:
    """Return the lines of a notebook that declares some parameters, with values of its own.

    Names and values stay; what is said about them follows the declaration.
    """
    parameters = parameters_of(get_backend(backend).spec_class)
    kept = [_backend_line(backend)]
    for node in ast.parse(lines).body:
        assert isinstance(node, ast.Assign)  # noqa: S101 - nothing else belongs in there
        target = node.targets[0]
        assert isinstance(target, ast.Name)  # noqa: S101 - as above
        if target.id != "backend":
            kept.append(declaration(parameters[target.id], ast.literal_eval(node.value)))
    return "\n".join(kept)


def record_cell(record: type[Declared]) -> str:
    """Return the lines that declare the parameters of a record in a notebook."""
    declared = parameters_of(record).values()
    return "\n".join(declaration(parameter, parameter.default) for parameter in declared)


def _default(parameter: Parameter) -> str:
    if parameter.default is None:
        return parameter.none_means
    return f"`{parameter.default}`"


def _choices(parameter: Parameter) -> str:
    if not parameter.choices:
        return ""
    return " One of " + ", ".join(f"`{choice}`" for choice in parameter.choices) + "."


_MARKED = re.compile(r"(<!-- parameters: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_TABLE = re.compile(rf"(<!-- record: ({'|'.join(RECORDS)}) -->\n).*?(<!-- end -->)", re.DOTALL)


def _readme(text: str) -> str:
    """Return the README with its tables written anew."""
    text = _TABLE.sub(lambda m: m[1] + record_table(m[2]) + "\n" + m[3], text)
    return _MARKED.sub(lambda m: m[1] + parameter_table(m[2]) + "\n" + m[3], text)


_CELL = re.compile(r"(# --- build parameters\n).*?(# --- end)", re.DOTALL)
_RECORD = re.compile(rf"(# --- ({'|'.join(RECORDS)})\n).*?(# --- end)", re.DOTALL)
_CHOSEN = re.compile(r"(# --- some build parameters of (\w+)\n)(.*?)(# --- end)", re.DOTALL)


def _notebook(text: str) -> str:
    """Return a notebook with the declared parameters in its `parameters` cell."""
    notebook = nbformat.reads(text, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = _CELL.sub(
                lambda m: m[1] + parameters_cell(DEFAULT) + "\n" + m[2], cell.source
            )
            cell.source = _RECORD.sub(
                lambda m: m[1] + record_cell(RECORDS[m[2]]) + "\n" + m[3], cell.source
            )
            cell.source = _CHOSEN.sub(
                lambda m: m[1] + chosen_cell(m[2], m[3]) + "\n" + m[4], cell.source
            )
    return str(nbformat.writes(notebook)) + "\n"


def drifted(root: Path = ROOT, *, write: bool) -> list[Path]:
    """Return the files whose derived parts are not what the declarations say.

    Args:
        root: The repository.
        write: Also put them right.
    """
    wanted = {root / "README.md": _readme}
    wanted |= dict.fromkeys(sorted((root / "notebooks").glob("*.ipynb")), _notebook)
    stale = []
    for path, derive in wanted.items():
        before = path.read_text(encoding="utf-8")
        after = derive(before)
        if after != before:
            stale.append(path)
            if write:
                path.write_text(after, encoding="utf-8")
    return stale


def main() -> int:
    """Run the command of the module docstring."""
    check = "--check" in sys.argv[1:]
    stale = drifted(write=not check)
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'has drifted' if check else 'was written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
