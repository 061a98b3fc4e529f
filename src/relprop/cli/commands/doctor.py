"""``relprop doctor``"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from typing import Any

from ..options import Common
from ..output import show, table

_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[([\w, -]+)\])?([^;]*)(?:;.*extra\s*==\s*['\"]([\w-]+)['\"])?")
_FOR_DEVELOPERS = {"bench", "dev", "test"}


def doctor(*, common: Common | None = None) -> int:
    """Tell what is installed, and what is missing."""
    versions, processor, devices, extras = _versions(), _processor(), _devices(), _extras()
    rows = [
        (name, "complete" if not told["missing"] else f"lacks {', '.join(told['missing'])}", told["remedy"])
        for name, told in extras.items()
    ]
    lines = [
        table([("what", "version"), *versions.items()]),
        table([("processor", ""), *((name, str(value)) for name, value in processor.items())]),
        f"devices: {', '.join(devices)}",
        table([("extra", "state", "to install"), *rows]) if rows else "relprop is not installed as a package",
    ]
    found = {"versions": versions, "processor": processor, "devices": devices, "extras": extras}
    show("\n\n".join(lines), found, common or Common())
    return 0


def _versions() -> dict[str, str]:
    import numpy
    import torch

    import relprop

    return {
        "relprop": relprop.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
    }


def _processor() -> dict[str, Any]:
    """What decides how fast a CPU is, and which kernels torch takes."""
    import torch

    return {
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "oneDNN": "yes" if torch.backends.mkldnn.is_available() else "no",
        "MKL": "yes" if torch.backends.mkl.is_available() else "no",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def _devices() -> list[str]:
    import torch

    cuda = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    return ["cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]


def _extras() -> dict[str, dict[str, Any]]:
    """What each extra asks for, as the installed package says, and what of it is missing."""
    try:
        told = importlib.metadata.requires("relprop") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    wanted: dict[str, list[str]] = {}
    for line in told:
        match = _REQUIREMENT.match(line)
        if match and match[4] and match[4] not in _FOR_DEVELOPERS:
            wanted.setdefault(match[4], []).append(f"{match[1]}[{match[2]}]" if match[2] else match[1])
    return {name: _state(name, wanted) for name in sorted(wanted)}


def _state(name: str, wanted: dict[str, list[str]]) -> dict[str, Any]:
    missing = [package for package in _packages(name, wanted) if not _is_installed(package)]
    return {"missing": missing, "remedy": f'pip install "relprop[{name}]"' if missing else ""}


def _packages(name: str, wanted: dict[str, list[str]]) -> list[str]:
    """The packages of an extra, those of the extras that it is made of among them."""
    found: list[str] = []
    for package in wanted.get(name, []):
        own, _, inner = package.rstrip("]").partition("[")
        if own == "relprop":
            found += [p for other in inner.split(",") for p in _packages(other.strip(), wanted)]
        else:
            found.append(own)
    return list(dict.fromkeys(found))


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
