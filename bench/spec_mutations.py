"""Job specs that are nearly right: good ones changed field by field, damaged byte by byte, and blown up."""

import copy
import functools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import orjson

from spool.protocol import parse

SCHEMA = json.loads((Path(__file__).resolve().parent.parent / "docs" / "job-spec.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SMALLEST = {"schema": 1, "model": "gemma-3-270m", "dataset": "examples/support_tickets.jsonl"}
ASKED = {"schema": 1, "kind": "generate", "model": "gemma-3-270m", "prompts": ["Hello"]}
FULL = parse.parse_spec(json.dumps(SMALLEST).encode()).to_json()
BASES = [SMALLEST, FULL, {**SMALLEST, "train": {"max_steps": 30, "batch_size": 4}, "lora": {"rank": 8, "alpha": 32}}]
BASES += [ASKED, {**ASKED, "prompts": None, "dataset": "a.jsonl", "rows": 5, "temperature": 0.7}]


def of_kind(document: Any) -> dict[str, Any]:
    """The part of the schema that a document is judged by."""
    return dict(SCHEMA["$defs"]["generate" if document.get("kind") == "generate" else "train"])


@functools.lru_cache(maxsize=300_000)
def field_fits(kind: str, group: str, name: str, value: bytes) -> bool:
    """Whether jsonschema lets a field of a group (or of the top, "") have a value, given as JSON."""
    node = of_kind({"kind": kind})
    node = SCHEMA["$defs"][node["properties"][group]["$ref"].rpartition("/")[2]] if group else node
    validator = VALIDATOR.evolve(schema={**node["properties"][name], "$defs": SCHEMA["$defs"]})
    return bool(validator.is_valid(json.loads(value)))


def interesting_values() -> list[Any]:
    """What fields are set to: every bound and its neighbours, every enum and its misspelling, and plain rubbish."""
    values: list[Any] = [None, True, False, 0, 1, -1, -0.0, 16.0, 1e308, 10**30, 2**63, "", "auto", "x" * 8193]
    values += [[], {}, [[]], {"": 0}, "\0", "../../etc/passwd", "é", "\N{PILE OF POO}", "__class__", "{{7*7}}", "$(id)"]
    values += ["hf:a/b", "a" * 121, ["adapter"], ["merged", "adapter"], ["gguf:q4_k_m"], {"patience": 2}, {"a": "b"}]
    nodes = [node for group in [SCHEMA, *SCHEMA["$defs"].values()] for node in group.get("properties", {}).values()]
    for node in [inner for each in nodes for inner in [each, *each.get("anyOf", [])]]:
        for bound in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if bound in node:
                values += [node[bound], node[bound] - 1, node[bound] + 1, node[bound] / 2, node[bound] + 1e-9]
        for word in node.get("enum", []):
            values += [word, f"{word}x", str(word).upper()]
        if "default" in node:
            values.append(node["default"])
    return values


VALUES = interesting_values()
NAMES = sorted({name for group in [SCHEMA, *SCHEMA["$defs"].values()] for name in group.get("properties", {})})
TOKENS = [
    b"\0",
    b"\xef\xbb\xbf",
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"\\ud800",
    b"[" * 40,
    b"{" * 40,
    b'"',
    b"\\",
    b",,",
    b"//",
]
TOKENS += [
    b"/*",
    b"'",
    b"\xff",
    b"\xed\xa0\x80",
    b"\n",
    b"\r\n",
    b"9" * 400,
    b"-",
    b"true",
    b"null",
    b'"schema":1,',
    b"\\u0000",
]


def changed(chance: random.Random) -> dict[str, Any]:
    """A document one to five changes away from a good one."""
    document = copy.deepcopy(chance.choice(BASES))
    for _ in range(chance.randint(1, 5)):
        groups = [document, *(value for value in document.values() if isinstance(value, dict))]
        group = chance.choice(groups)
        name = chance.choice(list(group) or NAMES) if chance.random() < 0.7 else chance.choice(NAMES)
        kind = chance.random()
        if kind < 0.6:
            group[name] = copy.deepcopy(chance.choice(VALUES))
        elif kind < 0.7:
            group.pop(name, None)
        elif kind < 0.8:
            group[misspelt(chance, name)] = group.pop(name, 1)
        elif kind < 0.9:
            inner = group.get(name)
            group[name] = nested(chance, inner)
        else:
            group[name] = chance.choice([chance.randint(-10, 5000), chance.random() * 10 ** chance.randint(-9, 9)])
    return document


def fitting(chance: random.Random) -> dict[str, Any]:
    """A document whose fields mostly fit: what reaches the rules across fields, and is accepted."""
    document = copy.deepcopy(chance.choice(BASES))
    for _ in range(chance.randint(1, 4)):
        kind = str(document.get("kind", "train"))
        group_name = chance.choice(["", "lora", "train", "data", "eval", "limits"] if kind == "train" else [""])
        node = of_kind(document) if not group_name else SCHEMA["$defs"][group_name.capitalize()]
        target = document if not group_name else document.setdefault(group_name, {})
        name = chance.choice(list(node["properties"]))
        for _ in range(8):
            value = chance.choice(VALUES)
            if field_fits(kind, group_name, name, orjson.dumps(value, default=str) if small(value) else b"0"):
                target[name] = copy.deepcopy(value)
                break
    return document


def small(value: Any) -> bool:
    return not isinstance(value, int) or abs(value) < 2**63


def misspelt(chance: random.Random, name: str) -> str:
    at = chance.randrange(len(name) + 1)
    return chance.choice(
        [name[:at] + name[at + 1 :], name + chance.choice("sx_"), name.upper(), name[:at] + "é" + name[at:]]
    )


def nested(chance: random.Random, value: Any) -> Any:
    for _ in range(chance.choice([1, 2, 5, 30, 31, 32, 40])):
        value = [value] if chance.random() < 0.5 else {"a": value}
    return value


def written(chance: random.Random, document: Any) -> bytes:
    text = json.dumps(document, indent=chance.choice([None, None, 1]), ensure_ascii=chance.random() < 0.5)
    kind = chance.random()
    if kind < 0.03:
        return text.encode(chance.choice(["utf-16", "utf-16-le", "utf-32", "utf-8-sig"]))
    if kind < 0.05:  # one field twice
        return text.replace('"model"', f'"{chance.choice(NAMES)}": 1, "model"', 1).encode()
    return text.encode()


def structured(chance: random.Random) -> bytes:
    return written(chance, changed(chance))


def good(chance: random.Random) -> bytes:
    return written(chance, fitting(chance))


def damaged(chance: random.Random) -> bytes:
    """The bytes of a spec with one to four damages: flipped, cut, doubled, overwritten, spliced."""
    data = bytearray(written(chance, fitting(chance) if chance.random() < 0.5 else changed(chance)))
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        kind = chance.random()
        if kind < 0.3 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif kind < 0.5:
            data[at:at] = chance.choice(TOKENS)
        elif kind < 0.65:
            del data[at : at + chance.choice([1, 1, 2, 8, 50])]
        elif kind < 0.75:
            data[at:at] = data[at : at + chance.randint(1, 80)]
        elif kind < 0.85:
            del data[at:]
        elif kind < 0.95:
            data[at : at + 1] = chance.randbytes(chance.randint(1, 4))
        else:
            data[at:] = bytes(len(data) - at)
    return bytes(data)


def huge(chance: random.Random) -> bytes:
    """Up to the size limit, made of what is dear to parse."""
    unit = chance.choice(
        [b"[", b'{"a":', b"[],", b"{},", b'"",', b"1,", b"1.5,", b'\\"', b"\\\\", b'"', b"\n", b"9", b"x", b"a,"]
    )
    count = chance.randint(1000, parse.MAX_BYTES) // len(unit)
    head = json.dumps(changed(chance)).encode()
    return chance.choice(
        [unit * count, b"[" + unit * count + b"1]", head[:-1] + b',"x":[' + unit * count + b"1]}", head + unit * count]
    )


def many_fields(chance: random.Random) -> bytes:
    wide = {
        misspelt(chance, chance.choice(NAMES)) + str(i): chance.choice(VALUES) for i in range(chance.randint(50, 990))
    }
    group = chance.choice(["", "train", "data", "limits"])
    return written(chance, {**SMALLEST, **wide} if not group else {**SMALLEST, group: wide})


MAKERS: list[Callable[[random.Random], bytes]] = [structured, good, damaged, huge, many_fields]
WEIGHTS = [40, 25, 33, 1, 1]


def mutated(chance: random.Random) -> bytes:
    """One case: 40 % changed, 25 % nearly good, 33 % damaged, 1 % huge, 1 % with many fields."""
    return chance.choices(MAKERS, WEIGHTS)[0](chance)[: parse.MAX_BYTES + 1]
