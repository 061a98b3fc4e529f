"""The law of imports: they run one way, from the ground up to the door, and in no circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "relprop"

MAY_USE = {
    "errors": set(),
    "progress": set(),
    "graph": {"errors"},
    "passes": {"errors", "graph"},
    "rules": {"errors", "graph"},
    "select": {"errors", "graph", "rules"},
    "composites": {"errors", "rules", "select"},
    "capture": {"errors", "graph", "passes", "rules"},
    "targets": {"errors", "rules"},
    "engine": {"errors", "graph", "rules", "select", "composites", "capture", "targets", "progress"},
    "programs": {"errors", "graph", "rules", "capture", "targets", "engine"},
    "view": {"errors"},
    "explanation": {"errors", "engine", "view"},
    "lrp": {
        *("errors", "graph", "rules", "composites", "capture", "targets", "engine", "programs", "explanation"),
        "progress",
    },
    "methods": {"errors", "graph", "engine", "targets", "lrp", "progress"},
}
"""Room -> the rooms below it that it may import. Adding one to a list is a decision; adding a circle is an error."""


def imports(path: Path) -> set[tuple[str, ...]]:
    """The modules of relprop that a file imports, wherever it does so, as parts of their paths."""
    here = path.relative_to(ROOT).with_suffix("").parts
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom):
            assert not (isinstance(node, ast.Import) and any(a.name.startswith("relprop") for a in node.names)), path
            continue
        stem = tuple((node.module or "").split(".")) if node.module else ()
        if node.level:
            stem = (*here[: len(here) - node.level], *stem)
        elif stem[:1] == ("relprop",):
            stem = stem[1:]
        else:
            continue
        for name in node.names:
            whole = (*stem, name.name)
            is_module = ROOT.joinpath(*whole).is_dir() or ROOT.joinpath(*whole).with_suffix(".py").exists()
            found.add(whole if is_module else stem)
    return {target for target in found if target}


MODULES = {path.relative_to(ROOT).with_suffix("").parts: path for path in ROOT.rglob("*.py")}
INSIDE = {parts: path for parts, path in MODULES.items() if parts != ("__init__",)}


@pytest.mark.parametrize("room", sorted({parts[0] for parts in INSIDE}))
def test_a_room_uses_only_what_lies_below_it(room):
    for parts, path in INSIDE.items():
        if parts[0] == room:
            used = {target[0] for target in imports(path)} - {room}
            assert used <= MAY_USE[room], f"{path.relative_to(ROOT)} reaches up to {used - MAY_USE[room]}"


def test_no_rooms_stand_in_a_circle():
    left = {room: set(below) for room, below in MAY_USE.items()}
    while ground := [room for room, below in left.items() if not below]:
        left = {room: below - set(ground) for room, below in left.items() if room not in ground}
    assert not left, f"in a circle: {left}"


def test_no_files_import_each_other_in_a_circle():
    def file_of(target: tuple[str, ...]) -> tuple[str, ...]:
        return target if target in MODULES else (*target, "__init__")

    left = {parts: {file_of(t) for t in imports(path)} - {parts} for parts, path in INSIDE.items()}
    while ground := [parts for parts, below in left.items() if not below]:
        left = {parts: below - set(ground) for parts, below in left.items() if parts not in ground}
    assert not left, f"in a circle: {left}"
