import pytest


@pytest.fixture(autouse=True)
def own_folder(tmp_path_factory, monkeypatch):
    """Every test runs in an empty folder: what it starts imports the installed package, never the source tree."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
