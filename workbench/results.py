"""The trials of the store: one JSON file each, written at once and never changed."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import ToolchainError, TrialError
from workbench.measurement import LATENCIES
from workbench.trial import FORMAT, Trial


def folder() -> Path:
    """Return the folder of all trials."""
    return files.make_folder(files.home() / "trials")


def save(record: Mapping[str, Any]) -> Trial:
    """Write a trial under a name of its own; it is there completely or not at all.

    Raises:
        OSError: The disk refused.
    """
    # Two who measure the same point at the same time both keep their trial.
    name = f"{record['point']}-{uuid.uuid4().hex[:8]}"
    files.write_json(folder() / f"{name}.json", {**record, "id": name})
    return Trial({**record, "id": name})


def list_trials(*, valid: bool = False) -> list[Trial]:
    """Return the trials of the store, the newest first; what is no record is left out.

    Args:
        valid: Only those whose figures may be compared.
    """
    found = [trial for path in folder().glob("*.json") if (trial := _read(path))]
    wanted = [trial for trial in found if trial.valid or not valid]
    return sorted(wanted, key=lambda trial: (trial.created, trial.id), reverse=True)


def find_trial(name: str) -> Trial:
    """Return a trial by its id, or by the beginning of its id where that is enough.

    Raises:
        TrialError: There is none, or more than one.
    """
    matches = [trial for trial in list_trials() if trial.id.startswith(name)] if name else []
    if len(matches) == 1:
        return matches[0]
    what = "is no trial" if not matches else f"are {len(matches)} trials"
    raise TrialError(f"There {what} whose id begins with '{name}'. `workbench trials` lists them.")


def trials_of(point: str) -> list[Trial]:
    """Return the trials of one point, the newest first."""
    found = [trial for path in folder().glob(f"{point}-*.json") if (trial := _read(path))]
    return sorted(found, key=lambda trial: (trial.created, trial.id), reverse=True)


def latest(point: str) -> Trial | None:
    """Return the newest trial of a point, whatever came out; None where there is none."""
    return next(iter(trials_of(point)), None)


def _read(path: Path) -> Trial | None:
    """Return the trial in a file, or None: a file of a later version, or one that is no record."""
    record = files.read_json(path)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        return None
    expected = {"id": str, "point": str, "status": str, "created": float, "reasons": list}
    mappings = dict.fromkeys(("spec", "workload", "summary", "engine"), dict)
    kinds: dict[str, type] = {**expected, **mappings}
    sound = all(isinstance(record.get(name), kind) for name, kind in kinds.items())
    return Trial(record) if sound else None


def rows(trials: Iterable[Trial] | None = None) -> list[dict[str, Any]]:
    """Return a flat line a trial: spec, workload and figures by name, for tables and charts.

    Names of the workload begin with "workload.", those of percentiles end with ".p50" and so on.

    Args:
        trials: Which; by default all of the store.
    """
    return [_row(trial) for trial in (list_trials() if trials is None else trials)]


def _row(trial: Trial) -> dict[str, Any]:
    record = trial.record
    figures = {k: v for k, v in trial.summary.items() if not isinstance(v, Mapping | list)}
    spreads = {
        f"{name}.{part}": value
        for name in LATENCIES
        for part, value in (trial.summary.get(name) or {}).items()
    }
    return {
        "id": trial.id,
        "point": trial.point,
        "created": trial.created,
        "source": record.get("source"),
        "status": trial.status,
        "reasons": "; ".join(record["reasons"]),
        **trial.spec,
        **{f"workload.{name}": value for name, value in trial.workload.items()},
        **{f"engine.{name}": value for name, value in record["engine"].items()},
        **{f"memory.{name}": value for name, value in (record.get("memory") or {}).items()},
        **{
            f"quality.{name}": value
            for name, value in (record.get("quality") or {}).items()
            if not isinstance(value, Mapping | list)
        },
        "devices": record.get("devices"),
        **figures,
        **spreads,
    }


def frame(trials: Iterable[Trial] | None = None) -> Any:
    """Return `rows` as a pandas DataFrame.

    Args:
        trials: Which; by default all of the store.

    Raises:
        ToolchainError: pandas is not installed; `rows` needs nothing.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ModuleNotFoundError:
        raise ToolchainError(
            "A frame needs pandas, which is not installed here: pip install pandas (or "
            "'trtllm-workbench[trials]'). Without it, "
            "rows() returns the same as a list of dictionaries."
        ) from None
    return pandas.DataFrame(rows(trials))
