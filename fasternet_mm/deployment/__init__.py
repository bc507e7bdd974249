"""Models as files that run without this package, and the runtimes that run such files."""
