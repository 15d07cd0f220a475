"""Networks of our own: two namespaces joined by a cable that can be pulled and can lose packets. Needs root and ip."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator

from tests.faults.report import refuse

_CLONE_NEWNET = 0x40000000


def command(*words: str) -> None:
    """Run one; CalledProcessError with what it said."""
    subprocess.run(words, check=True, capture_output=True, text=True)


class Namespace:
    """A network namespace. prefix: what a command line begins with to run inside."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.prefix = ["ip", "netns", "exec", name]
        command("ip", "netns", "add", name)
        command(*self.prefix, "ip", "link", "set", "lo", "up")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread's new sockets belong to the namespace meanwhile."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self.name}") as away:
            _enter(libc, away.fileno())
            try:
                yield
            finally:
                _enter(libc, home.fileno())

    def remove(self) -> None:
        """Remove it; its cables go with it."""
        command("ip", "netns", "del", self.name)


def _enter(libc: ctypes.CDLL, fd: int) -> None:
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Cable:
    """camera and edge: two namespaces, 10.77.0.1 and 10.77.0.2, joined by a veth pair."""

    CAMERA, EDGE = "10.77.0.1", "10.77.0.2"

    def __init__(self) -> None:
        tag = uuid.uuid4().hex[:6]
        self.camera, self.edge = Namespace(f"vd-cam-{tag}"), Namespace(f"vd-edge-{tag}")
        ends = {self.camera: (f"vdc{tag}", self.CAMERA), self.edge: (f"vde{tag}", self.EDGE)}
        command("ip", "link", "add", ends[self.camera][0], "type", "veth", "peer", "name", ends[self.edge][0])
        for side, (device, address) in ends.items():
            command("ip", "link", "set", device, "netns", side.name)
            command(*side.prefix, "ip", "address", "add", f"{address}/24", "dev", device)
            command(*side.prefix, "ip", "link", "set", device, "up")
        self._device = ends[self.camera][0]

    def lose(self, percent: int) -> None:
        """From now on so many of a hundred packets from the camera are lost, by chance; 0 loses none."""
        rules = "flush ruleset\n"
        if percent:
            rules += (
                "table ip lossy {\nchain out {\ntype filter hook output priority 0; policy accept;\n"
                f"oifname {self._device} numgen random mod 100 < {percent} counter drop\n}}\n}}\n"
            )
        nft = [*self.camera.prefix, "nft", "-f", "-"]
        subprocess.run(nft, input=rules, check=True, capture_output=True, text=True)

    def lost(self) -> int:
        """Packets lost since the last `lose`."""
        said = subprocess.run(
            [*self.camera.prefix, "nft", "list", "ruleset"], capture_output=True, text=True, check=True
        )
        words = said.stdout.split()
        return int(words[words.index("packets") + 1])

    def plug(self, state: str) -> None:
        """``down`` pulls the cable, ``up`` plugs it in."""
        command(*self.camera.prefix, "ip", "link", "set", self._device, state)

    def remove(self) -> None:
        """Remove both namespaces."""
        self.camera.remove()
        self.edge.remove()


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """A cable; skipped with the reason where this machine does not let us lay one."""
    for tool in ("ip", "nft"):
        if shutil.which(tool) is None:
            refuse(f"needs {tool} (packages iproute2 and nftables)")
    if os.geteuid() != 0:
        refuse("needs root to make network namespaces")
    try:
        laid = Cable()
    except subprocess.CalledProcessError as error:
        refuse(f"network namespaces are not permitted here: {error.stderr.strip()}")
    try:
        yield laid
    finally:
        laid.remove()
