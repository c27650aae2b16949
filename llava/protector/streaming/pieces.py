"""Pieces of a text, cut anywhere, put together so that no character is ever seen by half."""

from __future__ import annotations

import codecs

HIGH_SURROGATES = ("\ud800", "\udbff")
"""First and last of the halves with which a character beyond the basic plane begins in UTF-16."""


class PieceJoiner:
    r"""Turns pieces into text of whole characters.

    A piece is text, or UTF-8 bytes that may end inside a character. Text may be cut inside a character too: JSON spells
    one beyond the basic plane as two surrogates, and a reader of half of such a string gives one of them.

    Example:
        >>> joiner = PieceJoiner()
        >>> [joiner.take(piece) for piece in (b"na\xc3", b"\xafve", " \ud83d", "\ude00")]
        ['na', 'ïve', ' ', '😀']
    """

    def __init__(self) -> None:
        """Begin an empty text."""
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.half = ""

    def take(self, piece: str | bytes) -> str:
        """Return the characters that are whole now.

        Raises:
            TypeError: When the piece is neither text nor bytes.
            UnicodeDecodeError: When bytes are no UTF-8.
        """
        if isinstance(piece, bytes):
            text = self.decoder.decode(piece)
        elif isinstance(piece, str):
            text = self.decoder.decode(b"", final=True) + piece  # text amid a character's bytes is an error
        else:
            raise TypeError(f"piece is no text but {type(piece).__name__}")
        text = self.half + text
        self.half = text[-1:] if HIGH_SURROGATES[0] <= text[-1:] <= HIGH_SURROGATES[1] else ""
        return join_surrogates(text.removesuffix(self.half))

    def finish(self) -> str:
        """Return what is left: a half character that stayed alone, or nothing.

        Raises:
            UnicodeDecodeError: When the bytes ended inside a character.
        """
        return self.decoder.decode(b"", final=True) + self.half


def join_surrogates(text: str) -> str:
    r"""Return a text in which two surrogates that make a character are that character; one alone stays.

    Example:
        >>> join_surrogates("a\ud83d\ude00") == "a😀", join_surrogates("plain")
        (True, 'plain')
    """
    if not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
