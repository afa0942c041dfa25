"""What a study may be set to, by name."""

from typing import Literal

Objective = Literal["pareto", "accuracy", "nll"]
Metric = Literal["accuracy", "nll"]
Sampler = Literal["tpe", "nsga2", "evolution", "quasi-random", "random"]
