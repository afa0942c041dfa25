"""From a table's part files to one Parquet file."""

import json
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

SCHEMA = pa.schema(
    [
        ("number", pa.int32()),
        ("allocation", pa.string()),
        ("origin", pa.string()),
        ("share", pa.float32()),
        ("matched", pa.bool_()),
        ("trainable", pa.int64()),
        ("active", pa.int64()),
        ("seed", pa.int32()),
        ("step", pa.int32()),
        ("final", pa.bool_()),
        ("train_tokens", pa.int64()),
        ("accuracy", pa.float64()),
        ("nll", pa.float64()),
        ("test_accuracy", pa.float64()),
        ("test_nll", pa.float64()),
        ("cpu_seconds", pa.float32()),
    ]
)


def combine(out: Path, target: Path) -> str:
    """Write every row of OUT/parts to `target`, and say how many there are. What the table is of goes into the file's metadata."""
    table = json.loads((out / "table.json").read_text(encoding="utf-8"))
    parts = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((out / "parts").glob("*.json"))]
    failed = [part for part in parts if "failed" in part]
    entries = {entry["number"]: entry for entry in table["entries"]}
    rows = [row for part in parts if "failed" not in part for row in _rows(entries[part["number"]], part)]
    about = {key: table[key] for key in ("spec", "spec_digest", "task_digest", "model_digest", "versions")}
    about["failed"] = [{key: part[key] for key in ("number", "seed", "failed")} for part in failed]
    metadata = {"allocsearch": json.dumps(about)}
    target.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows, schema=SCHEMA).replace_schema_metadata(metadata), target, compression="zstd")
    missing = len(entries) * len(table["spec"]["proxy"]["seeds"]) - len(parts)
    return f"{target}: {len(rows)} rows of {len(parts)} trainings, {len(failed)} failed, {missing} missing, {target.stat().st_size:,} bytes"


def take_up(source: Path, out: Path) -> int:
    """Write OUT/parts for the trainings of an unfinished Parquet table, so that its building goes on; returns how many.

    Raises:
        ValueError: where it is a table of another study or another pool.
    """
    table = json.loads((out / "table.json").read_text(encoding="utf-8"))
    stored = parquet.read_table(source)
    about = json.loads(stored.schema.metadata[b"allocsearch"])
    if about["spec_digest"] != table["spec_digest"]:
        raise ValueError(f"a table to go on with must be of the same study, but {source} is of another")
    allocations = {entry["number"]: entry["allocation"] for entry in table["entries"]}
    trainings: dict[tuple[int, int], list[dict[str, object]]] = {}
    for row in stored.to_pylist():
        if allocations.get(row["number"]) != row["allocation"]:
            raise ValueError(f"a table to go on with must have the same pool, but allocation {row['number']} of {source} is another")
        trainings.setdefault((row["number"], row["seed"]), []).append(row)
    written = 0
    for (number, seed), rows in trainings.items():
        file = out / "parts" / f"{number:04d}-{seed}.json"
        if not file.exists():
            file.write_text(json.dumps(_part(sorted(rows, key=lambda row: row["step"]))), encoding="utf-8")
            written += 1
    return written


def _part(rows: list[dict[str, object]]) -> dict[str, object]:
    """A training as its part file had it; of the tokens only those up to rungs are known, and only those are ever read."""
    scores = ("step", "accuracy", "nll", "test_accuracy", "test_nll", "cpu_seconds")
    rungs = [{key: row[key] for key in scores if row[key] is not None} for row in rows]
    tokens, done = [], 0
    for row in rows:
        tokens += [row["train_tokens"]] * (row["step"] - done)
        done = row["step"]
    return {
        "number": rows[0]["number"],
        "allocation": rows[0]["allocation"],
        "seed": rows[0]["seed"],
        "rungs": rungs,
        "step_tokens": tokens,
    }


def _rows(entry: dict[str, object], part: dict[str, object]) -> list[dict[str, object]]:
    rungs = part["rungs"]
    return [
        {
            **entry,
            **rung,
            "seed": part["seed"],
            "final": rung is rungs[-1],
            "train_tokens": part["step_tokens"][rung["step"] - 1],
        }
        for rung in rungs
    ]
