"""Draw which room of relprop uses which, from the imports themselves: ``make architecture``.

A room is a folder or a file directly below ``src/relprop``. It stands one floor above the highest room that it uses,
or, where it uses none but the errors, just below its users.
Arrows that follow from others (A uses B, B uses C, A uses C) are left out.
"""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path

PROJECT = Path(__file__).parents[1]
ROOT = PROJECT / "src" / "relprop"
PICTURE = PROJECT / "docs" / "images" / "architecture.svg"
WIDTH, HEIGHT, GAP, FLOOR = 200, 54, 14, 92


def modules() -> dict[tuple[str, ...], Path]:
    """Every file of the package but its front page, by the parts of its path."""
    found = {path.relative_to(ROOT).with_suffix("").parts: path for path in sorted(ROOT.rglob("*.py"))}
    return {parts: path for parts, path in found.items() if parts != ("__init__",)}


def imports(path: Path) -> set[tuple[str, ...]]:
    """The modules of relprop that a file imports, wherever in it it does so, by the parts of their paths."""
    here = path.relative_to(ROOT).with_suffix("").parts
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {tuple(a.name.split(".")[1:]) for a in node.names if a.name.split(".")[0] == "relprop"}
        if not isinstance(node, ast.ImportFrom):
            continue
        stem = tuple(node.module.split(".")) if node.module else ()
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


def rooms() -> dict[str, set[str]]:
    """Room -> the rooms that it uses."""
    found: dict[str, set[str]] = {}
    for parts, path in modules().items():
        found.setdefault(parts[0], set()).update({target[0] for target in imports(path)} - {parts[0]})
    return found


def purpose(room: str) -> str:
    """The first sentence of a room's own description."""
    path = ROOT / room / "__init__.py" if (ROOT / room).is_dir() else ROOT / f"{room}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).split(". ")[0].rstrip(".").replace("``", "")


def floors(uses: dict[str, set[str]]) -> dict[str, int]:
    """Room -> how many rooms lie below it on the longest way down."""
    found: dict[str, int] = {}
    while len(found) < len(uses):
        ready = [room for room, below in uses.items() if room not in found and below <= set(found)]
        if not ready:
            raise ValueError(f"rooms in a circle: {sorted(set(uses) - set(found))}")
        for room in ready:
            found[room] = 1 + max((found[b] for b in uses[room]), default=-1)
    for room in uses:  # a room that rests on little stands near those that use it
        users = [found[user] for user, rooms_below in uses.items() if room in rooms_below]
        if users and not uses[room] - {"errors"} and room != "errors":
            found[room] = min(users) - 1
    return found


def below(room: str, uses: dict[str, set[str]]) -> set[str]:
    """All rooms that a room rests on."""
    return uses[room].union(*(below(b, uses) for b in uses[room]))


def draw() -> str:
    """The picture, as SVG."""
    uses = rooms()
    level = floors(uses)
    rows = [sorted(r for r in uses if level[r] == n) for n in range(max(level.values()) + 1)]
    width = max(len(row) for row in rows) * (WIDTH + GAP) + GAP
    height = len(rows) * FLOOR + GAP
    place: dict[str, tuple[float, float]] = {}
    for n, row in enumerate(rows):
        left = (width - len(row) * (WIDTH + GAP) + GAP) / 2
        for i, room in enumerate(row):
            place[room] = (left + i * (WIDTH + GAP), height - GAP - n * FLOOR - HEIGHT)
    lines, boxes = [], []
    for room in sorted(uses):
        x, y = place[room]
        boxes += [
            f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>',
            f'<text class="name" x="{x + 10:g}" y="{y + 18:g}">{escape(room)}</text>',
            *(
                f'<text x="{x + 10:g}" y="{y + 32 + 12 * i:g}">{escape(line)}</text>'
                for i, line in enumerate(_wrapped(purpose(room)))
            ),
        ]
        direct = {b for b in uses[room] if not any(b in below(other, uses) for other in uses[room] - {b})}
        for used in sorted(direct):
            to_x, to_y = place[used]
            lines.append(f'<line x1="{x + WIDTH / 2:g}" y1="{y + HEIGHT:g}" x2="{to_x + WIDTH / 2:g}" y2="{to_y:g}"/>')
    style = (
        "text{font:9.5px sans-serif;fill:#444}.name{font:bold 12px monospace;fill:#111}"
        "rect{fill:#fff;stroke:#888}line{stroke:#7a9cc6;marker-end:url(#tip)}"
    )
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L8 4L0 8z" fill="#7a9cc6"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        'aria-label="rooms of relprop; an arrow leads from a room to one that it uses">\n'
        f"<style>{style}</style>\n<defs>{tip}</defs>\n" + "\n".join([*lines, *boxes]) + "\n</svg>\n"
    )


def _wrapped(text: str, width: int = 36, most: int = 2) -> list[str]:
    """A description in at most two short lines."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1] + " …"]


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE.relative_to(PROJECT))
