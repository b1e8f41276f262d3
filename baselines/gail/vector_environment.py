"""Many copies of `ForecastEnv` in step, as tensors: no Python loop over environments.

All episodes have the same length, so all begin and end together, and a step is one call of the discriminator.

Letters: E environments, N contexts, C numbers of context, H steps, V tokens there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from baselines.gail.discriminator import reward
from baselines.gail.environment import observation_space
from baselines.gail.network import SequenceNetwork
from baselines.gail.randomness import CONTEXTS, mixed


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
        self._infos: list[dict[str, Any]] = [{}] * num_envs
        self._actions = np.zeros(num_envs, dtype=np.int64)

    def reset(self) -> dict[str, np.ndarray]:
        """Begin the next episode in every environment."""
        rows = np.random.default_rng(mixed(self.contexts_seed, CONTEXTS, self.episode)).integers(
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
        logits, self._state = self.discriminator.step(torch.cat([embedded, self._encoded], dim=1), self._state)
        rewards = reward(logits[:, 0]).numpy()
        self._step += 1
        ended = self._step == self.horizon
        observations = self.reset() if ended else self._observations(self._actions)
        return observations, rewards, np.full(self.num_envs, ended), self._infos

    def _observations(self, tokens: np.ndarray) -> dict[str, np.ndarray]:
        return {"token": tokens, "context": self._shown}

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The same attribute for each environment asked about."""
        return [getattr(self, attr_name)] * len(self._asked(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Refused: the environments share all they have."""
        raise NotImplementedError("the environments step together and have no attributes of their own")

    def env_method(self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **_: Any) -> list[Any]:
        """Refused: there are no single environments."""
        raise NotImplementedError("the environments step together and have no methods of their own")

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """None is."""
        return [False] * len(self._asked(indices))

    def _asked(self, indices: VecEnvIndices) -> Sequence[int]:
        return list(self._get_indices(indices))
