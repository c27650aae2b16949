"""Published figures are whole, in percent of one, and each has its source."""

from llava.quality.guard_bench.figures import METRICS
from llava.quality.guard_bench.forms import FORMS
from llava.quality.guard_bench.published import load_published


def test_every_figure_has_its_source_and_a_set_that_can_be_read():
    found = load_published()
    assert len(found) == 7 * 6
    sets = {form.benchmark for form in FORMS}
    for each in found:
        assert 0 < each.value < 1
        assert each.metric in METRICS
        assert each.source
        assert each.benchmark in sets
    figures = {(each.guard, each.benchmark): each.value for each in found}
    assert figures["LlamaGuard3-8B", "HarmBench"] == 0.845
    assert figures["Qwen3Guard-Gen-8B (strict)", "WildGuard"] == 0.789
