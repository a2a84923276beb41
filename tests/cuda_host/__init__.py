"""The CUDA source on a machine without a GPU: run (shim, host_cupy), compiled (compiler), mutated (mutate)."""
