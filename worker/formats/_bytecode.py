"""The byte code of one function, read as the formula that it computes: followed with symbols, never run.

Only straight code is followed: arithmetic, comparisons, calls, attributes, indexing, tuples, lists, local variables.
A jump, a loop, a function inside, or anything else that is not in the tables below ends the reading. What comes out is
a flat list of steps, each of which refers to earlier ones, so that shared parts are shared and nothing can grow.

The numbers of the instructions are those of CPython: Include/opcode.h of 3.6 to 3.10, Lib/opcode.py of 3.11 and 3.12
(which also has the number of cache entries), Include/opcode_ids.h and Lib/_opcode_metadata.py of 3.13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from worker.formats._marshalled import Code, NotUnderstood, read_code

MOST_INSTRUCTIONS = 1_000
MOST_STEPS = 300
_VARIADIC = {0x04: "arguments behind a star", 0x08: "arguments behind two stars"}
_SUSPENDED = 0x20 | 0x80 | 0x200  # generators and coroutines
_COMPARISONS = ("<", "<=", "==", "!=", ">", ">=")
_OPERATORS = ("+", "&", "//", "<<", "@", "*", "%", "|", "**", ">>", "-", "/", "^")  # NB_…, and once more in place


@dataclass(frozen=True)
class Step:
    """One part of a formula; ``parts`` are the places of the steps that it is made from.

    argument(name) constant(value) name(name) attribute(name; of) call(keywords; function, arguments…) unary(sign; of)
    binary(sign; two) compare(sign; two) index(of, key) item((place, count); of) slice(three) tuple(…) list(…)
    """

    kind: str
    value: Any = None
    parts: tuple[int, ...] = ()

    @cached_property
    def key(self) -> tuple[str, str, tuple[int, ...]]:
        """Equal for equal steps alone: 1, 1.0 and True are three values."""
        return self.kind, repr(self.value), self.parts


@dataclass(frozen=True)
class Formula:
    """What a function computes. The result is the step at ``result``; a step of no use to it was still computed."""

    parameters: tuple[str, ...]
    keyword_only: int
    steps: tuple[Step, ...]
    result: int

    def is_same(self, other: Formula) -> bool:
        keys, others = ([step.key for step in formula.steps] for formula in (self, other))
        return keys == others and self.result == other.result and self.parameters == other.parameters


@dataclass(frozen=True)
class _Dialect:
    """The instructions of some releases of Python: what each number means, and how many cache entries follow it."""

    name: str
    actions: Mapping[int, str]
    caches: Mapping[int, int] = field(default_factory=dict)
    comparison_shift: int = 0
    marks: frozenset[str] = frozenset()  # instructions whose lowest bit asks for an empty place beside the callable
    empty_last: bool = False  # the empty place stands above the callable


def read(data: bytes) -> Formula:
    """The formula of a marshalled function. NotUnderstood names what is not understood, or that two releases of Python
    would disagree about it."""
    readings, problems = [], []
    for code in read_code(data):
        for dialect in _DIALECTS[code.layout]:
            try:
                readings.append(_follow(code, dialect))
            except NotUnderstood as problem:
                problems.append(problem)
    if not readings:
        raise max(problems, key=lambda problem: problem.place)
    if not all(reading.is_same(readings[0]) for reading in readings):
        raise NotUnderstood("its byte code means one thing in one release of Python and another in the next")
    return readings[0]


def _follow(code: Code, dialect: _Dialect) -> Formula:
    _refuse_kinds(code)
    machine = _Machine(code, dialect)
    for place, number, argument in _instructions(code.instructions, dialect):
        machine.at(place, number, argument)
    if machine.result is None:
        raise NotUnderstood("it returns nothing", len(code.instructions))
    return Formula(code.parameters, code.keyword_only, tuple(machine.steps), machine.result)


def _refuse_kinds(code: Code) -> None:
    if code.from_outside:
        raise NotUnderstood(f"the variable {code.from_outside[0]} from outside of it")
    for flag, problem in _VARIADIC.items():
        if code.fields["flags"] & flag:
            raise NotUnderstood(problem)
    if code.fields["flags"] & _SUSPENDED:
        raise NotUnderstood("it is a generator")


def _instructions(code: bytes, dialect: _Dialect) -> Iterator[tuple[int, int, int]]:
    """(place, number, argument) of every instruction. Cache entries are empty in what was stored."""
    if len(code) % 2 or len(code) > 2 * MOST_INSTRUCTIONS:
        raise NotUnderstood("it has more instructions than any function that is worth reading")
    place, extended = 0, 0
    while place < len(code):
        number, argument = code[place], code[place + 1] | extended
        extended = argument << 8 if dialect.actions.get(number) == "extend" else 0
        if extended > 0xFFFF:
            raise NotUnderstood("an argument of an instruction that is out of bounds", place)
        if not extended and dialect.actions.get(number) != "extend":
            yield place, number, argument
        place += 2
        end = place + 2 * dialect.caches.get(number, 0)
        if any(code[place:end]) or end > len(code):
            raise NotUnderstood("its byte code is damaged", place)
        place = end


_EMPTY = -1  # the place beside a callable where a method's object may stand


class _Machine:
    """A stack of places of steps. Every instruction of the table is one method; none of them computes anything."""

    def __init__(self, code: Code, dialect: _Dialect) -> None:
        self.code, self.dialect = code, dialect
        self.steps: list[Step] = []
        self.places: dict[tuple[str, str, tuple[int, ...]], int] = {}
        self.constants: dict[int, int] = {}  # their steps: a long one is looked at once
        self.stack: list[int] = []
        self.keywords: tuple[str, ...] = ()
        self.result: int | None = None
        self.locals = {name: self._step("argument", name) for name in code.parameters}

    def at(self, place: int, number: int, argument: int) -> None:
        """Follow one instruction."""
        if self.result is not None:
            raise NotUnderstood("instructions behind the end", place)
        action, _, fixed = self.dialect.actions.get(number, "").partition(":")
        if action not in _ACTIONS:
            unknown = f"instruction {number} of Python {self.dialect.name}"
            raise NotUnderstood(action.removeprefix("refuse ") or unknown, place)
        try:
            _ACTIONS[action](self, argument, fixed)
        except NotUnderstood as problem:
            raise NotUnderstood(str(problem), place) from problem
        except (IndexError, KeyError, ValueError) as error:
            raise NotUnderstood("its byte code is damaged", place) from error

    def _step(self, kind: str, value: Any = None, *parts: int) -> int:
        step = Step(kind, value, parts)
        if step.key not in self.places:
            if len(self.steps) >= MOST_STEPS:
                raise NotUnderstood("it has more parts than any formula that is worth reading")
            self.places[step.key] = len(self.steps)
            self.steps.append(step)
        return self.places[step.key]

    def push(self, kind: str, value: Any = None, *parts: int) -> None:
        self.stack.append(self._step(kind, value, *parts))

    def pop(self) -> int:
        place = self.stack.pop()
        if place == _EMPTY:
            raise IndexError
        return place

    def take(self, count: int) -> list[int]:
        return [self.pop() for _ in range(count)][::-1]

    def _depth(self, count: int) -> int:
        """How deep an instruction reaches into the stack, where that is possible."""
        if not 0 < count <= len(self.stack):
            raise IndexError
        return count

    def constant(self, place: int) -> Any:
        step = self.steps[place]
        if step.kind != "constant":
            raise NotUnderstood("a value that is only known while it runs")
        return step.value

    # What only moves -------------------------------------------------------------------------------------------

    def nothing(self, argument: int, fixed: str) -> None:
        """Says something to the interpreter alone."""

    def drop(self, argument: int, fixed: str) -> None:
        self.pop()

    def rotate(self, argument: int, fixed: str) -> None:
        count = self._depth(int(fixed or argument))
        self.stack[-count:] = [self.stack[-1], *self.stack[-count:-1]]

    def duplicate(self, argument: int, fixed: str) -> None:
        self.stack.append(self.stack[-self._depth(int(fixed or argument))])

    def swap(self, argument: int, fixed: str) -> None:
        place = self._depth(argument)
        self.stack[-place], self.stack[-1] = self.stack[-1], self.stack[-place]

    def empty(self, argument: int, fixed: str) -> None:
        self.stack.append(_EMPTY)

    # Values ----------------------------------------------------------------------------------------------------

    def load_constant(self, argument: int, fixed: str) -> None:
        self.stack.append(self._constant(argument))

    def _constant(self, number: int) -> int:
        if number not in self.constants:
            self.constants[number] = self._step("constant", self.code.constants[number])
        return self.constants[number]

    def load(self, argument: int, fixed: str) -> None:
        self.stack.append(self.locals[self.code.variables[argument]])

    def store(self, argument: int, fixed: str) -> None:
        self.locals[self.code.variables[argument]] = self.pop()

    def load_two(self, argument: int, fixed: str) -> None:
        self.load(argument >> 4, fixed)
        self.load(argument & 15, fixed)

    def store_two(self, argument: int, fixed: str) -> None:
        self.store(argument >> 4, fixed)
        self.store(argument & 15, fixed)

    def store_load(self, argument: int, fixed: str) -> None:
        self.store(argument >> 4, fixed)
        self.load(argument & 15, fixed)

    def global_name(self, argument: int, fixed: str) -> None:
        self._beside("global", argument, lambda name: self._step("name", name))

    def attribute(self, argument: int, fixed: str) -> None:
        of = self.pop()
        self._beside("attribute", argument, lambda name: self._step("attribute", name, of))

    def method(self, argument: int, fixed: str) -> None:
        """Before 3.12 an instruction of its own; up to 3.10 its call looks for no empty place."""
        name = self.code.names[argument]
        of = self.pop()
        self.stack += [_EMPTY] if "call" in self.dialect.marks else []
        self.push("attribute", name, of)

    def _beside(self, mark: str, argument: int, made: Callable[[str], int]) -> None:
        """Push what a name stands for, and the empty place where the instruction asks for one."""
        marked = mark in self.dialect.marks
        place = made(self.code.names[argument >> 1 if marked else argument])
        empty = [_EMPTY] if marked and argument & 1 else []
        self.stack += [place, *empty] if self.dialect.empty_last else [*empty, place]

    def bring(self, argument: int, fixed: str) -> None:
        """``import``: nothing is imported, the name stands for itself."""
        names, level = self.constant(self.stack[-1]), self.constant(self.stack[-2])
        self.take(2)
        if level != 0:
            raise NotUnderstood("an import from its own package")
        name = self.code.names[argument]
        self.push("name", name if names else name.partition(".")[0])

    def bring_from(self, argument: int, fixed: str) -> None:
        self.push("attribute", self.code.names[argument], self.stack[-1])

    # Expressions -----------------------------------------------------------------------------------------------

    def unary(self, argument: int, fixed: str) -> None:
        self.push("unary", fixed, self.pop())

    def binary(self, argument: int, fixed: str) -> None:
        self.push("binary", fixed or _OPERATORS[argument % 13] if argument < 26 else "", *self.take(2))

    def compare(self, argument: int, fixed: str) -> None:
        sign = argument >> self.dialect.comparison_shift
        if sign >= len(_COMPARISONS):
            raise NotUnderstood(_NAMED["membership"].removeprefix("refuse "))
        self.push("compare", _COMPARISONS[sign], *self.take(2))

    def index(self, argument: int, fixed: str) -> None:
        self.push("index", None, *self.take(2))

    def index_slice(self, argument: int, fixed: str) -> None:
        of, start, stop = self.take(3)
        none = self._step("constant", None)
        self.push("index", None, of, self._step("slice", None, start, stop, none))

    def make_slice(self, argument: int, fixed: str) -> None:
        if argument not in (2, 3):
            raise IndexError
        parts = self.take(argument)
        self.push("slice", None, *parts, *[self._step("constant", None)] * (3 - len(parts)))

    def sequence(self, argument: int, fixed: str) -> None:
        self.push(fixed, None, *self.take(argument))

    def extend_list(self, argument: int, fixed: str) -> None:
        values = self.constant(self.pop())
        into = self.steps[self.stack[-self._depth(argument)]]
        if into.kind != "list" or not isinstance(values, tuple):
            raise NotUnderstood("a list that is only known while it runs")
        added = [self._step("constant", value) for value in values]
        self.stack[-argument] = self._step("list", None, *into.parts, *added)

    def unpack(self, argument: int, fixed: str) -> None:
        of = self.pop()
        for place in reversed(range(argument)):
            self.push("item", (place, argument), of)

    # Calls -----------------------------------------------------------------------------------------------------

    def name_keywords(self, argument: int, fixed: str) -> None:
        self.keywords = _texts(self.code.constants[argument])

    def call_named(self, argument: int, fixed: str) -> None:
        self.keywords = _texts(self.constant(self.pop()))
        self.call(argument, fixed)

    def call(self, argument: int, fixed: str) -> None:
        given = self.take(argument)
        function = self._callable() if "call" in self.dialect.marks else self.pop()
        if len(self.keywords) > len(given):
            raise IndexError
        self.push("call", self.keywords, function, *given)
        self.keywords = ()

    def _callable(self) -> int:
        """The function of a call since 3.11, beside which stands an empty place."""
        below, above = self.stack[-2:]
        del self.stack[-2:]
        function, beside = (below, above) if self.dialect.empty_last else (above, below)
        if beside != _EMPTY or function == _EMPTY:
            raise IndexError
        return function

    def give(self, argument: int, fixed: str) -> None:
        self.result = self.pop()

    def give_constant(self, argument: int, fixed: str) -> None:
        self.result = self._constant(argument)


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
        raise IndexError
    return value


_ACTIONS: dict[str, Callable[[_Machine, int, str], None]] = {
    "nothing": _Machine.nothing,
    "drop": _Machine.drop,
    "rotate": _Machine.rotate,
    "duplicate": _Machine.duplicate,
    "swap": _Machine.swap,
    "empty": _Machine.empty,
    "constant": _Machine.load_constant,
    "load": _Machine.load,
    "store": _Machine.store,
    "load-two": _Machine.load_two,
    "store-two": _Machine.store_two,
    "store-load": _Machine.store_load,
    "global": _Machine.global_name,
    "attribute": _Machine.attribute,
    "method": _Machine.method,
    "import": _Machine.bring,
    "import-from": _Machine.bring_from,
    "unary": _Machine.unary,
    "binary": _Machine.binary,
    "compare": _Machine.compare,
    "index": _Machine.index,
    "index-slice": _Machine.index_slice,
    "slice": _Machine.make_slice,
    "sequence": _Machine.sequence,
    "extend-list": _Machine.extend_list,
    "unpack": _Machine.unpack,
    "keywords": _Machine.name_keywords,
    "call-named": _Machine.call_named,
    "call": _Machine.call,
    "return": _Machine.give,
    "return-constant": _Machine.give_constant,
}

_NAMED = {
    "jump": "refuse a condition or a loop",
    "stars": "refuse arguments behind a star",
    "function": "refuse a function inside",
    "membership": "refuse a comparison with is or in",
}


def _table(text: str) -> dict[int, str]:
    """``12 action, 13 14 action``: what each number means."""
    found: dict[int, str] = {}
    for entry in text.replace("\n", " ").split(","):
        words = entry.split()
        numbers = [word for word in words if word.isdigit()]
        action = " ".join(words[len(numbers) :])
        found |= {int(number): _NAMED.get(action, action) for number in numbers}
    return found


_CLASSIC = _table("""
    1 drop, 2 rotate:2, 3 rotate:3, 4 duplicate:1, 9 nothing, 10 unary:+, 11 unary:-, 16 17 binary:@, 19 67 binary:**,
    20 57 binary:*, 22 59 binary:%, 23 55 binary:+, 24 56 binary:-, 25 index, 26 28 binary://, 27 29 binary:/,
    64 binary:&, 66 binary:|, 83 return, 92 unpack, 100 constant, 102 sequence:tuple, 103 sequence:list, 106 attribute,
    107 compare, 108 import, 109 import-from, 116 global, 124 load, 125 store, 131 161 call, 132 function, 133 slice,
    141 call-named, 142 stars, 144 extend, 160 method, 93 110 111 112 113 114 115 jump
""")
_SINCE_3_8 = _CLASSIC | _table("6 rotate:4, 99 rotate, 117 118 membership, 162 extend-list")  # 99: 3.10; 162: 3.9
_3_11 = _table("""
    1 drop, 2 empty, 9 nothing, 10 unary:+, 11 unary:-, 25 index, 83 return, 92 unpack, 99 swap, 100 constant,
    102 sequence:tuple, 103 sequence:list, 106 attribute, 107 compare, 108 import, 109 import-from, 116 global,
    117 118 membership, 120 duplicate, 122 binary, 124 load, 125 store, 132 function, 133 slice, 142 stars, 144 extend,
    151 nothing, 160 method, 162 extend-list, 166 nothing, 171 call, 172 keywords,
    93 110 111 112 114 115 128 129 134 140 173 174 175 176 jump
""")
_3_12 = {number: action for number, action in _3_11.items() if number not in (10, 111, 112, 160, 166, *range(173, 177))}
_3_12 |= _table("26 index-slice, 121 return-constant, 127 load")
_3_13 = _table("""
    4 index-slice, 5 index, 26 function, 30 nothing, 32 drop, 34 empty, 36 return, 42 unary:-, 45 binary,
    47 sequence:list, 50 slice, 52 sequence:tuple, 53 call, 54 stars, 57 call-named, 58 compare, 59 76 membership,
    61 duplicate, 71 extend, 74 import-from, 75 import, 81 extend-list, 82 attribute, 83 constant, 85 87 load,
    88 load-two, 91 global, 103 return-constant, 110 store, 111 store-load, 112 store-two, 115 swap, 117 unpack,
    149 nothing, 72 77 78 79 97 98 99 100 jump
""")
_MARKED = frozenset({"global", "call"})
_DIALECTS = {
    "3.6": (_Dialect("3.7", _CLASSIC),),
    "3.8": (_Dialect("3.10", _SINCE_3_8),),
    "3.11": (
        _Dialect("3.11", _3_11, {25: 4, 92: 1, 106: 4, 107: 2, 116: 5, 122: 1, 160: 10, 166: 1, 171: 4}, 0, _MARKED),
        _Dialect("3.12", _3_12, {25: 1, 92: 1, 106: 9, 107: 1, 116: 4, 122: 1, 171: 3}, 4, _MARKED | {"attribute"}),
        _Dialect(
            "3.13",
            _3_13,
            {5: 1, 45: 1, 53: 3, 58: 1, 82: 9, 91: 4, 117: 1},
            5,
            _MARKED | {"attribute"},
            empty_last=True,
        ),
    ),
}
