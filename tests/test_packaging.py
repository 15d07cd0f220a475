"""The wheel holds the product and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("streamer", "engines", "kernels")


def project() -> dict[str, object]:
    """pyproject.toml as plain values."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_folder_is_listed() -> None:
    """A folder with Python files is a listed package: setuptools installs only what is named."""
    on_disk = {
        "vedette." + ".".join(path.parent.relative_to(ROOT).parts)
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    }
    listed = set(project()["tool"]["setuptools"]["packages"])  # type: ignore[index]
    assert listed == on_disk


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in a freshly built wheel."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(out),
        ".",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_the_wheel_has_one_top_level_name(wheel: list[str]) -> None:
    """Only the vedette namespace and the metadata: never a bare streamer, engines or kernels."""
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"vedette"}


def test_the_wheel_holds_code_weights_and_schema(wheel: list[str]) -> None:
    """A newcomer's install finds its detector, its alert schema and its type markers; no tests or tools."""
    names = set(wheel)
    code = {
        "vedette/" + str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert code <= names
    assert "vedette/streamer/alert.schema.json" in names
    assert any(name.startswith("vedette/engines/weights/") and name.endswith(".onnx") for name in names)
    assert {"vedette/streamer/py.typed", "vedette/engines/py.typed", "vedette/kernels/py.typed"} <= names
    assert not [name for name in names if "test" in name.split("/")[0] or name.startswith(("tools", "configs"))]


def test_weights_stay_small() -> None:
    """No shipped weight file is larger than 10 MB."""
    for path in (ROOT / "engines" / "weights").iterdir():
        assert path.stat().st_size <= 10 * 1024 * 1024, path.name


def test_the_namespace_shim_points_at_the_folders() -> None:
    """Type checkers follow three links under tools/ns to the real folders."""
    for folder in FOLDERS:
        assert (ROOT / "tools" / "ns" / "vedette" / folder).resolve() == ROOT / folder
