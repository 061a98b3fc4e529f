"""``relprop serve``"""

from __future__ import annotations

from functools import partial

from ..failures import Failure, Usage
from ..options import Common, InputOptions, ModelOptions
from ..served import served


def serve(
    *models: str,
    port: int = 8765,
    open: bool = False,
    seconds: float = 60.0,
    megabytes: float = 10.0,
    megapixels: float = 25.0,
    model_options: ModelOptions | None = None,
    input_options: InputOptions | None = None,
    common: Common | None = None,
) -> int:
    """Serve a page on this machine, where pictures and texts are explained.

    Args:
        models: As MODEL of the other commands, one or several to choose from; example:lite0 by default.
        port: Where the page is: http://127.0.0.1:PORT; 0 takes a free one.
        open: Open it in a browser.
        seconds: How long one explanation may take.
        megabytes: How large a file may be.
        megapixels: How large a picture may be.
    """
    from relprop.app import Limits, Refused
    from relprop.app import serve as run

    if not (seconds > 0 and megabytes > 0 and megapixels > 0):
        raise Usage("--seconds, --megabytes and --megapixels are more than 0")
    words = models or ("example:lite0",)
    openers = {
        word: partial(served, word, model_options or ModelOptions(), input_options or InputOptions()) for word in words
    }
    try:
        run(openers, port=port, limits=Limits(seconds, round(1e6 * megabytes), round(1e6 * megapixels)), show=open)
    except Refused as error:
        raise Failure(str(error)) from error
    return 0
