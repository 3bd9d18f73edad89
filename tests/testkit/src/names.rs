//! A name server that answers whatever a test tells it to, so that names can lead where nobody may go.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

/// What a name stands for: another name first, then addresses.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    /// Another name that it stands for.
    pub alias: Option<&'static str>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A zone for a name at the so-manieth question for its IPv4 addresses.
type Answers = dyn Fn(&str, usize) -> Zone + Send + Sync;

/// A name server on the loopback interface, over UDP and TCP. Ends when dropped.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    questions: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl NameServer {
    /// Answer as `answers` says for a name and how often it was asked for before.
    pub async fn start(answers: impl Fn(&str, usize) -> Zone + Send + Sync + 'static) -> NameServer {
        let (tcp, udp) = loop {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
            let address = tcp.local_addr().expect("a bound listener has an address");
            if let Ok(udp) = UdpSocket::bind(address).await {
                break (tcp, udp);
            }
        };
        let address = tcp.local_addr().expect("a bound listener has an address");
        let answers: Arc<Answers> = Arc::new(answers);
        let questions = Arc::new(AtomicUsize::new(0));
        let asked: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let mut serving = JoinSet::new();
        let (counted, known, table) = (Arc::clone(&questions), Arc::clone(&asked), Arc::clone(&answers));
        serving.spawn(async move {
            let mut query = [0; 1500];
            while let Ok((len, from)) = udp.recv_from(&mut query).await {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answer(&query[..len], &table, &known, 1200);
                drop(udp.send_to(&answer, from).await);
            }
        });
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = tcp.accept().await {
                let (known, table) = (Arc::clone(&asked), Arc::clone(&answers));
                connections.spawn(async move {
                    while let Ok(len) = stream.read_u16().await {
                        let mut query = vec![0; usize::from(len)];
                        if stream.read_exact(&mut query).await.is_err() {
                            return;
                        }
                        let answer = answer(&query, &table, &known, usize::from(u16::MAX));
                        let len = u16::try_from(answer.len()).expect("it fits");
                        drop(stream.write_u16(len).await);
                        drop(stream.write_all(&answer).await);
                    }
                });
            }
        });
        NameServer { address, questions, _serving: serving }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Questions that came over UDP so far.
    pub fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

/// An answer to a query with one question (RFC 1035 §4). Cut short with the flag that says so if it does not fit.
fn answer(query: &[u8], answers: &Arc<Answers>, asked: &Mutex<HashMap<String, usize>>, most: usize) -> Vec<u8> {
    let mut labels = Vec::new();
    let mut at = 12;
    while query[at] != 0 {
        let len = usize::from(query[at]);
        labels.push(String::from_utf8_lossy(&query[at + 1..at + 1 + len]).to_ascii_lowercase());
        at += len + 1;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let question = &query[12..at + 5];
    let name = labels.join(".");
    let zone = {
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let times = asked.entry(name.clone()).or_default();
        *times += usize::from(kind == 1);
        answers(&name, times.saturating_sub(1))
    };
    let mut records = Vec::new();
    let mut record = |owner: &[u8], kind: u16, data: &[u8]| {
        let mut bytes = owner.to_vec();
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
        bytes.extend_from_slice(&u16::try_from(data.len()).expect("short").to_be_bytes());
        bytes.extend_from_slice(data);
        records.push(bytes);
    };
    let mut owner = vec![0xc0, 12];
    if let Some(alias) = zone.alias {
        let mut encoded = Vec::new();
        for label in alias.split('.') {
            encoded.push(u8::try_from(label.len()).expect("short"));
            encoded.extend_from_slice(label.as_bytes());
        }
        encoded.push(0);
        record(&owner, 5, &encoded);
        owner = encoded;
    }
    for address in &zone.addresses {
        match (address, kind) {
            (IpAddr::V4(address), 1) => record(&owner, 1, &address.octets()),
            (IpAddr::V6(address), 28) => record(&owner, 28, &address.octets()),
            _ => {}
        }
    }
    let exists = zone.alias.is_some() || !zone.addresses.is_empty();
    let fitting = records.iter().scan(12 + question.len(), |size, record| {
        *size += record.len();
        Some(*size)
    });
    let fits = fitting.take_while(|size| *size <= most).count();
    let cut = if fits < records.len() { 0x02 } else { 0 };
    let mut bytes = query[..2].to_vec();
    bytes.extend_from_slice(&[0x84 | cut, if exists { 0x80 } else { 0x83 }, 0, 1]);
    bytes.extend_from_slice(&u16::try_from(fits).expect("few").to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(question);
    records.iter().take(fits).for_each(|record| bytes.extend_from_slice(record));
    bytes
}
