//! One struct per section of `default.toml`, which documents each key.
#![expect(missing_docs, reason = "each key is documented in default.toml, once")]

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::value::{Secret, ServerUrl, Size, Span};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    pub listen: SocketAddr,
    pub operations_listen: SocketAddr,
    pub public_url: Option<Url>,
    pub body_limit: Size,
    pub request_timeout: Span,
    pub read_timeout: Span,
    pub max_connections: usize,
    pub cors_origins: Vec<String>,
    pub max_proxied_streams: usize,
    pub max_event_streams: usize,
    pub max_event_streams_per_account: usize,
    pub event_heartbeat: Span,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// Holds a password, so it is a secret as a whole.
    pub url: Option<Secret>,
    pub max_connections: u32,
    pub acquire_timeout: Span,
    pub statement_timeout: Span,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Nats {
    /// May hold a user and a password.
    pub url: Option<ServerUrl>,
    pub user: Option<String>,
    pub password: Option<Secret>,
    pub credentials_file: Option<PathBuf>,
    pub prefix: String,
    pub replicas: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    Embedded,
    S3,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    pub kind: StorageKind,
    pub bucket: String,
    pub region: String,
    pub listen: SocketAddr,
    pub public_endpoint: Option<Url>,
    pub endpoint: Option<Url>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<Secret>,
    pub path_style: bool,
    pub presign_get_ttl: Span,
    pub cors_origins: Option<Vec<String>>,
    pub notify_target: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    pub access_token_ttl: Span,
    pub refresh_token_ttl: Span,
    pub session_ttl: Span,
    pub open_registration: bool,
    pub issuer: Option<String>,
    pub audience: String,
    pub key_rotation_interval: Span,
    pub key_overlap: Span,
    pub master_key_file: Option<PathBuf>,
    pub password_min_length: usize,
    pub argon2_memory_kib: u32,
    pub argon2_passes: u32,
    pub argon2_lanes: u32,
    pub hash_concurrency: usize,
    pub hash_queue: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheKind {
    Memory,
    Kv,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    pub kind: CacheKind,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Leases {
    pub duration: Span,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Outbound {
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    pub ports: Vec<u16>,
    pub name_servers: Vec<SocketAddr>,
    pub dns_timeout: Span,
    pub connect_timeout: Span,
    pub first_byte_timeout: Span,
    pub stall_timeout: Span,
    pub min_rate: Size,
    pub max_redirects: u32,
    pub user_agent: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestKind {
    Sha256,
    None,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Downloads {
    pub slots: usize,
    pub max_running_per_account: u32,
    pub max_unfinished_per_account: u32,
    pub max_connections: u32,
    pub memory_budget: Size,
    pub part_size: Size,
    pub max_size: Size,
    pub max_attempts: u32,
    pub retry_base: Span,
    pub retry_max: Span,
    pub keep_finished: Span,
    pub digest: DigestKind,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    pub trash_grace: Span,
    pub keep_versions: Span,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Alarms {
    pub horizon: Span,
    pub poll: Span,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    pub default_quota: Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckFallback {
    Continue,
    Quarantine,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Uploads {
    pub ttl: Span,
    pub link_ttl: Span,
    pub single_limit: Size,
    pub part_size: Size,
    pub max_size: Size,
    pub max_unfinished_per_account: u32,
    pub orphan_age: Span,
    pub check_subject: Option<String>,
    pub check_timeout: Span,
    pub check_deadline: Span,
    pub check_fallback: CheckFallback,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Reminders {
    pub catch_up: Span,
    pub max_scheduled_per_account: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Notifications {
    pub keep: Span,
    pub max_per_account: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// Holds a password, so it is a secret as a whole.
    pub url: Option<Secret>,
    pub from: Option<String>,
    pub ca_file: Option<PathBuf>,
    pub connections: usize,
    pub max_attempts: u32,
    pub retry_base: Span,
    pub retry_max: Span,
    pub max_per_account_and_hour: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    pub max_per_account: u32,
    pub max_pending: u32,
    pub slots: usize,
    pub max_sending_per_webhook: u32,
    pub timeout: Span,
    pub retries: Vec<Span>,
    pub disable_after: Span,
    pub old_secret_for: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    pub format: LogFormat,
    pub filter: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    pub grace: Span,
}
