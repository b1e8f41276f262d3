"""The policy of RecurrentPPO, layer by layer the token model: embedding and LSTM serve actor and critic.

    features_extractor   TokenFeatures        the token model's `features`
    lstm_actor           LSTM                 its `lstm`
    action_net           linear, V outputs    its `head`
    value_net            linear, 1 output     on the same hidden state, whose gradient it does not touch

Letters: B sequences, T steps, E features, V tokens there are.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
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
        if torch.any(starts[:, 1:]):
            return RecurrentActorCriticPolicy._process_sequence(features, lstm_states, episode_starts, lstm)  # pyright: ignore[reportReturnType]
        kept = (1.0 - starts[:, 0])[None, :, None]
        sequence = features.reshape(*starts.shape, -1).transpose(0, 1)
        hidden, states = lstm(sequence, (kept * lstm_states[0], kept * lstm_states[1]))
        return hidden.transpose(0, 1).flatten(0, 1), states
