//! The data directory of `up`: who may use it, and what is generated once and kept.
//!
//! | | |
//! |---|---|
//! | `lock` | locked by the running `up`, whose process id it holds |
//! | `credentials.toml` | generated passwords, keys and ports; readable by its owner alone |
//! | `master_key` | what signing keys are encrypted with |
//! | `postgres/` | `cluster`, the folder of its socket, its log |
//! | `nats/` | configuration, JetStream's store, its log |
//! | `objects/` | the embedded object store |

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use bowerbird_lifecycle::IdSource;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::failure::Failure;

/// The one folder that another user works in.
const POSTGRES: &str = "postgres";

/// Room that a start needs on the disk: PostgreSQL's first files and a few segments of its log.
const LEAST_FREE_BYTES: u64 = 256 << 20;
/// Where clients look for a NATS server first.
const USUAL_NATS_PORT: u16 = 4222;

/// The data directory, locked for this process.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// What is generated at the first start.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Credentials {
    /// Names this node; its leases are freed when it starts again.
    pub(crate) node_id: Uuid,
    pub(crate) postgres_password: String,
    pub(crate) nats_port: u16,
    pub(crate) nats_user: String,
    pub(crate) nats_password: String,
    pub(crate) storage_access_key_id: String,
    pub(crate) storage_secret_access_key: String,
}

impl DataDir {
    /// Make it if it is not there, and lock it for as long as this process lives.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let unusable = |error: &io::Error| {
            let sentence = format!(
                "data_dir: {} cannot be used ({error}); make it writable for this user or set data_dir to another folder",
                path.display()
            );
            if error.kind() == io::ErrorKind::StorageFull { full(path, 0) } else { Failure::Settings(sentence) }
        };
        make_folder(path).map_err(|error| unusable(&error))?;
        let path = path.canonicalize().map_err(|error| unusable(&error))?;
        let lock_file = path.join("lock");
        let mut lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&lock_file)
            .map_err(|error| unusable(&error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the sentence.
                let _ = lock.read_to_string(&mut holder);
                return Err(Failure::Unavailable(format!(
                    "another `bowerbird up` (process {}) uses {}; stop that one, or give this one another data_dir",
                    holder.trim(),
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(&error)),
        }
        let free = free_bytes(&path);
        if free < LEAST_FREE_BYTES {
            return Err(full(&path, free));
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(|error| unusable(&error))?;
        Ok(DataDir { path, _lock: lock })
    }

    /// The absolute path of a file or folder in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A folder in it, made if it is not there.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf, Failure> {
        let folder = self.join(name);
        make_folder(&folder).map_err(|error| cannot_write(&folder, &error))?;
        if name != POSTGRES {
            // Nobody but us works in it, so nobody needs to pass through.
            let closed = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&folder, closed).map_err(|error| cannot_write(&folder, &error))?;
        }
        Ok(folder)
    }

    /// What was generated at the first start; generated now if this is it.
    pub(crate) fn credentials(&self, ids: IdSource) -> Result<Credentials, Failure> {
        let file = self.join("credentials.toml");
        if let Some(credentials) = Credentials::read(&self.path)? {
            return Ok(credentials);
        }
        for made in ["postgres/cluster", "objects"] {
            if self.join(made).exists() {
                return Err(Failure::Settings(format!(
                    "{} is missing although {} is there; put it back from a backup, since it holds the passwords",
                    file.display(),
                    self.join(made).display()
                )));
            }
        }
        let credentials = Credentials {
            node_id: ids.next(),
            postgres_password: random_hex::<24>(),
            nats_port: USUAL_NATS_PORT,
            nats_user: "bowerbird".into(),
            nats_password: random_hex::<24>(),
            storage_access_key_id: random_hex::<10>(),
            storage_secret_access_key: random_hex::<20>(),
        };
        self.write_credentials(&credentials)?;
        Ok(credentials)
    }

    /// The port for our own NATS server: the kept one, or, when somebody else has taken it, a free one that is kept from now on.
    pub(crate) fn settle_nats_port(&self, credentials: &mut Credentials) -> Result<(), Failure> {
        if TcpListener::bind((Ipv4Addr::LOCALHOST, credentials.nats_port)).is_ok() {
            return Ok(());
        }
        let taken = credentials.nats_port;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let free = free.map_err(|error| Failure::Unavailable(format!("this machine has no free port on 127.0.0.1: {error}")))?;
        credentials.nats_port = free.port();
        tracing::info!(taken, now = credentials.nats_port, "the port of the NATS server is taken by another program; it moves");
        self.write_credentials(credentials)
    }

    /// The key that signing keys are encrypted with; generated at the first start.
    pub(crate) fn master_key(&self) -> Result<Zeroizing<[u8; 32]>, Failure> {
        let file = self.join("master_key");
        if !file.exists() {
            if self.join("postgres/cluster").exists() {
                return Err(Failure::Settings(format!(
                    "{} is missing although the database is there; put it back from a backup, since the signing keys are \
                     encrypted with it",
                    file.display()
                )));
            }
            write_private(&file, random_hex::<32>().as_bytes()).map_err(|error| cannot_write(&file, &error))?;
        }
        read_master_key(&file)
    }

    fn write_credentials(&self, credentials: &Credentials) -> Result<(), Failure> {
        let file = self.join("credentials.toml");
        let text = toml::to_string_pretty(credentials)
            .map_err(|error| Failure::Unavailable(format!("{} cannot be written: {error}", file.display())))?;
        let text =
            format!("# Generated by `bowerbird up`. Back it up with the rest of this folder, and keep it to yourself.\n{text}");
        write_private(&file, text.as_bytes()).map_err(|error| cannot_write(&file, &error))
    }
}

impl Credentials {
    /// Read what `up` keeps in a data directory; `None` if it never ran there.
    pub(crate) fn read(data_dir: &Path) -> Result<Option<Self>, Failure> {
        let file = data_dir.join("credentials.toml");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Failure::Settings(format!("{} cannot be read: {error}", file.display()))),
        };
        let parsed = toml::from_str(&text).map_err(|error| {
            Failure::Settings(format!("{} is damaged ({}); put it back from a backup", file.display(), error.message()))
        })?;
        Ok(Some(parsed))
    }
}

/// 32 bytes in hexadecimal, as `auth.master_key_file` holds them.
pub(crate) fn read_master_key(file: &Path) -> Result<Zeroizing<[u8; 32]>, Failure> {
    let refused = |why: &str| Failure::Settings(format!("the master key {} {why}", file.display()));
    let text = fs::read_to_string(file).map(Zeroizing::new).map_err(|error| refused(&format!("cannot be read: {error}")))?;
    let text = text.trim();
    let mut key = Zeroizing::new([0_u8; 32]);
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(refused("must be 64 hexadecimal digits; `openssl rand -hex 32` makes such a key"));
    }
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).unwrap_or("00");
        *byte = u8::from_str_radix(digits, 16).unwrap_or(0);
    }
    Ok(key)
}

/// Random bytes in hexadecimal.
fn random_hex<const BYTES: usize>() -> String {
    let bytes: [u8; BYTES] = std::array::from_fn(|_| rand::random());
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// Others may pass through, as PostgreSQL runs as another user, and cannot list it. What is inside is closed by itself.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o711))
}

/// Write a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(file: &Path, content: &[u8]) -> io::Result<()> {
    let unfinished = file.with_extension("unfinished");
    let _ = fs::remove_file(&unfinished);
    let mut handle = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&unfinished)?;
    handle.write_all(content)?;
    handle.sync_all()?;
    fs::rename(&unfinished, file)?;
    match file.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// The sentence for a file that could not be written.
pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::StorageFull {
        return full(path, 0);
    }
    Failure::Settings(format!("{} cannot be written: {error}", path.display()))
}

fn full(path: &Path, free_bytes: u64) -> Failure {
    Failure::Unavailable(format!(
        "the disk that holds {} is full ({} MiB free, {} MiB are needed to start); free some space or set data_dir to another disk",
        path.display(),
        free_bytes >> 20,
        LEAST_FREE_BYTES >> 20
    ))
}

/// Bytes that this user may still write on the disk of `path`; no limit if the system does not tell.
fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_generated_is_kept_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(&folder.path().join("data")).unwrap();
        let first = data_dir.credentials(IdSource).unwrap();
        let second = data_dir.credentials(IdSource).unwrap();
        assert_eq!(first.postgres_password, second.postgres_password);
        assert_eq!(first.node_id, second.node_id);
        assert_eq!(data_dir.master_key().unwrap(), data_dir.master_key().unwrap());
        for file in ["credentials.toml", "master_key"] {
            assert_eq!(fs::metadata(data_dir.join(file)).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_second_user_of_the_folder_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let _first = DataDir::open(folder.path()).unwrap();
        let refused = DataDir::open(folder.path()).unwrap_err();
        assert!(matches!(refused, Failure::Unavailable(_)));
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
    }

    #[test]
    fn lost_or_damaged_secrets_are_not_replaced_by_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        data_dir.credentials(IdSource).unwrap();
        fs::write(data_dir.join("credentials.toml"), "node_id = 7").unwrap();
        assert!(data_dir.credentials(IdSource).err().unwrap().to_string().contains("damaged"));
        fs::remove_file(data_dir.join("credentials.toml")).unwrap();
        fs::create_dir_all(data_dir.join("postgres/cluster")).unwrap();
        assert!(data_dir.credentials(IdSource).err().unwrap().to_string().contains("missing"));
        assert!(data_dir.master_key().unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn a_port_that_somebody_took_is_left_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(folder.path()).unwrap();
        let mut credentials = data_dir.credentials(IdSource).unwrap();
        let somebody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = somebody.local_addr().unwrap().port();
        credentials.nats_port = taken;
        data_dir.settle_nats_port(&mut credentials).unwrap();
        assert_ne!(credentials.nats_port, taken);
        assert_eq!(data_dir.credentials(IdSource).unwrap().nats_port, credentials.nats_port);
    }

    #[test]
    fn a_file_in_the_way_is_a_sentence_about_the_setting() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = DataDir::open(file.path()).unwrap_err();
        assert!(matches!(&refused, Failure::Settings(sentence) if sentence.contains("data_dir")), "{refused}");
    }
}
