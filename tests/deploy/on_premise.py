"""A cluster brought up by `ray up jobs/clusters/on-premise.yaml`, and jobs sent to it from a laptop."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.deploy.hosts import Host

ROOT = Path(__file__).parents[2]
PATIENCE = 600.0
CPUS = 2  # of each host: one worker and what it reads through
API = "http://localhost:8265"
# Ray's own patience, which no promise of ours depends on: with a worker that does not answer (5 times 10 s by default),
# between two looks for machines without Ray (5 s), and of a worker that misses its head (60 s).
QUICK = (
    "RAY_health_check_period_ms=1000 RAY_health_check_timeout_ms=3000 "
    "AUTOSCALER_UPDATE_INTERVAL_S=1 RAY_gcs_rpc_server_reconnect_timeout_s=20"
)


class OnPremise:
    def __init__(self, folder: Path, laptop: Host, head: Host, worker: Host, secrets: Mapping[str, str]):
        self.laptop, self.head, self.worker = laptop, head, worker
        self.checkout, self.shared = folder / "checkout", folder / "shared"
        self.shared.mkdir()
        self.environment = {
            "PATH": f"{laptop.home}/mixdpo_ray-env/bin:/usr/bin:/bin",
            "RAY_AUTH_MODE": "token",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(laptop.home),
            **secrets,
        }
        subprocess.run(["git", "clone", "-q", str(ROOT), str(self.checkout)], check=True)
        self.file = self._addressed(folder / "keys" / "user")

    def _addressed(self, key: Path) -> Path:
        """The shipped file with the lines changed that a person changes, CPUs as on any machine, less patience."""
        text = (ROOT / "jobs" / "clusters" / "on-premise.yaml").read_text()
        changes = {
            r"head_ip: .*": f"head_ip: {self.head.address}",
            r"worker_ips: .*": f"worker_ips: [{self.worker.address}]",
            r"ssh_user: .*": "ssh_user: root",
            r"ssh_private_key: \S+": f"ssh_private_key: {key}",
            r"ray start": f"env {QUICK} ray start --num-cpus={CPUS}",
        }
        for pattern, replacement in changes.items():
            text, found = re.subn(pattern, replacement, text)
            assert found, pattern
        file = self.checkout / "my-cluster.yaml"
        file.write_text(text)
        return file

    def token(self) -> str:
        return (self.laptop.home / ".ray" / "auth_token").read_text().strip()

    def up(self) -> None:
        self.from_laptop("umask 077; ray get-auth-token --generate > /dev/null")
        (self.shared / "up.log").write_text(self.from_laptop(f"ray up --yes {self.file}"))
        self.laptop.start(f"cd {self.checkout}; ray dashboard {self.file}", self.environment)
        self.laptop.run("until (: < /dev/tcp/localhost/8265) 2> /dev/null; do sleep 0.2; done")

    def down(self) -> None:
        """After Ctrl-C to the port forwarding, which is a login on the head."""
        self.laptop.run("pkill -INT -f 'ray[ ]dashboard'")
        (self.shared / "down.log").write_text(self.from_laptop(f"ray down --yes {self.file}"))

    def from_laptop(self, command: str, *, status: int = 0) -> str:
        return self.laptop.run(f"cd {self.checkout}; {command}", self.environment, seconds=PATIENCE, status=status)

    def submit(self, name: str, *command: str) -> Job:
        return Job(self, name, command)

    def wait(self, reached: Callable[[], bool], otherwise: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < deadline, otherwise()
            time.sleep(0.3)


class Job:
    """`ray job submit` from the checkout, which follows the job's log until its end."""

    def __init__(self, cluster: OnPremise, name: str, command: Sequence[str]):
        self.cluster, self.command = cluster, command
        self.log = cluster.shared / f"{name}.log"
        line = f"ray job submit --address {API} --submission-id {name} --working-dir . -- {shlex.join(command)}"
        with self.log.open("w") as log:
            self.process = cluster.laptop.start(f"cd {cluster.checkout}; {line}", cluster.environment, log)

    def said(self) -> str:
        return self.log.read_text()

    def finish(self, status: int = 0) -> str:
        """Its log."""
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
        assert self.process.poll() == status, self.said()
        return self.said()

    def wait(self, reached: Callable[[], bool]) -> None:
        def so_far() -> bool:
            assert self.process.poll() is None, self.said()
            return reached()

        self.cluster.wait(so_far, self.said)
