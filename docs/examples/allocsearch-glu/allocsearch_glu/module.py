"""The module of one expert."""

from torch import Tensor, nn
from torch.nn.functional import silu


class GatedAdapter(nn.Module):
    """Maps tokens (T × d) to the same shape."""

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        self.gate = nn.Linear(hidden_size, size, bias=False)
        self.down = nn.Linear(hidden_size, size, bias=False)
        self.up = nn.Linear(size, hidden_size, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The gated adapter's output."""
        return self.up(silu(self.gate(x)) * self.down(x))
