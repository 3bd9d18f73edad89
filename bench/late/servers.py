"""What the measurements of reminders start: processes that end with the program, PostgreSQL, nats-server, and Bowerbird's roles."""

import glob
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / ".tools"
HERE = Path(__file__).resolve().parent
PYTHON = TOOLS / "venv/bin/python"
TICK = os.sysconf("SC_CLK_TCK")


class TooSlow(RuntimeError):
    """A load was not announced in time."""


def in_time(begin, took):
    if time.time() > begin - 0.5:
        raise TooSlow(f"announcing the load took {took:.1f} s, which is longer than the time that it had; give a larger --lead")


def finish(load):
    """What a load gives that yields in between."""
    while True:
        try:
            next(load)
        except StopIteration as end:
            return end.value


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, probe, within=60, pause=0.02):
    """What `probe` gives once that is something."""
    deadline = time.monotonic() + within
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {within} s: {what}")
        time.sleep(pause)


def answers(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def status(pid, field):
    """A size of /proc/<pid>/status in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


def rss(pid):
    return status(pid, "VmRSS")


def peak(pid):
    return status(pid, "VmHWM")


def tree(pid):
    """The process and all below it."""
    children = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo[-1])
        todo.extend(children.get(todo.pop(), []))
    return found


def shared_fairly(pid):
    """Memory of a process and all below it in MiB, what they share counted once."""
    total = 0
    for one in tree(pid):
        try:
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except OSError:
            pass
    return total / 1024


def cpu_seconds(pid):
    """User and system time so far of a process, all below it, and those below it that have ended."""
    total = 0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / TICK


def folder_mib(folder):
    total = 0
    for path in Path(folder).rglob("*"):
        try:
            if path.is_file():
                total += path.stat().st_size
        except OSError:
            pass
    return total / (1 << 20)


def idle(pids, seconds):
    """Per cent of one core that each of these takes."""
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    return {name: 100 * (cpu_seconds(pid) - before[name]) / took for name, pid in pids.items()}


class Running:
    """A folder and processes that are gone at the end, in whatever way that comes."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="bowerbird-late-", dir="/var/tmp"))
        os.chmod(self.folder, 0o755)
        self.processes = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            self.stop(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def spawn(self, name, command, environment=None, as_user=None, talks=False):
        """`talks`: its standard output and input are ours."""
        if as_user:
            entry = pwd.getpwnam(as_user)
            command = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--init-groups", "--pdeathsig", "KILL", "--", *command]
        else:
            command = ["setpriv", "--pdeathsig", "KILL", "--", *command]
        log = open(self.folder / f"{name}.log", "ab")
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else log,
            stderr=log,
            env={**os.environ, **(environment or {})},
            cwd=self.folder,
            start_new_session=True,
        )
        log.close()
        process.name = name
        self.processes.append(process)
        return process

    def stop(self, process, by=signal.SIGINT, within=30):
        if process.poll() is None:
            process.send_signal(by)
            try:
                process.wait(within)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        if process in self.processes:
            self.processes.remove(process)

    def say(self, process, within):
        """The next line that it says, as JSON."""
        readable, _, _ = select.select([process.stdout], [], [], within)
        line = process.stdout.readline() if readable else b""
        if not line:
            log = (self.folder / f"{process.name}.log").read_text(errors="replace")[-1500:]
            raise RuntimeError(f"{process.name} said nothing within {within} s:\n{log}")
        return json.loads(line)

    def ask(self, name, command, environment=None, within=600):
        """Run it to its end; the last line that it says, as JSON."""
        answer = subprocess.run(
            list(map(str, command)), capture_output=True, env={**os.environ, **(environment or {})}, timeout=within, check=False
        )
        if answer.returncode:
            raise RuntimeError(f"{name} ended with {answer.returncode}: {answer.stderr.decode(errors='replace')[-1500:]}")
        lines = answer.stdout.decode().strip().splitlines()
        return json.loads(lines[-1]) if lines else None


class Ours(Running):
    """PostgreSQL and nats-server, both syncing every write, `bowerbird store` and `bowerbird actors`, each a process."""

    HORIZON_S = 86400

    def __init__(self, program, settings=None, accounts=5000):
        super().__init__()
        self.program, self.settings, self.accounts = Path(program).resolve(), settings or {}, accounts

    def start(self):
        bin_folder = Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[-2]))[-1])
        # PostgreSQL refuses to run as root.
        user = "postgres" if os.geteuid() == 0 else None
        cluster = self.folder / "postgres"
        cluster.mkdir()
        if user:
            os.chown(cluster, pwd.getpwnam(user).pw_uid, -1)
        made = self.spawn("initdb", [bin_folder / "initdb", "-D", cluster, "-U", "bench", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8"], as_user=user)
        if made.wait(60):
            raise RuntimeError((self.folder / "initdb.log").read_text(errors="replace"))
        self.processes.remove(made)
        self.postgres_port, self.nats_port, objects = free_port(), free_port(), free_port()
        self.postgres = self.spawn(
            "postgres",
            [bin_folder / "postgres", "-D", cluster, "-p", self.postgres_port, "-h", "127.0.0.1", "-c", "unix_socket_directories=", "-c", "shared_buffers=256MB"],
            as_user=user,
        )
        self.psql = [bin_folder / "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", f"postgres://bench@127.0.0.1:{self.postgres_port}/postgres"]
        ready = [str(bin_folder / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.postgres_port)]
        until("PostgreSQL answers", lambda: subprocess.run(ready, check=False).returncode == 0)
        self.start_nats()
        key = self.folder / "master-key"
        key.write_text("5a" * 32)
        key.chmod(0o600)
        own = {
            "DATABASE__URL": f"postgres://bench@127.0.0.1:{self.postgres_port}/postgres",
            "NATS__URL": f"nats://127.0.0.1:{self.nats_port}",
            "AUTH__MASTER_KEY_FILE": str(key),
            "STORAGE__KIND": "s3",
            "STORAGE__LISTEN": f"127.0.0.1:{objects}",
            "STORAGE__ENDPOINT": f"http://127.0.0.1:{objects}",
            "STORAGE__ACCESS_KEY_ID": "bench",
            "STORAGE__SECRET_ACCESS_KEY": "bench-secret-key-of-some-length",
            "ALARMS__HORIZON": f"{self.HORIZON_S}s",
            **self.settings,
        }
        self.environment = {f"BOWERBIRD__{key}": value for key, value in own.items()}
        self.role("store")
        until("the object store listens", lambda: answers(objects))
        self.role("migrate").wait(60)
        self.start_actors()
        self.sql(
            "INSERT INTO accounts (id, account_name, role, quota_bytes, created_at, updated_at) "
            f"SELECT gen_random_uuid(), 'bench' || n, 'user', 1 << 30, now(), now() FROM generate_series(1, {self.accounts}) AS n; "
            "CREATE SCHEMA load; CREATE TABLE load.accounts AS SELECT row_number() OVER () AS nth, id FROM accounts; "
            "CREATE UNIQUE INDEX ON load.accounts (nth); ANALYZE load.accounts"
        )

    def role(self, name):
        return self.spawn(name, [self.program, name], {**self.environment, "BOWERBIRD__DATA_DIR": str(self.folder / f"data-{name}"), **self.listens()})

    def listens(self):
        self.operations = free_port()
        return {"BOWERBIRD__GATEWAY__OPERATIONS_LISTEN": f"127.0.0.1:{self.operations}"}

    def start_nats(self):
        configuration, store = self.folder / "nats.conf", self.folder / "jetstream"
        configuration.write_text(f'listen: "127.0.0.1:{self.nats_port}"\njetstream {{ store_dir: "{store}", sync_interval: always, max_file: 20GB }}\n')
        server = shutil.which("nats-server", path=f"{TOOLS / 'bin'}:{os.environ['PATH']}")
        self.nats = self.spawn("nats", [server, "-c", configuration])
        until("nats-server answers", lambda: answers(self.nats_port))

    def wipe_jetstream(self):
        self.stop(self.nats, signal.SIGKILL)
        shutil.rmtree(self.folder / "jetstream")
        self.start_nats()

    def start_actors(self):
        """How long until all that is due within the horizon is guarded, in seconds from the start of the process."""
        began = time.monotonic()
        self.actors = self.role("actors")
        guarded = f"bowerbird_alarm_horizon_seconds {self.HORIZON_S}"
        until("the horizon is guarded", lambda: guarded in (self.fetch("/metrics") or "").splitlines(), within=300)
        took = time.monotonic() - began
        until("the actors are ready", lambda: self.fetch("/readyz") is not None)
        return took

    def stop_actors(self):
        self.stop(self.actors, signal.SIGTERM)

    def fetch(self, path):
        if self.actors.poll() is not None:
            raise RuntimeError("the actors ended:\n" + (self.folder / "actors.log").read_text(errors="replace")[-1500:])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.operations}{path}", timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError):
            return None

    def sql(self, text):
        """The rows that it gives, as lists of texts."""
        answer = subprocess.run(list(map(str, self.psql)), input=text.encode(), capture_output=True, check=False)
        if answer.returncode:
            raise RuntimeError(f"psql: {answer.stderr.decode(errors='replace')[-1500:]}")
        return [line.split("|") for line in answer.stdout.decode().splitlines() if line]

    def add(self, number, due, batch=1000):
        """So many reminders of one instant each, as the API writes them, `due` being that instant as an expression over `n`.

        Written by SQL, a transaction for each thousand: the row, its alarm, and the sequence of its events. Left out are what
        the API writes besides and which nothing of this reads: the event `reminder.created`, and the answer of an idempotency
        key. Gives the seconds that it took.
        """
        statements = []
        for first in range(1, number + 1, batch):
            last = min(first + batch - 1, number)
            statements.append(
                f"""WITH new AS MATERIALIZED (
                    SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) PLACING
                               substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid AS id,
                           a.id AS account_id, {due} AS at
                    FROM generate_series({first}, {last}) AS n JOIN load.accounts AS a ON a.nth = 1 + n % {self.accounts}
                ), armed AS (
                    INSERT INTO alarms (kind, subject_id, due_at, wake_at) SELECT 'reminder', id, at, at FROM new
                ), sequences AS (
                    INSERT INTO event_sequences (entity_id, last_sequence, last_recorded_at) SELECT id, 1, clock_timestamp() FROM new
                )
                INSERT INTO reminders (id, account_id, title, channels, due_at, status, next_fire_at, floor_at)
                SELECT id, account_id, 'Take the bread out', ARRAY['inbox'], at, 'scheduled', at, now() FROM new;"""
            )
        script = self.folder / "add.sql"
        script.write_text("\n".join(statements))
        began = time.monotonic()
        subprocess.run(list(map(str, [*self.psql, "-f", script])), stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - began

    def hear(self, number):
        """A process that hears this many firings, ready to."""
        listener = self.spawn("hear", [PYTHON, HERE / "hear.py", self.nats_port, number], talks=True)
        self.say(listener, 20)
        return listener


def fail(sentence):
    print(f"reminders: {sentence}", file=sys.stderr)
    sys.exit(1)
