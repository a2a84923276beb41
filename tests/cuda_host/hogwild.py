"""Hogwild beside strata on MovieLens 100k, on the shim.

Warps stall at random there and rows collide. ``python -m tests.cuda_host.hogwild PATH/u.data``
takes minutes. Its exit status is 1 if Hogwild's RMSE is higher by 1 % or more.
"""

from __future__ import annotations

import sys

from funksvd import FunkSVD, Ratings
from funksvd.engines.cuda import CudaEngine, hogwild_warps
from funksvd.hyper import resolve

from .host_cupy import HostCupy

RANDOM_ORDER = 2
ALL_BLOCKS = 1 << 20


def main(
    path: str,
    n_epochs: int = 8,
    rate: float = 0.02,
) -> int:
    """Print the validation RMSE of both schedules; return the exit status."""
    sys.modules["cupy"] = host = HostCupy()
    host.schedule(RANDOM_ORDER, ALL_BLOCKS, seed=1)
    train, held_out = Ratings.read(path).split(0.1, 0)
    rmse = {}
    for schedule in ("strata", "hogwild"):
        hyper = resolve(FunkSVD(16, device="cuda", schedule=schedule).get_params())
        engine = CudaEngine(train, held_out, hyper, seed=0)
        warps = hogwild_warps(engine.grid) if schedule == "hogwild" else engine.grid.n_bands
        for epoch in range(n_epochs):
            engine.epoch(epoch, rate)
        rmse[schedule] = engine.validate() ** 0.5
        sys.stdout.write(
            f"{schedule}: {warps} warps at once, validation RMSE {rmse[schedule]:.4f}, "
            f"{n_epochs} epochs\n"
        )
        sys.stdout.flush()
    worse = rmse["hogwild"] / rmse["strata"] - 1
    sys.stdout.write(f"hogwild is worse by {worse:.2%}\n")
    return int(worse >= 0.01)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
