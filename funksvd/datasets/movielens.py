"""The ratings of MovieLens (Harper & Konstan 2015), downloaded and kept in a cache."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from funksvd.datasets.dataset import Dataset
from funksvd.machine.replacing import replacing
from funksvd.ratings.reading import read_titles
from funksvd.ratings.triples import Ratings

MOVIELENS_URL = "https://files.grouplens.org/datasets/movielens/"
BYTES_OF_A_STEP = 1 << 16  # of the progress bar of a download


class Release(NamedTuple):
    """An archive of MovieLens.

    archive : name of the zip file
    md5 : its MD5, which GroupLens publishes beside it as NAME.zip.md5; None for a release that
        changes from time to time: its MD5 is fetched with it
    ratings, titles : the files in the archive that are read
    """

    archive: str
    md5: str | None
    ratings: str
    titles: str


RELEASES = {
    "ml-100k": Release(
        "ml-100k.zip", "0e33842e24a9c977be4e0107933c0723", "ml-100k/u.data", "ml-100k/u.item"
    ),
    "ml-1m": Release(
        "ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906", "ml-1m/ratings.dat", "ml-1m/movies.dat"
    ),
    "ml-10m": Release(
        "ml-10m.zip",
        "ce571fd55effeba0271552578f2648bd",
        "ml-10M100K/ratings.dat",
        "ml-10M100K/movies.dat",
    ),
    "ml-20m": Release(
        "ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3", "ml-20m/ratings.csv", "ml-20m/movies.csv"
    ),
    "ml-25m": Release(
        "ml-25m.zip", "6b51fb2759a8657d3bfcbfc42b592ada", "ml-25m/ratings.csv", "ml-25m/movies.csv"
    ),
    "ml-32m": Release(
        "ml-32m.zip", "d472be332d4daa821edc399621853b57", "ml-32m/ratings.csv", "ml-32m/movies.csv"
    ),
    "latest-small": Release(
        "ml-latest-small.zip", None, "ml-latest-small/ratings.csv", "ml-latest-small/movies.csv"
    ),
}


def load_movielens(
    name: str,
    *,
    cache: str | os.PathLike[str] | None = None,
    times: bool = False,
    progress: bool = True,
) -> Dataset:
    """Load MovieLens ratings (Harper & Konstan 2015): download once, check, and keep in a cache.

    Parameters
    ----------
    name : {"ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "latest-small"}
        ``latest-small`` is a release for development that GroupLens changes from time to time.
    cache : path, optional
        Folder to keep the archive in; by default the user's cache folder of funksvd.
    times : bool
        Return the times of the ratings, too.
    progress : bool
        Show a progress bar for the download, and for reading that takes more than a second.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        If the name is unknown, or if the MD5 of a download is not the published one.
    OSError
        If the archive is not in the cache and the server cannot be reached.
    ImportError
        If pooch is not installed.
    """
    if name not in RELEASES:
        raise ValueError(f"name must be one of {', '.join(map(repr, RELEASES))}, got {name!r}")
    ratings_path, titles_path = _downloaded(RELEASES[name], cache, progress)
    ratings = Ratings.read(ratings_path, time=3 if times else False, progress=progress)
    rated_at = None
    if ratings.times is not None:
        rated_at = ratings.times.astype("datetime64[s]")
    return Dataset(ratings, _titles(titles_path), rated_at)


def _downloaded(
    release: Release,
    cache: str | os.PathLike[str] | None,
    progress: bool,
) -> tuple[str, str]:
    """Return the paths of the ratings and the titles, downloaded where the cache lacks them."""
    try:
        import pooch
    except ImportError as error:
        raise ImportError('downloads need pooch: pip install "funksvd[datasets]"') from error

    folder = pooch.os_cache("funksvd") if cache is None else cache
    md5 = release.md5 or _published_md5(pooch, release.archive, folder)
    paths = pooch.retrieve(
        MOVIELENS_URL + release.archive,
        f"md5:{md5}",
        release.archive,
        folder,
        _Extract([release.ratings, release.titles]),
        pooch.HTTPDownloader(progressbar=bool(progress), chunk_size=BYTES_OF_A_STEP),
    )
    path_of = {os.path.basename(path): path for path in paths}
    return path_of[os.path.basename(release.ratings)], path_of[os.path.basename(release.titles)]


class _Extract:
    """Extracts members of an archive for pooch, as its own `Unzip`, but whole or not at all.

    `Unzip` takes a file that is there for an extracted one, even if a kill or a full disk has cut
    it short.
    """

    def __init__(self, members: list[str]) -> None:
        self.members = members

    def __call__(self, archive: str, action: str, pooch: Any) -> list[str]:
        """Return the paths of the members, extracted where they lack or have another size."""
        folder = Path(f"{archive}.unzip")
        paths = []
        with zipfile.ZipFile(archive) as file:
            for member in self.members:
                path = folder / member
                size = file.getinfo(member).file_size
                if not path.is_file() or path.stat().st_size != size:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with file.open(member) as content, replacing(path) as out:
                        shutil.copyfileobj(content, out, BYTES_OF_A_STEP)
                paths.append(str(path))
        return paths


def _published_md5(
    pooch: Any,
    archive: str,
    folder: str | os.PathLike[str],
) -> str:
    """Return the MD5 that stands beside an archive on the server; `pooch` is the module."""
    name = f"{archive}.md5"
    text = Path(pooch.retrieve(MOVIELENS_URL + name, None, name, folder)).read_text()
    found = re.search(r"\b[0-9a-f]{32}\b", text)
    if found is None:
        Path(folder, name).unlink()
        raise ValueError(f"{MOVIELENS_URL}{name} holds no MD5")
    return found[0]


def _titles(path: str) -> dict[int, str]:
    """Read {movie: title}; the lines of older releases have no header and other separators."""
    if path.endswith(".csv"):
        return {int(item): title for item, title in read_titles(path).items()}
    content = Path(path).read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:  # a release from before 2009
        text = content.decode("latin-1")
    title_of = {}
    for line in text.splitlines():
        item, title, *_ = line.replace("::", "|").split("|")
        title_of[int(item)] = title
    return title_of
