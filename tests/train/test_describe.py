import numpy as np

from llava.data.pairs import DetectorRow, DetoxifierRow
from llava.protector.text import Window
from llava.train.describe import describe_conversations, describe_detector_data, describe_detoxifier_data, mask_text
from llava.train.detector_data import EncodedRow
from llava.train.detoxifier_data import EncodedRewrite


def test_no_word_survives_masking():
    assert mask_text("Straße 42, naïve—ok?") == "xxxxxx 99, xxxxx—xx?"
    assert mask_text("word " * 100).endswith("…")


def test_detector_report_counts_and_hides_texts():
    rows = [
        EncodedRow([Window([1] * n)], harmful, 1.0, 0.0, DetectorRow(f"q{n % 2}", "secret words", harmful, "src"))
        for n, harmful in ((3, True), (5, False), (7, True))
    ]
    report = describe_detector_data(rows, rows[:1])
    assert "training: 3 responses to 1 prompts" in report
    assert "src: 2 harmful, 1 harmless" in report
    assert "held out: 1 responses" in report
    assert "max 7" in report
    assert "secret" not in report
    assert "xxxxxx xxxxx" in report


def test_detoxifier_report_counts_and_hides_texts():
    rows = [EncodedRewrite([1, 2], [3], DetoxifierRow("q", "secret words", "kind reply", "src"))]
    report = describe_detoxifier_data(rows, [])
    assert "training: 1 rows, 1 prompts" in report
    assert "prompt tokens: p50 2" in report
    assert "target tokens: none" in report
    assert "secret" not in report
    assert "kind" not in report


def test_conversation_report_counts_and_hides_texts():
    from llava.data.conversations import Conversation, Turn
    from llava.train.llava_data import EncodedConversation

    turns = (Turn("system", "be kind"), Turn("user", "secret words", 1), Turn("assistant", "kind reply"))
    row = Conversation("1", turns, ("a.png",), "src", "rows.json row 1")
    picture = EncodedConversation(np.arange(6), [(4, 6)], 9, ("a.png",), row, cut=True)
    text = EncodedConversation(np.arange(5), [(1, 2), (3, 5)], 5, (), row)
    report = describe_conversations([picture, picture, text, text], [])
    assert "training: 4 rows, 2 with pictures (50%), 2 text only" in report
    assert "  src: 4" in report
    assert "positions, pictures included: p50 7, p90 9" in report
    assert "target tokens: p50 2, p90 3" in report
    assert "cut at the maximum length: 2" in report
    assert "1 pictures, 9 positions, 1 answers: xxxxxx xxxxx => xxxx xxxxx" in report
    assert "secret" not in report
    assert "kind" not in report
