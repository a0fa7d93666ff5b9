"""The rules of style that a reader would miss first, held on the package's own text."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "python/free").rglob("*.py"), *(ROOT / "export").glob("*.py")])
TREES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
    for path in FILES
    if "python/free/export" not in str(path)  # a link to export/
}

#: Parameters that may be passed by position; more are keywords.
POSITIONAL = 6

#: A first line that needs another docstring to be understood.
UNFINISHED = ("As ", "Of ", "The same", "There may")

#: Published with more: verify_window is the package's contract with other codes.
PUBLISHED = {"verify_window"}

#: What makes tensors: of a dtype that follows from the values, and of torch's default one.
MADE_OF_VALUES = {"arange", "as_tensor", "randint", "randperm"}
MADE = {"empty", "eye", "full", "linspace", "ones", "rand", "randn", "tensor", "zeros"}
#: Layers that make weights. Where is up to who makes the network.
LAYERS = {"BatchNorm2d", "Conv2d", "Embedding", "Linear"}
#: What is called in one place alone, where the bounds are that all readers keep to.
RESERVED = {
    "json.load": "nowhere",
    "json.loads": "python/free/files.py",
    "Image.open": "python/free/images/image_files.py",
    "numpy.load": "nowhere",
    "np.load": "nowhere",
    "torch.load": "python/free/models/checkpoints/tensors.py",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def splats(tree: ast.Module) -> list[int]:
    """Lines of calls that splat a tuple which the same function packed from variables."""
    found = []
    for function in functions(tree):
        packed = {
            target.id
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        found += [
            call.lineno
            for call in ast.walk(function)
            if isinstance(call, ast.Call)
            for argument in call.args
            if isinstance(argument, ast.Starred)
            and isinstance(argument.value, ast.Name)
            and argument.value.id in packed
        ]
    return found


def crowded(tree: ast.Module) -> list[int]:
    """Lines of functions with too many positional parameters, ``self`` and ``cls`` not counted."""
    methods = {
        member
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for member in node.body
        if isinstance(member, Function)
        and not any(getattr(d, "id", "") == "staticmethod" for d in member.decorator_list)
    }
    return [
        function.lineno
        for function in functions(tree)
        if len(function.args.posonlyargs + function.args.args) - (function in methods) > POSITIONAL
        and function.name not in PUBLISHED
    ]


def unfinished(tree: ast.Module) -> list[int]:
    """Lines of what has a docstring whose first line does not stand alone."""
    documented = (*functions(tree), *(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef)))
    return [
        node.lineno for node in documented if (ast.get_docstring(node) or "").startswith(UNFINISHED)
    ]


def left_to_defaults(tree: ast.Module) -> list[int]:
    """Lines of what takes its device or dtype from torch's global defaults."""
    found = []
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
            continue
        needs: set[str | None] = {
            *(["device"] if call.func.attr in MADE | MADE_OF_VALUES else []),
            *(["dtype"] if call.func.attr in MADE | LAYERS else []),
        }
        named = {keyword.arg for keyword in call.keywords}
        if ast.unparse(call.func.value) in ("torch", "nn") and None not in named:
            found += [call.lineno] if needs - named else []
    return found


def reserved(tree: ast.Module) -> list[tuple[int, str]]:
    """Lines of calls that are reserved for one module, and the calls."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    found = [(call.lineno, ast.unparse(call.func)) for call in calls]
    return [(line, name) for line, name in found if name in RESERVED]


@pytest.mark.parametrize("rule", [splats, crowded, unfinished, left_to_defaults])
def test_the_package_keeps_to_its_rules(rule: object) -> None:
    assert callable(rule)
    broken = [f"{path}:{line}" for path, tree in TREES.items() for line in rule(tree)]
    assert not broken


def test_files_are_read_within_bounds() -> None:
    """Depth and size of JSON, formats and pixels of images, no pickled code: in one place each."""
    found = {path: reserved(tree) for path, tree in TREES.items()}
    astray = [
        f"{path}:{line} {name}"
        for path, calls in found.items()
        for line, name in calls
        if RESERVED[name] != path
    ]
    assert not astray
    used = {(path, name) for path, calls in found.items() for _, name in calls}
    assert used == {(path, name) for name, path in RESERVED.items() if path != "nowhere"}


def test_the_rules_see_what_breaks_them() -> None:
    text = '''
def f(a, b, c, d, e, g, h):
    """As there."""
    told = (a, b)
    return f(*told, c)
'''
    tree = ast.parse(text)
    assert splats(tree) == [5]
    assert crowded(tree) == unfinished(tree) == [2]
    text = """
torch.zeros(3, dtype=d)
torch.arange(3)
nn.Linear(3, 4)
torch.tensor(3.0, dtype=d, device=d), torch.arange(3, device=d), nn.Linear(3, 4, dtype=d)
"""
    assert left_to_defaults(ast.parse(text)) == [2, 3, 4]


def test_files_are_short_and_few_lie_flat() -> None:
    long = [path for path in FILES if len(path.read_text(encoding="utf-8").splitlines()) > 400]
    assert not long
    flat = {path.stem for path in (ROOT / "python/free").glob("*.py")}
    assert flat == {
        *("__init__", "__main__", "arguments", "devices", "files", "machine", "pretrained"),
        "version",
    }
