"""Target functions with a name: values that compare, can be pickled, and title a picture."""

from __future__ import annotations

import ast
import inspect
import linecache
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")


@dataclass(frozen=True, eq=False)
class Titled:
    """A target function with its arguments: a value that has a name, compares and can be pickled."""

    make: Callable[..., Titled]
    """The function, such as :func:`relprop.targets.class_index`, that made it."""
    function: Callable[..., Tensor]
    words: str
    arguments: dict[str, Any]

    def __call__(self, output: Any) -> Tensor:
        return self.function(output, **self.arguments)

    def title(self, sample: int | None = None) -> str:
        """Its name; for one sample, if there is an index for each."""
        return self.words.format(**{name: _word(value, sample) for name, value in self.arguments.items()})

    def __str__(self) -> str:
        return self.title()

    __repr__ = __str__

    @property
    def __name__(self) -> str:
        return self.title()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Titled) or self.make is not other.make:
            return False
        return all(_same(value, other.arguments[name]) for name, value in self.arguments.items())

    def __hash__(self) -> int:
        return hash((self.make, self.title()))

    def __reduce__(self) -> tuple[Callable[..., Titled], tuple[Any, ...]]:
        return self.make, tuple(self.arguments.values())


def _same(x: Any, y: Any) -> bool:
    if isinstance(x, Tensor) or isinstance(y, Tensor):
        return isinstance(x, Tensor) and isinstance(y, Tensor) and torch.equal(x, y)
    return bool(x == y)


def titled(words: str) -> Callable[[Callable[Concatenate[Any, Arguments], Tensor]], Callable[Arguments, Titled]]:
    """Make targets of a function ``(output, arguments...) -> [B]``: called with the arguments, it returns a target.

    Args:
        words: the name of such a target, with the arguments in braces, such as ``"class {index}"``.
    """

    def decorate(function: Callable[Concatenate[Any, Arguments], Tensor]) -> Callable[Arguments, Titled]:
        whole = inspect.signature(function)
        signature = whole.replace(parameters=list(whole.parameters.values())[1:])

        @wraps(function)
        def make(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Titled:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return Titled(make, function, words, dict(bound.arguments))

        make.__signature__ = signature.replace(return_annotation=Titled)  # type: ignore[attr-defined]
        return make

    return decorate


def name_of(target: Any, sample: int | None = None) -> str:
    """A target in a few words, of all samples or of one."""
    if isinstance(target, Titled):
        return target.title(sample)
    if not callable(target):
        return _word(target, sample)
    name: str = getattr(target, "__name__", type(target).__name__)
    return (_source_of(target) or "a function of the output") if name == "<lambda>" else name


def _word(value: Any, sample: int | None = None) -> str:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        one = value if sample is None or value.ndim == 0 or not -len(value) <= sample < len(value) else value[sample]
        if one.numel() > 8:
            return f"a tensor {list(one.shape)}"
        values = one.flatten().tolist()
        return str(values[0] if len(values) == 1 else values)
    if isinstance(value, (tuple, list)):
        words = ", ".join(_word(v, sample) for v in value)
        return f"({words})" if isinstance(value, tuple) else f"[{words}]"
    return name_of(value, sample) if callable(value) else "any" if value is None else str(value)


def _source_of(function: Callable[..., Any]) -> str | None:
    """The text of a lambda's body, if it is to be had and short."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    # (first line, last line, first column, column behind the last) of every instruction; some stand for no text
    spans = [s for s in code.co_positions() if None not in s and (s[0], s[2]) != (s[1], s[3])]
    if not spans:
        return None
    (first, left), (last, right) = min((s[0], s[2]) for s in spans), max((s[1], s[3]) for s in spans)
    lines = [line.encode() for line in linecache.getlines(code.co_filename)[first - 1 : last]]
    if not lines:
        return None
    lines[-1] = lines[-1][:right]
    lines[0] = lines[0][left:]
    try:  # the file may have changed since
        text = ast.unparse(ast.parse(b"(" + b"".join(lines) + b")", mode="eval"))
    except SyntaxError:
        return None
    return text if len(text) <= 60 else None
