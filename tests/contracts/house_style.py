"""Measures the package by the targets of its house style: `python -m tests.contracts.house_style` prints the table."""

from __future__ import annotations

import ast
import inspect
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "lightning_adapt"
MAX_LINES = 300
MAX_LINES_WITH_REASON = 330
LONGEST_FUNCTION = 60  # lines without the docstring: one screen
REASON = re.compile(r"^# Over 300 lines: \S.{20,}", re.MULTILINE)  # in the lines below the docstring of a long file
BLOCK = 4  # so many statements in a row that are the same in two places were copied
BLOCK_CHARACTERS = 200  # shorter ones are no logic: a few names put side by side
FREE = {"override", "setter"}  # what they do is documented where they come from
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Source:
    """One file: its name below the package's folder, its text and what Python reads in it."""

    name: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    @property
    def gives_reason(self) -> bool:
        below = self.tree.body[0].end_lineno  # of the docstring
        return bool(REASON.search("\n".join(self.text.splitlines()[below : below + 4])))


def read_sources(folder: Path = PACKAGE) -> list[Source]:
    """All modules of the package, in the order of their names."""
    found = []
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found.append(Source(str(path.relative_to(folder)), text, ast.parse(text)))
    return found


def public(body: Iterable[ast.stmt]) -> Iterator[Definition]:
    """Functions and classes that a reader may use, at the top level and in such classes."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def is_free(node: Definition) -> bool:
    return bool(FREE & {getattr(item, "id", getattr(item, "attr", "")) for item in node.decorator_list})


def undocumented(sources: Iterable[Source]) -> list[str]:
    return [
        f"{source.name}:{node.lineno} {node.name}"
        for source in sources
        for node in public(source.tree.body)
        if not is_free(node) and not ast.get_docstring(node)
    ]


def functions(tree: ast.Module) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def untyped(sources: Iterable[Source]) -> list[str]:
    """Functions, private ones too, with an argument or a result of no type."""
    found = []
    for source in sources:
        for node in functions(source.tree):
            given = node.args
            named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            bare = [item.arg for item in named if item is not None and item.annotation is None]
            if node.returns is None or set(bare) - {"self", "cls"}:
                found.append(f"{source.name}:{node.lineno} {node.name}")
    return found


def code_lines(node: ast.AST) -> int:
    """Lines of a function, its docstring left out."""
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if documented else 0)


def longest(sources: Iterable[Source]) -> list[tuple[int, str]]:
    """Lines and place of every function, the longest first."""
    return sorted(
        ((code_lines(node), f"{source.name} {node.name}") for source in sources for node in functions(source.tree)),
        reverse=True,
    )


def copied_blocks(sources: Iterable[Source], size: int = BLOCK) -> list[str]:
    """Places where `size` statements in a row say what they say in another place.

    Comments and the breaking of lines make no difference. Imports, docstrings and fields of a class without a value
    are no logic and are left out.
    """
    where: dict[str, tuple[str, int]] = {}
    found: dict[tuple[str, str], str] = {}  # one a pair of files: overlapping blocks would be named again and again
    for source in sources:
        lines = [" ".join(line.partition("  # ")[0].split()) for line in source.text.splitlines()]
        for body in bodies(source.tree):
            logic = [node for node in body if not is_form(node)]
            for start in range(len(logic) - size + 1):
                first, last = logic[start], logic[start + size - 1]
                text = " ".join(lines[first.lineno - 1 : last.end_lineno])
                here = (source.name, first.lineno)
                there = where.setdefault(text, here)
                if there != here and len(text) >= BLOCK_CHARACTERS:
                    name = f"{there[0]}:{there[1]} = {source.name}:{first.lineno}"
                    found.setdefault((there[0], source.name), name)
    return sorted(found.values())


def bodies(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            body = getattr(node, field, None)
            if isinstance(body, list) and not isinstance(node, ast.Module):
                yield body


def is_form(node: ast.stmt) -> bool:
    bare = isinstance(node, ast.AnnAssign) and node.value is None
    return bare or isinstance(node, ast.Import | ast.ImportFrom | ast.Pass) or is_text(node)


def is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def same_functions(sources: Iterable[Source]) -> list[str]:
    """Functions of three statements or more whose body stands in another function, too."""
    where: dict[str, list[str]] = {}
    for source in sources:
        for node in functions(source.tree):
            logic = [item for item in node.body if not is_text(item)]
            if sum(isinstance(item, ast.stmt) for part in logic for item in ast.walk(part)) >= 3:
                text = "\n".join(ast.unparse(item) for item in logic)
                where.setdefault(text, []).append(f"{source.name}:{node.lineno} {node.name}")
    return [" = ".join(places) for places in where.values() if len(places) > 1]


def unused(sources: Iterable[Source], outside: Iterable[Path], inherited: Iterable[str] = ()) -> list[str]:
    """Functions, classes and methods that nothing asks for by their name.

    Args:
        sources: The files whose definitions are looked at.
        outside: Further files in which a use counts: configurations, cards and examples, no tests.
        inherited: Names that somebody else's code calls, such as the hooks of a Trainer.
    """
    sources = list(sources)
    asked = {name for source in sources for name in names_used(source.tree)} | set(inherited)
    for path in outside:
        asked.update(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    return [
        f"{source.name}:{node.lineno} {node.name}"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, Definition) and node.name not in asked and not is_free(node)
        and not (node.name.startswith("__") and node.name.endswith("__"))
    ]  # fmt: skip


def names_used(tree: ast.Module) -> Iterator[str]:
    """Names that are read, and those in texts of one word: `getattr`, tables of names."""
    exported = {id(item) for node in tree.body for item in exports(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in exported:
            yield node.value


def exports(node: ast.stmt) -> list[ast.expr]:
    """The names in `__all__`: to be offered is not to be used."""
    is_all = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    return list(node.value.elts) if is_all and isinstance(node.value, ast.List) else []


def public_arguments() -> dict[str, int]:
    """Arguments of every public name: of its constructor or its call."""
    import lightning_adapt
    from lightning_adapt import functional

    found = {}
    for owner, names in ((lightning_adapt, lightning_adapt.__all__), (functional, functional.__all__)):
        for name in names:
            value = getattr(owner, name)
            found[name] = len(inspect.signature(value).parameters) if callable(value) else 0
    return found


def table(sources: list[Source]) -> list[tuple[str, str, str]]:
    """Rows of quantity, value and target."""
    lines = sorted(source.lines for source in sources)
    nodes = [node for source in sources for node in ast.walk(source.tree)]
    kinds = Counter(type(node) for node in nodes)
    shown = [node for source in sources for node in public(source.tree.body) if not is_free(node)]
    every = [node for source in sources for node in functions(source.tree)]
    arguments = public_arguments()
    most = max(arguments, key=lambda name: arguments[name])
    length, place = longest(sources)[0]
    bare = [source.name for source in sources if source.lines > MAX_LINES and not source.gives_reason]
    return [
        ("files", f"{len(lines)}", ""),
        ("lines in all", f"{sum(lines)}", ""),
        ("lines of a file: median / 90th percentile / largest",
         f"{statistics.median(lines):g} / {lines[int(0.9 * len(lines))]} / {lines[-1]}", "median <= 200"),
        (f"files over {MAX_LINES} lines without a reason in them", f"{len(bare)}", "0"),
        ("public functions and classes with a docstring", share(len(undocumented(sources)), len(shown)), "100%"),
        ("functions with full types", share(len(untyped(sources)), len(every)), "100%"),
        ("raise : assert", f"{kinds[ast.Raise]} : {kinds[ast.Assert]}", "no assert"),
        ("longest function, its docstring left out", f"{length} ({place})", f"<= {LONGEST_FUNCTION}"),
        (f"blocks of {BLOCK} statements that stand in two places", f"{len(copied_blocks(sources))}", "0"),
        ("functions that stand in two places", f"{len(same_functions(sources))}", "0"),
        ("functions and classes that nothing asks for", f"{len(dead(sources))}", "0"),
        ("public names, pure functions included", f"{len(arguments)}", ""),
        ("public arguments: in all / median / most",
         f"{sum(arguments.values())} / {statistics.median(arguments.values()):g} / {arguments[most]} ({most})", ""),
    ]  # fmt: skip


def dead(sources: list[Source]) -> list[str]:
    """What nothing in the package, its configurations, cards and examples asks for."""
    outside = [*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "examples").rglob("*.py"), *PACKAGE.rglob("README.md")]
    return unused(sources, outside, hooks())


def hooks() -> set[str]:
    """Names that Lightning, torch, argparse and HTML parsers call on our objects, and the pure functions for users."""
    import argparse
    import html.parser

    import torchmetrics
    from lightning.pytorch import Callback, LightningDataModule, LightningModule

    from lightning_adapt import functional

    classes = (Callback, LightningDataModule, LightningModule, torchmetrics.Metric, argparse.ArgumentParser)
    called = {name for kind in (*classes, argparse.Action, html.parser.HTMLParser) for name in dir(kind)}
    return called | set(functional.__all__)


def share(missing: int, of: int) -> str:
    return f"{100 * (of - missing) / of:.1f}%"


def main() -> None:
    """Print the table and what misses a target."""
    sources = read_sources()
    rows = table(sources)
    width = max(len(row[0]) for row in rows)
    for name, value, target in rows:
        print(f"{name:<{width}}  {value:<40}  {target}")
    over = [f"{source.name}: {source.lines}" for source in sources if source.lines > MAX_LINES]
    lists = {
        f"over {MAX_LINES} lines": over,
        "no docstring": undocumented(sources),
        "no types": untyped(sources),
        "longest": [f"{lines} {place}" for lines, place in longest(sources)[:8]],
        "copied blocks": copied_blocks(sources),
        "same functions": same_functions(sources),
        "unused": dead(sources),
    }
    for title, entries in lists.items():
        print(f"\n{title}:", *entries, sep="\n  ")


if __name__ == "__main__":
    main()
