"""A stand-in for CuPy on a CPU: as much of it as the CUDA engines use.

With `HostCupy()` in sys.modules["cupy"], device="cuda" runs on it. Device arrays are a class of
their own, so that NumPy cannot touch them by accident. Copies and kernels wait in their stream
until something waits for them, as late as a card might run them: a wait that is missing gives wrong
numbers.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
COMPILER = os.environ.get("CXX", "g++")
FLAGS = [
    "-std=c++17",
    "-O1",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-U_FORTIFY_SOURCE",
    "-Wall",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-Wno-maybe-uninitialized",
    "-Wno-array-bounds",
    f"-I{HERE}",
]


class Compiled:
    """Shared libraries made by the host's compiler.

    They are kept in the folder that FUNKSVD_CUDA_HOST names, or in a temporary one.
    """

    folder: Path | None = None

    @classmethod
    def make_folder(cls) -> Path:
        """Return the folder of the libraries; the first call makes it."""
        if cls.folder is None:
            named = os.environ.get("FUNKSVD_CUDA_HOST")
            cls.folder = Path(named or tempfile.mkdtemp(prefix="funksvd-cuda-host-"))
            cls.folder.mkdir(parents=True, exist_ok=True)
        return cls.folder

    @classmethod
    def library(
        cls,
        source: str,
        options: tuple[str, ...] = (),
        libraries: tuple[str, ...] = (),
    ) -> Path:
        """Return the library of a C++ source; equal sources are compiled once."""
        header = (HERE / "shim.hpp").read_text()
        inputs = (source, header, COMPILER, FLAGS, options, libraries)
        name = hashlib.sha256(repr(inputs).encode()).hexdigest()[:20]
        path = cls.make_folder() / f"{name}.so"
        if not path.exists():
            unfinished = path.with_suffix(f".{os.getpid()}.part")
            command = [COMPILER, *FLAGS, *options, "-x", "c++", "-"]
            if libraries:
                command += ["-x", "none", *libraries]
            command += ["-o", str(unfinished)]
            subprocess.run(command, input=source, text=True, check=True)
            unfinished.replace(path)
        return path

    @classmethod
    def shim(cls) -> str:
        """Return the path of the library of shim.cpp."""
        return str(cls.library((HERE / "shim.cpp").read_text()))


def available() -> bool:
    """Return whether the shim runs here: it needs a C++ compiler and ucontext."""
    return os.name == "posix" and shutil.which(COMPILER) is not None


class Array:
    """Device memory: as much of cupy.ndarray as the driver needs."""

    __array__ = None  # NumPy must not convert it in silence; CuPy does not allow it either

    def __init__(self, data: np.ndarray) -> None:
        self._data = data

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def dtype(self) -> np.dtype:
        return self._data.dtype

    @property
    def nbytes(self) -> int:
        return self._data.nbytes

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, part: Any) -> Array:
        return Array(self._data[part])

    def get(self) -> np.ndarray:
        """Return a copy on the host, once the null stream has run."""
        Stream.null.synchronize()
        return self._data.copy()

    def set(self, host: np.ndarray, stream: Stream | None = None) -> None:
        """Copy from the host when the stream runs; without a stream at once."""
        if not isinstance(host, np.ndarray) or host.shape != self.shape or host.dtype != self.dtype:
            raise ValueError("set needs an array of equal shape and dtype")

        def copy() -> None:
            self._data[...] = host

        (stream or Stream.null).put(copy)
        if stream is None:
            Stream.null.synchronize()


class Stream:
    """A queue that runs when somebody waits for it, and no sooner.

    It holds functions, and the marks of events.
    """

    null: Stream

    def __init__(self, non_blocking: bool = False) -> None:
        self.waiting: deque = deque()

    def put(self, work: Any) -> None:
        """Append a function or a mark."""
        self.waiting.append(work)

    def run_until(self, mark: object = None) -> None:
        """Run the functions up to a mark, or all."""
        while self.waiting:
            work = self.waiting.popleft()
            if work is mark:
                return
            if callable(work):
                work()

    def synchronize(self) -> None:
        """Run all functions."""
        self.run_until()

    def record(self, event: Event) -> None:
        """Let an event mark this place."""
        event.stream = self
        event.mark = object()
        self.put(event.mark)

    def wait_event(self, event: Event) -> None:
        """Let what follows here wait until the event's stream has come to its mark."""
        stream = event.stream
        mark = event.mark

        def run_other_stream() -> None:
            if mark in stream.waiting:
                stream.run_until(mark)

        self.put(run_other_stream)


Stream.null = Stream()


class Event:
    """A mark in a stream."""

    def __init__(self, **_: Any) -> None:
        self.stream = Stream.null
        self.mark: object = None

    def record(self, stream: Stream | None = None) -> None:
        """Mark the end of what waits in a stream."""
        (stream or Stream.null).record(self)

    def synchronize(self) -> None:
        """Run the stream up to the mark."""
        if self.mark in self.stream.waiting:
            self.stream.run_until(self.mark)


def launchable(code: str) -> str:
    """Return CUDA source as C++ with a function KERNEL_run for each kernel."""
    names = re.findall(r"^PASS\((\w+)", code, re.M)
    names += re.findall(r"__global__ void (?!__launch)(\w+)\(", code)
    lines = ['#include "shim.hpp"', code]
    lines += [f"LAUNCHABLE({name})" for name in names]
    lines += [
        'extern "C" const char* host_error();',
        'extern "C" const char* message() { return host_error(); }',
    ]
    return "\n".join(lines)


class RawModule:
    """CUDA source, compiled as C++. `order`, `resident` and `seed` are those of `run` in shim.cpp.

    `options` are the compiler's; macros alone mean anything to it.
    """

    order = 0
    resident = 1
    seed = 1

    def __init__(self, code: str, options: tuple[str, ...] = ()) -> None:
        macros = tuple(option for option in options if option.startswith("-D"))
        path = Compiled.library(launchable(code), macros, (Compiled.shim(),))
        self.library = ctypes.CDLL(str(path))
        self.library.message.restype = ctypes.c_char_p

    def get_function(self, name: str) -> Callable[[tuple, tuple, tuple], None]:
        """Return the launcher of a kernel, which takes (grid, block, arguments)."""
        function = getattr(self.library, f"{name}_run")

        def launch(
            grid: tuple,
            block: tuple,
            arguments: tuple,
        ) -> None:
            values = [argument(value) for value in arguments]
            addresses = [ctypes.cast(ctypes.pointer(value), ctypes.c_void_p) for value in values]
            pointers = (ctypes.c_void_p * len(values))(*addresses)
            sizes = (ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]))
            how = (self.resident, self.order, ctypes.c_uint64(self.seed))

            def run_kernel(_alive: tuple = (arguments, values)) -> None:
                if function(pointers, *sizes, *how):
                    raise RuntimeError(self.library.message().decode())

            Stream.null.put(run_kernel)

        return launch


POISON = 0xFF
SCALARS = {"i4": ctypes.c_int32, "u4": ctypes.c_uint32, "i8": ctypes.c_int64, "f4": ctypes.c_float}


def argument(value: Any) -> Any:
    """Return a kernel's argument as C takes it; as in CuPy a scalar must be NumPy's."""
    if isinstance(value, Array):
        if not value._data.flags.c_contiguous:
            raise ValueError("kernels take contiguous arrays")
        return ctypes.c_void_p(value._data.ctypes.data)
    if not isinstance(value, np.generic):
        raise TypeError(f"a kernel cannot take {type(value)}")
    return SCALARS[value.dtype.str[1:]](value.item())


class Poisoned(NamedTuple):
    """Memory around an array and in it, all bytes of which are 0xFF: NaN as float32 and float16."""

    raw: np.ndarray
    start: int
    size: int

    def overruns(self) -> int:
        """Return how many bytes beside the array have changed."""
        before = self.raw[: self.start]
        after = self.raw[self.start + self.size :]
        return int((before != POISON).sum() + (after != POISON).sum())


def poisoned(shape: Any, dtype: Any) -> tuple[Poisoned, np.ndarray]:
    """Return poisoned memory and the array in it, at a multiple of 256 bytes as on a card."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.full(size + 768, POISON, np.uint8)
    start = 256 + -raw.ctypes.data % 256
    return Poisoned(raw, start, size), raw[start : start + size].view(dtype).reshape(shape)


class Cuda:
    """The module `cupy.cuda` of a made-up machine."""

    Stream = Stream
    Event = Event

    def __init__(
        self,
        devices: int,
        capability: str,
        memory: int,
    ) -> None:
        self.devices = devices
        self.capability = capability
        self.mem_info = (memory, memory)
        self.nvrtc = SimpleNamespace(getVersion=lambda: (12, 9))
        self.runtime = SimpleNamespace(getDeviceCount=self._count)
        self.memory = SimpleNamespace(OutOfMemoryError=MemoryError)

    def _count(self) -> int:
        if not self.devices:
            raise RuntimeError(
                "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime"
            )
        return self.devices

    def is_available(self) -> bool:
        return self.devices > 0

    def get_current_stream(self) -> Stream:
        return Stream.null

    def alloc_pinned_memory(self, size: int) -> bytearray:
        return bytearray(size)

    def Device(self, number: int = 0) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(
            id=number,
            compute_capability=self.capability,
            mem_info=self.mem_info,
            use=lambda: None,
            synchronize=Stream.null.synchronize,
        )


class HostCupy:
    """The module `cupy` of a made-up machine; `memory` is that of its card in bytes."""

    def __init__(
        self,
        devices: int = 1,
        capability: str = "80",
        memory: int = 1 << 34,
    ) -> None:
        self.__version__ = "14.0.0"
        self.ndarray = Array
        self.RawModule = type("RawModule", (RawModule,), {})  # `schedule` changes this one alone
        self.cuda = Cuda(devices, capability, memory)
        self.used: list[Poisoned] = []

    def get_default_memory_pool(self) -> SimpleNamespace:
        return SimpleNamespace(free_all_blocks=lambda: None)

    def empty(self, shape: Any, dtype: Any) -> Array:
        """Return an array of NaN."""
        memory, data = poisoned(shape, dtype)
        self.used.append(memory)
        return Array(data)

    def zeros(self, shape: Any, dtype: Any) -> Array:
        return self.asarray(np.zeros(shape, dtype))

    def asarray(self, host: np.ndarray) -> Array:
        out = self.empty(host.shape, host.dtype)
        out._data[...] = host
        return out

    def schedule(
        self,
        order: int,
        resident: int,
        seed: int | None = None,
    ) -> None:
        """Choose the order of lanes and how many blocks run at once; see `run` of shim.cpp."""
        self.RawModule.order = order
        self.RawModule.resident = resident
        self.RawModule.seed = 7 * order + resident if seed is None else seed

    def overruns(self) -> int:
        """Return how many bytes beside the arrays made so far have changed."""
        return sum(memory.overruns() for memory in self.used)
