"""Names of classes: what people call what the model counts."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import TargetError
from .targets import Several

_UNNAMED = re.compile(r"LABEL_\d+")
"""What a configuration of transformers holds where nobody has named the classes."""


def names_of(classes: Sequence[str] | Mapping[int, str] | None, model: Any) -> list[str] | None:
    """The names of the classes: as given, or as the model's ``config.id2label`` has them; None if nobody knows.

    Raises:
        TypeError, ValueError: if they are no sequence of strings, or a mapping that leaves numbers out.
    """
    if classes is None:
        found = getattr(getattr(model, "config", None), "id2label", None)
        try:
            names = names_of(found, None) if isinstance(found, Mapping) and found else None
        except (TypeError, ValueError):
            return None
        return None if names is None or all(map(_UNNAMED.fullmatch, names)) else names
    if isinstance(classes, Mapping):
        numbered = {int(key): name for key, name in classes.items()}
        if sorted(numbered) != list(range(len(numbered))):
            raise ValueError(f"classes must name every class from 0 to {len(numbered) - 1}; got {sorted(numbered)[:9]}")
        classes = [numbered[i] for i in range(len(numbered))]
    if isinstance(classes, str) or not isinstance(classes, Sequence) or not all(isinstance(n, str) for n in classes):
        raise TypeError(f"classes must be a list of strings, one per class, got {classes!r:.100}")
    if not classes:
        raise ValueError("classes holds no name")
    return list(classes)


def resolved(target: Any, names: Sequence[str] | None) -> Any:
    """A target with numbers in the place of names.

    Raises:
        TargetError: if no class, or more than one, has that name, or none has any.
    """
    if isinstance(target, str):
        return _index(target, names)
    if isinstance(target, (tuple, list)):
        return type(target)(resolved(t, names) for t in target) if _holds_names(target) else target
    return Several(tuple(resolved(t, names) for t in target.targets)) if isinstance(target, Several) else target


def _holds_names(target: Any) -> bool:
    return isinstance(target, str) or (isinstance(target, (tuple, list)) and any(map(_holds_names, target)))


def _index(name: str, names: Sequence[str] | None) -> int:
    if names is None:
        raise TargetError(
            f"target {name!r} is the name of a class, and the names are not known: LRP(model, classes=[...]), or give "
            "the number of the class, an int"
        )
    # As it is written; else whatever its case; else one of the words of "tabby, tabby cat".
    for same in (
        lambda other: other == name,
        lambda other: other.casefold() == name.casefold(),
        lambda other: name.casefold() in (part.strip().casefold() for part in other.split(",")),
    ):
        found = [i for i, other in enumerate(names) if same(other)]
        if len(found) > 1:
            raise TargetError(f"target {name!r}: {len(found)} classes have that name, {found[:9]}; give the number")
        if found:
            return found[0]
    near = difflib.get_close_matches(name, names, 3, 0.5) or [n for n in names if name.casefold() in n.casefold()][:3]
    some = ", ".join(map(repr, near or names[:5]))
    hint = f"did you mean {some}?" if near else f"there are {some}, ..."
    raise TargetError(f"target {name!r} is none of the {len(names)} classes; {hint}")
