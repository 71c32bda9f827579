"""Loads, stores and atomics, and moves (PTX ISA, Data Movement and Conversion Instructions; atom, red)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastconv.cuda.ptx.memory import GLOBAL_WINDOW, LOCAL_WINDOW, SHARED_WINDOW, AccessError, space_of
from fastconv.cuda.ptx.operations import Array, Form
from fastconv.cuda.ptx.parse import Address, Instruction, Operand, Vector
from fastconv.cuda.ptx.state import State, Step
from fastconv.cuda.ptx.threads import Lanes
from fastconv.cuda.ptx.types import DTYPE, UNSIGNED, DType, bits_of

# Cache hints, and the scopes and orders of the memory model: threads run one after another here, so all accesses are
# as strongly ordered as any of them asks for.
_HINTS = (
    *("ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "volatile", "weak", "relaxed", "acquire", "release", "acq_rel"),
    *("cta", "cluster", "gpu", "sys", "noftz", "L2_64B", "L2_128B", "L2_256B"),
    *("L1_evict_normal", "L1_evict_unchanged", "L1_evict_first", "L1_evict_last", "L1_no_allocate"),
)


def _take_space(form: Form) -> str:
    form.flag("mmio")
    for hint in _HINTS:
        form.flag(hint)
    space = form.choice("global", "shared", "shared_cta", "local", "const", "param", "param_entry")
    return space.split("_")[0]


def _elements(operand: Operand) -> tuple[str, ...]:
    return operand.elements if isinstance(operand, Vector) else (str(operand),)


def by_space(
    state: State, instruction: Instruction, space: str, access: Callable[[str, Array, Lanes], None]
) -> Callable[[Array, Lanes], None]:
    """*access* for a known space, or for generic addresses for each space in turn."""
    if space:
        return lambda addresses, lanes: access(space, addresses, lanes)

    def generic(addresses: Array, lanes: Lanes) -> None:
        try:
            found, window = space_of(int(addresses.min()))
            if space_of(int(addresses.max()))[0] == found:
                return access(found, addresses - (0 if found == "global" else window), lanes)
        except AccessError as error:
            error.row = int(addresses.argmin())
            state.access_fault(error, instruction, lanes)
        numbers = state.threads.numbers[lanes]
        for found, window, above in (
            ("shared", SHARED_WINDOW, LOCAL_WINDOW),
            ("local", LOCAL_WINDOW, GLOBAL_WINDOW),
            ("global", GLOBAL_WINDOW, 1 << 62),
        ):
            chosen = (addresses >= window) & (addresses < above)
            if chosen.any():
                access(found, addresses[chosen] - (0 if found == "global" else window), numbers[chosen])
        return None

    return generic


def load(state: State, instruction: Instruction) -> Step:
    """``ld``: scalars and vectors, from any space."""
    form = Form(instruction.opcode)
    space, count = _take_space(form), int(form.choice("v2", "v4", "v8", default="v1")[1:])
    type_name = form.type()
    form.finish()
    dtype = DTYPE[type_name]
    size = dtype.itemsize * count
    targets = [state.write(name, type_name) for name in _elements(instruction.operands[0])]
    if space == "param":
        return _load_parameter(state, instruction, targets, dtype)
    address = state.address(instruction.operands[1])
    locators = {name: state.locator(instruction, name, size, "read") for name in _spaces(space)}

    def access(space: str, addresses: Array, lanes: Lanes) -> None:
        words, index = locators[space](addresses, lanes)
        values = words.take(index, axis=0).view(dtype)
        if count == 1:
            if targets[0] is not None:
                targets[0][lanes] = values
            return
        columns = values.reshape(-1, count)
        for column, target in enumerate(targets):
            if target is not None:
                target[lanes] = columns[:, column]

    run = by_space(state, instruction, space, access)
    return lambda lanes: run(address(lanes), lanes)


def _spaces(space: str) -> tuple[str, ...]:
    return (space,) if space else ("global", "shared", "local")


def _load_parameter(state: State, instruction: Instruction, targets: list[Array | None], dtype: DType) -> Step:
    """Parameters are the same for all threads: a constant, once the launch is known."""
    operand = instruction.operands[1]
    assert isinstance(operand, Address)
    start = next(p.offset for p in state.kernel.parameters if p.name == operand.base) + operand.offset
    values = np.frombuffer(state.parameters, dtype, len(targets), start)

    def step(lanes: Lanes) -> None:
        for target, value in zip(targets, values, strict=True):
            if target is not None:
                target[lanes] = value

    return step


def store(state: State, instruction: Instruction) -> Step:
    """``st``: scalars and vectors, to any space but constants."""
    form = Form(instruction.opcode)
    space, count = _take_space(form), int(form.choice("v2", "v4", "v8", default="v1")[1:])
    type_name = form.type()
    form.finish()
    if space in ("const", "param"):
        raise form.unsupported()
    dtype = UNSIGNED[bits_of(type_name)]
    size = dtype.itemsize * count
    sources = [state.read(name, type_name).view(dtype) for name in _elements(instruction.operands[1])]
    address = state.address(instruction.operands[0])
    locators = {name: state.locator(instruction, name, size, "write") for name in _spaces(space)}

    def access(space: str, addresses: Array, lanes: Lanes) -> None:
        words, index = locators[space](addresses, lanes)
        if count == 1:
            words[index] = sources[0][lanes]
            return
        values = np.empty((len(index), count), dtype)
        for column, source in enumerate(sources):
            values[:, column] = source[lanes]
        words[index] = values.view(words.dtype).reshape(index.shape + words.shape[1:])

    run = by_space(state, instruction, space, access)
    return lambda lanes: run(address(lanes), lanes)


# ---------------------------------------------------------------------------------------------- atomics
Update = Callable[..., Array]
_UPDATES: dict[str, Update] = {
    "add": np.add,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "exch": lambda old, new: new,
    "cas": lambda old, expected, new: np.asarray(np.where(old == expected, new, old)),
    "inc": lambda old, limit: np.where(old >= limit, 0, old + 1).astype(old.dtype),
    "dec": lambda old, limit: np.where((old == 0) | (old > limit), limit, old - 1).astype(old.dtype),
}


def atomic(state: State, instruction: Instruction) -> Step:
    """``atom`` and ``red``: one thread after another, in the order of their numbers (hardware: in any order)."""
    form = Form(instruction.opcode)
    space, update_name, type_name = _take_space(form), form.choice(*_UPDATES), form.type()
    form.finish()
    if not update_name or type_name in ("f16x2", "bf16", "bf16x2"):
        raise form.unsupported()
    dtype, update = DTYPE[type_name], _UPDATES[update_name]
    operands = instruction.operands
    target = state.write(operands[0], type_name) if form.base == "atom" else None
    place, *values = operands[1:] if form.base == "atom" else operands
    address = state.address(place)
    sources = [state.read(value, type_name) for value in values]
    locators = {name: state.locator(instruction, name, dtype.itemsize, "atomic") for name in _spaces(space)}

    def access(space: str, addresses: Array, lanes: Lanes) -> None:
        words, index = locators[space](addresses, lanes)
        memory = words.view(dtype)
        arguments = [source[lanes] for source in sources]
        if target is None and isinstance(update, np.ufunc):
            update.at(memory, index, arguments[0])
            return
        old = np.empty(len(index), dtype)
        waiting = np.arange(len(index))
        while len(waiting):  # one thread per location in each round
            _, first = np.unique(index[waiting], return_index=True)
            now = waiting[first]
            old[now] = memory[index[now]]
            memory[index[now]] = update(old[now], *(argument[now] for argument in arguments))
            waiting = np.delete(waiting, first)
        if target is not None:
            target[lanes] = old

    run = by_space(state, instruction, space, access)
    return lambda lanes: run(address(lanes), lanes)


# ---------------------------------------------------------------------------------------------- moves
def move(state: State, instruction: Instruction) -> Step:
    """``mov``, also between a register and the parts of a vector."""
    form = Form(instruction.opcode)
    type_name = form.type()
    form.finish()
    to, what = instruction.operands
    if isinstance(to, Vector) or isinstance(what, Vector):
        return _move_parts(state, to, what, type_name)
    target, source = state.write(to, type_name), state.read(what, type_name)
    assert target is not None

    def step(lanes: Lanes) -> None:
        target[lanes] = source[lanes]

    return step


def _move_parts(state: State, to: Operand, what: Operand, type_name: str) -> Step:
    """``mov.b64 %rd, {%r1, %r2}`` and back: the first element is the lowest."""
    names = _elements(to if isinstance(to, Vector) else what)
    part = f"b{bits_of(type_name) // len(names)}"
    whole = state.registers[str(what if isinstance(to, Vector) else to)].view(DTYPE[part])
    pairs = []
    for place, name in enumerate(names):
        piece = whole[place :: len(names)]
        if isinstance(what, Vector):
            pairs.append((piece, state.read(name, part)))
        elif (target := state.write(name, part)) is not None:
            pairs.append((target, piece))

    def step(lanes: Lanes) -> None:
        for target, source in pairs:
            target[lanes] = source[lanes]

    return step


def convert_address(state: State, instruction: Instruction) -> Step:
    """``cvta``: between a state space's addresses and generic ones."""
    form = Form(instruction.opcode)
    to_space, space, type_name = form.flag("to"), _take_space(form), form.type()
    form.finish()
    window = {"global": 0, "const": 0, "shared": SHARED_WINDOW, "local": LOCAL_WINDOW}.get(space)
    if window is None or type_name != "u64":
        raise form.unsupported()
    target, source = state.write(instruction.operands[0], type_name), state.read(instruction.operands[1], type_name)
    assert target is not None
    shift = np.uint64((-window if to_space else window) & 0xFFFFFFFFFFFFFFFF)

    def step(lanes: Lanes) -> None:
        target[lanes] = source[lanes] + shift

    return step


def is_in_space(state: State, instruction: Instruction) -> Step:
    """``isspacep``: which window a generic address lies in."""
    form = Form(instruction.opcode)
    space = _take_space(form)
    form.finish()
    low, high = {
        "shared": (SHARED_WINDOW, LOCAL_WINDOW),
        "local": (LOCAL_WINDOW, GLOBAL_WINDOW),
        "global": (GLOBAL_WINDOW, 1 << 62),
    }[space]
    target, source = state.write(instruction.operands[0], "pred"), state.read(instruction.operands[1], "u64")
    assert target is not None

    def step(lanes: Lanes) -> None:
        addresses = source[lanes]
        target[lanes] = (addresses >= low) & (addresses < high)

    return step


def nothing(state: State, instruction: Instruction) -> Step:
    """Fences, prefetches and hints: nothing to do where memory is ordered already."""
    return lambda lanes: None


STEPS = {
    "ld": load,
    "ldu": load,
    "st": store,
    "atom": atomic,
    "red": atomic,
    "mov": move,
    "cvta": convert_address,
    "isspacep": is_in_space,
    "membar": nothing,
    "fence": nothing,
    "prefetch": nothing,
    "prefetchu": nothing,
    "nanosleep": nothing,
    "griddepcontrol": nothing,
}
