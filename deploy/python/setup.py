"""Besides what pyproject.toml says: installed straight from a checkout, the package remembers it, whose build it starts. What is
made from an sdist (`python3 -m build` does it so) knows no checkout, and says nothing of the machine that it was made on."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parents[2]


class Build(build_py):
    def run(self):
        super().run()
        if (ROOT / "deploy/python/setup.py").is_file() and (ROOT / "CMakeLists.txt").is_file():
            (Path(self.build_lib) / "banyan" / "_checkout.py").write_text(f"ROOT = {str(ROOT)!r}\n")


setup(cmdclass={"build_py": Build})
