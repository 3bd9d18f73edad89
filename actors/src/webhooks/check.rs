//! What may be asked for: the fields of a request, every fault of it named at once.

use bowerbird_nats::{
    Problem,
    event::CATALOGUE,
    webhook::{CreateWebhook, UpdateWebhook},
};

use crate::downloads::check::{Faults, url};

/// Types and areas of one webhook, at most.
const MAX_TYPES: usize = 50;
/// Longest description, in characters.
const MAX_DESCRIPTION_CHARACTERS: usize = 200;

/// Everything about a new webhook but whether its URL may be dialled.
pub(crate) fn create(request: &CreateWebhook) -> Result<(), Problem> {
    let mut faults = Faults::default();
    url(&mut faults, &request.url);
    event_types(&mut faults, &request.event_types);
    if let Some(text) = &request.description {
        faults.unless(!text.is_empty(), "description", "must not be empty; leave it out");
        description(&mut faults, text);
    }
    faults.into_result()
}

/// Everything about a change but whether its URL may be dialled.
pub(crate) fn update(request: &UpdateWebhook) -> Result<(), Problem> {
    let mut faults = Faults::default();
    if let Some(text) = &request.url {
        url(&mut faults, text);
    }
    if let Some(types) = &request.event_types {
        event_types(&mut faults, types);
    }
    if let Some(text) = &request.description {
        description(&mut faults, text);
    }
    faults.into_result()
}

fn description(faults: &mut Faults, text: &str) {
    faults.unless(text.chars().count() <= MAX_DESCRIPTION_CHARACTERS, "description", "must be at most 200 characters");
    faults.unless(!text.chars().any(char::is_control), "description", "must not hold control characters");
}

fn event_types(faults: &mut Faults, types: &[String]) {
    faults.unless(types.len() <= MAX_TYPES, "event_types", "must be at most 50; `download.*` stands for a whole area");
    for (index, wanted) in types.iter().enumerate().take(MAX_TYPES) {
        if !is_known(wanted) {
            faults.add(
                format!("event_types.{index}"),
                "must be an event type such as download.completed, or an area such as download.*; docs/bus.md lists them",
            );
        }
    }
}

/// Whether there is such a type, or such an area.
fn is_known(wanted: &str) -> bool {
    let area = wanted.strip_suffix(".*");
    CATALOGUE.iter().any(|(known, _)| known.as_str() == wanted || area == Some(known.area()))
}

/// As it is stored: each once.
pub(crate) fn distinct(types: Vec<String>) -> Vec<String> {
    types.into_iter().fold(Vec::new(), |mut distinct, wanted| {
        if !distinct.contains(&wanted) {
            distinct.push(wanted);
        }
        distinct
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(types: &[&str]) -> CreateWebhook {
        CreateWebhook {
            url: "https://example.org/".to_owned(),
            event_types: types.iter().map(|text| (*text).to_owned()).collect(),
            description: None,
        }
    }

    #[test]
    fn types_and_areas_of_the_catalogue_can_be_asked_for_and_nothing_else() {
        for types in [&[][..], &["download.completed"], &["download.*", "file.*", "webhook.disabled"]] {
            assert!(create(&asking(types)).is_ok(), "{types:?}");
        }
        for bad in
            ["", "*", "download", "download.", ".*", "cake.*", "download.eaten", "download.*.*", "*.completed", "Download.*"]
        {
            let problem = create(&asking(&["file.*", bad])).unwrap_err();
            assert_eq!(problem.errors[0].field, "event_types.1", "{bad:?}");
        }
        assert!(create(&asking(&["file.*"; 50])).is_ok());
        assert_eq!(create(&asking(&["file.*"; 51])).unwrap_err().errors.len(), 1);
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let request = CreateWebhook { url: String::new(), event_types: vec!["x".into()], description: Some("a\nb".into()) };
        let fields: Vec<String> = create(&request).unwrap_err().errors.into_iter().map(|error| error.field).collect();
        assert_eq!(fields, ["url", "event_types.0", "description"]);
    }
}
