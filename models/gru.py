"""The released backbone: three layers of two forward-running GRUs (see models.recurrent for why both run forward).

The default clip feature is the last frame's output. Features are causal: frame t depends on frames 0..t only, so one pass
gives the features of every prefix, and a stream can be encoded frame by frame."""

from torch import Tensor, nn

from models.backbone import Backbone
from models.recurrent import ForwardGRU


class GRUBackbone(Backbone):
    """(N, T, F) -> frame features (N, T, D), D = 2 * hidden_size. Parameters are named `gru.*`, as released."""

    causal = True
    streams = True

    def __init__(self, input_size: int, hidden_size: int = 1024, num_layers: int = 3):
        super().__init__()
        self.gru = ForwardGRU(input_size, hidden_size, num_layers, directions=2)
        self.feature_size = 2 * hidden_size
        for parameter in self.gru.parameters():
            if parameter.dim() == 2:  # biases keep the framework's default, as released
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, views: int = 1, updates=None) -> Tensor:
        """x (N, T, F) -> (N, T, D)."""
        return self.gru(x)[0]

    def first_state(self, n: int) -> tuple[Tensor]:
        """The state (layers * directions, n, hidden_size)."""
        weight = self.gru.weight_hh_l0
        return (weight.new_zeros(self.gru.num_layers * self.gru.directions, n, self.gru.hidden_size),)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.gru.step(x, state)
