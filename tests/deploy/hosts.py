"""Hosts on one machine: each has an address, processes, a name, a home, /tmp/ray, /dev/shm and an sshd of its own.

A host is a process tree in namespaces of its own, and so is the switch that joins them. Nothing is put into the
machine's own network, and the kernel ends all of it with the process that asked for it: there is nothing to clean up,
not even after kill -9.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import DEVNULL
from typing import IO, TypeAlias

import psutil

Process: TypeAlias = subprocess.Popen[bytes]

TOOLS = ("ip", "unshare", "nsenter", "setpriv", "ssh", "ssh-keygen", "sshd")
PATIENCE = 30.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOUND = {"passwd": "/etc/passwd", "names": "/etc/hosts", "ray": "/tmp/ray"}  # in the host's folder: in the host

BOOT = """
set -e
mkdir -p /tmp/ray
{binds}
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir /run/sshd
hostname {name}
touch {folder}/waits-for-the-cable
until ip link show eth0 > /dev/null 2>&1; do sleep 0.02; done
ip link set lo up
ip address add {address}/24 dev eth0
ip link set eth0 up
{sshd} -D -e -f {folder}/sshd_config 2>> {folder}/sshd.log &
wait  # a shell as the first process buries orphans
"""

SSHD = """
HostKey {keys}/host
AuthorizedKeysFile {keys}/user.pub
PasswordAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
PidFile none
Subsystem sftp internal-sftp
"""


def why_not(*more_tools: str) -> str | None:
    """What this machine lacks for having hosts, or None."""
    if os.geteuid() != 0:
        return "namespaces with a network need root"
    if absent := [tool for tool in (*TOOLS, *more_tools) if shutil.which(tool, path=PATH) is None]:
        return f"not installed: {', '.join(absent)} (Debian, Ubuntu: iproute2, util-linux, openssh-server)"
    tried = "ip link add veth0 type veth peer name veth1 && ip link add br0 type bridge && mount -t tmpfs tmpfs /run"
    command = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "sh", "-c", tried]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"namespaces are not permitted: {done.stderr.strip()}" if done.returncode else None


class Switch:
    """A network namespace with a bridge, held by a process that sleeps."""

    def __init__(self) -> None:
        self.process = _bound_to_us("unshare", "--net", "sleep", "infinity")
        _wait(lambda: _namespace(self.process.pid, "net") != _namespace(os.getpid(), "net"))
        self.cables = 0
        self.ip("link", "add", "br0", "type", "bridge")
        self.ip("link", "set", "br0", "up")

    def ip(self, *words: str) -> None:
        _checked("nsenter", f"--net=/proc/{self.process.pid}/ns/net", "ip", *words)

    def connect(self, host: Host) -> str:
        """The name of the switch's end. The other end keeps its hardware address over a restart, as a machine does."""
        self.cables += 1
        port, last = f"port{self.cables}", int(host.address.rpartition(".")[2])
        peer = ("peer", "name", "eth0", "address", f"02:00:00:00:00:{last:02x}", "netns", str(host.boot_process.pid))
        _checked("ip", "link", "add", port, "netns", str(self.process.pid), "type", "veth", *peer)
        self.ip("link", "set", port, "master", "br0", "up")
        return port


class Host:
    def __init__(self, switch: Switch, folder: Path, name: str, address: str):
        self.switch, self.folder, self.name, self.address = switch, folder, name, address
        self.home = folder / "home"
        self.started: list[Process] = []
        self.boot()

    def boot(self) -> None:
        """Power on. What lay in the home and in /tmp/ray is still there."""
        (self.folder / "waits-for-the-cable").unlink(missing_ok=True)
        binds = "\n".join(f"mount --bind {self.folder / source} {target}" for source, target in BOUND.items())
        sshd = shutil.which("sshd", path=PATH)
        script = BOOT.format(binds=binds, name=self.name, folder=self.folder, address=self.address, sshd=sshd)
        namespaces = ("--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child")
        self.boot_process = _bound_to_us("unshare", *namespaces, "sh", "-c", script)
        _wait((self.folder / "waits-for-the-cable").exists)
        (self.first,) = psutil.Process(self.boot_process.pid).children()
        self.port = self.switch.connect(self)
        _wait(lambda: any("sshd" in "".join(_command(process)[:1]) for process in self.first.children()))

    def kill(self, *, silently: bool = True) -> None:
        """A power cut: the others hear nothing more. Not silently, its kernel still closes the connections."""
        if self.boot_process.poll() is None:
            if silently:
                self.switch.ip("link", "set", self.port, "down")
            self.boot_process.kill()
            self.boot_process.wait()
        _wait(lambda: not self.first.is_running())
        while self.started:
            self.started.pop().wait()

    def start(self, command: str, environment: Mapping[str, str] | None = None, to: IO[str] | int = DEVNULL) -> Process:
        """A shell command on the host; nothing of our own environment is handed on."""
        spaces = ("--net", "--mount", "--pid", "--uts", "--ipc")
        process = subprocess.Popen(
            ["nsenter", f"--target={self.first.pid}", *spaces, f"--wdns={self.home}", "bash", "-c", command],
            env={"HOME": str(self.home), "USER": "root", "PATH": PATH, "LANG": "C.UTF-8", **(environment or {})},
            stdin=DEVNULL,
            stdout=to,
            stderr=subprocess.STDOUT,
        )
        self.started.append(process)
        return process

    def run(
        self, command: str, environment: Mapping[str, str] | None = None, *, seconds: float = 120, status: int = 0
    ) -> str:
        """What the command said; a file and not a pipe, for that ends only with everything that it left running."""
        with tempfile.TemporaryFile("w+") as said:
            process = self.start(command, environment, said)
            try:
                process.wait(timeout=seconds)
            finally:
                process.kill()
                process.wait()
                said.seek(0)
                text = said.read()
            assert process.returncode == status, f"{self.name}: {command}: exit status {process.returncode}\n{text}"
            return text

    def processes(self) -> list[str]:
        """Command lines of what runs there, but for the first shell and sshd."""
        if (own := _namespace(self.first.pid, "pid")) is None:
            return []  # switched off
        found = [process for process in psutil.process_iter() if _namespace(process.pid, "pid") == own]
        lines = [" ".join(_command(process)) for process in found if process.pid != self.first.pid]
        return sorted(line for line in lines if line and "sshd" not in line.split()[0])


@contextmanager
def hosts(folder: Path, names: Sequence[str], login: Mapping[str, str] | None = None) -> Iterator[list[Host]]:
    """Hosts that reach each other by name and, with the key `folder/keys/user`, by ssh.

    `login`: environment variables that every login by ssh gets.
    """
    addresses = {name: f"10.77.0.{number + 1}" for number, name in enumerate(names)}
    keys = folder / "keys"
    keys.mkdir(parents=True)
    for key in ("host", "user"):
        _checked("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / key))
    with ExitStack() as stack:
        switch = Switch()
        stack.callback(_end, switch.process)
        made: list[Host] = []
        for name, address in addresses.items():
            _furnish(folder / name, keys, addresses, login or {})
            made.append(Host(switch, folder / name, name, address))
            stack.callback(made[-1].kill)
        yield made


def _furnish(folder: Path, keys: Path, addresses: Mapping[str, str], login: Mapping[str, str]) -> None:
    """What lies on a host's disk."""
    for name in ("home", "ray"):
        (folder / name).mkdir(parents=True)
    (folder / "home" / ".bashrc").touch()
    users = Path("/etc/passwd").read_text().splitlines()
    root = f"root:x:0:0:root:{folder / 'home'}:/bin/bash"
    (folder / "passwd").write_text("\n".join([root, *(line for line in users if line.split(":")[0] != "root"), ""]))
    names = [f"{address} {name}" for name, address in addresses.items()]
    (folder / "names").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
    variables = "".join(f' "{name}={value}"' for name, value in login.items())
    settings = SSHD.format(keys=keys) + (f"SetEnv{variables}\n" if variables else "")
    (folder / "sshd_config").write_text(settings)


def _bound_to_us(*command: str) -> Process:
    """A process that the kernel kills when this one ends, however it ends."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=DEVNULL)


def _end(process: Process) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def _checked(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _namespace(pid: int, kind: str) -> str | None:
    link = Path(f"/proc/{pid}/ns/{kind}")
    try:
        return str(link.readlink())
    except OSError:  # the process ended while we looked
        return None


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it ended while we looked
        return []


def _wait(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, "the host did not get there"
        time.sleep(0.01)
