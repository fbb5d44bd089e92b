"""Charts of a report, as PNG files by matplotlib: training history, confusion, reliability, accuracy by brush and size.

Imported only when charts are asked for; matplotlib costs a second.
"""

from pathlib import Path

import numpy as np

INK, ACCENT, QUIET = "#1d2733", "#0b6e99", "#9aa5b1"


def draw_charts(report: dict, history: list[dict], folder: Path) -> list[Path]:
    """Writes the charts the report and the history have figures for; returns their paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    paths = []

    def save(figure, name: str) -> None:
        paths.append(folder / f"{name}.png")
        figure.savefig(paths[-1], dpi=110, bbox_inches="tight")
        plt.close(figure)

    if history:
        save(_history(plt, history), "history")
    for name in ("mnist", "drawings"):
        if name in report:
            save(_confusion(plt, np.array(report[name]["confusion"]), name), f"confusion-{name}")
            save(_reliability(plt, report[name], name), f"reliability-{name}")
    if "drawings" in report:
        save(_bins(plt, report["drawings"]), "drawings-by-brush-and-size")
    return paths


def _history(plt, history: list[dict]):
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5))
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["train_loss"] for row in history], color=QUIET, label="training")
    left.plot(epochs, [row["validation_loss"] for row in history], color=ACCENT, label="validation")
    left.set(xlabel="epoch", ylabel="loss", yscale="log")
    rate = left.twinx()
    rate.step(epochs, [row["lr"] for row in history], color=INK, alpha=0.3, where="mid")
    rate.set(ylabel="learning rate", yscale="log")
    left.legend()
    for key in history[0]:
        if key.endswith("_accuracy"):
            name = key.removeprefix("validation_").removesuffix("_accuracy")
            right.plot(epochs, [100 * (1 - row[key]) for row in history], label=name)
    right.set(xlabel="epoch", ylabel="validation error, %", yscale="log")
    right.legend()
    return figure


def _confusion(plt, table: np.ndarray, name: str):
    figure, axes = plt.subplots(figsize=(5, 4.6))
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    axes.imshow(wrong, cmap="Blues")
    for i, j in np.ndindex(table.shape):
        if table[i, j]:
            strong = i != j and wrong[i, j] > wrong.max() / 2
            axes.text(j, i, table[i, j], ha="center", va="center", fontsize=7, color="white" if strong else INK)
    axes.set(
        xlabel="read", ylabel="true", xticks=range(10), yticks=range(10), title=f"{name}: which digits are mistaken for which"
    )
    return figure


def _reliability(plt, figures: dict, name: str):
    figure, axes = plt.subplots(figsize=(4.2, 4))
    axes.plot([0, 1], [0, 1], color=QUIET, lw=1)
    bars = figures["reliability"]
    sizes = [12 + 60 * (bar["n"] / max(b["n"] for b in bars)) ** 0.4 for bar in bars]
    axes.scatter([bar["confidence"] for bar in bars], [bar["accuracy"] for bar in bars], s=sizes, color=ACCENT)
    axes.set(
        xlabel="confidence said",
        ylabel="share that was right",
        title=f"{name}: calibration error {figures['calibration_error']:.2%}",
    )
    return figure


def _bins(plt, drawings: dict):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    for one, key, label in ((axes[0], "brush", "brush, share of the sheet"), (axes[1], "extent", "size, share of the sheet")):
        rows = drawings[key]
        names = [f"{row['from']:.0%}–{row['to']:.0%}" for row in rows]
        bars = one.bar(names, [100 * (1 - row["accuracy"]) for row in rows], color=ACCENT)
        one.bar_label(bars, [f"n {row['n']}" for row in rows], fontsize=7)
        one.set(xlabel=label)
    axes[0].set(ylabel="misread, %")
    return figure
