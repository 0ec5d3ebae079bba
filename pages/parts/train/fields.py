"""The job spec's settings as form fields, read from its JSON Schema: label, help, bounds and default in one place."""

from dataclasses import dataclass, replace
from typing import Any

from pages.parts import words
from spool.protocol.schema import train_schema

ESSENTIAL = (
    "/name",
    "/train/epochs",
    "/lora/rank",
    "/train/learning_rate",
    "/train/effective_batch",
    "/data/train_on",
)
ELSEWHERE = ("/schema", "/kind", "/model", "/dataset", "/submission_id", "/retry_of", "/submitted_by", "/export")
"""Not drawn as plain fields: fixed, or with a place of their own on the page."""

NOT_OFFERED = ("/limits/on_nan",)
"""Fields with only one value that means anything in this version; a list that must be empty is left out too."""


@dataclass(frozen=True)
class Field:
    """One setting.

    `low` and `high` bound a number; of a text `high` is the most characters, of texts how many there may be.
    `kind` is integer, number, choice, switch, text, texts (a list of them), names, several (of the choices), pairs,
    shares (pairs with numbers) or group (switched on as a whole).
    """

    pointer: str
    label: str
    help: str
    kind: str
    default: Any
    auto: bool = False
    nullable: bool = False
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    members: tuple["Field", ...] = ()

    @property
    def group(self) -> str:
        return self.pointer.split("/")[1] if self.pointer.count("/") > 1 else ""

    @property
    def unset(self) -> str:
        """What an empty box stands for: auto, none (no limit), or nothing that needs a word."""
        return "auto" if self.auto else "none" if self.nullable and self.kind != "text" else ""


def all_fields() -> dict[str, Field]:
    """Every offered field by its JSON pointer, in the order of the spec."""
    schema = train_schema()
    found: dict[str, Field] = {}
    for name, node in schema["properties"].items():
        target = _resolve(schema, node)
        if "properties" in target:
            for member, child in target["properties"].items():
                _add(found, schema, f"/{name}/{member}", child)
        else:
            _add(found, schema, f"/{name}", node)
    return found


def _add(found: dict[str, Field], schema: dict[str, Any], pointer: str, node: dict[str, Any]) -> None:
    if pointer not in ELSEWHERE and pointer not in NOT_OFFERED and node.get("maxItems") != 0:
        found[pointer] = _field(schema, pointer, node)


KINDS = {
    "array": "several",
    "integer": "integer",
    "number": "number",
    "object": "pairs",
    "boolean": "switch",
    "string": "text",
}


def _field(schema: dict[str, Any], pointer: str, node: dict[str, Any]) -> Field:
    options = [_resolve(schema, option) for option in node.get("anyOf", [node])]
    main = next(o for o in options if o.get("type") != "null" and o.get("const") != "auto")
    field = Field(
        pointer=pointer,
        label=words.label(pointer),
        help=words.explain(pointer, " ".join(str(node.get("description", "")).split())),
        kind=KINDS[main["type"]] if "type" in main else "choice",
        default=node.get("default"),
        auto=any(option.get("const") == "auto" for option in options),
        nullable=any(option.get("type") == "null" for option in options),
        choices=tuple(main.get("enum") or main.get("items", {}).get("enum", ())),
        low=main.get("minimum", main.get("exclusiveMinimum")),
        high=main.get("maximum", main.get("exclusiveMaximum", main.get("maxLength"))),
    )
    if "properties" in main:
        members = tuple(_field(schema, f"{pointer}/{name}", child) for name, child in main["properties"].items())
        return replace(field, kind="group", members=members)
    if field.kind == "several":
        return field if field.choices else replace(field, kind="texts", high=main.get("maxItems"))
    if any(option.get("type") == "array" for option in options):
        return replace(field, kind="names", choices=())
    if main.get("additionalProperties", {}).get("type") == "number":
        return replace(field, kind="shares")
    if field.kind == "switch" and field.auto:
        return replace(field, kind="choice", choices=("auto", True, False))
    return replace(field, kind="choice") if field.choices else field


def _resolve(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        return schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node
