"""A language model behind an OpenAI-compatible server (vLLM, for example) as a forecaster. No torch.

    vllm serve BASE --enable-lora --max-lora-rank 32 --lora-modules aapl=ADAPTER
    python -m grpo.predict --endpoint http://localhost:8000/v1 --served-model aapl --adapter ADAPTER --csv AAPL.csv

The adapter folder given to `grpo.predict` says only how prompts are worded; the weights are the server's. Prompts
and answers go through the same code as everywhere else, so a served model is held to the same contract.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

from grpo.evaluation.protocol import Forecast
from grpo.language.answers import CUT_OFF, THOUGHT_TOKENS, answers_to_forecast
from grpo.language.config import PromptConfig
from grpo.language.prompts import Messages, style_of
from preprocessing.errors import UserError
from preprocessing.files import JsonObject
from preprocessing.seeds import integers
from preprocessing.windows import Context

SAMPLES_PER_REQUEST = 64
"""Servers bound the number of answers to one request."""
TIMEOUT_SECONDS = 600


class EndpointError(UserError):
    """The server cannot be reached or refuses; the message names its address and what it said."""


class EndpointForecaster:
    """Samples answers from a server that speaks OpenAI's chat completions.

    Args:
        endpoint: address up to the version, for example `http://localhost:8000/v1`.
        served_model: the name under which the server offers the model or adapter.
        prompt: style and lengths.
    """

    def __init__(self, endpoint: str, served_model: str, prompt: PromptConfig) -> None:
        self.name = served_model
        self.endpoint = endpoint.rstrip("/")
        self.prompt, self.style = prompt, style_of(prompt)

    def predict(self, context: Context, *, horizon: int, num_samples: int, seed: int) -> Forecast:
        """Sample paths at temperature 1 from the full distribution; see `Forecaster.predict`.

        Raises:
            EndpointError: the server cannot be reached, refuses, or answers in another form.
        """
        prompts = self.style.render(context, horizon)
        # A seed for each prompt and request: with one for all, the samples of all windows would move together.
        texts = [self._sample(prompt, horizon, num_samples, (seed, row)) for row, prompt in enumerate(prompts)]
        return answers_to_forecast(texts, context, horizon=horizon, form=self.style.form)

    def save(self, path: Path) -> None:
        """Write address and name; the weights stay with the server."""
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / "endpoint.json").write_text(json.dumps({"endpoint": self.endpoint, "served_model": self.name}))

    def _sample(self, prompt: Messages, horizon: int, num_samples: int, key: tuple[int, int]) -> list[str]:
        texts: list[str] = []
        seeds = integers(*key, count=-(-num_samples // SAMPLES_PER_REQUEST))
        for seed in seeds:
            count = min(SAMPLES_PER_REQUEST, num_samples - len(texts))
            texts += self._request(
                self._template_arguments()
                | {
                    "model": self.name,
                    "messages": prompt,
                    "n": count,
                    "seed": seed,
                    # All of them spelt out, since vLLM takes the base model's recommendations for what is not said.
                    "temperature": 1.0,
                    "top_p": 1.0,
                    "top_k": -1,
                    "min_p": 0.0,
                    "repetition_penalty": 1.0,
                    "max_tokens": self._longest_answer(horizon),
                }
            )
        return texts

    def _template_arguments(self) -> JsonObject:
        """Of the chat template, which the server renders."""
        given = self.prompt.chat_template_kwargs
        return {"chat_template_kwargs": dict(given)} if given else {}

    def _longest_answer(self, horizon: int) -> int:
        """Tokens: a number takes at most four and its separator two; a thought takes what the stages allow it."""
        if self.prompt.max_completion_length is not None:
            return self.prompt.max_completion_length
        return THOUGHT_TOKENS if self.style.form.thinks else 6 * horizon + 8

    def _request(self, body: JsonObject) -> list[str]:
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '-')}",
        }
        request = urllib.request.Request(
            f"{self.endpoint}/chat/completions", data=json.dumps(body).encode(), headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                answer = json.loads(response.read())
            texts = [_text(choice) for choice in answer["choices"]]
        except urllib.error.HTTPError as error:
            # Some servers answer an error with a whole page.
            said = " ".join(error.read(500).decode(errors="replace").split())
            raise EndpointError(f"--endpoint {self.endpoint} answered {error.code} to '{self.name}': {said}") from error
        except OSError as error:
            raise EndpointError(
                f"--endpoint {self.endpoint} cannot be reached ({error}); start the server or correct the address."
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise EndpointError(
                f"--endpoint {self.endpoint} does not answer as chat completions do: {error!r}"
            ) from error
        if len(texts) != body["n"]:
            raise EndpointError(
                f"--endpoint {self.endpoint} gave {len(texts)} answers where {body['n']} were asked for."
            )
        return texts


def _text(choice: JsonObject) -> str:
    text = str(choice["message"]["content"] or "")
    return text + CUT_OFF if choice.get("finish_reason") == "length" else text
