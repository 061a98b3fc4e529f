"""``relprop report``"""

from __future__ import annotations

from pathlib import Path

from ..failures import Usage
from ..options import Common
from ..output import bar, show
from ..saving import DATA, PAGES, Destination


def report(
    *files: Path,
    out: Path,
    title: str | None = None,
    tokenizer: Path | None = None,
    wrt: str | None = None,
    common: Common | None = None,
) -> int:
    """Make one report of stored explanations; relprop explain --out x.html makes one at once.

    Args:
        files: Explanations that were saved as .npz, .safetensors or .json, of up to 32 samples together.
        out: The report, such as report.html.
        title: Of the page.
        tokenizer: Folder of the tokenizer whose ids the explanations are of.
        wrt: Name or position of the argument of the model that is drawn, if several have relevance.
    """
    from relprop.explanation import load
    from relprop.explanation import report as write

    common = common or Common()
    if not files:
        raise Usage(f"no FILES: give explanations, {', '.join(DATA)}")
    if out.suffix.lower() not in PAGES:
        raise Usage(f"--out {str(out)!r}: a report is a page, such as report.html")
    where = Destination.of(out, [])
    assert where is not None
    for file in files:
        if not file.is_file():
            raise Usage(f"there is no file {str(file)!r}")
    tokens = None
    if tokenizer is not None:
        from ..models.folder import tokenizer_of

        tokens = tokenizer_of(tokenizer)
    explanations = [load(file) for file in bar(files, "file", common)]
    path = write(explanations, where.path, title=title, tokens=tokens, wrt=wrt)
    show(str(path), {"files": [path], "samples": sum(map(len, explanations))}, common)
    return 0
