"""Predictions beside measurements: what NVIDIA's database says of a trial before it is measured.

Made where the database is installed (`workbench.forecast`), for TensorRT-LLM under a constant
number of requests of known lengths; anywhere else nothing is known, and nothing is claimed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from workbench import files
from workbench.backends import get_backend
from workbench.build import Plan
from workbench.errors import WorkbenchError
from workbench.forecast import Load, database, forecast, order_of
from workbench.spec import BuildSpec
from workbench.workload import Workload


def predicted(spec: BuildSpec, workload: Workload) -> dict[str, Any]:
    """Return what is predicted of a trial, in the units of its summary; nothing where nobody can.

    The answer is kept: the database takes 10 to 30 s for one. Why it has none stands in "lacks".
    """
    if not get_backend(spec.backend).name.startswith("tensorrt_llm"):
        return {}
    if workload.prompts or workload.request_rate is not None:
        return {}  # it knows lengths and a number of requests, no files and no rates
    load = Load(workload.input_len, workload.output_len, workload.concurrency)
    try:
        name = database()
        if name is None:
            return {}
        plan = Plan.make(spec)
        asked = json.dumps([name, order_of(plan, load)], sort_keys=True)
        path = files.make_folder(files.home() / "cache") / f"forecast-{_digest(asked)}.json"
        known = files.read_json(path)
        if not isinstance(known, dict):
            known = asdict(forecast(plan, load))
            files.write_json(path, known)
    except WorkbenchError as error:
        return {"lacks": str(error)}
    except OSError as error:  # a full disk, or a process that ended before it was asked
        return {"lacks": f"The system refused the forecast: {error.strerror or error}."}
    return {
        "output_tokens_per_second": known["tokens_per_second_per_gpu"] * known["gpus"],
        "output_tokens_per_second_per_device": known["tokens_per_second_per_gpu"],
        "ttft": known["ttft"],
        "itl": known["itl"],
        "e2e": known["ttft"] + known["itl"] * (load.output_tokens - 1),
        "by": f"{known['database']}, TensorRT-LLM {known['version']} on {known['hardware']}",
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
