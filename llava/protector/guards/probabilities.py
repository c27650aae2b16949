"""Reading what a server answers that classifies: probabilities, and nothing that could pass for one."""

from __future__ import annotations

import math

from llava.errors import InputError
from llava.fields import Fields
from llava.files import parse_json
from llava.protector.config import parse_label
from llava.protector.guards.base import read_score


def read_probabilities(text: str, count: int, where: str) -> list[float]:
    """Return the harm scores in an answer of `/classify`; NaN for a text that the server says it failed at.

    Args:
        text: The answer.
        count: How many texts were asked about.
        where: For messages.

    Raises:
        InputError: When it is anything else than one entry of finite probabilities for each text.
    """
    remedy = "check that the server classifies"
    entries = Fields(parse_json(text, where, remedy), where, remedy).items("data")
    fields = [Fields(entry, where, remedy) for entry in entries]
    found = {entry.integer("index", least=0, most=max(0, count - 1)): entry for entry in fields}
    if len(entries) != count or len(found) != count:
        raise InputError(f"{where} has {len(entries)} entries for {count} texts; {remedy}")
    return [read_entry(found[place]) for place in range(count)]


def read_entry(entry: Fields) -> float:
    """Return the harm score of one entry.

    A network of one class gives the probability of what its label says, one of two classes that of both, with the label
    of the more probable one. A label that says neither harmful nor safe leaves the meaning open.

    Raises:
        InputError: When it is none.

    Example:
        >>> read_entry(Fields({"label": "safe", "probs": [0.75, 0.25]}, "answer"))
        0.25
        >>> read_entry(Fields({"label": "harmful", "probs": [0.125]}, "answer"))
        0.125
    """
    if entry.values.get("failure") is not None:
        return math.nan
    values = entry.items("probs")
    probabilities = [read_score(value) for value in values]
    if len(values) not in (1, 2) or any(map(math.isnan, probabilities)):
        raise entry.refuse("probs", "one or two probabilities")
    label = entry.text("label")
    meaning = parse_label(label)
    if meaning is None or (len(values) == 2 and label.startswith("LABEL_")):
        raise entry.refuse("label", "a label that says harmful or safe")
    if len(values) == 2 and not math.isclose(sum(probabilities), 1.0, abs_tol=1e-2):
        raise entry.refuse("probs", "two probabilities that add up to 1")
    likeliest = max(probabilities)
    return likeliest if meaning == "harmful" else 1.0 - likeliest
