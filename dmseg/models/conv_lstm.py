"""A convolutional LSTM, one step of it: how MRNet lets a condition shape features."""

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]
"""Hidden and cell state, each (B, C, H, W)."""


class ConvLSTMCell(nn.Module):
    """One step of an LSTM whose gates are a convolution of input and hidden state (Shi et al., NeurIPS 2015).

    There are no peepholes. Input, forget, cell and output gate stand in `torch.nn.LSTMCell`'s order.

    Args:
        inputs: channels of the input.
        hidden: channels of the state.
        kernel: odd edge of the convolution.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int = 3) -> None:
        super().__init__()
        self.gates = nn.Conv2d(inputs + hidden, 4 * hidden, kernel, padding=kernel // 2)

    def forward(self, values: Tensor, state: State) -> State:
        """The next state.

        Args:
            values: (B, inputs, H, W).
            state: hidden and cell state, (B, hidden, H, W) each.
        """
        hidden, cell = state
        input_gate, forget_gate, cell_gate, output_gate = self.gates(torch.cat([values, hidden], dim=1)).chunk(4, dim=1)
        cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(input_gate) * torch.tanh(cell_gate)
        return torch.sigmoid(output_gate) * torch.tanh(cell), cell


class ConditionedStep(nn.Module):
    """One step of a ConvLSTM on features; the condition, embedded, is its first hidden and cell state.

    Where the features have another number of channels than the LSTM, one-by-one convolutions lead in and out, as the
    gates alone have 18 weights a pair of channels: 302 million for the 2048 of a ResNet50.

    Args:
        conditions: length of the condition.
        channels: of the features.
        width: channels of the LSTM.
    """

    def __init__(self, conditions: int, channels: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Conv2d(conditions, width, 3, padding=1)
        self.cell = ConvLSTMCell(width, width)
        self.enter = nn.Identity() if channels == width else nn.Conv2d(channels, width, 1)
        self.leave = nn.Identity() if channels == width else nn.Conv2d(width, channels, 1)

    def forward(self, features: Tensor, condition: Tensor) -> Tensor:
        """Conditioned features.

        Args:
            features: (B, channels, H, W).
            condition: (B, conditions).
        """
        everywhere = condition[:, :, None, None].expand(-1, -1, *features.shape[2:])
        first = self.embed(everywhere)
        hidden, _ = self.cell(self.enter(features), (first, first))
        conditioned: Tensor = self.leave(hidden)
        return conditioned
