"""Builds a tabular benchmark of allocations: every allocation of a pool trained with every seed, scored at every rung and at the end.

    python benchmarks/tabular_build.py studies/tabular-minilm.yaml --allocations 150 --out tables/minilm --workers 2
    python benchmarks/tabular_build.py studies/tabular-minilm.yaml --allocations 150 --out tables/minilm --combine tabular_minilm.parquet

The study says model, task, budget, proxy, seeds (`proxy.seeds`) and rungs (`proxy.rungs`). A training's results are one small file under
OUT/parts, written when it ends: a killed builder loses at most the training that runs, and the same command goes on. `--combine` writes
what there is to one Parquet file; `benchmarks/README.md` explains its columns.
"""

import argparse
import json
import multiprocessing
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from tabular_pool import Entry, pool
from tabular_rows import combine, take_up
from tabular_training import TableEvaluator, trained

from allocsearch import spec as specs
from allocsearch.backends.evaluation import limit_threads
from allocsearch.core.errors import InputError
from allocsearch.models import model_digest, resolve
from allocsearch.planning import plan
from allocsearch.spec import StudySpec
from allocsearch.training.tasks import load_task
from allocsearch.workplace import versions

Job = tuple[Entry, int]


def main() -> None:
    options = _options()
    if options.combine is not None:
        print(combine(options.out, options.combine))
        return
    spec = specs.load(options.study)
    entries = pool(plan(spec), options.allocations, seed=options.seed)
    _settle(options.out, spec, entries)
    if options.take_up is not None:
        print(f"{take_up(options.take_up, options.out)} trainings taken over from {options.take_up}")
    pending = [job for job in _jobs(spec, entries) if not _part(options.out, job).exists()][: options.limit]
    print(f"{len(pending)} trainings to run, {len(entries)} allocations, seeds {list(spec.proxy.seeds)}", flush=True)
    if options.workers == 1:
        _work(spec, pending, options.out, test=options.test)
        return
    context = multiprocessing.get_context("spawn")
    shares = [pending[i :: options.workers] for i in range(options.workers)]
    processes = [context.Process(target=_work, args=(spec, jobs, options.out), kwargs={"test": options.test}) for jobs in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def _jobs(spec: StudySpec, entries: tuple[Entry, ...]) -> list[Job]:
    """Allocation by allocation, so that an unfinished table is a smaller table, all of whose rows have every seed."""
    return [(entry, seed) for entry in entries for seed in spec.proxy.seeds]


def _part(out: Path, job: Job) -> Path:
    return out / "parts" / f"{job[0].number:04d}-{job[1]}.json"


def _settle(out: Path, spec: StudySpec, entries: tuple[Entry, ...]) -> None:
    """Write what the table is a table of; a later call must mean the same."""
    (out / "parts").mkdir(parents=True, exist_ok=True)
    source = resolve(spec.model)
    digests = {"task_digest": load_task(spec.task.source()).digest, "model_digest": model_digest(source, spec.revision)}
    settled = {"spec": spec.to_json(), "spec_digest": spec.digest, **digests, "entries": [entry.to_json() for entry in entries]}
    file = out / "table.json"
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        if any(before[key] != settled[key] for key in ("spec_digest", "entries", *digests)):
            raise InputError(f"a resumed table must have the study and pool that it began with, but {file} has others: give another --out")
        return
    file.write_text(json.dumps({**settled, "versions": versions()}, indent=1) + "\n", encoding="utf-8")


def _work(spec: StudySpec, jobs: list[Job], out: Path, *, test: bool) -> None:
    limit_threads(1)
    evaluator = TableEvaluator(spec, str(resolve(spec.model)), artifacts=out if test else None)
    _ = evaluator.bench  # loaded before the first training's seconds count
    started = time.perf_counter()
    for done, job in enumerate(jobs, start=1):
        record = trained(evaluator, job[0], seed=job[1])
        draft = _part(out, job).with_suffix(".part")
        draft.write_text(json.dumps(record), encoding="utf-8")
        draft.replace(_part(out, job))
        left = (time.perf_counter() - started) / done * (len(jobs) - done)
        print(f"{_line(job, record)}  [{done}/{len(jobs)}, {left / 60:.0f} min left]", flush=True)


def _line(job: Job, record: dict[str, object]) -> str:
    entry, seed = job
    if "failed" in record:
        return f"{entry.number:4d} seed {seed}  {record['failed']}"
    last = record["rungs"][-1]
    scores = f"{last['accuracy']:.3f}  {last['nll']:.4f}  {last['cpu_seconds']:5.1f} s"
    return f"{entry.number:4d} seed {seed}  {entry.trainable:>9,}  {scores}  {entry.origin:14s} {entry.allocation}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="a study's YAML file, or the name of a shipped one")
    parser.add_argument("--allocations", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0, help="decides the pool")
    parser.add_argument("--out", type=Path, required=True, help="folder of the part files")
    parser.add_argument("--workers", type=int, choices=(1, 2, 3, 4), default=1, help="processes, one thread each")
    parser.add_argument("--test", action="store_true", help="score each training on the test split too (`proxy.test_rows`)")
    parser.add_argument("--limit", type=int, help="stop after so many trainings")
    parser.add_argument("--take-up", type=Path, metavar="PARQUET", help="go on with an unfinished table, without its part files")
    parser.add_argument("--combine", type=Path, metavar="PARQUET", help="write one Parquet file from the parts, and train nothing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
