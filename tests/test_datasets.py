"""Made-up ratings whose best possible error is known, and public ratings."""

import functools
import hashlib
import http.server
import io
import logging
import re
import sys
import threading
import zipfile

import naive
import numpy as np
import pytest

from funksvd.datasets import load_movielens, load_netflix, make_ratings, movielens, netflix


@pytest.fixture(scope="module")
def planted():
    return make_ratings(1500, 900, 120_000, rank=6, noise=0.7, random_state=3)


def n_distinct(users, items):
    """Return the number of distinct pairs."""
    pairs = zip(users.tolist(), items.tolist(), strict=True)
    return len(set(pairs))


def test_planted_shapes_and_types(planted):
    arrays = planted[:4]
    assert {len(values) for values in arrays} == {120_000}
    assert [values.dtype.name for values in arrays] == ["int32", "int32", "float32", "float32"]
    for ids, n_ids in ((planted.users, 1500), (planted.items, 900)):
        assert ids.min() >= 0
        assert n_ids * 0.9 < ids.max() < n_ids


def test_planted_pairs_are_unique(planted):
    assert n_distinct(planted.users, planted.items) == 120_000


def test_planted_noise_is_the_measured_floor(planted):
    error = planted.ratings.astype(np.float64) - planted.truth
    rmse = np.sqrt(np.mean(error**2))
    assert planted.noise == pytest.approx(rmse, rel=1e-6)
    assert planted.noise == pytest.approx(0.7, rel=0.01)
    # The noise has the mean 0 and the same size for any truth and any item.
    assert abs(error.mean()) < 0.01
    correlation = np.corrcoef(error, planted.truth)[0, 1]
    assert abs(correlation) < 0.01
    busiest = np.bincount(planted.items).argmax()
    busy = planted.items == busiest
    assert error[busy].std() == pytest.approx(0.7, rel=0.1)


def test_planted_signal_sizes():
    planted = make_ratings()
    assert planted.ratings.mean() == pytest.approx(3.6, abs=0.1)
    assert planted.ratings.std() == pytest.approx(1.1, abs=0.05)
    expected = np.sqrt(0.35**2 + 0.5**2 + 0.5**2)
    assert planted.truth.std() == pytest.approx(expected, rel=0.1)
    assert planted.noise == pytest.approx(0.8, rel=0.01)


def test_planted_truth_is_biases_and_a_matrix_of_the_given_rank():
    """Without noise, a dense part of the matrix shows its rank."""
    users, items, ratings, truth, noise = make_ratings(
        60, 4000, 120_000, rank=3, noise=0, random_state=1
    )
    assert noise == 0
    assert np.array_equal(ratings, truth)
    dense = np.full((60, 4000), np.nan)
    dense[users, items] = truth
    busiest_users = np.argsort(np.bincount(users, minlength=60))[-8:]
    dense = dense[busiest_users]
    rated_by_all = np.isfinite(dense).all(axis=0)
    dense = dense[:, rated_by_all]
    assert dense.shape[1] > 50
    # Subtracting each item's mean removes its bias; the user biases add one rank.
    strength = np.linalg.svd(dense - dense.mean(axis=0), compute_uv=False)
    assert strength[3] > 1
    assert strength[4] < 1e-3


def test_planted_low_rank_part_is_beyond_biases(planted):
    """The best biases, fitted to the truth itself, stay clearly above the floor."""
    residual = planted.truth - planted.truth.mean()
    for _ in range(20):  # alternating means solve the least squares of the two biases
        for codes in (planted.users, planted.items):
            counts = np.maximum(np.bincount(codes), 1)
            means = np.bincount(codes, residual) / counts
            residual = residual - means[codes]
    assert residual.std() == pytest.approx(0.5, rel=0.15)
    assert np.hypot(residual.std(), planted.noise) > 1.15 * planted.noise


def test_planted_counts_are_heavy_tailed(planted):
    for codes, n in ((planted.users, 1500), (planted.items, 900)):
        counts = np.sort(np.bincount(codes, minlength=n))[::-1]
        assert counts.mean() > 1.2 * np.median(counts)
        share_of_tenth = counts[: n // 10].sum() / counts.sum()
        assert 0.2 < share_of_tenth < 0.6  # MovieLens 100K: 0.32, 0.43
        assert counts[0] > 4 * counts.mean()


def test_planted_ratings_come_in_random_order(planted):
    half = len(planted.users) // 2
    difference = planted.users[:half].mean() - planted.users[half:].mean()
    assert abs(difference) < 20
    share_falling = (np.diff(planted.users) < 0).mean()
    assert share_falling == pytest.approx(0.5, abs=0.02)


def test_a_seed_gives_one_result_and_another_seed_another():
    first = make_ratings(50, 40, 500, random_state=5)
    again = make_ratings(50, 40, 500, random_state=5)
    other = make_ratings(50, 40, 500, random_state=6)
    for name in ("users", "items", "ratings", "truth"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))
    assert first.noise == again.noise
    by_generator = make_ratings(50, 40, 500, random_state=np.random.default_rng(5))
    assert np.array_equal(first.ratings, by_generator.ratings)


@pytest.mark.parametrize("change", [{"rank": 2}, {"noise": 0.1}, {"n_users": 51}, {"n_items": 41}])
def test_every_parameter_matters(change):
    base = {"n_users": 50, "n_items": 40, "n_ratings": 500, "rank": 8, "noise": 0.8}
    made = make_ratings(**base)
    changed = make_ratings(**base | change)
    assert not np.array_equal(made.ratings, changed.ratings)


@pytest.mark.parametrize(
    "shape", [(1, 2, 1), (2, 1, 1), (2, 2, 2), (1, 50, 25), (50, 1, 25), (30, 40, 600)]
)
def test_half_of_all_pairs_is_possible(shape):
    made = make_ratings(*shape)
    assert n_distinct(made.users, made.items) == shape[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_ratings": 101}, r"at most half of n_users \* n_items, 10 \* 20 / 2 = 100, got 101"),
        ({"n_users": 0}, "n_users must be an integer of at least 1, got 0"),
        ({"n_items": 2.0}, r"n_items must be an integer of at least 1, got 2\.0"),
        ({"n_ratings": -1}, "n_ratings must be an integer of at least 1, got -1"),
        ({"rank": 0}, "rank must be an integer of at least 1, got 0"),
        ({"noise": -0.1}, r"noise must be a finite number of at least 0, got -0\.1"),
        ({"noise": float("nan")}, "noise must be a finite number"),
        ({"noise": float("inf")}, "noise must be a finite number"),
    ],
)
def test_planted_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_ratings(**{"n_users": 10, "n_items": 20, "n_ratings": 50} | arguments)


def triples(dataset):
    """Return (user ids, item ids, values) of a data set's ratings, as lists."""
    ratings = dataset.ratings
    users = ratings.user_ids[ratings.users]
    items = ratings.item_ids[ratings.items]
    return users.tolist(), items.tolist(), ratings.values.tolist()


# MovieLens, from a server on this machine

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


# The Netflix Prize


def prize_files(eol="\n"):
    """Return the texts of four files in the prize's format."""
    rng = np.random.default_rng(4)
    texts = []
    movie = 0
    for _ in range(4):
        lines = []
        for _ in range(rng.integers(1, 6)):
            movie += 1
            lines.append(f"{movie}:")
            for _ in range(rng.integers(0, 40)):
                user = rng.integers(1, 10 ** rng.integers(1, 8))
                day = np.datetime64("1999-11-11") + rng.integers(0, 2240)
                lines.append(f"{user},{rng.integers(1, 6)},{day}")
        texts.append("".join(line + eol for line in lines))
    return texts


@pytest.mark.parametrize("block", [1, 50, 1 << 25])
@pytest.mark.parametrize("eol", ["\n", "\r\n"])
def test_netflix_combined_files(tmp_path, monkeypatch, block, eol):
    monkeypatch.setattr(netflix, "BYTES_OF_A_BLOCK", block)
    for number, text in enumerate(prize_files(eol), 1):
        (tmp_path / f"combined_data_{number}.txt").write_bytes(text.encode())
    (tmp_path / "movie_titles.csv").write_bytes(
        "1,2003,Dinosaur Planet\n2,NULL,Caf\xe9, the film\n".encode("latin-1")
    )
    found = load_netflix(tmp_path, times=True)
    users, movies, values, days = naive.netflix_prize("".join(prize_files()))
    assert triples(found) == (users, movies, values)
    assert found.times.astype(str).tolist() == days
    assert found.titles == {1: "Dinosaur Planet", 2: "Café, the film"}
    assert load_netflix(tmp_path).times is None


@pytest.mark.parametrize("inside", ["", "training_set"])
def test_netflix_single_files(tmp_path, inside):
    folder = tmp_path / inside
    folder.mkdir(exist_ok=True)
    text = "".join(prize_files())
    movie = None
    for line in text.splitlines():
        movie = int(line[:-1]) if line.endswith(":") else movie
        with open(folder / f"mv_{movie:07}.txt", "a") as file:
            file.write(line + "\n")
    found = load_netflix(tmp_path)
    users, movies, values, _ = naive.netflix_prize(text)
    assert triples(found) == (users, movies, values)
    assert found.titles == {}


@pytest.mark.parametrize(
    "line",
    [
        "1,2",
        "a,5,2005-09-06",
        "1,x,2005-09-06",
        "12,5;2005-09-06",
        "1234567890123,5,2005-09-06",
        "5,2005-09-06",
        "x:",
        ",5,2005-09-06",
    ],
)
def test_netflix_lines_that_are_none(tmp_path, line):
    (tmp_path / "combined_data_1.txt").write_text(f"1:\n12,4,2005-09-06\n{line}\n13,4,2005-09-06\n")
    with pytest.raises(
        ValueError, match=r"combined_data_1\.txt: '.*' is (neither MOVIE|not a number)"
    ):
        load_netflix(tmp_path)


def test_netflix_faults_in_single_files_name_the_files(tmp_path):
    (tmp_path / "mv_0000001.txt").write_text("1:\n12,4,2005-09-06\n")
    (tmp_path / "mv_0000002.txt").write_text("2:\n12,good,2005-09-06\n")
    message = r"mv_0000001\.txt to mv_0000002\.txt: '12,good,2005-09-06' is neither MOVIE"
    with pytest.raises(ValueError, match=message):
        load_netflix(tmp_path)


def test_netflix_needs_its_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither combined_data_"):
        load_netflix(tmp_path)
    (tmp_path / "combined_data_1.txt").write_text("12,4,2005-09-06\n1:\n13,4,2005-09-06\n")
    with pytest.raises(ValueError, match="the first line names no movie"):
        load_netflix(tmp_path)
