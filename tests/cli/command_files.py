"""The files that tests of the commands read, as a plugin of pytest."""

import pytest
from command_checks import SMALL, made_rows, run, write_table


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Return a folder that tests only read.

    It holds ratings.csv, with a header and number ids, and model.npz trained on it; words.tsv, with
    text ids, and words.npz.
    """
    folder = tmp_path_factory.mktemp("cli")
    rows = made_rows()
    write_table(folder / "ratings.csv", [("user_id", "item_id", "rating"), *rows])
    words = [(f"u{user}", f"i{item}", rating) for user, item, rating in rows]
    write_table(folder / "words.tsv", words, sep="\t")
    assert run("train", folder / "ratings.csv", "-o", folder / "model.npz", *SMALL) == 0
    assert run("train", folder / "words.tsv", "-o", folder / "words.npz", *SMALL) == 0
    return folder
