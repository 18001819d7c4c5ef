"""One step of a convolutional LSTM, by which MRNet conditions features on the raters' weights."""

import torch
from torch import Tensor, nn

State = tuple[Tensor, Tensor]
"""Hidden and cell state, each (B, C, H, W)."""


class ConvLSTMCell(nn.Module):
    """One step of an LSTM whose gates are a convolution of input and hidden state (Shi et al., NeurIPS 2015).

    There are no peephole connections. The gates have the order of `torch.nn.LSTMCell`: input, forget, cell, output.

    Args:
        inputs: channels of the input.
        hidden: channels of the state.
        kernel: odd edge length of the convolution.
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
    """One step of a ConvLSTM on features; the embedded condition is its initial hidden and cell state.

    If the features and the LSTM differ in their number of channels, 1x1 convolutions project the features to the LSTM
    and back. An LSTM with the 2048 channels of a ResNet50 would have 302 million weights in its gates alone.

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
        """Returns the conditioned features, (B, channels, H, W).

        Args:
            features: (B, channels, H, W).
            condition: (B, conditions).
        """
        everywhere = condition[:, :, None, None].expand(-1, -1, *features.shape[2:])
        first = self.embed(everywhere)
        hidden, _ = self.cell(self.enter(features), (first, first))
        conditioned: Tensor = self.leave(hidden)
        return conditioned
