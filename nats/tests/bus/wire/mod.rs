//! The wire as reviewers see it: one example of everything that is said, and the subject catalogue.
//!
//! Both are generated from the code and checked in. `scripts/check-generated --write` writes them anew; a change there is a
//! change for everybody who talks to Bowerbird.

mod examples;
mod page;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use bowerbird_nats::{catalogue, event};
use serde_json::Value;

const REFRESH: &str = "scripts/check-generated --write";

fn writing() -> bool {
    std::env::var_os("BOWERBIRD_WRITE_GENERATED").is_some()
}

fn snapshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots")
}

#[test]
fn generated_examples_of_the_wire_are_current() {
    let mut expected: BTreeMap<String, String> = examples::all()
        .0
        .into_iter()
        .map(|(name, body)| (format!("{name}.json"), serde_json::to_string_pretty(&body).unwrap() + "\n"))
        .collect();
    let folder = snapshots();
    if writing() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &expected {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    for file in fs::read_dir(&folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let text = fs::read_to_string(folder.join(&name)).unwrap();
        match expected.remove(&name) {
            Some(current) => assert_eq!(text, current, "nats/tests/snapshots/{name} is stale: {REFRESH}"),
            None => panic!("nothing is said as in nats/tests/snapshots/{name}: {REFRESH}"),
        }
    }
    assert!(expected.is_empty(), "not among nats/tests/snapshots: {:?}: {REFRESH}", expected.keys());
}

#[test]
fn generated_subject_catalogue_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/bus.md");
    let current = page::write();
    if writing() {
        fs::write(&path, &current).unwrap();
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    assert!(text == current, "docs/bus.md is stale: {REFRESH}");
}

#[test]
fn everything_has_an_example() {
    let examples: BTreeMap<String, Value> = examples::all().0.into_iter().collect();
    for entry in catalogue::operations() {
        for kind in ["req", "rep"] {
            let name = format!("{kind}.{}.{}", entry.area, entry.name);
            assert!(examples.contains_key(&name), "{name}");
        }
    }
    for (event_type, _) in event::CATALOGUE {
        assert!(examples.contains_key(&format!("evt.{event_type}")), "{event_type}");
    }
}

#[test]
fn the_catalogue_names_every_operation_of_the_contracts() {
    let mut defined = BTreeSet::new();
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
        let path = file.unwrap().path();
        // A contract is one file.
        if path.is_dir() {
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix("operation!(")?.split(" =>").next());
        defined.extend(names.map(|name| name.trim_start_matches("reads ").to_owned()));
    }
    let told: BTreeSet<String> =
        catalogue::operations().into_iter().map(|entry| entry.request.rsplit("::").next().unwrap().to_owned()).collect();
    assert_eq!(told, defined);
}
