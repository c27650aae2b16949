"""The calculator in a real browser: its fields, its models, and what it shows."""

import pytest

from benchmarks.cost.model import KINDS, MODELS, compute
from benchmarks.cost.page import render_part
from tests.eval.browser import open_page, requires_chromium

pytestmark = [pytest.mark.slow, requires_chromium]


def read_result(driver):
    rows = driver.find_elements("css selector", "#cost-result tr")[1:]
    return [[cell.text for cell in row.find_elements("css selector", "td")] for row in rows]


def expected(**changed):
    values = compute(**changed)
    seconds, size = values["model_seconds"], values["model_bytes"]
    rows = [["no guard", f"{seconds:.3f}", "0.0%", f"{size / 1e9:.2f}", "0.0%"]]
    for kind, name in KINDS.items():
        more, bigger = values[f"{kind}_seconds"], values[f"{kind}_bytes"]
        shares = f"{100 * more / seconds:.1f}%", f"{100 * bigger / size:.1f}%"
        rows.append([name, f"{seconds + more:.3f}", shares[0], f"{(size + bigger) / 1e9:.2f}", shares[1]])
    return rows


def test_it_computes_as_the_formulas_do(tmp_path):
    from selenium.webdriver.support.ui import Select

    script = render_part().partition("\n\n")[2]
    page = tmp_path / "cost.html"
    page.write_text(f'<!doctype html><meta charset="utf-8"><body>{script}</body>', encoding="utf-8")
    with open_page(page) as driver:
        assert read_result(driver) == expected()
        Select(driver.find_element("css selector", "select")).select_by_visible_text("70B")
        assert read_result(driver) == expected(**MODELS["70B"])
        field = driver.find_element("css selector", "#cost-flagged_share")
        field.clear()
        field.send_keys("0.5")
        assert read_result(driver) == expected(**MODELS["70B"], flagged_share=0.5)
        assert driver.get_log("browser") == []
