"""Made-up ratings whose best possible error is known, and public ratings: MovieLens and the Netflix Prize's."""

from __future__ import annotations

import math
import os
import re
from numbers import Integral
from pathlib import Path
from typing import NamedTuple

import numpy as np

from funksvd.machine.threads import cpu_count, parallel
from funksvd.ratings.columns import resolve_columns
from funksvd.ratings.reading import read_columns, read_pairs, read_ratings, read_titles
from funksvd.ratings.triples import Ratings

__all__ = [
    "Dataset",
    "Planted",
    "load_movielens",
    "load_netflix",
    "make_ratings",
    "read_pairs",
    "read_ratings",
    "read_titles",
    "resolve_columns",
]

MOVIELENS_URL = "https://files.grouplens.org/datasets/movielens/"
# Of each archive: the MD5 that GroupLens publishes beside it (NAME.zip.md5), its ratings and its titles. The releases
# for development change, so their MD5 is fetched with them.
_RELEASES = {
    "ml-100k": ("0e33842e24a9c977be4e0107933c0723", "ml-100k/u.data", "ml-100k/u.item"),
    "ml-1m": ("c4d9eecfca2ab87c1945afe126590906", "ml-1m/ratings.dat", "ml-1m/movies.dat"),
    "ml-10m": (
        "ce571fd55effeba0271552578f2648bd",
        "ml-10M100K/ratings.dat",
        "ml-10M100K/movies.dat",
    ),
    "ml-20m": ("cd245b17a1ae2cc31bb14903e1204af3", "ml-20m/ratings.csv", "ml-20m/movies.csv"),
    "ml-25m": ("6b51fb2759a8657d3bfcbfc42b592ada", "ml-25m/ratings.csv", "ml-25m/movies.csv"),
    "ml-32m": ("d472be332d4daa821edc399621853b57", "ml-32m/ratings.csv", "ml-32m/movies.csv"),
    "latest-small": (None, "ml-latest-small/ratings.csv", "ml-latest-small/movies.csv"),
}
_BLOCK = 1 << 22  # bytes of the prize's files that are parsed at once


class Planted(NamedTuple):
    """Ratings made by `make_ratings`.

    Attributes
    ----------
    users, items : ndarray of shape (n_ratings,), int32
        Ids from 0; no pair occurs twice, and not every id needs to occur.
    ratings : ndarray of shape (n_ratings,), float32
        `truth` plus noise, neither rounded nor clipped.
    truth : ndarray of shape (n_ratings,), float32
        The rating that the planted model expects.
    noise : float
        RMSE of `ratings` against `truth`: the floor, which the planted model itself would score.
    """

    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    truth: np.ndarray
    noise: float


def make_ratings(
    n_users=6040, n_items=3706, n_ratings=1_000_209, *, rank=8, noise=0.8, random_state=0
):
    """Make ratings from a planted model: mean, biases and low-rank factors, plus Gaussian noise.

    The default shape is that of MovieLens 1M; as there, a few users and items have most of the ratings. The
    mean is 3.6. User biases, item biases and the product of the factors have standard deviations 0.35, 0.5
    and 0.5: a model with nothing but biases cannot get below an RMSE of ``sqrt(noise**2 + 0.5**2)``.

    Parameters
    ----------
    n_users, n_items, n_ratings : int
        Numbers of ids and of ratings; at most half of all pairs can be rated.
    rank : int
        Number of planted factors.
    noise : float
        Standard deviation of the noise.
    random_state : int, numpy.random.Generator or None
        Seed. The same int gives the same ratings.

    Returns
    -------
    Planted
        The ratings, in random order.
    """
    for name, value in {
        "n_users": n_users,
        "n_items": n_items,
        "n_ratings": n_ratings,
        "rank": rank,
    }.items():
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    if n_ratings > n_users * n_items / 2:
        raise ValueError(
            f"n_ratings must be at most half of n_users * n_items, {n_users} * {n_items} / 2 = "
            f"{n_users * n_items // 2}, got {n_ratings}"
        )
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise must be a finite number of at least 0, got {noise!r}")

    rng = np.random.default_rng(random_state)
    users, items = _draw_pairs(rng, n_users, n_items, n_ratings)
    user_biases = 0.35 * rng.standard_normal(n_users, dtype=np.float32)
    item_biases = 0.5 * rng.standard_normal(n_items, dtype=np.float32)
    factor_std = (0.5**2 / rank) ** 0.25  # the variance of the dot product is rank * factor_std**4
    user_factors = factor_std * rng.standard_normal((n_users, rank), dtype=np.float32)
    item_factors = factor_std * rng.standard_normal((n_items, rank), dtype=np.float32)

    truth = 3.6 + user_biases[users] + item_biases[items]
    for start in range(0, n_ratings, 1 << 16):  # all at once would take 2 * rank times the memory
        part = slice(start, start + (1 << 16))
        truth[part] += np.einsum("ij,ij->i", user_factors[users[part]], item_factors[items[part]])
    ratings = truth + np.float32(noise) * rng.standard_normal(n_ratings, dtype=np.float32)
    floor = math.sqrt(np.mean(np.square(ratings - truth), dtype=np.float64))
    return Planted(users, items, ratings, truth, floor)


def _draw_pairs(rng, n_users, n_items, n):
    """Draw `n` distinct pairs; shares of users and items are log-normal and as uneven as in MovieLens."""
    user_shares = rng.lognormal(sigma=1.0, size=n_users)
    item_shares = rng.lognormal(sigma=1.3, size=n_items)
    user_shares /= user_shares.sum()
    item_shares /= item_shares.sum()

    pairs, n_draws = np.zeros(0, np.int64), n
    while (n_before := pairs.size) < n:
        users = np.repeat(np.arange(n_users), rng.multinomial(n_draws, user_shares))
        items = np.repeat(np.arange(n_items, dtype=np.int32), rng.multinomial(n_draws, item_shares))
        rng.shuffle(items)
        pairs = np.concatenate([pairs, users * n_items + items])
        pairs.sort()  # numpy's unique hashes, which is slower than this from a few million on
        pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]
        # As many draws as fill the rest if as many of them are new as in this round, and some more.
        n_new = max(pairs.size - n_before, 1)
        n_draws = 1 + int(1.1 * (n - pairs.size) * n_draws / n_new)
    rng.shuffle(pairs)
    users, items = np.divmod(pairs[:n], n_items)
    return users.astype(np.int32), items.astype(np.int32)


# Public ratings
class Dataset(NamedTuple):
    """Public ratings.

    Attributes
    ----------
    ratings : Ratings
        In the order of the files.
    titles : dict
        Item id (int) -> title.
    times : ndarray of shape (n_ratings,), datetime64, or None
        When each rating was given; None if it was not asked for.
    """

    ratings: Ratings
    titles: dict[int, str]
    times: np.ndarray | None


def load_movielens(
    name: str,
    *,
    cache: str | os.PathLike[str] | None = None,
    times: bool = False,
    progress: bool = True,
) -> Dataset:
    """MovieLens ratings (Harper & Konstan 2015), downloaded once, checked, and kept in a cache.

    Parameters
    ----------
    name : {"ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "latest-small"}
        ``latest-small`` is a release for development that GroupLens changes from time to time.
    cache : path, optional
        Folder to keep the archive in; by default the user's cache folder of funksvd.
    times : bool
        Return the times of the ratings, too.
    progress : bool
        Show a progress bar for the download and for what takes more than a second.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        An unknown name, or a download whose MD5 is not the published one.
    OSError
        The server cannot be reached, and the archive is not in the cache.
    ImportError
        pooch is not installed.
    """
    if name not in _RELEASES:
        raise ValueError(f"name must be one of {', '.join(map(repr, _RELEASES))}, got {name!r}")
    try:
        import pooch
    except ImportError as error:
        raise ImportError('downloads need pooch: pip install "funksvd[datasets]"') from error

    md5, *members = _RELEASES[name]
    archive = members[0].partition("/")[0].replace("ml-10M100K", "ml-10m") + ".zip"
    folder = pooch.os_cache("funksvd") if cache is None else cache
    if md5 is None:
        published = Path(
            pooch.retrieve(MOVIELENS_URL + archive + ".md5", None, archive + ".md5", folder)
        ).read_text()
        found = re.search(r"\b[0-9a-f]{32}\b", published)
        if found is None:
            Path(folder, archive + ".md5").unlink()
            raise ValueError(f"{MOVIELENS_URL}{archive}.md5 holds no MD5")
        md5 = found[0]
    downloader = pooch.HTTPDownloader(progressbar=bool(progress), chunk_size=1 << 16)
    unzip = pooch.Unzip(members=members)
    paths = pooch.retrieve(
        MOVIELENS_URL + archive, f"md5:{md5}", archive, folder, unzip, downloader
    )
    paths = {os.path.basename(path): path for path in paths}
    ratings, titles = (paths[member.rpartition("/")[2]] for member in members)
    when = None
    if times:
        when = read_columns(ratings, user=0, item=1, rating=3, progress=progress)[2].astype(
            "datetime64[s]"
        )
    return Dataset(Ratings.read(ratings, progress=progress), _movielens_titles(titles), when)


def _movielens_titles(path):
    if path.endswith(".csv"):
        return {int(item): title for item, title in read_titles(path).items()}
    content = Path(path).read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:  # of before 2009
        text = content.decode("latin-1")
    rows = (line.replace("::", "|").split("|") for line in text.splitlines())
    return {int(item): title for item, title, *_ in rows}


def load_netflix(
    folder: str | os.PathLike[str], *, times: bool = False, progress: bool = False
) -> Dataset:
    """The ratings of the Netflix Prize (Bennett & Lanning 2007), from a folder that holds its files.

    Read are ``combined_data_*.txt`` or, where there are none, ``mv_*.txt`` (also in ``training_set``), and the titles
    from ``movie_titles.csv`` or ``movie_titles.txt`` where there is one.

    Parameters
    ----------
    folder : path
    times : bool
        Return the days of the ratings, too.
    progress : bool
        Show a progress bar where it takes more than a second.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        There are no such files.
    ValueError
        A line that is neither ``MOVIE:`` nor ``CUSTOMER,RATING,YYYY-MM-DD``.
    """
    from tqdm import tqdm

    folder = Path(folder)
    combined = sorted(folder.glob("combined_data_*.txt"))
    single = sorted([*folder.glob("mv_*.txt"), *folder.glob("training_set/mv_*.txt")])
    if not combined and not single:
        raise FileNotFoundError(f"{folder} holds neither combined_data_*.txt nor mv_*.txt")
    blocks = (
        list(_cut(combined))
        if combined
        else [single[k : k + 200] for k in range(0, len(single), 200)]
    )
    with tqdm(
        total=len(blocks),
        desc=f"reading {folder.name}",
        unit="block",
        delay=1,
        leave=False,
        disable=not progress,
    ) as bar:

        def one(block):
            found = _parse_prize(_content(block), block[0], times)
            bar.update()
            return found

        parts = parallel(one, blocks, cpu_count())
    movie, movies = None, []
    for heads, at, *_ in parts:
        if movie is None and (not len(heads) or not at.all()):
            raise ValueError(f"{folder}: the first line names no movie")
        movies.append(np.append(-1 if movie is None else movie, heads).astype(np.int32)[at])
        movie = heads[-1] if len(heads) else movie
    users, values = (np.concatenate([part[k] for part in parts]) for k in (2, 3))
    when = np.concatenate([part[4] for part in parts]).astype("datetime64[D]") if times else None
    return Dataset(
        Ratings.from_arrays(users, np.concatenate(movies), values), _prize_titles(folder), when
    )


def _cut(paths):
    """Yield (path, start, end) of blocks of whole lines."""
    for path in paths:
        size, start = path.stat().st_size, 0
        with open(path, "rb") as file:
            while start < size:
                file.seek(min(start + _BLOCK, size))
                file.readline()
                yield path, start, file.tell()
                start = file.tell()


def _content(block):
    if isinstance(block, list):
        return b"\n".join(path.read_bytes() for path in block)
    path, start, end = block
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(end - start)


def _parse_prize(content, path, times):
    """(movies named in it, which of them each rating has (0: the last one before), users, ratings, days) of whole lines.

    The rating and the date stand at fixed places from the end of a line.
    """
    text = np.frombuffer(content.replace(b"\r", b"") + b"\n", np.uint8)
    ends = np.flatnonzero(text == ord("\n"))
    starts = np.append(0, ends[:-1] + 1)
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    is_head = text[ends - 1] == ord(":")
    at = np.cumsum(is_head, dtype=np.int32)[~is_head]
    heads = _digits(text, starts[is_head], ends[is_head] - 1, path)
    starts, ends = starts[~is_head], ends[~is_head]
    short = ends - starts < 14
    if not short.any():
        marks = text[ends - 13], text[ends - 11], text[ends - 6], text[ends - 3]
        short = np.any(
            [mark != ord(sign) for mark, sign in zip(marks, ",,--", strict=True)], axis=0
        )
    if short.any():
        line = bytes(text[starts[short.argmax()] : ends[short.argmax()]][:80]).decode(
            errors="replace"
        )
        raise ValueError(f"{path}: {line!r} is neither MOVIE: nor CUSTOMER,RATING,YYYY-MM-DD")
    users = _digits(text, starts, ends - 13, path)
    values = _digits(text, ends - 12, ends - 11, path).astype(np.float32)
    days = None
    if times:
        year, month, day = (
            _digits(text, ends - a, ends - b, path) for a, b in ((10, 6), (5, 3), (2, 0))
        )
        months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
        days = (months.astype("datetime64[D]").astype(np.int32) + day - 1).astype(np.int32)
    return heads, at, users, values, days


def _digits(text, starts, ends, path):
    """int32 of the digits from `starts` to before `ends`."""
    out = np.zeros(len(starts), np.int32)
    lengths = ends - starts
    for place in range(int(lengths.max(initial=0))):
        digit = text[ends - (1 + place)] - np.uint8(
            ord("0")
        )  # of what stands before shorter numbers, too
        digit[lengths <= place] = 0
        if place > 8 or digit.max() > 9:
            bad = int(np.argmax(lengths) if place > 8 else np.argmax(digit))
            found = bytes(text[starts[bad] : ends[bad]][:80]).decode(errors="replace")
            raise ValueError(f"{path}: {found!r} is not a number")
        out += digit * np.int32(10**place)
    return out


def _prize_titles(folder):
    """{movie: title} from lines MOVIE,YEAR,TITLE in Latin-1; titles hold commas."""
    for path in (folder / "movie_titles.csv", folder / "movie_titles.txt"):
        if path.exists():
            rows = (line.split(",", 2) for line in path.read_text("latin-1").splitlines())
            return {int(row[0]): row[2].strip() for row in rows if len(row) == 3}
    return {}
