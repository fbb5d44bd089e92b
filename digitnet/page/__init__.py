"""The page: one file per tab, scripts and styles as files of their own, limits in limits.py.

Only app.py and this package import gradio; nothing else imports either. reading.py, which turns strokes and pictures into
what the page shows, knows no Gradio and can be used and tested without it.
"""
