import pytest


@pytest.fixture
def in_the_project(root, tmp_path_factory, monkeypatch):
    """Commands run in the project's folder, with a cache of their own."""
    monkeypatch.chdir(root)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))


@pytest.fixture
def run(command):
    """Run a command that has to succeed, and return what it printed."""

    def run(*args):
        done = command(*args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
