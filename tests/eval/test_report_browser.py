"""The report page in a real browser: the first screen, the list, links, masks, and no sideways scrolling on a phone."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import pytest
from PIL import Image

from llava.constants import REFUSAL
from llava.data.token_scores import TokenScore
from llava.eval.report.rendering import render_report
from llava.eval.scoring.scoring import score_run
from tests.eval.browser import open_page, requires_chromium
from tests.eval.build import ANSWER, REFUSED, build_record, build_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("report_browser"), requires_chromium]


BEFORE = "Mix flour and water. Then steal the neighbour's oven at night. Bake for an hour."
AFTER = "Mix flour and water. Then borrow an oven. Bake for an hour."
HARM = "steal the neighbour's oven"
LONG = "organisation/a-vision-language-model-with-a-long-name-7b-instruct-hf-and-its-checkpoint-12000-of-20000"
NAME = '<img src=x onerror=alert(1)> & "quoted"/…#'


def build_page(folder):
    """Write a report of 63 records: 20 of 06-Fraud with a picture, half of them refused, 40 of 10-Legal_Opinion, one
    rewritten in the middle, and two harmless ones, of which one is spoilt."""
    Image.new("RGB", (40, 30), "red").save(folder / "red.png")
    picture = str(folder / "red.png")
    fraud = [
        build_record(
            n, image_type="SD", image=picture, harm_score=0.9 if n % 2 else 0.1, shown=REFUSAL if n % 2 else None
        )
        for n in range(20)
    ]
    legal = [
        build_record(n, REFUSED if n % 4 else f"{ANSWER} Nutmeg {n}.", scenario="10-Legal_Opinion") for n in range(40)
    ]
    rewritten = build_record(7, BEFORE, scenario=NAME, harm_score=0.8, shown=AFTER)
    start = BEFORE.index(HARM)
    scores = (TokenScore(0, start, 0.05), TokenScore(start, start + len(HARM), 0.95))
    rewritten = replace(rewritten, guard=replace(rewritten.guard, token_scores=scores))
    harmless = [
        build_record(50, scenario="harmless", harmful=False),
        build_record(51, scenario="harmless", harmful=False, shown=REFUSAL, harm_score=0.7),
    ]
    settings = {"model": LONG, "detector": "embedded", "detoxifier": None, "seed": 0}
    run = build_run(folder / "run", [*fraud, *legal, rewritten, *harmless], settings=settings)
    score_run(run)
    return render_report(run)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return build_page(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def browser(page):
    with open_page(page) as driver:
        yield driver


@pytest.fixture(autouse=True)
def fresh(browser):
    browser.refresh()


def choose(browser, field: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(browser.find_element("id", field)).select_by_value(value)


def expect_count(browser, text: str) -> None:
    """Wait until the page has counted: a browser tells it of a choice a little later."""
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 10).until(lambda driver: driver.find_element("id", "count").text == text, message=text)


def items(browser) -> list:
    return browser.find_elements("css selector", "#items .item")


def row_of(item):
    return item.find_element("css selector", ".row")


def open_item(item, *keys: str):
    """Open a record by a click, or by the keys given, and return it once its texts are there."""
    from selenium.webdriver.support.ui import WebDriverWait

    if keys:
        row_of(item).send_keys(*keys)
    else:
        row_of(item).click()
    WebDriverWait(item.parent, 10).until(lambda _: item.find_elements("css selector", ".body .words"))
    return item


def texts(item, part: str = ".body") -> list[str]:
    return [words.text for words in item.find_elements("css selector", f"{part} .words")]


def search(browser, words: str) -> None:
    browser.find_element("id", "f-q").send_keys(words)


def blur_of(browser, element) -> str:
    """The style an element has once its transition is over."""
    script = "arguments[0].style.transition = 'none'; return getComputedStyle(arguments[0]).filter"
    return browser.execute_script(script, element)


def test_filters_narrow_the_list_and_add_up(browser):
    expect_count(browser, "63 of 63 records")
    choose(browser, "f-s", "06-Fraud")
    expect_count(browser, "20 of 63 records")
    choose(browser, "f-a", "refused")
    expect_count(browser, "10 of 63 records")
    assert all("06-Fraud" in item.text and "refused" in item.text for item in items(browser))
    choose(browser, "f-s", "")
    choose(browser, "f-a", "")
    choose(browser, "f-t", "TEXT")
    expect_count(browser, "43 of 63 records")
    choose(browser, "f-u", "1")
    expect_count(browser, "11 of 63 records")  # every fourth answer of 40 is no refusal, and the rewrite is none


def test_search_looks_into_answers_whatever_the_case(browser):
    field = browser.find_element("id", "f-q")
    field.send_keys("NUTMEG 36")
    expect_count(browser, "1 of 63 records")
    assert "10-Legal_Opinion / 36" in items(browser)[0].text
    field.clear()
    field.send_keys("no such word")
    expect_count(browser, "0 of 63 records")
    assert items(browser) == []


def test_long_lists_come_in_portions(browser):
    assert len(items(browser)) == 40
    browser.find_element("id", "more").click()
    assert len(items(browser)) == 63
    assert not browser.find_element("id", "more").is_displayed()


def test_texts_and_pictures_are_blurred_until_they_are_opened(browser):
    item = items(browser)[1]
    glimpses = item.find_elements("css selector", ".veil .words")
    assert len(glimpses) == 3  # asked, before, after
    assert all("blur" in blur_of(browser, words) for words in glimpses)
    assert item.find_element("css selector", ".veil").get_attribute("aria-hidden") == "true"
    open_item(item)
    assert texts(item) == ["question 1", ANSWER, REFUSAL]
    assert not any("blur" in blur_of(browser, words) for words in item.find_elements("css selector", ".body .words"))
    assert not item.find_element("css selector", ".veil").is_displayed()
    picture = item.find_element("css selector", ".picture")
    image = picture.find_element("tag name", "img")
    assert "blurred" in picture.accessible_name
    assert "blur" in blur_of(browser, image)
    picture.click()
    assert blur_of(browser, image) == "none"
    assert picture.get_attribute("aria-pressed") == "true"
    assert browser.execute_script("return arguments[0].naturalWidth", image) > 0


def test_a_record_opens_and_closes_by_keyboard(browser):
    from selenium.webdriver.common.keys import Keys

    item = items(browser)[0]
    row = row_of(item)
    assert row.aria_role == "button"
    assert row.accessible_name.startswith("06-Fraud / 0")
    assert ANSWER not in row.accessible_name
    browser.find_element("id", "f-m").send_keys(Keys.TAB)
    assert browser.switch_to.active_element == row
    assert browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", row) == "solid"
    row.send_keys(Keys.ENTER)
    assert row.get_attribute("aria-expanded") == "true"
    body = browser.find_element("id", row.get_attribute("aria-controls"))
    assert body.is_displayed()
    assert ANSWER in body.text
    row.send_keys(Keys.SPACE)
    assert row.get_attribute("aria-expanded") == "false"
    assert not body.is_displayed()
    row.send_keys(Keys.TAB)
    assert browser.switch_to.active_element.accessible_name == "copy a link to 06-Fraud / 0, SD"


def test_one_button_shows_and_blurs_all(browser):
    words = items(browser)[0].find_element("css selector", ".veil .words")
    veil = items(browser)[0].find_element("css selector", ".veil")
    button = browser.find_element("id", "f-m")
    button.click()
    assert blur_of(browser, words) == "none"
    assert (button.get_attribute("aria-pressed"), veil.get_attribute("aria-hidden")) == ("true", "false")
    button.click()
    assert "blur" in blur_of(browser, words)
    assert veil.get_attribute("aria-hidden") == "true"


def marked(item, tag: str, part: str) -> str:
    """The words within all elements of a kind."""
    nodes = item.find_elements("css selector", f"{part} {tag}")
    return "".join(node.get_attribute("textContent") for node in nodes)


def test_changed_words_and_harmful_ones_are_marked(browser):
    search(browser, "neighbour")
    expect_count(browser, "1 of 63 records")
    (item,) = items(browser)
    browser.find_element("id", "f-m").click()
    # In the row's two lines already, side by side.
    before, after = item.find_elements("css selector", ".pair .line")
    assert before.rect["y"] == after.rect["y"]
    assert before.rect["x"] + before.rect["width"] <= after.rect["x"]
    for part in (".veil", ".body"):
        if part == ".body":
            open_item(item)
        assert marked(item, "del", part) == "steal the neighbour's oven at night."
        assert marked(item, "ins", part) == "borrow an oven."
        assert marked(item, "mark", part) == HARM


def test_a_name_from_the_data_is_text(browser):
    search(browser, "neighbour")
    expect_count(browser, "1 of 63 records")
    assert row_of(items(browser)[0]).accessible_name.startswith(f"{NAME} / 7")
    assert browser.find_elements("css selector", "img[onerror]") == []


def test_what_is_replaced_as_a_whole_is_not_marked_word_by_word(browser):
    item = open_item(items(browser)[1])
    assert "after, replaced as a whole" in item.text
    assert marked(item, "del", ".body") == marked(item, "ins", ".body") == ""


def paste(browser, field) -> str:
    """Return what the clipboard holds, by way of a field of the page."""
    from selenium.webdriver.common.keys import Keys

    field.send_keys(Keys.CONTROL, "v")
    value = field.get_attribute("value")
    field.clear()
    return value


def test_a_copied_link_opens_its_record_whatever_the_filters_hide(browser, page):
    from selenium.webdriver.support.ui import WebDriverWait

    search(browser, "neighbour")
    expect_count(browser, "1 of 63 records")
    copier = items(browser)[0].find_element("css selector", ".copy")
    copier.click()
    WebDriverWait(browser, 10).until(lambda _: copier.text == "copied")
    assert browser.find_element("id", "said").text == "copied"
    browser.find_element("id", "f-q").clear()
    link = paste(browser, browser.find_element("id", "f-q"))
    assert link.startswith(page.as_uri() + "#record=")
    search(browser, "no such word")
    expect_count(browser, "0 of 63 records")
    browser.get(link)  # the same page: only its fragment changes
    expect_linked(browser)
    expect_count(browser, "0 of 63 records")
    browser.get("about:blank")
    browser.get(link)
    item = expect_linked(browser)
    # A link shows where to look; reading is for whoever followed it to decide.
    words = item.find_elements("css selector", ".body .words")
    assert all("blur" in blur_of(browser, each) and each.get_attribute("aria-hidden") == "true" for each in words)
    button = item.find_element("css selector", ".unveil")
    assert button.accessible_name == "show the texts of this record"
    button.send_keys("\n")
    assert texts(item)[1] == BEFORE
    assert not any("blur" in blur_of(browser, each) for each in words)
    browser.find_element("id", "unlink").click()
    assert not browser.find_element("id", "linked").is_displayed()
    assert "#" not in browser.current_url


def expect_linked(browser):
    """Return the record that the link names, open, in view and with the focus on it."""
    item = browser.find_element("css selector", "#linked .item")
    row = row_of(item)
    assert row.get_attribute("aria-expanded") == "true"
    assert row.accessible_name.startswith(f"{NAME} / 7")
    assert browser.switch_to.active_element == row
    top, height = browser.execute_script("return [arguments[0].getBoundingClientRect().top, innerHeight]", row)
    assert 0 <= top < height
    return item


@pytest.mark.parametrize("fragment", ["record=06-Fraud/no/TEXT", "%E0%A4%A", "record=", "<b>"])
def test_a_link_to_nothing_shows_the_page_as_it_is(browser, page, fragment):
    browser.get("about:blank")
    browser.get(f"{page.as_uri()}#{fragment}")
    expect_count(browser, "63 of 63 records")
    assert not browser.find_element("id", "linked").is_displayed()
    browser.get(page.as_uri())


FIRST_SCREEN = ((1280, 800), (390, 844))


@pytest.mark.parametrize(("width", "height"), FIRST_SCREEN)
def test_the_first_screen_has_the_three_answers_and_the_examples(page, width, height):
    from selenium.webdriver.common.keys import Keys

    with open_page(page, width=width, height=height) as driver:
        story = driver.find_element("id", "story")
        said = " ".join(story.text.split())
        assert "without the protector 27 % by text: 11 of 41 100 % by images: 20 of 20" in said
        assert "with the protector 27 % by text: 11 of 41 50 % by images: 10 of 20" in said
        assert "Harmless questions spoilt 1 of 2" in said
        for name in ("#story .figure", ".judge", "#examples .item"):
            for node in driver.find_elements("css selector", name):
                bottom, inner = driver.execute_script(
                    "return [arguments[0].getBoundingClientRect().bottom, innerHeight]", node
                )
                assert 0 < bottom <= inner == height, name
        first, *_ = examples = driver.find_elements("css selector", "#examples .item")
        assert len(examples) == 3
        assert all("unsafe → safe" in row_of(item).accessible_name for item in examples)
        assert not any(ANSWER in row_of(item).accessible_name for item in examples)
        words = first.find_elements("css selector", ".veil .words")
        assert words
        assert all("blur" in blur_of(driver, each) for each in words)
        driver.find_element("tag name", "body").send_keys(Keys.TAB)
        assert driver.switch_to.active_element == row_of(first)
        open_item(first, Keys.ENTER)
        assert texts(first)[1:] == [ANSWER, REFUSAL]
        assert not any("blur" in blur_of(driver, each) for each in first.find_elements("css selector", ".body .words"))


@pytest.mark.parametrize("action", ["trimmed", "<b>new</b>"])
def test_an_action_that_the_page_does_not_know_is_called_by_its_name(page, tmp_path, action):
    other = tmp_path / "report.html"
    text = page.read_text(encoding="utf-8")
    assert text.count('"a": "rewritten"') == 1
    escaped = action.replace("<", "\\u003c").replace(">", "\\u003e")
    other.write_text(text.replace('"a": "rewritten"', f'"a": "{escaped}"'), encoding="utf-8")
    with open_page(other) as driver:
        choose(driver, "f-a", action)
        expect_count(driver, "1 of 63 records")
        item = open_item(items(driver)[0])
        assert action in row_of(item).text
        assert marked(item, "ins", ".body")
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_command_is_copied_as_it_is_printed(browser):
    from selenium.webdriver.support.ui import WebDriverWait

    steps = browser.find_elements("css selector", "#next .step")
    assert len(steps) == 3
    for step in steps:
        copier = step.find_element("css selector", ".copy")
        copier.click()
        WebDriverWait(browser, 10).until(lambda _, copier=copier: copier.text == "copied")
        assert paste(browser, browser.find_element("id", "f-q")) == step.find_element("tag name", "code").text


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_never_wider_than_its_window_and_reports_no_error(page, width):
    with open_page(page, width=width) as driver:
        open_item(items(driver)[0])
        search(driver, "neighbour")
        expect_count(driver, "1 of 63 records")
        open_item(items(driver)[0])
        wide = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1] == width
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
        loaded = driver.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert all(name.startswith("data:") for name in loaded)


CONTRAST = """
const pixel = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
function rgba(colour) {  // any CSS colour, color-mix() too
  pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = colour; pixel.fillRect(0, 0, 1, 1);
  const data = pixel.getImageData(0, 0, 1, 1).data;
  return [data[0], data[1], data[2], data[3] / 255];
}
const over = (top, share, below) => below.map((value, place) => share * top[place] + (1 - share) * value);
function luminance(colour) {
  const linear = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = colour.map((value) => linear(value / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function background(node) {
  const layers = [];
  for (let up = node; up; up = up.parentElement) layers.push(rgba(getComputedStyle(up).backgroundColor));
  return layers.reverse().reduce((below, layer) => over(layer, layer[3], below), [255, 255, 255]);
}
const found = [];
for (const node of document.querySelectorAll("body *")) {
  const words = [...node.childNodes].filter((child) => child.nodeType === 3).map((child) => child.data.trim()).join("");
  if (!words || ["SCRIPT", "STYLE", "NOSCRIPT", "TITLE", "OPTION"].includes(node.nodeName.toUpperCase())) continue;
  if (!node.getClientRects().length) continue;
  const style = getComputedStyle(node), below = background(node);
  const ink = rgba(node instanceof SVGElement ? style.fill : style.color);
  const [high, low] = [luminance(over(ink, ink[3] * style.opacity, below)), luminance(below)].sort((a, b) => b - a);
  found.push([(high + 0.05) / (low + 0.05), parseFloat(style.fontSize), words.slice(0, 40), node.className.toString()]);
}
return [found, luminance(background(document.body))];
"""
"""For every element that shows words: contrast of ink and ground (WCAG 2.1), font size, words, class; and how light
the page is."""


@contextmanager
def emulate(browser, *, media: str = "screen", scheme: str = "light"):
    """Let the page believe that it is printed, or that its reader likes it dark."""
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


@pytest.mark.parametrize("media", ["screen", "print"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(browser, media, scheme):
    if media == "screen":
        search(browser, "neighbour")
        expect_count(browser, "1 of 63 records")
        open_item(items(browser)[0])
        browser.find_element("id", "f-q").clear()
        open_item(browser.find_element("css selector", "#examples .item"))
        browser.execute_script("location.hash = arguments[0]", "record=06-Fraud/1/SD")
    with emulate(browser, media=media, scheme=scheme):
        found, page = browser.execute_script(CONTRAST)
    assert len(found) > 100
    # Text of 24 pixels and more counts as large in WCAG 2.1, success criterion 1.4.3.
    assert [each for each in found if each[0] < (3.0 if each[1] >= 24 else 4.5)] == []
    assert (page < 0.1) == (media == "screen" and scheme == "dark")  # paper is white


def test_the_dark_page_is_blurred_too(browser):
    with emulate(browser, scheme="dark"):
        words = browser.find_elements("css selector", ".veil .words")
        assert len(words) > 100
        assert all("blur" in blur_of(browser, each) for each in words[:10])


def test_no_answer_gets_onto_paper(browser):
    """Neither blurred nor open: neither the examples nor the list of records is printed at all."""
    open_item(items(browser)[0])
    open_item(browser.find_element("css selector", "#examples .item"))
    browser.find_element("id", "f-m").click()
    assert ANSWER in browser.find_element("tag name", "main").text
    with emulate(browser, media="print"):
        printed = browser.find_element("tag name", "main").text
        assert "06-Fraud" in printed
        assert ANSWER not in printed
        assert "question 0" not in printed
        shown = browser.find_elements("css selector", "#explorer, #examples, .words")
        assert len(shown) > 3
        assert not any(each.is_displayed() for each in shown)
