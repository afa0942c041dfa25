"""The long form of the fault matrix: every fault again and again, each on a study of its own.

    python -m tests.faults --hits 200 --results faults.jsonl

What is done is a line in the results, so that it can be stopped and gone on with; --table prints what the lines come to.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.bench import Bench
from tests.faults.cluster import started_when_needed
from tests.faults.matrix import MOMENTS, faults
from tests.postgres import PostgresServer

_MOST_MISSES = 6


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--hits", type=int, default=200, help="how many faults must have struck at their moment")
    parser.add_argument("--rounds", type=int, default=1, help="how often those that need Ray are struck, which take longer")
    parser.add_argument("--where", nargs="*", default=["inline", "cluster", "local"], help="where trials are trained")
    parser.add_argument("--results", type=Path, default=Path("faults.jsonl"), help="one line for each fault")
    parser.add_argument("--table", action="store_true", help="only print what is done")
    options = parser.parse_args()
    if not options.table:
        strike_all(options)
    sys.stdout.write(table(lines(options.results)) + "\n")


def following(done, *, hits, rounds, where):
    """The fault to try next: the one that has struck least often; None when all is done. One that keeps missing is given up."""
    struck, tried = (Counter(line["fault"] for line in some) for some in ([line for line in done if line["hit"]], done))
    enough = struck.total() >= hits
    wanted = [
        fault
        for fault in faults()
        if fault.where in where
        and (struck[str(fault)] < rounds or (fault.where == "inline" and not enough))
        and tried[str(fault)] - struck[str(fault)] < _MOST_MISSES * (1 + struck[str(fault)])
    ]
    return min(wanted, key=lambda fault: struck[str(fault)], default=None)


def strike_all(options):
    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", "tests.faults.driver", "allocsearch.backends.ray_executor"])
    server = PostgresServer()
    try:
        server.start()
        with started_when_needed() as cluster:
            while fault := following(lines(options.results), hits=options.hits, rounds=options.rounds, where=options.where):
                line = tried(fault, len(lines(options.results)), server, cluster() if fault.where == "cluster" else None)
                with options.results.open("a") as results:
                    results.write(json.dumps(line) + "\n")
                sys.stdout.write(json.dumps(line) + "\n")
                sys.stdout.flush()
    finally:
        server.remove()


def tried(fault, index, server, cluster):
    """The line of results that it leaves."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        started = time.monotonic()
        bench = Bench(server, Path(folder) / "bench", f"fault-{index}-{os.getpid()}", index=index, cluster=cluster)
        found = bench.run(fault)
        said = (bench.folder / "log").read_text()[-2000:] if found["wrong"] else ""
    return {"index": index, "fault": str(fault), "commit": commit(), **found, "seconds": round(time.monotonic() - started, 1), "log": said}


def commit():
    """Of the sources; empty where they are no checkout."""
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(done):
    """Markdown: for each fault, how many struck at each moment, how many missed it, and after how many something was wrong."""
    found = {}
    for line in done:
        whom, how, when, where = line["fault"].split(", ")
        counts = found.setdefault((whom, how, where), Counter())
        counts[when if line["hit"] else "missed"] += 1
        counts["wrong"] += bool(line["wrong"])
    columns = (*MOMENTS, "missed", "wrong")
    ordered = dict.fromkeys((fault.whom, fault.how, fault.where) for fault in faults())
    rows = [f"| {' | '.join(key)} | " + " | ".join(str(found[key][column]) for column in columns) + " |" for key in ordered if key in found]
    total = sum(found.values(), Counter())
    rows.append("| all | | | " + " | ".join(str(total[column]) for column in columns) + " |")
    return "\n".join(["| whom | how | trained | " + " | ".join(columns) + " |", "|---" * 3 + "|---:" * len(columns) + "|", *rows])


if __name__ == "__main__":
    main()
