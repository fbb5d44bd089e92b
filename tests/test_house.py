"""The house rules that no other test holds: who imports whom, and what is said of the tree."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "digitnet"
INFERENCE = {"preprocess", "views", "model", "checkpoint", "recognizer"}
TRAINING = {"mnist", "drawings", "doodles", "augment", "dataset", "train", "calibrate", "evaluate", "charts"}


def imports_of(path: Path) -> set[str]:
    """Dotted names imported anywhere in a file; those of the package as "digitnet.x"."""
    names = set()
    inside = path.relative_to(ROOT).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            names.update({module, *(f"{module}.{alias.name}" for alias in node.names)})
    return names


def modules_of(path: Path) -> set[str]:
    """Modules of the package a file imports, by their first name."""
    return {name.split(".")[1] for name in imports_of(path) if name.startswith("digitnet.")}


@pytest.mark.parametrize("name", sorted(INFERENCE))
def test_inference_never_imports_training(name):
    assert not modules_of(PACKAGE / f"{name}.py") & TRAINING


def test_only_the_page_imports_gradio():
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "page":
            assert not any(name.split(".")[0] == "gradio" for name in imports_of(path)), path


def test_nothing_imports_the_app_or_the_page():
    for path in PACKAGE.glob("*.py"):
        assert "page" not in modules_of(path) and "app" not in imports_of(path), path


def test_neither_the_package_nor_the_page_knows_ray_or_its_deployment():
    for path in [ROOT / "app.py", *PACKAGE.rglob("*.py")]:
        assert not {name.split(".")[0] for name in imports_of(path)} & {"ray", "deploy"}, path


def test_no_cycles():
    graph = {path.stem: modules_of(path) - {path.stem} for path in PACKAGE.glob("*.py") if path.stem != "__init__"}
    done, open_ = set(), []

    def walk(name: str) -> None:
        assert name not in open_, " → ".join([*open_, name])
        if name in done or name not in graph:
            return
        open_.append(name)
        for other in graph[name]:
            walk(other)
        open_.pop()
        done.add(name)

    for name in graph:
        walk(name)


def test_reading_a_picture_imports_neither_torchvision_nor_matplotlib_nor_gradio():
    code = "import sys, digitnet; digitnet.Recognizer.load(); print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {"torchvision", "matplotlib", "gradio", "cv2", "pandas", "onnxruntime"} & set(loaded)


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "benchmark", "export", "convert"])
def test_every_command_has_help(command):
    done = subprocess.run(
        [sys.executable, "-m", "digitnet", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "usage" in done.stdout and len(done.stdout) > 200


def test_the_file_tree_in_the_readme_is_the_tree():
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`(digitnet/\w+\.py)`", readme))
    assert named == {f"digitnet/{path.name}" for path in PACKAGE.glob("*.py")}


def test_no_data_is_committed():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in files if name.endswith(("ubyte", "ubyte.gz", ".jsonl.gz", ".npz", ".tra", ".tes"))]
