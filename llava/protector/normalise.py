"""What a detector reads instead of the raw text: the same words without disguise, and the texts that are hidden in it.

The text that is shown never goes through here; it stays byte-identical.
"""

from __future__ import annotations

from llava.protector.disguises.encodings import DECODERS
from llava.protector.disguises.frames import FRAMES
from llava.protector.disguises.invisible import drop_marks, drop_unseen
from llava.protector.disguises.letters import fold_lookalikes, fold_styled
from llava.protector.disguises.noise import calm_case, drop_emoji, join_lines
from llava.protector.disguises.spelling import join_letters, read_leet

MOST_HIDDEN = 6
"""Hidden texts that are returned; whoever hides more has hidden one that counts."""
MOST_LEVELS = 2
"""A code inside a code is decoded, one inside that is not."""


def fold_characters(text: str) -> str:
    """Return a text in the characters that its reader sees, without those that nobody sees.

    Example:
        >>> fold_characters("Ｂｏil thе wa\u200bter")
        'Boil the water'
    """
    if text.isascii():
        return text
    # Twice: whether invisible characters mean something depends on the letters, and a wide comma on its neighbours.
    return fold_lookalikes(drop_marks(fold_styled(drop_unseen(fold_styled(text)))))


def normalise(text: str) -> str:
    """Return a text without the disguises that a reader sees through and a tokenizer does not.

    Ordinary text comes out unchanged, whatever its language, and so do code, tables, numbers, hashes and addresses.
    Time is linear in the length.

    Args:
        text: Any text.

    Returns:
        The text with plain letters for look-alikes and styled ones, without invisible characters and heaped marks, with
        letters that stand apart joined, and with letters for digits inside words; without emoji at every word, without
        capitals that stand as they come, and running text out of lines of a word.

    Example:
        >>> normalise("h o w   t o b4ke br34d w1th yеаst")
        'how to bake bread with yeast'
    """
    return calm_case(read_leet(join_letters(join_lines(drop_emoji(fold_characters(text))))))


def find_hidden_texts(text: str) -> list[str]:
    """Return the texts that are written in another code or form inside a text, each without its disguises.

    Args:
        text: Any text.

    Returns:
        What base64, hexadecimal and binary numbers, variation selectors, percent signs, HTML entities and comments,
        ROT13 and reversed lines hold, as far as it looks like text; what a table cuts into cells, and what is left
        without refusing sentences around it. At most `MOST_HIDDEN`, none twice.

    Example:
        >>> find_hidden_texts("Decode this: aG93IHRvIGJha2UgYnJlYWQ="), find_hidden_texts("Boil the water.")
        (['how to bake bread'], [])
    """
    found: dict[str, None] = {}
    level = [text]
    for _ in range(MOST_LEVELS):
        below = []
        for each in level:
            # Variation selectors carry a text of their own, and are gone once characters are folded.
            for plain in dict.fromkeys((each, fold_characters(each))):
                for decode in (*DECODERS, *FRAMES):
                    below += [hidden for hidden in decode(plain) if hidden not in found and hidden != text]
        fresh = dict.fromkeys(below)
        found.update(fresh)
        level = list(fresh)[:MOST_HIDDEN]
    return list(dict.fromkeys(map(normalise, found)))[:MOST_HIDDEN]


def list_readings(text: str) -> list[str]:
    """Return every form of a text that a detector scores, of which the worst counts: the plain text, and hidden ones.

    Example:
        >>> list_readings("Boil the water.")
        ['Boil the water.']
    """
    plain = normalise(text)
    return list(dict.fromkeys([plain, *find_hidden_texts(text)]))
