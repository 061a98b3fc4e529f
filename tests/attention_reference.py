"""AttnLRP and CP-LRP without relprop: gradient x input of a Hugging Face model whose backward pass is modified.

Written from the papers (Achtibat et al., ICML 2024; Ali et al., ICML 2022) in the efficient form of Arras et al. 2025:
statistics of norms are detached, an activation is a product with its detached ratio f(x)/x, a product of two active
tensors hands half of the gradient to each, attention a quarter to queries and keys and a half to values. Only the
forwards of modules are replaced, for the time of one run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class StayDouble(TorchFunctionMode):
    """Casts from double to single precision do nothing: norms and softmax stay as precise as the rest."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if any(isinstance(a, Tensor) and a.dtype == torch.float64 for a in args):
            if function is Tensor.float:
                return args[0]
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
            kwargs = {k: torch.float64 if v is torch.float32 else v for k, v in kwargs.items()}
            if function is Tensor.type_as:
                return args[0]
        return function(*args, **kwargs)


def share(x: Tensor, part: float) -> Tensor:
    """``x``, with a part of its gradient."""
    return x * part + (x * (1 - part)).detach()


def identity(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The identity rule: x times f(x)/x, a constant."""
    with torch.enable_grad():
        zero = torch.zeros(1, dtype=x.dtype, requires_grad=True)
        (slope,) = torch.autograd.grad(function(zero), zero)
    return x * torch.where(x == 0, slope, function(x) / torch.where(x == 0, 1, x)).detach()


def layer_norm(module: Any, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    y = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + module.eps).detach()
    return y * module.weight + module.bias


def rms_norm(module: Any, x: Tensor) -> Tensor:
    epsilon = module.eps if hasattr(module, "eps") else module.variance_epsilon
    weight = 1 + module.weight if "Gemma" in type(module).__name__ else module.weight
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon).detach() * weight


def gated(module: Any, x: Tensor, stop: bool) -> Tensor:
    gate, up = identity(module.act_fn, module.gate_proj(x)), module.up_proj(x)
    return module.down_proj(gate.detach() * up if stop else share(gate, 0.5) * share(up, 0.5))


def experts(module: Any, x: Tensor, chosen: Tensor, weights: Tensor, stop: bool) -> Tensor:
    """Every token through its experts, one after the other; the router's weight is a factor like any other."""
    rows = []
    for token, indices, scores in zip(x, chosen, weights, strict=True):
        parts = []
        for e, score in zip(indices, scores, strict=True):
            gate, up = (module.gate_up_proj[e] @ token).chunk(2)
            gate = identity(module.act_fn, gate)
            hidden = gate.detach() * up if stop else share(gate, 0.5) * share(up, 0.5)
            out = module.down_proj[e] @ hidden
            parts.append(score.detach() * out if stop else share(score, 0.5) * share(out, 0.5))
        rows.append(torch.stack(parts).sum(0))
    return torch.stack(rows)


def router(module: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    logits = x @ module.weight.T
    best, chosen = torch.softmax(logits, -1).topk(module.top_k, -1)
    return logits, best / best.sum(-1, keepdim=True).detach(), chosen


def attention(
    module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scaling: float, stop: bool, **_: Any
) -> tuple[Tensor, None]:
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    if not stop:
        q, k, v = share(q, 0.25), share(k, 0.25), share(v, 0.5)
    scores = q @ k.mT * (scaling or q.shape[-1] ** -0.5)
    weights = torch.softmax(scores if mask is None else scores + mask, -1)
    return ((weights.detach() if stop else weights) @ v).transpose(1, 2), None


@contextmanager
def modified(model: nn.Module, stop: bool) -> Iterator[None]:
    """The model with the backward pass of AttnLRP, or of CP-LRP if attention weights and gates are to be stopped."""
    library = sys.modules[type(model).__module__]
    before = library.eager_attention_forward
    library.eager_attention_forward = lambda *args, **kwargs: attention(*args, **{**kwargs, "stop": stop})
    replaced = []

    def replace(module: nn.Module, function: Callable[..., Any]) -> None:
        module.forward = function
        replaced.append(module)

    gates = {m.act_fn for m in model.modules() if hasattr(m, "gate_proj") or hasattr(m, "gate_up_proj")}
    for m in model.modules():
        name = type(m).__name__
        if isinstance(m, nn.LayerNorm):
            replace(m, lambda x, m=m: layer_norm(m, x))
        elif name.endswith("RMSNorm"):
            replace(m, lambda x, m=m: rms_norm(m, x))
        elif name.endswith("MLP") and hasattr(m, "gate_proj"):
            replace(m, lambda x, m=m: gated(m, x, stop))
        elif name.endswith("Experts"):
            replace(m, lambda x, chosen, weights, m=m: experts(m, x, chosen, weights, stop))
        elif name.endswith("Router"):
            replace(m, lambda x, m=m: router(m, x))
        elif ("Activation" in name or "GELU" in name or name == "Tanh") and m not in gates:
            replace(m, lambda x, f=m.forward: identity(f, x))
    try:
        yield
    finally:
        library.eager_attention_forward = before
        for m in replaced:
            del m.forward


def relevance(
    model: nn.Module, entry: nn.Module | None, inputs: dict[str, Tensor], target: Callable[[Any], Tensor], stop: bool
) -> Tensor:
    """Relevance of the outputs of ``entry`` (an embedding), or of ``pixel_values``, in their own shape."""
    found = []
    inputs = dict(inputs)
    if entry is None:
        inputs["pixel_values"] = inputs["pixel_values"].clone().requires_grad_()
        found.append(inputs["pixel_values"])
        handle = None
    else:
        handle = entry.register_forward_hook(lambda m, i, o: found.append(o.detach().requires_grad_()) or found[-1])
    try:
        with modified(model, stop), StayDouble():
            value = target(model(**inputs))
    finally:
        if handle is not None:
            handle.remove()
    (gradient,) = torch.autograd.grad(value.sum(), found[0])
    return (found[0] * gradient).detach()
