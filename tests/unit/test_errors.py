"""The tree of errors in the docstring is the tree in the code."""

import importlib
import pkgutil

import oomwatch
from oomwatch import errors


def test_every_error_is_drawn_once_below_its_parent() -> None:
    for module in pkgutil.walk_packages(oomwatch.__path__, "oomwatch."):
        importlib.import_module(module.name)

    def drawn(error: type[Exception], depth: int) -> list[tuple[int, str]]:
        below = [line for child in error.__subclasses__() for line in drawn(child, depth + 1)]
        return [(depth, error.__name__), *below]

    assert errors.__doc__ is not None
    lines = [line[4:] for line in errors.__doc__.splitlines() if line.startswith("    ")]
    tree = []
    for line in lines:
        branch = line[: len(line) - len(line.lstrip("│├└─ "))]
        tree.append((len(branch) // 4, line.strip("│├└─ ").split()[0]))
    assert sorted(tree) == sorted(drawn(errors.OomwatchError, 0))
