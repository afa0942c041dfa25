"""EleutherAI's lm-eval on a trained adapter, where it is installed."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from allocsearch.core.errors import InputError, gist
from allocsearch.tuning.evaluation import load_adapter


def harness(adapter: Path, tasks: Sequence[str], *, rows: int | None, dtype: str, base: str | None = None) -> dict[str, Any]:
    """lm-eval's results per task: its metrics by name.

    Args:
        adapter: a folder with a PEFT adapter.
        tasks: lm-eval's names, or paths of YAML files in its form.
        rows: of each task, the first so many; None for all.
        dtype: of the base.
        base: the base model, where it is not the one that the adapter names.

    Raises:
        InputError: where lm-eval is not installed, does not know a task, or its data are out of reach.
    """
    if find_spec("lm_eval") is None:
        raise InputError("--harness needs lm-eval, which is not installed: pip install 'allocsearch[harness]'")
    import lm_eval  # noqa: PLC0415 - optional, and seconds to import
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415

    loaded, model = load_adapter(adapter, dtype=dtype, classes=None, base=base)
    try:
        found = lm_eval.simple_evaluate(model=HFLM(pretrained=model, tokenizer=loaded.tokenizer), tasks=list(tasks), limit=rows)
    except (KeyError, ValueError) as error:
        raise InputError(f"lm-eval must know the tasks {', '.join(tasks)}, but: {gist(error)}") from error
    except OSError as error:  # a lost connection, too
        raise InputError(
            f"the data of {', '.join(tasks)} must be within reach, but: {gist(error)}: connect, and unset HF_HUB_OFFLINE"
        ) from error
    return {name: dict(metrics) for name, metrics in found["results"].items()}
