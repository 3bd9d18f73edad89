//! Frames of `text/event-stream` (WHATWG HTML, server-sent events). Every text in them is either made here or JSON on one
//! line, so nothing that somebody typed can begin a field.

use bowerbird_nats::{event::Event, feed::Position, publish::Live};
use bytes::Bytes;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use super::pump::End;

/// How long a client that was cut off waits, in milliseconds.
const RETRY_MS: u64 = 2_000;
/// How long one waits that was too slow, or whose server is about to stop.
const RETRY_LATER_MS: u64 = 10_000;

/// The first frame: how long to wait before coming back, and from where to go on should nothing have come until then.
pub(super) fn greeting(position: Position) -> Bytes {
    format!("retry: {RETRY_MS}\nid: {position}\n\n").into()
}

/// Says that the stream is still there.
pub(super) fn heartbeat() -> Bytes {
    Bytes::from_static(b": still here\n\n")
}

/// A fact, at its place.
pub(super) fn event(position: Position, event: &Event) -> Bytes {
    let data = json!({
        "id": event.id,
        "type": event.event_type,
        "time": event.time.format(&Rfc3339).unwrap_or_default(),
        "entity_id": event.entity_id,
        "entity_sequence": event.entity_sequence,
        "data": event.data,
    });
    format!("id: {position}\nevent: {}\ndata: {data}\n\n", event.event_type).into()
}

/// Progress. Without an id: it is not there again for who comes back. `None` for what is not JSON.
pub(super) fn live(live: &Live) -> Option<Bytes> {
    let data: Value = serde_json::from_slice(&live.body).ok()?;
    let name = format!("{}.{}", live.area, live.name);
    let data = json!({ "type": name, "entity_id": live.entity_id, "data": data });
    Some(format!("event: {name}\ndata: {data}\n\n").into())
}

/// Events are missing between what the client has and what comes now.
pub(super) fn reset(position: Position) -> Bytes {
    let data = json!({
        "detail": "what happened since then is not in the stream any more; read the lists anew. What comes from here on may repeat, and is recognised by its id",
    });
    format!("id: {position}\nevent: reset\ndata: {data}\n\n").into()
}

/// Why it ends.
pub(super) fn end(end: End) -> Bytes {
    let (reason, detail, retry) = match end {
        End::Gone => return Bytes::new(),
        End::Stopping => ("stopping", "the server is about to stop; come back in a moment", RETRY_LATER_MS),
        End::Expired => ("token_expired", "the access token is good no more; come back with a new one", RETRY_MS),
        End::SessionClosed => ("session_closed", "the session was closed; log in again", RETRY_LATER_MS),
        End::Slow => {
            ("too_slow", "events were not taken as fast as they came; come back, and what was missed follows", RETRY_LATER_MS)
        }
        End::Unavailable => ("unavailable", "events cannot be read right now; come back, and what was missed follows", RETRY_MS),
    };
    format!("event: end\nretry: {retry}\ndata: {}\n\n", json!({ "reason": reason, "detail": detail })).into()
}
