"""A hash of the content of ratings, by which a model knows the ratings that it was trained on."""

from __future__ import annotations

from funksvd.machine.threads import CHUNK, parallel
from funksvd.ratings.triples import Ratings


def content_of(ratings: Ratings, n_jobs: int = 1) -> list[int]:
    """Return [number of ratings, hash of their codes and values]; the order changes nothing."""

    def sum_of_part(first: int) -> int:
        part = ratings[first : first + CHUNK]
        return int(part._hashes(0).sum())

    sums = parallel(sum_of_part, range(0, len(ratings), CHUNK), n_jobs)
    return [len(ratings), sum(sums) % 2**64]
