"""Besides what pyproject.toml says: the installed package remembers the checkout that it came from, whose build it starts."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class Build(build_py):
    def run(self):
        super().run()
        root = Path(__file__).resolve().parents[2]
        (Path(self.build_lib) / "banyan" / "_checkout.py").write_text(f"ROOT = {str(root)!r}\n")


setup(cmdclass={"build_py": Build})
