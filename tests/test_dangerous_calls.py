"""What may not stand in the code: whatever turns data into code, or switches a verification off."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("streamer", "engines", "kernels", "tools")
#: Modules that run what they read, or that put a shell between us and a program.
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle", "imp"}
#: Plain calls.
CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
#: Calls by their last two words; the first may be any name for the socket methods.
METHODS = {
    ("os", "system"),
    ("os", "popen"),
    ("yaml", "load"),
    ("yaml", "load_all"),
    ("yaml", "full_load"),
    ("yaml", "unsafe_load"),
    ("yaml", "unsafe_load_all"),
    ("tempfile", "mktemp"),
    ("ssl", "_create_unverified_context"),
}
SOCKET_METHODS = {"recv_pyobj", "send_pyobj", "recv_serialized"}
#: The one place that may look at a camera without verifying its certificate, and why: cameras sign their own.
UNVERIFIED = {"streamer/sources/handshake.py"}


def sources(folder: str) -> list[Path]:
    """Every Python file below a folder."""
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "ns" not in path.relative_to(ROOT).parts)


def faults(tree: ast.AST, where: str) -> Iterator[str]:
    """What is wrong in one file, ``line: what``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        yield from (f"{node.lineno}: imports {name}" for name in names if name.partition(".")[0] in MODULES)
        yield from (f"{node.lineno}: imports {n}" for n in names if tuple(n.rsplit(".", 1)) in METHODS)
        if isinstance(node, ast.Call):
            yield from (f"{node.lineno}: {fault}" for fault in call_faults(node))
        if isinstance(node, ast.Attribute) and node.attr in ("CERT_NONE",) and where not in UNVERIFIED:
            yield f"{node.lineno}: {node.attr}"


def call_faults(call: ast.Call) -> Iterator[str]:
    """What is wrong with one call."""
    keywords = {word.arg: word.value for word in call.keywords}
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    attribute = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name in CALLS:
        yield f"calls {name}"
    if (owner.rpartition(".")[2], attribute) in METHODS or attribute in SOCKET_METHODS:
        yield f"calls {owner}.{attribute}"
    if attribute == "load" and owner.rpartition(".")[2] == "torch" and not is_true(keywords.get("weights_only")):
        yield "calls torch.load without weights_only=True"
    if attribute == "load" and owner in ("np", "numpy") and is_true(keywords.get("allow_pickle")):
        yield "calls np.load with allow_pickle"
    if "shell" in keywords and not is_false(keywords["shell"]):
        yield f"calls {attribute or name} with a shell"
    if "verify" in keywords and is_false(keywords["verify"]):
        yield f"calls {attribute or name} with verify=False"


def is_true(value: ast.expr | None) -> bool:
    """Whether it says True in so many words."""
    return isinstance(value, ast.Constant) and value.value is True


def is_false(value: ast.expr | None) -> bool:
    """Whether it says False in so many words."""
    return isinstance(value, ast.Constant) and value.value is False


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_data_becomes_code(folder: str) -> None:
    """No pickle, eval, exec, yaml.load, shell, untrusted torch.load or np.load, and no verification is switched off."""
    found = {}
    for path in sources(folder):
        where = str(path.relative_to(ROOT))
        wrong = list(faults(ast.parse(path.read_text()), where))
        if wrong:
            found[where] = wrong
    assert found == {}


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.memory",
        "eval('1')",
        "exec(text)",
        "compile(text, 'x', 'exec')",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "from yaml import load",
        "from os import system",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "socket.recv_pyobj()",
        "subprocess.run(words, shell=True)",
        "os.system('x')",
        "urllib3.PoolManager(verify=False)",
        "context.verify_mode = ssl.CERT_NONE",
        "tempfile.mktemp()",
    ],
)
def test_the_walk_finds_what_it_looks_for(code: str) -> None:
    """Each kind of fault is found in a line that has it."""
    assert list(faults(ast.parse(code), "streamer/x.py")) != []


def test_the_walk_lets_innocent_code_pass() -> None:
    """net.eval(), re.compile, yaml.safe_load and torch.load(weights_only=True) are fine."""
    code = "net.eval()\nre.compile('x')\nyaml.safe_load(t)\ntorch.load(p, weights_only=True)\nnp.load(p, allow_pickle=False)"
    assert list(faults(ast.parse(code), "streamer/x.py")) == []
    assert sum(len(sources(folder)) for folder in FOLDERS) > 150
