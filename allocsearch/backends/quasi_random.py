"""A scrambled Sobol sequence over a space's listed values.

PyTorch's engine rather than Optuna's `QMCSampler`: that one needs SciPy, which nothing else here does, and it takes its place in the
sequence from a study.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from allocsearch.backends.sampler_mirror import NONE
from allocsearch.core.layout import Dimension


class SobolSequence:
    """Proposes the point of the sequence that a trial's number says, and learns nothing: it stands where a `SamplerMirror` would.

    A further attempt takes the point of the same number in another scrambling of the sequence.
    """

    def __init__(self, *, dimensions: Sequence[Dimension], seed: int) -> None:
        import torch  # noqa: PLC0415 - takes seconds, and only this sampler needs it

        self._dimensions, self._dtype, self._seed = dimensions, torch.float64, seed
        self._engine = torch.quasirandom.SobolEngine
        self._sequences: dict[int, Any] = {}

    def propose(self, number: int, attempt: int = 0) -> tuple[dict[str, float], dict[str, Any]]:
        """Listed values of every dimension, each as likely as its neighbours; no notes."""
        point = self._at(number, attempt).draw(1, dtype=self._dtype)[0].tolist()
        return {d.name: d.choices[int(unit * len(d.choices))] for d, unit in zip(self._dimensions, point, strict=True)}, {}

    def _at(self, number: int, attempt: int) -> Any:
        """The sequence of that attempt, about to give the point of that number; it only goes forwards, unless it must begin again."""
        sequence = self._sequences.get(attempt)
        if sequence is None or sequence.num_generated > number:
            sequence = self._sequences[attempt] = self._engine(len(self._dimensions), scramble=True, seed=self._seed + attempt)
        if number > sequence.num_generated:
            sequence.fast_forward(number - sequence.num_generated)
        return sequence

    def start(self, number: int, params: Mapping[str, int], notes: Mapping[str, Any]) -> None:
        """Nothing to learn."""

    def finish(self, number: int, state: TrialState, values: Sequence[float] | None, notes: Mapping[str, Any] = NONE) -> None:
        """Nothing to learn."""

    def replay(self, trial: FrozenTrial) -> None:
        """Nothing to learn."""
