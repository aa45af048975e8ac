"""Puts the notebooks into the wheel; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithNotebooks(build_py):
    """`lcmae notebooks DIR` and `lcmae run` read these copies where there is no checkout."""

    def run(self) -> None:
        """Build the package, then copy notebooks/ into it; an editable install reads the checkout's."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "lcmae_core", "notebooks")
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for notebook in sorted(Path(__file__).parent.glob("notebooks/[0-9][0-9]_*.ipynb")):
                shutil.copyfile(notebook, target / notebook.name)


setup(cmdclass={"build_py": BuildWithNotebooks})
