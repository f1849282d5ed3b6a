"""Build script of minidl: everything is declared in pyproject.toml; there is no extension yet."""

from setuptools import setup

setup()
