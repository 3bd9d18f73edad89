//! A client of server-sent events: one frame after the other, and as slow as a test wants it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// How long a frame is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open stream. Nothing is read ahead but what one buffer holds.
#[derive(Debug)]
pub struct EventStream {
    reader: BufReader<TcpStream>,
    /// Bytes of the current chunk that are not read yet.
    chunk: usize,
    text: Vec<u8>,
    /// Status of the answer.
    pub status: u16,
    /// Head of the answer, in small letters.
    pub head: String,
}

/// One frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// `id`, if it has one.
    pub id: Option<String>,
    /// `event`, empty if it has none.
    pub event: String,
    /// `data` as JSON; `null` when there is none.
    pub data: Value,
    /// `retry` in milliseconds.
    pub retry: Option<u64>,
    /// Comments.
    pub comments: Vec<String>,
}

impl EventStream {
    pub(crate) async fn open(authority: &str, path: &str, token: Option<&str>, headers: &[(&str, &str)]) -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "a test talks to the servers that it started")]
        let mut stream = TcpStream::connect(authority).await?;
        let mut fields: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        fields.extend(token.map(|token| format!("authorization: Bearer {token}\r\n")));
        let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\n{}", fields.concat());
        stream.write_all((request + "\r\n").as_bytes()).await?;
        let mut reader = BufReader::with_capacity(4096, stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(timeout(PATIENCE, reader.read_line(&mut head)).await?? != 0, "no answer: {head}");
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status line")?;
        Ok(EventStream { reader, chunk: 0, text: Vec::new(), status, head: head.to_ascii_lowercase() })
    }

    /// The next frame of any kind; `None` when the stream has ended in order.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        timeout(PATIENCE, self.read()).await.with_context(|| format!("no frame within {PATIENCE:?}"))?
    }

    /// The next frame that has an event.
    pub async fn event(&mut self) -> Result<Frame> {
        loop {
            match self.next().await? {
                Some(frame) if !frame.event.is_empty() => return Ok(frame),
                Some(_) => {}
                None => bail!("the stream has ended"),
            }
        }
    }

    /// The next frame with this event; others are passed over.
    pub async fn event_named(&mut self, name: &str) -> Result<Frame> {
        loop {
            let frame = self.event().await?;
            if frame.event == name {
                return Ok(frame);
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(end) = self.text.windows(2).position(|two| two == b"\n\n") {
                let frame: Vec<u8> = self.text.drain(..end + 2).collect();
                return Ok(Some(parse(std::str::from_utf8(&frame)?)?));
            }
            if self.chunk == 0 {
                let mut size = String::new();
                ensure!(self.reader.read_line(&mut size).await? != 0, "the connection broke");
                self.chunk = usize::from_str_radix(size.trim(), 16).with_context(|| format!("a chunk size, not {size:?}"))?;
                if self.chunk == 0 {
                    return Ok(None);
                }
            }
            let mut buffer = vec![0; self.chunk.min(4096)];
            let read = self.reader.read(&mut buffer).await?;
            ensure!(read != 0, "the connection broke");
            self.text.extend_from_slice(&buffer[..read]);
            self.chunk -= read;
            if self.chunk == 0 {
                let mut end = [0; 2];
                self.reader.read_exact(&mut end).await?;
            }
        }
    }
}

fn parse(text: &str) -> Result<Frame> {
    let mut frame = Frame::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.split_once(": ").with_context(|| format!("a field, not {line:?}"))? {
            ("", comment) => frame.comments.push(comment.to_owned()),
            ("id", id) => frame.id = Some(id.to_owned()),
            ("event", event) => event.clone_into(&mut frame.event),
            ("data", data) => frame.data = serde_json::from_str(data)?,
            ("retry", retry) => frame.retry = Some(retry.parse()?),
            _ => bail!("an unknown field: {line:?}"),
        }
    }
    Ok(frame)
}
