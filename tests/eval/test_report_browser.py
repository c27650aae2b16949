"""The report page in a real browser: filters, search, masks, and no sideways scrolling on a phone."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
from PIL import Image

from llava.constants import REFUSAL
from llava.eval.report.rendering import render_report
from llava.eval.scoring.scoring import score_run
from tests.eval.browser import open_page, requires_chromium
from tests.eval.build import ANSWER, REFUSED, build_record, build_run

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("report_browser"), requires_chromium]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of 60 records: 20 of 06-Fraud with a picture and half of them refused, 40 of 10-Legal_Opinion."""
    folder = tmp_path_factory.mktemp("run")
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
    run = build_run(folder / "run", [*fraud, *legal])
    score_run(run)
    return render_report(run)


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


def open_item(browser, number: int, *keys: str):
    """Open a record by a click, or by the keys given, and return it once its texts are there."""
    from selenium.webdriver.support.ui import WebDriverWait

    item = items(browser)[number]
    summary = item.find_element("css selector", "summary")
    if keys:
        summary.send_keys(*keys)
    else:
        summary.click()
    WebDriverWait(browser, 10).until(lambda driver: item.find_elements("css selector", ".masked"))
    return item


def blur_of(browser, element) -> str:
    """The style an element has once its transition is over."""
    script = "arguments[0].style.transition = 'none'; return getComputedStyle(arguments[0]).filter"
    return browser.execute_script(script, element)


def test_filters_narrow_the_list_and_add_up(browser):
    expect_count(browser, "60 of 60 records")
    choose(browser, "f-s", "06-Fraud")
    expect_count(browser, "20 of 60 records")
    choose(browser, "f-a", "refused")
    expect_count(browser, "10 of 60 records")
    assert all("06-Fraud" in item.text and "refused" in item.text for item in items(browser))
    choose(browser, "f-s", "")
    choose(browser, "f-a", "")
    choose(browser, "f-t", "TEXT")
    expect_count(browser, "40 of 60 records")
    choose(browser, "f-u", "1")
    expect_count(browser, "10 of 60 records")  # every fourth answer is no refusal


def test_search_looks_into_answers_whatever_the_case(browser):
    field = browser.find_element("id", "f-q")
    field.send_keys("NUTMEG 36")
    expect_count(browser, "1 of 60 records")
    assert "10-Legal_Opinion / 36" in items(browser)[0].text
    field.clear()
    field.send_keys("no such word")
    expect_count(browser, "0 of 60 records")
    assert items(browser) == []


def test_long_lists_come_in_portions(browser):
    assert len(items(browser)) == 40
    browser.find_element("id", "more").click()
    assert len(items(browser)) == 60
    assert not browser.find_element("id", "more").is_displayed()


def test_texts_and_pictures_are_blurred_until_they_are_clicked(browser):
    item = open_item(browser, 1)
    masked = item.find_elements("css selector", ".masked")
    assert [element.tag_name for element in masked] == ["img", "div", "div", "div"]
    assert all("blur" in blur_of(browser, element) for element in masked)
    masked[2].click()
    assert blur_of(browser, masked[2]) == "none"
    assert masked[2].text == ANSWER
    assert "blur" in blur_of(browser, masked[3])
    assert browser.execute_script("return arguments[0].naturalWidth", masked[0]) > 0


def test_a_mask_opens_by_keyboard(browser):
    from selenium.webdriver.common.keys import Keys

    item = open_item(browser, 0, Keys.ENTER)
    masked = item.find_element("css selector", "div.masked")
    assert masked.get_attribute("role") == "button"
    masked.send_keys(Keys.ENTER)
    assert blur_of(browser, masked) == "none"


def test_one_button_shows_and_masks_all(browser):
    masked = open_item(browser, 0).find_element("css selector", "div.masked")
    button = browser.find_element("id", "f-m")
    button.click()
    assert blur_of(browser, masked) == "none"
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    assert "blur" in blur_of(browser, masked)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_never_wider_than_its_window_and_reports_no_error(page, width):
    with open_page(page, width=width) as driver:
        open_item(driver, 0)
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
        open_item(browser, 1)
    with emulate(browser, media=media, scheme=scheme):
        found, page = browser.execute_script(CONTRAST)
    assert len(found) > 100
    # Text of 24 pixels and more counts as large in WCAG 2.1, success criterion 1.4.3.
    assert [each for each in found if each[0] < (3.0 if each[1] >= 24 else 4.5)] == []
    assert (page < 0.1) == (media == "screen" and scheme == "dark")  # paper is white


def test_the_dark_page_is_masked_too(browser):
    masked = open_item(browser, 1).find_elements("css selector", ".masked")
    with emulate(browser, scheme="dark"):
        assert all("blur" in blur_of(browser, element) for element in masked)


def test_no_answer_gets_onto_paper(browser):
    """Neither masked nor unmasked: the list of records is not printed at all."""
    open_item(browser, 0)
    browser.find_element("id", "f-m").click()
    assert ANSWER in browser.find_element("tag name", "main").text
    with emulate(browser, media="print"):
        printed = browser.find_element("tag name", "main").text
        assert "06-Fraud" in printed
        assert ANSWER not in printed
        assert "question 0" not in printed
        texts = browser.find_elements("css selector", "#explorer, .masked")
        assert len(texts) > 3
        assert not any(text.is_displayed() for text in texts)
