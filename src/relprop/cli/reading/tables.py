"""CSV, TSV and Parquet as columns."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..failures import Failure, Usage, meant

if TYPE_CHECKING:
    import numpy as np

Columns = dict[str, Sequence[Any]]


def columns(path: Path, chosen: str | None) -> Columns:
    """The columns of a table by name, all of them or those that were chosen, in that order.

    Raises:
        Usage: if there is no such column.
        Failure: if the file is damaged, or has no rows.
        ImportError: if Parquet is to be read and pyarrow is missing.
    """
    found = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    if not found or not len(next(iter(found.values()))):
        raise Failure(f"table {str(path)!r} has no rows")
    if chosen is None:
        return found
    names = [name.strip() for name in chosen.split(",")]
    for name in names:
        if name not in found:
            raise Usage(f"--columns: table {str(path)!r} has no column {name!r}; {meant(name, found)}")
    return {name: found[name] for name in names}


def numbers(table: Columns, where: str) -> np.ndarray:
    """The values of all columns, [rows, columns]; an empty cell is NaN.

    Raises:
        Failure: if a cell is no number.
    """
    import numpy as np

    found = np.full((len(next(iter(table.values()))), len(table)), np.nan)
    for j, (name, cells) in enumerate(table.items()):
        for i, cell in enumerate(cells):
            if cell is None or cell == "":
                continue
            try:
                found[i, j] = float(cell)
            except (TypeError, ValueError):
                raise Failure(
                    f"table {where!r}: row {i + 1} of column {name!r} holds {str(cell)[:40]!r}, which is no number; "
                    "choose columns with --columns a,b,c"
                ) from None
    return found


def _csv(path: Path) -> Columns:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(f"table {str(path)!r} is not in UTF-8: {error}") from error
    first = text.partition("\n")[0]
    mark = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    rows = [row for row in csv.reader(text.splitlines(), delimiter=mark) if row]
    if not rows:
        return {}
    if all(map(_is_number, rows[0])):  # there are no names
        rows.insert(0, [str(i) for i in range(len(rows[0]))])
    head, *body = rows
    for i, row in enumerate(body):
        if len(row) != len(head):
            raise Failure(f"table {str(path)!r}: row {i + 1} has {len(row)} cells, the first line has {len(head)}")
    return {name.strip(): [row[j].strip() for row in body] for j, name in enumerate(head)}


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _parquet(path: Path) -> Columns:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f'Parquet needs pyarrow ({error}); run: pip install "relprop[parquet]", or give a CSV'
        ) from error
    try:
        table = parquet.read_table(path)
    except Exception as error:  # pyarrow's errors have no common base
        raise Failure(f"{str(path)!r} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    return {name: table.column(name).to_pylist() for name in table.column_names}
