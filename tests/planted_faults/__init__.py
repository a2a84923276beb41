"""Faults planted one at a time in the Cython kernels; the test named with each must catch it.

From the root of a source tree, built in place or with funksvd installed::

    python -m tests.planted_faults                       every fault
    python -m tests.planted_faults --sample 6 --seed 3   six of them
    python -m tests.planted_faults --only gibbs          those whose file or words contain "gibbs"

The exit code is the number of faults that were missed. `tests/cuda_host/mutate.py` does the same
for the CUDA engines.
"""
