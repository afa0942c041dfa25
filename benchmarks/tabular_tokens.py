"""What a training spends: the tokens that its batches feed the model, without padding."""

from functools import lru_cache
from itertools import accumulate

from transformers import AutoTokenizer

from allocsearch.spec import StudySpec
from allocsearch.training.collate import encode
from allocsearch.training.splits import batches, select
from allocsearch.training.tasks import load_task


def step_tokens(spec: StudySpec, model: str, seed: int) -> list[int]:
    """Training tokens spent after each step; the same for every allocation, as all of them see the same rows in the same order."""
    return list(_step_tokens(spec.model_dump_json(by_alias=True), model, seed))


@lru_cache(maxsize=8)
def _step_tokens(spec_json: str, model: str, seed: int) -> tuple[int, ...]:
    spec = StudySpec.model_validate_json(spec_json)
    task = load_task(spec.task.source())
    proxy = spec.proxy
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    encoded = encode(select(task.train, proxy.train_rows, seed=seed), tokenizer, max_tokens=proxy.max_tokens)
    lengths = [len(example.prompt) + len(example.completions[example.gold]) - 1 for example in encoded]
    order = batches(len(encoded), proxy.batch_size, seed=seed, num_steps=proxy.num_steps)
    return tuple(accumulate(sum(lengths[row] for row in rows) for rows in order))
