"""The Draw tab in a real browser: ready at once, read while drawn, cleared, undone, explained."""

import pytest
from conftest import straightened

from digitnet.page.guard import BUSY

SCREENS = [
    pytest.param({"width": 1440}, id="1440-mouse-light"),
    pytest.param({"width": 1200, "dark": True}, id="1200-mouse-dark"),
    pytest.param({"width": 390, "height": 844, "touch": True}, id="390-touch-light"),
    pytest.param({"width": 360, "height": 740, "touch": True, "dark": True}, id="360-touch-dark"),
]
BLANK = "The sheet is blank. Draw a digit, or a number like 2026."


@pytest.mark.parametrize("screen", SCREENS)
def test_a_visitor_draws_at_once_and_is_read_and_again_after_clear(visit, drawn, screen):
    visitor = visit(**screen)
    assert visitor.label == "" and visitor.answers == 0 and visitor.said == BLANK
    places = ("#pad", "#answer", "#say", "#seen")
    before = [visitor.box(place)[1:] for place in places]
    scrolled = visitor.page.evaluate("() => scrollY")

    visitor.draw(drawn["7-upright"])
    assert visitor.label == "7" and visitor.said == "That is a 7."
    first = visitor.answers
    assert first >= 1
    rows = visitor.page.locator("#answer .confidence-set").count()
    assert rows == 3
    seen = visitor.page.locator("#seen img")
    assert seen.evaluate("e => [e.naturalWidth, e.naturalHeight]") == [28, 28]
    assert seen.bounding_box()["width"] >= 100
    assert seen.evaluate("e => getComputedStyle(e).imageRendering") == "pixelated"
    assert [visitor.box(place)[1:] for place in places] == before, "the page jumped when the answer came"
    assert visitor.page.evaluate("() => scrollY") == scrolled, "drawing moved the page"

    visitor.clear()
    assert visitor.label == "" and visitor.said == BLANK
    assert visitor.page.locator("#seen img").count() == 0

    visitor.draw(drawn["3-leaning"])
    assert visitor.label == "3" and visitor.answers > first


def test_the_sheet_is_the_first_canvas_and_wholly_visible_at_1200_by_900(visit):
    visitor = visit()
    x, y, width, height = visitor.box("canvas")
    assert height >= 240 and y >= 0 and y + height <= 900 and x >= 0 and x + width <= 1200


def test_the_answer_moves_while_the_pen_is_down(visit, drawn):
    visitor = visit()
    (stroke,) = drawn["2-upright"]
    first, *rest = visitor.places(stroke[::2])
    visitor.down(first)
    counts = {visitor.answers}
    for place in rest:
        visitor.move(place)
        counts.add(visitor.answers)
    visitor.until("() => Number(document.querySelector('#answer').dataset.answers) >= 3")
    assert visitor.page.evaluate("() => window.editor.tools.get('brush').is_drawing"), "the pen must still be down"
    assert visitor.label != ""
    visitor.up()
    visitor.settled()
    assert visitor.label == "2"


def test_nothing_is_asked_while_nobody_draws(visit, drawn):
    visitor = visit()
    visitor.draw(drawn["1-upright"])
    visitor.page.wait_for_timeout(500)
    asked = len(visitor.requests)
    visitor.page.wait_for_timeout(2500)
    assert visitor.requests[asked:] == []


def test_predict_reads_on_demand_and_says_calmly_that_a_sheet_is_blank(visit, drawn):
    visitor = visit()
    predict = visitor.page.get_by_role("button", name="Predict")
    predict.click()
    visitor.settled()
    assert visitor.label == "" and visitor.said == BLANK and visitor.answers == 0
    visitor.draw(drawn["5-upright"])
    before = visitor.answers
    predict.click()
    visitor.until("n => Number(document.querySelector('#answer').dataset.answers) > n", before)
    visitor.settled()
    assert visitor.label == "5"


def test_ten_digits_two_sheets_each_are_read_right_and_the_picture_agrees(visit, drawn):
    visitor = visit()
    read, wanted = [], []
    for digit in range(10):
        for hand in ("upright", "leaning"):
            visitor.draw(drawn[f"{digit}-{hand}"])
            read.append(visitor.label)
            wanted.append(str(digit))
            visitor.clear()
    assert read == wanted
    answer = visitor.page.locator("#answer")
    checked = int(answer.get_attribute("data-checked") or 0)
    replaced = int(answer.get_attribute("data-replaced") or 0)
    assert checked == 20, "the Sketchpad's own picture is read once for every finished drawing"
    assert replaced <= 1, "strokes and picture should hardly ever disagree"


@pytest.mark.parametrize("name", ["A-other", "scribble-other"])
def test_what_is_no_digit_is_called_so_and_still_gets_a_best_guess(visit, drawn, name):
    visitor = visit()
    visitor.draw(drawn[name])
    assert visitor.said.startswith("This does not look like a digit.")
    assert visitor.label in list("0123456789")


def test_2026_is_read_as_a_number_with_a_box_for_each_digit(visit, drawn):
    visitor = visit()
    visitor.draw(drawn["2026-number"])
    assert visitor.label == "2026"
    assert "four digits" in visitor.said
    assert visitor.page.locator("#pad .overlay .box").count() == 4
    assert [text[0] for text in visitor.page.locator("#pad .overlay .box").all_inner_texts()] == list("2026")
    assert visitor.page.locator("#seen img").count() == 4
    visitor.clear()
    assert visitor.page.locator("#pad .overlay .box").count() == 0


def test_touching_digits_are_said_to_be_uncertain(visit, drawn):
    visitor = visit()
    left = [stroke * 0.62 + [-10, 60] for stroke in drawn["2-upright"]]
    right = [stroke * 0.62 + [68, 60] for stroke in drawn["0-upright"]]
    third = [stroke * 0.62 + [128, 60] for stroke in drawn["2-upright"]]
    bridge = [[[30, 180], [230, 180]]]
    visitor.draw([*left, *right, *third, *bridge])
    assert visitor.page.get_attribute("#say", "data-verdict") in ("unsure", "not_a_digit")


def test_undo_redo_and_the_eraser_are_followed(visit, drawn):
    visitor = visit()
    upright = drawn["1-upright"]
    visitor.draw(upright)
    visitor.draw([[[60, 200], [220, 200]]])
    one_and_bar = visitor.page.inner_text("#answer")
    visitor.page.get_by_role("button", name="Undo").click()
    visitor.settled()
    assert visitor.label == "1"
    visitor.page.get_by_role("button", name="Redo").click()
    visitor.settled()
    assert visitor.page.inner_text("#answer") == one_and_bar
    visitor.page.keyboard.press("Control+z")
    visitor.settled()
    assert visitor.label == "1"
    visitor.page.keyboard.press("Control+z")
    visitor.settled()
    assert visitor.label == "" and visitor.said == BLANK
    visitor.page.keyboard.press("Control+y")
    visitor.settled()
    assert visitor.label == "1"

    visitor.page.get_by_role("button", name="Eraser").click()
    visitor.draw([[[x, y] for y in range(20, 280, 20) for x in (60, 220)]])
    visitor.draw([[[x, y] for x in range(60, 230, 16) for y in (20, 260)]])
    assert visitor.label == "" and visitor.said == BLANK, "what is erased is gone"


@pytest.mark.parametrize("key", ["Escape", "Delete"])
def test_a_key_clears_and_the_next_stroke_draws(visit, drawn, key):
    visitor = visit()
    visitor.draw(drawn["4-upright"])
    assert visitor.label == "4"
    visitor.page.keyboard.press(key)
    visitor.until("() => !document.querySelector('#pad').dataset.inked && window.editor.current_tool === 'draw'")
    visitor.settled()
    assert visitor.label == ""
    visitor.draw(drawn["9-upright"])
    assert visitor.label == "9"


def test_the_sheet_neither_zooms_nor_pans(visit, drawn):
    visitor = visit()
    where = "() => [window.editor.scale_value * 280, window.editor.position_value.x, window.editor.position_value.y]"
    width = visitor.box("canvas")[2]
    assert visitor.page.evaluate(where) == pytest.approx([width, 0, 0], abs=0.5)
    visitor.page.mouse.move(*visitor.places([[140, 140]])[0])
    for keys in ([], ["Alt"]):
        for key in keys:
            visitor.page.keyboard.down(key)
        visitor.page.mouse.wheel(0, 300)
        visitor.page.mouse.wheel(0, -300)
        for key in keys:
            visitor.page.keyboard.up(key)
    visitor.draw(drawn["7-upright"])
    visitor.clear()
    assert visitor.page.evaluate(where) == pytest.approx([width, 0, 0], abs=0.5)
    visitor.draw(drawn["7-upright"])
    assert visitor.label == "7"


def test_at_360_pixels_nothing_lies_on_the_sheet_and_nothing_sticks_out(visit):
    visitor = visit(width=360, height=740, touch=True)
    covered = visitor.page.evaluate(
        """() => {
            const { left, top, width, height } = document.querySelector('canvas').getBoundingClientRect();
            const found = [];
            for (let i = 1; i < 20; i += 1) for (let j = 1; j < 20; j += 1) {
                const top_most = document.elementFromPoint(left + (width * i) / 20, top + (height * j) / 20);
                if (top_most !== document.querySelector('canvas')) found.push(top_most?.outerHTML.slice(0, 80));
            }
            return found;
        }"""
    )
    assert covered == []
    assert visitor.page.evaluate("() => document.documentElement.scrollWidth") <= 360
    for button in visitor.page.locator("#tools button, #buttons button").all():
        x, _, width, height = visitor.box(f"#{button.evaluate('e => (e.id ||= `b${Math.random()}`.replace(`.`, ``))')}")
        assert x >= 0 and x + width <= 360 and height >= 40


@pytest.mark.parametrize(("width", "height"), [(390, 844), (768, 1024)])
def test_sheet_answer_sentence_and_buttons_are_seen_at_once_and_stay_where_they_are(visit, drawn, width, height):
    visitor = visit(width=width, height=height, touch=True)
    places = ("#pad", "#answer", "#say", "#tools", "#buttons")
    before = [visitor.box(place) for place in places]
    for x, y, wide, high in before:
        assert x >= 0 and y >= 0 and x + wide <= width and y + high <= height
    visitor.draw(drawn["A-other"])  # its sentence is the longest
    assert "does not look like a digit" in visitor.said
    assert [visitor.box(place) for place in places] == before


def test_a_second_finger_draws_nothing(visit):
    visitor = visit(width=390, height=844, touch=True)
    (a, b) = visitor.places([[80, 80], [200, 200]])
    send = visitor._touches.send
    point = lambda place, number: {"x": place[0], "y": place[1], "id": number}  # noqa: E731
    send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point(a, 1)]})
    send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point(a, 1), point(b, 2)]})
    send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    visitor.settled()
    boxes = visitor.page.evaluate("() => window.digitnet.strokes().map(([, , flat]) => flat)")
    assert all(abs(x - 80) < 4 for flat in boxes for x in flat[0::2]), "only the first finger's dot is on the sheet"


def test_bars_steps_votes_and_why_are_there_on_demand(visit, drawn):
    visitor = visit()
    page = visitor.page
    visitor.draw(drawn["4-upright"])
    page.get_by_text("All ten digits").click()
    page.wait_for_selector("#bars .bar-row")
    assert page.locator("#bars .bar-row").count() == 10
    assert page.locator("#bars .bar-row.best b").inner_text() == "4"

    page.get_by_text("Step by step").click()
    page.wait_for_selector("#steps .views li")
    votes = page.locator("#steps .views strong").all_inner_texts()
    assert len(votes) >= 3 and set(votes) <= set("0123456789")
    assert "vote" in page.inner_text("#steps .votes")
    assert page.locator("#steps .thumb .crop").count() == 1

    page.get_by_text("Why this answer?").click()
    page.wait_for_selector("#why img")
    assert page.inner_text("#why .why-question").startswith("Why 4 and not")
    page.select_option("#why-against", "9")
    visitor.until("() => document.querySelector('#why .key + .key').textContent.includes('9')")

    visitor.clear()
    visitor.draw(drawn["8-upright"])
    visitor.until("() => document.querySelector('#why .why-question')?.textContent.startsWith('Why 8')")
    assert page.locator("#bars .bar-row.best b").inner_text() == "8"


def test_examples_are_drawn_on_the_sheet_and_read(visit):
    visitor = visit()
    examples = visitor.page.locator(".example")
    names = [example.get_attribute("title") for example in examples.all()]
    assert len(names) >= 8 and "a star" in names and "a heart" in names
    for name, wanted in (("a 3", "3"), ("2026", "2026")):
        visitor.page.locator(f".example[title='{name}']").first.click()
        visitor.until("t => window.digitnet.shown().label?.label === t", wanted)
        visitor.until("() => window.digitnet.idle() && !window.digitnet.replaying()")
        assert visitor.label == wanted
    for name in ("a star", "a heart"):
        visitor.page.locator(f".example[title='{name}']").click()
        visitor.until("() => !window.digitnet.replaying() && document.querySelector('#pad').dataset.inked")
        visitor.settled()
        assert visitor.said.startswith("This does not look like a digit."), name


# --- when something is in the way -----------------------------------------------------------------------------------------


def refuse_readings(visitor, times: int, refused: list) -> None:
    """The server sends the next readings away, so many of them, as guard.py does when many draw."""

    def answer(route):
        if len(refused) >= times:
            route.continue_()
            return
        refused.append(route.request.post_data_json["fn_name"])
        route.fulfill(status=503, headers={"Retry-After": "1"}, json={"detail": BUSY})

    visitor.page.route("**/component_server/", answer)


def test_a_busy_server_is_asked_again_and_nobody_notices(visit, drawn):
    visitor, refused = visit(), []
    refuse_readings(visitor, 2, refused)
    visitor.draw(drawn["7-upright"])
    assert visitor.label == "7" and visitor.said == "That is a 7." and len(refused) == 2
    visitor.troubles.clear()  # the browser notes each 503


def test_a_server_that_stays_busy_says_so_and_the_drawing_is_kept(visit, drawn):
    visitor, refused = visit(), []
    refuse_readings(visitor, 10**6, refused)
    visitor.draw(drawn["7-upright"])
    assert visitor.said == BUSY and visitor.label == "" and len(refused) >= 4
    visitor.page.unroute("**/component_server/")
    visitor.page.get_by_role("button", name="Predict").click()
    visitor.settled()
    assert visitor.label == "7" and visitor.said == "That is a 7."
    visitor.troubles.clear()


def test_without_the_sketchpads_history_its_picture_is_read_after_each_stroke(visit, drawn):
    """Gradio promises no window.editor: the page reads without it, only not while the pen moves."""
    visitor = visit(arrive=False)
    visitor.page.add_init_script("Object.defineProperty(window, 'editor', { get: () => undefined, set: () => {} })")
    visitor.page.goto(visitor.address)
    visitor.page.wait_for_selector("#pad canvas")
    for name, digit in (("7-upright", "7"), ("3-leaning", "3")):
        visitor.page.wait_for_selector("#pad button.highlight[aria-label='Brush']", state="attached")
        (stroke,) = drawn[name]
        first, *rest = visitor.places(straightened(stroke))
        visitor.down(first)
        for place in rest:
            visitor.move(place)
        visitor.up()
        visitor.until(f"() => document.querySelector('#say').textContent === 'That is a {digit}.'")
        assert visitor.label == digit
        visitor.page.get_by_role("button", name="Clear").last.click()
        visitor.until(f"() => document.querySelector('#say').textContent === {BLANK!r}")
        assert visitor.label == ""
