"""What Optuna's dashboard shows of a study beside its own pages: our graphs and a note, kept as system attributes of the study.

Optuna cuts them into pieces that fit the columns of every database. A graph and a note are replaced, not piled up.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Final

import optuna

from allocsearch.backends.optuna_quiet import experimental

OURS_ENDS: Final = "*Written by allocsearch, again and again while it runs. What stands below this line is yours, and is kept.*"

_COMPANIONS: Final = {
    "calibration": "measures the noise of its proxy: allocations trained with several seeds, on the search rows",
    "random": "are the random allocations that its winner has to beat",
    "replicas": "are its best trials again, each with one further seed, on the search rows",
    "confirmation": "are its finalists and baselines again, each with one fresh seed, on the test rows",
}


def available() -> bool:
    """Whether the dashboard is installed; it is an extra."""
    return find_spec("optuna_dashboard") is not None


def show(study: optuna.Study, graphs: Mapping[str, Any], note: str) -> None:
    """Put Plotly figures, by a word for each, and a Markdown note in the place of those before. What a user added below ours stays."""
    from optuna_dashboard import get_note, save_note, save_plotly_graph_object  # noqa: PLC0415 - an extra

    with experimental():
        for name, graph in graphs.items():
            save_plotly_graph_object(study, graph, graph_object_id=f"allocsearch-{name}")
        save_note(study, _above(get_note(study), note))


def mark_companion(study: optuna.Study, kind: str, *, of: str) -> None:
    """Say on a companion what it is, so that nobody takes its trials for those of a search."""
    if available():
        lines = (
            f"The trials of this study {_COMPANIONS[kind]}. It belongs to the study `{of}`, whose note says what came of it.",
            "Nothing was searched for here, so “Best Trials”, importances and fronts of this study mean nothing.",
        )
        show(study, {}, "\n\n".join(lines))


def _above(before: str, note: str) -> str:
    """`note` in the place of ours in `before`; a note without ours is all the user's."""
    _, mark, theirs = before.partition(OURS_ENDS)
    kept = theirs if mark else f"\n\n{before}" if before.strip() else ""
    return f"{note.rstrip()}\n\n{OURS_ENDS}{kept}"
