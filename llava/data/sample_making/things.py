"""The things that stand on the grounds of the sample scenes, as lists of flat shapes; see `grounds.py`."""

from __future__ import annotations

from llava.data.sample_making.grounds import BLUE, GOLD, GREEN, GREY, INK, PAPER, RED, SKIN, WOOD, Shape


def _person(x: float, coat: str) -> list[Shape]:
    """Draw a standing figure around the middle line `x`."""
    return [
        ("rect", INK, (x - 8, 66, x - 2, 98)),
        ("rect", INK, (x + 2, 66, x + 8, 98)),
        ("round", coat, (x - 12, 36, x + 12, 72)),
        ("oval", SKIN, (x - 9, 14, x + 9, 34)),
        ("half", "#5b4636", (x - 9.5, 12, x + 9.5, 34)),
    ]


def _columns(top: str) -> list[Shape]:
    """Draw a public building with columns under a roof in the colour `top`."""
    return [
        ("poly", top, (4, 42, 50, 14, 96, 42)),
        ("rect", PAPER, (10, 42, 90, 90)),
        *[("rect", GREY, (x, 46, x + 8, 90)) for x in (16, 36, 56, 76)],
        ("rect", GREY, (6, 90, 94, 98)),
    ]


THINGS: dict[str, list[Shape]] = {
    "person": _person(50, BLUE),
    "crowd": [*_person(18, GREEN), *_person(82, GOLD), *_person(50, RED)],
    "house": [
        ("rect", PAPER, (14, 46, 86, 98)),
        ("poly", RED, (6, 48, 50, 12, 94, 48)),
        ("rect", WOOD, (42, 66, 58, 98)),
        ("rect", "#bfe3f2", (21, 58, 35, 72)),
        ("rect", "#bfe3f2", (65, 58, 79, 72)),
    ],
    "cinema": [
        ("rect", "#6d597a", (6, 30, 94, 98)),
        ("rect", GOLD, (12, 36, 88, 54)),
        ("text", INK, (50, 45), "CINEMA"),
        ("rect", INK, (38, 62, 62, 98)),
        *[("oval", "#fff3c4", (x, 26, x + 6, 32)) for x in range(8, 92, 12)],
    ],
    "school": [*_columns(BLUE), ("text", PAPER, (50, 34), "SCHOOL", 11)],
    "bank": [*_columns(GREY), ("text", PAPER, (50, 33), "BANK", 13)],
    "factory": [
        ("rect", GREY, (70, 20, 82, 60)),
        ("oval", PAPER, (66, 2, 84, 14)),
        ("poly", RED, (6, 98, 6, 52, 30, 66, 30, 52, 54, 66, 54, 52, 94, 66, 94, 98)),
        *[("rect", "#fff3c4", (x, 74, x + 12, 86)) for x in (14, 40, 66)],
    ],
    "tram": [
        ("line", INK, (2, 50, 8, 34, 24)),
        ("round", RED, (2, 24, 98, 86)),
        *[("rect", "#bfe3f2", (x, 34, x + 18, 54)) for x in (9, 31, 53, 75)],
        ("rect", PAPER, (2, 62, 98, 67)),
        ("oval", INK, (14, 78, 32, 96)),
        ("oval", INK, (68, 78, 86, 96)),
    ],
    "car": [
        ("poly", BLUE, (20, 64, 32, 42, 68, 42, 82, 64)),
        ("poly", "#bfe3f2", (28, 62, 36, 47, 64, 47, 73, 62)),
        ("round", BLUE, (6, 60, 94, 86)),
        ("oval", INK, (16, 76, 36, 96)),
        ("oval", INK, (64, 76, 84, 96)),
    ],
    "table": [
        ("round", PAPER, (26, 44, 74, 52)),
        ("rect", WOOD, (4, 52, 96, 60)),
        ("rect", WOOD, (12, 60, 19, 98)),
        ("rect", WOOD, (81, 60, 88, 98)),
    ],
    "bed": [
        ("rect", WOOD, (4, 34, 12, 98)),
        ("rect", WOOD, (88, 62, 96, 98)),
        ("rect", BLUE, (12, 64, 88, 86)),
        ("round", PAPER, (14, 52, 40, 66)),
    ],
    "stairs": [("poly", WOOD, (4, 98, 4, 80, 26, 80, 26, 62, 48, 62, 48, 44, 70, 44, 70, 26, 96, 26, 96, 98))],
    "umbrella": [
        ("line", INK, (3.5, 50, 40, 50, 92)),
        ("line", INK, (3.5, 50, 92, 60, 92)),
        ("half", RED, (6, 10, 94, 92)),
        ("line", PAPER, (1.2, 50, 12, 50, 51)),
        ("line", PAPER, (1.2, 50, 12, 28, 51)),
        ("line", PAPER, (1.2, 50, 12, 72, 51)),
    ],
    "spraycan": [
        ("oval", GREEN, (2, 10, 34, 42)),
        ("oval", GREEN, (16, 4, 40, 30)),
        ("rect", INK, (52, 22, 68, 32)),
        ("round", GREY, (44, 32, 76, 98)),
        ("rect", GREEN, (44, 50, 76, 76)),
    ],
    "megaphone": [
        ("poly", RED, (18, 46, 74, 16, 74, 84, 18, 62)),
        ("rect", INK, (8, 44, 20, 64)),
        ("rect", INK, (28, 64, 40, 88)),
        *[("line", INK, (3, 82, y0, 96, y1)) for y0, y1 in ((36, 28), (50, 50), (64, 72))],
    ],
    "glasses": [
        ("ring", INK, (4, 36, 46, 78)),
        ("ring", INK, (54, 36, 96, 78)),
        ("line", INK, (4, 44, 54, 56, 54)),
    ],
    "ball": [
        ("oval", PAPER, (14, 28, 84, 98)),
        ("poly", INK, (49, 50, 62, 60, 57, 75, 41, 75, 36, 60)),
        *[("line", INK, (2, *ends)) for ends in ((49, 50, 49, 29), (62, 60, 82, 54), (36, 60, 16, 54))],
        *[("line", INK, (2, *ends)) for ends in ((57, 75, 68, 92), (41, 75, 30, 92))],
    ],
    "laptop": [
        ("round", INK, (14, 26, 86, 78)),
        ("rect", "#7fb7d4", (19, 31, 81, 72)),
        ("poly", GREY, (14, 78, 86, 78, 98, 92, 2, 92)),
        ("line", PAPER, (2.5, 26, 42, 60, 42)),
        ("line", PAPER, (2.5, 26, 51, 70, 51)),
        ("line", PAPER, (2.5, 26, 60, 50, 60)),
    ],
    "popup": [
        ("rect", PAPER, (6, 22, 94, 88)),
        ("rect", BLUE, (6, 22, 94, 36)),
        ("rect", RED, (82, 24, 92, 34)),
        ("poly", GOLD, (50, 42, 66, 70, 34, 70)),
        ("text", INK, (50, 61), "!"),
        ("rect", GREY, (36, 74, 64, 83)),
    ],
    "phone": [
        ("round", INK, (28, 8, 74, 96)),
        ("rect", "#7fb7d4", (33, 18, 69, 84)),
        ("round", PAPER, (37, 24, 60, 36)),
        ("round", "#d6f0d0", (42, 42, 66, 54)),
        ("round", PAPER, (37, 60, 58, 72)),
        ("oval", GREY, (48, 87, 54, 93)),
    ],
    "bubble": [
        ("round", PAPER, (6, 18, 94, 70)),
        ("poly", PAPER, (22, 66, 44, 66, 20, 88)),
        *[("oval", INK, (x, 40, x + 9, 49)) for x in (26, 46, 66)],
    ],
    "clock": [
        ("oval", INK, (12, 18, 88, 94)),
        ("oval", PAPER, (18, 24, 82, 88)),
        ("line", INK, (4, 50, 56, 50, 34)),
        ("line", INK, (4, 50, 56, 66, 64)),
        ("oval", RED, (46, 52, 54, 60)),
    ],
    "chilli": [
        ("line", GREEN, (5, 66, 30, 78, 16)),
        ("poly", RED, (58, 28, 74, 36, 72, 60, 56, 80, 22, 92, 44, 66, 50, 44)),
        ("oval", GREEN, (54, 24, 78, 40)),
    ],
    "snowball": [
        ("oval", "#c5d3de", (20, 40, 78, 98)),
        ("oval", "#ffffff", (22, 38, 76, 92)),
        *[("line", GREY, (2.5, x, y, x + 14, y - 8)) for x, y in ((2, 34), (6, 22), (20, 18))],
    ],
    "dice": [
        ("round", PAPER, (6, 42, 56, 92)),
        *[("oval", INK, (x, y, x + 9, y + 9)) for x, y in ((13, 49), (27, 63), (41, 77))],
        ("round", RED, (50, 22, 94, 66)),
        *[("oval", PAPER, (x, y, x + 8, y + 8)) for x, y in ((57, 29), (79, 29), (57, 51), (79, 51))],
    ],
    "coins": [
        *[("oval", c, (6, y, 54, y + 16)) for y, c in ((80, "#b9862b"), (76, GOLD), (66, "#b9862b"), (62, GOLD))],
        *[("oval", c, (48, y, 96, y + 16)) for y, c in ((80, "#b9862b"), (76, GOLD))],
        *[("oval", c, (48, y, 96, y + 16)) for y, c in ((66, "#b9862b"), (62, GOLD), (52, "#b9862b"), (48, GOLD))],
    ],
    "pyramid": [
        ("poly", GOLD, (50, 10, 96, 94, 4, 94)),
        ("line", PAPER, (2.5, 34, 39, 66, 39)),
        ("line", PAPER, (2.5, 19, 67, 81, 67)),
    ],
    "ticket": [
        ("round", GOLD, (4, 34, 96, 78)),
        ("line", INK, (1.5, 72, 38, 72, 74)),
        ("text", INK, (40, 56), "TICKET"),
    ],
    "card": [
        ("round", PAPER, (4, 28, 96, 86)),
        ("rect", BLUE, (4, 34, 96, 46)),
        ("oval", SKIN, (14, 52, 36, 76)),
        *[("line", GREY, (3, 46, y, 86, y)) for y in (58, 67, 76)],
    ],
    "stars": [("star", GOLD, (x, 46, 15)) for x in (18, 50, 82)] + [("star", GOLD, (x, 78, 15)) for x in (34, 66)],
    "document": [
        ("rect", PAPER, (20, 8, 82, 96)),
        ("rect", BLUE, (28, 18, 56, 25)),
        *[("line", GREY, (2.5, 28, y, 74, y)) for y in (36, 46, 56, 66)],
        ("oval", RED, (56, 74, 74, 90)),
    ],
    "suitcase": [
        ("ring", INK, (34, 22, 66, 60)),
        ("round", WOOD, (6, 38, 94, 94)),
        ("rect", INK, (22, 38, 28, 94)),
        ("rect", INK, (72, 38, 78, 94)),
    ],
    "book": [
        ("poly", PAPER, (50, 34, 6, 24, 6, 84, 50, 94)),
        ("poly", "#ece6d6", (50, 34, 94, 24, 94, 84, 50, 94)),
        *[("line", GREY, (2, 14, y, 42, y + 6)) for y in (40, 52, 64)],
        *[("line", GREY, (2, 58, y + 6, 86, y)) for y in (40, 52, 64)],
    ],
    "heart": [
        ("oval", RED, (8, 20, 54, 64)),
        ("oval", RED, (46, 20, 92, 64)),
        ("poly", RED, (11, 52, 89, 52, 50, 96)),
    ],
    "flag": [
        ("rect", WOOD, (14, 6, 20, 98)),
        ("poly", GREEN, (20, 10, 94, 18, 78, 34, 94, 52, 20, 48)),
    ],
    "ballot": [
        ("rect", PAPER, (36, 10, 66, 48)),
        ("line", RED, (4, 42, 28, 49, 36)),
        ("line", RED, (4, 49, 36, 60, 18)),
        ("rect", BLUE, (8, 44, 92, 96)),
        ("rect", INK, (26, 50, 76, 55)),
        ("text", PAPER, (50, 76), "VOTE"),
    ],
    "guitar": [
        ("line", INK, (6, 56, 56, 88, 10)),
        ("oval", WOOD, (8, 56, 50, 98)),
        ("oval", WOOD, (32, 42, 68, 78)),
        ("oval", INK, (30, 58, 46, 74)),
    ],
    "eye": [
        ("poly", PAPER, (2, 52, 26, 28, 50, 20, 74, 28, 98, 52, 74, 76, 50, 84, 26, 76)),
        ("oval", BLUE, (30, 32, 70, 72)),
        ("oval", INK, (41, 43, 59, 61)),
    ],
    "magnifier": [
        ("line", WOOD, (9, 60, 62, 92, 94)),
        ("oval", INK, (6, 8, 70, 72)),
        ("oval", "#d8eef7", (14, 16, 62, 64)),
    ],
    "scales": [
        ("rect", INK, (47, 12, 53, 90)),
        ("rect", INK, (26, 90, 74, 98)),
        ("line", INK, (4, 12, 24, 88, 24)),
        *[("line", INK, (1.5, x, 24, x + dx, 58)) for x in (14, 86) for dx in (-12, 12)],
        ("half", GOLD, (0, 44, 28, 74), 0),
        ("half", GOLD, (72, 44, 100, 74), 0),
    ],
    "bird": [
        ("poly", GREEN, (20, 60, 2, 26, 30, 36)),
        ("oval", WOOD, (14, 36, 76, 86)),
        ("oval", WOOD, (56, 18, 86, 52)),
        ("poly", RED, (62, 20, 66, 6, 72, 16, 78, 6, 82, 22)),
        ("poly", GOLD, (84, 30, 98, 36, 84, 42)),
        ("oval", INK, (73, 27, 79, 33)),
        ("line", GOLD, (3, 40, 84, 40, 98)),
        ("line", GOLD, (3, 54, 84, 54, 98)),
    ],
    "chart": [
        ("rect", PAPER, (6, 18, 96, 94)),
        *[("rect", BLUE, (x, y, x + 12, 86)) for x, y in ((16, 66), (34, 56), (52, 62), (70, 44))],
        ("line", RED, (4, 16, 56, 38, 42)),
        ("line", RED, (4, 38, 42, 56, 48)),
        ("line", RED, (4, 56, 48, 86, 26)),
    ],
    "pill": [
        ("round", RED, (6, 44, 60, 68)),
        ("rect", PAPER, (33, 44, 48, 68)),
        ("round", PAPER, (36, 44, 60, 68)),
        ("oval", PAPER, (54, 66, 94, 94)),
        ("line", GREY, (2.5, 60, 80, 88, 80)),
    ],
    "bottle": [
        ("rect", PAPER, (36, 10, 64, 28)),
        ("round", "#b5651d", (28, 28, 72, 98)),
        ("rect", PAPER, (28, 48, 72, 80)),
        ("rect", RED, (46, 54, 54, 74)),
        ("rect", RED, (40, 60, 60, 68)),
    ],
    "cross": [
        ("round", PAPER, (12, 18, 88, 94)),
        ("rect", RED, (41, 30, 59, 82)),
        ("rect", RED, (24, 47, 76, 65)),
    ],
}
