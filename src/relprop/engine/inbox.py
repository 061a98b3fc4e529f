"""Messages that wait for the operations they go to."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping

from torch.fx import Node

from ..rules.message import Message

Parts = dict[int, Message]
"""Number of an output -> the message to it, of an operation that returns several."""


class Inbox:
    """What has been sent to every tensor so far; what is sent to one output of several waits with all of them."""

    def __init__(self, seeds: Mapping[Node, Message]):
        self._whole: dict[Node, Message] = {}
        self._parts: dict[Node, Parts] = {}
        for node, message in seeds.items():
            self.add(node, message)

    def add(self, node: Node, message: Message, new: bool = False) -> None:
        """Messages of parallel branches add up.

        Args:
            node: where the message goes.
            message: not empty.
            new: whether nobody else holds the coefficient, so that the sum may be made in its memory.
        """
        if node.target is operator.getitem:
            made, number = node.args
            parts = self._parts.setdefault(made, {})  # type: ignore[arg-type]
            before = parts.get(number)  # type: ignore[arg-type]
            parts[number] = message if before is None else before.plus(message, new)  # type: ignore[index]
        else:
            before = self._whole.get(node)
            self._whole[node] = message if before is None else before.plus(message, new)

    def take(self, node: Node) -> tuple[Message | None, Parts | None]:
        """What was sent to an operation's output, and to its single outputs; None where nothing was."""
        return self._whole.pop(node, None), self._parts.pop(node, None) if self._parts else None

    def left(self, nodes: Iterable[Node]) -> dict[Node, Message]:
        """What waits at these nodes."""
        return {n: self._whole[n] for n in nodes if n in self._whole}
