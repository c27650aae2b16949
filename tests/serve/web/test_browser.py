"""The real demo in a real browser: an image, a question, both answers, the plot, the slider; wide and on a phone."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from llava.constants import REFUSAL
from tests.eval.browser import open_page, requires_chromium
from tests.eval.test_report_browser import CONTRAST, blur_of, emulate

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("web_demo"), requires_chromium]
QUESTION = "Say {{value}} and ${1+1} <b>slowly</b>, please, and stop."
SECONDS = 60
OURS = 'querySelectorAll("[class^=mp-], [class^=mp-] *")'


def wait(browser, found, message=""):
    """Wait for what `found` returns."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    ignored = [StaleElementReferenceException]  # parts of the page are replaced while they grow
    return WebDriverWait(browser, SECONDS, 0.1, ignored).until(lambda driver: found(), message=message)


def find(browser, selector):
    return wait(browser, lambda: browser.find_element("css selector", selector), selector)


def text(browser, selector):
    return browser.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)


def expect(browser, selector, words):
    wait(browser, lambda: words in text(browser, selector), f"{words} in {selector}")


def open_demo(browser, url):
    browser.get(url)
    wait(browser, lambda: "ask something" in text(browser, "#verdict") and find(browser, "#question textarea"))


def set_threshold(browser, value):
    """Type a threshold beside the slider."""
    from selenium.webdriver.common.keys import Keys

    find(browser, "#threshold input[type=number]").send_keys(Keys.CONTROL, "a", Keys.NULL, f"{value:.3f}", Keys.TAB)


def ask(browser, words=QUESTION):
    from selenium.webdriver.common.keys import Keys

    field = find(browser, "#question textarea")
    field.clear()
    field.send_keys(words, Keys.ENTER)


@pytest.fixture(scope="module")
def browser(demo):
    with open_page(demo.url) as driver:
        yield driver


@pytest.fixture(scope="module")
def score(detector):
    """The harm score of an answer that says what the question says."""
    return detector.score([QUESTION], [QUESTION])[0]


def test_an_image_a_question_both_answers_and_the_slider(browser, demo, upstream, score, tmp_path):
    from selenium.webdriver.common.keys import Keys

    open_demo(browser, demo.url)
    Image.new("RGB", (30, 20), "blue").save(tmp_path / "blue.png")
    find(browser, "#asking input[type=file]").send_keys(str(tmp_path / "blue.png"))
    find(browser, "#asking .image-frame img, #asking img")
    set_threshold(browser, 0.999)
    ask(browser)
    expect(browser, "#verdict", "writing")
    wait(browser, lambda: 0 < len(text(browser, "#unguarded .mp-text")) < len(QUESTION), "an answer that grows")
    expect(browser, "#verdict", "passed")
    wait(browser, lambda: "still writes" not in text(browser, "#verdict"))
    assert text(browser, "#unguarded .mp-text") == text(browser, "#guarded .mp-text") == QUESTION
    assert "does not look at images" in text(browser, "#verdict")
    sent = upstream.log()[-1]["body"]["messages"][0]["content"]
    assert sent[0]["image_url"]["url"].startswith("data:image/png;base64,")
    label = find(browser, "#plot .mp-frame").get_attribute("aria-label")
    assert re.search(rf"over \d+ tokens: .* last {score:.2f}; threshold 1.00", label)
    assert find(browser, "#plot .mp-curve").get_attribute("d").count("L") > 3

    asked = len(upstream.log())
    set_threshold(browser, score / 2)
    expect(browser, "#verdict", "refused")
    masked = find(browser, "#unguarded .mp-masked[role=button]")
    assert "blur" in blur_of(browser, masked)
    assert text(browser, "#guarded .mp-text").endswith(REFUSAL)
    assert f"threshold {score / 2:.2f}" in find(browser, "#plot .mp-frame").get_attribute("aria-label")
    assert browser.find_elements("css selector", "#unguarded mark")
    masked.send_keys(Keys.ENTER)
    assert blur_of(browser, find(browser, "#unguarded .mp-text")) == "none"
    assert text(browser, "#unguarded .mp-text") == QUESTION

    # The slider itself, by the keyboard.
    slider = find(browser, "#threshold input[type=range]")
    slider.send_keys(Keys.END)
    expect(browser, "#verdict", "passed")
    slider.send_keys(Keys.HOME)
    expect(browser, "#verdict", "refused")
    assert len(upstream.log()) == asked


def test_an_answer_is_stopped_and_judged_as_far_as_it_goes(browser, demo):
    open_demo(browser, demo.url)
    set_threshold(browser, 1)
    ask(browser, "word " * 300)
    expect(browser, "#unguarded .mp-text", "word word")
    find(browser, "#stop").click()
    expect(browser, "#verdict", "passed")
    assert "writes" not in text(browser, "#verdict")
    said = text(browser, "#unguarded .mp-text")
    assert said == text(browser, "#guarded .mp-text")
    assert 0 < said.count("word") < 300


def test_two_visitors_see_their_own(browser, demo):
    open_demo(browser, demo.url)
    ask(browser, "Zebras of one visitor.")
    browser.switch_to.new_window("tab")
    try:
        open_demo(browser, demo.url)
        ask(browser, "Another's.")
        wait(browser, lambda: text(browser, "#unguarded .mp-text").strip() == "Another's.")
        assert "Zebras" not in text(browser, ".gradio-container")
    finally:
        browser.close()
        browser.switch_to.window(browser.window_handles[0])
    expect(browser, "#unguarded .mp-text", "Zebras of one visitor.")


def test_what_goes_wrong_is_said(browser, demo, tmp_path):
    open_demo(browser, demo.url)
    (tmp_path / "no.png").write_text("no picture")
    find(browser, "#asking input[type=file]").send_keys(str(tmp_path / "no.png"))
    find(browser, "#asking img")
    ask(browser)
    expect(browser, "#verdict", "the image")
    assert "mp-error" in find(browser, "#verdict .mp-verdict").get_attribute("class")


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_its_window_and_loads_nothing_from_elsewhere(demo, score, width):
    with open_page(demo.url, width=width) as driver:
        open_demo(driver, demo.url)
        set_threshold(driver, score / 2)
        ask(driver)
        expect(driver, "#verdict", "refused")
        wide = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert wide[0] <= wide[1] == width
        left = [find(driver, f"#{name}").rect for name in ("unguarded", "guarded")]
        assert (left[0]["y"] < left[1]["y"]) == (width == 390)  # one above the other, or side by side
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
        loaded = driver.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert [name for name in loaded if not name.startswith((demo.url, "data:", "blob:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(browser, demo, score, scheme):
    with emulate(browser, scheme=scheme):
        open_demo(browser, demo.url)
        for threshold, word in ((score / 2, "refused"), (0.999, "passed")):
            set_threshold(browser, threshold)
            ask(browser)
            expect(browser, "#verdict", word)
            wait(browser, lambda: "still writes" not in text(browser, "#verdict"))
            found, page = browser.execute_script(CONTRAST.replace('querySelectorAll("body *")', OURS))
            assert len(found) > 10
            assert [each for each in found if each[0] < 4.5] == []
            assert (page < 0.1) == (scheme == "dark")
