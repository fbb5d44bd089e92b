"""Everybody can use the page: axe-core on every tab, light and dark; keyboard; contrast of our own parts.

Gradio's own findings are listed by rule and selector; a new one fails, and so does anything serious in our parts.
"""

import pytest
from axe_playwright_python.sync_playwright import Axe

TABS = ("Draw", "Photo", "History", "Model")

# (rule, part of the selector): what Gradio 6.31 itself brings along.
GRADIO: set[tuple[str, str]] = {
    ("aria-prohibited-attr", ".unpadded_box"),  # the Label's placeholder: a name on a plain div
}


def findings(page) -> list[tuple[str, str, str]]:
    """Serious and critical findings of axe-core: (rule, selector, the element's beginning)."""
    violations = Axe().run(page).response["violations"]
    return [
        (violation["id"], " ".join(map(str, node["target"])), node["html"][:160])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def new(found):
    return [one for one in found if not any(one[0] == rule and part in one[1] for rule, part in GRADIO)]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(visit, drawn, dark):
    visitor = visit(dark=dark)
    page = visitor.page
    assert not new(findings(page)), "before anything is drawn"
    visitor.draw(drawn["4-upright"])
    for panel in ("All ten digits", "Step by step", "Why this answer?"):
        page.get_by_text(panel).click()
    page.wait_for_selector("#why img")
    page.wait_for_selector("#steps .views li")
    assert not new(findings(page)), "with an answer and all panels open"
    visitor.clear()
    visitor.draw(drawn["A-other"])
    for tab in TABS:
        visitor.open(tab)
        page.wait_for_timeout(300)
        assert not new(findings(page)), tab


def test_every_control_of_ours_is_reached_by_keyboard(visit):
    visitor = visit()
    page = visitor.page
    wanted = {
        "Pen",
        "Eraser",
        "Thin line",
        "Normal line",
        "Thick line",
        "Predict",
        "Clear",
        "All ten digits",
        "Why this answer?",
    }
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "() => (document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText).trim()"
            )
        )
    assert wanted <= reached, wanted - reached


def test_the_light_switch_is_remembered(visit):
    visitor = visit()
    dark = "() => document.body.classList.contains('dark')"
    assert not visitor.page.evaluate(dark)
    visitor.page.get_by_role("button", name="Switch between light and dark").click()
    assert visitor.page.evaluate(dark)
    visitor.arrive()
    visitor.until(dark)


def test_a_screen_reader_hears_settled_answers(visit, drawn):
    visitor = visit()
    said = visitor.page.locator("#said")
    assert said.get_attribute("aria-live") == "polite"
    visitor.draw(drawn["6-upright"])
    assert said.inner_text() == "That is a 6."
