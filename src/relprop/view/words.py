"""Pieces of a tokenizer merged into the words that they were cut from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from relprop.view.arrays import Array, Floats
from relprop.view.tokens import per_token

_STARTS = ("\u0120", "\u2581", "\u010a")
"""What byte-level BPE (a space, a line break) and SentencePiece (a space) put in front of a word."""
_CONTINUES = "##"
"""What WordPiece puts in front of all but the first piece of a word."""


def merged(
    pieces: Sequence[str],
    relevance: Array,
    special: Collection[str] = (),
    spell: Callable[[list[str]], str] | None = None,
) -> tuple[list[str], Floats]:
    """Words and their relevance, the sum over their pieces.

    Args:
        pieces: T tokens as the tokenizer calls them ("breath", "##taking"; "\u0120cap", "ital"; "\u2581cap", "ital").
        relevance: [T], or [T, D] which is summed over D.
        special: tokens that are no text ("[CLS]"); each stays alone, and those of one name in a row are one.
        spell: pieces -> text, as a tokenizer does it; by default the marks are left out.

    Raises:
        TypeError, ValueError: values that are not finite real numbers, or another number of pieces than of positions.
    """
    numbers = per_token(pieces, relevance)
    marked = any(piece.startswith(_STARTS) for piece in pieces)
    groups: list[list[int]] = []
    for i, piece in enumerate(pieces):
        before = pieces[groups[-1][-1]] if groups else None
        if piece in special:
            joins = piece == before
        elif before is None or before in special:
            joins = False
        elif marked:
            joins = not piece.startswith(_STARTS) and any(c.isalnum() or ord(c) > 127 for c in piece)
        else:
            joins = piece.startswith(_CONTINUES)
        if joins:
            groups[-1].append(i)
        else:
            groups.append([i])
    words = [_spelt([pieces[i] for i in group], special, spell, marked) for group in groups]
    return words, np.array([numbers[group].sum() for group in groups])


def spaced(pieces: Sequence[str]) -> list[str]:
    """Pieces as they stand in the text: with a space in front of each that starts a word, and without marks."""
    if any(piece.startswith(_STARTS) for piece in pieces):
        return [p.replace("\u0120", " ").replace("\u2581", " ").replace("\u010a", "\n") for p in pieces]
    return [p.removeprefix(_CONTINUES) if p.startswith(_CONTINUES) else f" {p}" for p in pieces]


def _spelt(pieces: list[str], special: Collection[str], spell: Callable[[list[str]], str] | None, marked: bool) -> str:
    if pieces[0] in special:
        return pieces[0] + (f" × {len(pieces)}" if len(pieces) > 1 else "") + " "
    if spell is not None:
        text = spell(pieces).strip(" ")
    else:
        text = "".join(piece.removeprefix(_CONTINUES) for piece in pieces)
        text = text.replace("\u0120", "").replace("\u2581", "").replace("\u010a", "\n")
    starts = not marked or pieces[0].startswith(_STARTS[:2])
    return f" {text}" if starts else text
