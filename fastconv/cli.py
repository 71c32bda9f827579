"""The `fastconv` command: ``fastconv train | bench | compare | info | warmup | explain``."""

from __future__ import annotations

import argparse
import importlib
import math
import platform
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba import config
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from fastconv import __version__, dispatch, plots, warmup
from fastconv.bench import command, compare
from fastconv.cpu import codegen, tiles, update
from fastconv.cuda.ahead import Compiler, capability_of
from fastconv.demo import LEARNING_RATE, tutorial_network
from fastconv.geometry import conv2d_geometry
from fastconv.keras import Sequential, callbacks, datasets, losses, optimizers, utils

EXIT_OK, EXIT_MISSED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
DEFAULT_EPOCHS = 12
DEFAULT_BATCH_SIZE = 32
DEMO_PACKAGES = ("matplotlib", "safetensors")
DATASETS = {"fashion-mnist": datasets.fashion_mnist, "mnist": datasets.mnist, "cifar10": datasets.cifar10}
FEATURE_MAP_IMAGE = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit status."""
    arguments = _parser().parse_args(argv)
    console = Console(highlight=False)
    try:
        status: int = arguments.command(arguments, console)
    except (OSError, ValueError, ImportError) as error:
        Console(stderr=True, highlight=False).print(f"[red]fastconv: {escape(str(error))}[/red]", soft_wrap=True)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastconv", description="Fast convolutions in readable Python.")
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a small network on images and save it with pictures")
    train.set_defaults(command=_train)
    train.add_argument(
        "--data",
        default="sample",
        metavar="sample|fashion-mnist|mnist|cifar10|DIR",
        help="images to learn: the shipped sample of Fashion-MNIST, a whole data set, or a folder of class folders",
    )
    train.add_argument("--epochs", type=_at_least_one, default=DEFAULT_EPOCHS, help="default: %(default)s")
    train.add_argument("--batch-size", type=_at_least_one, default=DEFAULT_BATCH_SIZE, help="default: %(default)s")
    train.add_argument("--seed", type=int, default=0, help="same seed, same weights; default: %(default)s")
    train.add_argument("--out", type=Path, default=Path("fastconv-out"), help="folder to write; default: %(default)s")
    train.add_argument(
        "--target-accuracy",
        type=_share,
        metavar="X",
        help="exit with status 1 if the test accuracy is below X",
    )

    bench = commands.add_parser("bench", help="time fastconv against NumPy, PyTorch and others, layer by layer")
    bench.set_defaults(command=command.run)
    command.add_arguments(bench)

    against_gpu = commands.add_parser("compare", help="CPU and GPU side by side, and from which batch the GPU pays")
    against_gpu.set_defaults(command=compare.run)
    compare.add_arguments(against_gpu)

    info = commands.add_parser("info", help="show versions, CPU, vector width, threads and cache folders")
    info.set_defaults(command=_info)

    ahead = commands.add_parser("warmup", help="compile all kernels now instead of on their first use")
    ahead.set_defaults(command=_warmup)
    ahead.add_argument(
        "--device",
        default="cpu",
        metavar="cpu|cuda|cuda:H100",
        help="cuda: the GPU that is here; cuda:H100, cuda:sm_86: a GPU that need not be here; default: %(default)s",
    )

    explain = commands.add_parser("explain", help="tell which algorithm computes a convolution, and why")
    explain.set_defaults(command=_explain)
    explain.add_argument("x", type=_shape, help="shape of x: N,IH,IW,IC")
    explain.add_argument("weight", type=_shape, help="shape of weight: KH,KW,IC/groups,OC")
    explain.add_argument("--stride", type=int, default=1)
    explain.add_argument("--padding", type=_padding, default=0, help="a number, same, same_lower or valid")
    explain.add_argument("--dilation", type=int, default=1)
    explain.add_argument("--groups", type=int, default=1)
    explain.add_argument("--measure", action="store_true", help="time it, beside what this machine could do")
    explain.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    explain.add_argument("--device", default="cpu", help="cuda:H100 or another GPU, which need not be there")
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, not {number}")
    return number


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(extent) for extent in text.split(","))


def _padding(text: str) -> int | str:
    return int(text) if text.isdigit() else text


# ---- train --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Images:
    """A data set ready for training: float32 images from 0 to 1 with a channel axis, class numbers, class names."""

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]


def load_images(name: str) -> Images:
    """The images that ``--data`` names."""
    if name == "sample":
        arrays, class_names = datasets.load_sample(), datasets.fashion_mnist.class_names
    elif name in DATASETS:
        arrays, class_names = DATASETS[name].load_data(), DATASETS[name].class_names
    elif Path(name).is_dir():
        arrays, class_names = datasets.load_directory(name)
    else:
        raise ValueError(f"--data must be sample, {', '.join(DATASETS)} or an existing folder. Received: {name}")
    (x_train, y_train), (x_test, y_test) = arrays

    def pixels(x: datasets.Images) -> NDArray[np.float32]:
        return (x if x.ndim == 4 else x[..., np.newaxis]).astype(np.float32) / np.float32(255)

    def numbers(y: datasets.Images) -> NDArray[np.int64]:
        return y.reshape(-1).astype(np.int64)

    return Images(pixels(x_train), numbers(y_train), pixels(x_test), numbers(y_test), class_names)


def _train(arguments: argparse.Namespace, console: Console) -> int:
    _require_demo_packages()
    arguments.out.mkdir(parents=True, exist_ok=True)
    data = load_images(arguments.data)
    utils.set_random_seed(arguments.seed)
    model = tutorial_network(data.x_train.shape[1:], len(data.class_names))
    model.compile(
        optimizers.Adam(LEARNING_RATE), losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    model.summary()
    console.print(
        f"{len(data.x_train):,} training and {len(data.x_test):,} test images, {len(data.class_names)} classes. "
        f"Ctrl-C ends the training and saves.",
        soft_wrap=True,
    )
    started = time.perf_counter()
    with ctrl_c_ends_training(model):
        history = model.fit(
            data.x_train,
            data.y_train,
            batch_size=arguments.batch_size,
            epochs=arguments.epochs,
            validation_data=(data.x_test, data.y_test),
            callbacks=[callbacks.LearningRateScheduler(cosine_schedule(arguments.epochs))],
        ).history
    if model.stop_training:
        console.print("[yellow]Stopped by Ctrl-C: saving what was learnt so far.[/yellow]")
    console.print(f"{len(history['loss'])} epochs in {time.perf_counter() - started:.1f} s")

    matrix = confusion(data.y_test, model.predict(data.x_test).argmax(axis=1), len(data.class_names))
    accuracy = np.trace(matrix) / max(matrix.sum(), 1)
    console.print(_class_table(matrix, data.class_names))
    model.save(arguments.out / "model.safetensors")
    write_pictures(arguments.out, model, history, matrix, data)
    console.print(f"Model and pictures are in {escape(str(arguments.out))}")
    if arguments.target_accuracy is not None and accuracy < arguments.target_accuracy:
        console.print(f"[red]Test accuracy {accuracy:.4f} is below the target {arguments.target_accuracy}.[/red]")
        return EXIT_MISSED
    return EXIT_OK


def cosine_schedule(epochs: int) -> Callable[[int, float], float]:
    """From the full learning rate in epoch 0 down half a wave that would reach 0 in epoch *epochs*: a steadier end."""
    return lambda epoch, _: LEARNING_RATE * (1 + math.cos(math.pi * epoch / epochs)) / 2


@contextmanager
def ctrl_c_ends_training(model: Sequential) -> Iterator[None]:
    """The first Ctrl-C ends the epoch after the current batch; a second one interrupts as usual."""

    def stop(number: int, frame: Any) -> None:
        model.stop_training = True
        signal.signal(signal.SIGINT, previous)

    previous = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def confusion(true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """``matrix[t, p]``: how many samples of class t were taken for class p."""
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def _class_table(matrix: NDArray[np.int64], class_names: Sequence[str]) -> Table:
    table = Table(title=f"Test accuracy {np.trace(matrix) / max(matrix.sum(), 1):.2%}", title_style="bold")
    table.add_column("Class")
    table.add_column("Images", justify="right")
    table.add_column("Accuracy", justify="right")
    table.add_column("Most often taken for")
    for label, row in enumerate(matrix):
        others = row.copy()
        others[label] = 0
        worst = int(others.argmax())
        mistake = f"{class_names[worst]} ({others[worst]:,})" if others[worst] else ""
        table.add_row(
            escape(class_names[label]), f"{row.sum():,}", f"{row[label] / max(row.sum(), 1):.1%}", escape(mistake)
        )
    return table


def write_pictures(folder: Path, model: Sequential, history: Any, matrix: NDArray[np.int64], data: Images) -> None:
    """Training curves, confusion matrix, and what each layer makes of one test image."""
    plots.training_curves(history).savefig(folder / "curves.png")
    plots.confusion_matrix(matrix, data.class_names).savefig(folder / "confusion.png")
    plots.feature_maps(model, data.x_test[FEATURE_MAP_IMAGE]).savefig(folder / "feature_maps.png")


def _require_demo_packages() -> None:
    """Find out before the training, not after it."""
    for package in DEMO_PACKAGES:
        try:
            importlib.import_module(package)
        except ImportError:
            raise ImportError(f'fastconv train needs {package}: pip install "fastconv[demo]"') from None


# ---- info ---------------------------------------------------------------------------------------------------------


def _info(arguments: argparse.Namespace, console: Console) -> int:
    bits = 8 * codegen.VECTOR_BYTES
    facts = {
        "fastconv": __version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "NumPy": np.__version__,
        "Numba": f"{numba.__version__} (llvmlite {llvmlite.__version__})",
        "CPU": config.CPU_NAME or llvmlite.binding.get_host_cpu_name(),
        "Vectors": f"{bits} bits: {bits // 32} float32 or {bits // 64} float64",
        "Register tile": f"{tiles.TILE_ROWS} x {tiles.TILE_VECTORS} vectors",
        "Threads": f"{numba.get_num_threads()} (threading layer: {config.THREADING_LAYER})",
        "Compiled kernels": update.adam_serial.stats.cache_path or "not kept: no folder to write to",
        "Data sets": datasets.cache_directory(),
    }
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, escape(str(value)))
    console.print(table)
    return EXIT_OK


# ---- warmup -------------------------------------------------------------------------------------------------------


def compile_for_gpu(device: str, console: Console) -> str:
    """Make every call of `warmup.gpu_calls`; which kernels are compiled now, in words."""
    engine = Compiler(capability_of(device))
    for call in track(warmup.gpu_calls(engine), "Compiling kernels", console=console):
        call()
    major, minor = engine.capability
    return f"{len(engine.kernels)} kernels for compute capability {major}.{minor}"


def _warmup(arguments: argparse.Namespace, console: Console) -> int:
    started = time.perf_counter()
    if arguments.device == "cpu":
        warmup.compile_for_cpu(("float32", "float64"), partial(track, description="Compiling kernels", console=console))
        what = "All kernels"
    else:
        what = compile_for_gpu(arguments.device, console)
    console.print(f"{what} are compiled and cached ({time.perf_counter() - started:.1f} s).")
    return EXIT_OK


# ---- explain ------------------------------------------------------------------------------------------------------


def _explain(arguments: argparse.Namespace, console: Console) -> int:
    options = {name: getattr(arguments, name) for name in ("stride", "padding", "dilation", "groups", "dtype")}
    text = dispatch.explain(arguments.x, arguments.weight, device=arguments.device, **options)
    console.print(escape(text), soft_wrap=True)
    if arguments.measure:
        from fastconv.bench import speed

        dtype = options.pop("dtype")
        for line in speed.lines(conv2d_geometry(arguments.x, arguments.weight, **options), dtype):
            console.print(line, soft_wrap=True)
    return EXIT_OK
