#!/usr/bin/env python3
"""How many notifications of the object store become files in a second, beside what that is made of: a look at the object, a commit
of one row, a message consumed and acknowledged. All on one machine, in turns, on the same store, PostgreSQL and nats-server.

Uploads are rows written by SQL as the API writes them; their objects are put while no worker runs, so that the store's
notifications wait in the stream. Then one process of `bowerbird actors` starts, and its rate is from the first upload that it
completed to the last, after the first tenth. Prints one JSON object a round, with the CPU time of each process by upload, and the table
at the end.

usage: bench/ingest.py [--program target/dist/bowerbird] [--raw target/dist/bowerbird-bench] [--uploads 6000] [--rounds 3]
Needs `scripts/setup --bench`.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "late"))

from servers import ROOT, Ours, cpu_seconds, until  # noqa: E402

NAMES = {
    "head": "HEAD of each object, 32 at once",
    "commit": "commits of one row, 16 connections (pgbench)",
    "consume": "consume and acknowledge, 32 in hand",
    "ours": "**bowerbird**: notification to file",
}


def announce(ours, number):
    """Rows as the API writes them, without the event that nothing here reads."""
    ours.sql(
        f"""CREATE TEMP TABLE new AS SELECT gen_random_uuid() AS id, a.id AS account_id, gen_random_uuid() AS file_id
        FROM generate_series(1, {number}) AS n JOIN load.accounts AS a ON a.nth = 1 + n % {ours.accounts};
        INSERT INTO uploads (id, account_id, file_id, file_name, size_bytes, object_key, expires_at, links_until)
        SELECT id, account_id, file_id, id || '.txt', 5, account_id || '/' || file_id || '/0', now() + interval '1 hour', now() + interval '15 min' FROM new;
        INSERT INTO alarms (kind, subject_id, due_at, wake_at) SELECT 'upload', id, now() + interval '1 hour', now() + interval '1 hour' FROM new;
        INSERT INTO event_sequences (entity_id, last_sequence, last_recorded_at) SELECT id, 1, clock_timestamp() FROM new;
        INSERT INTO account_usage (account_id, reserved_bytes, unfinished_uploads) SELECT account_id, 5 * count(*), count(*) FROM new GROUP BY 1
        ON CONFLICT (account_id) DO UPDATE SET reserved_bytes = account_usage.reserved_bytes + excluded.reserved_bytes,
            unfinished_uploads = account_usage.unfinished_uploads + excluded.unfinished_uploads"""
    )
    keys = ours.folder / "keys"
    keys.write_text("".join(f"{key}\n" for (key,) in ours.sql("SELECT object_key FROM uploads WHERE status = 'pending'")))
    return keys


def commits(ours, seconds):
    """Commits a second of one row each, by as many connections as a process of ours has."""
    ours.sql("DROP TABLE IF EXISTS load.commits; CREATE TABLE load.commits (id uuid PRIMARY KEY, at timestamptz)")
    script = ours.folder / "commit.sql"
    script.write_text("INSERT INTO load.commits VALUES (gen_random_uuid(), now());\n")
    pgbench = Path(ours.psql[0]).with_name("pgbench")
    command = [pgbench, "-n", "-c", "16", "-j", "2", "-T", str(seconds), "-f", script, ours.psql[-1]]
    said = subprocess.run(list(map(str, command)), capture_output=True, check=True, text=True).stdout
    return next(float(line.split()[2]) for line in said.splitlines() if line.startswith("tps ="))


def one_round(ours, raw, number):
    keys = announce(ours, number)
    environment = {
        "BENCH_ENDPOINT": ours.environment["BOWERBIRD__STORAGE__ENDPOINT"],
        "BENCH_ACCESS_KEY": ours.environment["BOWERBIRD__STORAGE__ACCESS_KEY_ID"],
        "BENCH_SECRET_KEY": ours.environment["BOWERBIRD__STORAGE__SECRET_ACCESS_KEY"],
        "BENCH_NATS": ours.environment["BOWERBIRD__NATS__URL"],
    }
    measured = lambda *what: float(ours.ask(what[0], [raw, *what], environment))
    found = {"put": measured("put-each", keys)}
    # Not before all are told: what is measured is taking in.
    found["consume"] = measured("consume", number)
    found["head"] = measured("head-each", keys)
    found["commit"] = commits(ours, 8)
    began = ours.sql("SELECT extract(epoch FROM clock_timestamp())::float8")[0][0]
    servers = {process.name: process.pid for process in ours.processes}
    before = {name: cpu_seconds(pid) for name, pid in servers.items()}
    ours.start_actors()
    done = f"SELECT count(*) FROM uploads WHERE status = 'completed' AND finished_at >= to_timestamp({began})"
    until("every upload is a file", lambda: int(ours.sql(done)[0][0]) == number, within=300, pause=0.5)
    spent = {name: cpu_seconds(pid) - before[name] for name, pid in servers.items()}
    spent["actors"] = cpu_seconds(ours.actors.pid)
    found["cpu_ms"] = {name: round(1000 * seconds / number, 2) for name, seconds in spent.items() if seconds}
    ours.stop_actors()
    times = [float(at) for (at,) in ours.sql(
        f"SELECT extract(epoch FROM finished_at)::float8 FROM uploads WHERE finished_at >= to_timestamp({began}) ORDER BY 1"
    )]
    skipped = number // 10
    found["ours"] = (len(times) - 1 - skipped) / (times[-1] - times[skipped])
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default=ROOT / "target/dist/bowerbird")
    parser.add_argument("--raw", default=ROOT / "target/dist/bowerbird-bench")
    parser.add_argument("--uploads", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds = []
    with Ours(options.program, accounts=100) as ours:
        ours.stop_actors()
        for number in range(options.rounds):
            rounds.append(one_round(ours, Path(options.raw).resolve(), options.uploads))
            print(json.dumps({"round": number + 1, **{name: rate if name == "cpu_ms" else round(rate, 1) for name, rate in rounds[-1].items()}}), flush=True)
    median = {name: statistics.median(one[name] for one in rounds) for name in NAMES}
    print("\n| | a second | ours to it |\n|---|---|---|")
    for name, title in NAMES.items():
        ratio = f"{median['ours'] / median[name]:.2f}" if name != "ours" else ""
        print(f"| {title} | {median[name]:.0f} | {ratio} |")


if __name__ == "__main__":
    main()
