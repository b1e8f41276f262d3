"""The paths of a round as minibatches of whole episodes, each begun from a state of zeros.

sb3-contrib's own buffer cuts the steps of all environments, one after the other, into minibatches of equal length:
episodes are torn and padded, a torn one goes on from a state that former weights left, and neighbours always meet in
the same minibatch. Here every environment holds exactly one whole episode, so that none of this is needed.

Letters: E environments, H steps, M environments in a minibatch.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import torch
from sb3_contrib.common.recurrent.buffers import RecurrentDictRolloutBuffer
from sb3_contrib.common.recurrent.type_aliases import RecurrentDictRolloutBufferSamples, RNNStates


class EpisodeBuffer(RecurrentDictRolloutBuffer):
    """One episode of H steps per environment."""

    def get(self, batch_size: int | None = None) -> Generator[RecurrentDictRolloutBufferSamples, None, None]:
        """Shuffle the episodes and hand out `batch_size` / H of them at a time, flattened to [M H, ...].

        Raises:
            ValueError: the batch size is no multiple of H, or an episode does not fill its environment's steps.
        """
        size = self.n_envs if batch_size is None else batch_size // self.buffer_size
        if batch_size is not None and size * self.buffer_size != batch_size:
            raise ValueError(f"batch size {batch_size} is no multiple of the {self.buffer_size} steps of an episode")
        if not self.full or not self.episode_starts[0].all() or self.episode_starts[1:].any():
            raise ValueError("each environment must hold exactly one whole episode")
        order = np.random.permutation(self.n_envs)  # noqa: NPY002  seeded as all that stable-baselines3 draws
        for first in range(0, self.n_envs, size):
            yield self._episodes(order[first : first + size])

    def _episodes(self, envs: np.ndarray) -> RecurrentDictRolloutBufferSamples:
        def flat(values: np.ndarray) -> torch.Tensor:
            chosen = values[:, envs].swapaxes(0, 1)  # [M, H, ...]
            return self.to_torch(chosen.reshape(len(envs) * self.buffer_size, *chosen.shape[2:]))

        layers, hidden = self.hidden_state_shape[1], self.hidden_state_shape[3]
        zeros = torch.zeros(layers, len(envs), hidden, device=self.device)
        return RecurrentDictRolloutBufferSamples(
            observations={name: flat(values) for name, values in self.observations.items()},
            actions=flat(self.actions),
            old_values=flat(self.values),
            old_log_prob=flat(self.log_probs),
            advantages=flat(self.advantages),
            returns=flat(self.returns),
            lstm_states=RNNStates((zeros, zeros), (zeros, zeros)),
            episode_starts=flat(self.episode_starts),
            mask=torch.ones(len(envs) * self.buffer_size, device=self.device),
        )
