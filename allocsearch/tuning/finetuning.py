"""Full fine-tuning of a base model with an exported allocation: the composition of data, model, loop and what is left behind."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from peft import get_peft_model

from allocsearch.core.errors import InputError
from allocsearch.exported import ExportedConfig
from allocsearch.models import LoadedBase, load_base, model_digest, resolve, shape_of
from allocsearch.spec import TaskSpec
from allocsearch.training import checkpoint
from allocsearch.training.adapter import adapter_config
from allocsearch.training.classify import draw_head, num_classes
from allocsearch.training.examples import Task
from allocsearch.training.objective import Objective
from allocsearch.training.tasks import load_task
from allocsearch.transformers_log import adapting
from allocsearch.tuning import folder, sharding, tracking
from allocsearch.tuning.evaluation import MAX_NEW_TOKENS, Evaluation, evaluated
from allocsearch.tuning.loop import Checkpoints, Progress, Trainer
from allocsearch.tuning.settings import Settings, check_same, identity

_KNOWN: Final = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU, DistributedType.FSDP)
_CHECKPOINTS: Final = 10


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be trained, and where its result goes."""

    exported: ExportedConfig
    task: TaskSpec
    settings: Settings
    output: Path
    resume: bool = False
    checkpoint_steps: int | None = None
    report_to: tracking.Tracker | None = None
    evaluate: bool = False


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training left behind; `is_main` is False in the other processes of a distributed one."""

    output: Path
    num_steps: int
    num_rows: int
    trainable: int
    loss: float | None
    test: Evaluation | None
    is_main: bool

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "adapter": str(self.output),
            "steps": self.num_steps,
            "train_rows": self.num_rows,
            "trainable": self.trainable,
            "last_step_loss": self.loss,
            "test": None if self.test is None else self.test.to_json(),
        }


def train(request: Request, say: Callable[[str], None]) -> Trained:
    """Train `request`; `say` gets lines of progress.

    Raises:
        InputError: for settings, data or a base that do not fit, and where the loss leaves the finite numbers.
    """
    exported, settings = request.exported, request.settings
    folder.check_output(request.output, resume=request.resume)
    tracking.check(request.report_to)
    accelerator, sharded = _processes(request)
    tell = say if accelerator.is_main_process else lambda _line: None
    settings.check_split(accelerator.num_processes)
    task = load_task(request.task.source())
    base_name = str(resolve(exported.model.id, tell))
    weights = model_digest(base_name, exported.model.revision)
    if weights != exported.model.weights:
        tell("note: the base has other weights than those that the allocation was found on")
    kept = Checkpoints(
        request.output / checkpoint.FILE,
        request.checkpoint_steps or max(1, settings.num_steps(len(task.train)) // _CHECKPOINTS),
        identity(settings, exported, task_digest=task.digest, weights=weights),
    )
    stored = checkpoint.load(kept.path) if request.resume else None
    if stored is not None:
        check_same(stored.identity, kept.identity)
    tell(f"loading {exported.model.id} as {settings.dtype}")
    device = "cpu" if sharded else accelerator.device  # each process sends its share to its device
    base = load_base(base_name, dtype=settings.dtype, device=device, revision=exported.model.revision, num_classes=num_classes(task))
    trainer = _trainer(request, accelerator, base, task, base_name=base_name, sharded=sharded)
    trainable = sum(parameter.numel() for parameter in checkpoint.trained_parameters(trainer.model).values())
    num_steps = settings.num_steps(len(task.train))
    tell(f"training {trainable:,} parameters on {len(task.train):,} rows of {task.name}, {num_steps:,} steps, {_place(trainer)}")
    loss = _run(trainer, request, kept, stored=stored, tell=tell)
    test = None
    if request.evaluate and (accelerator.is_main_process or sharded):  # a sharded model computes where all processes do
        tell(f"scoring {len(task.test):,} test rows")
        test = evaluated(trainer.model, trainer.objective, task, rows=None)
    done = Trained(request.output, num_steps, len(task.train), trainable, loss, test, accelerator.is_main_process)
    trained = {name: checkpoint.whole(parameter) for name, parameter in checkpoint.trained_parameters(trainer.model).items()}
    if accelerator.is_main_process:
        folder.leave(trainer.model, trained, exported, settings, task=task.name, done=done.to_json(), test=test, output=request.output)
    accelerator.end_training()
    return done


def _processes(request: Request) -> tuple[Any, bool]:
    """The view of the processes that accelerate has, and whether the model is to be sharded over them."""
    sharded = sharding.is_asked_for()
    # The base's type and the experts' say what is computed in which. A second setting on top would hold for several processes alone.
    accelerator = Accelerator(mixed_precision="no", log_with=request.report_to, project_dir=str(request.output))
    if accelerator.distributed_type not in _KNOWN:
        raise InputError(
            "training runs on one device, replicated on several or sharded by FSDP2, but accelerate is set to "
            f"{accelerator.distributed_type.value}: choose one of these by accelerate config"
        )
    return accelerator, sharded and accelerator.num_processes > 1


def _run(
    trainer: Trainer, request: Request, kept: Checkpoints, *, stored: checkpoint.Stored | None, tell: Callable[[str], None]
) -> float | None:
    accelerator = trainer.accelerator
    if request.report_to is not None:
        accelerator.init_trackers("allocsearch", config=request.settings.to_json())

    def report(at: Progress) -> None:
        if request.report_to is not None:
            accelerator.log({"loss": at.loss, "learning_rate": at.learning_rate}, step=at.step)
        if at.step % max(1, at.num_steps // 50) == 0 or at.step == at.num_steps:
            tell(f"step {at.step:,}/{at.num_steps:,}  loss {at.loss:.4f}  learning rate {at.learning_rate:.2e}")

    return trainer.train(kept, stored=stored, report=report)


def _trainer(request: Request, accelerator: Any, base: LoadedBase, task: Task, *, base_name: str, sharded: bool) -> Trainer:
    exported, settings, head = request.exported, request.settings, base.head
    draw_head(base.model, head.modules, seed=settings.seed)
    config = adapter_config(
        exported.allocation,
        exported.routing.routing(),
        alpha=exported.alpha,
        aux_loss_weight=exported.aux_loss_weight,
        seed=settings.seed,
        base=base_name,
        head=head,
    )
    config.revision = exported.model.revision
    torch.manual_seed(settings.seed)
    if settings.gradient_checkpointing:
        checkpoint_activations(base.model)
    layers = base.model.get_submodule(shape_of(base.model).stack)
    with adapting():
        model = get_peft_model(base.model, config)
    if not checkpoint.trained_parameters(model):
        raise InputError(f"an allocation to train must have experts, but {exported.allocation!r} freezes every layer: export another")
    if sharded:
        sharding.shard(base.model, layers, accelerator)
    objective = Objective(base.tokenizer, head, task.metric, settings.max_tokens, MAX_NEW_TOKENS)
    aux_weight = exported.aux_loss_weight if config.balances else 0.0
    return Trainer(accelerator, model, objective, objective.encode(task.train), settings, aux_weight)


def _place(trainer: Trainer) -> str:
    accelerator = trainer.accelerator
    if accelerator.num_processes == 1:
        return f"on {accelerator.device}"
    how = "sharded over" if sharding.is_sharded(trainer.model) else "replicated on"
    return f"{how} {accelerator.num_processes} processes ({accelerator.device.type})"


def checkpoint_activations(model: Any) -> None:
    """Have `model` compute its layers' activations again in the backward pass. The method has two names in transformers 5."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
