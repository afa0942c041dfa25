"""Studies and plans as JSON documents: what `--json` prints, and what tables are drawn from."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from allocsearch.backends.study_record import StudyRecord
from allocsearch.core import codec
from allocsearch.core.allocation import Allocation
from allocsearch.core.budget import cost, layer_costs
from allocsearch.core.geometry import ModelShape, Routing
from allocsearch.limits_spec import SPENDING
from allocsearch.search import results
from allocsearch.search.comparison import Comparison
from allocsearch.search.results import Point

if TYPE_CHECKING:
    from allocsearch.planning import Plan

_NUM_EXAMPLES = 8


def cost_json(allocation: Allocation, shape: ModelShape, routing: Routing) -> dict[str, Any]:
    """Trainable and active parameters, in all and per layer."""
    total = cost(allocation, shape, routing)
    layers = layer_costs(allocation, shape, routing)
    return {
        "model": shape.architecture,
        "allocation": str(allocation),
        "routing": codec.routing_to_json(routing),
        "trainable": total.trainable,
        "active": total.active,
        "share_of_base": total.trainable / shape.num_parameters,
        "per_layer": [
            {"layer": i, "plan": str(plan), "trainable": layer.trainable, "active": layer.active}
            for i, (plan, layer) in enumerate(zip(allocation, layers, strict=True))
        ],
    }


def point_json(point: Point) -> dict[str, Any]:
    """One measured trial."""
    return {
        "trial": point.trial.number,
        "allocation": str(point.trial.assignment.allocation),
        "routing": codec.routing_to_json(point.trial.assignment.routing),
        "trainable": point.trial.cost.trainable,
        "active": point.trial.cost.active,
        "accuracy": point.accuracy,
        "interval": list(point.interval),
        "nll": point.nll,
        "rows": point.num_rows,
        "seeds": [score.seed for score in point.measured.scores],
        "seconds": point.measured.seconds,
        "origin": point.trial.origin,
    }


def front_json(record: StudyRecord) -> dict[str, Any]:
    """The Pareto front, smallest first."""
    return {
        "study": record.name,
        "split": "search",
        "interval": "95 % Wilson over the rows; it covers neither seed noise nor the selection of the best",
        "points": [point_json(point) for point in results.pareto(record.trials, record.spec.metric)],
    }


def compare_json(record: StudyRecord, winner: Point, comparisons: Sequence[Comparison], *, metric: str) -> dict[str, Any]:
    """The winner against the baselines."""
    return {
        "study": record.name,
        "split": "search",
        "metric": metric,
        "winner": point_json(winner),
        "comparisons": [
            {
                "baseline": point_json(c.baseline),
                "difference": c.difference,
                "interval": list(c.interval),
                "p_value": c.p_value,
                "p_adjusted": c.p_adjusted,
                "verdict": c.verdict,
                "seeds": list(c.seeds),
                "rows": c.num_rows,
                "covers_seeds": c.covers_seeds,
            }
            for c in comparisons
        ],
    }


def status_json(record: StudyRecord) -> dict[str, Any]:
    """Counts per state, best so far, compute spent."""
    found = record.standing
    done = record.num_trials - record.num_missing
    failures = [{"trial": number, "reason": reason} for number, reason in found.failures]
    infeasible = [{"trial": number, "reason": reason} for number, reason in found.infeasible]
    return {
        "study": record.name,
        "target_trials": record.num_trials,
        "missing_trials": record.num_missing,
        "complete": record.is_complete,
        "driver": record.driver,
        "counts": dict(found.counts),
        "worker_seconds": found.seconds_spent,
        "wall_seconds": record.wall_seconds,
        "spent": asdict(record.ledger.spent),
        "limits": record.limits.model_dump(include=set(SPENDING)),
        "trials_per_hour": 3600 * done / record.wall_seconds if record.wall_seconds else None,
        "seconds_left": record.num_missing * record.wall_seconds / done if done and record.num_missing else None,
        "best": None if found.best is None else point_json(found.best),
        "frozen_base": None if record.base is None else {"accuracy": record.base.accuracy, "nll": record.base.mean_nll},
        "failures": failures,
        "infeasible": infeasible,
        "stopped_at": {str(step): count for step, count in sorted(found.stopped_at.items())},
        "retried": [{"trial": number, "attempt": attempt} for number, attempt in found.retried],
        "model": record.spec.model,
        "task": record.spec.task.name,
        "space": record.spec.space.name,
        "budget": record.spec.budget,
    }


def _max_trainings_after(plan: "Plan") -> dict[str, int]:
    """Trainings that may follow the search, at most, each of one seed but for the random ones, which have the search's seeds."""
    spec, starts = plan.spec, len(plan.starts)
    races, confirms = spec.replication, spec.confirmation
    further = max(0, races.max_seeds - len(spec.proxy.seeds))
    random = confirms.random_trials if confirms.random_trials is not None else max(0, spec.trials - starts)
    wanted = confirms.candidates > 0
    return {
        "replicas": races.contenders * further if races.contenders > 1 else 0,
        "random": random if wanted else 0,
        "confirmation": (confirms.candidates + starts + 1) * confirms.seeds if wanted else 0,
    }


def plan_json(plan: "Plan", *, seconds: float | None, name: str, workers: int) -> dict[str, Any]:
    """What a run would do."""
    spec, shape = plan.spec, plan.shape
    examples = []
    for point in plan.proposals.examples(_NUM_EXAMPLES):
        total = plan.space.cost(point)
        examples.append({"allocation": str(plan.space.decode(point)), "trainable": total.trainable, "active": total.active})
    return {
        "study": name,
        "spec_hash": spec.digest,
        "model": {
            "name": spec.model,
            "architecture": shape.architecture,
            "layers": shape.num_layers,
            "hidden_size": shape.hidden_size,
            "targets": list(shape.targets),
            "parameters": shape.num_parameters,
            "shape_hash": shape.digest,
        },
        "task": spec.task.name,
        "budget": {"text": spec.budget, "max_trainable": plan.budget.max_trainable, "max_active": plan.budget.max_active},
        "space": {
            "name": spec.space.name,
            "dimensions": [{"name": d.name, "choices": list(d.choices)} for d in plan.space.dimensions],
            "points": plan.space.num_points,
        },
        "routing": codec.routing_to_json(plan.space.routing),
        "objective": spec.objective,
        "ladder": list(plan.proposals.shares),
        "sampler": spec.sampler,
        "trials": spec.trials,
        "seeds": list(spec.proxy.seeds),
        "steps": spec.proxy.num_steps,
        "rungs": list(spec.proxy.rungs),
        "scheduler": spec.scheduler.model_dump(mode="json"),
        "workers": workers,
        "estimated_seconds": seconds,
        "max_trainings_after": _max_trainings_after(plan),
        "warm_starts": [
            {
                "name": start.name,
                "allocation": str(start.allocation),
                "trainable": start.cost.trainable,
                "active": start.cost.active,
                "baseline": start.is_baseline,
            }
            for start in plan.starts
        ],
        "oversized_warm_starts": list(plan.oversized),
        "scored_warm_starts": list(plan.scored),
        "examples": examples,
    }
