"""What a guard model reads: a question and an answer in its own template."""

from __future__ import annotations

from typing import Any

from llava.errors import InputError
from llava.model.answering.prompts import neutralise, reserved_tokens
from llava.protector.guards.forms import GuardForm


class GuardPrompt:
    """Renders a question and an answer as a guard model was trained to read them."""

    def __init__(self, tokenizer: Any, form: GuardForm, name: str):
        """Find out how the template wants its turns.

        Args:
            tokenizer: The checkpoint's, with its chat template.
            form: The family.
            name: The model, for messages.

        Raises:
            InputError: When the chat template does not show both the question and the answer.
        """
        self.tokenizer = tokenizer
        self.form = form
        self.reserved = reserved_tokens(tokenizer)
        self.in_parts = not self.shows_both(in_parts=False)
        if self.in_parts and not self.shows_both(in_parts=True):
            raise InputError(f"guard model {name}: its chat template does not show question and answer; mend it")

    def render(self, prompt: str, text: str, options: dict[str, Any], *, in_parts: bool | None = None) -> str:
        """Return what the model reads; special tokens in question and answer are broken up.

        Args:
            prompt: The question.
            text: The answer.
            options: Arguments of the chat template, one of the form's `questions`.
            in_parts: Whether the template wants the content of a turn in parts; None takes what was found out.
        """
        prompt, text = neutralise(prompt, self.reserved), neutralise(text, self.reserved)
        if self.form.template is not None:
            # One pass: a question that holds `{text}` is no place for the answer.
            return self.form.template.format(prompt=prompt, text=text)
        parts = self.in_parts if in_parts is None else in_parts
        turns = [
            {"role": role, "content": [{"type": "text", "text": content}] if parts else content}
            for role, content in (("user", prompt), ("assistant", text))
        ]
        return self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **options)

    def shows_both(self, *, in_parts: bool) -> bool:
        """Tell whether the template shows both turns; those of vision models want their content in parts."""
        from jinja2 import TemplateError

        try:
            rendered = self.render("PROBE-1", "PROBE-2", self.form.questions[0], in_parts=in_parts)
        except (TemplateError, TypeError):
            return False
        return "PROBE-1" in rendered and "PROBE-2" in rendered
