"""Settings of the prompt."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter

from preprocessing.errors import UserError, require
from preprocessing.windows import FEATURES

TemplateValue = bool | int | float | str
"""A value that a chat template takes."""


@dataclass(frozen=True, kw_only=True)
class PromptConfig:
    """How a window is put into words."""

    style: str | None = None
    """`direct` asks for the numbers only, `spaced` says how to separate them, `reasoning` asks for
    <think>..</think><answer>[..]</answer>; or a style of your own: an entry point of grpo.prompts, package.module:name,
    file.py:name. null: `direct` for the embedded model, which was made for it, `spaced` for any other."""
    template: str | None = None
    """File with the text of the message, or the text itself, in place of the style's; it names {horizon}, {closes} and
    any feature in braces: {rsi}, {past_drift}."""
    chat_template_kwargs: dict[str, TemplateValue] = field(default_factory=dict)
    """Arguments of the model's chat template, the same in every stage; enable_thinking follows the style unless it is
    given here."""
    max_seq_length: int = 1024
    """Longest prompt plus completion, tokens; a longer prompt stops the run before training."""
    max_completion_length: int | None = None
    """Longest completion, tokens; null: enough for the answer, or 512 where it may think first."""

    def __post_init__(self) -> None:
        require(self.max_seq_length > 0, f"prompt.max_seq_length must be positive; got {self.max_seq_length}")
        # A usable text names {horizon}, so one without a brace can only be the name of a file.
        if self.template is not None and "{" not in self.template:
            # The text takes the place of the file's name, so that a run's config.yaml and an adapter's record hold the
            # prompt itself, whatever becomes of the file.
            object.__setattr__(self, "template", _read(Path(self.template)))
        if self.template is not None:
            template_fields(self.template)

    def for_model(self, *, embedded: bool) -> PromptConfig:
        """With a style, where none is given: the embedded model knows one wording only."""
        return self if self.style else replace(self, style="direct" if embedded else "spaced")


def template_fields(template: str) -> list[str]:
    """The features that a prompt's text names.

    Raises:
        UserError: it has no {horizon}, or names something that there is not.
    """
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise UserError(f"prompt.template: {error}; a brace that is meant as such is written twice") from error
    unknown = [name for name in names if name not in ("horizon", "closes", *FEATURES)]
    require(
        not unknown,
        f"prompt.template names {{{unknown[0] if unknown else ''}}}; there are horizon, closes, {', '.join(FEATURES)}",
    )
    require("horizon" in names, "prompt.template has no {horizon}, so it does not say how many days to forecast")
    return [name for name in dict.fromkeys(names) if name in FEATURES]


def _read(file: Path) -> str:
    require(file.is_file(), f"prompt.template: there is no file {file}, and a text would name {{horizon}}")
    try:
        text = file.read_text(encoding="utf-8").strip("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"prompt.template: {file} is no UTF-8 text") from error
    require("{" in text, f"prompt.template: {file} has no {{horizon}}, so it does not say how many days to forecast")
    return text
