"""The results as JSON, a table, and a chart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .measure import Row

COLORS = {"relprop": "#c0392b", "relprop compiled": "#e59866", "gradient x input": "#7f8c8d"}
OTHERS = {"zennit": "#2e86c1", "captum": "#8e6bbf", "autolrp": "#28a07a", "lxt": "#b7950b"}


def write(out: Path, setting: dict[str, Any], rows: list[Row]) -> None:
    """``bench.json`` and ``bench.md``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.json").write_text(json.dumps({**setting, "rows": rows}, indent=1) + "\n")
    (out / "bench.md").write_text(as_markdown(setting, rows))


def as_markdown(setting: dict[str, Any], rows: list[Row]) -> str:
    """One table. Times and memory are multiples of the plain gradient's."""
    peaks = setting["peaks"]
    lines = [
        f"torch {setting['torch']} on {setting['device']}: at most {peaks['flops'] / 1e12:.3g} TFLOP/s in a matrix "
        f"product, {peaks['bytes'] / 1e9:.3g} GB/s in a copy",
        "",
        "| model | batch | method | ms | time / gradient (quartiles) | memory / gradient | products forward + back "
        "| least | TFLOP/s | GB/s | of the roofline |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    gradient: Row = {}
    for row in rows:
        cells = [row["model"], str(row["batch"]), row["method"]]
        if row["library"] == "gradient x input":
            gradient = row
        if "error" in row:
            cells += ["", "fails: " + row["error"].replace("|", "/"), *[""] * 6]
        else:
            cells += _numbers(row, gradient)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _numbers(row: Row, gradient: Row) -> list[str]:
    low, high = row["quartiles"]
    memory = row["memory"] / row.get("gradient memory", gradient["memory"])
    cells = [f"{1000 * row['seconds']:.4g}", f"{row['ratio']:.2f} ({low:.2f}–{high:.2f})", f"{memory:.2f}"]
    cells.append(f"{row['forward']:.4g} + {row['back']:.4g}" if "forward" in row else "")
    cells.append("{:.4g} + {:.4g}".format(*row["least"]) if "least" in row else "")
    if "roofline" not in row:
        return [*cells, "", "", ""]
    rates = f"{row['flops/s'] / 1e12:.3g}", f"{row['bytes/s'] / 1e9:.3g}"
    return [*cells, *rates, f"{100 * row['roofline']:.0f} %"]


def chart(path: Path, rows: list[Row]) -> None:
    """Times as multiples of the gradient's: a panel for every model and batch size, a bar for every method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [row for row in rows if row["library"] != "gradient x input"]
    models = list(dict.fromkeys(row["model"] for row in rows))
    batches = list(dict.fromkeys(row["batch"] for row in rows))
    if not rows:
        return
    methods = {m: _by_composite([row for row in rows if row["model"] == m]) for m in models}
    heights = [len(methods[m]) + 2 for m in models]
    figure, panels = plt.subplots(
        len(models),
        len(batches),
        figsize=(6.5 * len(batches), 0.2 * sum(heights) + 0.6),
        squeeze=False,
        sharex=True,
        gridspec_kw={"height_ratios": heights},
        layout="constrained",
    )
    widest = max((row["ratio"] for row in rows if "ratio" in row), default=1)
    for line, model in zip(panels, models, strict=True):
        for panel, batch in zip(line, batches, strict=True):
            found = {row["method"]: row for row in rows if (row["model"], row["batch"]) == (model, batch)}
            _panel(panel, methods[model], found)
            panel.set_title(f"{model}, batch {batch}", fontsize=9, loc="left")
            panel.set_xlim(0, 1.12 * max(widest, 1))
    for panel in panels[-1]:
        panel.set_xlabel("time / time of one gradient x input", fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _by_composite(rows: list[Row]) -> dict[str, str]:
    """Methods and their labels, such that those with the same rules stand together."""
    order = list(dict.fromkeys(row["composite"] for row in rows))
    rows = sorted(rows, key=lambda row: order.index(row["composite"]))
    return {row["method"]: f"{row['composite']}: {row['library']}" for row in rows}


def _panel(panel: Any, methods: dict[str, str], found: dict[str, Row]) -> None:
    for y, name in enumerate(methods):
        row = found.get(name, {})
        if "ratio" in row:
            low, high = row["quartiles"]
            spread = [[max(row["ratio"] - low, 0)], [max(high - row["ratio"], 0)]]
            color = (COLORS | OTHERS)[row["library"]]
            panel.barh(y, row["ratio"], 0.75, color=color, xerr=spread, error_kw={"elinewidth": 0.8, "ecolor": "0.2"})
            panel.text(high, y, f"  {row['ratio']:.2f}", va="center", fontsize=7)
        elif row:
            panel.text(0, y, "  fails", va="center", fontsize=7, color="0.4", style="italic")
    panel.axvline(1, color="0.3", linewidth=0.8, linestyle="--")
    panel.set_yticks(range(len(methods)), methods.values(), fontsize=7)
    panel.set_ylim(len(methods) - 0.4, -0.6)
    panel.tick_params(axis="x", labelsize=7)
    panel.spines[["top", "right"]].set_visible(False)
