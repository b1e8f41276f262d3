"""The game that the policy plays: continue a context by H tokens, judged after each by the discriminator.

One environment in Gymnasium's form, for checks and comparisons; training uses `vector_environment`, which plays the
same game in many copies at once.

Letters: N contexts, C numbers of context, H steps, V tokens there are.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from baselines.gail.discriminator import reward
from baselines.gail.network import SequenceNetwork


def observation_space(num_tokens: int, context_dim: int) -> spaces.Dict:
    """The last token (V before the first) and the context; what came before is the LSTM's to remember."""
    return spaces.Dict(
        {
            "token": spaces.Discrete(num_tokens + 1),
            "context": spaces.Box(-np.inf, np.inf, (context_dim,), np.float32),
        }
    )


class ForecastEnv(gymnasium.Env[dict[str, Any], np.int64]):
    """One path at a time.

    Every episode has H steps and ends because the path is complete (`terminated`, not `truncated`): nothing follows,
    and no policy gains or loses by living longer, which a reward that is always positive would else teach.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(self, discriminator: SequenceNetwork, contexts: torch.Tensor, horizon: int) -> None:
        """Play against a discriminator.

        Args:
            discriminator: judges; its weights are read at each step.
            contexts: [N, C] float32, of which each episode draws one.
            horizon: H.
        """
        self.discriminator = discriminator
        self.contexts = contexts
        self.horizon = horizon
        self.num_tokens = discriminator.features.embedding.num_embeddings - 1
        self.observation_space = observation_space(self.num_tokens, contexts.shape[1])  # type: ignore[assignment]
        self.action_space = spaces.Discrete(self.num_tokens)  # type: ignore[assignment]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw a context."""
        super().reset(seed=seed)
        row = int(self.np_random.integers(len(self.contexts)))
        self._context = self.contexts[row : row + 1]
        self._state = None
        self._step = 0
        return self._observation(self.num_tokens), {}

    @torch.no_grad()
    def step(self, action: np.int64) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Append a token."""
        features = self.discriminator.features(torch.as_tensor([int(action)]), self._context)
        logit, self._state = self.discriminator.step(features, self._state)
        self._step += 1
        return self._observation(int(action)), float(reward(logit)), self._step == self.horizon, False, {}

    def _observation(self, token: int) -> dict[str, Any]:
        return {"token": np.int64(token), "context": self._context[0].numpy().copy()}
