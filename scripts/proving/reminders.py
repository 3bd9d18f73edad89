"""What happened to reminders, held against what should have happened.

What should follows from the reminders' own rows and from the record of what the clock was when. What did is in PostgreSQL's
facts, in what a durable consumer saw all the while, and in what the stream holds in the end.
"""

import asyncio
import collections
import contextlib
import datetime
import json
import re
import threading
import zoneinfo

import nats
import nats.errors
import nats.js.errors

from proving.faked_cluster import SEEN_WITHIN, say

MINUTE, HOUR, DAY = 60, 3600, 86400
# `reminders.catch_up`, and how late a firing is before it says so.
CATCH_UP, LATE = DAY, MINUTE
# How long working off what is due may take.
DONE_WITHIN = 90


def read(text):
    """Seconds since 1970 of an instant as events write it."""
    whole, fraction = re.fullmatch(r"([^.Z]+)(\.\d+)?Z", text).groups()
    return datetime.datetime.fromisoformat(whole + "+00:00").timestamp() + float(fraction or 0)


def read_row(text):
    return datetime.datetime.fromisoformat(text).timestamp()


class Consumer(threading.Thread):
    """Reads every fact about reminders from the stream, through a durable consumer, for as long as the trial runs."""

    def __init__(self, url, name):
        super().__init__(daemon=True)
        self.url, self.durable, self.ending = url, name, False
        # By event id: type, reminder, when it was due. How often each was delivered.
        self.facts, self.deliveries, self.made = {}, collections.Counter(), 0

    def run(self):
        asyncio.run(self.read())

    async def read(self):
        async def quiet(_):
            pass

        options = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.2, "error_cb": quiet}
        bus = await nats.connect(self.url, **options)
        while not self.ending:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error, OSError):
                subscription = await bus.jetstream(timeout=3).pull_subscribe(
                    "bowerbird.v1.evt.reminder.>", durable=self.durable, stream="EVENTS"
                )
                self.made += 1
                await self.drain(subscription)
            await asyncio.sleep(0.2)
        await bus.close()

    async def drain(self, subscription):
        while not self.ending:
            try:
                messages = await subscription.fetch(500, timeout=1)
            except nats.errors.TimeoutError:
                # Raises when JetStream was wiped, and the consumer with it.
                await subscription.consumer_info()
                continue
            for message in messages:
                event, kind = message.headers["ce-id"], message.headers["ce-type"]
                self.deliveries[event] += 1
                body = json.loads(message.data)
                self.facts[event] = (kind, message.subject.rpartition(".")[2], body.get("due_at"))
                await message.ack()

    def end(self):
        self.ending = True
        self.join(20)

    def told(self):
        return {event for event, (kind, _, _) in list(self.facts.items()) if kind in ("reminder.fired", "reminder.missed")}


class Judgement:
    """What should have happened, held against what did."""

    def __init__(self, trial):
        self.trial, self.clock, self.faults = trial, trial.clock, []
        self.figures = collections.Counter()
        self.delays = []
        rows = trial.database.rows("SELECT to_jsonb(r) FROM reminders AS r")
        self.reminders = {row["id"]: row for row in (json.loads(text) for (text,) in rows)}
        rows = trial.database.rows(
            """SELECT entity_id, event_type, id, data FROM events WHERE event_type LIKE 'reminder.%'
               ORDER BY entity_id, entity_sequence"""
        )
        self.facts = collections.defaultdict(list)
        for reminder, kind, event, data in rows:
            self.facts[reminder].append((kind.removeprefix("reminder."), event, json.loads(data)))

    def told(self):
        return {event for known in self.facts.values() for kind, event, _ in known if kind in ("fired", "missed")}

    def fault(self, reminder, text):
        self.faults.append(f"{reminder}: {text}")

    def soonest(self, reminder, due, sure):
        """When it could have fired at the soonest, as (real time, how late that was): the clock was there, and a node was up.
        At all; or surely, for a second at least."""
        history = [*self.clock.history, (float("inf"), 0)]
        for (begins, offset), (ends, _) in zip(history, history[1:]):
            for up, down in self.trial.up:
                at = max(begins, up, self.trial.created[reminder], due - offset)
                # Some saw the time from before for a moment, and killing all takes one too.
                if at < (min(ends, down) - 1 if sure else min(ends + SEEN_WITHIN, down + 2)):
                    return at, at + offset - due
        return None

    def really(self, at):
        """The real time at which the clock was there."""
        history = [*self.clock.history, (float("inf"), 0)]
        for (begins, offset), (ends, _) in zip(history, history[1:]):
            if begins - SEEN_WITHIN <= at - offset <= ends + SEEN_WITHIN:
                return at - offset
        return None

    @staticmethod
    def occurrences(row, first):
        """Its instants in their order, from the one that it was first scheduled for."""
        if row["rrule"] is None:
            yield first
            return
        start = datetime.datetime.fromisoformat(row["start_local"])
        step = {"FREQ=DAILY": datetime.timedelta(days=1), "FREQ=MINUTELY;INTERVAL=2": datetime.timedelta(minutes=2)}[row["rrule"]]
        zone = zoneinfo.ZoneInfo(row["time_zone"] or "UTC")
        while True:
            instant = start.replace(tzinfo=zone).timestamp()
            if instant >= first:
                yield instant
            start += step

    def judge(self, reminder):
        row, facts = self.reminders[reminder], self.facts[reminder]
        first = read(facts[0][2]["reminder"]["next_fire_at"])
        if row["due_at"] and abs(first - read_row(row["due_at"])) > 0.001:
            self.fault(reminder, "it was not scheduled for when it is due")
        ahead = self.occurrences(row, first)
        due, fired = next(ahead), set()
        for kind, event, data in facts[1:]:
            if kind == "canceled" and row["rrule"]:
                # In the end, by us.
                if due < read(data["reminder"]["ended_at"]) - 2:
                    self.figures["lost"] += 1
                    self.fault(reminder, f"nothing happened when it was due at {due}, until it was canceled")
                due = None
                continue
            if kind not in ("fired", "missed"):
                self.fault(reminder, f"an event {kind}")
                continue
            at = read(data["due_at"])
            if kind == "fired" and at in fired:
                self.figures["twice"] += 1
                self.fault(reminder, f"it fired twice for {at}")
            if due is None or abs(at - due) > 0.001:
                self.fault(reminder, f"{kind} for {at}, expected for {due}")
                continue
            number = data["occurrences"] if kind == "missed" else 1
            self.figures["occurrences"] += number
            if kind == "fired":
                fired.add(at)
                self.judge_firing(reminder, data, at)
            else:
                self.figures["missed"] += number
            for _ in range(number):
                last, due = due, next(ahead, None)
            if kind == "missed":
                self.judge_miss(reminder, data, at, last)
        if due is not None:
            self.figures["lost"] += 1
            self.fault(reminder, f"nothing happened when it was due at {due}")
        if row["status"] not in ("fired", "missed", "canceled") or row["next_fire_at"]:
            self.fault(reminder, f"it is {row['status']}, for {row['next_fire_at']}")

    def judge_miss(self, reminder, data, at, last):
        """`at` is the first and `last` the last occurrence that was missed."""
        alone = self.reminders[reminder]["rrule"] is None
        age = read(data["missed_at"]) - last
        if age <= CATCH_UP and (alone or "only the latest" not in data["reason"]):
            self.fault(reminder, f"missed although it was due only {age:.0f} s before")
        soonest = self.soonest(reminder, at, sure=True)
        if alone and soonest and soonest[1] < CATCH_UP - DONE_WITHIN:
            self.fault(reminder, f"missed although it could have fired {soonest[1]:.0f} s after it was due")

    def judge_firing(self, reminder, data, at):
        self.figures["fired"] += 1
        self.figures["late"] += data["late"]
        age = read(data["fired_at"]) - at
        if age < 0 or age > CATCH_UP:
            self.fault(reminder, f"fired {age:.0f} s after it was due")
        if data["late"] != (age > LATE):
            self.fault(reminder, f"fired {age:.3f} s after it was due, late: {data['late']}")
        at_all, surely = self.soonest(reminder, at, sure=False), self.soonest(reminder, at, sure=True)
        if at_all is None:
            self.fault(reminder, "fired although its time never came")
        elif at_all[1] > LATE and not data["late"]:
            self.fault(reminder, f"it could not have fired less than {at_all[1]:.0f} s late, and does not say so")
        if surely and surely[1] < 1:
            self.figures["could be on time"] += 1
            if data["late"]:
                self.fault(reminder, "it is late, and could have been on time")
        fired = self.really(read(data["fired_at"]))
        if surely and fired is not None:
            self.delays.append((surely[0], max(0.0, fired - surely[0]), data["late"]))

    def everything(self, consumer, afterwards):
        database, created = self.trial.database, set(self.trial.created)
        for reminder in created - set(self.reminders):
            self.figures["lost"] += 1
            self.fault(reminder, "its row is gone")
        for reminder in set(self.reminders) - created:
            self.fault(reminder, "nobody asked for it")
        template = self.trial.template
        if self.reminders[template]["status"] != "scheduled" or len(self.facts[template]) != 1:
            self.fault(template, "it is far ahead, and something happened to it")
        for reminder in created & set(self.reminders) - {template}:
            self.judge(reminder)
        told = self.told()
        for what, seen in (("the consumer saw", consumer), ("the stream holds", afterwards)):
            if seen.told() != told:
                self.fault("EVENTS", f"{what} {len(seen.told())} firings and misses, {len(told)} happened")
            once = collections.Counter(fact for fact in seen.facts.values() if fact[0] == "reminder.fired")
            if twice := sum(number - 1 for number in once.values()):
                self.figures["twice"] = max(self.figures["twice"], twice)
                self.fault("EVENTS", f"{what} {twice} firings twice")
        for what, statement in (
            ("alarms were given up", "SELECT count(*) FROM alarms WHERE refused_at IS NOT NULL"),
            ("dead letters", "SELECT count(*) FROM dead_letters"),
            (
                "notifications of firings are too many or missing",
                """SELECT count(*) FROM (SELECT id FROM events WHERE event_type = 'reminder.fired') AS e
                   FULL JOIN (SELECT event_id, count(*) AS times FROM notifications WHERE event_type = 'reminder.fired' GROUP BY 1) AS n
                   ON n.event_id = e.id WHERE n.times IS DISTINCT FROM 1 OR e.id IS NULL""",
            ),
        ):
            if (number := database.value(statement)) != "0":
                self.fault("the database", f"{number} {what}")


def tell_complaints(trial):
    """What nodes and gateway said at WARN and above, without what differs."""
    said = collections.Counter()
    for name in ("node-1", "node-2", "gateway"):
        log = trial.roles[name].log
        for line in log.read_text(errors="replace").splitlines() if log.exists() else ():
            line = re.sub(r"\x1b\[[0-9;]*m", "", line)
            if "panicked" in line:
                said["panicked: " + line] += 1
            elif match := re.search(r"\s(WARN|ERROR)\s+(.*)", line):
                said[f"{match[1]} " + re.sub(r"[0-9a-f-]{36}|\d+(\.\d+)?", "…", match[2])[:160]] += 1
    for line, number in said.most_common(12):
        say(f"said {number} times: {line}")


def percentiles(delays):
    delays = sorted(delays)
    at = lambda share: delays[min(len(delays) - 1, int(share * len(delays)))]
    return f"p50 {at(0.5):.3f} s, p99 {at(0.99):.2f} s, at most {at(1):.2f} s" if delays else "none"


def report(trial, consumer, judgement):
    tell_complaints(trial)
    say("from when one could fire at the soonest, with the clock there and a node up, to when it fired, in real seconds:")
    ends = [begins for begins, _ in trial.rounds[1:]] + [float("inf")]
    for (begins, name), end in zip(trial.rounds, ends):
        those = [(delay, late) for really, delay, late in judgement.delays if begins <= really < end]
        say(f"  {name}: {len(those)} fired, {sum(late for _, late in those)} late; {percentiles(delay for delay, _ in those)}")
    figures, roles = judgement.figures, trial.roles
    say(
        f"{len(trial.created) - 1} reminders, {figures['occurrences']} occurrences: {figures['fired']} fired, of these {figures['late']} marked as "
        f"late; {figures['missed']} missed; lost {figures['lost']}, twice {figures['twice']}"
    )
    say(f"{figures['could be on time']} firings could be on time, and were; in the rounds of jumps the two nodes woke {trial.raced}")
    say(
        f"the clock was moved {trial.clock.jumps} times; killed: nodes {roles['node-1'].kills + roles['node-2'].kills} times, gateway "
        f"{roles['gateway'].kills}, store {roles['store'].kills}, NATS {trial.nats.kills} (JetStream wiped {trial.wipes} times), "
        f"PostgreSQL {trial.database.server.kills}; ready again after at most {trial.slowest:.1f} s"
    )
    say(
        f"the durable consumer, made {consumer.made} times, saw {len(consumer.facts)} events in {sum(consumer.deliveries.values())} deliveries; "
        f"requests that were tried again, by status: {dict(trial.retried)}"
    )
