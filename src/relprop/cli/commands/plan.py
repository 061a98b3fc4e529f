"""``relprop plan``"""

from __future__ import annotations

from ..asked import Asked
from ..options import Common, InputOptions, ModelOptions
from ..output import show


def plan(
    model: str,
    /,
    *inputs: str,
    composite: str = "auto",
    model_options: ModelOptions | None = None,
    input_options: InputOptions | None = None,
    common: Common | None = None,
) -> int:
    """Show which rule every operation gets, before anything runs.

    Args:
        model: As for relprop explain.
        inputs: An example; the first sample is taken.
        composite: Which rule for which operation: a name of relprop.composites.
    """
    asked = Asked.of(model, inputs, composite, model_options, input_options, common)
    found = asked.lrp.plan(asked.samples[0].inputs)
    head, *rows = found.rows
    data = {"model": model, "rules": found.title, "operations": [dict(zip(head, row, strict=True)) for row in rows]}
    show(str(found), data, asked.common)
    return 0
