"""Peak memory of a call: the most that PyTorch's allocator held at once, beyond what it held before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak(run: Callable[[], Any], device: torch.device) -> int:
    """Bytes, what kernels take for themselves and compiled code included."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return max(torch.cuda.max_memory_allocated(device) - before, 1)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    now = most = 1
    for event in recorded.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@contextmanager
def limited(share: float = 0.9) -> Iterator[None]:
    """Let what asks for more memory than there is fail with an error, which is a result, instead of ending the run."""
    try:
        import resource

        lines = [line for file in ("meminfo", "self/status") for line in Path("/proc", file).read_text().splitlines()]
        sizes = dict(line.split(":", 1) for line in lines)
        free, used = (int(sizes[key].split()[0]) * 1024 for key in ("MemAvailable", "VmData"))
    except (ImportError, OSError, KeyError):  # not Linux
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (used + int(share * free), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
