//! Servers that lie, break and change their minds. Whatever they do: the object is one version that the server really had,
//! bit by bit, or there is none; and the end of the run says which.

mod changes;
mod framing;
mod ranges;
mod trouble;

use bowerbird_outbound::{Completed, RestartReason, Stopped, TransferError};
use bowerbird_testkit::{
    lying::{Act, LyingServer, Request},
    ranged_server::Content,
};
use bytes::Bytes;

use crate::support::{Bench, PART, transfer};

pub(super) const LEN: u64 = 4 * PART + 1234;

pub(super) fn version(seed: u64) -> Content {
    Content::new(seed, LEN)
}

/// An answer about to be given, to be bent before it is.
pub(super) struct Answer {
    pub(super) status: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn set(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn without(mut self, name: &str) -> Answer {
        self.headers.retain(|(known, _)| *known != name);
        self
    }

    pub(super) fn status(mut self, status: &str) -> Answer {
        status.clone_into(&mut self.status);
        self
    }

    pub(super) fn acts(self) -> Vec<Act> {
        vec![self.head(), Act::Send(self.body.into())]
    }

    pub(super) fn with_body(self, body: Vec<u8>) -> Answer {
        let length = body.len().to_string();
        Answer { body, ..self }.set("content-length", length)
    }

    /// The head and so many bytes of the body, then the end of the connection.
    pub(super) fn cut(self, bytes: u64) -> Vec<Act> {
        let bytes = usize::try_from(bytes).expect("a small number").min(self.body.len());
        vec![self.head(), Act::Send(Bytes::copy_from_slice(&self.body[..bytes])), Act::Close]
    }

    pub(super) fn head(&self) -> Act {
        let lines: Vec<String> = self.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
        Act::head(&format!("HTTP/1.1 {}\n{}\n", self.status, lines.concat()))
    }

    /// The same in chunks.
    pub(super) fn chunked(self) -> Answer {
        let mut body = Vec::new();
        for chunk in self.body.chunks(10_000) {
            body.extend_from_slice(format!("{:x};extension=1\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\ntrailer: x\r\n\r\n");
        Answer { body, ..self.without("content-length").set("transfer-encoding", "chunked") }
    }
}

/// All of it, with a strong tag.
pub(super) fn whole(content: &Content) -> Answer {
    let body = content.read(0, content.len());
    let headers = vec![("content-length", body.len().to_string()), ("etag", content.etag())];
    Answer { status: "200 OK".to_owned(), headers, body }
}

/// What an honest server answers: the range, unless it is of another version than asked for.
pub(super) fn honest(content: &Content, request: &Request) -> Answer {
    match request.range() {
        Some(_) if request.header("if-range").is_some_and(|tag| tag != content.etag()) => whole(content),
        Some(_) => partial(content, request),
        None => whole(content),
    }
}

/// The range that was asked for, whatever `If-Range` says.
pub(super) fn partial(content: &Content, request: &Request) -> Answer {
    let (first, last) = request.range().expect("a range was asked for");
    if first >= content.len() {
        let answer = Answer { status: "416 Range Not Satisfiable".to_owned(), headers: Vec::new(), body: Vec::new() };
        return answer.set("content-range", format!("bytes */{}", content.len())).set("content-length", "0");
    }
    let end = last.map_or(content.len(), |last| (last + 1).min(content.len()));
    let body = content.read(first, end);
    let headers = vec![
        ("content-length", body.len().to_string()),
        ("content-range", format!("bytes {first}-{}/{}", end - 1, content.len())),
        ("etag", content.etag()),
    ];
    Answer { status: "206 Partial Content".to_owned(), headers, body }
}

/// A run against a server, and what came of it, with the rule that holds in every case checked.
pub(super) struct Outcome {
    pub(super) bench: Bench,
    pub(super) server: LyingServer,
    pub(super) result: Result<Completed, Stopped>,
}

impl Outcome {
    pub(super) async fn of(versions: &[Content], script: impl Fn(&Request) -> Vec<Act> + Send + Sync + 'static) -> Outcome {
        let server = LyingServer::start(script).await;
        let bench = Bench::new();
        let result = bench.run_again_and_again(transfer(&server.url("/file")), 3).await;
        let outcome = Outcome { bench, server, result };
        outcome.check(versions);
        outcome
    }

    pub(super) fn check(&self, versions: &[Content]) {
        let object = self.bench.sink.object();
        match &self.result {
            Ok(completed) => {
                let object = object.expect("the object of a completed transfer");
                assert_eq!(completed.size_bytes, object.len() as u64);
                let known = versions.iter().any(|version| version.read(0, version.len()) == object);
                assert!(known, "{} bytes that the server never had", object.len());
            }
            Err(error) => assert_eq!(object, None, "{error:?}"),
        }
    }

    pub(super) fn completed(&self) -> &Completed {
        self.result.as_ref().unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// The content is this version.
    pub(super) fn is(&self, content: &Content) {
        assert_eq!(self.completed().sha256, Some(content.sha256()));
    }

    pub(super) fn failed(&self) -> &TransferError {
        match &self.result {
            Err(Stopped::Failed(error)) => error,
            other => panic!("expected a failure, got {other:?}"),
        }
    }

    pub(super) fn restarts(&self) -> Vec<RestartReason> {
        self.bench.ledger.restarts()
    }
}

/// The first answer breaks after one and a half parts; what follows is up to `then`.
pub(super) async fn broken_then(versions: &[Content], then: impl Fn(&Request) -> Vec<Act> + Send + Sync + 'static) -> Outcome {
    let first = versions[0].clone();
    Outcome::of(
        versions,
        move |request| {
            if request.index == 0 { honest(&first, request).cut(PART + PART / 2) } else { then(request) }
        },
    )
    .await
}
