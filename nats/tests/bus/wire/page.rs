//! `docs/bus.md`, written from the data in the code.

use std::{fmt::Write, time::Duration};

use async_nats::jetstream::stream::{DiscardPolicy, RetentionPolicy};
use bowerbird_nats::{Access, AccountId, Subjects, WorkKind, alarm::Bucket, catalogue, envelope, event, id::NodeId, topology};
use uuid::Uuid;

/// A type's name as people say it.
fn short(name: &str) -> String {
    name.split('<').map(|part| part.rsplit("::").next().unwrap_or(part)).collect::<Vec<_>>().join("<")
}

/// A subject with the names of its identifiers instead of examples.
fn named(subject: &str) -> String {
    let (account, entity, node) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    subject
        .replace(&account.to_string(), "<account>")
        .replace(&entity.to_string(), "<id>")
        .replace(&node.to_string(), "<node>")
        .replace(&SECOND.0.to_string(), "<second>")
        .replace(".42", ".<dispatch_no>")
}

fn days(age: Duration) -> String {
    match age.as_secs() / 86_400 {
        0 => "–".to_owned(),
        days => format!("{days} d"),
    }
}

pub(crate) fn write() -> String {
    let subjects = Subjects::new("bowerbird").unwrap();
    let (account, entity, node) = (AccountId(Uuid::from_u128(1)), Uuid::from_u128(2), NodeId(Uuid::from_u128(3)));
    let mut page = String::from(BEGIN);

    page.push_str("\n## Operations\n\n| ask | who may | request → reply | what |\n|---|---|---|---|\n");
    for entry in catalogue::operations() {
        let who = match entry.access {
            Access::Public => "anybody",
            Access::Account => "an account",
            Access::Admin => "an administrator",
        };
        let subject = subjects.request(entry.area, entry.name);
        let name = format!("{}.{}", entry.area, entry.name);
        writeln!(
            page,
            "| `{subject}` | {who} | [`{}`](../nats/tests/snapshots/req.{name}.json) → [`{}`](../nats/tests/snapshots/rep.{name}.json) | {} |",
            short(entry.request),
            short(entry.reply),
            entry.summary
        )
        .unwrap();
    }
    page.push_str(ERRORS);

    page.push_str("\n## Events\n\n| type | subject | what, and its body |\n|---|---|---|\n");
    for (event_type, says) in event::CATALOGUE {
        let whose = (event_type != &event::KEY_ROTATED).then_some(account);
        let subject = named(subjects.event(event_type, whose, entity).as_str());
        writeln!(page, "| [`{event_type}`](../nats/tests/snapshots/evt.{event_type}.json) | `{subject}` |{says} |").unwrap();
    }
    page.push_str(EVENTS);

    page.push_str("\n## What else is said\n\n| subject | stored | what |\n|---|---|---|\n");
    for (subject, stored, what) in [
        (
            subjects.live("download", "progress", account, entity),
            "no",
            "How far a running download is ([`Progress`](../nats/tests/snapshots/live.download.progress.json)).",
        ),
        (
            subjects.work(WorkKind::Downloads, entity, 42),
            "`DOWNLOADS`",
            "Hands a download out to a worker ([`Work`](../nats/tests/snapshots/work.download.json)). For Bowerbird's own workers.",
        ),
        (
            subjects.node(node, "download", "stop"),
            "no",
            "Tells the process that runs a download to stop it ([`Stop`](../nats/tests/snapshots/node.download.stop.json)).",
        ),
        (subjects.object(), "`OBJECTS`", "What the object store tells of changed objects, in its own words (S3 event JSON)."),
        (
            subjects.alarm_bucket(SECOND),
            "`ALARMS`",
            "A schedule: fires the next one when its second (counted from 1970) comes. Empty.",
        ),
        (subjects.alarms_due(SECOND), "`ALARMS`", "Something is due up to this second. For Bowerbird's own alarms. Empty."),
        (
            subjects.alarm_again("reminder", entity),
            "`ALARMS`",
            "An alarm that was given up is to be tried again: where its dead letter is sent to when it is sent again.",
        ),
        (subjects.dead("DOWNLOADS", "downloads"), "`DEAD`", "A message that a consumer refused; the reason is in its headers."),
    ] {
        writeln!(page, "| `{}` | {stored} | {what} |", named(subject.as_str())).unwrap();
    }

    page.push_str("\n## Headers\n\n| header | what |\n|---|---|\n");
    for (name, says) in envelope::CATALOGUE {
        writeln!(page, "| `{name}` | {says} |").unwrap();
    }

    page.push_str("\n## Streams and buckets\n\n| stream | subjects | retention | kept | repeats known for | what |\n|---|---|---|---|---|---|\n");
    for stream in topology::streams(&subjects, 1) {
        let retention = match stream.retention {
            RetentionPolicy::WorkQueue => "work queue",
            RetentionPolicy::Interest => "interest",
            RetentionPolicy::Limits => "limits",
        };
        let unique = if stream.discard == DiscardPolicy::New && stream.max_messages_per_subject == 1 {
            ", one message per subject"
        } else {
            ""
        };
        writeln!(
            page,
            "| `{}` | `{}` | {retention}{unique} | {} | {} min | {} |",
            stream.name,
            stream.subjects.join("`, `"),
            days(stream.max_age),
            stream.duplicate_window.as_secs() / 60,
            stream.description.unwrap_or_default()
        )
        .unwrap();
    }
    page.push_str(STREAMS);
    page
}

/// Some second.
const SECOND: Bucket = Bucket(1_785_571_200);

const BEGIN: &str = r"# The bus

Everything that Bowerbird does is asked and told over [NATS](https://nats.io); the REST API is one asker among others. This
page is generated from the code by `scripts/check-generated --write`, and a test fails when it is stale.

A subject is `<prefix>.v1.<kind>.<area>.<name>[.<id>…]`. The prefix is `nats.prefix` of the settings, here the default
`bowerbird`. The kinds:

| kind | what |
|---|---|
| `req` | operations: request and reply, registered as NATS services, so `nats micro ls` and `nats micro info bowerbird` find them |
| `evt` | events: facts, stored in `EVENTS` |
| `live` | progress: not stored, for user interfaces |
| `work` | work that is handed out, one message for each time a row is handed out |
| `node` | orders to one process |
| `object` | notifications of the object store |
| `alarm` | the clock of what waits: schedules, and what they fire |
| `dead` | what was refused |
| `replay` | what was refused and goes back to the consumer that refused it |

Bodies are JSON. Unknown fields, fields given twice and values of another type are refused.

A process that hangs without being gone still gets its share of the requests. What only reads (`get`, `list`, `usage`, `presign`,
`verify` and their kind) may therefore be asked again while its answer is waited for; the gateway does so after a quarter and a
half of `gateway.request_timeout`. What changes something is asked once, with an idempotency key where it matters.
";

const ERRORS: &str = r#"
An error is a reply with the headers `Nats-Service-Error` and `Nats-Service-Error-Code`; its body is the same
[problem document](../nats/tests/snapshots/problem.json) that the REST API answers with ([docs/api.md](api.md) lists the codes).
When nobody answers an operation the server says so at once ("no responders").

The access token goes in the header `Authorization`, as in HTTP; whoever answers verifies it. `Bowerbird-Timeout-Ms` says how
long the asker will wait: what is late is not begun, and what is not finished by then is dropped. A request that there is no
room for is answered `unavailable` at once. After no answer nobody knows whether it was carried out: ask again with the same
`Bowerbird-Idempotency-Key`, and it has the effect of one.
"#;

const EVENTS: &str = r"
Events are [CloudEvents 1.0](https://github.com/cloudevents/spec) in binary mode: the attributes are headers, the body is the
data. `<account>` is `system` where no account is concerned. Read them with a durable pull consumer of your own. Every event
may come more than once; `ce-id` says which you have seen. `ce-entitysequence` counts the events of one thing, and they
are stored in that order.
";

const STREAMS: &str = r#"
| bucket | key | what |
|---|---|---|
| `KEYS` | `current` | [The public signing keys](../nats/tests/snapshots/kv.KEYS.current.json), to verify access tokens with. |

Streams, consumers and buckets are made at start, put back when they are found missing, and upgraded in place. Nothing is
deleted to be made anew. All of them can be lost: PostgreSQL is the truth, and fills them again.

What a consumer of ours refuses, or has been given a hundred times in vain, is copied to `DEAD` and then taken off. Look there
with `nats stream view DEAD`.

## The server

nats-server 2.15 or newer with JetStream. [nats/server/single.conf](../nats/server/single.conf) is a configuration for one
server, [nats/server/accounts.conf](../nats/server/accounts.conf) says who may say and hear what: Bowerbird itself, an object
store that only notifies, and a service of yours as an example, each in an account of its own. That is what keeps an answer
from going where the asker may not publish: NATS does not check reply subjects, but between accounts it replaces them. So add
no user to Bowerbird's account who is not trusted with all of it. Requests whose reply subject is no inbox (`_INBOX.…`,
`_INBOX_…`, or `_R_.…` from the server) are not carried out. A service discovers what runs by `$SRV.>` from its account,
and reads `EVENTS` with the JetStream API prefix `JS.bowerbird`, through a durable that an operator made as `core`; a pull
that is quiet for longer than ten minutes is forgotten.

`sync_interval: always` matters: without it the server
acknowledges what is not on its disk yet. On a cluster of three set `nats.replicas = 3`; the servers then need `server_name`,
`cluster` and the same accounts.

## From another language

With `bowerbird up` as it is, in the folder that its `data` is in. `pip install nats-py` before; the token is what
`POST /v1/auth/login` gave (`export BOWERBIRD_TOKEN=…`), good for five minutes.

```python
import asyncio, json, os, tomllib, nats
from nats.js.api import AckPolicy, ConsumerConfig

access_token = os.environ["BOWERBIRD_TOKEN"]
with open("data/credentials.toml", "rb") as file:
    kept = tomllib.load(file)

async def main():
    server = f"nats://127.0.0.1:{kept['nats_port']}"
    connection = await nats.connect(server, user=kept["nats_user"], password=kept["nats_password"])

    reply = await connection.request(
        "bowerbird.v1.req.download.create",
        json.dumps({"url": "https://example.org/film.mkv"}).encode(),
        headers={"Authorization": "Bearer " + access_token, "Bowerbird-Timeout-Ms": "5000"},
        timeout=6,
    )
    body = json.loads(reply.data)
    if reply.headers and "Nats-Service-Error-Code" in reply.headers:
        raise SystemExit(f"{body['code']}: {body['detail']}")

    # A durable consumer of our own; making it again changes nothing.
    stream = connection.jetstream()
    ours = ConsumerConfig(
        durable_name="service", ack_policy=AckPolicy.EXPLICIT, filter_subject="bowerbird.v1.evt.download.completed.>"
    )
    await stream.add_consumer("EVENTS", ours)
    events = await stream.pull_subscribe_bind("service", "EVENTS")
    while True:
        try:
            messages = await events.fetch(10, timeout=60)
        except nats.errors.TimeoutError:
            continue
        for message in messages:
            download = json.loads(message.data)["download"]
            print(message.headers["ce-type"], download["id"], download["file_id"])
            await message.ack()

asyncio.run(main())
```

Against a server with [nats/server/accounts.conf](../nats/server/accounts.conf) three things differ: the user is `service`, who hears
only its own inboxes (`nats.connect(…, user="service", password=…, inbox_prefix=b"_INBOX_service")`); the JetStream API has a
prefix (`connection.jetstream(prefix="JS.bowerbird")`); and `service` may not make consumers: an operator made the durable
`service` once, as `core`, so `add_consumer` is left out.

Where Python says `module 'nats' has no attribute 'connect'`, nats-py is not installed and Python took the folder `nats/` of a
clone's root for it: install nats-py into a virtual environment, or run from elsewhere.

A whole program is [examples/python/follow_downloads.py](../examples/python/follow_downloads.py).
"#;
