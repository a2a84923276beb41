"""Raw triples become encoded ratings: ids, tables, text files, Parquet, and the block grid."""

from funksvd.ratings.triples import Ratings

__all__ = ["Ratings"]
