"""The machine below: builds of the kernels, memory, threads, and files written whole."""
