"""Checks and runs a function block in Structured Text, by the grammar of another maker's parser.

Run by the interpreter that has blark: FILE. It parses the file, refuses what no compiler would take
(names that are not declared, or are the language's own; calls that do not fit), and then runs the
block once for each line of its standard input: a JSON document with "now_ms" and "given", values
of variables, which is answered by all variables of the block.
"""

import json
import sys
from pathlib import Path

from blark import transform as st
from blark.parse import parse_source_code
from lark.exceptions import LarkError

WIDTHS = {"UINT": 16, "WORD": 16, "UDINT": 32, "INT": 16}
# Words of IEC 61131-3 that this file could take for names; some compilers do not mind, others do.
KEYWORDS = frozenset(
    [
        "ABSTRACT",
        "ACTION",
        "AND",
        "ARRAY",
        "AT",
        "BY",
        "CASE",
        "CLASS",
        "CONFIGURATION",
        "CONSTANT",
        "CONTINUE",
        "DO",
        "ELSE",
        "ELSIF",
        "EXIT",
        "EXTENDS",
        "FALSE",
        "FINAL",
        "FOR",
        "FROM",
        "FUNCTION",
        "GET",
        "GLOBAL",
        "IF",
        "IMPLEMENTS",
        "INITIAL_STEP",
        "INTERFACE",
        "INTERNAL",
        "INTERVAL",
        "METHOD",
        "MOD",
        "NAMESPACE",
        "NOT",
        "NULL",
        "OF",
        "ON",
        "OR",
        "OVERLAP",
        "OVERRIDE",
        "PRIORITY",
        "PRIVATE",
        "PROGRAM",
        "PROPERTY",
        "PROTECTED",
        "PUBLIC",
        "READ_ONLY",
        "READ_WRITE",
        "REF",
        "REPEAT",
        "RESOURCE",
        "RETAIN",
        "RETURN",
        "SET",
        "SINGLE",
        "STEP",
        "STRUCT",
        "SUPER",
        "TASK",
        "THEN",
        "THIS",
        "TO",
        "TRANSITION",
        "TRUE",
        "TYPE",
        "UNION",
        "UNTIL",
        "USING",
        "VAR",
        "WHILE",
        "WITH",
        "XOR",
    ]
)


class Timer:
    """TON."""

    FIELDS = ("IN", "PT", "Q", "ET")

    def __init__(self):
        self.values = {"IN": False, "PT": 0, "Q": False, "ET": 0}
        self._since = None

    def call(self, now_ms):
        values = self.values
        if not values["IN"]:
            self._since = None
        elif self._since is None:
            self._since = now_ms
        values["ET"] = 0 if self._since is None else min(values["PT"], now_ms - self._since)
        values["Q"] = self._since is not None and now_ms - self._since >= values["PT"]


class RisingEdge:
    """R_TRIG; the time is nothing to it."""

    FIELDS = ("CLK", "Q")

    def __init__(self):
        self.values = {"CLK": False, "Q": False}
        self._before = False

    def call(self, _now_ms):
        self.values["Q"] = self.values["CLK"] and not self._before
        self._before = self.values["CLK"]


BLOCKS = {"TON": Timer, "R_TRIG": RisingEdge}


class Block:
    """A function block that runs."""

    def __init__(self, source):
        parsed = parse_source_code(source)
        if parsed.exception is not None:
            raise parsed.exception
        structs, self.types, self.values, self.used = {}, {}, {}, set()
        (block,) = [one for one in parsed.transform().items if isinstance(one, st.FunctionBlock)]
        for item in parsed.transform().items:
            if isinstance(item, st.DataTypeDeclaration):
                made = item.declaration
                structs[str(made.name)] = dict(_declared(made.declarations))
                named(made.name, *structs[str(made.name)])
        for section in block.declarations:
            for name, (kind, value) in _declared(section.items):
                named(name)
                if name.upper() in {one.upper() for one in self.types}:
                    raise ValueError(f"{name} is declared twice")
                self.types[name] = kind
                if kind in structs:
                    fields = structs[kind]
                    self.types |= {f"{name}.{one}": of for one, (of, _) in fields.items()}
                    self.values |= {f"{name}.{one}": _zero(of) for one, (of, _) in fields.items()}
                elif kind in BLOCKS:
                    self.values[name] = BLOCKS[kind]()
                else:
                    self.values[name] = _zero(kind) if value is None else value
        self._body = block.body.statements
        self.now_ms = 0
        self._dry = True
        self._run(self._body)
        self._dry = False
        idle = {name for name in self.types if "." not in name} - self.used
        if idle:
            raise ValueError(f"declared, and used nowhere: {', '.join(sorted(idle))}")

    def scan(self, now_ms, given):
        """One call of the block."""
        self.now_ms = now_ms
        for name, value in given.items():
            self._assign(name, value)
        self._run(self._body)
        return {name: value for name, value in self.values.items() if _plain(value)}

    def _run(self, statements):
        for one in statements:
            getattr(self, f"_{type(one).__name__}")(one)

    def _AssignmentStatement(self, one):
        value = self._value(one.expression)
        for variable in one.variables:
            self._assign(self._name(variable), value)

    def _assign(self, name, value):
        kind = self.types[name]
        if not self._dry:
            if kind == "BOOL" and not isinstance(value, bool):
                raise ValueError(f"{name} := {value!r}")
            self.values[name] = value % 2 ** WIDTHS[kind] if kind in WIDTHS else value

    def _IfStatement(self, one):
        branches = [(one.if_expression, one.statements)]
        branches += [(other.if_expression, other.statements) for other in one.else_ifs]
        otherwise = None if one.else_clause is None else one.else_clause.statements
        taken = False
        for condition, statements in branches:
            holds = not taken and self._value(condition)
            taken = taken or holds
            if self._dry or holds:
                self._run(statements.statements)
        if otherwise is not None and (self._dry or not taken):
            self._run(otherwise.statements)

    def _CaseStatement(self, one):
        chosen = self._value(one.expression)
        for case in one.cases:
            matches = [self._value(match) for match in case.matches]
            if self._dry or chosen in matches:
                self._run(case.statements.statements)
        if one.else_clause is not None:
            raise ValueError("CASE with ELSE is not known here")

    def _FunctionCallStatement(self, one):
        name = self._name(one.name)
        block = self.values[name]
        for parameter in one.parameters:
            field = str(parameter.name.name)
            if field not in block.FIELDS:
                raise ValueError(f"{name} has no {field}")
            block.values[field] = self._value(parameter.value)
        if not self._dry:
            block.call(self.now_ms)

    def _value(self, one):
        kind = type(one).__name__
        if kind in {"SimpleVariable", "MultiElementVariable"}:
            name = self._name(one)
            first, _, field = name.partition(".")
            found = self.values[first] if name not in self.values else self.values[name]
            return found.values[field] if not _plain(found) else found
        if kind == "ParenthesizedExpression":
            return self._value(one.expr)
        if kind == "Boolean":
            return str(one.value).upper() == "TRUE"
        if kind == "Integer":
            return int(str(one.value))
        if kind == "Duration":
            return _constant(one)
        if kind == "HexInteger":
            return int(str(one.value), 16)
        if kind == "UnaryOperation" and str(one.op).upper() == "NOT":
            return not self._value(one.expr)
        if kind == "BinaryOperation":
            # Both sides, as a PLC does: so the names of the side that decides nothing are checked.
            return _operate(str(one.op).upper(), self._value(one.left), self._value(one.right))
        raise ValueError(f"{kind} is not known here")

    def _name(self, one):
        name = str(one.name) if isinstance(one, st.SimpleVariable) else str(one.name.name)
        self.used.add(name)
        if isinstance(one, st.MultiElementVariable):
            (element,) = one.elements
            name = f"{name}.{element.field.name}"
            block = BLOCKS.get(self.types.get(str(one.name.name)))
            if block is not None and str(element.field.name) in block.FIELDS:
                return name
        if name not in self.types:
            raise ValueError(f"{name} is not declared")
        return name


def _operate(op, left, right):
    if op in {"AND", "OR"} and isinstance(left, bool) != isinstance(right, bool):
        raise ValueError(f"{left!r} {op} {right!r}")
    return {
        "AND": lambda: left and right if isinstance(left, bool) else left & right,
        "OR": lambda: left or right if isinstance(left, bool) else left | right,
        "=": lambda: left == right,
        "<>": lambda: left != right,
        "+": lambda: left + right,
        "MOD": lambda: left % right,
    }[op]()


def _declared(items):
    for item in items:
        spec, value = item.init.spec, getattr(item.init, "value", None)
        kind = str(getattr(spec, "type", None) or getattr(spec, "type_name", ""))
        for one in item.variables:
            yield str(one.variable.name), (kind, None if value is None else _constant(value))


def _constant(value):
    if isinstance(value, st.Duration):
        seconds, milliseconds = value.seconds or 0, value.milliseconds or 0
        return int(str(milliseconds)) + 1000 * int(str(seconds))
    return int(str(value.value))


def _zero(kind):
    return "" if kind == "STRING" else False if kind == "BOOL" else 0


def _plain(value):
    return isinstance(value, (bool, int, str))


def named(*names):
    for name in names:
        if str(name).upper() in KEYWORDS:
            raise ValueError(f"{name} is a word of the language")


def main():
    try:
        block = Block(Path(sys.argv[1]).read_text(encoding="utf-8"))
    except (ValueError, AttributeError, KeyError, LarkError) as error:
        print(json.dumps({"wrong": f"{type(error).__name__}: {error}"}), flush=True)
        return 1
    print(json.dumps({"variables": sorted(block.types)}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(block.scan(asked["now_ms"], asked["given"])), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
