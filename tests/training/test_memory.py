"""Too little memory: one more try in smaller passes, which is the same training, and a clear end where that does not do."""

import errno

import pytest
import torch

from allocsearch import spec as specs
from allocsearch.core.allocation import Allocation
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Infeasible, Measured
from allocsearch.training import objective, proxy
from allocsearch.training.accumulation import dealt
from allocsearch.training.bench import bench_of
from allocsearch.training.finetune import ProxyEvaluator
from allocsearch.training.memory import is_out_of_memory

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
NO_BALANCE = {"train_rows": 32, "search_rows": 24, "batch_size": 8, "dtype": "float32", "aux_loss_weight": 0.0}


@pytest.fixture
def evaluator(tmp_path, write_study):
    def make(**overrides):
        spec = specs.load(str(write_study(tmp_path / "study.yaml", **overrides)))
        return ProxyEvaluator(spec, spec.model)

    return make


def assignment(text="2x4*4", **options):
    return Assignment(0, Allocation.parse(text), Routing(), (0,), **options)


def go_on(_rung):
    return True


@pytest.fixture
def memory_for(monkeypatch):
    """Lets a pass have so many rows of training, and no more."""
    original = objective.completion_loss

    def limit(rows):
        def loss(batch, logits):
            if batch.num_examples > rows:
                raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")
            return original(batch, logits)

        monkeypatch.setattr(objective, "completion_loss", loss)

    return limit


def raised(action):
    with pytest.raises(BaseException) as caught:
        action()
    return caught.value


def test_a_lack_of_memory_is_known_by_what_really_raises_it():
    assert is_out_of_memory(raised(lambda: torch.empty(2**60)))
    assert is_out_of_memory(raised(lambda: bytearray(2**62)))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(raised(lambda: torch.ones(2) @ torch.ones(3)))
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))


def test_a_second_try_in_smaller_passes_gives_the_same_score(evaluator, memory_for):
    run = evaluator(proxy=NO_BALANCE)
    undisturbed = run(assignment(rungs=(2,)), go_on)
    memory_for(1)
    reported = []
    again = run(assignment(rungs=(2,)), lambda rung: not reported.append(rung))
    assert isinstance(again, Measured)
    assert again.scores[0].correct == undisturbed.scores[0].correct
    assert again.scores[0].nll == pytest.approx(undisturbed.scores[0].nll, rel=1e-4)
    assert again.scores[0].nll != undisturbed.scores[0].nll, "it was not trained in other passes"
    assert (undisturbed.statistics["micro_batch"], again.statistics["micro_batch"]) == (8, 1)
    assert [rung.step for rung in again.rungs] == [2]


@pytest.mark.parametrize(("text", "aux_weight", "same"), [("3x2*4", 0.0, True), ("4*4", 0.5, True), ("3x2*4", 0.5, False)])
def test_passes_are_exact_but_for_the_balance_of_routers(evaluator, text, aux_weight, same):
    """Which cannot be put together from parts; a plan of one expert has no router."""
    run = evaluator(proxy={**NO_BALANCE, "aux_loss_weight": aux_weight})
    own = bench_of(run.spec, run.model)
    found = []
    for num_passes in (1, 3):
        with proxy.Adapted(own, assignment(text), 0, num_passes=num_passes) as adapted:
            with torch.no_grad():  # B starts at zero, which would hide the gradients of A
                for parameter in adapted.model.parameters():
                    if parameter.requires_grad:
                        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())) * 0.05)
            adapted.model.train()
            adapted._backward(own.train_encoded(0)[:8])
            found.append(torch.cat([p.grad.flatten() for p in adapted.model.parameters() if p.grad is not None]))
    assert torch.allclose(*found, rtol=1e-3, atol=1e-6) == same


def test_rows_are_dealt_out_whole_and_weighted_by_their_terms(evaluator):
    run = evaluator()
    own = bench_of(run.spec, run.model)
    rows = list(own.train_encoded(0)[:7])
    for num_passes in (1, 2, 3, 7, 20):
        passes = dealt(own._objective, rows, num_passes)
        assert len(passes) == min(num_passes, 7)
        assert sorted(id(row) for one in passes for row in one.rows) == sorted(map(id, rows))
        assert sum(one.share for one in passes) == pytest.approx(1.0)
    assert dealt(own._objective, rows, 1)[0].share == 1.0


def test_what_does_not_fit_in_the_smallest_passes_either_is_infeasible(evaluator, memory_for, monkeypatch):
    run = evaluator(proxy=NO_BALANCE)
    undisturbed = run(assignment(), go_on)
    memory_for(0)
    outcome = run(assignment(), go_on)
    assert isinstance(outcome, Infeasible)
    assert outcome.reason == "out of memory in passes of 1 rows: CUDA out of memory. Tried to allocate 2 GiB"
    monkeypatch.undo()
    assert run(assignment(), go_on).scores == undisturbed.scores, "the next trial is not its victim's victim"


def test_a_base_that_was_half_adapted_is_loaded_anew(evaluator, monkeypatch):
    run = evaluator(proxy=NO_BALANCE)
    undisturbed = run(assignment("8x2*4"), go_on)
    original = proxy.get_peft_model

    def half(base, config):
        original(base, config)
        monkeypatch.setattr(proxy, "get_peft_model", original)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(proxy, "get_peft_model", half)
    again = run(assignment("8x2*4"), go_on)
    assert again.statistics["micro_batch"] == 1
    assert again.scores[0].nll == pytest.approx(undisturbed.scores[0].nll, rel=1e-4)


def test_scoring_too_takes_fewer_rows_at_a_time(evaluator, monkeypatch):
    run = evaluator(proxy=NO_BALANCE)
    undisturbed = run(assignment(score_base=True), go_on)
    original = objective.score

    def score(*arguments, rows_per_batch, **options):
        if rows_per_batch > 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2147483648 bytes")
        return original(*arguments, rows_per_batch=rows_per_batch, **options)

    monkeypatch.setattr(objective, "score", score)
    again = run(assignment(score_base=True), go_on)
    assert again.scores[0].nll == pytest.approx(undisturbed.scores[0].nll, rel=1e-4)
