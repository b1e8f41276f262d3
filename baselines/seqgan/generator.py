"""The generator: an LSTM that says, step by step, from which normal law the next value comes.

    x_t = (y_(t-1), y_1 + ... + y_(t-1), channels)
    h_t = LSTM(h_(t-1), x_t)
    y_t ~ N(mu_t, s_t^2),   (mu_t, s_t) = law(h_t, x_t)

The channels and the first state come from an encoding of the context window; without a context there are no channels
and the first state is 0. The sum of the values so far (the distance from the origin, where values are returns) is
given and need not be counted, and the law reads the step's input beside the LSTM's output, so that what is linear
(an autoregression, a pull back to the mean) need not pass through it. The law's weights begin at 0 and its scale at
1: the untrained generator is white noise of unit variance.

`Generator` is for gradients, `Sampler` for samples: the same weights, arranged for one matrix product per step over as
many sequences as there are.

Letters: N sequences, T steps, C context inputs, H hidden units, I inputs of a step, R columns (sequences side by side).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from baselines.seqgan.settings import GeneratorSettings

_COLUMNS = 2048
"""Columns per matrix product on a CPU: the gates of so many stay in its cache."""


class ContextEncoder(nn.Module):
    """Two layers from the inputs of a context window to what a network needs of it."""

    def __init__(self, context_size: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(context_size, hidden), nn.Tanh(), nn.Linear(hidden, outputs))

    def forward(self, context: torch.Tensor) -> torch.Tensor:
        """[N, C] to [N, outputs]."""
        return self.layers(context)


class Generator(nn.Module):
    """The law of every value given those before it, and the context.

    Args:
        settings: sizes.
        context_size: C, inputs of a context window; 0 for none.
    """

    def __init__(self, settings: GeneratorSettings, *, context_size: int) -> None:
        super().__init__()
        self.hidden, self.scale_floor = settings.hidden, settings.scale_floor
        self.context_size = context_size
        self.channels = settings.context_channels if context_size else 0
        # Each step sees the value before it, the sum so far, and what the context encoder has to say. Where values are
        # returns, the sum is the distance from the origin; given, it need not be counted by the LSTM.
        inputs = 2 + self.channels
        self.encoder = (
            ContextEncoder(context_size, settings.hidden, 2 * settings.hidden + self.channels) if context_size else None
        )
        self.lstm = nn.LSTM(inputs, settings.hidden, batch_first=True)
        # The law reads the inputs beside the LSTM's output: what is linear, such as a pull back to the mean, need not
        # pass through the gates.
        self.law = nn.Linear(settings.hidden + inputs, 2)
        # Untrained, the law is N(0, 1): log(e^x - 1) is the inverse of softplus, and x plus the floor is 1. The 1e-3
        # keeps the logarithm finite where the floor is 1 or more.
        nn.init.zeros_(self.law.weight)
        with torch.no_grad():
            self.law.bias.copy_(torch.tensor([0.0, math.log(math.expm1(max(1 - settings.scale_floor, 1e-3)))]))

    def encode(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """From [N, C] the first output [N, H], the first cell [N, H] and the channels [N, channels]."""
        if self.encoder is None:
            zeros = context.new_zeros(len(context), self.hidden)
            return zeros, zeros, context.new_zeros(len(context), 0)
        output, cell, channels = self.encoder(context).split([self.hidden, self.hidden, self.channels], dim=1)
        return torch.tanh(output), cell, channels

    def forward(self, values: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation [N, T] of each value [N, T] given the values before it."""
        output, cell, channels = self.encode(context)
        # Shifted by one step: a value must not be among the inputs of the step that predicts it.
        before = functional.pad(values, (1, 0))[:, :-1]  # [N, T], the first is 0
        steps = torch.stack([before, before.cumsum(1)], dim=2)  # [N, T, 2]
        inputs = torch.cat([steps, channels[:, None].expand(-1, values.shape[1], -1)], dim=2)  # [N, T, I]
        # torch wants the first state as [1, N, H], and contiguous, which a piece of a split is not.
        outputs, _ = self.lstm(inputs, (output[None], cell[None].contiguous()))
        return self.law_of(*self.law(torch.cat([outputs, inputs], dim=2)).unbind(2))

    def law_of(self, mean: torch.Tensor, raw_scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation from what the last layer gives."""
        # Without the floor the likelihood would grow without bound where values repeat.
        return mean, functional.softplus(raw_scale) + self.scale_floor

    def log_prob(self, values: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """[N, T] log density of each value given the values before it, in nats.

        The values are data: no gradient goes into them. A value sampled as mean + scale * noise and left attached
        would make the density constant in the mean, and a policy gradient on it zero.
        """
        # Detach first, then take the density. In a sample mean + scale * noise that stays attached the mean cancels out
        # of its own density, and a policy gradient on it trains nothing but the scale.
        values = values.detach()
        mean, scale = self(values, context)
        return -0.5 * ((values - mean) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True, eq=False)
class SamplerState:
    """Sequences on their way, side by side.

    Attributes:
        operand: [H + I + 1, R] output of the LSTM, inputs of the next step, and ones.
        cell: [H, R].
    """

    operand: torch.Tensor
    cell: torch.Tensor

    def fork(self, source: slice, target: slice, copies: int) -> None:
        """Copy the columns `source` into `target`, as often as `copies` says."""
        for rows in (self.operand, self.cell):
            original = rows[:, None, source]
            # [rows, R'] to [rows, copies, R'/copies], as a view: the copy writes into the state itself.
            rows[:, target].view(len(rows), copies, -1).copy_(original.expand(-1, copies, -1))


class Sampler:
    """The weights of a generator as they are, arranged for sampling; no gradients.

    Columns are sequences, so that each gate of all of them is one contiguous block.
    """

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        law = generator.law
        with torch.no_grad():
            of_inputs, of_output, bias_1, bias_2 = generator.lstm.all_weights[0]
            # torch keeps two bias vectors that are only ever added; one column, multiplied by the row of ones, does the
            # same.
            weight = torch.cat([of_output, of_inputs, (bias_1 + bias_2)[:, None]], dim=1)  # [4 H, H + I + 1]
            # torch orders the gates input, forget, cell, output. With the three sigmoids side by side one call serves
            # them.
            enters, forgets, proposes, leaves = weight.split(generator.hidden)
            self.gates = torch.cat([enters, forgets, leaves, proposes])
            self.law = torch.cat([law.weight, law.bias[:, None]], dim=1)  # [2, H + I + 1]

    @torch.no_grad()
    def start(self, context: torch.Tensor, *, columns: int | None = None) -> SamplerState:
        """The state before the first value: a column per row of the context [N, C], and room for `columns` in all."""
        output, cell, channels = self.generator.encode(context)
        num = len(context)
        operand = self.gates.new_zeros(self.gates.shape[1], columns or num)
        operand[: output.shape[1], :num] = output.T
        # The ones that the bias column is multiplied by, and before them the channels, which never change along a
        # sequence.
        operand[-1] = 1
        operand[-1 - channels.shape[1] : -1, :num] = channels.T
        cells = self.gates.new_zeros(output.shape[1], columns or num)
        cells[:, :num] = cell.T
        return SamplerState(operand, cells)

    @torch.no_grad()
    def step(self, state: SamplerState, num_columns: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation [num_columns] of the next value of the first columns; the LSTM moves on."""
        hidden = self.generator.hidden
        laws = state.operand.new_empty(2, num_columns)
        # On a CPU in slices, whose gates stay in the cache; a GPU is faster with all columns at once.
        size = _COLUMNS if laws.device.type == "cpu" else num_columns
        for first in range(0, num_columns, size):
            columns = slice(first, min(first + size, num_columns))
            # Views: the state is updated in place, and no step copies it.
            operand, cell = state.operand[:, columns], state.cell[:, columns]
            gates = torch.mm(self.gates, operand)  # [4 H, R]
            gates[: 3 * hidden].sigmoid_()
            gates[3 * hidden :].tanh_()
            enters, forgets, leaves, proposed = gates.split(hidden)
            cell.mul_(forgets).addcmul_(enters, proposed)
            torch.mul(torch.tanh(cell), leaves, out=operand[:hidden])
            # Only now: the operand holds the LSTM's output of this step, which the law reads.
            laws[:, columns] = torch.mm(self.law, operand)
        return self.generator.law_of(laws[0], laws[1])

    def observe(self, state: SamplerState, values: torch.Tensor) -> None:
        """Make the values [num_columns] the last ones of the first columns."""
        hidden = self.generator.hidden
        state.operand[hidden, : len(values)] = values
        state.operand[hidden + 1, : len(values)] += values

    @torch.no_grad()
    def sample(self, context: torch.Tensor, noise: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
        """[N, S, T] sequences made of standard normal noise [N, S, T], S for each row of the context [N, C].

        At temperature tau the values come from the density to the power 1/tau, normalised: the variance is tau-fold.
        """
        num, copies, steps = noise.shape
        # [N, S] columns: copies of a window side by side
        state = self.start(context.repeat_interleave(copies, dim=0))
        noise = noise.reshape(num * copies, steps).T.contiguous()  # [T, R]
        values = torch.empty_like(noise)
        for step in range(steps):
            mean, scale = self.step(state, num * copies)
            # The variance is to be tau-fold, so the deviation grows by the root of tau.
            torch.addcmul(mean, scale, noise[step], value=math.sqrt(temperature), out=values[step])
            self.observe(state, values[step])
        return values.T.reshape(num, copies, steps)
