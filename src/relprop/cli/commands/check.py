"""``relprop check``"""

from __future__ import annotations

from ..asked import Asked
from ..failures import FAILED
from ..options import Common, InputOptions, ModelOptions
from ..output import show


def check(
    model: str,
    /,
    *inputs: str,
    composite: str = "auto",
    model_options: ModelOptions | None = None,
    input_options: InputOptions | None = None,
    common: Common | None = None,
) -> int:
    """Look for operations that have no rule; the exit code is 1 if there are any.

    Args:
        model: As for relprop explain.
        inputs: An example; the first sample is taken.
        composite: Which rule for which operation: a name of relprop.composites.
    """
    asked = Asked.of(model, inputs, composite, model_options, input_options, common)
    found = asked.lrp.check(asked.samples[0].inputs)
    data = {"model": model, "complete": bool(found), "gaps": found.gaps, "operations": len(found.plan.steps)}
    show(str(found), data, asked.common)
    return 0 if found else FAILED
