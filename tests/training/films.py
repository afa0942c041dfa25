"""A small task about films, in every file format."""

import json

from allocsearch.core.task import TaskSource


def film_rows(num_rows=60):
    return [{"id": n, "text": f"the {n}th, film", "label": n % 2, "word": ("bad", "good")[n % 2]} for n in range(num_rows)]


def write_rows(path, rows):
    if path.suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
    else:
        import csv

        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def film_source(path, **settings):
    return TaskSource(
        **{"name": "films", "path": str(path), "template": "{text} is", "label_column": "label", "choices": ("bad", "good"), **settings}
    )
