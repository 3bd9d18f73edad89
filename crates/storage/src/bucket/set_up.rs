//! What the bucket itself is to do for us, where the server lets it be said: let pages of our origins in, and tell what
//! comes and goes. Rules of others stay as they are, and what is right already is not written again.

use aws_sdk_s3::types::{CorsConfiguration, CorsRule, Event, NotificationConfiguration, QueueConfiguration};

use super::{Bucket, Error, ErrorKind};

/// What is wished for.
#[derive(Clone, Debug, Default)]
pub struct SetUp {
    /// Origins whose pages may send to the bucket and read from it.
    pub cors_origins: Vec<String>,
    /// Where what comes and goes is to be told, as the server calls it.
    pub notify_target: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetUpReport {
    /// What was changed.
    pub changed: Vec<&'static str>,
    /// What the server refused: one sentence each, that says what to do.
    pub refused: Vec<String>,
}

/// Name of the rules that are ours.
const RULE: &str = "bowerbird";
const METHODS: [&str; 3] = ["GET", "HEAD", "PUT"];
/// What a page needs to read of an answer: the entity tags of parts, ranges, checksums.
const EXPOSED: [&str; 5] = ["ETag", "Content-Range", "Accept-Ranges", "x-amz-checksum-sha256", "x-amz-checksum-crc64nvme"];
const PREFLIGHT_SECONDS: i32 = 600;

impl Bucket {
    /// Make the rules. Nothing that is refused stands in the way of anything else.
    pub async fn set_up(&self, wish: &SetUp) -> SetUpReport {
        let mut report = SetUpReport::default();
        match self.let_pages_in(&wish.cors_origins).await {
            Ok(true) => report.changed.push("pages of the origins in `storage.cors_origins` may use links to the bucket"),
            Ok(false) => {}
            Err(error) => report.refused.push(format!(
                "{error}; pages that upload need it, so allow PUT, GET and HEAD from {} with the server's own tools",
                wish.cors_origins.join(", ")
            )),
        }
        if let Some(target) = &wish.notify_target {
            match self.tell(target).await {
                Ok(true) => report.changed.push("what comes and goes in the bucket is told at `storage.notify_target`"),
                Ok(false) => {}
                Err(error) => report.refused.push(format!(
                    "{error}; check `storage.notify_target` (`{target}`) and the server's own settings for it. Until then uploads \
                     are found by `complete` and by the hourly comparison"
                )),
            }
        }
        report
    }

    async fn let_pages_in(&self, origins: &[String]) -> Result<bool, Error> {
        const WHAT: &str = "be opened to pages of other origins";
        let found = match self.client.get_bucket_cors().bucket(self.name()).send().await {
            Ok(found) => found.cors_rules.unwrap_or_default(),
            Err(error) => {
                let none = aws_sdk_s3::error::ProvideErrorMetadata::code(&error) == Some("NoSuchCORSConfiguration");
                match Error::of(WHAT, error) {
                    _ if none => Vec::new(),
                    // A server that knows no such rules has none of ours that would have to go.
                    _ if origins.is_empty() => return Ok(false),
                    error => return Err(error),
                }
            }
        };
        let Some(rules) = with_our_rule(found, origins).map_err(|error| Error::new(ErrorKind::Other, WHAT, error.to_string()))?
        else {
            return Ok(false);
        };
        if rules.is_empty() {
            let gone = self.client.delete_bucket_cors().bucket(self.name()).send().await;
            return gone.map(|_| true).map_err(|error| Error::of(WHAT, error));
        }
        let rules = CorsConfiguration::builder().set_cors_rules(Some(rules)).build();
        let rules = rules.map_err(|error| Error::new(ErrorKind::Other, WHAT, error.to_string()))?;
        let put = self.client.put_bucket_cors().bucket(self.name()).cors_configuration(rules).send().await;
        put.map(|_| true).map_err(|error| Error::of(WHAT, error))
    }

    async fn tell(&self, target: &str) -> Result<bool, Error> {
        const WHAT: &str = "be made to tell what comes and goes";
        let found = self.client.get_bucket_notification_configuration().bucket(self.name()).send().await;
        let found = found.map_err(|error| Error::of(WHAT, error))?;
        let queues = with_our_target(found.queue_configurations.unwrap_or_default(), target);
        let Some(queues) = queues.map_err(|error| Error::new(ErrorKind::Other, WHAT, error.to_string()))? else {
            return Ok(false);
        };
        let rules = NotificationConfiguration::builder()
            .set_queue_configurations(Some(queues))
            .set_topic_configurations(found.topic_configurations)
            .set_lambda_function_configurations(found.lambda_function_configurations)
            .set_event_bridge_configuration(found.event_bridge_configuration)
            .build();
        let put = self.client.put_bucket_notification_configuration().bucket(self.name()).notification_configuration(rules);
        put.send().await.map(|_| true).map_err(|error| Error::of(WHAT, error))
    }
}

type BuildError = aws_sdk_s3::error::BuildError;

/// The rules with ours as it should be, after those of others. None: so it is already.
fn with_our_rule(found: Vec<CorsRule>, origins: &[String]) -> Result<Option<Vec<CorsRule>>, BuildError> {
    let (ours, mut rules): (Vec<CorsRule>, Vec<CorsRule>) = found.into_iter().partition(|rule| rule.id() == Some(RULE));
    if origins.is_empty() {
        return Ok((!ours.is_empty()).then_some(rules));
    }
    let wanted = CorsRule::builder()
        .id(RULE)
        .set_allowed_origins(Some(origins.to_vec()))
        .set_allowed_methods(Some(METHODS.map(str::to_owned).to_vec()))
        .allowed_headers("*")
        .set_expose_headers(Some(EXPOSED.map(str::to_owned).to_vec()))
        .max_age_seconds(PREFLIGHT_SECONDS)
        .build()?;
    let same = |rule: &CorsRule| {
        rule.allowed_origins() == origins
            && METHODS.iter().all(|method| rule.allowed_methods().iter().any(|found| found == method))
    };
    if matches!(&*ours, [rule] if same(rule)) {
        return Ok(None);
    }
    rules.push(wanted);
    Ok(Some(rules))
}

/// The rules with one that tells everything to the target, after those of others. None: there is one already.
fn with_our_target(found: Vec<QueueConfiguration>, target: &str) -> Result<Option<Vec<QueueConfiguration>>, BuildError> {
    let events = [Event::from("s3:ObjectCreated:*"), Event::from("s3:ObjectRemoved:*")];
    let tells_all = |rule: &QueueConfiguration| {
        rule.queue_arn() == target && rule.filter().is_none() && events.iter().all(|event| rule.events().contains(event))
    };
    if found.iter().any(tells_all) {
        return Ok(None);
    }
    // Servers refuse a second rule for the same target and events; ours of another time goes.
    let mut rules: Vec<QueueConfiguration> = found.into_iter().filter(|rule| rule.id() != Some(RULE)).collect();
    rules.push(QueueConfiguration::builder().id(RULE).queue_arn(target).set_events(Some(events.to_vec())).build()?);
    Ok(Some(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str, origin: &str) -> CorsRule {
        CorsRule::builder().id(id).allowed_origins(origin).allowed_methods("GET").build().unwrap()
    }

    fn queue(id: &str, target: &str, event: &str) -> QueueConfiguration {
        QueueConfiguration::builder().id(id).queue_arn(target).events(Event::from(event)).build().unwrap()
    }

    #[test]
    fn our_rule_for_pages_comes_after_those_of_others_once_and_goes_when_no_origin_is_left() {
        let origins = ["https://app.example".to_owned()];
        let others = vec![rule("theirs", "https://their.example")];
        let rules = with_our_rule(others.clone(), &origins).unwrap().unwrap();
        assert_eq!((rules.len(), &rules[0], rules[1].id()), (2, &others[0], Some(RULE)));
        assert_eq!(rules[1].allowed_methods(), METHODS);
        assert_eq!(with_our_rule(rules.clone(), &origins).unwrap(), None);
        let changed = with_our_rule(rules.clone(), &["https://new.example".to_owned()]).unwrap().unwrap();
        assert_eq!((changed.len(), changed[1].allowed_origins()), (2, ["https://new.example".to_owned()].as_slice()));
        assert_eq!(with_our_rule(rules, &[]).unwrap(), Some(others.clone()));
        assert_eq!(with_our_rule(others, &[]).unwrap(), None);
    }

    #[test]
    fn what_tells_everything_already_is_left_and_what_is_others_is_kept() {
        let theirs = queue("theirs", "arn:minio:sqs::OTHER:nats", "s3:ObjectCreated:*");
        let rules = with_our_target(vec![theirs.clone()], "arn:minio:sqs::BOWERBIRD:nats").unwrap().unwrap();
        assert_eq!((rules.len(), &rules[0], rules[1].id()), (2, &theirs, Some(RULE)));
        assert_eq!(with_our_target(rules.clone(), "arn:minio:sqs::BOWERBIRD:nats").unwrap(), None);
        // Made by hand under another name.
        let mut by_hand = rules.clone();
        by_hand[1].id = Some("by hand".to_owned());
        assert_eq!(with_our_target(by_hand, "arn:minio:sqs::BOWERBIRD:nats").unwrap(), None);
        // Ours for a target of another time, or half of the events.
        let moved = with_our_target(rules, "arn:minio:sqs::NEW:nats").unwrap().unwrap();
        assert_eq!((moved.len(), moved[1].queue_arn()), (2, "arn:minio:sqs::NEW:nats"));
        let half = vec![queue(RULE, "arn:minio:sqs::BOWERBIRD:nats", "s3:ObjectCreated:*")];
        assert_eq!(with_our_target(half, "arn:minio:sqs::BOWERBIRD:nats").unwrap().unwrap()[0].events().len(), 2);
    }
}
