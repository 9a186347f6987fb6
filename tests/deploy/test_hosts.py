"""Hosts of tests/deploy/hosts.py are as separate as machines, die as a whole, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.deploy.hosts import Host, hosts, why_not

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    with hosts(tmp_path_factory.mktemp("hosts"), ["one", "two"], {"COLOUR": "green"}) as made:
        yield made


def ssh(source: Host, target: Host, command: str) -> str:
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
    key = source.folder.parent / "keys" / "user"
    return source.run(f"ssh {options} -i {key} root@{target.name} '{command}'").strip()


def test_a_host_reaches_the_other_by_name_and_key(pair: list[Host]) -> None:
    one, two = pair
    assert ssh(one, two, "hostname; echo $HOME $COLOUR") == f"two\n{two.home} green"
    assert ssh(two, one, "hostname") == "one"


def test_hosts_share_neither_processes_nor_memory_nor_ray_s_folder(pair: list[Host]) -> None:
    one, two = pair
    sleeper = one.start("touch /tmp/ray/mine /dev/shm/mine; exec sleep 300")
    assert one.run("until [ -e /dev/shm/mine ]; do sleep 0.1; done; ls /tmp/ray /dev/shm").count("mine") == 2
    assert "mine" not in two.run("ls /tmp/ray /dev/shm")
    assert (one.processes(), two.processes()) == (["sleep 300"], [])
    assert "sleep 300" not in two.run("ps ax")
    one.run("pkill sleep")
    sleeper.wait()


def test_a_killed_host_is_gone_as_a_whole_and_comes_back_with_its_disk(pair: list[Host]) -> None:
    one, two = pair
    two.run("setsid sleep 301 & touch ~/kept /dev/shm/lost; until pgrep -x sleep; do :; done")
    assert "sleep 301" in two.processes()
    two.kill()
    left = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not any("sleep 301" in line for line in left)
    two.boot()
    assert ssh(one, two, "ls ~; ls /dev/shm; hostname") == "kept\ntwo"


PROGRAM = """
import signal, sys, time
from pathlib import Path
from tests.deploy.hosts import hosts
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have it ignored
with hosts(Path(sys.argv[1]), ["one"]) as (one,):
    one.run("setsid sleep 302 &")
    print(one.first.pid, one.switch.process.pid, flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_hosts_end_with_the_process_that_made_them(number: int, tmp_path: Path) -> None:
    before = network()
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert program.stdout is not None
    made = [psutil.Process(int(pid)) for pid in program.stdout.readline().split()]
    assert network() == before, "nothing is put into the machine's own network"
    os.kill(program.pid, number)
    program.communicate()
    _, alive = psutil.wait_procs(made, timeout=10)
    assert alive == []


def network() -> str:
    return subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
