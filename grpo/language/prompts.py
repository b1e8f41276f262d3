"""Prompt styles: how a window is put into words, and the form of the answer that it asks for. No torch.

A style is found by its name: `direct`, `spaced` or `reasoning`, a name in the entry-point group `grpo.prompts`,
`package.module:name` or `file.py:name`. Its text names {horizon}, {closes} and any feature of `grpo.language.features`
in braces; `prompt.template` puts another text in its place.

Letters: B windows, L window length, H horizon.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from grpo.evaluation.plugins import PluginError
from grpo.language.answers import AnswerForm, Numbers, ThoughtAndNumbers
from grpo.language.config import PromptConfig, template_fields
from grpo.language.features import prompt_numbers, whole
from grpo.language.plugins import find_plugin
from grpo.language.scale import to_levels
from preprocessing.errors import UserError
from preprocessing.windows import Context

Messages = list[dict[str, str]]

ENTRY_POINTS = "grpo.prompts"

# The embedded model was made for the wording of `direct`, to the letter: changing it, or the order of the numbers in
# TEMPLATE, means making that model anew.
INSTRUCTIONS: dict[str, str] = {
    "direct": (
        "Forecast the next {horizon} daily closes of a stock. Scale: the last close is 500, 10 points are one daily "
        "standard deviation. Answer with {horizon} integers and nothing else."
    ),
    "spaced": (
        "Forecast the next {horizon} daily closes of a stock. Scale: the last close is 500, 10 points are one daily "
        "standard deviation. Answer with {horizon} integers, separated by single spaces, and nothing else."
    ),
    "reasoning": (
        "Forecast the next {horizon} daily closes of a stock. Scale: the last close is 500, 10 points are one daily "
        "standard deviation. Think about trend, volatility and mean reversion first, inside <think> and </think>. "
        "Then give one possible path of the {horizon} closes as <answer>[{horizon} integers, separated by commas]"
        "</answer> and nothing else."
    ),
}
TEMPLATE = (
    "sma {sma} ema {ema} mom {mom} rsi {rsi} macd {macd} willr {willr} cci {cci} adx {adx} "
    "bbands {bbands_upper} {bbands_middle} {bbands_lower} stoch {stoch_k} {stoch_d}\n"
    "min {min} day {min_timestep} max {max} day {max_timestep} mean {mean} median {median} day {median_timestep} "
    "trend {trend} lags {top_lag_1} {top_lag_1_correlation} {top_lag_2} {top_lag_2_correlation} "
    "{top_lag_3} {top_lag_3_correlation} volatility {volatility}\n"
    "past mean {past_mean} sd {past_std} ar1 {past_ar1} volatility {past_volatility} drift {past_drift}"
)


@dataclass(frozen=True, kw_only=True)
class PromptStyle:
    """How a window is asked about.

    Attributes:
        template: the message's text, with {horizon}, {closes} and features in braces.
        form: of the answer.
        source: hash of the code that the style comes from; None for this package's own.

    Raises:
        UserError: the text has no {horizon}, or names something that there is not.
    """

    template: str
    form: AnswerForm
    # Two styles that ask the same question are equal, wherever their code lies.
    source: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        template_fields(self.template)

    def render(self, context: Context, horizon: int) -> list[Messages]:
        """One user message per window, for any chat template."""
        names = template_fields(self.template)
        values = {name: column.tolist() for name, column in prompt_numbers(context, names).items()}
        # The prefix alone, so that {closes!s} and {closes:>40} are found too.
        if "{closes" in self.template:
            volatility, last = context.feature("volatility"), context.last_price
            closes = whole(to_levels(context.past[:, :, 0], last[:, None], volatility[:, None]))  # [B, L]
            values["closes"] = [" ".join(map(str, row)) for row in closes]
        # Columns to one dictionary per window, which is what str.format takes.
        rows = [{name: column[row] for name, column in values.items()} for row in range(len(context))]
        return [[{"role": "user", "content": self.template.format(horizon=horizon, **row)}] for row in rows]


def _style(name: str, form: AnswerForm) -> PromptStyle:
    return PromptStyle(template=f"{INSTRUCTIONS[name]}\ncloses {{closes}}\n{TEMPLATE}\nnext {{horizon}}", form=form)


STYLES: dict[str, PromptStyle] = {
    "direct": _style("direct", Numbers(may_use_commas=False)),
    "spaced": _style("spaced", Numbers()),
    "reasoning": _style("reasoning", ThoughtAndNumbers()),
}


def find_style(name: str) -> PromptStyle:
    """The prompt style of a name.

    Raises:
        PluginError: there is none, or what the name stands for is no style.
    """
    try:
        plugin = find_plugin(name, kind="prompt style", group=ENTRY_POINTS, own=STYLES)
    # A PluginError is a UserError too, and its message already names the style.
    except PluginError:
        raise
    except UserError as error:  # a style of one's own with an unusable text, as its file is loaded
        raise PluginError(f"prompt style '{name}': {error}") from error
    if not isinstance(plugin.value, PromptStyle):
        raise PluginError(f"prompt style '{name}' is a {type(plugin.value).__name__}, not a PromptStyle")
    return replace(plugin.value, source=plugin.source)


def style_of(prompt: PromptConfig) -> PromptStyle:
    """The style that settings ask for, with their own text if they give one.

    Raises:
        PluginError: there is no such style.
    """
    style = find_style(prompt.style or "direct")
    return style if prompt.template is None else replace(style, template=prompt.template)
