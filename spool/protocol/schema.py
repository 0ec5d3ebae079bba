"""The JSON Schema of a job spec: for editors, the command line, docs/job-spec.schema.json and the form on Train."""

from typing import Any

from spool.protocol.spec import KINDS, LAST, JobSpec

EDITORS: dict[str, Any] = {
    "type": "string",
    "maxLength": 1024,
    "description": "Where an editor finds this schema. The runner passes over it.",
}
DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a job spec, as committed in docs/job-spec.schema.json."""
    definitions: dict[str, Any] = {}
    for name, kind in KINDS.items():
        schema = kind.model_json_schema(by_alias=True)
        definitions |= schema.pop("$defs", {})
        definitions[name] = schema | {"properties": {"$schema": EDITORS, **schema["properties"]}}
    by_kind: dict[str, Any] = {"$ref": "#/$defs/train"}
    for name in reversed([name for name in KINDS if name != "train"]):
        named = {"properties": {"kind": {"const": name}}, "required": ["kind"]}
        by_kind = {"if": named, "then": {"$ref": f"#/$defs/{name}"}, "else": by_kind}
    return {
        "$schema": DRAFT,
        "title": "Gemma Fine-Tuner job spec",
        "type": "object",
        "properties": {"kind": {"enum": list(KINDS), "default": "train", "description": "What to do."}},
        **by_kind,
        "$defs": definitions,
    }


def train_schema() -> dict[str, Any]:
    """The schema of the kind `train` alone, whose fields a form offers."""
    schema = JobSpec.model_json_schema(by_alias=True)
    fields = schema["properties"]  # in the order of spec.json: what the form shows first stands first
    first = {name: each for name, each in fields.items() if name not in LAST}
    schema["properties"] = first | {name: fields[name] for name in LAST}
    return {"$schema": DRAFT, **schema}
