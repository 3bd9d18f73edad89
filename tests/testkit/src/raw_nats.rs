//! A NATS client that publishes what it is told and nothing else: what no program of ours would, and the same thing as
//! often as a test wants.

use std::{fmt::Write as _, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufWriter},
    net::TcpStream,
};

use crate::nats_server::NatsServer;

/// Waits for the server's word after as many bytes as this, as it would otherwise count as a slow one.
const FLUSH_AFTER_BYTES: usize = 1 << 20;
/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A connection that only publishes.
#[derive(Debug)]
pub struct RawNats {
    stream: BufWriter<TcpStream>,
    since_flush_bytes: usize,
    asked: u32,
}

impl RawNats {
    /// Connect to a server without authentication.
    ///
    /// # Panics
    /// When it cannot be reached.
    pub async fn connect(server: &NatsServer) -> Self {
        #[expect(clippy::disallowed_methods, reason = "a test dials its own server")]
        let stream = TcpStream::connect(("127.0.0.1", server.port())).await.expect("the server is there");
        let mut raw = RawNats { stream: BufWriter::new(stream), since_flush_bytes: 0, asked: 0 };
        raw.write(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true}\r\n").await;
        raw.flush().await;
        raw
    }

    /// Publish this, with these headers; without `Nats-Msg-Id` JetStream stores it however often it was sent before.
    ///
    /// # Panics
    /// When the server is gone.
    pub async fn publish(&mut self, subject: &str, headers: &[(&str, &str)], body: &[u8]) {
        let mut head = "NATS/1.0\r\n".to_owned();
        for (name, value) in headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        let line = format!("HPUB {subject} {} {}\r\n", head.len(), head.len() + body.len());
        for part in [line.as_bytes(), head.as_bytes(), body, b"\r\n"] {
            self.write(part).await;
        }
        self.since_flush_bytes += line.len() + head.len() + body.len();
        if self.since_flush_bytes >= FLUSH_AFTER_BYTES {
            self.flush().await;
        }
    }

    /// Ask, and wait for the answer's body.
    ///
    /// # Panics
    /// When the server is gone, or nobody answers.
    pub async fn ask(&mut self, subject: &str, body: &[u8]) -> Vec<u8> {
        self.flush().await;
        self.asked += 1;
        let (sid, inbox) = (self.asked, format!("_INBOX.raw.{}", self.asked));
        let question = format!("SUB {inbox} {sid}\r\nUNSUB {sid} 1\r\nPUB {subject} {inbox} {}\r\n", body.len());
        for part in [question.as_bytes(), body, b"\r\n"] {
            self.write(part).await;
        }
        self.stream.flush().await.expect("the server takes it");
        let mut heard = Vec::new();
        loop {
            let mut bytes = [0_u8; 4096];
            let read = tokio::time::timeout(ANSWER_WITHIN, self.stream.get_mut().read(&mut bytes));
            let read = read.await.expect("somebody answers").expect("the server is there");
            assert!(read > 0, "the server hung up");
            heard.extend(&bytes[..read]);
            // MSG <subject> <sid> <length>, the body on a line of its own; or HMSG, which nobody here needs.
            let text = String::from_utf8_lossy(&heard).into_owned();
            // A PONG or an INFO may come first.
            let begin = if text.starts_with("MSG ") { Some(0) } else { text.find("\nMSG ").map(|at| at + 1) };
            let Some((head, rest)) = begin.and_then(|begin| text[begin..].split_once("\r\n")) else { continue };
            let length: usize = head.rsplit(' ').next().and_then(|length| length.parse().ok()).expect("a length");
            if rest.len() >= length + 2 {
                return rest.as_bytes()[..length].to_vec();
            }
        }
    }

    /// Until the server has taken all of it.
    ///
    /// # Panics
    /// When the server is gone, or refused something.
    pub async fn flush(&mut self) {
        self.since_flush_bytes = 0;
        self.write(b"PING\r\n").await;
        self.stream.flush().await.expect("the server takes it");
        let mut heard = Vec::new();
        while !heard.ends_with(b"PONG\r\n") {
            let mut bytes = [0_u8; 4096];
            let read = self.stream.get_mut().read(&mut bytes).await.expect("the server answers");
            assert!(read > 0, "the server hung up");
            heard.extend(&bytes[..read]);
            let text = String::from_utf8_lossy(&heard);
            assert!(!text.contains("-ERR"), "the server refused it: {text}");
        }
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the server is there");
    }
}
