"""What one visitor of the page has chosen; nothing of it is shared with another."""

from __future__ import annotations

from dataclasses import dataclass

from .asked import Abilities, Given
from .desk import Desk
from .subject import Limits


@dataclass
class Session:
    desk: Desk
    limits: Limits
    model: str
    abilities: Abilities
    given: Given | None = None
    """The sample that is explained."""
