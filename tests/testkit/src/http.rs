//! A small HTTP/1.1 client for tests: JSON in, JSON out, one connection a request, nothing followed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::event_stream::EventStream;

/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// Asks one server.
#[derive(Clone, Debug)]
pub struct Http {
    authority: String,
    token: Option<String>,
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status line.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header as text, empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The JSON body, if the status is this one; else an error that shows both.
    pub fn expect(&self, status: u16) -> Result<Value> {
        ensure!(self.status == status, "expected {status}, got {}: {}", self.status, String::from_utf8_lossy(&self.body));
        Ok(self.json())
    }
}

impl Http {
    /// A client of `http://<authority>`, such as `127.0.0.1:8080`.
    pub fn new(authority: impl Into<String>) -> Self {
        Http { authority: authority.into(), token: None }
    }

    /// The same client with an access token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Http { authority: self.authority.clone(), token: Some(token.to_owned()) }
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Method::GET, path, &[], None).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<Answer> {
        self.send(Method::DELETE, path, &[], None).await
    }

    /// `POST` of a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::POST, path, &[("content-type", "application/json")], Some(Bytes::from(body.to_string()))).await
    }

    /// `PATCH` of a JSON body.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Method::PATCH, path, &[("content-type", "application/json")], Some(Bytes::from(body.to_string()))).await
    }

    /// Any request. `path` may also be a whole URL, for links that were handed out.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Bytes>) -> Result<Answer> {
        tokio::time::timeout(PATIENCE, self.exchange(method, path, headers, body))
            .await
            .with_context(|| format!("no answer to {path} within {PATIENCE:?}"))?
    }

    /// Follow a stream of server-sent events.
    pub async fn follow(&self, path: &str, headers: &[(&str, &str)]) -> Result<EventStream> {
        let mut all = vec![("accept", "text/event-stream")];
        all.extend(headers);
        EventStream::open(&self.authority, path, self.token.as_deref(), &all).await
    }

    async fn exchange(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Option<Bytes>) -> Result<Answer> {
        let (authority, path) = match path.strip_prefix("http://") {
            Some(rest) => {
                let (authority, path) = rest.split_once('/').context("a link without a path")?;
                (authority.to_owned(), format!("/{path}"))
            }
            None => (self.authority.clone(), path.to_owned()),
        };
        #[expect(clippy::disallowed_methods, reason = "a test talks to the servers that it started")]
        let stream = TcpStream::connect(&authority).await.with_context(|| format!("connect to {authority}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut running = tokio::task::JoinSet::new();
        running.spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", &authority);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::new(body.unwrap_or_default()))?).await?;
        let (head, body) = response.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }
}
