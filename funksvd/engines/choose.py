"""Which engine a set of hyper-parameters asks for."""

from __future__ import annotations

from funksvd.engines.sgd import CpuEngine


def engine_for(hyper):
    """The engine class that these parameters of FunkSVD ask for. All have the methods of `CpuEngine`."""
    if hyper.solver == "gibbs":
        from funksvd.engines.gibbs import GibbsEngine

        return GibbsEngine
    if hyper.training == "featurewise":
        from funksvd.engines.featurewise import FeatureEngine

        return FeatureEngine
    if hyper.batch_size > 1 and hyper.device != "cpu":
        from funksvd.engines.cuda_minibatch import CudaMiniBatchEngine

        return CudaMiniBatchEngine
    if hyper.batch_size > 1:
        from funksvd.engines.minibatch import MiniBatchEngine

        return MiniBatchEngine
    if hyper.device != "cpu":
        from funksvd.engines.cuda import CudaEngine

        return CudaEngine
    return CpuEngine
