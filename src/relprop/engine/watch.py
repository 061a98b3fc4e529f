"""Who looks on while relevance is handed back: masks, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor
from torch.fx import Node

from ..rules.base import Context, Messages, Step
from ..rules.message import Message, add


class Watcher:
    """Looks on while a run hands relevance back, operation by operation."""

    def arrives(self, step: Step, message: Message, run: Context) -> Message:
        """A message reaches the output of an operation. What is returned goes on in its place.

        It is empty where relevance was sent to single outputs only.
        """
        return message

    def is_picked(self, node: Node, message: Message, run: Context) -> Message:
        """A message reaches one of several outputs of an operation. What is returned goes on in its place."""
        return message

    def is_sent(self, step: Step, messages: Messages, run: Context) -> None:
        """The operation has handed it on, one message to each of ``step.active``."""


class Masks(Watcher):
    """Lets relevance through only where a mask does, and books the rest."""

    def __init__(self, masks: dict[Node, Callable[[Tensor], Tensor]]):
        self.masks = masks

    def arrives(self, step: Step, message: Message, run: Context) -> Message:
        return self.is_picked(step.node, message, run)

    def is_picked(self, node: Node, message: Message, run: Context) -> Message:
        mask = self.masks.get(node)
        if mask is None or not message:
            return message
        value = run.values[node]
        masked = message.scaled(mask(value))
        if run.keeps_books:
            run.book("masked", node, message.relevance(value) - masked.relevance(value), node)
        return masked


class Record(Watcher):
    """Keeps the relevance that arrives at some nodes."""

    def __init__(self, nodes: Iterable[Node]):
        self.found: dict[Node, Tensor | None] = dict.fromkeys(nodes)

    def arrives(self, step: Step, message: Message, run: Context) -> Message:
        return self.is_picked(step.node, message, run)

    def is_picked(self, node: Node, message: Message, run: Context) -> Message:
        if node in self.found and message:
            self.found[node] = add(self.found[node], message.relevance(run.values[node]))
        return message
