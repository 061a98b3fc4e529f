"""What a person sees of relevance: heatmaps, overlays, figures, time series and coloured text.

Nothing here knows of models: every function takes tensors or numpy arrays, and draws through matplotlib and pillow,
which `pip install "relprop[image]"` brings and which are imported at the first picture. Zero is always the centre of
the colours and both signs have the same scale, so that the sign of a colour is never in doubt.

    picture = view.overlay(relevance, image)               # uint8 RGB, pixel by pixel
    fig = view.figure(relevance, image, title="tabby")     # image | relevance | overlay, with a colour bar
    view.save("cat.png", fig)
"""

from relprop.view._extra import new_figure
from relprop.view.arrays import stretch
from relprop.view.image import figure, heatmap, overlay
from relprop.view.photo import colours_over, is_dark, picture
from relprop.view.save import png, save
from relprop.view.series import series
from relprop.view.table import table
from relprop.view.tokens import tokens_figure, tokens_html
from relprop.view.words import merged, spaced

__all__ = [
    "colours_over",
    "figure",
    "heatmap",
    "is_dark",
    "merged",
    "new_figure",
    "overlay",
    "picture",
    "png",
    "save",
    "series",
    "spaced",
    "stretch",
    "table",
    "tokens_figure",
    "tokens_html",
]
