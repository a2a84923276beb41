"""Compile the CUDA kernels with NVRTC, which needs no GPU, and check the result.

``python -m tests.cuda_host.compiler`` compiles every specialisation. NVRTC comes with
``pip install nvidia-cuda-nvrtc-cu12``.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from funksvd.engines import cuda_source

KERNELS = {
    "_sgd.cu": ("train", "measure", "shrink"),
    "_minibatch.cu": ("forward", "measure", "backward"),
}
ARCHITECTURES = ("sm_75", "sm_80", "sm_90")
FACTORS = (8, 20, 32, 64, 100, 128, 512)
SONAMES = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
WIDE_LOAD = r"ld\.global\.cg\.v4\.\w32"
NARROW_LOAD = r"ld\.global\.cg\.[bfu]\d+"


@functools.cache
def nvrtc() -> ctypes.CDLL | None:
    """Return libnvrtc, or None."""
    found = importlib.util.find_spec("nvidia")
    roots = [] if found is None else list(found.submodule_search_locations or [])
    installed = [str(place) for root in roots for place in Path(root).glob("**/libnvrtc.so*")]
    for place in (*sorted(installed, key=len), *SONAMES):
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    return None


def available() -> bool:
    """Return whether NVRTC is here."""
    return nvrtc() is not None


def compiled(
    architecture: str,
    options: tuple[str, ...],
    file: str,
) -> tuple[str, str]:
    """Return the PTX and the assembler's report for an architecture such as "sm_80"."""
    library = nvrtc()
    assert library is not None
    program = ctypes.c_void_p()
    text = cuda_source.source(file).encode()
    check_call(
        library.nvrtcCreateProgram(
            ctypes.byref(program),
            text,
            file.encode(),
            0,
            None,
            None,
        )
    )
    of_target = ("-ftz=true", "-Xptxas=-v", f"--gpu-architecture={architecture}")
    arguments = [option.encode() for option in (*options, *of_target)]
    array = (ctypes.c_char_p * len(arguments))(*arguments)
    result = library.nvrtcCompileProgram(program, len(arguments), array)
    log = fetched(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
    if result:
        raise RuntimeError(log)
    ptx = fetched(library.nvrtcGetPTXSize, library.nvrtcGetPTX, program)
    check_call(library.nvrtcDestroyProgram(ctypes.byref(program)))
    return ptx, log


def fetched(
    size_of: Any,
    get: Any,
    program: ctypes.c_void_p,
) -> str:
    """Return a text of a program, by NVRTC's functions of its size and of itself."""
    size = ctypes.c_size_t()
    check_call(size_of(program, ctypes.byref(size)))
    out = ctypes.create_string_buffer(size.value)
    check_call(get(program, out))
    return out.value.decode()


def check_call(result: int) -> None:
    """Raise RuntimeError if one of NVRTC's functions failed."""
    if result:
        raise RuntimeError(f"NVRTC error {result}")


def body_of(ptx: str, kernel: str) -> str:
    """Return the part of a PTX text that belongs to a kernel."""
    body = ptx[ptx.index(f".entry {kernel}(") :]
    return body[: body.index("\n}")]


def check(
    architecture: str,
    options: tuple[str, ...],
    file: str = "_sgd.cu",
) -> int:
    """Check that no kernel spills registers, and that rows are read by 16 bytes through L2.

    Returns
    -------
    int
        The most registers that one of the kernels uses.
    """
    ptx, log = compiled(architecture, options, file)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert spills == [("0", "0")] * len(KERNELS[file]), (architecture, options, log)
    lanes = re.search(r"-DLANES=(\d+)", " ".join(options))
    assert lanes is not None
    rounds = 8 // (32 // int(lanes[1]))
    for kernel in KERNELS[file][:2]:
        body = body_of(ptx, kernel)
        wide = len(re.findall(WIDE_LOAD, body))
        narrow = len(re.findall(NARROW_LOAD, body))
        assert wide >= 2, (architecture, options, kernel, wide)
        # Biases are read one number at a time.
        assert narrow <= rounds + 2, (architecture, options, kernel, narrow)
    return max(map(int, re.findall(r"Used (\d+) registers", log)))


def specialisations(
    file: str,
    half: bool,
    k: int,
) -> Iterator[tuple[str, ...]]:
    """Yield the options of every solver, without and with all extras."""
    for solver in cuda_source.SOLVERS:
        for extra in (False, True):
            if file == "_sgd.cu":
                yield cuda_source.options(
                    k,
                    half,
                    solver,
                    True,
                    extra,
                    extra,
                )
            elif solver != "adagrad_row":
                yield cuda_source.options(k + 2 * extra, half, solver)


def main() -> None:
    """Check every specialisation, and print the most registers of each kind."""
    start = time.perf_counter()
    n = 0
    kinds = (("_sgd.cu", False), ("_sgd.cu", True), ("_minibatch.cu", False))
    for architecture in ARCHITECTURES:
        for file, half in kinds:
            for k in FACTORS:
                options = list(specialisations(file, half, k))
                registers = max(check(architecture, option, file) for option in options)
                n += len(options)
                kind = f"{architecture} {file} {'fp16' if half else 'fp32'} k={k}"
                sys.stdout.write(f"{kind}: at most {registers} registers\n")
                sys.stdout.flush()
    seconds = time.perf_counter() - start
    sys.stdout.write(f"{n} specialisations, no spills, rows read by 16 bytes: {seconds:.0f} s\n")


if __name__ == "__main__":
    main()
