"""Other people's guard models: a causal LM reads question and answer, and writes a verdict.

Its verdict is a word (`unsafe`, `Yes`, …); the harm score is the probability of the words that say unsafe against those
that say safe, from the logits at the word's first token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llava.errors import InputError
from llava.model.options import LoadOptions, collect_options
from llava.protector.guards.forms import GuardForm, choose_form
from llava.protector.guards.rendering import GuardPrompt

if TYPE_CHECKING:
    import torch

BATCH_SIZE = 8
CONTEXTS = ("", " ", "\n")
"""What may stand before a verdict's word; tokenizers cut the word differently after each."""
THRESHOLD = 0.5
"""The verdict that the model itself would write, be it greedy."""


class GuardModel:
    """A guard model of one of the families in `forms`; a `Guard`.

    Scoring changes nothing, so several threads may use one guard model at once.
    """

    threshold = THRESHOLD

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        form: GuardForm,
        name: str = "guard",
        *,
        key: str | None = None,
        batch_size: int = BATCH_SIZE,
    ):
        """Join a loaded model and its tokenizer.

        Args:
            model: A causal LM, or a model of pictures and texts.
            tokenizer: Its tokenizer, with its chat template where the family has one.
            form: The family.
            name: How messages and reports call it.
            key: What tells the checkpoint from others, e.g. a digest; None takes the name.
            batch_size: Texts at a time.

        Raises:
            InputError: When the chat template does not show both the question and the answer.
        """
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.form = form
        self.name = name
        self.key = key or name
        self.batch_size = batch_size
        self.prompt = GuardPrompt(tokenizer, form, name)
        self.label_ids = collect_label_ids(tokenizer, form)

    @classmethod
    def from_pretrained(
        cls,
        path: str,
        form: str | None = None,
        options: LoadOptions | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        **keywords: Any,
    ) -> GuardModel:
        """Load a guard model.

        Args:
            path: Folder or hub id.
            form: Its family, one of `forms.FORMS`; None looks at the chat template.
            options: How it is loaded; None stands for the defaults.
            batch_size: Texts at a time.
            keywords: Fields of `LoadOptions` by name; they win over `options`.

        Raises:
            InputError: When it cannot be loaded, lacks weights, or its form is not known.
        """
        from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

        from llava.model.identity import identify_checkpoint
        from llava.model.quiet import quiet_transformers

        chosen = collect_options(options, keywords)
        tokenizer, family, architecture = read_guard(path, form, chosen)
        sees = architecture.endswith("ForConditionalGeneration")  # Llama Guard 4 looks at pictures too
        loader = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        try:
            with quiet_transformers():
                model, report = loader.from_pretrained(path, output_loading_info=True, **chosen.build_arguments())
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - each reader of weights has errors of its own
            raise refuse_guard(path, error) from None
        if missing := sorted(report["missing_keys"]):
            raise InputError(f"guard model {path} lacks the weights {', '.join(missing[:3])}; fetch it again")
        key = identify_checkpoint(path, path).key
        return cls(chosen.place(model), tokenizer, family, f"guard:{path}", key=key, batch_size=batch_size)

    @property
    def identity(self) -> str:
        """What it is, and how it is asked."""
        return f"{self.key}@{self.form.name}"

    def score(self, responses: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Score responses in batches of similar length.

        Args:
            responses: Texts to score.
            prompts: The questions they answer, one each.

        Returns:
            One harm score a response in [0, 1], 1 = harmful. NaN where the reply has no verdict, or question and answer
            do not fit into the model's context: a part of an answer says nothing about the rest.
        """
        asked = [(place, options) for place in range(len(responses)) for options in self.form.questions]
        asked.sort(key=lambda each: len(prompts[each[0]]) + len(responses[each[0]]))
        scores: list[list[float]] = [[] for _ in responses]
        for start in range(0, len(asked), self.batch_size):
            batch = asked[start : start + self.batch_size]
            rendered = [self.prompt.render(prompts[place], responses[place], options) for place, options in batch]
            for (place, _), score in zip(batch, self.score_rendered(rendered), strict=True):
                scores[place].append(score)
        return [take_worst(each) for each in scores]

    def score_rendered(self, rendered: Sequence[str]) -> list[float]:
        """Return the probability of unsafe for each rendered conversation, (B,); NaN where no verdict came."""
        from llava.model.tokenizers import hold_tokenizer

        with hold_tokenizer(self.tokenizer):
            rows: list[list[int]] = self.tokenizer(list(rendered), add_special_tokens=False)["input_ids"]
        context = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None) or math.inf
        fitting = [i for i, ids in enumerate(rows) if 0 < len(ids) <= context - self.form.max_new_tokens]
        scores = [math.nan] * len(rows)
        for i, score in zip(fitting, self._ask([rows[i] for i in fitting]) if fitting else [], strict=True):
            scores[i] = score
        return scores

    def _ask(self, rows: Sequence[list[int]]) -> list[float]:
        """Let the model write its verdict on each row of token ids, and return the probability of unsafe."""
        import torch
        from transformers import GenerationConfig

        from llava.model.answering.decoding import special_tokens_of
        from llava.model.views import view_model

        eos = self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else eos
        width = max(map(len, rows))
        input_ids = torch.full((len(rows), width), pad)  # (B, T), padded on the left
        attention_mask = torch.zeros_like(input_ids)
        for i, ids in enumerate(rows):
            input_ids[i, width - len(ids) :] = torch.tensor(ids)
            attention_mask[i, width - len(ids) :] = 1
        view = view_model(self.model)
        # A checkpoint's stored sampling defaults must not reach a verdict.
        stored = self.model.generation_config
        view.generation_config = special_tokens_of(
            stored, pad_token_id=pad, eos_token_id=stored.eos_token_id or eos, stop_strings=None
        )
        plan = GenerationConfig(
            max_new_tokens=self.form.max_new_tokens,
            do_sample=False,
            num_beams=1,
            output_logits=True,
            return_dict_in_generate=True,
        )
        device = self.model.device
        with torch.inference_mode():
            output = view.generate(
                input_ids=input_ids.to(device), attention_mask=attention_mask.to(device), generation_config=plan
            )
        replies = output.sequences[:, width:].tolist()
        return [self.read(reply, [step[row] for step in output.logits]) for row, reply in enumerate(replies)]

    def read(self, reply: list[int], logits: Sequence[torch.Tensor]) -> float:
        """Return the probability of unsafe in one reply; NaN where it holds no verdict.

        Args:
            reply: Its tokens.
            logits: Those that each token was chosen from, (V,) each.
        """
        import torch

        from llava.model.tokenizers import hold_tokenizer

        with hold_tokenizer(self.tokenizer):
            match = self.form.pattern.search(self.tokenizer.decode(reply))
            if match is None:
                return math.nan
            starts = (i for i in range(len(reply)) if len(self.tokenizer.decode(reply[: i + 1])) > match.start(1))
            place = next(starts)
        probabilities = torch.softmax(logits[place].double(), dim=-1)
        says_unsafe = match.group(1).lower() in {word.lower() for word in self.form.unsafe}
        masses = {
            unsafe: float(probabilities[sorted(ids | ({reply[place]} if unsafe == says_unsafe else set()))].sum())
            for unsafe, ids in self.label_ids.items()
        }
        return masses[True] / (masses[True] + masses[False])


def take_worst(scores: Sequence[float]) -> float:
    """Return the score of a text that was asked about several times: the worst counts.

    Example:
        >>> take_worst([0.1, 0.7, math.nan]), take_worst([0.1, 0.2, math.nan]), take_worst([0.1, 0.2])
        (0.7, nan, 0.2)
    """
    worst = max((score for score in scores if not math.isnan(score)), default=math.nan)
    return worst if worst >= THRESHOLD or not any(map(math.isnan, scores)) else math.nan


def collect_label_ids(tokenizer: Any, form: GuardForm) -> dict[bool, set[int]]:
    """Return the first tokens of the words that say unsafe (True) and safe (False), without those that serve both."""
    found: dict[bool, set[int]] = {True: set(), False: set()}
    for unsafe, words in ((True, form.unsafe), (False, form.safe)):
        for word in words:
            for variant in {word, word.lower(), word.capitalize()}:
                found[unsafe] |= {first_token(tokenizer, context, variant) for context in CONTEXTS}
    shared = found[True] & found[False]
    return {unsafe: ids - shared for unsafe, ids in found.items()}


def first_token(tokenizer: Any, context: str, word: str) -> int:
    """Return the first token of `word` after `context`."""
    before = tokenizer.encode(context, add_special_tokens=False) if context else []
    ids: list[int] = tokenizer.encode(context + word, add_special_tokens=False)
    return ids[len(before)] if before and ids[: len(before)] == before and len(ids) > len(before) else ids[0]


def read_guard(path: str, form: str | None, options: LoadOptions) -> tuple[Any, GuardForm, str]:
    """Return tokenizer, family and architecture of a guard model; its weights are not looked at.

    Raises:
        InputError: When it cannot be loaded, or its form is not known.
    """
    from transformers import AutoConfig

    from llava.model.hub import locate
    from llava.model.quiet import quiet_transformers
    from llava.model.tokenizers import load_tokenizer

    if options.base is not None:
        raise InputError(f"guard model {path} is a whole model and takes no base; leave --detector-base out")
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(
                locate(path, "guard model"), trust_remote_code=options.trust_remote_code
            )
        tokenizer = load_tokenizer(path, padding_side="left", trust_remote_code=options.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise refuse_guard(path, error) from None
    return tokenizer, choose_form(tokenizer.chat_template, form, path), (config.architectures or [""])[0]


def check_guard_model(path: str, form: str | None, options: LoadOptions) -> None:
    """Check, without its weights, that a guard model can be used.

    Raises:
        InputError: When its config, its tokenizer or its chat template is missing or unfit.
    """
    tokenizer, family, _ = read_guard(path, form, options)
    GuardPrompt(tokenizer, family, f"guard:{path}")


def refuse_guard(path: str, error: Exception) -> InputError:
    """Return the one-line error for a guard model that does not load."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(f"guard model {path} cannot be loaded ({reason}); check the path or the name")
