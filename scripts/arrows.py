"""An import-linter contract for the arrows: which of our modules may import which.

A table of what each may import, rather than of what it must not: a module that is new is
then held too, and the table is the picture of the design.
"""

from __future__ import annotations

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class ArrowsContract(Contract):
    """Each unit imports, among our own modules, only the units listed for it.

    A unit is a module or a package; the longest name that fits a module is its own. An entry
    is "UNIT -> UNIT, UNIT", "UNIT ->" for none, "UNIT -> *" for any. Every module must belong
    to a unit; a unit that is not there yet holds nothing.
    """

    arrows = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Compare every direct import between units with the table."""
        root = str(self.session_options["root_packages"][0])
        allowed: dict[str, set[str]] = {}
        for entry in self.arrows:  # type: ignore[attr-defined]
            importer, _, others = str(entry).partition("->")
            allowed[_full(root, importer)] = {_full(root, other) for other in others.split(",")}

        broken = []
        for module in sorted(graph.modules - {root}):
            unit = _unit_of(module, allowed)
            if unit is None:
                broken.append(f"{module} has no entry: say in pyproject.toml what it may import")
                continue
            for imported in sorted(graph.find_modules_directly_imported_by(module)):
                other = _unit_of(imported, allowed)
                if imported == root or other is None or other == unit or "*" in allowed[unit]:
                    continue
                if other not in allowed[unit]:
                    lines = graph.get_import_details(importer=module, imported=imported)
                    where = ", ".join(str(line["line_number"]) for line in lines)
                    broken.append(f"{module} imports {imported} (line {where})")
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print each import that the table does not allow."""
        for line in check.metadata["broken"]:
            output.print_error(line)


def _full(root: str, name: str) -> str:
    name = name.strip()
    return name if name in ("", "*") else f"{root}.{name}"


def _unit_of(module: str, units: dict[str, set[str]]) -> str | None:
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in units), None)
