//! A mail server of a test's own: aiosmtpd, as `scripts/setup --test` installs it.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{ChildStdout, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use tempfile::TempDir;

use crate::{
    eventually,
    process::{ChildProcess, workspace_folder},
};

const SERVER: &str = include_str!("smtp/server.py");
/// Where `scripts/setup` puts it.
const PYTHON: &str = ".tools/smtp/bin/python";
/// A certificate for localhost and 127.0.0.1 that nobody vouches for.
const CERTIFICATE: &[u8] = include_bytes!("../../../crates/outbound/tests/engine/tls/certificate.der");
const PRIVATE_KEY: &[u8] = include_bytes!("../../../crates/outbound/tests/engine/tls/private_key.der");
/// How long a start may take.
const START: Duration = Duration::from_secs(30);

/// How the server wants to be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// In the clear.
    None,
    /// STARTTLS before anything else.
    StartTls,
    /// TLS from the first byte.
    Wrapped,
}

impl Encryption {
    fn as_str(self) -> &'static str {
        match self {
            Encryption::None => "none",
            Encryption::StartTls => "starttls",
            Encryption::Wrapped => "wrapped",
        }
    }
}

/// An e-mail that the server took.
#[derive(Clone, Debug)]
pub struct Email {
    /// Sender of the envelope.
    pub from: String,
    /// Recipients of the envelope.
    pub to: Vec<String>,
    /// The whole, with its headers, as it came.
    pub content: String,
    /// Whether it came over TLS.
    pub encrypted: bool,
    /// Who had logged in.
    pub login: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Port { port: u16 },
    Taken { from: String, to: Vec<String>, content: String, encrypted: bool, login: Option<String> },
}

/// A running mail server. It ends when this is dropped or when the test is killed. What it does with an e-mail is asked for
/// in the address: `refuse…@`, `later<n>…@`, `silent…@`.
#[derive(Debug)]
pub struct SmtpServer {
    folder: TempDir,
    encryption: Encryption,
    login: Option<(String, String)>,
    port: u16,
    taken: Arc<Mutex<Vec<Email>>>,
    process: Option<ChildProcess>,
}

impl SmtpServer {
    /// Start one that takes everything in the clear.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    pub async fn start() -> Self {
        Self::start_with(Encryption::None, None).await
    }

    /// Start one that wants TLS, and this user and password.
    pub async fn start_with(encryption: Encryption, login: Option<(&str, &str)>) -> Self {
        let folder = tempfile::Builder::new().prefix("bowerbird-smtp-").tempdir().expect("no temporary folder");
        fs::write(folder.path().join("server.py"), SERVER).expect("a file");
        fs::write(folder.path().join("certificate.pem"), pem("CERTIFICATE", CERTIFICATE)).expect("a file");
        fs::write(folder.path().join("key.pem"), pem("PRIVATE KEY", PRIVATE_KEY)).expect("a file");
        let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
        let mut server = SmtpServer { folder, encryption, login, port: 0, taken: Arc::default(), process: None };
        server.launch().await;
        server
    }

    /// For `smtp.url`.
    pub fn url(&self) -> String {
        let login = self.login.as_ref().map_or_else(String::new, |(user, password)| format!("{user}:{password}@"));
        match self.encryption {
            Encryption::None => format!("smtp://{login}127.0.0.1:{}?tls=none", self.port),
            Encryption::StartTls => format!("smtp://{login}localhost:{}", self.port),
            Encryption::Wrapped => format!("smtps://{login}localhost:{}", self.port),
        }
    }

    /// For `smtp.ca_file`.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    /// What it has taken so far.
    pub fn taken(&self) -> Vec<Email> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.process = None;
    }

    /// Start it again on the same port.
    pub async fn restart(&mut self) {
        self.kill9();
        self.launch().await;
    }

    async fn launch(&mut self) {
        let python = workspace_folder().join(PYTHON);
        assert!(python.is_file(), "there is no mail server for tests; run scripts/setup --test");
        let file = |name: &str| self.folder.path().join(name).into_os_string();
        let (certificate, key) = match self.encryption {
            Encryption::None => Default::default(),
            Encryption::StartTls | Encryption::Wrapped => (file("certificate.pem"), file("key.pem")),
        };
        let (user, password) = self.login.clone().unwrap_or_default();
        let mut command = ChildProcess::command(python);
        command.arg(file("server.py")).arg(self.encryption.as_str()).args([certificate, key]).args([user, password]);
        command.arg(self.port.to_string()).stdout(Stdio::piped()).stderr(fs::File::create(file("stderr")).expect("a file"));
        let mut process = ChildProcess::spawn(&mut command).expect("python can be started through setpriv");
        let told = Arc::new(Mutex::new(None));
        if let (Some(stdout), _) = process.streams() {
            let (told, taken) = (Arc::clone(&told), Arc::clone(&self.taken));
            // It ends with the process.
            std::thread::spawn(move || read(stdout, &told, &taken));
        }
        self.port =
            eventually(START, "the mail server tells its port", async || *told.lock().unwrap_or_else(PoisonError::into_inner))
                .await;
        self.process = Some(process);
    }
}

fn read(stdout: ChildStdout, told: &Mutex<Option<u16>>, taken: &Mutex<Vec<Email>>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match serde_json::from_str(&line).expect("the mail server writes JSON") {
            Line::Port { port } => *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(port),
            Line::Taken { from, to, content, encrypted, login } => {
                let content = STANDARD.decode(content).expect("base64");
                let content = String::from_utf8_lossy(&content).into_owned();
                taken.lock().unwrap_or_else(PoisonError::into_inner).push(Email { from, to, content, encrypted, login });
            }
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    let encoded = STANDARD.encode(der);
    for start in (0..encoded.len()).step_by(64) {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{}", &encoded[start..(start + 64).min(encoded.len())]);
    }
    text + &format!("-----END {label}-----\n")
}
