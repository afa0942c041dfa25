"""Search strategies replayed on tables of trained allocations: what each would have found, for how many training tokens.

    nice -n 10 python benchmarks/replay.py results/tabular_minilm.parquet [more tables] [--repetitions 30]

Writes results/replay.json, .md and replay_figure.json (for plotly); with --png replay.png, too, which takes kaleido
and a Chrome. A search sees one seed; truth is the mean of the others.
"""

import argparse
import datetime as dt
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import replay_page
import replay_race
from replay_search import STRATEGIES, Setting, search
from replay_table import load

RESULTS = Path(__file__).with_name("results")
MODES = ("budget", "pareto")
MIN_TRAININGS = 16  # twice the published starting points, so that a search follows them
GRID = 24  # points of an anytime curve


def replay(path, num_repetitions):
    """Every strategy on one table, in both modes; the repetition decides the seen seed and the strategy's own."""
    table = load(path)
    full = max(report.tokens for row in table.rows for reports in row.reports.values() for report in reports)
    num_trainings = max(MIN_TRAININGS, len(table.rows) // 4)
    grid = [full * num_trainings * (i + 1) // GRID for i in range(GRID)]
    setting = Setting.of(table, num_trainings=num_trainings, token_limit=grid[-1])
    cases = []
    for mode in MODES:
        for name, strategy in STRATEGIES.items():
            started = time.process_time()
            runs = [_curve(table, search(table, strategy, setting, mode=mode, repetition=r), grid, r, mode) for r in range(num_repetitions)]
            print(f"{table.name} {mode} {name}: {time.process_time() - started:.0f} s", flush=True)
            cases.append({"mode": mode, "strategy": name, "runs": runs})
    about = {key: table.about[key] for key in ("spec_digest", "task_digest", "model_digest", "versions")}
    return {
        "table": table.name, "about": about, "num_allocations": len(table.rows), "num_left_out": table.num_left_out,
        "seeds": list(table.seeds), "num_trainings": num_trainings, "first_rung": setting.first_rung, "agreement": setting.agreement,
        "tokens": grid, "cases": cases, "races": replay_race.ablation(table, setting, num_repetitions),
    }  # fmt: skip


def _curve(table, trials, grid, repetition, mode):
    """What a user of the trials that had ended by each number of tokens would have had, in true values."""
    seen = table.seeds[repetition % len(table.seeds)]
    truth = {row.number: table.truth(row, seen) for row in table.rows}
    return [replay_page.standing(table, [trial for trial in trials if trial.ended_at <= tokens], truth, mode=mode) for tokens in grid]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--png", action="store_true")
    options = parser.parse_args()
    tables = [replay(path, options.repetitions) for path in options.tables]
    about = {name: version(name) for name in ("optuna", "numpy")} | {"python": platform.python_version()}
    about |= {"date": dt.datetime.now(dt.UTC).date().isoformat(), "cpu_seconds": round(time.process_time())}
    found = {"about": about, "num_repetitions": options.repetitions, "tables": tables}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "replay.json").write_text(json.dumps(found, separators=(",", ":")) + "\n", encoding="utf-8")
    (options.out / "replay.md").write_text(replay_page.markdown(found), encoding="utf-8")
    drawn = replay_page.figure(found)
    (options.out / "replay_figure.json").write_text(drawn.to_json() + "\n", encoding="utf-8")
    if options.png:
        drawn.write_image(options.out / "replay.png")


if __name__ == "__main__":
    main()
