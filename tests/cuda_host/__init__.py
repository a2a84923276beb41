"""Run and compile the CUDA kernels without a GPU; see shim.cpp, host_cupy.py and compiler.py."""
