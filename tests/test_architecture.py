"""The law of imports: they run one way, from the ground up to the door, and in no circle."""

from __future__ import annotations

import pytest

from tools.architecture import PICTURE, ROOT, draw, imports, modules, rooms

MAY_USE = {
    "errors": set(),
    "extra": set(),
    "progress": set(),
    "graph": {"errors"},
    "passes": {"errors", "graph"},
    "rules": {"errors", "graph"},
    "scope": {"errors", "graph", "rules"},
    "select": {"errors", "graph", "scope"},
    "composite": {"errors", "rules", "scope"},
    "composites": {"errors", "rules", "composite", "scope", "select"},
    "capture": {"errors", "graph", "passes", "rules"},
    "titled": set(),
    "targets": {"errors", "rules", "titled"},
    "engine": {
        "errors",
        "graph",
        "rules",
        "scope",
        "select",
        "composite",
        "composites",
        "capture",
        "targets",
        "progress",
    },
    "programs": {"errors", "graph", "rules", "capture", "targets", "engine"},
    "view": {"errors", "extra"},
    "classes": {"errors", "targets"},
    "explanation": {"errors", "engine", "targets", "view"},
    "lrp": {
        *(
            "errors",
            "graph",
            "rules",
            "composite",
            "composites",
            "capture",
            "classes",
            "targets",
            "engine",
            "programs",
            "explanation",
        ),
        "progress",
    },
    "methods": {"errors", "graph", "engine", "targets", "lrp", "progress"},
    "captum": {"errors", "composites", "engine", "lrp"},
    "adapters": {"errors", "extra", "composites", "targets", "engine", "explanation", "view", "lrp"},
    "evaluation": {
        *("errors", "extra", "composites", "targets", "engine", "explanation", "view", "lrp"),
        "progress",
    },
    "app": {"errors", "extra", "composites", "explanation", "view", "lrp"},
    "cli": {"errors", "rules", "composites", "targets", "view", "explanation", "lrp", "app"},
    "__main__": {"cli"},
}
"""Room -> the rooms below it that it may import. Adding one to a list is a decision; adding a circle is an error."""


@pytest.mark.parametrize("room", sorted(rooms()))
def test_a_room_uses_only_what_lies_below_it(room: str) -> None:
    for parts, path in modules().items():
        if parts[0] == room:
            used = {target[0] for target in imports(path)} - {room}
            assert used <= MAY_USE[room], f"{path.relative_to(ROOT)} reaches up to {used - MAY_USE[room]}"


def test_no_rooms_stand_in_a_circle() -> None:
    left = {room: set(below) for room, below in MAY_USE.items()}
    while ground := [room for room, below in left.items() if not below]:
        left = {room: below - set(ground) for room, below in left.items() if room not in ground}
    assert not left, f"in a circle: {left}"


def test_no_files_import_each_other_in_a_circle() -> None:
    files = modules()

    def file_of(target: tuple[str, ...]) -> tuple[str, ...]:
        return target if target in files else (*target, "__init__")

    left = {parts: {file_of(t) for t in imports(path)} - {parts} for parts, path in files.items()}
    while ground := [parts for parts, below in left.items() if not below]:
        left = {parts: below - set(ground) for parts, below in left.items() if parts not in ground}
    assert not left, f"in a circle: {left}"


def test_the_picture_of_the_architecture_is_the_one_that_the_imports_make() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), "run: make architecture"
