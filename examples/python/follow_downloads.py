#!/usr/bin/env python3
"""Bowerbird from another service, over NATS alone: ask for a download, read a typed error, follow the events.

    pip install nats-py
    follow_downloads.py --credentials data/credentials.toml --token ACCESS_TOKEN --url URL
    follow_downloads.py --server nats://127.0.0.1:4222 --user USER --password PASSWORD --token ACCESS_TOKEN --url URL

`bowerbird up` keeps port, user and password of its NATS server in `credentials.toml` of its data folder (`nats_port`, `nats_user`,
`nats_password`); with a NATS server of your own they are whatever you gave it. The access token is that of
`POST /v1/auth/login` or `bowerbird.v1.req.session.login`, good for five minutes. The password may also come from the environment
variable NATS_PASSWORD, the token from BOWERBIRD_TOKEN.
"""

import argparse
import asyncio
import json
import os
import sys
import tomllib
import uuid

try:
    import nats
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
except ImportError:
    sys.exit("nats-py is not installed: pip install nats-py")


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
    parser.add_argument("--credentials", help="credentials.toml of the data folder of `bowerbird up`")
    parser.add_argument("--server")
    parser.add_argument("--user")
    parser.add_argument("--password", default=os.environ.get("NATS_PASSWORD"))
    parser.add_argument("--token", default=os.environ.get("BOWERBIRD_TOKEN"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--durable", default=f"example-{uuid.uuid4().hex[:8]}")
    options = parser.parse_args()
    if not options.token:
        sys.exit("an access token is needed: --token or BOWERBIRD_TOKEN")
    if options.credentials:
        read_credentials(options)

    server = options.server or "nats://127.0.0.1:4222"
    connection = await connect(server, options.user, options.password)
    try:
        await follow(connection, options)
    except nats.errors.NoRespondersError:
        sys.exit("nobody answers: is Bowerbird running on this NATS server, and may this user ask it?")
    except nats.errors.TimeoutError:
        sys.exit("no answer within 6 s: the operation may or may not have been carried out")
    finally:
        await connection.close()


def read_credentials(options):
    """Fill in what was not given from what `bowerbird up` keeps."""
    try:
        with open(options.credentials, "rb") as file:
            kept = tomllib.load(file)
    except OSError as error:
        sys.exit(f"{options.credentials} cannot be read: {error.strerror}")
    options.server = options.server or f"nats://127.0.0.1:{kept['nats_port']}"
    options.user = options.user or kept["nats_user"]
    options.password = options.password or kept["nats_password"]


async def connect(server, user, password):
    """A connection, or the end of the program with a sentence that says why there is none."""
    complaints = []

    async def complain(error):
        complaints.append(str(error))

    try:
        return await nats.connect(
            server, user=user, password=password, error_cb=complain, allow_reconnect=False, max_reconnect_attempts=1, connect_timeout=5
        )
    except (nats.errors.Error, OSError) as error:
        said = " ".join([*complaints, str(error)]).lower()
        if "authorization" in said or "authentication" in said:
            sys.exit(
                f"{server} refuses this user or password; `bowerbird up` keeps them in credentials.toml of its data folder "
                "(nats_user, nats_password): give it with --credentials"
            )
        sys.exit(f"{server} cannot be reached: {complaints[-1] if complaints else error}")


async def follow(connection, options):
    """Ask for a download twice, once wrongly, and read the events until it is completed."""
    for name, endpoints in (await discover(connection)).items():
        print(f"service {name}: {', '.join(endpoints)}")

    failed, problem = await ask(connection, "download.create", {"url": "ftp://example.org/"}, options.token)
    if problem.get("code") in ("unauthorized", "token_expired"):
        sys.exit(f"the access token is refused: {problem['code']}: {problem['detail']}")
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
                return
    sys.exit("the download was not completed within a minute")


if __name__ == "__main__":
    asyncio.run(main())
