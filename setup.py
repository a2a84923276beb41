"""The extension modules and their compiler flags; everything else stands in pyproject.toml."""

import copy
import os
import platform
import sys
from itertools import product
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

DEBUG = os.environ.get("FUNKSVD_DEBUG", "0") not in ("", "0")

# -ffast-math would blind isfinite and flush subnormals for the whole importing program; these four give the same
# vectors. Never -march=native: a wheel runs on machines other than the one it was built on. -g0: with the debugging
# symbols that Python asks for, a wheel is six times as large.
FLAGS = [
    "-O3",
    "-g0",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
    "-Wno-psabi",
]

# The kernels are built for each dtype and, on Linux x86-64, for each level of the instruction set; machine/kernels.py
# chooses at import. A compiler that does not know a level leaves the baseline.
PLAIN = ("ratings._keys", "ratings._grid", "ratings._texts", "engines._featurewise")  # built once
KERNELS = (
    "_predict",
    "engines._gibbs",
    "engines._low_rank",
    "engines._minibatch",
    "engines._sgd",
    "machine._cpu",
    "serving._top",
    "training._ridge",
)
FLOAT32 = [("REAL", "float"), ("REAL_BYTES", "4")]
FLOAT64 = [("REAL", "double"), ("REAL_BYTES", "8")]
DTYPES = {"float32": FLOAT32, "float64": FLOAT64}
ONLY_FLOAT32 = ("engines._gibbs", "engines._low_rank", "machine._cpu")
# The vectors of `_sgd` are explicit; sums in another order load each row of a step twice.
OWN_FLAGS = {"engines._sgd": ["-fno-associative-math"]}
LEVELS = {"": [], "_v3": ["-march=x86-64-v3"], "_v4": ["-march=x86-64-v4"]}
if sys.platform != "linux" or platform.machine() != "x86_64":
    LEVELS = {"": []}
HEADERS = ["funksvd/machine/_prefetch.h", "funksvd/machine/_vec.h"]

# The kernel's small functions must become one loop: gcc's own judgement of their size costs 4 %.
INLINE = []
if sys.platform != "win32" and not DEBUG:
    INLINE = [("CYTHON_INLINE", "inline __attribute__((always_inline))")]


class BuildExt(build_ext):
    """build_ext on all cores, with flags by compiler, and an object folder for each build of one source."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extension(self, ext):
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args = ["/O2"]
        else:
            flags = ["-O1", "-g", "-Wno-psabi"] if DEBUG else FLAGS
            ext.extra_compile_args = flags + ext.extra_compile_args
        own = copy.copy(self)  # others are built meanwhile
        own.build_temp = os.path.join(self.build_temp, ext.name)
        super(BuildExt, own).build_extension(ext)


class SDist(sdist):
    """sdist with the Cython sources instead of the C made from them, and with the files of tests and benchmarks."""

    def make_distribution(self):
        sources = [f"funksvd/**/*.{kind}" for kind in ("pyx", "pxi", "h", "cu")]
        tests = ["tests/**/*.py", "tests/*.json", "tests/cuda_host/*.?pp"]
        patterns = [*sources, *tests, "benchmarks/*.py", "benchmarks/*.md", "CHANGELOG.md"]
        for pattern in patterns:
            self.filelist.extend(str(path) for path in sorted(Path().glob(pattern)))
        self.filelist.exclude_pattern("funksvd/**/*.c")
        self.filelist.remove_duplicates()
        super().make_distribution()


def extension(name, **options):
    path = name.replace(".", "/")
    return Extension(f"funksvd.{name}", [f"funksvd/{path}.pyx"], **options)


def extensions():
    directives = {
        "boundscheck": DEBUG,
        "wraparound": False,
        "cdivision": True,
        "initializedcheck": DEBUG,
    }
    modules = cythonize(
        [extension(name) for name in (*PLAIN, *KERNELS)],
        compiler_directives=directives,
    )
    yield from modules[: len(PLAIN)]
    for source, (dtype, macros), (level, flags) in product(
        modules[len(PLAIN) :], DTYPES.items(), LEVELS.items()
    ):
        kernel = source.name.removeprefix("funksvd.")
        if dtype != "float32" and kernel in ONLY_FLOAT32:
            continue
        # One C file under several module names: only the name of the init function differs.
        base = kernel.rpartition(".")[2]
        suffix = f"_{dtype}{level}"
        yield Extension(
            source.name + suffix,
            source.sources,
            define_macros=[*macros, *INLINE, (f"PyInit_{base}", f"PyInit_{base}{suffix}")],
            extra_compile_args=[*flags, *OWN_FLAGS.get(kernel, ())],
            depends=HEADERS,
            optional=bool(level),
        )


setup(ext_modules=list(extensions()), cmdclass={"build_ext": BuildExt, "sdist": SDist})
