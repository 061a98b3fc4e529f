"""What a device can do at most, measured in the same run, and how near to it a method comes."""

from __future__ import annotations

from typing import Any

import torch

from relprop.graph.kernels import linear

from .measure import Row, seconds


def peaks(device: torch.device) -> dict[str, float]:
    """Floating-point operations per second of a large matrix product, bytes per second of a large copy."""
    on_gpu = device.type == "cuda"
    n, size = (8192, 1 << 28) if on_gpu else (2048, 1 << 26)
    a, b = torch.rand(2, n, n, device=device)
    x = torch.rand(size, device=device)
    y = torch.empty_like(x)
    with torch.no_grad():
        product = min(min(seconds(lambda: a @ b, device), seconds(lambda: linear(a, b), device)) for _ in range(6))
    copy = min(seconds(lambda: y.copy_(x), device) for _ in range(6))
    return {"flops": 2 * n**3 / product, "bytes": 8 * size / copy}


def place(row: Row, peaks: dict[str, float]) -> dict[str, Any]:
    """Achieved rates, and the time that the slower of the two roofs allows as a share of the time it took.

    Bytes are an estimate: every operation reads its arguments and writes its results once. Caches and fused operations
    need fewer, so that the share may exceed one.
    """
    if "flops" not in row or "seconds" not in row:
        return {}
    floor = max(row["flops"] / peaks["flops"], row["bytes"] / peaks["bytes"])
    time = row["seconds"]
    return {"flops/s": row["flops"] / time, "bytes/s": row["bytes"] / time, "roofline": floor / time}
