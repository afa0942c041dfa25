"""Find how many LoRA experts of which rank each layer of a language model should get, within a parameter budget."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from allocsearch.core.allocation import Allocation as Allocation
    from allocsearch.core.allocation import Expert as Expert
    from allocsearch.core.allocation import LayerPlan as LayerPlan
    from allocsearch.core.budget import Budget as Budget
    from allocsearch.core.budget import Cost as Cost
    from allocsearch.core.budget import cost as cost
    from allocsearch.core.geometry import ModelShape as ModelShape
    from allocsearch.core.geometry import Routing as Routing
    from allocsearch.core.geometry import Site as Site
    from allocsearch.core.kinds import ExpertKind as ExpertKind
    from allocsearch.core.space import SearchSpace as SearchSpace
    from allocsearch.models import model_shape as model_shape
    from allocsearch.result import SearchResult as SearchResult
    from allocsearch.result import load_study as load_study
    from allocsearch.result import run as run

__version__ = "0.1.0"

# Importing the package stays light: a name is loaded when it is first used.
_HOMES: Final = {
    "Allocation": "core.allocation",
    "Budget": "core.budget",
    "Cost": "core.budget",
    "Expert": "core.allocation",
    "ExpertKind": "core.kinds",
    "LayerPlan": "core.allocation",
    "ModelShape": "core.geometry",
    "Routing": "core.geometry",
    "SearchResult": "result",
    "SearchSpace": "core.space",
    "Site": "core.geometry",
    "cost": "core.budget",
    "load_study": "result",
    "model_shape": "models",
    "run": "result",
}

__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605 - the table is the one list


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'allocsearch' has no attribute {name!r}")
    return getattr(import_module(f"allocsearch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
