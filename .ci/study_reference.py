"""Writes the reference of a study's keys from its JSON schema, as Markdown, to stdout."""

import json
from typing import Any

from allocsearch import json_schemas

SKIPPED = {"schema"}


def table(part: dict[str, Any], parts: dict[str, Any]) -> str:
    """The keys of one object: what they take, their default, and what they mean."""
    lines = ["| key | takes | default | means |", "|---|---|---|---|"]
    for key, value in part["properties"].items():
        if key not in SKIPPED:
            default = "required" if key in part.get("required", ()) else _default(value)
            meaning = value.get("description", "") or _of_part(value, parts)
            lines.append(f"| `{key}` | {_takes(value)} | {default} | {_plain(meaning)} |")
    return "\n".join(lines)


def _takes(value: dict[str, Any]) -> str:
    if "$ref" in value:
        return f"[{_anchor(value)}](#{_anchor(value)})"
    if "anyOf" in value:
        return " or ".join(_takes(one) for one in value["anyOf"] if one.get("type") != "null")
    if "enum" in value or "const" in value:
        return ", ".join(f"`{one}`" for one in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        return f"list of {_takes(value.get('items', {}))}"
    return {"string": "text", "integer": "whole number", "boolean": "`true`, `false`", "object": "mapping"}.get(
        str(value.get("type")), str(value.get("type", "anything"))
    )


def _default(value: dict[str, Any]) -> str:
    given = value.get("default")
    return "" if given is None or given == "" or "$ref" in value else f"`{json.dumps(given, ensure_ascii=False)}`"


def _of_part(value: dict[str, Any], parts: dict[str, Any]) -> str:
    return str(parts[value["$ref"].rpartition("/")[2]].get("description", "")).partition("\n")[0] if "$ref" in value else ""


def _anchor(value: dict[str, Any]) -> str:
    return _heading(value["$ref"].rpartition("/")[2])


def _heading(name: str) -> str:
    return name.removesuffix("Spec").lower()


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """One table for the study and one for each of its parts."""
    schema = json.loads(json_schemas.text("study"))
    parts = schema["$defs"]
    print("# Keys of a study\n\nMade from the [JSON schema](../schemas.md), which your editor can complete from.\n")
    print(table(schema, parts))
    for name, part in parts.items():
        print(f"\n## {_heading(name)}\n\n{part.get('description', '')}\n")
        print(table(part, parts))


if __name__ == "__main__":
    main()
