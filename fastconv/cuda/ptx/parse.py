"""PTX text to kernels: variables, registers, and a list of instructions with their operands (PTX ISA, Syntax).

The text is cut into tokens, the tokens into statements, and a statement becomes one of

- a directive that declares registers, shared, local, constant or global variables, or parameters;
- a label, which names the instruction after it;
- an instruction: ``@guard opcode.modifier.type operands;``.

Inline assembly opens scopes with braces and declares registers of its own there; they are renamed, so that afterwards
every kernel has one flat set of registers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from fastconv.cuda.ptx.faults import ParseError
from fastconv.cuda.ptx.types import DTYPE, bits_of, round_up, storage


class Address(NamedTuple):
    """``[base+offset]``: base is a register, a variable, or empty for an absolute address."""

    base: str
    offset: int


class Vector(NamedTuple):
    """``{a, b, c, d}``: registers used as one vector."""

    elements: tuple[str, ...]


# A register, a symbol, an immediate, ``!predicate`` or ``p|q`` stay text.
Operand = str | Address | Vector


@dataclass(frozen=True)
class Instruction:
    """One instruction: ``opcode`` is the whole word, ``parts`` the same word cut at its dots."""

    opcode: str
    operands: tuple[Operand, ...]
    guard: str | None
    line: int
    text: str

    @functools.cached_property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.opcode.replace("::", "_").split("."))


@dataclass(frozen=True)
class Variable:
    """A named piece of memory; ``size`` in bytes, 0 for an array whose size the launch decides."""

    name: str
    space: str
    align: int
    size: int
    initial: bytes = b""


@dataclass(frozen=True)
class Parameter:
    """A kernel parameter at its offset in the parameter space."""

    name: str
    type_name: str
    offset: int
    size: int


@dataclass
class Kernel:
    """One ``.entry``: what a launch needs, with every name resolved to an offset."""

    name: str
    parameters: list[Parameter] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    branch_targets: dict[str, list[str]] = field(default_factory=dict)
    shared: dict[str, int] = field(default_factory=dict)
    shared_size: int = 0
    local: dict[str, int] = field(default_factory=dict)
    local_size: int = 0
    variables: list[Variable] = field(default_factory=list)  # .global and .const


@dataclass(frozen=True)
class _Token:
    text: str
    line: int


# A word may hold dots and `::` (ld.shared::cta.u32, %tid.x); a number may have a sign.
_TOKENS = re.compile(
    r"(?P<space>\s+|//[^\n]*|/\*.*?\*/)"
    r"|(?P<word>[.%$_A-Za-z](?:[\w.$%]|::)*|-?\d[\w.]*)"
    r'|(?P<string>"[^"]*")'
    r"|(?P<mark>[{}\[\](),;:@!|+\-<>=])",
    re.DOTALL,
)
# These directives end with their line, not with a semicolon.
_LINE_DIRECTIVES = re.compile(r"^[ \t]*\.(?:version|target|address_size|file|loc)\b[^\n]*", re.MULTILINE)
_REGISTER_RANGE = re.compile(r"(.+)<(\d+)>$")


def _tokens(text: str) -> Iterator[_Token]:
    # debugging sections come last and hold nothing that runs
    text = re.split(r"^[ \t]*\.section\b", text, maxsplit=1, flags=re.MULTILINE)[0]
    text = _LINE_DIRECTIVES.sub("", text)
    position, line = 0, 1
    while position < len(text):
        match = _TOKENS.match(text, position)
        if match is None:
            raise ParseError(f"line {line}: cannot read {text[position : position + 20]!r}")
        if match.lastgroup != "space":
            yield _Token(match.group(), line)
        line += match.group().count("\n")
        position = match.end()


@functools.lru_cache(maxsize=64)
def parse(text: str) -> dict[str, Kernel]:
    """The kernels of a PTX module, by name."""
    return _Parser(list(_tokens(text))).module()


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.module_shared: list[Variable] = []
        self.module_variables: list[Variable] = []

    # ------------------------------------------------------------------ tokens
    def peek(self, ahead: int = 0) -> str:
        index = self.position + ahead
        return self.tokens[index].text if index < len(self.tokens) else ""

    def next(self) -> str:
        if self.position >= len(self.tokens):
            raise ParseError("the text ends in the middle of a statement")
        self.position += 1
        return self.tokens[self.position - 1].text

    def error(self, message: str) -> ParseError:
        index = min(self.position, len(self.tokens) - 1)
        return ParseError(f"line {self.tokens[index].line}: {message}, near {self.tokens[index].text!r}")

    def skip_braces(self) -> None:
        """Past a ``{...}`` with everything inside it."""
        depth = 0
        while True:
            token = self.next()
            depth += (token == "{") - (token == "}")
            if depth == 0:
                return

    def statement(self) -> list[str]:
        """The tokens up to the next semicolon."""
        words = []
        while (token := self.next()) != ";":
            words.append(token)
        return words

    # ------------------------------------------------------------------ module
    def module(self) -> dict[str, Kernel]:
        entries: list[int] = []
        while self.position < len(self.tokens):
            ahead = 0
            while self.peek(ahead) in (".visible", ".weak", ".extern", ".common"):
                ahead += 1
            directive = self.peek(ahead)
            if directive == ".entry":
                self.position += ahead + 1
                entries.append(self.position)
                while self.peek() != "{":
                    self.next()
                self.skip_braces()
            elif directive == ".func":
                while self.peek() not in ("{", ";"):
                    self.next()
                if self.next() == "{":
                    self.position -= 1
                    self.skip_braces()
            else:
                self._variable(self.statement(), self.module_shared, self.module_variables)
        # bodies come last: a kernel may use any variable of its module
        kernels = {}
        for self.position in entries:
            kernel = self._entry()
            kernels[kernel.name] = kernel
        return kernels

    def _entry(self) -> Kernel:
        kernel = Kernel(self.next())
        if self.peek() == "(":
            self.next()
            self._parameters(kernel)
        while self.peek() != "{":
            self.next()
        shared = list(self.module_shared)
        kernel.variables = list(self.module_variables)
        self._body(kernel, shared)
        _place_shared(kernel, shared)
        return kernel

    def _parameters(self, kernel: Kernel) -> None:
        """``.param .u64 .ptr .global .align 16 name``, or ``.param .align 8 .b8 name[16]``, with commas between."""
        size = 0
        while self.peek() != ")":
            words = []
            while self.peek() not in (",", ")"):
                words.append(self.next())
            if self.peek() == ",":
                self.next()
            type_name = next((word[1:] for word in words if word[1:] in DTYPE), None)
            if words[0] != ".param" or type_name is None:
                raise self.error(f"cannot read the parameter {' '.join(words)!r}")
            width = bits_of(type_name) // 8
            align = width
            if ".align" in words and ".ptr" not in words:
                align = int(words[words.index(".align") + 1])
            name, count = _declarator(_after_directives(words))
            size = round_up(size, align)
            kernel.parameters.append(Parameter(name, type_name, size, width * count))
            size += width * count
        self.next()

    def _variable(self, words: list[str], shared: list[Variable], others: list[Variable]) -> None:
        """A ``.shared``, ``.global``, ``.const`` or ``.local`` declaration; other directives are of no consequence."""
        space = next((word[1:] for word in words if word in (".shared", ".global", ".const", ".local")), None)
        if space is None:
            return
        type_name = next(word[1:] for word in words if word[1:] in DTYPE)
        width = bits_of(type_name) // 8
        align = int(words[words.index(".align") + 1]) if ".align" in words else width
        declaration = words[: words.index("=")] if "=" in words else words
        name, count = _declarator(_after_directives(declaration))
        initial = b""
        if "=" in words:
            values = [word for word in words[words.index("=") + 1 :] if word not in "{},"]
            initial = b"".join(constant(value, type_name).tobytes() for value in values)
        variable = Variable(name, space, align, width * count, initial)
        if ".extern" in words and space != "shared":
            raise self.error(f"{name!r} is defined in another module")
        (shared if space == "shared" else others).append(variable)

    # ------------------------------------------------------------------ body
    def _body(self, kernel: Kernel, shared: list[Variable]) -> None:
        self.next()
        scopes: list[dict[str, str]] = [{}]
        scope_count = 0
        pending_label = ""
        local: list[Variable] = []
        while scopes:
            token = self.peek()
            if token == "{":
                self.next()
                scope_count += 1
                scopes.append({})
            elif token == "}":
                self.next()
                scopes.pop()
            elif self.peek(1) == ":":
                pending_label = self.next()
                self.next()
                kernel.labels[pending_label] = len(kernel.instructions)
            elif token == ".reg":
                suffix = f"@{scope_count}" if len(scopes) > 1 else ""
                self._registers(kernel, self.statement(), scopes[-1], suffix)
            elif token == ".branchtargets":
                kernel.branch_targets[pending_label] = [word for word in self.statement()[1:] if word != ","]
            elif token.startswith("."):
                self._variable(self.statement(), shared, local)
            else:
                names = {name: new for scope in scopes[1:] for name, new in scope.items()}
                kernel.instructions.append(self._instruction(names))
        for variable in local:
            if variable.space != "local":
                kernel.variables.append(variable)
                continue
            kernel.local_size = round_up(kernel.local_size, variable.align)
            kernel.local[variable.name] = kernel.local_size
            kernel.local_size += variable.size

    @staticmethod
    def _registers(kernel: Kernel, words: list[str], scope: dict[str, str], suffix: str) -> None:
        """``.reg .f32 %f<8>`` declares %f0 ... %f7; ``.reg .b32 a, b`` declares two."""
        type_name = words[1][1:]
        text = "".join(words[2:])
        for declarator in text.split(","):
            match = _REGISTER_RANGE.match(declarator)
            names = [f"{match[1]}{i}" for i in range(int(match[2]))] if match else [declarator]
            for name in names:
                scope[name] = name + suffix
                kernel.registers[name + suffix] = type_name

    def _instruction(self, names: dict[str, str]) -> Instruction:
        line = self.tokens[self.position].line
        words = self.statement()
        text = _text_of(words)
        words = [names.get(word, word) for word in words]
        guard = None
        if words[0] == "@":
            negated = words[1] == "!"
            guard = ("!" if negated else "") + words[1 + negated]
            words = words[2 + negated :]
        return Instruction(words[0], tuple(_operands(words[1:])), guard, line, text)


def _operands(words: list[str]) -> Iterator[Operand]:
    """Cut at the commas outside brackets."""
    depth, current = 0, list[str]()
    for word in [*words, ","]:
        if word == "," and depth == 0:
            if current:
                yield _operand(current)
            current = []
            continue
        depth += (word in "{[(") - (word in "}])")
        current.append(word)


def _operand(words: list[str]) -> Operand:
    if words[0] == "{":
        return Vector(tuple(word for word in words[1:-1] if word != ","))
    if words[0] == "[":
        inside = [word for word in words[1:-1] if word != "+"]
        if "," in inside:  # a form with several coordinates, as of textures: left to fail where it is executed
            return "".join(words)
        base, offset = "", 0
        for word in inside:
            if word[0].isdigit() or word[0] == "-":
                offset += int(word, 0)
            else:
                base = word
        return Address(base, offset)
    return "".join(words)


def _after_directives(words: list[str]) -> list[str]:
    """What follows the last directive: the name and its extents (``.align`` takes a number with it)."""
    last = max(index for index, word in enumerate(words) if word.startswith("."))
    return words[last + (2 if words[last] == ".align" else 1) :]


def _declarator(words: list[str]) -> tuple[str, int]:
    """``name``, ``name[4]``, ``name[]`` or ``name[4][8]``: the name and the number of elements (0 for ``[]``)."""
    text = "".join(words)
    name, _, rest = text.partition("[")
    if not rest:
        return name, 1
    count = 1
    for extent in rest.rstrip("]").split("]["):
        count *= int(extent or "0", 0)
    return name, count


def _place_shared(kernel: Kernel, variables: list[Variable]) -> None:
    """Shared variables one after another, as they are declared; dynamic shared memory, where there is any, last."""
    used = {
        operand.base if isinstance(operand, Address) else operand.partition("+")[0]
        for instruction in kernel.instructions
        for operand in instruction.operands
        if not isinstance(operand, Vector)
    }
    size = 0
    for variable in sorted(variables, key=lambda variable: variable.size == 0):
        if variable.name not in used:
            continue
        if variable.size == 0:
            size = round_up(size, 16)
        size = round_up(size, variable.align)
        kernel.shared[variable.name] = size
        size += variable.size
    kernel.shared_size = size


_FLOAT_BITS = re.compile(r"0[fF]([0-9a-fA-F]{8})$|0[dD]([0-9a-fA-F]{16})$")


def constant(text: str, type_name: str) -> np.generic:
    """The value of an immediate as a NumPy scalar of the type's dtype (PTX ISA, Constants)."""
    dtype = DTYPE[type_name]
    match = _FLOAT_BITS.match(text)
    if match is not None:
        value = np.uint32(int(match[1], 16)) if match[1] else np.uint64(int(match[2], 16))
        if dtype.kind == "f":
            return value.view(np.float32 if match[1] else np.float64).astype(dtype)
        return value.astype(dtype)
    if dtype.kind == "f" and "." in text:
        return dtype.type(float(text))
    digits = text.rstrip("U")
    # PTX writes octal with a bare leading zero
    number = int(digits, 8) if re.fullmatch(r"-?0[0-7]+", digits) else int(digits, 0)
    if dtype.kind == "b":
        return np.bool_(number != 0)
    if dtype.kind == "f":
        return np.array([number & ((1 << bits_of(type_name)) - 1)], storage(type_name)).view(dtype)[0]
    unsigned = np.array([number & ((1 << bits_of(type_name)) - 1)], np.uint64)
    return unsigned.astype(storage(type_name)).view(dtype)[0]


def _text_of(words: list[str]) -> str:
    text = " ".join(words)
    return re.sub(r" (?=[,\])}|+])|(?<=[\[({@!|+]) ", "", text)
