"""Build the extension modules; everything else about the package stands in pyproject.toml."""

import copy
import os
import platform
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist


def is_set(variable: str) -> bool:
    """Return whether an environment variable is set to other than nothing or 0."""
    return os.environ.get(variable, "0") not in ("", "0")


DEBUG = is_set("FUNKSVD_DEBUG")
ONE_LEVEL = is_set("FUNKSVD_ONE_LEVEL")

# -ffast-math would blind isfinite and flush subnormal numbers for the whole importing program; the
# four -f flags below give the same vectors without that. -march=native is left out because a wheel
# runs on machines other than the one it was built on. -g0 drops the debugging symbols that Python's
# own flags ask for; with them a wheel is six times as large.
FLAGS = [
    "-O3",
    "-g0",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
    "-Wno-psabi",
]

# Cython's memory view classes take 3.4 s of the compiler in every module that has them. All modules
# share this one copy instead; Cython writes its source.
MEMORYVIEWS = "machine._memoryviews"

# Modules that are built once.
PLAIN = ("ratings._keys", "ratings._grid", "ratings._texts", "engines._featurewise")

# Kernels are built for each dtype and, on Linux x86-64, for each level of the instruction set;
# machine/kernels.py chooses one at import. A compiler that does not know a level leaves it out.
# The kernels that take longest to compile come first, so that no core waits for the last of them.
KERNELS = (
    "engines._sgd",
    "engines._gibbs",
    "engines._minibatch",
    "engines._low_rank",
    "engines._moods",
    "engines._exposure",
    "serving._top",
    "training._ridge",
    "_predict",
    "machine._cpu",
)
DTYPES = {
    "float32": [("REAL", "float"), ("REAL_BYTES", "4")],
    "float64": [("REAL", "double"), ("REAL_BYTES", "8")],
}
ONLY_FLOAT32 = (
    "engines._gibbs",
    "engines._low_rank",
    "engines._exposure",
    "engines._moods",
    "machine._cpu",
)
LEVELS = {"": [], "_v3": ["-march=x86-64-v3"], "_v4": ["-march=x86-64-v4"]}
# FUNKSVD_ONE_LEVEL=1 leaves the higher levels out: sanitizers and other compilers check the one
# that CFLAGS asks for, and a cross-compiler is not for the machine that runs this.
if ONE_LEVEL or sys.platform != "linux" or platform.machine() != "x86_64":
    LEVELS = {"": []}
HEADERS = [f"funksvd/machine/_{name}.h" for name in ("bounds", "prefetch", "vec")]
# A debug build checks indices behind pointers, too; see machine/_bounds.h.
DEBUG_MACROS: list[tuple[str, str | None]] = [("FUNKSVD_DEBUG", None)] if DEBUG else []

# `_sgd` sums its vectors in the order that its source says: the compiler's other orders load each
# row of a step twice.
OWN_FLAGS = {"engines._sgd": ["-fno-associative-math"]}


# `_sgd` has copies of its loop for the usual lengths of rows and of micro-batches, which take two
# thirds of its compile time. Builds that few run have fewer: float64 those of plain SGD, without
# which an epoch takes 2.6 times as long, and the baseline none where there are higher levels.
# Builds for checks have none.
def copies_of(dtype: str, level: str) -> int:
    """Return which copies a build has: 2 those of all solvers, 1 those of plain SGD, 0 none."""
    if DEBUG or ONE_LEVEL or (not level and len(LEVELS) > 1):
        return 0
    return 1 if dtype == "float64" else 2


# The small functions of a kernel must become one loop. Left to gcc's own judgement of their size,
# an epoch takes 1.04 of the time.
INLINE = []
if sys.platform != "win32" and not DEBUG:
    INLINE = [("CYTHON_INLINE", "inline __attribute__((always_inline))")]


class BuildExt(build_ext):
    """Build on all cores, with the flags of the compiler and one object folder an extension."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extension(self, ext: Extension) -> None:
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args = ["/O2"]
        else:
            flags = ["-O1", "-g", "-Wno-psabi"] if DEBUG else FLAGS
            ext.extra_compile_args = flags + ext.extra_compile_args
        own = copy.copy(self)  # other threads build other extensions meanwhile
        own.build_temp = os.path.join(self.build_temp, ext.name)
        super(BuildExt, own).build_extension(ext)


class SDist(sdist):
    """Pack the Cython sources, not the C made from them, and the files of tests and benchmarks."""

    def make_distribution(self) -> None:
        sources = [f"funksvd/**/*.{kind}" for kind in ("pyx", "pxi", "h", "cu")]
        tests = ["tests/**/*.py", "tests/*.json", "tests/cuda_host/*.?pp"]
        results = ["benchmarks/*.md", "benchmarks/results/*.json"]
        pages = ["docs/**/*.md", "docs/*.py", "docs/_static/*", "CHANGELOG.md"]
        patterns = [*sources, *tests, "benchmarks/*.py", *results, *pages]
        for pattern in patterns:
            self.filelist.extend(str(path) for path in sorted(Path().glob(pattern)))
        self.filelist.exclude_pattern("*.c", anchor=False)
        self.filelist.remove_duplicates()
        super().make_distribution()


def source_of(name: str, kind: str) -> str:
    """Return the path of a module's source."""
    return f"funksvd/{name.replace('.', '/')}.{kind}"


def c_modules() -> dict[str, Extension]:
    """Let Cython write the C sources; return the extension of each by name."""
    sources = {name: source_of(name, "pyx") for name in (*PLAIN, *KERNELS)}
    sources[MEMORYVIEWS] = source_of(MEMORYVIEWS, "c")
    modules = cythonize(
        [Extension(f"funksvd.{name}", [path]) for name, path in sources.items()],
        compiler_directives={
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
        },
        shared_utility_qualified_name=f"funksvd.{MEMORYVIEWS}",
    )
    return {module.name.removeprefix("funksvd."): module for module in modules}


def build_of(module: Extension, kernel: str, dtype: str, level: str) -> Extension:
    """Return the extension of a kernel for one dtype and one level.

    All builds share one C file; only the name of its init function differs.
    """
    suffix = f"_{dtype}{level}"
    init = f"PyInit_{kernel.rpartition('.')[2]}"
    copies = ("FUNKSVD_COPIES", str(copies_of(dtype, level)))
    macros = [*DEBUG_MACROS, *DTYPES[dtype], *INLINE, (init, init + suffix), copies]
    return Extension(
        module.name + suffix,
        module.sources,
        define_macros=macros,
        extra_compile_args=[*LEVELS[level], *OWN_FLAGS.get(kernel, ())],
        depends=HEADERS,
        optional=bool(level),
    )


def extensions() -> Iterator[Extension]:
    """Yield every extension of the package, those that take longest to compile first."""
    modules = c_modules()
    for kernel, dtype, level in product(KERNELS, DTYPES, LEVELS):
        # machine/kernels.py takes the float64 kernels of v3 for v4, too.
        wanted = level != "_v4" and kernel not in ONLY_FLOAT32
        if dtype == "float32" or wanted:
            yield build_of(modules[kernel], kernel, dtype, level)
    for name in (MEMORYVIEWS, *PLAIN):
        yield modules[name]


setup(ext_modules=list(extensions()), cmdclass={"build_ext": BuildExt, "sdist": SDist})
