"""Assignments and outcomes as JSON values: what travels to workers and what the database keeps. Never pickle."""

from collections.abc import Mapping
from typing import Any, Final

from allocsearch.core.allocation import Allocation
from allocsearch.core.geometry import Routing
from allocsearch.core.trial import Assignment, Failed, Infeasible, Lost, Measured, Outcome, RungScore, SeedScore, Stopped

_NLL_DIGITS: Final = 5


def routing_to_json(routing: Routing) -> dict[str, Any]:
    """Router, top_k, targets and swi_x."""
    top_k = list(routing.top_k) if isinstance(routing.top_k, tuple) else routing.top_k
    return {"router": routing.router, "top_k": top_k, "targets": list(routing.targets), "swi_x": routing.swi_x}


def routing_from_json(data: Mapping[str, Any]) -> Routing:
    """Read what `routing_to_json` wrote."""
    top_k = data["top_k"]
    return Routing(data["router"], tuple(top_k) if isinstance(top_k, list) else top_k, tuple(data["targets"]), data["swi_x"])


def assignment_to_json(assignment: Assignment) -> dict[str, Any]:
    """Every field of an assignment."""
    return {
        "number": assignment.number,
        "allocation": str(assignment.allocation),
        "routing": routing_to_json(assignment.routing),
        "seeds": list(assignment.seeds),
        "rungs": list(assignment.rungs),
        "keep_weights": assignment.keep_weights,
        "score_base": assignment.score_base,
        "split": assignment.split,
        "params": assignment.params,
        "stoppable": assignment.stoppable,
    }


def assignment_from_json(data: Mapping[str, Any]) -> Assignment:
    """Read what `assignment_to_json` wrote."""
    return Assignment(
        number=data["number"],
        allocation=Allocation.parse(data["allocation"]),
        routing=routing_from_json(data["routing"]),
        seeds=tuple(data["seeds"]),
        rungs=tuple(data["rungs"]),
        keep_weights=data["keep_weights"],
        score_base=data["score_base"],
        split=data["split"],
        params=data["params"],
        stoppable=data["stoppable"],
    )


def score_to_json(score: SeedScore) -> dict[str, Any]:
    """One seed's rows: correctness as a string of 0 and 1, NLL to five digits."""
    bits = "".join("1" if right else "0" for right in score.correct)
    return {"seed": score.seed, "correct": bits, "nll": [round(value, _NLL_DIGITS) for value in score.nll]}


def score_from_json(data: Mapping[str, Any]) -> SeedScore:
    """Read what `score_to_json` wrote."""
    return SeedScore(data["seed"], tuple(bit == "1" for bit in data["correct"]), tuple(data["nll"]))


def rungs_to_json(rungs: tuple[RungScore, ...]) -> list[list[float]]:
    """Rows of seed, step, accuracy, NLL."""
    return [[rung.seed, rung.step, rung.accuracy, rung.nll] for rung in rungs]


def rungs_from_json(data: list[list[float]]) -> tuple[RungScore, ...]:
    """Read what `rungs_to_json` wrote."""
    return tuple(RungScore(int(seed), int(step), accuracy, nll) for seed, step, accuracy, nll in data)


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome with its kind."""
    if isinstance(outcome, Lost):
        return {"kind": "lost", "reason": outcome.reason, "by_machine": outcome.by_machine}
    cost = {"seconds": outcome.seconds, "worker": outcome.worker, "gpus": outcome.gpus, "tokens": outcome.tokens}
    match outcome:
        case Measured():
            return {
                **cost,
                "kind": "measured",
                "scores": [score_to_json(score) for score in outcome.scores],
                "base": None if outcome.base is None else score_to_json(outcome.base),
                "artifact": outcome.artifact,
                "rungs": rungs_to_json(outcome.rungs),
                "statistics": dict(outcome.statistics),
            }
        case Stopped():
            return {**cost, "kind": "stopped", "rungs": rungs_to_json(outcome.rungs)}
        case Failed() | Infeasible():
            return {**cost, "kind": "failed" if isinstance(outcome, Failed) else "infeasible", "reason": outcome.reason}


def outcome_from_json(data: Mapping[str, Any]) -> Outcome:
    """Read what `outcome_to_json` wrote."""
    cost = {key: data[key] for key in ("seconds", "worker", "gpus", "tokens") if key in data}  # of a lost trial nothing is known
    match data["kind"]:
        case "measured":
            return Measured(
                scores=tuple(score_from_json(score) for score in data["scores"]),
                base=None if data["base"] is None else score_from_json(data["base"]),
                artifact=data["artifact"],
                rungs=rungs_from_json(data["rungs"]),
                statistics=data["statistics"],
                **cost,
            )
        case "stopped":
            return Stopped(rungs_from_json(data["rungs"]), **cost)
        case "failed":
            return Failed(data["reason"], **cost)
        case "infeasible":
            return Infeasible(data["reason"], **cost)
        case "lost":
            return Lost(data["reason"], data["by_machine"])
        case kind:
            raise ValueError(f"an outcome's kind must be measured, stopped, infeasible, failed or lost, but got {kind!r}")
