"""The game that the policy plays: continue a context by H tokens, judged after each by the discriminator.

`TensorVecEnv` plays it in many copies in step, as tensors: no Python loop over environments. All episodes have the same
length, so all begin and end together, and a step is one call of the discriminator. `ForecastEnv` is the same game once,
in Gymnasium's form, for checks and comparisons.

Letters: E environments, N contexts, C numbers of context, H steps, V tokens there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from baselines.gail.config import CONTEXTS
from baselines.gail.discriminator import reward
from baselines.gail.network import SequenceNetwork
from baselines.neural.seeds import number
from preprocessing.files import JsonObject
from preprocessing.seeds import generator


def observation_space(num_tokens: int, context_dim: int) -> spaces.Dict:
    """The last token (V before the first) and the context; what came before is the LSTM's to remember."""
    return spaces.Dict(
        {
            "token": spaces.Discrete(num_tokens + 1),
            "context": spaces.Box(-np.inf, np.inf, (context_dim,), np.float32),
        }
    )


class ForecastEnv(gymnasium.Env[JsonObject, np.int64]):
    """One path at a time.

    Every episode has H steps and ends because the path is complete (`terminated`, not `truncated`): nothing follows,
    and no policy gains or loses by living longer, which a reward that is always positive would else teach.
    """

    metadata: JsonObject = {"render_modes": []}  # noqa: RUF012

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

    def reset(self, *, seed: int | None = None, options: JsonObject | None = None) -> tuple[JsonObject, JsonObject]:
        """Draw a context."""
        super().reset(seed=seed)
        row = int(self.np_random.integers(len(self.contexts)))
        self._context = self.contexts[row : row + 1]
        self._state = None
        self._step = 0
        return self._observation(self.num_tokens), {}

    @torch.no_grad()
    def step(self, action: np.int64) -> tuple[JsonObject, float, bool, bool, JsonObject]:
        """Append a token."""
        features = self.discriminator.features(torch.as_tensor([int(action)]), self._context)
        logit, self._state = self.discriminator.step(features, self._state)
        self._step += 1
        return self._observation(int(action)), float(reward(logit)), self._step == self.horizon, False, {}

    def _observation(self, token: int) -> JsonObject:
        return {"token": np.int64(token), "context": self._context[0].numpy().copy()}


class TensorVecEnv(VecEnv):
    """E environments in step.

    A VecEnv answers with one dictionary of information per environment. There is nothing to tell here: all share one
    empty dictionary. `terminal_observation` is left out too; stable-baselines3 reads it only where an episode was
    truncated, and these end by themselves.

    Attributes:
        episode: which episode is played; contexts are drawn by (seed, episode), so setting it goes to any of them.
    """

    def __init__(
        self, discriminator: SequenceNetwork, contexts: torch.Tensor, *, horizon: int, num_envs: int, seed: int
    ) -> None:
        """Play against a discriminator.

        Args:
            discriminator: judges; its weights are read at each step.
            contexts: [N, C] float32, of which each episode draws one.
            horizon: H.
            num_envs: E.
            seed: of the contexts that are drawn.
        """
        self.render_mode = None
        self.discriminator = discriminator
        self.contexts = contexts
        self.horizon = horizon
        self.contexts_seed = seed
        self.num_tokens = discriminator.features.embedding.num_embeddings - 1
        super().__init__(
            num_envs, observation_space(self.num_tokens, contexts.shape[1]), spaces.Discrete(self.num_tokens)
        )
        self.episode = 0
        # One shared empty dictionary in place of E, which would cost more than the step itself.
        self._infos: list[JsonObject] = [{}] * num_envs
        self._actions = np.zeros(num_envs, dtype=np.int64)

    def reset(self) -> dict[str, np.ndarray]:
        """Begin the next episode in every environment."""
        # By (seed, episode), so that any episode can be gone to without playing those before it.
        rows = generator(number(self.contexts_seed, CONTEXTS, self.episode)).integers(
            len(self.contexts), size=self.num_envs
        )
        self.episode += 1
        self._context = self.contexts[torch.from_numpy(rows)]  # [E, C]
        self._shown = self._context.numpy()
        self._state = None
        self._step = 0
        return self._observations(np.full(self.num_envs, self.num_tokens))

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the tokens [E] to append."""
        self._actions = actions

    @torch.no_grad()
    def step_wait(self) -> VecEnvStepReturn:
        """Append them; after the last step the observations are the first of the next episodes."""
        if self._step == 0:  # and not in `reset`: the discriminator learns between the episodes
            self._encoded = self.discriminator.features.encoder(self._context)
        tokens = torch.from_numpy(self._actions)
        embedded = self.discriminator.features.embed(tokens)
        # [E, embedding + context size]: the embedded token beside the encoding that stays the same for the whole
        # episode.
        logits, self._state = self.discriminator.step(torch.cat([embedded, self._encoded], dim=1), self._state)
        rewards = reward(logits[:, 0]).numpy()
        self._step += 1
        ended = self._step == self.horizon
        # A VecEnv begins anew by itself: together with the last reward it hands out the first observation of what
        # follows.
        observations = self.reset() if ended else self._observations(self._actions)
        return observations, rewards, np.full(self.num_envs, ended), self._infos

    def _observations(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        return {"token": tokens, "context": self._shown}

    def close(self) -> None:
        """There is nothing to close."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[object]:
        """The same attribute for each environment asked about."""
        return [getattr(self, attr_name)] * len(self._asked(indices))

    def set_attr(self, attr_name: str, value: object, indices: VecEnvIndices = None) -> None:
        """Refused: the environments share all they have."""
        raise NotImplementedError("the environments step together and have no attributes of their own")

    def env_method(
        self, method_name: str, *method_args: object, indices: VecEnvIndices = None, **_: object
    ) -> list[object]:
        """Refused: there are no single environments."""
        raise NotImplementedError("the environments step together and have no methods of their own")

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """No environment is wrapped."""
        return [False] * len(self._asked(indices))

    def _asked(self, indices: VecEnvIndices) -> Sequence[int]:
        return list(self._get_indices(indices))
