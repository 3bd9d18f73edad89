#!/usr/bin/env python3
"""What lists and searches of files cost through the REST API, with a million files in one account and four million in others.

Starts `bowerbird up` in a temporary folder, makes accounts over the API, inserts the files by SQL, and asks a fixed set of
questions, each with other values every time. Prints one line a question: p50, p99 and the longest, in milliseconds of the whole
request; at the end all of them together, and how many sequential scans of `files` PostgreSQL counted meanwhile.

usage: bench/search.py [--program target/dist/bowerbird] [--files 1000000] [--others 4000000] [--rounds 60] [--keep FOLDER]
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent
PASSWORD = "a long enough password"
# Words of names, from one that every second file has to ones that a handful have.
COMMON = ["invoice", "photo", "report", "scan", "letter", "contract", "holiday", "backup", "draft", "music"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Api:
    """One connection that is kept open, as a client keeps it."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.token = None

    def ask(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]}")
        return json.loads(text) if text else None

    def register(self, name):
        account = self.ask("POST", "/v1/auth/register", {"account_name": name, "password": PASSWORD})["id"]
        self.login(name)
        return account

    def login(self, name):
        self.token = self.ask("POST", "/v1/auth/login", {"login": name, "password": PASSWORD})["access_token"]


class House:
    """`bowerbird up`, and its PostgreSQL."""

    def __init__(self, program, folder):
        self.folder, self.port = folder, free_port()
        ports = {name: f"127.0.0.1:{free_port()}" for name in ("operations", "storage")}
        self.log = open(folder / "log", "ab")
        environment = {
            **os.environ,
            "BOWERBIRD__DATA_DIR": str(folder / "data"),
            "BOWERBIRD__GATEWAY__LISTEN": f"127.0.0.1:{self.port}",
            "BOWERBIRD__GATEWAY__OPERATIONS_LISTEN": ports["operations"],
            "BOWERBIRD__STORAGE__LISTEN": ports["storage"],
            # As long as may be: nobody refreshes here.
            "BOWERBIRD__AUTH__ACCESS_TOKEN_TTL": "15m",
        }
        self.process = subprocess.Popen(
            [program, "up"], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL, env=environment
        )
        deadline = time.monotonic() + 120
        # It listens before it is ready.
        while not self.is_ready(ports["operations"]):
            if time.monotonic() > deadline or self.process.poll() is not None:
                sys.exit(f"bowerbird did not start; see {folder / 'log'}")
            time.sleep(0.2)

    @staticmethod
    def is_ready(operations):
        connection = http.client.HTTPConnection(operations, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def sql(self, text):
        credentials = (self.folder / "data/credentials.toml").read_text()
        password = re.search(r'^postgres_password = "(.*)"', credentials, re.M).group(1)
        socket_folder = self.folder / "data/postgres/run"
        done = subprocess.run(
            ["psql", "-h", socket_folder, "-U", "postgres", "-d", "bowerbird", "-qAtX", "-v", "ON_ERROR_STOP=1", "-f", "-"],
            input=text, text=True, capture_output=True, env={**os.environ, "PGPASSWORD": password}, check=False,
        )
        if done.returncode != 0:
            sys.exit(f"psql: {done.stderr}")
        return done.stdout.strip()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def insert(house, account, files, seed):
    """Files of one account in a thousand folders, made over a year."""
    words = "ARRAY[" + ",".join(f"'{word}'" for word in COMMON) + "]"
    house.sql(f"""
        SET synchronous_commit = off;
        SELECT setseed({seed});
        INSERT INTO folders (id, account_id, name, path) VALUES (gen_random_uuid(), '{account}', '', '/')
            ON CONFLICT (account_id, path) WHERE deleted_at IS NULL DO NOTHING;
        INSERT INTO folders (id, account_id, parent_id, name, path)
            SELECT gen_random_uuid(), '{account}', r.id, 'folder ' || n, '/folder ' || n
            FROM generate_series(0, 999) AS n, folders AS r WHERE r.account_id = '{account}' AND r.path = '/';
        INSERT INTO files (id, account_id, name, folder_id, size_bytes, content_type, crc64, etag, object_key, status, source, tags,
                           created_at, updated_at)
        SELECT id, '{account}', name, folder_id, size_bytes, content_type, 0, 'e', '{account}/' || id || '/1',
               CASE WHEN number % 50000 = 7 THEN 'quarantined' ELSE 'available' END, 'download', tags, at, at + random() * interval '9 days'
        FROM (
            SELECT number, gen_random_uuid() AS id, d.id AS folder_id,
                   -- A squared random number: the first words are in many names, the last in few.
                   ({words})[1 + floor(10 * random() * random())::int] || ' ' || substr(md5(number::text), 1, 10) || ' ' || number
                       || (ARRAY['.pdf', '.jpg', '.txt', '.mkv'])[1 + number % 4] AS name,
                   floor(exp(random() * 22))::bigint AS size_bytes,
                   (ARRAY['application/pdf', 'image/jpeg', 'text/plain', 'video/x-matroska'])[1 + number % 4] AS content_type,
                   CASE WHEN number % 10 = 0 THEN ARRAY['tenth'] WHEN number % 10007 = 1 THEN ARRAY['rare', 'tenth'] ELSE '{{}}'::text[] END AS tags,
                   now() - random() * interval '365 days' AS at
            FROM generate_series(1, {files}) AS number
            JOIN folders AS d ON d.account_id = '{account}' AND d.path = '/folder ' || (number % 1000)
        ) AS made;
        INSERT INTO account_usage (account_id, files) VALUES ('{account}', {files})
            ON CONFLICT (account_id) DO UPDATE SET files = excluded.files;
    """)


def questions(files):
    """Name, and a function that makes the parameters of one more request."""
    rare = lambda: f"{random.randrange(16 ** 4):04x}"
    word = lambda: random.choice(COMMON)
    number = lambda: str(random.randrange(1, files))
    days = lambda low, high: time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() - 86400 * random.uniform(low, high)))
    kinds = ["image/", "application/pdf", "video/", "text/"]
    return {
        "newest": lambda: {},
        "by name": lambda: {"sort": "name"},
        "by size": lambda: {"sort": "size"},
        "by update": lambda: {"sort": "updated", "order": "asc"},
        "a folder": lambda: {"folder": f"/folder {random.randrange(1000)}"},
        "a folder by size": lambda: {"folder": f"/folder {random.randrange(1000)}", "sort": "size"},
        "three characters": lambda: {"q": f"{random.randrange(16 ** 3):03x}"},
        "four characters": lambda: {"q": rare()},
        "four characters by name": lambda: {"q": rare(), "sort": "name"},
        "a common word": lambda: {"q": word()},
        "a common word by size": lambda: {"q": word(), "sort": "size"},
        "a common word by name": lambda: {"q": word(), "sort": "name"},
        "one file": lambda: {"q": f" {number()}."},
        "nothing": lambda: {"q": "zebra" + rare()},
        "a type": lambda: {"content_type": random.choice(kinds)},
        "a type that nothing has": lambda: {"content_type": "audio/"},
        "a tag": lambda: {"tags": "tenth"},
        "a rare tag": lambda: {"tags": "rare"},
        "two tags by name": lambda: {"tags": "rare,tenth", "sort": "name"},
        "sizes": lambda: {"min_size_bytes": 10_000, "max_size_bytes": 11_000},
        "large ones": lambda: {"min_size_bytes": 3_000_000_000},
        "days": lambda: {"created_after": days(100, 200), "created_before": days(50, 99)},
        "one day by name": lambda: {"created_after": days(10, 11), "created_before": days(9, 10), "sort": "name"},
        "updated lately": lambda: {"updated_after": days(0, 1)},
        "status": lambda: {"status": "quarantined"},
        "word, type, tag": lambda: {"q": word(), "content_type": random.choice(kinds), "tags": "tenth"},
        "word, folder, size": lambda: {"q": word(), "folder": f"/folder {random.randrange(1000)}", "min_size_bytes": 1_000},
        "four characters, type, days": lambda: {"q": rare(), "content_type": random.choice(kinds), "created_after": days(200, 300)},
        "word, rare tag by size": lambda: {"q": word(), "tags": "rare", "sort": "size"},
        "last page": None,
    }


def percentile(times, share):
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/dist/bowerbird")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--others", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--keep", type=pathlib.Path, help="a folder to make it in, and to leave it in")
    options = parser.parse_args()
    random.seed(7)
    folder = options.keep or pathlib.Path(tempfile.mkdtemp(prefix="bowerbird-bench-", dir="/var/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    house = House(options.program, folder)
    try:
        bench(house, options)
    finally:
        house.stop()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def bench(house, options):
    api = Api(house.port)
    begun = time.monotonic()
    # Row by row the index of trigrams would take an hour; PostgreSQL makes it in minutes when the rows are there.
    trigrams = house.sql("SELECT indexname || '|' || indexdef FROM pg_indexes WHERE tablename = 'files' AND indexdef LIKE '%USING gin%'")
    there = house.sql("SELECT account_name FROM accounts").split()
    accounts = [("searcher", options.files, 0.1)]
    accounts += [(f"other{nth}", max(1, options.others // 8), 0.2 + nth / 100) for nth in range(8 if options.others else 0)]
    wanted = [account for account in accounts if account[0] not in there]
    if wanted:
        for index in trigrams.splitlines():
            house.sql(f"DROP INDEX {index.split('|')[0]}")
        for name, files, seed in wanted:
            insert(house, Api(house.port).register(name), files, seed)
        for index in trigrams.splitlines():
            house.sql(f"SET maintenance_work_mem = '1GB'; {index.split('|', 1)[1]}")
        house.sql("VACUUM (ANALYZE) files; VACUUM (ANALYZE) folders;")
    api.login("searcher")
    sizes = house.sql(
        "SELECT count(*) || ' files, table ' || pg_size_pretty(pg_table_size('files')) || ', indexes ' "
        "|| pg_size_pretty(pg_indexes_size('files')) FROM files"
    )
    print(f"# {sizes}, made in {time.monotonic() - begun:.0f} s", flush=True)
    scans = "SELECT coalesce(sum(seq_scan), 0) FROM pg_stat_user_tables WHERE relname = 'files'"
    for make in questions(options.files).values():
        for _ in range(3 if make else 0):
            api.ask("GET", "/v1/files?" + urllib.parse.urlencode(make()))
    time.sleep(2)  # PostgreSQL tells what it counted after a second.
    before = int(house.sql(scans))
    everything = []
    for name, make in questions(options.files).items():
        times, found, cut = [], 0, 0
        api.login("searcher")
        pages = last_page(api) if make is None else None
        for _ in range(options.rounds):
            path = pages if pages else "/v1/files?" + urllib.parse.urlencode(make())
            start = time.monotonic()
            page = api.ask("GET", path)
            times.append(1000 * (time.monotonic() - start))
            found = len(page["items"])
            cut += page["next_cursor"] is not None and found < (200 if pages else 50)
        everything += times
        print(
            f"{name:30} p50 {percentile(times, 0.5):7.1f} ms  p99 {percentile(times, 0.99):7.1f} ms  "
            f"max {max(times):7.1f} ms  {found} items, {cut} of {len(times)} pages cut short", flush=True,
        )
    time.sleep(2)
    after = int(house.sql(scans))
    print(
        f"all {len(everything)}: p50 {percentile(everything, 0.5):.1f} ms, p99 {percentile(everything, 0.99):.1f} ms, "
        f"max {max(everything):.1f} ms; sequential scans of files: {after - before}"
    )


def last_page(api):
    """The path of a page far down a long list, which is walked to there."""
    query = {"tags": "tenth", "limit": 200, "sort": "name"}
    path, before = "/v1/files?" + urllib.parse.urlencode(query), None
    for _ in range(200):
        page = api.ask("GET", path)
        if not page["next_cursor"]:
            break
        before = "/v1/files?" + urllib.parse.urlencode({**query, "cursor": page["next_cursor"]})
        path = before
    return before


if __name__ == "__main__":
    main()
