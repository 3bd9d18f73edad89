#!/usr/bin/env python3
"""How late reminders are and what many of them cost, beside BullMQ's delayed jobs and Celery's tasks with an ETA.

Loads: ten thousand due at one instant (in turns, one round after the other), a thousand spread over a minute (all contenders at
once, as each has little to do), and a million that wait. Ours is the built executable with its roles apart, and rows written by SQL as the API writes them; late is from due to
when JetStream stored `reminder.fired`, and to when a program in Python that subscribes to it received it. A peer is late
from due to when its handler ran. All on one machine, so on one clock. Each contender
has servers of its own. Prints one JSON object a line, and the tables at the end.

usage: bench/reminders.py [--program target/dist/bowerbird] [--pending 1000000] [--rounds 3] [--only ours,floor,pending,bullmq,celery]
Needs `scripts/setup --bench`.
"""

import argparse
import contextlib
import json
import math
import random
import shutil
import signal
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "late"))

from peers import BullMq, Celery  # noqa: E402
from servers import PYTHON, ROOT, TOOLS, Ours, TooSlow, fail, finish, folder_mib, idle, in_time, peak, rss, shared_fairly  # noqa: E402

FLOOR_TRIES = 8
STORED, RECEIVED = "**bowerbird**, to stored in `EVENTS`", "**bowerbird**, to received by a subscriber"
PARTS = ("ours", "floor", "pending", "bullmq", "celery")


def say(what, **figures):
    def plain(value):
        if isinstance(value, float):
            return round(value, 3)
        return {key: plain(one) for key, one in value.items()} if isinstance(value, dict) else value

    print(json.dumps({"what": what, **{key: plain(value) for key, value in figures.items()}}), flush=True)


def spread_of(late):
    """p50, p99 and the greatest, in milliseconds; ranks are rounded up."""
    late = sorted(late)
    at = lambda share: 1000 * late[max(1, math.ceil(share * len(late))) - 1]
    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": late[-1] * 1000, "min_ms": late[0] * 1000}


def ours_late(ours, number, spread, lead):
    """Yields once all are written; then what fired, checked to be all of it and each once: how late it was stored and received,
    and how late JetStream's buckets were."""
    listener = ours.hear(number)
    begin = math.ceil(time.time() + lead)
    offset = f" + make_interval(secs => round(({spread} * random())::numeric, 3)::float8)" if spread else ""
    took = ours.add(number, f"to_timestamp({begin}){offset}")
    in_time(begin, took)
    yield
    heard = ours.say(listener, lead + spread + 120)
    ours.stop(listener)
    rows = ours.sql(
        "SELECT id, extract(epoch FROM due_at)::float8, fired, status FROM reminders "
        f"WHERE due_at BETWEEN to_timestamp({begin}) AND to_timestamp({begin + spread})"
    )
    due = {identifier: float(at) for identifier, at, _, _ in rows}
    twice = len(heard["fired"]) - len({identifier for identifier, _, _ in heard["fired"]})
    lost = len(due.keys() - {identifier for identifier, _, _ in heard["fired"]})
    if len(due) != number or twice or lost or any(row[2:] != ["1", "fired"] for row in rows):
        raise RuntimeError(f"of {number}, {len(due)} were written, {lost} were lost, {twice} fired twice")
    return {
        "stored": [stored - due[identifier] for identifier, stored, _ in heard["fired"]],
        "received": [received - due[identifier] for identifier, _, received in heard["fired"]],
        "buckets": [stored - second for second, stored in heard["buckets"] if begin <= second <= begin + spread],
        "added_s": took,
    }


class Figures:
    """What was measured, for the tables."""

    def __init__(self):
        self.late = {}

    def add(self, load, contender, late, round_number=1, **more):
        figures = spread_of(late)
        say("late", load=load, contender=contender, round=round_number, **figures, **more)
        self.late.setdefault(load, {}).setdefault(contender, []).append(figures)

    def median(self, load, contender, figure):
        return statistics.median(one[figure] for one in self.late[load][contender])

    def table(self, load, title, base):
        if load not in self.late:
            return
        print(f"\n{title}\n\n| | p50 ms | p99 ms | max ms | p99 to ours |\n|---|---|---|---|---|")
        # Ours first, whoever began.
        for contender in sorted(self.late[load], key=lambda name: name not in (STORED, RECEIVED)):
            p50, p99, most = (self.median(load, contender, figure) for figure in ("p50_ms", "p99_ms", "max_ms"))
            ratio = f"{p99 / self.median(load, base, 'p99_ms'):.2f}" if base in self.late[load] else ""
            print(f"| {contender} | {p50:.0f} | {p99:.0f} | {most:.0f} | {ratio} |")


def contenders(parts, program):
    """Each with what makes it, and how many times as long it needs to announce a load."""
    if "celery" in parts:
        yield Celery.name, Celery, 3
    if "ours" in parts:
        yield "bowerbird", lambda: Ours(program), 1
    if "bullmq" in parts:
        for fsync in ("always", "everysec"):
            yield f"BullMQ, appendfsync {fsync}", lambda fsync=fsync: BullMq(fsync), 1


def begin_load(contender, number, spread, lead):
    if isinstance(contender, Ours):
        return ours_late(contender, number, spread, lead)
    return contender.late(number, spread, lead, lead + spread + 180)


def record(figures, load, name, number, found, round_number=1):
    if isinstance(found, dict):
        figures.add(load, STORED, found["stored"], round_number, n=number, added_s=found["added_s"])
        figures.add(load, RECEIVED, found["received"], round_number)
        if found["buckets"]:
            figures.add(f"{load}: clock", "from their second to stored", found["buckets"], round_number, n=len(found["buckets"]))
        return
    pairs, took = found
    if len(pairs) != number:
        raise RuntimeError(f"{name}: of {number}, {len(pairs)} ran")
    figures.add(load, name, [ran - due for due, ran in pairs], round_number, n=number, added_s=took)


def measure_at_once(figures, parts, program, number, lead, round_number):
    """Each in its turn; what Celery's worker held meanwhile, if it was asked."""
    held = None
    for name, make, patience in contenders(parts, program):
        for tries in (1, 2, 4):
            try:
                with make() as contender:
                    found = finish(begin_load(contender, number, 0, lead * patience * tries))
                break
            except TooSlow as slow:
                print(f"# {name}: {slow}; once more", file=sys.stderr)
        else:
            raise RuntimeError(f"{name} is too slow for this load")
        record(figures, "at once", name, number, found, round_number)
        held = getattr(contender, "held", held)
    return held


def measure_minute(figures, parts, program, number, minute, lead):
    """All at once, as each has little to do: so that nobody's minute is a better one."""
    with contextlib.ExitStack() as stack:
        running = [(name, stack.enter_context(make()), patience) for name, make, patience in contenders(parts, program)]
        loads = [(name, begin_load(contender, number, minute, lead * patience)) for name, contender, patience in running]
        for _, load in loads:
            next(load)
        for name, load in loads:
            record(figures, "minute", name, number, finish(load))


def measure_floor(figures, program):
    """One reminder at a time, of a whole second, with all ways to hear of it, and by JetStream's schedule alone.

    A process sets its timer when it looks, and it looks when JetStream says so. So with the looking by itself a minute apart, and
    each reminder written after the one before has fired, none is known to the timer.
    """
    for contender, poll in (("JetStream's schedule alone", "60s"), ("with the process's own timer", "1s")):
        stored, buckets = [], []
        with Ours(program, {"ALARMS__POLL": poll}) as ours:
            for _ in range(FLOOR_TRIES):
                # At some instant within a second, so that nothing keeps step with the server's timer.
                time.sleep(random.random() / 4)
                found = finish(ours_late(ours, 1, 0, 2))
                stored += found["stored"]
                buckets += found["buckets"]
        figures.add("floor", contender, stored, n=len(stored))
        if buckets:
            figures.add("floor", f"— of which until JetStream's message was stored ({contender})", buckets, n=len(buckets))


def memory(ours):
    return {
        "actors_rss_mib": rss(ours.actors.pid),
        "actors_peak_mib": peak(ours.actors.pid),
        "nats_rss_mib": rss(ours.nats.pid),
        "nats_peak_mib": peak(ours.nats.pid),
        "postgres_pss_mib": shared_fairly(ours.postgres.pid),
    }


def measure_pending(figures, program, number, at_once, lead, idle_seconds):
    """What a number of reminders that wait cost: half of them within a day, the others within a year."""
    with Ours(program) as ours:
        pids = lambda: {"actors": ours.actors.pid, "nats": ours.nats.pid, "postgres": ours.postgres.pid}
        say("idle", pending=0, cpu_percent=idle(pids(), idle_seconds), **memory(ours))
        empty = {"actors": rss(ours.actors.pid), "nats": rss(ours.nats.pid)}
        ours.stop_actors()
        within = "CASE WHEN n % 2 = 0 THEN 23.4 ELSE 365 * 24 END * interval '1 hour'"
        took = ours.add(number, f"date_trunc('second', now() + interval '30 minutes' + random() * {within})")
        say("armed", pending=number, seconds=took, a_second=number / took)
        # Now instead of at some time within what follows.
        began = time.monotonic()
        ours.sql("VACUUM ANALYZE reminders; VACUUM ANALYZE alarms; VACUUM ANALYZE event_sequences; CHECKPOINT")
        say("vacuumed", seconds=time.monotonic() - began)
        result = {"armed": took, "first": ours.start_actors()}
        buckets = int(ours.sql("SELECT count(*) FROM alarm_buckets")[0][0])
        say("guarded for the first time", seconds=result["first"], buckets=buckets, **memory(ours))
        ours.stop_actors()
        result["restart"] = ours.start_actors()
        say("guarded after a restart", seconds=result["restart"], **memory(ours))
        result["idle"] = idle(pids(), idle_seconds)
        result |= memory(ours)
        result["actors_more"], result["nats_more"] = result["actors_rss_mib"] - empty["actors"], result["nats_rss_mib"] - empty["nats"]
        tables = dict(ours.sql("SELECT t, pg_total_relation_size(t::regclass) FROM unnest(ARRAY['reminders', 'alarms', 'event_sequences', 'alarm_buckets']) AS t"))
        result["tables"] = {name: int(size) / (1 << 20) for name, size in tables.items()}
        result["jetstream"] = folder_mib(ours.folder / "jetstream")
        say("idle", pending=number, cpu_percent=result["idle"], tables_mib=result["tables"], jetstream_mib=result["jetstream"], **memory(ours))
        found = finish(ours_late(ours, at_once, 0, lead))
        figures.add("beside", STORED, found["stored"], n=at_once, added_s=found["added_s"])
        figures.add("beside", RECEIVED, found["received"])
        ours.stop_actors()
        ours.wipe_jetstream()
        result["wiped"] = ours.start_actors()
        say("guarded after JetStream's store was wiped", seconds=result["wiped"], jetstream_mib=folder_mib(ours.folder / "jetstream"), **memory(ours))
    return result


def pending_table(number, ours, bullmq):
    print(f"\n{number} pending, half of them within a day, the others within a year\n\n| | |\n|---|---|")
    if ours:
        tables = ours["tables"]
        for name, value in (
            ("bowerbird: written by SQL, a transaction for each thousand", f"{ours['armed']:.0f} s, {number / ours['armed']:.0f} a second"),
            ("until all of a day are guarded, for the first time", f"{ours['first']:.1f} s"),
            ("— after a restart", f"{ours['restart']:.1f} s"),
            ("— after JetStream's store was wiped", f"{ours['wiped']:.1f} s"),
            ("`bowerbird actors`, RSS (more than with none)", f"{ours['actors_rss_mib']:.0f} MiB ({ours['actors_more']:+.0f})"),
            ("nats-server, RSS (more than with none)", f"{ours['nats_rss_mib']:.0f} MiB ({ours['nats_more']:+.0f})"),
            ("PostgreSQL, all processes, `shared_buffers` of 256 MiB in it", f"{ours['postgres_pss_mib']:.0f} MiB"),
            ("tables and indexes: " + ", ".join(f"`{name}` {size:.0f}" for name, size in tables.items()), f"{sum(tables.values()):.0f} MiB"),
            ("JetStream's files", f"{ours['jetstream']:.0f} MiB"),
            ("idle CPU of one core: actors, nats-server, PostgreSQL", ", ".join(f"{ours['idle'][name]:.1f} %" for name in ("actors", "nats", "postgres"))),
        ):
            print(f"| {name} | {value} |")
    if bullmq:
        for name, value in (
            ("BullMQ: added by `addBulk` of a thousand", f"{bullmq['armed_s']:.0f} s, {number / bullmq['armed_s']:.0f} a second"),
            ("Redis until it answers after a restart", f"{bullmq['restart_s']:.1f} s"),
            ("Redis, used by them; RSS", f"{bullmq['redis_used_mib']:.0f} MiB; {bullmq['redis_rss_mib']:.0f} MiB"),
            ("Redis's append-only file", f"{bullmq['append_only_file_mib']:.0f} MiB"),
            ("idle CPU of one core: Redis, worker", ", ".join(f"{bullmq['idle_cpu_percent'][name]:.1f} %" for name in ("redis", "worker"))),
        ):
            print(f"| {name} | {value} |")
    if ours and bullmq:
        mine = ours["actors_rss_mib"] + ours["nats_rss_mib"] + ours["postgres_pss_mib"]
        theirs = bullmq["redis_rss_mib"] + bullmq["worker_rss_mib"]
        print(f"| memory of all processes: ours, BullMQ; ratio | {mine:.0f} MiB, {theirs:.0f} MiB; {mine / theirs:.2f} |")
        print(f"| written a second, ours to BullMQ | {bullmq['armed_s'] / ours['armed']:.2f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=ROOT / "target/dist/bowerbird")
    parser.add_argument("--pending", type=int, default=1_000_000, help="reminders that wait; 0: leave that out")
    parser.add_argument("--at-once", type=int, default=10_000, help="due at one instant")
    parser.add_argument("--spread", type=int, default=1_000, help="due within a minute")
    parser.add_argument("--minute", type=int, default=60, help="seconds of that minute, for a trial")
    parser.add_argument("--rounds", type=int, default=3, help="of those due at one instant")
    parser.add_argument("--lead", type=float, default=5, help="seconds between announcing a load and its first; Celery gets three times as many")
    parser.add_argument("--idle", type=float, default=15, help="seconds over which idle CPU is taken")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas: " + ", ".join(PARTS))
    asked = parser.parse_args()
    parts = set(asked.only.split(","))
    if parts - set(PARTS):
        parser.error("--only knows " + ", ".join(PARTS))
    if not Path(asked.program).is_file():
        fail(f"there is no {asked.program}; build it: cargo build --profile dist -p bowerbird")
    for needed in (PYTHON, TOOLS / "bullmq/node_modules/bullmq"):
        if not needed.exists():
            fail(f"{needed} is missing; run: scripts/setup --bench")
    for needed in ("redis-server", "node", "setpriv"):
        if not shutil.which(needed):
            fail(f"{needed} is missing; run: scripts/setup --bench")
    # So that the ends of blocks run and nothing is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    figures, celery = Figures(), None
    for round_number in range(1, asked.rounds + 1):
        celery = measure_at_once(figures, parts, asked.program, asked.at_once, asked.lead, round_number) or celery
    measure_minute(figures, parts, asked.program, asked.spread, asked.minute, asked.lead)
    if "floor" in parts:
        measure_floor(figures, asked.program)
    ours = bullmq = None
    if asked.pending and "pending" in parts:
        ours = measure_pending(figures, asked.program, asked.pending, asked.at_once, asked.lead, asked.idle)
    if asked.pending and "bullmq" in parts:
        with BullMq("always") as peer:
            bullmq = peer.pending(asked.pending, asked.idle)
            say("pending", contender=peer.name, pending=asked.pending, **bullmq)
            pairs, took = finish(peer.late(asked.at_once, 0, asked.lead, 180))
            figures.add("beside", peer.name, [ran - due for due, ran in pairs], n=len(pairs), added_s=took)
    if celery:
        say("held", contender=Celery.name, **celery)

    figures.table("at once", f"{asked.at_once} due at one instant, median of {asked.rounds} rounds", RECEIVED)
    figures.table("minute", f"{asked.spread} spread over {asked.minute} s", RECEIVED)
    figures.table("minute: clock", "In that minute, the messages of JetStream's schedules, one for each second in which something was due", "")
    figures.table("floor", f"One at a time, of a whole second, {FLOOR_TRIES} times each; to stored in `EVENTS`", "")
    figures.table("beside", f"{asked.at_once} due at one instant beside {asked.pending} pending", RECEIVED)
    if ours or bullmq:
        pending_table(asked.pending, ours, bullmq)
    if celery:
        print(f"\nCelery, {celery['tasks']} tasks held by its worker until they are due: {celery['worker_mib']:.0f} MiB there, {celery['redis_used_mib']:.0f} MiB in Redis; sent in {celery['added_s']:.1f} s")
    say("done", minutes=(time.monotonic() - began) / 60)


if __name__ == "__main__":
    main()
