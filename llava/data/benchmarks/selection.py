"""Which questions of a benchmark are asked: scenarios, image types and a limit, the same for every benchmark."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llava.data.schema import ImageType, Question
from llava.errors import InputError
from llava.places import file_exists


@dataclass(frozen=True)
class Benchmark:
    """The questions of one benchmark, in a stable order, ready to be asked."""

    name: str
    """Name of the benchmark, as in `Question.benchmark`."""
    questions: list[Question]
    """What is asked. Every image file named here exists."""
    missing_images: list[str] = field(default_factory=list)
    """Image files that the benchmark names but that are not there; their questions are left out."""
    notes: list[str] = field(default_factory=list)
    """What the user should know about this set, one sentence each ("50 images were rendered …")."""


@dataclass(frozen=True)
class Selection:
    """A user's choice of questions."""

    scenarios: tuple[str, ...] | None = None
    """Scenario names as the user wrote them; None for all. See `choose_scenarios` for what is accepted."""
    image_types: tuple[ImageType, ...] | None = None
    """Image types; None for all."""
    limit: int | None = None
    """Most questions to ask; None for all."""

    @classmethod
    def parse(
        cls,
        scenarios: Sequence[str] | None = None,
        image_types: Sequence[str | ImageType] | None = None,
        limit: int | None = None,
    ) -> Selection:
        """Build a selection from what a user wrote; empty sequences mean "all".

        Raises:
            InputError: For an unknown image type or a limit below 1.

        Example:
            >>> Selection.parse(image_types=["sd_typo"]).image_types
            (<ImageType.SD_TYPO: 'SD_TYPO'>,)
        """
        if limit is not None and limit < 1:
            raise InputError(f"limit must be at least 1, not {limit}; leave it out to ask all questions")
        types = tuple(dict.fromkeys(_parse_image_type(name) for name in image_types or ()))
        return cls(tuple(scenarios or ()) or None, types or None, limit)

    def choose_scenarios(self, known: Sequence[str], benchmark: str) -> list[str]:
        """Return the scenarios of `known` that were chosen, in the order of `known`.

        A scenario is accepted by its full name in any case, or by the number in front of it: `06-Fraud` is also
        `06` and `6`.

        Args:
            known: The benchmark's scenarios.
            benchmark: Its name, for the error message.

        Raises:
            InputError: For a scenario that the benchmark does not have.

        Example:
            >>> Selection(scenarios=("6", "02-hatespeech")).choose_scenarios(["02-HateSpeech", "06-Fraud"], "mine")
            ['02-HateSpeech', '06-Fraud']
        """
        if self.scenarios is None:
            return list(known)
        chosen = set()
        for asked in self.scenarios:
            match = next((name for name in known if _is_scenario(asked, name)), None)
            if match is None:
                raise InputError(f"benchmark {benchmark} has no scenario {asked!r}; it has {', '.join(known)}")
            chosen.add(match)
        return [name for name in known if name in chosen]

    def filter(self, questions: Sequence[Question], benchmark: str) -> list[Question]:
        """Keep the questions of the chosen scenarios and image types, in order.

        Raises:
            InputError: For an unknown scenario, or when no question is left.
        """
        scenarios = set(self.choose_scenarios(list(dict.fromkeys(q.scenario for q in questions)), benchmark))
        kept = [
            question
            for question in questions
            if question.scenario in scenarios and (self.image_types is None or question.image_type in self.image_types)
        ]
        if not kept:
            there = ", ".join(dict.fromkeys(q.image_type.value for q in questions if q.scenario in scenarios))
            raise InputError(
                f"benchmark {benchmark} has no question of the image types asked for; it has {there or 'no question'}"
            )
        return kept

    def take(self, questions: Sequence[Question]) -> list[Question]:
        """Hold the limit so that few questions still show the whole benchmark.

        The limit counts questions as they are asked (one model answer each), so a text in four image types counts
        four. They are drawn in turn from the scenarios, and each turn moves on to the next image type: eight
        questions of MM-SafetyBench come from eight scenarios and hold every image type twice. A larger limit only
        adds questions, it never drops one.

        Returns:
            At most `limit` questions, in their original order.
        """
        if self.limit is None or self.limit >= len(questions):
            return list(questions)
        chosen = {question.key for question in _in_turn(questions)[: self.limit]}
        return [question for question in questions if question.key in chosen]


def leave_out_missing(questions: Sequence[Question], benchmark: str, remedy: str) -> tuple[list[Question], list[str]]:
    """Part the questions whose image file is there from the image files that are not.

    Args:
        questions: Questions whose `image` may name a file that does not exist.
        benchmark: The benchmark's name, for the error message.
        remedy: What the user can do, for the error message.

    Returns:
        The questions that can be asked, and the missing image files without repeats.

    Raises:
        InputError: When all images of an image type are missing.
    """
    exists = {image: file_exists(image) for image in {q.image for q in questions} if image is not None}
    present = [q for q in questions if q.image is None or exists[q.image]]
    missing = list(dict.fromkeys(q.image for q in questions if q.image is not None and not exists[q.image]))
    asked, found = ({q.image_type for q in some if q.image is not None} for some in (questions, present))
    if lacking := asked - found:
        kinds = [kind for kind in ImageType if kind in lacking]
        absent = list(dict.fromkeys(q.image for q in questions if q.image is not None and q.image_type in lacking))
        which = "" if lacking == asked else f"{' and '.join(kind.value for kind in kinds)} "
        rest = [kind.value for kind in ImageType if kind in {q.image_type for q in present}]
        choice = f"; or ask the others alone with --image-types {','.join(rest)}" if rest else ""
        raise InputError(
            f"benchmark {benchmark}: all {len(absent)} {which}images are missing, such as {absent[0]}; {remedy}{choice}"
        )
    return present, missing


def _in_turn(questions: Iterable[Question]) -> list[Question]:
    """Order questions by turns over scenarios, moving on by one image type at each scenario and each turn."""
    queues: dict[str, dict[ImageType, deque[Question]]] = defaultdict(lambda: defaultdict(deque))
    for question in questions:
        queues[question.scenario][question.image_type].append(question)
    ordered: list[Question] = []
    turn = 0
    while queues:
        for place, (scenario, by_type) in enumerate(list(queues.items())):
            kinds = list(by_type)
            kind = kinds[(place + turn) % len(kinds)]
            ordered.append(by_type[kind].popleft())
            if not by_type[kind]:
                del by_type[kind]
            if not by_type:
                del queues[scenario]
        turn += 1
    return ordered


def _is_scenario(asked: str, name: str) -> bool:
    """Say whether `asked` names the scenario `name`: in full, in any case, or by its number."""
    if asked.strip().casefold() == name.casefold():
        return True
    number, dash, _ = name.partition("-")
    return bool(dash) and number.isdecimal() and asked.strip().isdecimal() and int(asked) == int(number)


def _parse_image_type(name: str | ImageType) -> ImageType:
    """Return the image type called `name`, in any case."""
    try:
        return ImageType(name.strip().upper() if isinstance(name, str) else name)
    except ValueError:
        known = ", ".join(kind.value for kind in ImageType)
        raise InputError(f"unknown image type {name!r}; choose from {known}") from None
