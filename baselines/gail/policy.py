"""The policy of RecurrentPPO, layer by layer the token model, and the buffer of the paths that it plays.

    features_extractor   TokenFeatures        the token model's `features`
    lstm_actor           LSTM                 its `lstm`
    action_net           linear, V outputs    its `head`
    value_net            linear, 1 output     on the same hidden state, whose gradient it does not touch

sb3-contrib's own buffer cuts the steps of all environments, one after the other, into minibatches of equal length:
episodes are torn and padded, a torn one goes on from a state that former weights left, and neighbours always meet in
the same minibatch. Here every environment holds exactly one whole episode, so that none of this is needed.

Letters: B sequences, E environments, M environments in a minibatch, T or H steps, E features, V tokens there are.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.buffers import RecurrentDictRolloutBuffer
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RecurrentDictRolloutBufferSamples, RNNStates
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from baselines.gail.network import NetworkSizes, SequenceNetwork, TokenFeatures


class ObservationFeatures(BaseFeaturesExtractor):
    """`TokenFeatures` of the environment's observations, whose token stable-baselines3 makes one-hot."""

    def __init__(self, observation_space: spaces.Dict, sizes: NetworkSizes) -> None:
        features = TokenFeatures(sizes)
        super().__init__(observation_space, features.width)
        self.features = features

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """[B, E] of observations "token" [B, (1,) V + 1] and "context" [B, C]."""
        return self.features(observations["token"].flatten(1), observations["context"].flatten(1))


class TokenPolicy(RecurrentActorCriticPolicy):
    """Actor and critic on the token model's layers."""

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        sizes: NetworkSizes,
        **settings: Any,
    ) -> None:
        """Build the layers; the weights are random until `load_network`.

        Args:
            observation_space: of the environment.
            action_space: of the environment.
            lr_schedule: of the optimizer.
            sizes: of the token model.
            settings: what stable-baselines3 adds.
        """
        self.sizes = sizes
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            # No layers between LSTM and heads, and one LSTM for both: the policy must have the token model's layers and
            # no others. The value head reads the actor's hidden state, which sb3-contrib detaches, so that values do
            # not bend it. Orthogonal first weights would be overwritten by `load_network`.
            net_arch=[],
            ortho_init=False,
            features_extractor_class=ObservationFeatures,
            features_extractor_kwargs={"sizes": sizes},
            lstm_hidden_size=sizes.hidden_size,
            shared_lstm=True,
            enable_critic_lstm=False,
            **settings,
        )

    def load_network(self, network: SequenceNetwork) -> None:
        """Take over the weights of a token model: the same logits from here on."""
        for own, other in self._layers(network):
            own.load_state_dict(other.state_dict())
        # the value of a path that cannot be told from a real one, see `imitation`
        nn.init.zeros_(self.value_net.weight)
        nn.init.zeros_(self.value_net.bias)

    def to_network(self) -> SequenceNetwork:
        """The actor as a token model of its own."""
        network = SequenceNetwork(self.sizes, self.sizes.num_tokens)
        for own, other in self._layers(network):
            other.load_state_dict(own.state_dict())
        return network

    def _layers(self, network: SequenceNetwork) -> list[tuple[nn.Module, nn.Module]]:
        extractor = self.features_extractor
        assert isinstance(extractor, ObservationFeatures)
        return [
            (extractor.features, network.features),
            (self.lstm_actor, network.lstm),
            (self.action_net, network.head),
        ]

    @staticmethod
    def _process_sequence(  # pyright: ignore[reportIncompatibleMethodOverride]  the states are a pair there too
        features: torch.Tensor,
        lstm_states: tuple[torch.Tensor, torch.Tensor],
        episode_starts: torch.Tensor,
        lstm: nn.LSTM,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """The hidden states [B T, hidden] of B sequences, each begun anew wherever an episode starts.

        sb3-contrib steps through the sequences one token at a time if any episode starts in them. Its buffers cut
        sequences at the starts of episodes, so that a start is almost always the first step: there it is enough to
        clear the states and call the LSTM once.
        """
        starts = episode_starts.reshape(lstm_states[0].shape[1], -1)  # [B, T]
        # Steps beyond the first may start an episode only in buffers of other make; the library's loop is right for
        # these.
        if torch.any(starts[:, 1:]):
            return RecurrentActorCriticPolicy._process_sequence(features, lstm_states, episode_starts, lstm)  # pyright: ignore[reportReturnType]
        # 0 where an episode starts: its state is cleared. [1, B, 1] against the states' [1, B, hidden].
        kept = (1.0 - starts[:, 0])[None, :, None]
        # [B T, E] to [T, B, E]: sb3 lays sequences end to end, the policy's LSTM reads time first.
        sequence = features.reshape(*starts.shape, -1).transpose(0, 1)
        hidden, states = lstm(sequence, (kept * lstm_states[0], kept * lstm_states[1]))
        return hidden.transpose(0, 1).flatten(0, 1), states


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
        # Whole environments are shuffled, never steps: a minibatch holds episodes from first to last token.
        order = np.random.permutation(self.n_envs)  # noqa: NPY002  seeded as all that stable-baselines3 draws
        for first in range(0, self.n_envs, size):
            yield self._episodes(order[first : first + size])

    def _episodes(self, envs: np.ndarray) -> RecurrentDictRolloutBufferSamples:
        def flat(values: np.ndarray) -> torch.Tensor:
            # [H, E, ...] to [M, H, ...] to [M H, ...]: an episode's steps must lie side by side for the LSTM.
            chosen = values[:, envs].swapaxes(0, 1)  # [M, H, ...]
            return self.to_torch(chosen.reshape(len(envs) * self.buffer_size, *chosen.shape[2:]))

        layers, hidden = self.hidden_state_shape[1], self.hidden_state_shape[3]
        # Every row is the begin of an episode, so every LSTM state is zero, and nothing pads.
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
