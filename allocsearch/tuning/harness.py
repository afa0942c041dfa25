"""EleutherAI's lm-eval on a trained adapter, where it is installed."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from allocsearch.core.errors import InputError
from allocsearch.tuning.evaluation import load_adapter


def harness(adapter: Path, tasks: Sequence[str], *, rows: int | None, dtype: str, base: str | None = None) -> dict[str, Any]:
    """lm-eval's results per task: its metrics by name.

    Raises:
        InputError: where lm-eval is not installed, or does not know a task.
    """
    if find_spec("lm_eval") is None:
        raise InputError("--harness needs lm-eval, which is not installed: pip install lm-eval")
    import lm_eval  # noqa: PLC0415 - optional, and seconds to import
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415

    loaded, model = load_adapter(adapter, dtype=dtype, classes=None, base=base)
    try:
        found = lm_eval.simple_evaluate(model=HFLM(pretrained=model, tokenizer=loaded.tokenizer), tasks=list(tasks), limit=rows)
    except (KeyError, ValueError) as error:
        raise InputError(f"lm-eval must know the tasks {', '.join(tasks)}, but: {str(error).splitlines()[0]}") from error
    return {name: dict(metrics) for name, metrics in found["results"].items()}
