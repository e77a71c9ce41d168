"""Trials: one workload measured on one engine or endpoint, as it was written down.

    trials/<point>-<random>.json

The first part of a name is the point: a hash of spec and workload, so that a sweep finds what was
measured. A record holds everything that a chart, a comparison or a doubt needs:

    format, id, point, created, source (workbench, or the tool that it was imported from)
    seconds   that loading and measuring took
    status    done, invalid (the self-check found what cannot be true) or failed
    reasons   why it is not done, sentences
    warnings  what makes it doubtful, such as a busy machine
    spec, engine (key, weights, bytes, build_seconds, load_seconds), workload, devices
    environment (versions, device, load of the host before and meanwhile)
    repetitions  the requests of each, see `workbench.load`
    summary      see `workbench.measurement`; times in seconds, throughput in tokens/s
    memory (host_peak_bytes, gpu_bytes)
    predicted    see `workbench.predictions`, where there was a prediction
    quality      see `workbench.quality`, where a reference was given
    quality_asked  what of `Quality` was not the default, so that it can be asked again
    asked        of a server: what else was said of it, so that it can be measured again
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench.errors import TrialError
from workbench.metrics import percentiles
from workbench.prompts import content
from workbench.quality import Quality
from workbench.spec import BuildSpec, parameters_of
from workbench.units import format_seconds, printable
from workbench.workload import Workload

FORMAT = 1
"""Version of the record's layout."""


@dataclass(frozen=True)
class Trial:
    """One record, with what is asked of it most."""

    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Name of its file, without the ending."""
        return str(self.record["id"])

    @property
    def point(self) -> str:
        """What was measured; trials of one point are repetitions of each other."""
        return str(self.record["point"])

    @property
    def status(self) -> str:
        """Done, invalid or failed."""
        return str(self.record["status"])

    @property
    def valid(self) -> bool:
        """Whether its figures may be compared with others."""
        return self.status == "done"

    @property
    def created(self) -> float:
        """When it was written, in seconds since 1970."""
        return float(self.record["created"])

    @property
    def spec(self) -> Mapping[str, Any]:
        """What was measured, as plain values; of an endpoint or an import, what is known."""
        spec: Mapping[str, Any] = self.record["spec"]
        return spec

    @property
    def workload(self) -> Mapping[str, Any]:
        """How it was measured, as plain values."""
        workload: Mapping[str, Any] = self.record["workload"]
        return workload

    @property
    def summary(self) -> Mapping[str, Any]:
        """Its figures; empty where it failed."""
        summary: Mapping[str, Any] = self.record["summary"]
        return summary

    @property
    def of_unknown_device(self) -> bool:
        """Whether it is of a server, and nobody has said what that runs on."""
        environment = self.record.get("environment") or {}
        return self._of_server and not environment.get("device")

    @property
    def of_unknown_count(self) -> bool:
        """Whether it is of a server, and nobody has said how many devices that has: one counts."""
        asked = self.record.get("asked") or {}
        # Of what another program measured only the name of a device can be told.
        ours = not (self.imported or self.of_unknown_device or asked.get("device_name"))
        return self._of_server and not (ours or self.record["engine"] or asked.get("devices"))

    @property
    def imported(self) -> bool:
        """Whether another program has measured it."""
        return self._of_server and "asked" not in self.record

    @property
    def _of_server(self) -> bool:
        return self.spec.get("backend") == "endpoint"

    def generation(self, number: int) -> dict[str, Any] | None:
        """Return a request of the first repetition as `latency_figure` takes it, if there is one.

        Args:
            number: Its place, from 0 on.
        """
        requests: list[dict[str, Any]] = next(iter(self.record["repetitions"]), [])
        if number >= len(requests) or requests[number]["ttft"] is None:
            return None
        request = requests[number]
        itl = asdict(percentiles(request["itl"])) if request["itl"] else None
        return {**request, "itl": itl, "itl_seconds": request["itl"]}

    def __str__(self) -> str:
        line = f"{self.id}  {self.status:<8} {self.title}  {self._outcome()}"
        return printable(line)

    @property
    def title(self) -> str:
        """What was measured, in a few words: what differs from the defaults."""
        changed = {**_changed(self.spec), **_workload_words(self.workload)}
        return " ".join(
            [str(self.spec.get("backend", "")), *(f"{k}={v}" for k, v in changed.items())]
        )

    def _outcome(self) -> str:
        if not self.valid:
            return "; ".join(self.record["reasons"])
        speed, ttft = self.summary["output_tokens_per_second"], self.summary["ttft"]
        words = [f"{speed:.4g} tokens/s"]
        if ttft:
            words.append(f"TTFT p50 {format_seconds(ttft['p50'])}")
        return "  ".join(words)

    def require(self) -> Trial:
        """Return this trial if its figures can be used.

        Raises:
            TrialError: It failed or is invalid; with the reasons.
        """
        if not self.valid:
            raise TrialError(
                f"The trial {self.id} is {self.status}: {'; '.join(self.record['reasons'])}"
            )
        return self


def _changed(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a recorded spec is not the default, as far as its backend is known here."""
    from workbench.backends import NAMES, get_backend  # noqa: PLC0415 - beside its only use

    name = spec.get("backend")
    known = parameters_of(get_backend(name).spec_class) if name in NAMES else {}
    return {
        key: value
        for key, value in spec.items()
        if key != "backend" and not (key in known and known[key].default == value)
    }


def _workload_words(workload: Mapping[str, Any]) -> dict[str, Any]:
    known = parameters_of(Workload)
    return {k: v for k, v in workload.items() if k in known and known[k].default != v}


def point_of(spec: BuildSpec, workload: Workload, quality: Quality | None = None) -> str:
    """Return what tells a point from all others: sixteen digits of a hash of spec and workload.

    A file of prompts counts by its content. What quality is measured of counts where there is any.
    Parameters that came later are left out while they
    have the value that was there before them, so that earlier trials are found.

    Raises:
        InputError: There is no such file of prompts.
    """
    values, declared = spec.model_dump(mode="json"), parameters_of(type(spec))
    decides = {
        name: value
        for name, value in values.items()
        if not (name in declared and declared[name].later and value == declared[name].default)
    }
    if (folder := Path(spec.model).expanduser()).is_dir():
        decides["model"] = str(folder.absolute())
    asked = {**workload.model_dump(mode="json"), "prompts": content(workload.prompts)}
    parts = {"spec": decides, "workload": asked}
    if quality and quality.wanted:
        parts["quality"] = quality.model_dump(mode="json") | quality.contents()
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def new_record(
    point: str, spec: Mapping[str, Any], workload: Mapping[str, Any], source: str = "workbench"
) -> dict[str, Any]:
    """Return the record of a trial in which nothing has happened yet; it has no id."""
    return {
        "format": FORMAT,
        "point": point,
        "created": time.time(),
        "seconds": 0.0,
        "source": source,
        "status": "failed",
        "reasons": [],
        "warnings": [],
        "spec": dict(spec),
        "engine": {},
        "workload": dict(workload),
        "devices": 1,
        "environment": {},
        "repetitions": [],
        "summary": {},
        "memory": {},
        "quality": {},
    }
