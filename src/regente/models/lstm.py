"""The tutorial's recurrent network."""

from typing import Annotated

from annotated_types import Ge, Interval
from torch import Tensor, nn


class LSTM(nn.Module):
    """Embedding, LSTM (Hochreiter and Schmidhuber, 1997) and a dense layer on its last state.

    x [B, T] int64 below vocab_size -> logits [B, num_classes], or [B, T, num_classes] with `every_position`.
    With 1,000 words and the default widths: 389,096 parameters, the tutorial's 388,584 and a second bias of 512.
    Initial weights are those of Keras: embedding uniform in +-0.05, Glorot kernels, orthogonal recurrent kernels, zero
    biases, 1 for the forget gate. `tie_weights` uses the embedding as weight of the dense layer (Press and Wolf, 2017).
    """

    def __init__(
        self,
        vocab_size: Annotated[int, Ge(2)],
        num_classes: Annotated[int, Ge(2)],
        embedding: Annotated[int, Ge(1)] = 128,
        hidden: Annotated[int, Ge(1)] = 128,
        num_layers: Annotated[int, Ge(1)] = 1,
        dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
        tie_weights: bool = False,
        every_position: bool = False,
    ) -> None:
        super().__init__()
        if tie_weights and embedding != hidden:
            raise ValueError(f"tied weights have one width; embedding is {embedding}, hidden is {hidden}")
        if tie_weights and vocab_size != num_classes:
            raise ValueError(
                f"tied weights need one vocabulary; vocab_size is {vocab_size}, num_classes is {num_classes}"
            )
        self.every_position = every_position
        self.embedding = nn.Embedding(vocab_size, embedding)
        self.dropout = nn.Dropout(dropout)
        # batch_first: time-major is neither faster nor slower, measured with oneDNN on a CPU with AVX-512
        self.lstm = nn.LSTM(
            embedding, hidden, num_layers, dropout=dropout if num_layers > 1 else 0.0, batch_first=True
        )
        self.head = nn.Linear(hidden, num_classes)
        self._initialize()
        if tie_weights:
            self.head.weight = self.embedding.weight

    def _initialize(self) -> None:
        nn.init.uniform_(self.embedding.weight, -0.05, 0.05)
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        hidden = self.lstm.hidden_size
        for name, weight in self.lstm.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.xavier_uniform_(weight)
            elif name.startswith("weight_hh"):
                nn.init.orthogonal_(weight)
            else:
                nn.init.zeros_(weight)
                if name.startswith("bias_ih"):  # the second bias, bias_hh, stays at zero
                    nn.init.ones_(weight[hidden : 2 * hidden])  # gates: input, forget, cell, output

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.dropout(self.embedding(x)))
        return self.head(self.dropout(states if self.every_position else states[:, -1]))  # type: ignore[no-any-return]
