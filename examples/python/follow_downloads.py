#!/usr/bin/env python3
"""Bowerbird from another service, over NATS alone: ask for a download, read a typed error, follow the events.

    pip install nats-py
    follow_downloads.py --server nats://127.0.0.1:4222 --user USER --password PASSWORD --token ACCESS_TOKEN --url URL

Needs NATS credentials and an access token (`POST /v1/auth/login` or `bowerbird.v1.req.session.login`). The password may also come
from the environment variable NATS_PASSWORD, the token from BOWERBIRD_TOKEN.
"""

import argparse
import asyncio
import json
import os
import sys
import uuid

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy


async def ask(connection, operation, body, token):
    """One operation: the reply as a dict, or the problem document of the error."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Bowerbird-Timeout-Ms": "5000",
        "Bowerbird-Idempotency-Key": str(uuid.uuid4()),
    }
    reply = await connection.request(f"bowerbird.v1.req.{operation}", json.dumps(body).encode(), timeout=6, headers=headers)
    failed = bool(reply.headers and "Nats-Service-Error-Code" in reply.headers)
    return failed, json.loads(reply.data)


async def discover(connection, seconds=1.0):
    """Names of the services that answer `$SRV.INFO`, with their endpoints."""
    inbox, services = connection.new_inbox(), {}
    subscription = await connection.subscribe(inbox)
    await connection.publish("$SRV.INFO", b"", reply=inbox)
    while True:
        try:
            message = await subscription.next_msg(timeout=seconds)
        except nats.errors.TimeoutError:
            break
        info = json.loads(message.data)
        services[info["name"]] = sorted(endpoint["name"] for endpoint in info["endpoints"])
    await subscription.unsubscribe()
    return services


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="nats://127.0.0.1:4222")
    parser.add_argument("--user")
    parser.add_argument("--password", default=os.environ.get("NATS_PASSWORD"))
    parser.add_argument("--token", default=os.environ.get("BOWERBIRD_TOKEN"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--durable", default=f"example-{uuid.uuid4().hex[:8]}")
    options = parser.parse_args()
    if not options.token:
        sys.exit("an access token is needed: --token or BOWERBIRD_TOKEN")

    connection = await nats.connect(options.server, user=options.user, password=options.password)
    for name, endpoints in (await discover(connection)).items():
        print(f"service {name}: {', '.join(endpoints)}")

    failed, problem = await ask(connection, "download.create", {"url": "ftp://example.org/"}, options.token)
    print(f"a wrong URL: {problem['status']} {problem['code']}: {problem['detail']}")
    assert failed and problem["code"] == "invalid_value", problem

    failed, download = await ask(connection, "download.create", {"url": options.url}, options.token)
    if failed:
        sys.exit(f"refused: {download['code']}: {download['detail']}")
    print(f"download {download['id']} is {download['status']}")

    stream = connection.jetstream()
    consumer = ConsumerConfig(
        durable_name=options.durable,
        ack_policy=AckPolicy.EXPLICIT,
        deliver_policy=DeliverPolicy.ALL,
        filter_subject="bowerbird.v1.evt.download.completed.>",
    )
    subscription = await stream.pull_subscribe(
        "bowerbird.v1.evt.download.completed.>", durable=options.durable, stream="EVENTS", config=consumer
    )
    end = asyncio.get_running_loop().time() + 60
    while asyncio.get_running_loop().time() < end:
        try:
            messages = await subscription.fetch(10, timeout=2)
        except nats.errors.TimeoutError:
            continue
        for message in messages:
            headers = message.headers or {}
            for attribute in ("ce-id", "ce-source", "ce-specversion", "ce-type", "ce-time"):
                assert headers.get(attribute), f"not a CloudEvent in binary mode: {attribute} is missing in {headers}"
            assert headers["ce-specversion"] == "1.0" and headers["Nats-Msg-Id"] == headers["ce-id"], headers
            event = json.loads(message.data)
            await message.ack()
            if event["download"]["id"] == download["id"]:
                print(f"{headers['ce-type']}: {event['download']['size_bytes']} bytes, file {event['download']['file_id']}")
                await stream.delete_consumer("EVENTS", options.durable)
                await connection.close()
                return
    sys.exit("the download was not completed within a minute")


if __name__ == "__main__":
    asyncio.run(main())
