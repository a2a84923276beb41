"""Which engine a set of hyper-parameters asks for."""

from __future__ import annotations

from funksvd.engines.contract import Engine
from funksvd.hyper import Hyper


def engine_for(hyper: Hyper) -> type[Engine]:
    """Return the class of the engine, which is imported only now: a fit needs one of them."""
    if hyper.solver == "gibbs" and hyper.n_factors == 0:
        from funksvd.engines.bias_sampler import BiasSampler

        return BiasSampler
    if hyper.solver == "gibbs":
        from funksvd.engines.gibbs import GibbsEngine

        return GibbsEngine
    if hyper.solver == "ials":
        from funksvd.engines.exposure import ExposureEngine

        return ExposureEngine
    if hyper.training == "featurewise":
        from funksvd.engines.featurewise import FeatureEngine

        return FeatureEngine
    on_gpu = hyper.device != "cpu"
    if hyper.batch_size > 1 and on_gpu:
        from funksvd.engines.cuda_minibatch import CudaMiniBatchEngine

        return CudaMiniBatchEngine
    if hyper.batch_size > 1:
        from funksvd.engines.minibatch import MiniBatchEngine

        return MiniBatchEngine
    if on_gpu:
        from funksvd.engines.cuda import CudaEngine

        return CudaEngine
    from funksvd.engines.sgd import SgdEngine

    return SgdEngine
