"""What the source promises by what it does not hold, and what the tests may not do."""

from __future__ import annotations

import ast
import re
import socket
import threading
from importlib import metadata
from pathlib import Path

import pytest
from loopback_only import NetworkForbiddenError, is_loopback
from packaging.utils import canonicalize_name

import clipdrift

ROOT = Path(clipdrift.__file__).parent
REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted(ROOT.rglob("*.py"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)


def calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def pins(name: str) -> dict[str, str]:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    return {canonicalize_name(name): version for name, version in PIN.findall(text)}


def test_no_call_trusts_code_of_a_model_folder_or_a_dataset() -> None:
    said = {
        ast.unparse(keyword.value)
        for path in SOURCES
        for call in calls(path)
        for keyword in call.keywords
        if keyword.arg == "trust_remote_code"
    }
    assert said == {"False"}
    for path in SOURCES:
        for call in calls(path):
            if ast.unparse(call.func).startswith("Auto"):  # these alone look for code to run
                words = {k.arg: ast.unparse(k.value) for k in call.keywords}
                assert words.get("trust_remote_code") == "False", f"{path.name}:{call.lineno}"


def test_yaml_is_read_by_the_safe_loader_alone() -> None:
    for path in SOURCES:
        for call in calls(path):
            name = ast.unparse(call.func)
            if name in ("yaml.load", "yaml.load_all", "yaml.compose", "yaml.parse", "yaml.scan"):
                loaders = [ast.unparse(k.value) for k in call.keywords if k.arg == "Loader"]
                assert loaders == ["yaml.SafeLoader"], f"{path.name}:{call.lineno} {name}"


def test_no_array_is_read_with_objects_in_it() -> None:
    found = 0
    for path in SOURCES:
        for call in calls(path):
            if ast.unparse(call.func) == "np.load":
                words = {k.arg: ast.unparse(k.value) for k in call.keywords}
                assert words.get("allow_pickle") == "False", f"{path.name}:{call.lineno}"
                found += 1
    assert found


def test_installed_packages_are_the_pinned_ones() -> None:
    """What was tested is what `constraints.txt` names; a local build of torch counts as torch."""
    wrong, seen = {}, 0
    for name, version in pins("constraints.txt").items():
        try:
            installed = metadata.version(name)
        except metadata.PackageNotFoundError:  # an extra that is not installed, another platform
            continue
        seen += 1
        if installed.split("+")[0] != version:
            wrong[name] = (installed, version)
    assert wrong == {}
    assert seen > 60


def test_every_pin_but_torch_has_its_hashes() -> None:
    """`requirements.lock` follows `constraints.txt`; torch's build is the index's own."""
    expected = pins("constraints.txt")
    expected.pop("torch")
    expected.pop("atheris")  # an extra of its own, for Linux
    assert pins("requirements.lock") == expected
    text = (REPOSITORY / "requirements.lock").read_text()
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) == len(expected)
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry.splitlines()[0]


@pytest.mark.parametrize(
    "address", [("192.0.2.1", 80), ("2001:db8::1", 443, 0, 0), ("10.0.0.1", 1)]
)
def test_no_test_can_connect_to_another_machine(address: tuple[str, int]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(1)
        with pytest.raises(NetworkForbiddenError, match="this machine alone"):
            sock.connect(address)


def test_no_test_can_ask_for_the_address_of_another_machine() -> None:
    with pytest.raises(NetworkForbiddenError, match=r"example\.org"):
        socket.create_connection(("example.org", 80), timeout=1)
    assert not is_loopback("127.0.0.1.example.org")


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = threading.Thread(target=server.accept, daemon=True)
        taken.start()
        socket.create_connection(server.getsockname(), timeout=5).close()
        taken.join(5)
        assert not taken.is_alive()
