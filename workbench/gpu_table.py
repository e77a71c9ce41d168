"""GPU table: what NVIDIA's GPUs have and do, so that a laptop can plan for an H200.

Throughput is of dense matrices: data sheets since Ampere print twice that, "with sparsity". Where a
GPU is slower with sums in float32 (GeForce), that slower number stands here, for it is the one that
language models are computed with. Memory is what nvidia-smi shows where somebody published that,
and the size on the data sheet elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from workbench.errors import InputError
from workbench.gpus import Gpu
from workbench.spec import nearest

MIB = 1 << 20
GIB = 1 << 30
GIGA = 1_000_000_000
TERA = 1_000_000_000_000

PRECISIONS = ("tf32", "float16", "bfloat16", "int8", "fp8", "nvfp4")
"""What tensor cores multiply; a GPU lacks those that its table row does not have."""


@dataclass(frozen=True)
class GpuModel:
    """One kind of GPU.

    Attributes:
        name: Short name with what tells variants apart: "H100 SXM 80GB".
        memory_bytes: Memory that programs see, in bytes.
        bandwidth: Of its memory, in bytes a second.
        compute_capability: Major and minor number, (9, 0) for Hopper.
        throughput: Operations a second on dense matrices by precision, a key of `PRECISIONS`.
        source: Where the numbers are from.
    """

    name: str
    memory_bytes: int
    bandwidth: int
    compute_capability: tuple[int, int]
    throughput: Mapping[str, float]
    source: str

    def as_gpu(self, index: int = 0) -> Gpu:
        """Return it as a GPU of which nothing is in use, to plan for.

        Args:
            index: Its number among those that are planned for.
        """
        return Gpu(
            index=index,
            name=self.name,
            compute_capability=self.compute_capability,
            memory_bytes=self.memory_bytes,
            memory_free=self.memory_bytes,
            uuid=f"planned-{index}",
        )


COUNTS = (1, 2, 4, 8)
"""GPUs that a host usually has."""


def find(name: str) -> GpuModel:
    """Return the GPU of a name, or of the beginning of one where no other begins so.

    Case, spaces, hyphens, "NVIDIA" and "GeForce" do not matter.

    Raises:
        InputError: There is none in the table, which names the nearest, or there are several.
    """
    wanted = _plain(name)
    for model in GPUS:
        if _plain(model.name) == wanted:
            return model
    beginning = [model for model in GPUS if wanted and _plain(model.name).startswith(wanted)]
    if len(beginning) == 1:
        return beginning[0]
    if beginning:
        several = ", ".join(model.name for model in beginning)
        raise InputError(f"There are several GPUs {name}: {several}. Name one.")
    names = [model.name for model in GPUS]
    raise InputError(
        f"The table has no GPU {name!r}.{nearest(name, names)} It knows {', '.join(names)}."
    )


def check_count(count: object, name: str = "gpu_count") -> None:
    """Refuse a number of GPUs that no host has.

    Raises:
        InputError: Says which there are.
    """
    if type(count) is not int or count not in COUNTS:
        raise InputError(f"{name} must be one of {', '.join(map(str, COUNTS))}; got {count!r}.")


def _plain(name: str) -> str:
    return re.sub(r"nvidia|geforce|[\s_-]", "", name.lower())


def _row(
    name: str,
    memory: int,
    bandwidth: float,
    capability: tuple[int, int],
    source: str,
    **tera: float,
) -> GpuModel:
    """Make a row from GB/s and from 10^12 operations a second; bfloat16 is as fast as float16."""
    if capability >= (8, 0):
        tera["bfloat16"] = tera["float16"]
    throughput = {name: tera[name] * TERA for name in PRECISIONS if name in tera}
    return GpuModel(
        name,
        memory,
        round(bandwidth * GIGA),
        capability,
        MappingProxyType(throughput),
        source,
    )


_V100 = "NVIDIA Tesla V100 data sheet"
_A100 = "NVIDIA A100 data sheet and A100 architecture white paper"
_GA10X = "NVIDIA {} data sheet; nvidia-smi shows this memory with ECC on"
_ADA = "NVIDIA {} data sheet, sparse numbers halved; nvidia-smi shows this memory with ECC on"
_HOPPER = "NVIDIA {} data sheet, sparse numbers halved; memory as nvidia-smi shows it"
_BLACKWELL = (
    "ai-dynamo/aiconfigurator systems/{}.yaml, which has NVIDIA's dense numbers and the memory "
    "that nvidia-smi shows; tf32 is half of bfloat16 (NVIDIA HGX and NVL72 data sheets)"
)
_GA102 = "NVIDIA Ampere GA102 GPU architecture white paper, dense with float32 sums"
_AD10X = (
    "NVIDIA Ada GPU architecture white paper 2.1, appendix A, dense with float32 sums (corrected "
    "for fp8 in version 2.02); memory as nvidia-smi shows it"
)
_AD10X_RATE = (
    "multiprocessors x boost clock x operations a clock of the NVIDIA Ada GPU architecture white "
    "paper, dense with float32 sums; memory as nvidia-smi shows it"
)
_GB20X = (
    "NVIDIA RTX Blackwell GPU architecture white paper, appendix A, dense with float32 sums; "
    "memory as nvidia-smi shows it"
)

GPUS: tuple[GpuModel, ...] = (
    _row("V100 PCIe 16GB", 16 * GIB, 900, (7, 0), _V100, float16=112),
    _row("V100 SXM2 16GB", 16 * GIB, 900, (7, 0), _V100, float16=125),
    _row("V100 SXM2 32GB", 32 * GIB, 900, (7, 0), _V100, float16=125),
    _row("T4", 15360 * MIB, 320, (7, 5), "NVIDIA Turing white paper", float16=65, int8=130),
    _row("A10", 23028 * MIB, 600, (8, 6), _GA10X.format("A10"), tf32=62.5, float16=125, int8=250),
    _row("A30", 24 * GIB, 933, (8, 0), "NVIDIA A30 data sheet", tf32=82, float16=165, int8=330),
    _row(
        "A40", 46068 * MIB, 696, (8, 6), _GA10X.format("A40"), tf32=74.8, float16=149.7, int8=299.3
    ),
    _row("A100 PCIe 40GB", 40 * GIB, 1555, (8, 0), _A100, tf32=156, float16=312, int8=624),
    _row("A100 SXM 40GB", 40 * GIB, 1555, (8, 0), _A100, tf32=156, float16=312, int8=624),
    _row("A100 PCIe 80GB", 80 * GIB, 1935, (8, 0), _A100, tf32=156, float16=312, int8=624),
    _row("A100 SXM 80GB", 80 * GIB, 2039, (8, 0), _A100, tf32=156, float16=312, int8=624),
    _row(
        "L4", 23034 * MIB, 300, (8, 9), _ADA.format("L4"),
        tf32=60, float16=121, int8=242.5, fp8=242.5,
    ),
    _row(
        "L40", 46068 * MIB, 864, (8, 9), _ADA.format("L40"),
        tf32=90.5, float16=181.05, int8=362, fp8=362,
    ),
    _row(
        "L40S", 46068 * MIB, 864, (8, 9), _ADA.format("L40S"),
        tf32=183, float16=362.05, int8=733, fp8=733,
    ),
    _row(
        "H100 PCIe 80GB", 81559 * MIB, 2000, (9, 0), _HOPPER.format("H100"),
        tf32=378, float16=756.5, int8=1513, fp8=1513,
    ),
    _row(
        "H100 SXM 80GB", 81559 * MIB, 3350, (9, 0), _HOPPER.format("H100"),
        tf32=494.7, float16=989.4, int8=1978.9, fp8=1978.9,
    ),
    _row(
        "H100 NVL 94GB", 95830 * MIB, 3900, (9, 0), _HOPPER.format("H100"),
        tf32=417.5, float16=835.5, int8=1670.5, fp8=1670.5,
    ),
    _row(
        "H20 96GB", 97871 * MIB, 4000, (9, 0),
        "citsjtu2020/LLM-Prof hardware_spec.md (NVIDIA has no public data sheet of it); memory as "
        "nvidia-smi shows it",
        tf32=74, float16=148, int8=296, fp8=296,
    ),
    _row(
        "H200 SXM 141GB", 143771 * MIB, 4800, (9, 0), _HOPPER.format("H200"),
        tf32=494.7, float16=989.4, int8=1978.9, fp8=1978.9,
    ),
    _row(
        "B200 SXM 180GB", 183359 * MIB, 7700, (10, 0), _BLACKWELL.format("b200_sxm"),
        tf32=1125, float16=2250, int8=4500, fp8=4500, nvfp4=9000,
    ),
    _row(
        "GB200", 189471 * MIB, 8000, (10, 0), _BLACKWELL.format("gb200"),
        tf32=1250, float16=2500, int8=5000, fp8=5000, nvfp4=10000,
    ),
    _row(
        "B300 SXM", 275040 * MIB, 7750, (10, 3), _BLACKWELL.format("b300_sxm"),
        tf32=1125, float16=2250, int8=153.5, fp8=4500, nvfp4=14000,
    ),
    _row(
        "GB300", 284208 * MIB, 8000, (10, 3), _BLACKWELL.format("gb300"),
        tf32=1250, float16=2500, int8=165, fp8=5000, nvfp4=15000,
    ),
    _row(
        "RTX PRO 6000 Blackwell", 97887 * MIB, 1792, (12, 0),
        "NVIDIA RTX PRO 6000 Blackwell Workstation Edition data sheet, sparse numbers halved; "
        "memory as nvidia-smi shows it",
        tf32=251.9, float16=503.8, int8=1007.6, fp8=1007.6, nvfp4=2015.2,
    ),
    _row("RTX 3090", 24 * GIB, 936.2, (8, 6), _GA102, tf32=35.6, float16=71.2, int8=284.7),
    _row(
        "RTX 4060 Ti 16GB", 16380 * MIB, 288, (8, 9), _AD10X_RATE,
        tf32=22.06, float16=44.1, int8=176.5, fp8=88.2,
    ),
    _row(
        "RTX 4070", 12282 * MIB, 504.2, (8, 9), _AD10X_RATE,
        tf32=29.15, float16=58.3, int8=233.2, fp8=116.6,
    ),
    _row(
        "RTX 4090", 24564 * MIB, 1008, (8, 9), _AD10X,
        tf32=82.6, float16=165.2, int8=660.6, fp8=330.3,
    ),
    _row(
        "RTX 5070 Ti", 16303 * MIB, 896, (12, 0), _GB20X,
        tf32=43.9, float16=87.9, int8=351.5, fp8=175.8, nvfp4=703,
    ),
    _row(
        "RTX 5080", 16303 * MIB, 960, (12, 0), _GB20X,
        tf32=56.3, float16=112.6, int8=450.2, fp8=225.1, nvfp4=900.4,
    ),
    _row(
        "RTX 5090", 32607 * MIB, 1792, (12, 0), _GB20X,
        tf32=104.8, float16=209.5, int8=838, fp8=419, nvfp4=1676,
    ),
)  # fmt: skip
"""The GPUs that can be planned for: data centre by age, then workstation and consumer."""
