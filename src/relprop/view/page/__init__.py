"""A report: one file that shows everything, asks no network for anything, and runs no code but its own.

It knows text and arrays only. The page is made by Jinja2 with escaping on; its Content-Security-Policy allows nothing
but images within the file, and the one style and the one script by their hashes.
"""

from .page import assets, page, part, shades
from .sheet import Account, Check, Guess, Map, Sheet, Text, image_maps, picture_map, text_map

__all__ = [
    "Account",
    "Check",
    "Guess",
    "Map",
    "Sheet",
    "Text",
    "assets",
    "image_maps",
    "page",
    "part",
    "picture_map",
    "shades",
    "text_map",
]
