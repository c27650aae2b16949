"""The grounds of the sample scenes, and what scenes are made of: lists of flat shapes.

A shape is `(kind, colour, numbers, …)` in a box of 100 × 100 units, `y` downwards. The numbers are x, y pairs; before a
line's stands its width, behind a star's its radius. A `half` may name the angle at which it starts (180, the upper
half, when it does not), a `text` has its letters and may have their height. `scenes.py` draws them.
"""

from __future__ import annotations

INK, PAPER, WOOD, SKIN = "#2b2d42", "#fdfcf7", "#a5713f", "#e8b88a"
RED, BLUE, GREEN, GOLD, GREY = "#d1495b", "#2e6f95", "#4f9d69", "#e9b44c", "#8d99ae"

Shape = tuple

GROUNDS: dict[str, list[Shape]] = {
    "day": [
        ("rect", "#bfe3f2", (0, 0, 100, 100)),
        ("oval", "#ffe08a", (76, 6, 94, 24)),
        ("oval", PAPER, (10, 12, 24, 22)),
        ("oval", PAPER, (18, 8, 36, 22)),
        ("rect", "#a9c77e", (0, 74, 100, 100)),
    ],
    "night": [
        ("rect", "#26345c", (0, 0, 100, 100)),
        ("oval", "#f4ecc8", (78, 6, 92, 20)),
        ("oval", "#26345c", (74, 4, 87, 17)),
        *[("oval", "#f4ecc8", (x, y, x + 1.2, y + 1.2)) for x, y in [(8, 10), (22, 20), (36, 7), (52, 16), (64, 9)]],
        ("rect", "#3f4c5a", (0, 74, 100, 100)),
    ],
    "snow": [
        ("rect", "#d5e3ee", (0, 0, 100, 100)),
        *[("oval", PAPER, (x, y, x + 2, y + 2)) for x, y in [(9, 9), (24, 22), (40, 8), (58, 18), (71, 7), (88, 20)]],
        ("rect", "#f7fafc", (0, 74, 100, 100)),
    ],
    "room": [
        ("rect", "#efe3d0", (0, 0, 100, 100)),
        ("rect", "#bfe3f2", (8, 8, 28, 30)),
        ("line", PAPER, (1.6, 18, 8, 18, 30)),
        ("line", PAPER, (1.6, 8, 19, 28, 19)),
        ("rect", "#c9a77c", (0, 74, 100, 100)),
        ("line", "#a98a62", (0.8, 0, 74, 100, 74)),
    ],
}
