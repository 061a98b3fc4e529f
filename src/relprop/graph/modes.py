"""What surrounds a call has no say in it: an explanation is the same under any of torch's modes."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch.fx import _lazy_graph_module

from ..errors import InputError

_on_demand: Any = getattr(_lazy_graph_module, "_use_lazy_graph_module", nullcontext)
"""Within it, torch.fx writes a graph's code when it is first run."""


@contextmanager
def own_modes() -> Iterator[None]:
    """Neither ``torch.inference_mode``, in which autograd is off that some rules use, nor ``torch.autocast``.

    Under autocast the products of the reverse sweep would be rounded too, and what is kept of a call would depend on
    where it was made. Autocast that a model enters itself is part of it.
    """
    accelerator = torch.accelerator.current_accelerator()
    kinds = {"cpu", accelerator.type if accelerator is not None else "cpu"}
    surrounding = [kind for kind in kinds if torch.is_autocast_enabled(kind)]
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        for kind in surrounding:
            modes.enter_context(torch.autocast(kind, enabled=False))
        try:
            yield
        except InputError as error:
            if surrounding:
                error.add_note("torch.autocast is off within the call: the model runs in its own precision.")
            raise


@contextmanager
def only_what_is_needed() -> Iterator[None]:
    """While a model is captured: no garbage collections, which take a sixth of the time to find little, and no Python
    code for graphs that torch.export makes on its way, which nobody runs: another sixth of a Llama.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        with _on_demand(True):
            yield
    finally:
        if was_on:
            gc.enable()
