"""MovieLens, from a server on this machine."""

import functools
import hashlib
import http.server
import io
import logging
import re
import sys
import threading
import zipfile

import pytest
from dataset_checks import triples

from funksvd.datasets import load_movielens, movielens

LINES = [(1, 31, 2.5, 1260759144), (7, 1029, 3.0, 851868750), (1, 1029, 4.5, 1260759179)]
TITLES = {31: "Dangerous Minds (1995)", 1029: 'Dumbo, the "flying" one: né (1941)'}


def movielens_archive(name):
    """Return a zip in the format of a release, with another file beside those that are read."""
    release = movielens.RELEASES[name]
    if release.ratings.endswith(".csv"):
        ratings, titles = csv_texts()
    elif release.ratings.endswith(".dat"):
        ratings = rating_lines("::")
        titles = title_lines("{}::{}::Drama|Comedy\n")
    else:
        ratings = rating_lines("\t")
        titles = title_lines("{}|{}|01-Jan-1995||url|0|1\n")
    encoding = "latin-1" if name in ("ml-100k", "ml-1m") else "utf-8"
    folder = release.ratings.partition("/")[0]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr(release.ratings, ratings)
        file.writestr(release.titles, titles.encode(encoding))
        file.writestr(f"{folder}/README", "read me")
    return out.getvalue()


def rating_lines(sep):
    return "".join(sep.join(map(str, line)) + "\n" for line in LINES)


def title_lines(line):
    return "".join(line.format(item, title) for item, title in TITLES.items())


def csv_texts():
    """Return the texts of ratings.csv and movies.csv."""
    ratings = "userId,movieId,rating,timestamp\n" + rating_lines(",")
    titles = "movieId,title,genres\n"
    for item, title in TITLES.items():
        quoted = title.replace('"', '""')
        titles += f'{item},"{quoted}",Drama\n'
    return ratings, titles


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Start a local HTTP server and send all downloads there.

    Yield its folder, and the list of the paths that it was asked for.
    """
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch.get_logger(), "level", logging.ERROR)
    folder = tmp_path / "server"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        _, port = running.server_address
        monkeypatch.setattr(movielens, "MOVIELENS_URL", f"http://127.0.0.1:{port}/")
        yield folder, asked
        running.shutdown()
        thread.join()


def publish(folder, monkeypatch, name):
    """Put a release into the server's folder, with its MD5; return the path of the archive."""
    content = movielens_archive(name)
    release = movielens.RELEASES[name]
    archive = release.archive
    (folder / archive).write_bytes(content)
    found = hashlib.md5(content).hexdigest()
    if release.md5 is None:
        (folder / f"{archive}.md5").write_text(f"MD5 ({archive}) = {found}\n")
    else:
        monkeypatch.setitem(movielens.RELEASES, name, release._replace(md5=found))
    return folder / archive


@pytest.mark.parametrize("name", movielens.RELEASES)
def test_movielens_is_downloaded_once(server, tmp_path, monkeypatch, name):
    folder, asked = server
    publish(folder, monkeypatch, name)
    found = load_movielens(name, cache=tmp_path / "cache", times=True, progress=False)
    *expected, times = (list(column) for column in zip(*LINES, strict=True))
    assert triples(found) == tuple(expected)
    assert found.times.astype(int).tolist() == times
    assert found.titles == TITLES
    n_asked = len(asked)
    again = load_movielens(name, cache=tmp_path / "cache")
    assert len(asked) == n_asked  # from the cache
    assert again.titles == TITLES
    assert again.times is None


def test_every_release_but_the_changing_ones_has_a_checksum():
    for name, release in movielens.RELEASES.items():
        if name == "latest-small":
            assert release.md5 is None
        else:
            assert re.fullmatch("[0-9a-f]{32}", release.md5)


@pytest.mark.parametrize("name", ["ml-100k", "latest-small"])
def test_a_changed_archive_is_refused_and_not_kept(server, tmp_path, monkeypatch, name):
    folder, _ = server
    archive = publish(folder, monkeypatch, name)
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1] + b"x")
    with pytest.raises(ValueError, match="hash"):
        load_movielens(name, cache=tmp_path / "cache", progress=False)
    assert not list((tmp_path / "cache").glob("*.zip"))
    archive.write_bytes(whole)
    load_movielens(name, cache=tmp_path / "cache", progress=False)


def test_a_damaged_cache_is_downloaded_again(server, tmp_path, monkeypatch):
    folder, asked = server
    publish(folder, monkeypatch, "ml-1m")
    load_movielens("ml-1m", cache=tmp_path, progress=False)
    (tmp_path / "ml-1m.zip").write_bytes(b"cut short")
    assert load_movielens("ml-1m", cache=tmp_path, progress=False).titles == TITLES
    assert len(asked) == 2


def test_movielens_that_cannot_be_had(server, tmp_path):
    with pytest.raises(OSError, match="404"):
        load_movielens("ml-20m", cache=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"name must be one of 'ml-100k', .*, got 'ml-2m'"):
        load_movielens("ml-2m")
    folder, _ = server
    (folder / "ml-latest-small.zip.md5").write_text("<html>moved</html>")
    with pytest.raises(ValueError, match="holds no MD5"):
        load_movielens("latest-small", cache=tmp_path, progress=False)
    assert not list(tmp_path.glob("*.md5"))


def test_download_shows_a_bar(server, tmp_path, monkeypatch, capsys):
    publish(server[0], monkeypatch, "ml-100k")
    load_movielens("ml-100k", cache=tmp_path)
    assert "100%" in capsys.readouterr().err
    load_movielens("ml-100k", cache=tmp_path)
    assert capsys.readouterr().err == ""


def test_movielens_without_pooch(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pip install "funksvd\[datasets\]"'):
        load_movielens("ml-100k")


@pytest.mark.parametrize("part", ["ratings", "titles"])
def test_an_extraction_that_was_cut_short_is_made_again(server, tmp_path, monkeypatch, part):
    """A kill, or a full disk, may end an extraction anywhere."""
    publish(server[0], monkeypatch, "ml-100k")
    whole = load_movielens("ml-100k", cache=tmp_path, progress=False)
    member = getattr(movielens.RELEASES["ml-100k"], part)
    (extracted,) = tmp_path.rglob(member.rpartition("/")[2])
    extracted.write_bytes(extracted.read_bytes()[:9])
    again = load_movielens("ml-100k", cache=tmp_path, progress=False)
    assert triples(again) == triples(whole)
    assert again.titles == TITLES
