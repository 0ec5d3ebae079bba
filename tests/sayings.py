"""What spool and runner say to people, read out of their code: the templates of all messages, hints, causes and notes.

A template has `{}` where the code puts a value. What is handed to the SINKS is followed back to the literals that it
was made from: through names, conditions, our own functions, and parameters to their callers.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = "{}"
_PLACES = re.compile(r"\{\{\w*\}\}")
MOST = 32
"""Of more ways to say one thing than these, each part counts by itself."""

ERROR = {"message": 0, "hint": 1}
SINKS: dict[tuple[str, str], dict[str, int]] = {
    ("spool/data/reading/table.py", "Problem"): {"message": 2},
    ("spool/protocol/errors.py", "Problem"): {"message": 1, "hint": 2},
    ("spool/health/finding.py", "Finding"): {"message": 2, "cure": 3},
    ("spool/health/failure_rules.py", "_rule"): {"message": 2, "hint": 3},
    ("spool/health/failure.py", "_told"): {"message": 1, "hint": 2},
    ("spool/health/cures.py", "Change"): {"why": 3},
    ("spool/health/cures.py", "Suggestion"): {"sentence": 1},
    ("spool/data/judging/turns.py", "RowError"): {"message": 1},
    ("spool/data/judging/content.py", "Finding"): {"what": 1},
    ("runner/job.py", "note"): {"words": 0},
    ("runner/daemon.py", "Halt"): {"reason": 1},
    **{
        ("spool/protocol/errors.py", name): ERROR
        for name in ("FinetunerError", "DataError", "ModelError", "NotFound", "SettingsError")
    },
}
RETURNED = (
    ("runner/schedule.py", "why_not"),
    ("runner/card.py", "busy"),
    ("runner/card.py", "fault"),
    ("runner/conclude.py", "_how"),
    ("runner/waits.py", "words"),
    ("spool/data/judging/content.py", "repair"),
    ("spool/data/prepare.py", "_none_held_out"),
)
"""What these return is said by itself as well."""

WORDS = {"message", "hint", "reason", "why", "waiting_for"}
"""So are what has these names: keys of documents, keywords of calls, attributes."""


@dataclass(eq=False)
class Function:
    """A function, or the top of a module: its parameters, what its names are given, and what it returns."""

    name: str
    module: "Module"
    params: list[str] = field(default_factory=list)
    is_method: bool = False
    base: str = ""
    """Of a class's __init__: the class that it is of, by its base's name."""
    given: dict[str, list[tuple[ast.expr, int | None]]] = field(default_factory=dict)
    added: dict[str, list[ast.expr]] = field(default_factory=dict)
    """What is put behind a name's text by +=."""
    returned: list[ast.expr] = field(default_factory=list)
    said: list[ast.expr] = field(default_factory=list)
    """What stands under one of WORDS."""
    calls: list[ast.Call] = field(default_factory=list)


class Module:
    def __init__(self, path: Path) -> None:
        self.path = str(path.relative_to(ROOT))
        self.imported: dict[str, tuple[str, str]] = {}
        """Name -> (file, name there); the name is "" where it is a module."""
        self.bases: dict[str, str] = {}
        self.top = Function("", self)
        self.functions: dict[str, Function] = {"": self.top}
        self._read(ast.parse(path.read_text("utf-8")), self.top, "")

    def _read(self, node: ast.AST, within: Function, klass: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                params = [each.arg for each in (*child.args.posonlyargs, *child.args.args)]
                own = Function(child.name, self, params, is_method=bool(klass) and params[:1] in (["self"], ["cls"]))
                if own.is_method:
                    own.params = params[1:]
                own.params += [each.arg for each in child.args.kwonlyargs]
                if klass and child.name == "__init__":
                    own.name, own.base = klass, self.bases.get(klass, "")
                self.functions.setdefault(own.name, own)
                self._read(child, own, "")
                continue
            if isinstance(child, ast.ClassDef):
                self.bases[child.name] = ast.unparse(child.bases[0]) if child.bases else ""
                self._read(child, within, child.name)
                continue
            self._learn(child, within)
            self._read(child, within, klass)

    def _learn(self, node: ast.AST, within: Function) -> None:
        match node:
            case ast.ImportFrom(module=str(origin), names=names):
                for each in names:
                    self.imported[each.asname or each.name] = (origin.replace(".", "/"), each.name)
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    _bind(within, target, value)
                    if _named(target) in WORDS:
                        within.said.append(value)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                _bind(within, target, value)
            case ast.AugAssign(target=ast.Name(id=name), value=value):
                within.added.setdefault(name, []).append(value)
            case ast.NamedExpr(target=target, value=value):
                _bind(within, target, value)
            case ast.For(target=target, iter=ast.Tuple(elts=elts) | ast.List(elts=elts)):
                for each in elts:
                    _bind(within, target, each)
            case ast.Return(value=ast.expr() as value) | ast.Expr(value=ast.Yield(value=ast.expr() as value)):
                within.returned.append(value)
            case ast.Call():
                within.calls.append(node)
                within.said += [each.value for each in node.keywords if each.arg in WORDS]
                if isinstance(node.func, ast.Attribute) and node.func.attr == "append" and node.args:
                    _bind(within, node.func.value, node.args[0])
            case ast.Dict(keys=keys, values=values):
                named = zip(keys, values, strict=True)
                within.said += [value for key, value in named if isinstance(key, ast.Constant) and key.value in WORDS]


def _named(target: ast.expr) -> object:
    """An attribute's name, or a key."""
    match target:
        case ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=name)):
            return name
    return None


def _bind(within: Function, target: ast.expr, value: ast.expr) -> None:
    if isinstance(target, ast.Name):
        within.given.setdefault(target.id, []).append((value, None))
    elif isinstance(target, ast.Tuple | ast.List):
        for at, each in enumerate(target.elts):
            if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
                _bind(within, each, value.elts[at])
            elif isinstance(each, ast.Name):
                within.given.setdefault(each.id, []).append((value, at))


@dataclass(frozen=True)
class Saying:
    template: str
    where: str
    whole: bool
    """Whether it is said by itself, or is a part of another."""


Env = dict[str, list[str]]


class Reader:
    """Call `said` once; `asides` is whether RETURNED and WORDS count as well as the sinks."""

    def __init__(
        self, folders: tuple[str, ...], sinks: dict[tuple[str, str], dict[str, int]] = SINKS, asides: bool = True
    ) -> None:
        self._given, self._asides = sinks, asides
        paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
        self.modules = {module.path: module for module in map(Module, paths)}
        self.found: dict[tuple[str, bool], Saying] = {}
        self._calls: dict[tuple[str, str], list[tuple[Function, ast.Call]]] = {}
        self._wanted: dict[tuple[str, str, str], bool] = {}
        """(file, function, parameter) -> whether what is handed over is said by itself."""
        self._sinks: dict[tuple[str, str], dict[str, int]] = {}
        self._todo: list[tuple[str, str, str]] = []
        self._at = ""
        self._within: list[Function] = []

    def said(self) -> list[Saying]:
        for module in self.modules.values():
            for function in module.functions.values():
                for call in function.calls:
                    if called := self._called(call.func, function):
                        self._calls.setdefault(called, []).append((function, call))
        for (path, name), params in self._given.items():
            self._want_all(path, name, params)
        if self._asides:
            self._say_asides()
        done: set[tuple[str, str, str, bool]] = set()
        while self._todo:
            path, name, param = self._todo.pop()
            whole = self._wanted[path, name, param]
            if (path, name, param, whole) in done:
                continue
            done.add((path, name, param, whole))
            for function, handed in self._handed(path, name, param):
                self._say(handed, function, whole)
        return list(self.found.values())

    def _want_all(self, path: str, name: str, params: dict[str, int]) -> None:
        """A sink's parameters, and those of the classes made from it that have no __init__ of their own."""
        self._sinks[path, name] = params
        for param in params:
            self._want(path, name, param, True)
        for module in self.modules.values():
            for made, base in module.bases.items():
                if made not in module.functions and self._home(module, base) == (path, name) != (module.path, made):
                    self._want_all(module.path, made, params)

    @cached_property
    def _methods(self) -> dict[str, tuple[str, str]]:
        """Methods whose name no other has."""
        found: dict[str, list[tuple[str, str]]] = {}
        for module in self.modules.values():
            for name, function in module.functions.items():
                if function.is_method:
                    found.setdefault(name, []).append((module.path, name))
        return {name: places[0] for name, places in found.items() if len(places) == 1}

    def _say_asides(self) -> None:
        for path, name in RETURNED:
            function = self.modules[path].functions[name]
            for value in function.returned:
                for each in value.elts if isinstance(value, ast.Tuple) else [value]:
                    self._say(each, function, True)
        for module in self.modules.values():
            for function in module.functions.values():
                for value in function.said:
                    self._say(value, function, True)

    def _want(self, path: str, name: str, param: str, whole: bool) -> None:
        key = (path, name, param)
        if (whole and not self._wanted.get(key)) or key not in self._wanted:
            self._wanted[key] = whole or self._wanted.get(key, False)
            self._todo.append(key)

    def _handed(self, path: str, name: str, param: str) -> Iterator[tuple[Function, ast.expr]]:
        """What callers give for a parameter, and where."""
        place = self._sinks.get((path, name), {}).get(param)
        if place is None and path in self.modules and name in self.modules[path].functions:
            params = self.modules[path].functions[name].params
            place = params.index(param) if param in params else None
        for function, call in self._calls.get((path, name), []):
            named = [each.value for each in call.keywords if each.arg == param]
            if named:
                yield function, named[0]
            elif place is not None and len(call.args) > place:
                yield function, call.args[place]

    def _called(self, func: ast.expr, within: Function) -> tuple[str, str] | None:
        module = within.module
        match func:
            case ast.Name(id=name):
                return self._home(module, name)
            case ast.Attribute(value=ast.Call(func=ast.Name(id="super")), attr="__init__"):
                return self._home(module, within.base)
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in module.imported:
                folder, inner = module.imported[owner]
                path = f"{folder}/{inner}.py"
                return (path, name) if path in self.modules else None
            case ast.Attribute(attr=name) if name in module.functions and module.functions[name].is_method:
                return module.path, name
            case ast.Attribute(attr=name):
                return self._methods.get(name)
        return None

    def _home(self, module: Module, name: str) -> tuple[str, str] | None:
        if name in module.imported:
            folder, inner = module.imported[name]
            return f"{folder}.py", inner
        return module.path, name

    def _say(self, expr: ast.expr, within: Function, whole: bool) -> None:
        self._at = f"{within.module.path}:{expr.lineno}"
        for template in self._resolve(expr, within, {}, whole, 0):
            if within.module.path == "spool/health/failure_rules.py":  # filled in by format(), from a match
                template = _PLACES.sub(PLACE, template)
            self.found.setdefault((template, whole), Saying(template, self._at, whole))

    def _resolve(self, expr: ast.expr, within: Function, env: Env, whole: bool, depth: int) -> list[str]:
        """The templates that an expression may come to."""
        if depth > 12:
            return [PLACE]
        go = lambda each: self._resolve(each, within, env, whole, depth + 1)  # noqa: E731
        match expr:
            case ast.Constant(value=str(text)):
                return [_escaped(text)]
            case ast.Constant():
                return [PLACE]
            case ast.JoinedStr(values=values):
                return _joined([self._part(each, within, env, depth) for each in values])
            case ast.BinOp(op=ast.Add(), left=left, right=right):
                return _joined([go(left), go(right)])
            case ast.IfExp(body=body, orelse=orelse):
                return _each(go(body) + go(orelse))
            case ast.BoolOp(values=values):
                return _each([one for each in values for one in go(each)])
            case ast.Name(id=name):
                return self._named(name, within, env, whole, depth, None)
            case ast.Call(func=ast.Attribute(value=value, attr="format")):
                return [_PLACES.sub(PLACE, each) for each in go(value)]
            case ast.Call(func=ast.Attribute(value=value, attr="rstrip" | "strip" | "removesuffix")):
                return go(value)
            case ast.Call():
                return self._from_call(expr, within, env, whole, depth, None)
            case ast.Subscript(value=ast.Name() as name):
                return self._named(name.id, within, env, whole, depth, None)
            case ast.Dict(values=values):
                return _each([one for each in values if each for one in go(each)])
            case ast.NamedExpr(value=value):
                return go(value)
        return [PLACE]

    def _part(self, part: ast.expr, within: Function, env: Env, depth: int) -> list[str]:
        """A part of an f-string: endings and signs become part of the sentence, phrases are sayings of their own."""
        if isinstance(part, ast.Constant):
            return [_escaped(str(part.value))]
        assert isinstance(part, ast.FormattedValue)
        if part.conversion != -1:
            return [PLACE]
        ways = self._resolve(part.value, within, env, False, depth + 1)
        if len(ways) <= 3 and all(PLACE not in each and len(each) <= (24 if len(ways) > 1 else 200) for each in ways):
            return ways
        for each in ways:
            if each != PLACE:
                self.found.setdefault((each, False), Saying(each, self._at, False))
        return [PLACE]

    def _named(self, name: str, within: Function, env: Env, whole: bool, depth: int, part: int | None) -> list[str]:
        if name in env:
            return env[name]
        if name in within.given:
            found: list[str] = []
            for value, at in within.given[name]:
                found += self._taken(value, at, within, env, whole, depth)
            if name in within.params:
                self._want(within.module.path, within.name, name, whole)
            tails = [
                one
                for value in within.added.get(name, [])
                for one in self._resolve(value, within, env, whole, depth + 1)
            ]
            return _each([base + tail for base in _each(found) for tail in ["", *tails] if tail != PLACE])
        if name in within.params:
            self._want(within.module.path, within.name, name, whole)
            return [PLACE]
        home = self._home(within.module, name)
        module = self.modules.get(home[0]) if home else None
        if module and home and home[1] in module.top.given and (within is not module.top or depth < 10):
            return _each(
                [
                    one
                    for value, at in module.top.given[home[1]]
                    for one in self._taken(value, at, module.top, {}, whole, depth)
                ]
            )
        return [PLACE]

    def _taken(self, value: ast.expr, at: int | None, within: Function, env: Env, whole: bool, depth: int) -> list[str]:
        if at is None:
            return self._resolve(value, within, env, whole, depth + 1)
        if isinstance(value, ast.Call):
            return self._from_call(value, within, env, whole, depth, at)
        if isinstance(value, ast.Subscript) and isinstance(value.value, ast.Name):
            home = self._home(within.module, value.value.id)
            module = self.modules.get(home[0]) if home else None
            if module and home:
                return _each(
                    [
                        one
                        for table, _ in module.top.given.get(home[1], [])
                        if isinstance(table, ast.Dict)
                        for row in table.values
                        if isinstance(row, ast.Tuple) and len(row.elts) > at
                        for one in self._resolve(row.elts[at], module.top, {}, whole, depth + 1)
                    ]
                )
        return [PLACE]

    def _from_call(
        self, call: ast.Call, within: Function, env: Env, whole: bool, depth: int, at: int | None
    ) -> list[str]:
        """What one of our functions returns, with what it is handed in its place."""
        called = self._called(call.func, within)
        module = self.modules.get(called[0]) if called else None
        function = module.functions.get(called[1]) if module and called else None
        if function is None or not function.returned or function in self._within:
            return [PLACE]
        handed: Env = {}
        for name, given in [
            *zip(function.params, call.args, strict=False),
            *((each.arg, each.value) for each in call.keywords if each.arg),
        ]:
            handed[name] = self._resolve(given, within, env, False, depth + 1)
        found: list[str] = []
        self._within.append(function)
        for value in function.returned:
            if at is None:
                found += self._resolve(value, function, handed, whole, depth + 1)
            elif isinstance(value, ast.Tuple) and len(value.elts) > at:
                found += self._resolve(value.elts[at], function, handed, whole, depth + 1)
        self._within.pop()
        return _each(found)


def _escaped(text: str) -> str:
    """Literal text in a template."""
    return text.replace("{", "{{").replace("}", "}}")


def _joined(parts: list[list[str]]) -> list[str]:
    ways = 1
    for each in parts:
        ways *= max(1, len(each))
    if ways > MOST:
        parts = [each if len(each) == 1 else [PLACE] for each in parts]
    return _each(["".join(chosen) for chosen in product(*(each or [PLACE] for each in parts))])


def _each(found: list[str]) -> list[str]:
    return list(dict.fromkeys(found)) or [PLACE]


QUIET = ("spool/cli/", "runner/embed.py", "runner/demo.py")
"""What these say is said in a terminal only."""


def templates() -> dict[str, str]:
    """Template -> where it is said, of all that has words for people."""
    return {
        each.template: each.where
        for each in Reader(("spool", "runner")).said()
        if not each.where.startswith(QUIET) and _is_phrase(each)
    }


def finding_codes() -> set[str]:
    """The codes of all findings about data."""
    sinks = {
        ("spool/data/reading/table.py", "Problem"): {"code": 1},
        ("spool/data/judging/turns.py", "RowError"): {"code": 0},
        ("spool/data/judging/content.py", "_Kind"): {"code": 0},
        ("spool/data/judging/content.py", "Finding"): {"code": 0},
    }
    return {each.template for each in Reader(("spool/data",), sinks, asides=False).said()} - {PLACE}


def _is_phrase(each: Saying) -> bool:
    letters = re.findall(r"[A-Za-z]", each.template)
    return len(letters) >= 4 and re.search(r"[\w)}'\"] [\w({`]|^[ ,:]", each.template) is not None


if __name__ == "__main__":
    for template, where in sorted(templates().items(), key=lambda each: each[1]):
        print(f"{where}\t{template!r}")
