"""Adds configs, tools and the model index to the package, under ``.mim``, where OpenMMLab's ``mim`` looks for them.

All else is in pyproject.toml.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, 'fasternet_mm', '.mim')
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build, which may have had other configs
        for folder in ('configs', 'tools'):
            shutil.copytree(folder, target / folder, ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy('model-index.yml', target)


setup(cmdclass={'build_py': BuildWithConfigs})
