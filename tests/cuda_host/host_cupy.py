"""What `funksvd.gpu` uses of CuPy, on a CPU: put `HostCupy()` into sys.modules["cupy"] and device="cuda" runs there.

Device arrays are a class of their own, so that NumPy cannot touch them by accident. Copies and kernels wait in their
stream until something waits for them, as late as a card might run them: a wait that is missing gives wrong numbers.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections import deque
from pathlib import Path
from types import SimpleNamespace

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
    """Shared libraries made by the host's compiler, in a folder that FUNKSVD_CUDA_HOST names or in a temporary one."""

    folder = None

    @classmethod
    def library(cls, source, options=(), libraries=()):
        if cls.folder is None:
            cls.folder = Path(
                os.environ.get("FUNKSVD_CUDA_HOST") or tempfile.mkdtemp(prefix="funksvd-cuda-host-")
            )
            cls.folder.mkdir(parents=True, exist_ok=True)
        text = (source, (HERE / "shim.hpp").read_text(), COMPILER, FLAGS, options, libraries)
        path = cls.folder / f"{hashlib.sha256(repr(text).encode()).hexdigest()[:20]}.so"
        if not path.exists():
            unfinished = path.with_suffix(f".{os.getpid()}.part")
            command = [
                COMPILER,
                *FLAGS,
                *options,
                "-x",
                "c++",
                "-",
                *(["-x", "none"] if libraries else []),
                *libraries,
            ]
            subprocess.run([*command, "-o", str(unfinished)], input=source, text=True, check=True)
            unfinished.replace(path)
        return path

    @classmethod
    def shim(cls):
        return str(cls.library((HERE / "shim.cpp").read_text()))


def available():
    """Whether the shim runs here: it needs a C++ compiler and ucontext."""
    return os.name == "posix" and shutil.which(COMPILER) is not None


class Array:
    """Device memory: as much of cupy.ndarray as the driver needs."""

    def __init__(self, data):
        self._data = data

    shape = property(lambda self: self._data.shape)
    dtype = property(lambda self: self._data.dtype)
    nbytes = property(lambda self: self._data.nbytes)
    __array__ = None  # NumPy must not convert it in silence; neither does CuPy

    def __len__(self):
        return len(self._data)

    def __getitem__(self, part):
        return Array(self._data[part])

    def get(self):
        Stream.null.synchronize()
        return self._data.copy()

    def set(self, host, stream=None):
        if not isinstance(host, np.ndarray) or host.shape != self.shape or host.dtype != self.dtype:
            raise ValueError("set needs an array of equal shape and dtype")
        (stream or Stream.null).put(lambda: self._data.__setitem__(Ellipsis, host))
        if stream is None:
            Stream.null.synchronize()


class Stream:
    """A queue that runs when somebody waits for it, and no sooner."""

    null: "Stream"

    def __init__(self, non_blocking=False):
        self.waiting = deque()

    def put(self, work):
        self.waiting.append(work)

    def run_until(self, mark=None):
        while self.waiting:
            work = self.waiting.popleft()
            if work is mark:
                return
            if callable(work):
                work()

    synchronize = run_until

    def record(self, event):
        event.stream, event.mark = self, object()
        self.put(event.mark)

    def wait_event(self, event):
        stream, mark = event.stream, event.mark
        self.put(lambda: mark in stream.waiting and stream.run_until(mark))


Stream.null = Stream()


class Event:
    def __init__(self, **_):
        self.stream, self.mark = Stream.null, None

    def record(self, stream=None):
        (stream or Stream.null).record(self)

    def synchronize(self):
        if self.mark in self.stream.waiting:
            self.stream.run_until(self.mark)


class RawModule:
    """Compiles CUDA source as C++."""

    order, resident, seed = 0, 1, 1  # see `run` of shim.cpp

    def __init__(self, code, options=()):
        macros = tuple(o for o in options if o.startswith("-D"))
        names = re.findall(r"^PASS\((\w+)", code, re.M) + re.findall(
            r"__global__ void (?!__launch)(\w+)\(", code
        )
        source = "\n".join(
            [
                '#include "shim.hpp"',
                code,
                *(f"LAUNCHABLE({name})" for name in names),
                'extern "C" const char* host_error();',
                'extern "C" const char* message() { return host_error(); }',
            ]
        )
        self.library = ctypes.CDLL(str(Compiled.library(source, macros, (Compiled.shim(),))))
        self.library.message.restype = ctypes.c_char_p

    def get_function(self, name):
        function = getattr(self.library, f"{name}_run")

        def launch(grid, block, arguments):
            kept = [argument(a) for a in arguments]
            pointers = (ctypes.c_void_p * len(kept))(
                *(ctypes.cast(ctypes.pointer(c), ctypes.c_void_p) for c in kept)
            )
            how = self.resident, self.order, ctypes.c_uint64(self.seed)

            def work(_alive=arguments):
                if function(pointers, ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]), *how):
                    raise RuntimeError(self.library.message().decode())

            Stream.null.put(work)

        return launch


SCALARS = {"i4": ctypes.c_int32, "u4": ctypes.c_uint32, "i8": ctypes.c_int64, "f4": ctypes.c_float}


def argument(a):
    """A kernel's argument as C takes it; as in CuPy a scalar must be NumPy's."""
    if isinstance(a, Array):
        if not a._data.flags.c_contiguous:
            raise ValueError("kernels take contiguous arrays")
        return ctypes.c_void_p(a._data.ctypes.data)
    if not isinstance(a, np.generic):
        raise TypeError(f"a kernel cannot take {type(a)}")
    return SCALARS[a.dtype.str[1:]](a.item())


def aligned(shape, dtype):
    """Memory at a multiple of 256 bytes, as on a card, with poison around it and in it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.full(size + 768, 0xFF, np.uint8)  # NaN as float32 and float16
    start = 256 + -raw.ctypes.data % 256
    return raw, start, size, raw[start : start + size].view(dtype).reshape(shape)


class HostCupy:
    """The module `cupy`. `devices` and `capability` make up a machine; `memory` is the card's in bytes."""

    def __init__(self, devices=1, capability="80", memory=1 << 34):
        self.__version__ = "14.0.0"
        self.ndarray, self.RawModule = Array, type("RawModule", (RawModule,), {})
        self.used = []
        self.get_default_memory_pool = lambda: SimpleNamespace(free_all_blocks=lambda: None)

        def device(number=0):
            return SimpleNamespace(
                id=number,
                compute_capability=capability,
                mem_info=(memory, memory),
                use=lambda: None,
                synchronize=Stream.null.synchronize,
            )

        def count():
            if not devices:
                raise RuntimeError(
                    "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime"
                )
            return devices

        self.cuda = SimpleNamespace(
            is_available=lambda: devices > 0,
            Device=device,
            Stream=Stream,
            Event=Event,
            alloc_pinned_memory=lambda n: bytearray(n),
            nvrtc=SimpleNamespace(getVersion=lambda: (12, 9)),
            get_current_stream=lambda: Stream.null,
            runtime=SimpleNamespace(getDeviceCount=count),
            memory=SimpleNamespace(OutOfMemoryError=MemoryError),
        )

    def empty(self, shape, dtype):
        *memory, data = aligned(shape, dtype)
        self.used.append(memory)
        return Array(data)

    def overruns(self):
        """Bytes changed beside the arrays made so far."""
        return sum(
            int((raw[:start] != 0xFF).sum() + (raw[start + size :] != 0xFF).sum())
            for raw, start, size in self.used
        )

    def zeros(self, shape, dtype):
        out = self.empty(shape, dtype)
        out._data[...] = 0
        return out

    def asarray(self, host):
        out = self.empty(host.shape, host.dtype)
        out._data[...] = host
        return out
