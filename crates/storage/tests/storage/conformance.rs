//! The contract with an object store, as a list of checks: what Bowerbird needs, what it can do without, what it likes.
//!
//! Run against the embedded store always, and against any other that the environment names
//! (`BOWERBIRD_CONFORMANCE_ENDPOINT`, `…_BUCKET`, `…_REGION`, `…_ACCESS_KEY_ID`, `…_SECRET_ACCESS_KEY`; http only). Prints a table;
//! fails if something that is needed is not there. `docs/object-stores.md` holds the tables.

mod links;
mod objects;
mod parts;

use std::{fmt::Write as _, time::Duration};

use bowerbird_lifecycle::Clock;
use bowerbird_storage::{Bucket, BucketOptions, Error, PresignedLink};
use futures_util::future::BoxFuture;

use crate::support::{Answer, Store, bucket_options, raw_to};

/// How much a check matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Without it nothing is right: such a store is not to be used.
    Needed,
    /// Without it something is missing, namely this.
    Without(&'static str),
}

/// One thing that a store does or does not.
struct Check {
    name: &'static str,
    need: Need,
    run: fn(&Site) -> BoxFuture<'_, Outcome>,
}

/// What a check found: nothing wrong, or what is.
type Outcome = Result<(), String>;

/// A store that is looked at.
struct Site {
    options: BucketOptions,
    bucket: Bucket,
    /// Before every key, so that runs do not meet.
    prefix: String,
}

impl Site {
    fn of(options: BucketOptions) -> Site {
        let bucket = Bucket::new(options.clone());
        let prefix = format!("conformance-{:016x}", rand::random::<u64>());
        Site { options, bucket, prefix }
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Sends what a link says, with these headers.
    async fn follow(&self, link: &PresignedLink, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let target = format!("{}?{}", link.url.path(), link.url.query().unwrap_or_default());
        self.raw(&link.method, &target, headers, body).await
    }

    async fn raw(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let host = self.options.endpoint.as_str().trim_start_matches("http://").trim_end_matches('/');
        raw_to(host, method, target, headers, body).await
    }

    /// The same bucket for somebody whose clock is off by this.
    fn at(&self, offset: time::Duration) -> Bucket {
        Bucket::new(BucketOptions { clock: Clock::manual(Clock::system().now() + offset), ..self.options.clone() })
    }

    /// Everything of this run is removed.
    async fn clear(&self) {
        while let Ok(listed) = self.bucket.list(&format!("{}/", self.prefix), None, 1000).await {
            if listed.is_empty() {
                break;
            }
            for object in listed {
                if self.bucket.delete(&object.key).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// A check has found this, unless `holds`.
fn expect(holds: bool, what: impl Into<String>) -> Outcome {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// What an unexpected error is in the table.
#[expect(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn failed(error: Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text.chars().take(160).collect()
}

/// Longest that one check may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// Runs every check; the table, and the names of those that are needed and failed.
async fn examine(site: &Site, title: &str) -> (String, Vec<String>) {
    let mut table = format!("| {title} | | |\n|---|---|---|\n");
    let mut unfit = Vec::new();
    for check in objects::CHECKS.iter().chain(links::CHECKS).chain(parts::CHECKS) {
        let outcome =
            tokio::time::timeout(PATIENCE, (check.run)(site)).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let found = match &outcome {
            Ok(()) => "yes".to_owned(),
            Err(why) => format!("no: {}", why.replace(['|', '\n', '\r'], " ")),
        };
        let need = match check.need {
            Need::Needed => "needed",
            Need::Without(what) => what,
        };
        let _ = writeln!(table, "| {} | {found} | {need} |", check.name);
        if outcome.is_err() && check.need == Need::Needed {
            unfit.push(format!("{}: {found}", check.name));
        }
    }
    site.clear().await;
    (table, unfit)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_does_all_that_is_needed_and_all_that_is_liked() {
    let store = Store::start().await;
    // What makes the bucket.
    store.bucket().await;
    let site = Site::of(bucket_options(&store.endpoint));
    let (table, _) = examine(&site, "embedded").await;
    println!("{table}");
    assert!(!table.contains("| no:"), "{table}");
    assert_eq!(store.data_files(), 0, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_store_that_the_environment_names_does_all_that_is_needed() {
    #[expect(clippy::disallowed_methods, reason = "whoever runs the suite names the store")]
    let variable = |name: &str| std::env::var(format!("BOWERBIRD_CONFORMANCE_{name}")).ok();
    let Some(endpoint) = variable("ENDPOINT") else { return };
    let mut options = bucket_options(&endpoint);
    for (name, field) in [
        ("BUCKET", &mut options.bucket),
        ("REGION", &mut options.region),
        ("ACCESS_KEY_ID", &mut options.access_key_id),
        ("SECRET_ACCESS_KEY", &mut options.secret_access_key),
    ] {
        if let Some(value) = variable(name) {
            *field = value;
        }
    }
    // What the process does at its start, and says.
    let start = match Bucket::connect(options.clone(), Duration::from_secs(10)).await {
        Ok(_) => "accepted".to_owned(),
        Err(error) => format!("refused: {error}"),
    };
    let site = Site::of(options);
    let (table, unfit) = examine(&site, &endpoint).await;
    println!("{table}\nAt the start of a process: {start}");
    assert!(unfit.is_empty(), "needed and not there:\n{}", unfit.join("\n"));
}
