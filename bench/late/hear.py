"""Hears `reminder.fired` from the stream EVENTS as any program of an owner could, and what JetStream's schedules say, and
tells when each was stored and when it was received.

usage: hear.py <port of nats-server> <firings to hear>
Says {"ready": true}, and when so many were heard {"fired": [[id, stored, received] ...], "buckets": [[second, stored] ...]},
all in seconds since 1970. Hears half a second longer than it needs to, so that what fires twice is seen.
"""

import asyncio
import json
import sys
import time

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy


async def main(port, number):
    connection = await nats.connect(f"nats://127.0.0.1:{port}")
    stream = connection.jetstream()
    fired, buckets, enough = [], [], asyncio.Event()

    # As little as can be while they come; they are read at the end.
    async def on_fired(message):
        fired.append((message.subject, message.reply, time.time()))
        if len(fired) == number:
            enough.set()

    async def on_bucket(message):
        buckets.append((message.subject, message.reply))

    for subject, name, callback in (
        ("bowerbird.v1.evt.reminder.fired.>", "EVENTS", on_fired),
        ("bowerbird.v1.alarm.due.bucket.*", "ALARMS", on_bucket),
    ):
        config = ConsumerConfig(deliver_policy=DeliverPolicy.NEW, ack_policy=AckPolicy.NONE)
        await stream.subscribe(subject, stream=name, config=config, cb=callback, manual_ack=True)
    print('{"ready": true}', flush=True)
    await enough.wait()
    await asyncio.sleep(0.5)

    def last(subject):
        return subject.rsplit(".", 1)[1]

    def stored(reply):
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<sequence>.<sequence>.<nanoseconds>.<pending>[.<token>]
        tokens = reply.split(".")
        return int(tokens[7 if len(tokens) == 9 else 9]) / 1e9

    print(
        json.dumps(
            {
                "fired": [[last(subject), stored(reply), received] for subject, reply, received in fired],
                "buckets": [[int(last(subject)), stored(reply)] for subject, reply in buckets],
            }
        ),
        flush=True,
    )
    await connection.close()


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
