"""Import rules: pure and state modules without Lightning, methods apart from each other, a package import for free."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from lightning.pytorch import Callback, LightningDataModule, LightningModule

import lightning_adapt

PACKAGE = Path(lightning_adapt.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
WITHOUT_LIGHTNING = {"functional", "memory", "layers", "model", "sampler", "loader"}
NEED_LIGHTNING: set[str] = set()  # public names that are none of its classes and yet cannot do without it
SHARED_WITH_LIGHTNING = {"demo_parts", "demo_training"}  # everything else in _shared does without
BASE = {"torch", "lightning", "torchmetrics", "numpy", "rich", "lightning_utilities", "typing_extensions"}


def imported(tree: ast.AST, top_level_only: bool = False) -> set[str]:
    names: set[str] = set()
    nodes = ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def blocked(code: str, *modules: str) -> subprocess.CompletedProcess[str]:
    block = f"import sys\nfor name in {modules!r}: sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True)


def of_lightning(value: object) -> bool:
    bases = (Callback, LightningModule, LightningDataModule)
    return isinstance(value, type) and issubclass(value, bases)


def test_pure_and_state_modules_import_without_lightning():
    names = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in FILES
        if (path.stem in WITHOUT_LIGHTNING and path.parent != PACKAGE)
        or (path.parent.name == "_shared" and path.stem not in SHARED_WITH_LIGHTNING)
    ]
    assert len(names) >= 10
    code = "import importlib\n" + "\n".join(f"importlib.import_module({name!r})" for name in names)
    bare = [name for name in lightning_adapt.__all__ if not of_lightning(getattr(lightning_adapt, name))]
    assert {"RS2Sampler", "rs2_loader"} <= set(bare)
    code += f"\nimport lightning_adapt.functional\nfrom lightning_adapt import {', '.join({*bare} - NEED_LIGHTNING)}"
    result = blocked(code, "lightning", "pytorch_lightning", "lightning.pytorch")
    assert result.returncode == 0, result.stderr


def test_the_block_would_be_noticed():
    assert blocked("from lightning_adapt import RS2Callback", "lightning").returncode != 0


def test_importing_the_package_is_free():
    code = (
        "import sys, time, torch\nbefore = set(sys.modules)\nstart = time.process_time()\nimport lightning_adapt\n"
        "seconds = time.process_time() - start\nnew = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(seconds, *sorted(new))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)  # the first may compile files, or share its core with another test
    ]
    assert min(float(seconds) for seconds, *_ in runs) < 0.3
    new = runs[0][1:]
    heavy = {"lightning", "pytorch_lightning", "torchmetrics", "torchvision", "sklearn", "matplotlib", "transformers"}
    assert not heavy & set(new), new


def test_each_file_keeps_to_its_place():
    wrong = [f"{path.relative_to(PACKAGE)}: {what}" for path in FILES for what in out_of_place(path)]
    assert not wrong


def out_of_place(path: Path) -> list[str]:
    """What a file imports and should not."""
    tree = ast.parse(path.read_text())
    names = imported(tree)
    home = path.relative_to(PACKAGE).parts[0]
    others = tuple(f"lightning_adapt.{method}" for method in lightning_adapt.METHODS if method != home)
    wrong = []
    if any(name.split(".")[0] == "pytorch_lightning" for name in names):
        wrong.append("import lightning.pytorch only")
    if home == "_shared" or home in lightning_adapt.METHODS:
        wrong += [f"{name}: methods know only themselves and _shared" for name in names if name.startswith(others)]
    outside = {name.split(".")[0] for name in imported(tree, top_level_only=True)} - set(sys.stdlib_module_names)
    wrong += sorted(outside - BASE - {"lightning_adapt", "jsonargparse", "yaml", "__future__"})
    if {"jsonargparse", "yaml"} & outside and "cli" not in path.stem:
        wrong.append("optional packages are imported inside the function that needs them")
    return wrong


def test_a_file_out_of_place_would_be_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "rs2").mkdir()
    file = tmp_path / "rs2" / "a.py"
    file.write_text("import yaml, pandas, pytorch_lightning\nfrom lightning_adapt.saa import functional\n")
    assert len(out_of_place(file)) == 6


# private names that are not Lightning's: of torch or argparse, or our own objects within one file
OWN_OR_DOCUMENTED = {
    "_generate_state_key",  # Lightning documents it for `state_key`
    "_n_source",
    "_exit",  # of os
    "_start",
    "_yielded",
    "_begin",
    "_delivered",
    "_count",
    "_of_population",
    "_version",  # torch's count of changes of a tensor, which autograd's notes describe
}
OVERRIDES = {"_cli_lightning.py"}  # LightningCLI has no public way to change its errors: it overrides two methods


def test_private_access_is_in_compat_only():
    offenders = []
    for path in FILES:
        if path.name == "compat.py" or path.name in OVERRIDES:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "super")
                if not own and node.attr not in OWN_OR_DOCUMENTED:
                    offenders.append(f"{path.name}:{node.lineno} {ast.unparse(node)}")
    assert not offenders
