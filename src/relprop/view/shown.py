"""A matplotlib figure that a notebook shows, also where pyplot is not in use. Imported at the first picture only."""

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure that belongs to no pyplot state, and shows itself at the end of a notebook cell."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()
