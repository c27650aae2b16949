"""Encoded texts are found; what only looks like a code is left alone."""

import base64
import codecs
import hashlib
import html
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llava.protector.normalise import MOST_HIDDEN, find_hidden_texts

TEXT = "First, take some of the flour and mix it with the water. Then bake it for an hour in the oven."
ENCODERS = {
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 in lines": lambda text: base64.encodebytes(text.encode()).decode(),
    "base64 for addresses": lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    "hex": lambda text: text.encode().hex(),
    "hex with blanks": lambda text: text.encode().hex(" "),
    "escapes": lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode()),
    "bits": lambda text: " ".join(f"{byte:08b}" for byte in text.encode()),
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "backwards": lambda text: text[::-1],
    "words backwards": lambda text: " ".join(reversed(text.split())),
    "comment": lambda text: f"<!-- {text} -->",
    "entities": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "percent": lambda text: quote(text, safe=""),
    "selectors": lambda text: "".join(
        chr(0xFE00 + byte if byte < 16 else 0xE0100 + byte - 16) for byte in text.encode()
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_text_in_code_is_found(name):
    assert TEXT in find_hidden_texts(ENCODERS[name](TEXT))


@pytest.mark.parametrize("name", sorted(set(ENCODERS) - {"words backwards"}))
def test_a_code_among_ordinary_lines_is_found(name):
    said = f"Sure, here is what you asked for:\n{ENCODERS[name](TEXT)}\nI hope that this helps you."
    assert any(TEXT in hidden for hidden in find_hidden_texts(said))


def test_a_code_inside_a_code():
    twice = base64.b64encode(codecs.encode(TEXT, "rot13").encode()).decode()
    assert TEXT in find_hidden_texts(twice)


ORDINARY = [
    TEXT,
    "Ja, das ist ein ganz gewöhnlicher Satz über Donaudampfschifffahrtsgesellschaften.",
    "Это обычный текст о погоде.",
    "今日はいい天気ですね。",
    f"commit {hashlib.sha1(b'x').hexdigest()} and {hashlib.sha256(b'y').hexdigest()}",
    "https://example.com/a%20b/c?d=%2Fe&f=internationalization-of-everything",
    "41 52 63 74 65 41 42 43 44 45 46 47\n10 20 30 40 50 60 70 80",
    "x &lt; y &amp;&amp; z &gt; 0 &copy; 2024",
    "def get_the_configuration_of_everything(self): return CONFIGURATION_VALUES",
    "level, racecar, noon and deified are palindromes",
    "Yes.",
    "<!-- x --><p>Hello</p>",
    "The Fast and the Furious by Dale James",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_hide_nothing(text):
    assert find_hidden_texts(text) == []


@given(st.binary(min_size=12, max_size=60))
@example(bytes.fromhex("d4e66c3e5149ec0532f56e59adff368c92de90d68db936a040"))  # backwards it holds "i" and "of"
def test_bytes_that_are_no_text_are_not_taken_for_one(content):
    hidden = find_hidden_texts(base64.b64encode(hashlib.sha256(content).digest()).decode())
    assert hidden == []


def test_there_is_a_limit():
    codes = "\n".join(base64.b64encode(f"{TEXT} {number}".encode()).decode() + "." for number in range(50))
    assert len(find_hidden_texts(codes)) == MOST_HIDDEN


@given(st.text(max_size=300))
def test_any_text_is_read(text):
    hidden = find_hidden_texts(text)
    assert len(hidden) <= MOST_HIDDEN
    assert all(isinstance(each, str) for each in hidden)


def test_html_is_unescaped_once():
    assert html.escape(TEXT) == TEXT
