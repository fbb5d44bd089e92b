"""The tab that shows the model in the open: its card, how it learned and what evaluate measured, errors included.

Drawn from the checkpoint's own metadata and the committed report: counts and shares, never samples of the data. Both are
read defensively: what is missing is left out. Charts are plain SVG (charts.py here), which a phone can show and zoom.
"""

import html
from collections.abc import Callable

import gradio as gr

from . import charts

WHERE = {"drawings": "Pen drawings of people it never saw", "mnist": "MNIST test set"}


def model_tab(card: dict | None, report: dict | None, digest: str | None = None) -> None:
    """Builds the tab. card: the checkpoint's metadata; report: what evaluate wrote; digest: the checkpoint file's SHA-256."""
    gr.HTML(model_html(card or {}, report or {}, digest=digest), js_on_load=None, elem_id="model", apply_default_css=False)


def model_html(card: dict, report: dict, *, digest: str | None = None) -> str:
    """The tab's HTML; panels whose figures are missing are left out."""
    panels = [
        *_panel("The model", lambda: _card(card, report, digest), wide=True),
        *_panel("How it learned", lambda: _history(card["history"]), wide=True),
        *_panel(f"{WHERE['drawings']}: by source", lambda: _sources(report["drawings"]["sources"])),
        *_panel("By width of the line", lambda: _bins(report["drawings"]["brush"], "share of the sheet's side")),
        *_panel("By size of the drawing", lambda: _bins(report["drawings"]["extent"], "share of the sheet's side")),
        *_panel("Most often mistaken", lambda: _mistaken(report["drawings"])),
        *_panel("What is no digit", lambda: _refusal(report["refusal"])),
    ]
    for name, where in WHERE.items():
        panels += _panel(f"{where}: what was read as what", lambda name=name: _confusion(report[name]))
        panels += _panel(f"{where}: is it as sure as it should be?", lambda name=name: _reliability(report[name]))
    return f"<div class='model'>{''.join(panels)}</div>"


def _panel(title: str, content: Callable[[], str], *, wide: bool = False) -> list[str]:
    try:
        inside = content()
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):  # not in this report, or not as it used to be
        return []
    kind = "panel wide" if wide else "panel"
    return [f"<section class='{kind}'><h2>{html.escape(title)}</h2>{inside}</section>"] if inside else []


def _card(card: dict, report: dict, digest: str | None) -> str:
    drawings, mnist, measured = report.get("drawings", {}), report.get("mnist", {}), report.get("checkpoint", {})
    validation = card.get("validation") or {}
    tiles = [
        (drawings.get("accuracy"), "of pen drawings read right"),
        (mnist.get("views"), "of the MNIST test set read right"),
    ]
    if not drawings and not mnist:
        tiles = [
            (validation.get("drawings_accuracy"), "of the validation drawings read right"),
            (validation.get("mnist_accuracy"), "of the MNIST validation pictures read right"),
        ]
    cells = [f"<div><b>{share:.2%}</b><span>{what}</span></div>" for share, what in tiles if isinstance(share, (int, float))]
    for count, what in ((measured.get("parameters"), "parameters"), (measured.get("views"), "views vote on every digit")):
        if isinstance(count, int):
            cells.append(f"<div><b>{count:,}</b><span>{what}</span></div>")
    pools, recipe = card.get("pools") or {}, card.get("recipe") or {}
    data = ", ".join(f"{n:,} {_said(name)}" for name, n in pools.items() if isinstance(n, int))
    widths = (recipe.get("model") or {}).get("widths")
    facts = {
        "Kind": f"residual convolutional network, widths {' and '.join(map(str, widths))}" if widths else None,
        "Learned from": data,
        "Made on": str(card.get("created") or "")[:10],
        "Best epoch": card.get("epoch"),
        "Trained for": f"{card['seconds'] / 60:.0f} minutes on {card.get('device')}" if card.get("seconds") else None,
        "Seed": card.get("seed"),
        "Writers it learned from": len(card.get("writers") or []) or None,
        "Measured on": str((report.get("made") or {}).get("date") or "")[:10],
        "SHA-256": digest or measured.get("sha256"),
    }
    rows = "".join(
        f"<tr><th scope='row'>{name}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
        if value not in (None, "")
    )
    notice = ""
    if not report:
        notice = "<p class='notice'>This checkpoint has not been measured yet: run python -m digitnet evaluate.</p>"
    elif digest and measured.get("sha256") and measured["sha256"] != digest:
        notice = "<p class='notice'>The figures below were measured on another checkpoint: run python -m digitnet evaluate.</p>"
    shown = f"<div class='tiles'>{''.join(cells)}</div>" if cells else ""
    table = f"<div class='scroll' tabindex='0' role='region' aria-label='Card'><table class='card'>{rows}</table></div>"
    return notice + shown + (table if rows else "")


def _said(name: str) -> str:
    names = {"mnist": "MNIST pictures", "drawings": "renderings of pen drawings", "others": "things that are no digit"}
    return names.get(name, str(name))


def _history(history: list[dict]) -> str:
    epochs = [row["epoch"] for row in history]
    if len(epochs) < 2:
        return ""

    def curve(name: str) -> list[float] | None:
        values = [row.get(name) for row in history]
        return values if all(isinstance(value, (int, float)) for value in values) else None

    loss = {"training": curve("train_loss"), "validation": curve("validation_loss")}
    accuracy = {"MNIST": curve("validation_mnist_accuracy"), "drawings": curve("validation_drawings_accuracy")}
    loss, accuracy = ({name: c for name, c in curves.items() if c} for curves in (loss, accuracy))
    parts = []
    if loss:
        parts.append(charts.lines(epochs, loss, title="Loss by epoch", share=False))
    if accuracy:
        parts.append(charts.lines(epochs, accuracy, title="Validation accuracy by epoch", share=True))
    return f"<div class='pair'>{''.join(parts)}</div>" if parts else ""


def _sources(sources: dict) -> str:
    rows = [(name, row["accuracy"], row.get("interval"), f"{row['n']:,} drawings") for name, row in sources.items()]
    return charts.shares(rows, title="Read right, by source, with 95 % intervals") if rows else ""


def _bins(bins: list[dict], what: str) -> str:
    rows = [(f"{row['from']:.0%} to {row['to']:.0%}", row["accuracy"], None, f"{row['n']:,}") for row in bins]
    return charts.shares(rows, title=f"Read right, by {what}") + f"<p class='hint'>Each bar: {what}.</p>" if rows else ""


def _confusion(part: dict) -> str:
    table = part["confusion"]
    if len(table) != 10 or any(len(row) != 10 for row in table):
        return ""
    return charts.matrix(table, title="Rows: what it was; columns: what was read")


def _reliability(part: dict) -> str:
    error = f"Calibration error {part['calibration_error']:.2%}: how far said and true confidence lie apart."
    return charts.reliability(part["reliability"], title="Share read right by confidence said") + f"<p class='hint'>{error}</p>"


def _mistaken(drawings: dict) -> str:
    rows = [row for row in drawings["mistaken"] if row["n"] > 0][:8]
    most = max((row["n"] for row in rows), default=1)
    total = drawings.get("renderings")
    bars = [(f"{row['true']} read as {row['read']}", row["n"] / most, None, str(row["n"])) for row in rows]
    note = f"<p class='hint'>Out of {total:,} renderings.</p>" if isinstance(total, int) else ""
    return charts.shares(bars, title="Mistakes by pair of digits", percent=False) + note if bars else ""


def _refusal(refusal: dict) -> str:
    rows = [(name, row["refused"], None, f"{row['n']:,}") for name, row in refusal["others"].items()]
    note = (
        f"Called “not a digit”: {refusal['others_refused']:.1%} of these, and {refusal['digits_refused']:.2%} of real digits."
    )
    return charts.shares(rows, title="Called not a digit, by kind") + f"<p class='hint'>{note}</p>"
