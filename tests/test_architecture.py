"""Reading order is import order: no room imports one above it."""

import ast
import builtins
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "minillm"
FLOORS = {
    "__init__": 0, "errors": 0, "bits": 1, "allocator": 0, "params": 1, "sharding": 1, "data": 1, "nn": 2, "models": 3, "objectives": 4,
    "tuning": 5, "training": 6, "inference": 6, "evaluation": 6, "interop": 6, "report": 7, "sections": 7, "config": 7, "hosts": 7,
    "experiment": 8, "bench": 8,
    "course": 8, "commands": 9, "cli": 9,
}  # fmt: skip
APART = {"data": {"params", "sharding"}}  # data knows no model


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_no_upward_imports():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "minillm":
                names = [node.module] if "." in node.module else [f"minillm.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.startswith("minillm.")]
            for name in names:
                target = name.split(".")[1]
                above = FLOORS[target] > FLOORS[room(path)]
                if above or target in APART.get(room(path), ()):
                    wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong


def test_pieces_are_small():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf8")
        if text.count("\n") > 330:
            wrong.append(f"{path.name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno > 60:
                wrong.append(f"{path.name}:{node.name}: {node.end_lineno - node.lineno} lines")
    assert not wrong


def test_every_name_is_bound_in_its_file():
    """The linter cannot say so: it takes the axes in annotations of shapes for names."""
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        bound, used = set(dir(builtins)) | {"__file__"}, {}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                used.setdefault(node.id, node.lineno)
            elif isinstance(node, ast.Name):
                bound.add(node.id)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler):
                bound.add(node.name)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                bound |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        wrong += [f"{path.relative_to(PACKAGE)}:{line}: {name}" for name, line in used.items() if name not in bound]
    assert not wrong


def test_tests_are_collected_without_the_references():
    wrong = []
    for path in Path(__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf8")).body:
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "")]
            )
            roots = {(name or "").split(".")[0] for name in names}
            if roots & {"torch", "transformers", "peft", "seqeval"}:
                wrong.append(f"{path.name}:{node.lineno}: import it inside the test")
    assert not wrong
