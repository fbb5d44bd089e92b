"""The look: theme, styles and icon. Change the colours in page.css and here, nowhere else.

Everything is served from here: no web fonts, no CDN, so that the page works without internet.
"""

from functools import cache
from pathlib import Path

import gradio as gr
from starlette.middleware import Middleware

from .gaps import Shelf, housekeeping
from .guard import Guard
from .limits import LIMITS

FOLDER = Path(__file__).resolve().parent
INDIGO = gr.themes.Color(
    name="indigo-ink",
    c50="#eef0fd",
    c100="#dfe3fb",
    c200="#c3caf7",
    c300="#a3aef2",
    c400="#8793f0",
    c500="#4c5cd6",
    c600="#3546c4",
    c700="#2b39a3",
    c800="#232e80",
    c900="#1c2560",
    c950="#12173d",
)


@cache
def script(*names: str) -> str:
    """The scripts of these names as one text, for a component's js_on_load."""
    return "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in names)


def theme() -> gr.themes.Base:
    """The page's own theme; fonts come with Gradio, from this server (its semi-bold files lack most letters)."""
    return gr.themes.Base(
        primary_hue=INDIGO,
        secondary_hue=INDIGO,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        text_size=gr.themes.sizes.text_md,
        font=(gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700)), "system-ui", "sans-serif"),
        font_mono=(gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "monospace"),
    ).set(
        body_background_fill="#f6f4ef",
        body_background_fill_dark="#11141b",
        body_text_color="#1d2433",
        body_text_color_dark="#e9ecf2",
        body_text_color_subdued="#575f6e",
        body_text_color_subdued_dark="#a9b2c1",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1a1f29",
        background_fill_secondary="#faf8f4",
        background_fill_secondary_dark="#151a22",
        border_color_primary="#dcd7cc",
        border_color_primary_dark="#333c4c",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1a1f29",
        block_border_color="#dcd7cc",
        block_border_color_dark="#333c4c",
        block_label_text_color="#575f6e",
        block_label_text_color_dark="#a9b2c1",
        block_shadow="none",
        stat_background_fill="#8793f0",
        stat_background_fill_dark="#5c6be0",
        button_primary_background_fill="#3546c4",
        button_primary_background_fill_hover="#2b39a3",
        button_primary_background_fill_dark="#8793f0",
        button_primary_background_fill_hover_dark="#a3aef2",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#0d1020",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#f1eee6",
        button_secondary_background_fill_dark="#232a37",
        button_secondary_background_fill_hover_dark="#2e3747",
        button_secondary_border_color="#b9b3a5",
        button_secondary_border_color_dark="#4a5568",
        button_secondary_text_color="#1d2433",
        button_secondary_text_color_dark="#e9ecf2",
    )


def launch_settings(*, proxied: bool = False) -> dict:
    """What launch() must be told so that the page looks and keeps to itself as it should. proxied: as for guard.Guard."""
    shelf = Shelf()
    return {
        "theme": theme(),
        "css_paths": [FOLDER / "page.css"],
        "favicon_path": FOLDER / "icon.svg",
        "footer_links": ["api"],
        "run_history": False,
        "show_error": True,
        "ssr_mode": False,
        "pwa": False,
        "enable_monitoring": False,
        "max_file_size": LIMITS.upload,
        "state_session_capacity": LIMITS.sessions,
        "app_kwargs": {
            "middleware": [Middleware(Guard, proxied=proxied, shelf=shelf)],
            "lifespan": housekeeping(shelf),
        },
    }
