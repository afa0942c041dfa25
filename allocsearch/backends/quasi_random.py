"""A scrambled Sobol sequence over a space's listed values.

PyTorch's engine rather than Optuna's `QMCSampler`: that one needs SciPy, which nothing else here does, and it takes its place in the
sequence from a study.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from allocsearch.core.layout import Dimension


class SobolSequence:
    """Proposes the sequence's next point each time, and learns nothing: it stands where a `SamplerMirror` would."""

    def __init__(self, *, dimensions: Sequence[Dimension], seed: int) -> None:
        import torch  # noqa: PLC0415 - takes seconds, and only this sampler needs it

        self._dimensions, self._dtype = dimensions, torch.float64
        self._engine = torch.quasirandom.SobolEngine(len(dimensions), scramble=True, seed=seed)

    def propose(self, number: int) -> tuple[dict[str, float], dict[str, Any]]:  # noqa: ARG002
        """Listed values of every dimension, each as likely as its neighbours; no notes."""
        point = self._engine.draw(1, dtype=self._dtype)[0].tolist()
        return {d.name: d.choices[int(unit * len(d.choices))] for d, unit in zip(self._dimensions, point, strict=True)}, {}

    def start(self, number: int, params: Mapping[str, int], notes: Mapping[str, Any]) -> None:
        """Nothing to learn."""

    def finish(self, number: int, state: TrialState, values: Sequence[float] | None, notes: Mapping[str, Any] | None = None) -> None:
        """Nothing to learn."""

    def replay(self, trial: FrozenTrial) -> None:
        """Nothing to learn."""
