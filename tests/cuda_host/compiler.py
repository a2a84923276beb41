"""Compile the kernels for cards with NVRTC, which needs no GPU, and look at what came out.

``python -m tests.cuda_host.compiler`` compiles every specialisation; NVRTC: ``pip install nvidia-cuda-nvrtc-cu12``.
"""

import ctypes
import functools
import importlib.util
import re
import sys
import time
from pathlib import Path

from funksvd.engines import cuda_source

KERNELS = {
    "_sgd.cu": ("train", "measure", "shrink"),
    "_minibatch.cu": ("forward", "measure", "backward"),
}


@functools.cache
def nvrtc():
    """libnvrtc, or None."""
    found = importlib.util.find_spec("nvidia")
    roots = [] if found is None else found.submodule_search_locations
    places = [place for root in roots for place in Path(root).glob("**/libnvrtc.so*")]
    for place in [
        *sorted(map(str, places), key=len),
        "libnvrtc.so.13",
        "libnvrtc.so.12",
        "libnvrtc.so",
    ]:
        try:
            return ctypes.CDLL(place)
        except OSError:
            continue
    return None


def available():
    return nvrtc() is not None


def compiled(architecture, options, file):
    """(PTX, what the assembler reports) for an architecture such as "sm_80"."""
    library, program = nvrtc(), ctypes.c_void_p()
    call(
        library.nvrtcCreateProgram(
            ctypes.byref(program), cuda_source.source(file).encode(), file.encode(), 0, None, None
        )
    )
    arguments = [
        o.encode()
        for o in (*options, "-ftz=true", "-Xptxas=-v", f"--gpu-architecture={architecture}")
    ]
    result = library.nvrtcCompileProgram(
        program, len(arguments), (ctypes.c_char_p * len(arguments))(*arguments)
    )
    log = fetched(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
    if result:
        raise RuntimeError(log)
    ptx = fetched(library.nvrtcGetPTXSize, library.nvrtcGetPTX, program)
    call(library.nvrtcDestroyProgram(ctypes.byref(program)))
    return ptx, log


def fetched(size_of, get, program):
    size = ctypes.c_size_t()
    call(size_of(program, ctypes.byref(size)))
    out = ctypes.create_string_buffer(size.value)
    call(get(program, out))
    return out.value.decode()


def call(result):
    if result:
        raise RuntimeError(f"NVRTC error {result}")


def check(architecture, options, file="_sgd.cu"):
    """AssertionError where a kernel spills registers or reads rows otherwise than by 16 bytes through L2."""
    ptx, log = compiled(architecture, options, file)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert spills == [("0", "0")] * len(KERNELS[file]), (architecture, options, log)
    for kernel in KERNELS[file][:2]:
        body = ptx[ptx.index(f".entry {kernel}(") :]
        body = body[: body.index("\n}")]
        wide, narrow = (
            len(re.findall(p, body))
            for p in (r"ld\.global\.cg\.v4\.\w32", r"ld\.global\.cg\.[bfu]\d+")
        )
        rounds = 8 // (32 // int(re.search(r"-DLANES=(\d+)", " ".join(options))[1]))
        assert wide >= 2, (architecture, options, kernel, wide)
        assert narrow <= rounds + 2, (
            architecture,
            options,
            kernel,
            narrow,
        )  # biases, a number each
    return max(map(int, re.findall(r"Used (\d+) registers", log)))


def main():
    start, n = time.perf_counter(), 0
    for architecture in ("sm_75", "sm_80", "sm_90"):
        for file, half in (("_sgd.cu", False), ("_sgd.cu", True), ("_minibatch.cu", False)):
            for k in (8, 20, 32, 64, 100, 128, 512):
                registers = []
                for solver in cuda_source.SOLVERS:
                    for extra in (False, True):
                        if file == "_sgd.cu":
                            options = cuda_source.options(k, half, solver, True, extra, extra)
                        elif solver != "adagrad_row":
                            options = cuda_source.options(k + 2 * extra, half, solver)
                        else:
                            continue
                        registers.append(check(architecture, options, file))
                n += len(registers)
                stored = "fp16" if half else "fp32"
                sys.stdout.write(
                    f"{architecture} {file} {stored} k={k}: at most {max(registers)} registers\n"
                )
                sys.stdout.flush()
    sys.stdout.write(
        f"{n} specialisations, no spills, rows read by 16 bytes: {time.perf_counter() - start:.0f} s\n"
    )


if __name__ == "__main__":
    main()
