#!/usr/bin/env python3
"""How late alarms are, and what many of them cost. Starts a PostgreSQL and a nats-server of its own in a temporary folder, both
syncing every write, and prints what `bowerbird-bench alarms` says, one JSON object a line.

usage: bench/alarms.py [--program target/dist/bowerbird-bench] [--pending 1000000] [--rounds 3]
"""

import argparse
import glob
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def until(what, probe, within=30):
    deadline = time.monotonic() + within
    while not probe():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {within} s: {what}")
        time.sleep(0.05)


class Servers:
    """PostgreSQL and nats-server, gone at the end."""

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bowerbird-bench-", dir="/var/tmp"))
        self.processes = []
        as_user = []
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            as_user = ["runuser", "-u", "postgres", "--"]
            os.chown(self.folder, pwd.getpwnam("postgres").pw_uid, -1)
        tools = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1])
        cluster = self.folder / "postgres"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*as_user, tools / "initdb", "-D", cluster, "-U", "bench", "--auth=trust"], check=True, **quiet)
        port = free_port()
        self.start([*as_user, tools / "postgres", "-D", cluster, "-p", str(port), "-k", self.folder, "-c", "shared_buffers=256MB"])
        ready = [*as_user, tools / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        until("PostgreSQL answers", lambda: subprocess.run(ready, check=False).returncode == 0)
        self.database = f"postgres://bench@127.0.0.1:{port}/postgres"

        nats_port = free_port()
        nats = self.folder / "nats.conf"
        store = self.folder / "nats"
        nats.write_text(
            f'listen: "127.0.0.1:{nats_port}"\njetstream {{ store_dir: "{store}", sync_interval: always, max_file: 8GB }}\n'
        )
        server = shutil.which("nats-server", path=f"{ROOT / '.tools/bin'}:{os.environ['PATH']}")
        self.nats_pid = self.start([server, "-c", nats]).pid
        until("nats-server answers", lambda: answers(nats_port))
        self.nats = f"nats://127.0.0.1:{nats_port}"
        return self

    def start(self, command):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self.processes.append(process)
        return process

    def __exit__(self, *_):
        for process in reversed(self.processes):
            try:
                os.killpg(process.pid, signal.SIGINT)
            except ProcessLookupError:
                pass
            process.wait(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program, *arguments):
        environment = {
            **os.environ,
            "BENCH_DATABASE": self.database,
            "BENCH_NATS": self.nats,
            "BENCH_NATS_PID": str(self.nats_pid),
        }
        subprocess.run([program, "alarms", *map(str, arguments)], env=environment, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=ROOT / "target/dist/bowerbird-bench")
    parser.add_argument("--pending", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    for _ in range(asked.rounds):
        with Servers() as servers:
            servers.run(asked.program, "late", 10_000, 0)
        with Servers() as servers:
            servers.run(asked.program, "late", 1_000, 60)
    if asked.pending:
        with Servers() as servers:
            servers.run(asked.program, "pending", asked.pending)
            # And how late, beside a million that wait.
            servers.run(asked.program, "late", 10_000, 0)


if __name__ == "__main__":
    main()
