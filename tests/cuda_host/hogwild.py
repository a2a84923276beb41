"""Hogwild beside strata on MovieLens 100k, on the shim, where warps stall at random and rows collide.

``python -m tests.cuda_host.hogwild PATH/u.data`` takes minutes. Its status is 1 where Hogwild is worse by 1 % or more.
"""

import sys

from funksvd import FunkSVD, Ratings
from funksvd.engines.cuda import CudaEngine, hogwild_warps
from funksvd.parameters import resolve

from .host_cupy import HostCupy


def main(path, n_epochs=8, rate=0.02):
    sys.modules["cupy"] = host = HostCupy()
    host.RawModule.order, host.RawModule.resident = 2, 1 << 20
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
            f"{schedule}: {warps} warps at once, validation RMSE {rmse[schedule]:.4f}, {n_epochs} epochs\n"
        )
        sys.stdout.flush()
    worse = rmse["hogwild"] / rmse["strata"] - 1
    sys.stdout.write(f"hogwild is worse by {worse:.2%}\n")
    return int(worse >= 0.01)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
