"""Write the computed part of `docs/cost.md`: the table, and a calculator made of the same formulas.

`python -m benchmarks.cost.page` writes it; a test compares the page with what would be written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.cost.model import ASSUMPTIONS, FORMULAS, KINDS, MODELS, render_table
from llava.errors import InputError
from llava.files import read_text, write_text_atomic

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cost.md"
BEGIN, END = "<!-- computed: python -m benchmarks.cost.page -->", "<!-- end of the computed part -->"
SCRIPT = """\
<div id="cost-calculator"></div>
<script>
(function () {
const ASSUMPTIONS = %(assumptions)s;
const MODELS = %(models)s;
const KINDS = %(kinds)s;
%(function)s
const place = document.getElementById("cost-calculator");
const inputs = {};
function add(parent, tag, text) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  parent.appendChild(element);
  return element;
}
const presets = add(add(place, "p"), "select");
presets.setAttribute("aria-label", "model");
for (const name of Object.keys(MODELS)) add(presets, "option", name);
const form = add(place, "table");
for (const [name, assumption] of Object.entries(ASSUMPTIONS)) {
  const row = add(form, "tr");
  const label = add(add(row, "td"), "label", assumption.label);
  const input = add(add(row, "td"), "input");
  Object.assign(input, {type: "number", step: "any", min: "0", value: assumption.value, id: "cost-" + name});
  label.htmlFor = input.id;
  input.addEventListener("input", show);
  inputs[name] = input;
}
const result = add(place, "table");
result.id = "cost-result";
function show() {
  const values = {};
  for (const [name, assumption] of Object.entries(ASSUMPTIONS)) {
    values[name] = parseFloat(inputs[name].value) * assumption.scale;
  }
  const costs = computeCosts(values);
  result.replaceChildren();
  const head = add(result, "tr");
  for (const title of ["", "seconds", "added", "GB", "added"]) add(head, "th", title);
  const base = [["no guard", 0, 0]];
  const guards = Object.entries(KINDS).map(([kind, name]) => [name, costs[kind + "_seconds"], costs[kind + "_bytes"]]);
  for (const [name, seconds, bytes] of base.concat(guards)) {
    const row = add(result, "tr");
    add(row, "td", name);
    add(row, "td", (costs.model_seconds + seconds).toFixed(3));
    add(row, "td", (100 * seconds / costs.model_seconds).toFixed(1) + "%%");
    add(row, "td", ((costs.model_bytes + bytes) / 1e9).toFixed(2));
    add(row, "td", (100 * bytes / costs.model_bytes).toFixed(1) + "%%");
  }
}
presets.addEventListener("change", () => {
  for (const [name, value] of Object.entries(MODELS[presets.value])) inputs[name].value = value;
  show();
});
show();
})();
</script>
"""


def render_function() -> str:
    """Return the formulas as a JavaScript function from an object of assumptions to one of all values."""
    lines = [f"function computeCosts({{{', '.join(ASSUMPTIONS)}}}) {{", "  const max = Math.max;"]
    lines += [f"  const {name} = {expression};" for name, expression in FORMULAS.items()]
    lines += [f"  return {{{', '.join(FORMULAS)}}};", "}"]
    return "\n".join(lines)


def render_part() -> str:
    """Return the computed part of the page, without its marks."""
    assumptions = {
        name: {"label": each.label, "value": each.value, "scale": each.scale} for name, each in ASSUMPTIONS.items()
    }
    script = SCRIPT % {
        "assumptions": json.dumps(assumptions, indent=1),
        "models": json.dumps(MODELS, indent=1),
        "kinds": json.dumps(KINDS, indent=1),
        "function": render_function(),
    }
    return f"{render_table()}\n{script}"


def fill_page(text: str, where: str = "page") -> str:
    """Return a page with its computed part written anew.

    Raises:
        InputError: When the marks are not there.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{where} lacks the lines '{BEGIN}' and '{END}'; put them where the table belongs")
    return f"{head}{BEGIN}\n\n{render_part()}\n{END}{tail}"


def main() -> int:
    """Write the page."""
    write_text_atomic(PAGE, fill_page(read_text(PAGE), str(PAGE)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
