"""The peers: BullMQ with its Redis, Celery with its Redis."""

import math
import os
import signal
import subprocess
import time

from servers import HERE, PYTHON, TOOLS, Running, answers, free_port, idle, in_time, rss, shared_fairly, until


class Redis(Running):
    """A Redis that keeps an append-only file, synced each second or with every write."""

    def __init__(self, fsync):
        super().__init__()
        self.fsync = fsync

    def start(self):
        self.port = free_port()
        self.start_redis()

    def start_redis(self):
        """How long until it answers, with all that it had."""
        began = time.monotonic()
        self.redis = self.spawn(
            "redis",
            ["redis-server", "--bind", "127.0.0.1", "--port", self.port, "--dir", self.folder, "--save", "", "--appendonly", "yes"]
            + ["--appendfsync", self.fsync, "--maxmemory-policy", "noeviction"],
        )
        until("Redis answers", lambda: answers(self.port) and self.call("PING") == "PONG", within=300)
        return time.monotonic() - began

    def call(self, *words):
        answer = subprocess.run(["redis-cli", "-p", str(self.port), *words], capture_output=True, text=True, check=False)
        return answer.stdout.strip()

    def used_mib(self):
        for line in self.call("INFO", "memory").splitlines():
            if line.startswith("used_memory:"):
                return int(line.split(":")[1]) / (1 << 20)
        return math.nan


class BullMq(Redis):
    """One queue, one worker of a hundred jobs at once."""

    def __init__(self, fsync):
        super().__init__(fsync)
        self.name = f"BullMQ, appendfsync {fsync}"
        self.worker = None

    def node(self, *arguments):
        environment = {"BULLMQ": str(TOOLS / "bullmq/node_modules/bullmq")}
        return ["node", HERE / "bullmq.cjs", *arguments], environment

    def late(self, number, spread, lead, within):
        """Yields once all are added; then [(due, ran)] in seconds, and the seconds that adding took."""
        command, environment = self.node("worker", self.port, number)
        self.worker = self.spawn("worker", command, environment, talks=True)
        self.say(self.worker, 30)
        begin = math.ceil(time.time() + lead)
        command, environment = self.node("add", self.port, number, begin * 1000, spread * 1000)
        took = self.ask("add", command, environment)["seconds"]
        in_time(begin, took)
        yield
        ran = self.say(self.worker, within)
        self.stop(self.worker, signal.SIGTERM)
        return [(due / 1000, at / 1000) for due, at in ran], took

    def pending(self, number, idle_seconds):
        empty = self.used_mib()
        command, environment = self.node("pending", self.port, number)
        took = self.ask("pending", command, environment)["seconds"]
        used, resident = self.used_mib(), rss(self.redis.pid)
        command, environment = self.node("worker", self.port, number)
        worker = self.spawn("worker", command, environment, talks=True)
        self.say(worker, 60)
        at_rest = idle({"redis": self.redis.pid, "worker": worker.pid}, idle_seconds)
        worker_rss = rss(worker.pid)
        self.stop(worker, signal.SIGTERM)
        self.stop(self.redis, signal.SIGTERM, within=120)
        file = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()) / (1 << 20)
        restarted = self.start_redis()
        return {
            "armed_s": took,
            "redis_used_mib": used - empty,
            "redis_rss_mib": resident,
            "worker_rss_mib": worker_rss,
            "append_only_file_mib": file,
            "restart_s": restarted,
            "idle_cpu_percent": at_rest,
        }


class Celery(Redis):
    """One worker with a process for each core, as it comes; tasks with an ETA wait in the worker."""

    name = "Celery, ETA"

    def __init__(self):
        super().__init__("everysec")
        self.held = {}

    def late(self, number, spread, lead, within):
        ran = self.folder / "ran"
        environment = {"LATE_REDIS": f"redis://127.0.0.1:{self.port}/0", "LATE_RAN": str(ran), "PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": "1"}
        worker = self.spawn("celery", [PYTHON, "-m", "celery", "-A", "tasks", "worker", "--loglevel", "WARNING", "-n", "late@%h"], environment)
        until("Celery's worker listens", lambda: self.call("PUBSUB", "NUMPAT") not in ("", "0") or self.call("CLIENT", "LIST").count("brpop"), within=30)
        time.sleep(1)
        before, redis_before = shared_fairly(worker.pid), self.used_mib()
        begin = math.ceil(time.time() + lead)
        took = self.ask("add", [PYTHON, HERE / "tasks.py", number, begin, spread], environment)["seconds"]
        in_time(begin, took)
        if not spread:
            # It has to hold all of them before they are due.
            until("Celery's worker has them all", lambda: self.call("LLEN", "celery") == "0" and self.call("HLEN", "unacked") == str(number), within=max(1, begin - time.time()))
            self.held = {"tasks": number, "worker_mib": shared_fairly(worker.pid) - before, "redis_used_mib": self.used_mib() - redis_before, "added_s": took}
        yield
        size = len(f"{float(begin)!r} {time.time()!r}\n")
        until("Celery ran all tasks", lambda: ran.exists() and os.stat(ran).st_size >= number * (size - 16) and len(ran.read_bytes().splitlines()) >= number, within=within, pause=0.2)
        time.sleep(0.5)
        pairs = [tuple(map(float, line.split())) for line in ran.read_text().splitlines()]
        self.stop(worker, signal.SIGTERM)
        ran.unlink()
        return pairs, took
