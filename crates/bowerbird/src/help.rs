//! What `--help` prints of one command. The overview is [`crate::arguments::HELP`].

/// The page of a command, given as the words that name it: `["up"]`, `["admin", "create"]`. `None`: it has none of its own.
pub(crate) fn page(words: &[&str]) -> Option<&'static str> {
    Some(match words {
        ["up", ..] => UP,
        ["gateway", ..] => GATEWAY,
        ["actors", ..] => ACTORS,
        ["store", ..] => STORE,
        ["migrate", ..] => MIGRATE,
        ["admin", ..] => ADMIN,
        ["rebuild-statistics", ..] => REBUILD_STATISTICS,
        ["rebuild-streams", ..] => REBUILD_STREAMS,
        ["config", ..] => CONFIG,
        _ => return None,
    })
}

const UP: &str = r#"usage: bowerbird up [--config FILE] [--data-dir FOLDER] [--listen IP] [--public-host NAME]

Runs everything in one process: the API, the work, the object store. Starts its own PostgreSQL and NATS server unless the
settings name others. The last line of a start is `Bowerbird is ready` with the addresses. Ctrl-C stops all of it.

options
  --data-dir FOLDER    where all of it is kept: database, events, objects, generated passwords (default: data_dir)
  --listen IP          make API and object store reachable at this address, for example 0.0.0.0
  --public-host NAME   the name that links are made for; needed with --listen 0.0.0.0
  --config FILE        settings file (default: ./bowerbird.toml if it is there)

settings that are used most; in the environment gateway.listen is BOWERBIRD__GATEWAY__LISTEN
  data_dir                        "./data"
  gateway.listen                  "127.0.0.1:8080"; the API and its docs page
  gateway.operations_listen       "127.0.0.1:9090"; /livez, /readyz, /metrics
  storage.listen                  "127.0.0.1:9000"; the object store
  database.url, nats.url          servers that run already, instead of our own
  outbound.allow                  []; networks of yours that may be fetched from, such as ["192.168.1.0/24"]
  outbound.ports                  [80, 443, 8080, 8443]; [] is any
  auth.open_registration          true; may strangers register?
`bowerbird config show` prints all of them; config/default.toml has the reasons.
"#;

const GATEWAY: &str = r#"usage: bowerbird gateway [--config FILE]

Runs the REST API alone: it asks the actors over NATS, and has neither database nor keys. As many as you like.

settings that it needs; in the environment nats.url is BOWERBIRD__NATS__URL
  nats.url                        and nats.user with nats.password, or nats.credentials_file
  storage.kind                    "s3", with storage.endpoint, and storage.public_endpoint where clients reach it
  gateway.public_url              the same everywhere: it names the issuer of tokens

settings that are used most
  gateway.listen                  "127.0.0.1:8080"
  gateway.operations_listen       "127.0.0.1:9090"; /livez, /readyz, /metrics
  gateway.cors_origins            []; origins that browsers may call from
"#;

const ACTORS: &str = r#"usage: bowerbird actors [--config FILE]

Runs the work alone: accounts, downloads, files. Brings the database up to date first. As many as you like.

settings that it needs; in the environment database.url is BOWERBIRD__DATABASE__URL
  database.url                    PostgreSQL 15 or newer
  nats.url                        and nats.user with nats.password, or nats.credentials_file
  storage.kind                    "s3", with storage.endpoint, storage.public_endpoint, storage.access_key_id and
                                  storage.secret_access_key
  auth.master_key_file            the same 64 hexadecimal digits on every node (`openssl rand -hex 32`)
  gateway.public_url              the same everywhere: it names the issuer of tokens

settings that are used most
  gateway.operations_listen       "127.0.0.1:9090"; /livez, /readyz, /metrics
  downloads.slots                 16; downloads that run at once
  downloads.memory_budget         "256MiB"; for parts in flight
  outbound.allow, outbound.ports  networks and ports that may be fetched from
"#;

const STORE: &str = r#"usage: bowerbird store [--config FILE]

Runs the embedded object store alone: S3 over HTTP, its objects under data_dir. One for each data directory.

settings that are used most; in the environment storage.listen is BOWERBIRD__STORAGE__LISTEN
  data_dir                        "./data"
  storage.listen                  "127.0.0.1:9000"
  storage.bucket                  "bowerbird"
  storage.access_key_id           with storage.secret_access_key; unset: generated, in credentials.toml of data_dir
  nats.url                        where changed objects are told of; optional
"#;

const MIGRATE: &str = r"usage: bowerbird migrate [--config FILE]

Brings the database that database.url names up to date, and ends. `up` and `actors` do it by themselves at their start.

settings that it needs; in the environment database.url is BOWERBIRD__DATABASE__URL
  database.url                    PostgreSQL 15 or newer; its user must be allowed to make tables
";

const ADMIN: &str = r#"usage: bowerbird admin create --name NAME [--config FILE]

Makes an account with the role `admin`. The password is the first line of standard input, or is generated and printed when
that is a terminal or empty:

  bowerbird admin create --name ada <password-file

It finds the database of a running `up` on this machine through data_dir; otherwise database.url names it.

options
  --name NAME          name of the account
  --config FILE        settings file (default: ./bowerbird.toml if it is there)

settings that are used most; in the environment data_dir is BOWERBIRD__DATA_DIR
  data_dir                        "./data"; that of the running `up`
  database.url                    if there is no `up`
  auth.password_min_length        15
"#;

const REBUILD_STATISTICS: &str = r"usage: bowerbird rebuild-statistics [--config FILE]

Counts the statistics of every day anew whose events are still in the database, and says how many days and events that were.
Days whose events are gone keep the numbers with which they were closed. Safe while everything runs.

It finds the database of a running `up` on this machine through data_dir; otherwise database.url names it.
";

const REBUILD_STREAMS: &str = r"usage: bowerbird rebuild-streams [--config FILE]

Has the running actors publish again what the stream of events should hold: for a JetStream that lost its store. They notice
that by themselves as well, within seconds. Consumers know what they had by its id. Safe while everything runs.

It finds the database of a running `up` on this machine through data_dir; otherwise database.url names it.
";

const CONFIG: &str = r#"usage: bowerbird config show [--config FILE]

Prints the settings as they are in effect, as TOML, secrets hidden: the defaults, over them the settings file, over that the
environment.

  --config FILE                   settings file (default: the one that BOWERBIRD_CONFIG names, else ./bowerbird.toml)
  BOWERBIRD__SECTION__KEY=value   one setting, as BOWERBIRD__GATEWAY__LISTEN=127.0.0.1:8081; lists as in TOML:
                                  BOWERBIRD__OUTBOUND__ALLOW='["127.0.0.0/8"]'
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_that_a_page_names_exists() {
        let defaults = bowerbird_config::DEFAULTS;
        let sections: Vec<&str> = defaults.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']')).collect();
        let mut named = 0;
        for page in [UP, GATEWAY, ACTORS, STORE, MIGRATE, ADMIN, CONFIG] {
            for word in page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.') {
                let Some((section, key)) = word.trim_end_matches('.').split_once('.') else { continue };
                if !sections.contains(&section) {
                    continue;
                }
                let (_, rest) = defaults.split_once(&format!("[{section}]")).unwrap();
                let here = rest.split("\n[").next().unwrap();
                let exists = here.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = ")));
                assert!(exists, "{word}");
                named += 1;
            }
        }
        assert!(named > 30, "{named}");
    }
}
