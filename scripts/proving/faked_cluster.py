"""A cluster whose time of day can be moved while it runs, and whose every part can be killed and started again.

libfaketime moves it for ours and for PostgreSQL, all together; the monotonic clock stays, and so does the clock of
nats-server, which is a static program. Where the clock is behind the real one, PostgreSQL now and then ends an idle
transaction too early: inside a signal handler libfaketime may show it the real time.
"""

import contextlib
import http.client
import json
import os
import pathlib
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
READY_WITHIN = 60
# From when the clock's file is written to when all go by it.
SEEN_WITHIN = 0.3


class Failed(Exception):
    """A sentence about what did not happen."""


def say(text):
    print(f"{pathlib.Path(sys.argv[0]).name}: {text}", flush=True)


def until(what, condition, within, pause=0.1):
    """Wait for it; what it gave. `what` says it, or gives it when it did not come."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise Failed(f"not within {within} s: {what() if callable(what) else what}")
        time.sleep(pause)
    return found


def free_port():
    """Below those that the kernel gives to outgoing connections, so that it is still free after a kill."""
    while True:
        port = random.randint(15000, 30000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class FakeClock:
    """The time of day of ours and of PostgreSQL, and what it was when."""

    def __init__(self, folder):
        found = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        if not found:
            raise Failed("there is no libfaketime; run scripts/setup --prove")
        self.file, self.offset, self.history, self.jumps = folder / "clock", 0, [], 0
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_CACHE_DURATION": "0",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.move(0)

    def move(self, by):
        """Jump. All have seen it when this returns."""
        # libfaketime reads its file at most once in a second. Written just before a second ends, it is seen by all at once.
        time.sleep((0.95 - time.time()) % 1)
        self.offset += by
        new = self.file.with_suffix(".new")
        new.write_text(f"{self.offset:+d}\n")
        new.chmod(0o644)
        new.rename(self.file)
        self.jumps += by != 0
        self.history.append((time.time(), self.offset))
        time.sleep(SEEN_WITHIN)

    def now(self):
        return time.time() + self.offset


class Server:
    """A process of the trial: started, killed with -9, started again."""

    def __init__(self, folder, name, command, environment, user=None):
        self.log, self.environment, self.process, self.kills = folder / f"{name}.log", environment, None, 0
        self.name, self.folder = name, folder
        as_user = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"] if user else []
        # The time of day is faked behind setpriv, for the program alone.
        faked = [f"{key}={value}" for key, value in environment.items()]
        self.command = ["setpriv", "--pdeathsig", "KILL", *as_user, "--", "env", *faked, *map(str, command)]

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
            )

    def kill(self):
        """With -9, and everything that it started."""
        if self.process:
            # Held, so that it starts no more while they are counted.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGSTOP)
            family = [self.process.pid, *started_by(self.process.pid)]
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            until(f"{self.name} is gone", lambda: not any(map(runs, family)), 20)
            forget_shared_memory(self.process.pid)
            self.process, self.kills = None, self.kills + 1


def stat(pid):
    """State and parent of a process."""
    try:
        fields = pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None, None
    return fields[0], int(fields[1])


def runs(pid):
    return stat(pid)[0] not in (None, "Z")


def started_by(pid):
    """Children, and theirs."""
    children = [int(entry.name) for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit() and stat(entry.name)[1] == pid]
    return children + [further for child in children for further in started_by(child)]


def forget_shared_memory(pid):
    """What libfaketime leaves behind in a process that was killed."""
    for name in (f"sem.faketime_sem_{pid}", f"faketime_shm_{pid}"):
        pathlib.Path("/dev/shm", name).unlink(missing_ok=True)


class Database:
    """The cluster, and its only door here: psql, with the real clock."""

    def __init__(self, folder, clock):
        bins = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        programs = bins[-1] if bins else pathlib.Path(shutil.which("initdb")).parent
        user = pwd.getpwnam("postgres") if os.getuid() == 0 else None
        self.data, self.port = folder / "postgres", free_port()
        self.data.mkdir(mode=0o700)
        if user:
            os.chown(self.data, user.pw_uid, user.pw_gid)
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        self.psql = ["psql", "-XqAt", "-F", "\x1f", "-v", "ON_ERROR_STOP=1", "-d", self.url]
        options = "listen_addresses=127.0.0.1 unix_socket_directories= max_connections=100 timezone=UTC log_min_messages=warning"
        options = [word for option in options.split() for word in ("-c", option)]
        initdb = [programs / "initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
        self.server = Server(
            folder, "postgres", [programs / "postgres", "-D", self.data, "-p", self.port, *options], clock.environment, user
        )
        made = Server(folder, "initdb", initdb, {}, user)
        made.start()
        if made.process.wait() != 0:
            raise Failed(f"initdb failed: {made.log.read_text()}")

    def start(self):
        self.server.start()
        # A cluster that was killed recovers first.
        until("PostgreSQL answers", lambda: subprocess.run([*self.psql, "-c", "SELECT 1"], capture_output=True).returncode == 0, 60)

    def rows(self, statement):
        """Each row as a list of texts."""
        done = subprocess.run(self.psql, input=statement, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"psql: {done.stderr.strip()}")
        return [line.split("\x1f") for line in done.stdout.splitlines()]

    def value(self, statement):
        return self.rows(statement)[0][0]


class Cluster:
    """The roles apart, with servers of their own: one object store, two nodes, one gateway."""

    def __init__(self, executable, folder, more):
        self.folder, self.clock = folder, FakeClock(folder)
        self.database = Database(folder, self.clock)
        self.nats_port, self.api = free_port(), f"127.0.0.1:{free_port()}"
        self.store = folder / "jetstream"
        configuration = folder / "nats.conf"
        configuration.write_text(
            f'listen: "127.0.0.1:{self.nats_port}"\n'
            f'jetstream {{ store_dir: "{self.store}", sync_interval: always, max_mem: 256MB, max_file: 4GB }}\n'
        )
        server = ROOT / ".tools/bin/nats-server"
        server = server if server.is_file() else shutil.which("nats-server")
        self.nats = Server(folder, "nats", [server, "-c", configuration], {})
        objects, key = f"127.0.0.1:{free_port()}", folder / "master-key"
        key.write_text("5a" * 32)
        key.chmod(0o600)
        settings = {
            "DATABASE__URL": self.database.url,
            "NATS__URL": f"nats://127.0.0.1:{self.nats_port}",
            "AUTH__MASTER_KEY_FILE": key,
            "AUTH__ARGON2_MEMORY_KIB": 1024,
            "AUTH__ARGON2_PASSES": 1,
            "GATEWAY__LISTEN": self.api,
            "GATEWAY__PUBLIC_URL": f"http://{self.api}",
            "STORAGE__LISTEN": objects,
            "STORAGE__KIND": "s3",
            "STORAGE__ENDPOINT": f"http://{objects}",
            "STORAGE__ACCESS_KEY_ID": "prove",
            "STORAGE__SECRET_ACCESS_KEY": "the secret key of the proof",
        } | more
        settings = {f"BOWERBIRD__{key}": value for key, value in settings.items()} | self.clock.environment
        self.operations, self.roles = {}, {}
        for name in ("store", "node-1", "node-2", "gateway", "migrate"):
            role = "actors" if name.startswith("node") else name
            self.operations[name] = free_port()
            own = {
                "BOWERBIRD__DATA_DIR": folder / name,
                "BOWERBIRD__GATEWAY__OPERATIONS_LISTEN": f"127.0.0.1:{self.operations[name]}",
            }
            self.roles[name] = Server(folder, name, [executable, role], settings | own)
        self.migration = self.roles.pop("migrate")
        # When ours were up, in real time; how long they took at most to be ready again; how often JetStream was wiped.
        self.up, self.slowest, self.wipes = [], 0.0, 0

    def start(self):
        self.database.start()
        self.migration.start()
        if self.migration.process.wait() != 0:
            raise Failed(f"migrate failed: {self.migration.log.read_text()}")
        self.start_nats()
        self.start_roles()

    def start_nats(self):
        self.nats.start()
        until("nats-server listens", lambda: not socket.socket().connect_ex(("127.0.0.1", self.nats_port)), 30)

    def start_roles(self):
        for role in self.roles.values():
            role.start()
        self.up.append([time.time(), None])
        self.wait_until_ready()

    def kill_roles(self):
        self.up[-1][1] = time.time()
        for role in self.roles.values():
            role.kill()

    def kill_nats(self):
        self.nats.kill()
        time.sleep(2)
        self.start_nats()

    def wipe_jetstream(self):
        self.nats.kill()
        shutil.rmtree(self.store)
        self.wipes += 1
        self.start_nats()

    def kill_postgres(self):
        self.database.server.kill()
        time.sleep(1)
        self.database.start()

    def kill_nodes(self):
        for name in ("node-1", "node-2"):
            self.roles[name].kill()
            time.sleep(1.5)
            self.roles[name].start()
            until(f"{name} is ready", lambda: self.readiness(name)[0] == 200, READY_WITHIN)

    def wait_until_ready(self):
        began = time.monotonic()
        for name in ("node-1", "node-2", "gateway"):
            until(lambda: f"{name} is ready: {self.readiness(name)[1]}", lambda: self.readiness(name)[0] == 200, READY_WITHIN)
        self.slowest = max(self.slowest, time.monotonic() - began)

    def readiness(self, name):
        try:
            return self.exchange(f"127.0.0.1:{self.operations[name]}", "GET", "/readyz")
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error)

    def end(self):
        for server in [*self.roles.values(), self.nats, self.database.server]:
            server.kill()

    @staticmethod
    def exchange(address, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(address, timeout=20)
        try:
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()
