"""The message that relevance travels in.

The relevance of a tensor ``a`` is ``R = a * c + r``. Almost every rule sends the coefficient ``c`` (the message of the
gradient form of LRP: no division by an activation anywhere); rules whose relevance does not vanish where the
activation does (z^B, w², flat, the identity through a sigmoid) send the relevance ``r`` itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


def stabiliser(dtype: torch.dtype) -> float:
    """Keeps the conversion of relevance into a coefficient finite; what it absorbs is in the ledger."""
    return 1e-15 if dtype in (torch.float64, torch.complex128) else 1e-9


class Form(NamedTuple):
    """Which parts a message has; known for every node before anything runs."""

    c: bool = False
    r: bool = False

    def __or__(self, other: Form) -> Form:
        return Form(self.c or other.c, self.r or other.r)


COEFFICIENT, RELEVANCE, NOTHING = Form(c=True), Form(r=True), Form()


class Message(NamedTuple):
    """What is handed back to a tensor ``a``: its relevance is ``a * c + r``."""

    c: Tensor | None = None
    r: Tensor | None = None

    def __bool__(self) -> bool:
        return self.c is not None or self.r is not None

    def plus(self, other: Message, into: bool = False) -> Message:
        """Messages of parallel branches add up; in the memory of the other's coefficient, if nobody else needs it."""
        if into and self.c is not None and other.c is not None and other.c.dtype == self.c.dtype:
            return Message(other.c.add_(self.c), add(self.r, other.r))
        return Message(add(self.c, other.c), add(self.r, other.r))

    def each(self, change: Callable[[Tensor], Tensor]) -> Message:
        """Both parts changed in the same way."""
        return Message(*(None if part is None else change(part) for part in self))

    def scaled(self, factor: float | Tensor) -> Message:
        return Message(
            None if self.c is None else self.c * factor,
            None if self.r is None else self.r * factor,
        )

    def relevance(self, a: Tensor | None) -> Tensor:
        """The relevance ``a * c + r``; where ``c`` is zero the activation may be anything, also infinite."""
        if self.c is None:
            assert self.r is not None, "an empty message has no relevance"
            return self.r
        assert a is not None, "the activation was not kept"
        share = product(a, self.c)
        return share if self.r is None else share + self.r


def product(a: Any, c: Tensor) -> Tensor:
    """``a * c``; of complex numbers the real part of conj(a) c, to which real and imaginary parts have their shares."""
    if not c.is_complex() and not (isinstance(a, Tensor) and a.is_complex()):
        share: Tensor = a * c
        return share
    return ((a.conj() if isinstance(a, Tensor) else a.conjugate()) * c).real


def is_finite(value: Any) -> bool:
    """Whether no number of a value is NaN or infinite."""
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())


def finite(value: Tensor) -> Tensor:
    """A value with zeros where it is NaN or infinite."""
    return value if is_finite(value) else torch.where(torch.isfinite(value), value, 0)


NO_MESSAGE = Message()


def stabilise(z: Tensor, epsilon: float | Tensor) -> Tensor:
    """``z + epsilon * sign(z)`` with sign(0) = +1; of complex numbers its conjugate: Re(conj(z) R / conj(z)) is R."""
    if z.is_complex():
        return sign(z).conj() * (z.abs() + epsilon)
    return z + sign(z) * epsilon


def share(message: Message, z: Tensor, epsilon: float | Tensor) -> Tensor:
    """``s = R / (z + epsilon * sign(z))``, which is c |z| / (|z| + ε) for R = c z: no blow-up, no division by zero."""
    if message.c is None or message.r is not None:
        return message.relevance(z) / stabilise(z, epsilon)
    size = z.abs()
    return message.c * (size / (size + epsilon))


def divide(relevance: Tensor, a: Tensor) -> Tensor:
    """Relevance as a coefficient, R / a: the one division by an activation, stabilised."""
    return relevance / stabilise(a, stabiliser(a.dtype))


def sign(z: Tensor) -> Tensor:
    """+1 or -1, or z / |z|; the sign of zero is +1, so that a denominator never stays zero."""
    if z.is_complex():
        return torch.where(z == 0, 1, torch.sgn(z))
    # torch.where takes twenty times as long: no processor foresees a sign
    return torch.sign(torch.sign(z) + 0.5)


def relative_scale(z: Tensor) -> Tensor:
    """Root mean square of every sample of ``z``, never over the batch."""
    return z.square().mean(dim=tuple(range(1, z.ndim)), keepdim=True).sqrt() if z.ndim > 1 else z.abs()


def add(x: Any, y: Any) -> Any:
    """``x + y``; None stands for zero"""
    if x is None or y is None:
        return y if x is None else x
    return x + y
