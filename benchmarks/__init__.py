"""Measurements: speed and memory beside other libraries, coverage of architectures, choice of composites."""

import os

for name, level in {"KINETO_LOG_LEVEL": "99", "TORCH_CPP_LOG_LEVEL": "ERROR"}.items():
    os.environ.setdefault(name, level)  # before torch is imported: its profiler announces itself otherwise
