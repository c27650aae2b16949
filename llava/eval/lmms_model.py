"""Models for lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval, 0.7 and later): guarded, and as they are.

The names `mllm_protector` and `mllm_protector_unguarded` come with this package's entry point, so any task of lmms-eval
runs with and without the protector, and the difference is what the protector costs there:

    python -m lmms_eval --model mllm_protector --model_args pretrained=MODEL,detector=D,detoxifier=X --tasks mme ...
    python -m lmms_eval --model mllm_protector_unguarded --model_args pretrained=MODEL --tasks mme ...
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llava.data.schema import RecordKey
from llava.errors import InputError
from llava.eval.run.planning import derive_seed
from llava.model.options import LOAD_OPTIONS, LoadOptions, take_options

try:
    from lmms_eval.api.model import lmms as Base  # noqa: N812 - the library's own name
except ImportError:
    # The module is read where lmms-eval is not installed, too; only making a model needs it.
    Base = object

if TYPE_CHECKING:
    from llava.protector.protector import Protector

DEFAULT_MAX_NEW_TOKENS = 1024
UNSUPPORTED = {"num_beams": 1, "top_p": 1.0, "top_k": 50}
"""Generation settings that are not passed on, with the values at which that changes nothing."""

logger = logging.getLogger(__name__)


class UnguardedModel(Base):  # type: ignore[misc, valid-type, unused-ignore]
    """A multimodal model as it is, behind lmms-eval's interface for `simple` models."""

    is_simple = True

    def __init__(
        self,
        pretrained: str = "embedded",
        batch_size: int | str | None = 1,
        seed: int = 0,
        max_batch_size: int | None = None,
        **options: Any,
    ):
        """Load the model; the arguments come from `--model_args`, except the first three options of lmms-eval itself.

        Args:
            pretrained: Model: `embedded`, a folder or a hub id.
            batch_size: Questions that go through the model together; `auto` follows the device's memory.
            seed: Seed of sampling; each question derives its own from it.
            max_batch_size: Upper limit of `batch_size`.
            options: Fields of `LoadOptions` by name, such as `device`, `dtype` and `load_in_4bit`.

        Raises:
            InputError: When lmms-eval is not installed, an argument is unknown, or the model cannot be loaded.
        """
        if Base is object:
            raise InputError(
                "lmms-eval is not installed; pip install lmms-eval (see docs/evaluation.md for CPU machines)"
            )
        super().__init__()
        from accelerate import Accelerator

        from llava.model.embedded.stack import resolve_mllm
        from llava.model.loading import load_mllm

        self.accelerator = Accelerator()
        self._rank = self.accelerator.process_index
        self._world_size = self.accelerator.num_processes
        self.model = load_mllm(resolve_mllm(pretrained), read_options(options))
        self.batch_size = min(resolve_batch_size(batch_size, self.model.model), int(max_batch_size or 1 << 30))
        self.seed = seed

    @property
    def device(self) -> Any:
        """Where lmms-eval puts what it exchanges between processes."""
        return self.model.device

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer requests in batches of the same generation settings.

        Args:
            requests: lmms-eval's instances, each with `args` = (context, settings, doc_to_visual, doc id, task, split).

        Returns:
            One answer a request, in order.

        Raises:
            InputError: When a question has several pictures, or something that is no picture.
        """
        from tqdm import tqdm

        groups: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(place)
        answers = [""] * len(requests)
        with tqdm(total=len(requests), disable=self.rank != 0, desc="answer") as bar:
            for places in groups.values():
                places.sort(key=lambda place: -len(requests[place].args[0]))
                for start in range(0, len(places), self.batch_size):
                    batch = places[start : start + self.batch_size]
                    for place, answer in zip(batch, self.answer([requests[p] for p in batch]), strict=True):
                        answers[place] = answer
                    bar.update(len(batch))
        return answers

    def answer(self, requests: Sequence[Any]) -> list[str]:
        """Answer one batch; all its requests have the same generation settings."""
        settings = requests[0].args[1]
        prompts = [strip_placeholder(request.args[0]) for request in requests]
        temperature = read_temperature(settings)
        seeds = [
            derive_seed(self.seed, RecordKey(task, split, str(doc), str(request.idx)))
            for request in requests
            for _, _, _, doc, task, split in [request.args]
        ]
        max_new_tokens = int(settings.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS))
        responses = self.model.generate(
            prompts,
            [self.open_visual(*request.args[2:]) for request in requests],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seeds=seeds if temperature > 0 else None,
        )
        return self.guard(prompts, [cut_at(text, settings.get("until")) for text in responses], max_new_tokens)

    def guard(self, prompts: list[str], responses: list[str], max_new_tokens: int) -> list[str]:
        """Return what the user sees; here, what the model said."""
        return responses

    def open_visual(self, doc_to_visual: Any, doc: Any, task: str, split: str) -> Any:
        """Return the picture of a question, or None where it has none."""
        from PIL import Image

        visuals = doc_to_visual(self.task_dict[task][split][doc]) or []
        if not visuals:
            return None
        if len(visuals) > 1 or not isinstance(visuals[0], Image.Image):
            raise InputError(
                f"task {task} shows {len(visuals)} visuals in one question; one picture at most can be asked"
            )
        return visuals[0].convert("RGB")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: a protector looks at one answer, not at a dialogue."""
        raise InputError("tasks of several rounds cannot be run; choose tasks with output_type generate_until")

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Refuse: a likelihood has no answer that could be guarded."""
        raise InputError("tasks that score likelihoods cannot be run; choose tasks with output_type generate_until")


class GuardedModel(UnguardedModel):
    """The same model with the protector behind it."""

    def __init__(
        self,
        pretrained: str = "embedded",
        batch_size: int | str | None = 1,
        detector: str = "embedded",
        detoxifier: str | None = "embedded",
        threshold: float | None = None,
        detector_base: str | None = None,
        detoxifier_base: str | None = None,
        trim: bool = True,
        share_backbone: bool | None = None,
        **options: Any,
    ):
        """Load model, detector and detoxifier.

        Args:
            pretrained: Model: `embedded`, a folder or a hub id.
            batch_size: Questions that go through the model together, or `auto`.
            detector: Any guard, see `llava.build_guard`; lmms-eval splits its arguments at commas, so those of several
                guards are separated by semicolons: `any(embedded; guard:PATH)`.
            detoxifier: `embedded`, a folder or a hub id; `none` replaces a flagged answer by a fixed refusal.
            threshold: Harm score from which an answer is flagged; None takes the detector's own.
            detector_base: Base model of the detector's adapter instead of the one that it names.
            detoxifier_base: The same for the detoxifier.
            trim: Whether harmful sentences are cut out before an answer is rewritten as a whole.
            share_backbone: Whether detector and detoxifier use the weights of the model's own language model; None lets
                them where it is their base.
            options: See `UnguardedModel`.

        Raises:
            InputError: When one of the three cannot be loaded.
        """
        super().__init__(pretrained, batch_size, **options)
        from llava.model.backbone import offer_backbone
        from llava.protector.protector import Protector

        self.protector: Protector = Protector.from_pretrained(
            detector,
            None if detoxifier in (None, "none", "") else detoxifier,
            threshold,
            device=options.get("device"),
            dtype=options.get("dtype", "auto"),
            detector_base=detector_base,
            detoxifier_base=detoxifier_base,
            trim=trim,
            backbone=offer_backbone(self.model, share_backbone),
        )
        self.actions: Counter[str] = Counter()
        """How often the protector did what, so far."""

    def guard(self, prompts: list[str], responses: list[str], max_new_tokens: int) -> list[str]:
        """Return the protector's text for each response, and count what it did; a rewrite keeps the task's limit."""
        results = self.protector.guard(prompts, responses, max_new_tokens)
        self.actions.update(result.action.value for result in results)
        return [result.text for result in results]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answer and guard requests, and log how many answers the protector changed."""
        answers = super().generate_until(requests)
        logger.warning("protector: %s", ", ".join(f"{action} {count}" for action, count in self.actions.items()))
        return answers


def read_options(values: dict[str, Any]) -> LoadOptions:
    """Return how a model is loaded, from what `--model_args` brings beside our own arguments.

    Raises:
        InputError: When one of them is no option.
    """
    unknown = sorted(set(values) - set(LOAD_OPTIONS))
    if unknown:
        raise InputError(f"--model_args has {unknown[0]}, which is unknown; known are {', '.join(LOAD_OPTIONS)}")
    return take_options(values)


def resolve_batch_size(batch_size: int | str | None, model: Any) -> int:
    """Return the rows of a batch: as asked, or what `auto` stands for."""
    from llava.eval.run.environment import choose_batch_size

    if batch_size is None or str(batch_size).startswith("auto"):
        return choose_batch_size(model.device, model.get_memory_footprint())
    return int(batch_size)


def strip_placeholder(context: str) -> str:
    """Return a question without the `<image>` that some tasks put into their text; the model's template has its own.

    Example:
        >>> strip_placeholder("<image>\\nWhat is it?"), strip_placeholder("What is it?")
        ('What is it?', 'What is it?')
    """
    return context.replace("<image>", "").strip()


def read_temperature(settings: dict[str, Any]) -> float:
    """Return the sampling temperature, 0 for greedy, and warn of settings that are not followed."""
    temperature = float(settings.get("temperature") or 0.0)
    if settings.get("do_sample") is False:
        temperature = 0.0
    for name, neutral in UNSUPPORTED.items():
        value = settings.get(name)
        if value not in (None, neutral) and (name == "num_beams" or temperature > 0):
            logger.warning("generation setting %s=%s is not followed", name, value)
    return temperature


def cut_at(response: str, until: str | Sequence[str] | None) -> str:
    """Return a response up to the first of the task's stop strings.

    Example:
        >>> cut_at("Yes.\\n\\nNo.", ["\\n\\n"]), cut_at("Yes.", None)
        ('Yes.', 'Yes.')
    """
    for stop in [until] if isinstance(until, str) else until or ():
        response = response.partition(stop)[0] if stop else response
    return response


def list_manifests() -> list[Any]:
    """Return what lmms-eval's entry point `lmms_eval.models` wants: our names and their classes."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return [
        ModelManifest("mllm_protector", simple_class_path=f"{__name__}.GuardedModel"),
        ModelManifest("mllm_protector_unguarded", simple_class_path=f"{__name__}.UnguardedModel"),
    ]
