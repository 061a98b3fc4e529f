"""A synthetic voice says a text: 16-bit samples on standard output, their rate in Hz on standard error.

    python examples/espeak.py FOLDER "Hello." en+m3

FOLDER holds eSpeak NG's library and data (the package espeakng-loader). It has a process of its own for every text: the
library keeps a state from one text to the next, and is not made to live in one process with many others.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any


def main(folder: str, text: str, voice: str) -> None:
    library = ctypes.CDLL(str(next(Path(folder).glob("*espeak-ng.*"))))
    rate = library.espeak_Initialize(2, 0, os.fsencode(folder), 0)  # 2: hand the samples over, in this thread
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # breath is noise, and its seed would be the clock

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def take(wave: Any, count: int, events: Any) -> int:
        if wave:
            sys.stdout.buffer.write(ctypes.string_at(wave, 2 * count))
        return 0

    library.espeak_SetSynthCallback(take)
    if library.espeak_SetVoiceByName(voice.encode()):
        sys.exit(f"eSpeak NG has no voice {voice!r}")
    said = text.encode()
    library.espeak_Synth(said, ctypes.c_size_t(len(said) + 1), 0, 1, 0, 1, None, None)  # from character 0, in UTF-8
    library.espeak_Synchronize()
    print(rate, file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
