"""Fuzzers: random cases, each made from a seed and its number; none may crash or be misread.

From the root of a source tree, built in place or with funksvd installed::

    python -m tests.fuzz.shapes                      random shapes of ratings, for a minute
    python -m tests.fuzz.files --seconds 3600        damaged models, checkpoints and ratings
    python -m tests.fuzz.threads                     one model and its ratings, eight threads
    python -m tests.fuzz.interrupts                  Ctrl-C at random moments of fits
    python -m tests.fuzz.kills                       SIGKILL at random moments of trainings

A run prints its seed. A find prints the command that repeats it, and the exit code is 1.
"""
