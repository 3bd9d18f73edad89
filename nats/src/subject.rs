//! The one maker and reader of subjects: `<prefix>.v1.<kind>.<area>.<name>[.<id>…]`.
//!
//! Version and kind come first, because permissions, streams and exports all cut by prefix. A token is either a word of
//! this code or an identifier; what people typed never becomes one, so nobody can smuggle a `.`, a `*` or a `>` in.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use crate::{
    alarm::Bucket,
    event::EventType,
    id::{AccountId, NodeId},
};

/// Stands where an event or a live message concerns no account.
const SYSTEM: &str = "system";
/// Version of the subject scheme and of what is said on it.
const VERSION: &str = "v1";
/// Longest prefix that leaves room for the rest within the 255 characters that are advised for subjects.
const PREFIX_MAX_CHARACTERS: usize = 32;

/// Longest subject of somebody else's service.
const SERVICE_MAX_CHARACTERS: usize = 128;

/// The configured prefix is not one token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the subject prefix \"{0}\" is not 1 to 32 of a-z, A-Z, 0-9, - and _; change nats.prefix")]
pub struct BadPrefix(String);

/// A subject, or a filter over subjects, that came out of [`Subjects`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(Arc<str>);

impl Subject {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn nats(&self) -> async_nats::Subject {
        async_nats::Subject::from(self.0.as_ref())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The subject of somebody else's service is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a subject to ask on: tokens of a-z, A-Z, 0-9, - and _ with dots between, as scan.uploads")]
pub struct BadSubject(String);

/// The subject of somebody else's service, as the operator wrote it: no wildcards, nothing of the server's own.
pub fn of_service(text: &str) -> Result<Subject, BadSubject> {
    let fine = text.len() <= SERVICE_MAX_CHARACTERS && !text.is_empty() && text.split('.').all(is_token);
    if fine { Ok(Subject(text.into())) } else { Err(BadSubject(text.to_owned())) }
}

/// A kind of work that is handed out: a stream of its own each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkKind {
    /// Downloads that are to run.
    Downloads,
}

impl WorkKind {
    /// Every kind of work.
    pub const ALL: &'static [WorkKind] = &[WorkKind::Downloads];

    /// Its token in subjects.
    pub const fn token(self) -> &'static str {
        match self {
            WorkKind::Downloads => "download",
        }
    }

    fn from_token(token: &str) -> Option<WorkKind> {
        WorkKind::ALL.iter().copied().find(|kind| kind.token() == token)
    }
}

/// What a subject says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A request to an area.
    Request {
        /// `download`
        area: String,
        /// `create`
        name: String,
    },
    /// A fact.
    Event {
        /// `download.completed`
        event_type: EventType,
        /// Whose, if anybody's.
        account_id: Option<AccountId>,
        /// The thing that it happened to.
        entity_id: Uuid,
    },
    /// Something for eyes only: progress, presence.
    Live {
        /// `download`
        area: String,
        /// `progress`
        name: String,
        /// Whose.
        account_id: AccountId,
        /// The thing that it is about.
        entity_id: Uuid,
    },
    /// One hand-out of a row.
    Work {
        /// Which kind of work.
        kind: WorkKind,
        /// The row.
        id: Uuid,
        /// Which hand-out of it.
        dispatch_no: i64,
    },
    /// An order to one process.
    Node {
        /// The process.
        node_id: NodeId,
        /// `download`
        area: String,
        /// `stop`
        name: String,
    },
    /// A notification of the object store.
    Object,
    /// The schedule of a bucket of alarms.
    AlarmBucket {
        /// When it fires.
        bucket: Bucket,
    },
    /// A bucket of alarms that fired.
    AlarmsDue {
        /// When it was to fire.
        bucket: Bucket,
    },
    /// An alarm that was given up and is to be tried again.
    AlarmAgain {
        /// Its kind.
        kind: String,
        /// What about.
        subject_id: Uuid,
    },
    /// A message that one consumer is to handle once more.
    Replay {
        /// The stream that it was first taken from.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// A message that was refused.
    Dead {
        /// The stream that it was taken from.
        stream: String,
        /// The consumer that refused it.
        consumer: String,
    },
}

/// Makes and reads the subjects under one prefix. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subjects {
    root: Arc<str>,
}

impl Subjects {
    /// Subjects under `<prefix>.v1`.
    pub fn new(prefix: &str) -> Result<Subjects, BadPrefix> {
        if prefix.len() > PREFIX_MAX_CHARACTERS || !is_token(prefix) {
            return Err(BadPrefix(prefix.chars().take(64).collect()));
        }
        Ok(Subjects { root: format!("{prefix}.{VERSION}").into() })
    }

    /// The configured first token.
    pub fn prefix(&self) -> &str {
        self.root.split_once('.').map_or(&self.root, |(prefix, _)| prefix)
    }

    /// What the inboxes of this Bowerbird begin with. Not the common `_INBOX`, which other users of the server may hear.
    pub fn inbox_prefix(&self) -> String {
        format!("_INBOX_{}", self.prefix())
    }

    /// Where an operation is asked.
    pub fn request(&self, area: &'static str, name: &'static str) -> Subject {
        self.make(format_args!("req.{}.{}", Word(area), Word(name)))
    }

    /// Every request.
    pub fn every_request(&self) -> Subject {
        self.make(format_args!("req.>"))
    }

    /// Where a fact is told.
    pub fn event(&self, event_type: &EventType, account_id: Option<AccountId>, entity_id: Uuid) -> Subject {
        self.make(format_args!("evt.{event_type}.{}.{entity_id}", Owner(account_id)))
    }

    /// Every fact.
    pub fn every_event(&self) -> Subject {
        self.make(format_args!("evt.>"))
    }

    /// Every fact of one type, of whatever account.
    pub fn events_of_type(&self, event_type: &EventType) -> Subject {
        self.make(format_args!("evt.{event_type}.>"))
    }

    /// Every fact of one area, of whatever account.
    pub fn events_of_area(&self, area: &'static str) -> Subject {
        self.make(format_args!("evt.{}.>", Word(area)))
    }

    /// Every fact of one account.
    pub fn events_of_account(&self, account_id: AccountId) -> Subject {
        self.make(format_args!("evt.*.*.{account_id}.*"))
    }

    /// Where progress and presence are told.
    pub fn live(&self, area: &'static str, name: &'static str, account_id: AccountId, entity_id: Uuid) -> Subject {
        self.make(format_args!("live.{}.{}.{account_id}.{entity_id}", Word(area), Word(name)))
    }

    /// Everything live.
    pub fn everything_live(&self) -> Subject {
        self.make(format_args!("live.>"))
    }

    /// Everything live of one account.
    pub fn live_of_account(&self, account_id: AccountId) -> Subject {
        self.make(format_args!("live.*.*.{account_id}.*"))
    }

    /// One hand-out of a row.
    pub fn work(&self, kind: WorkKind, id: Uuid, dispatch_no: i64) -> Subject {
        self.make(format_args!("work.{}.{id}.{dispatch_no}", kind.token()))
    }

    /// Every hand-out of one kind.
    pub fn every_work(&self, kind: WorkKind) -> Subject {
        self.make(format_args!("work.{}.>", kind.token()))
    }

    /// Where one process takes orders.
    pub fn node(&self, node_id: NodeId, area: &'static str, name: &'static str) -> Subject {
        self.make(format_args!("node.{node_id}.{}.{}", Word(area), Word(name)))
    }

    /// Where the object store tells of changed objects.
    pub fn object(&self) -> Subject {
        self.make(format_args!("object.bucket.changed"))
    }

    /// Everything that the object store tells.
    pub fn every_object(&self) -> Subject {
        self.make(format_args!("object.>"))
    }

    /// Where the schedule of a bucket of alarms is kept.
    pub fn alarm_bucket(&self, bucket: Bucket) -> Subject {
        self.make(format_args!("alarm.at.{}", bucket.0))
    }

    /// Where a bucket of alarms fires.
    pub fn alarms_due(&self, bucket: Bucket) -> Subject {
        self.make(format_args!("alarm.due.bucket.{}", bucket.0))
    }

    /// Where an alarm that was given up is asked for again.
    pub fn alarm_again(&self, kind: &'static str, subject_id: Uuid) -> Subject {
        self.make(format_args!("alarm.due.again.{}.{subject_id}", Word(kind)))
    }

    /// Everything that says to look at the alarms.
    pub fn every_alarm_due(&self) -> Subject {
        self.make(format_args!("alarm.due.>"))
    }

    /// Everything about alarms.
    pub fn every_alarm(&self) -> Subject {
        self.make(format_args!("alarm.>"))
    }

    /// Where a message of this stream goes that this consumer refused. Both are names that we gave or that the server
    /// took; a character that is no part of a token becomes `_`.
    pub fn dead(&self, stream: &str, consumer: &str) -> Subject {
        self.make(format_args!("dead.{}.{}", Word(stream), Word(consumer)))
    }

    /// Every dead letter.
    pub fn every_dead(&self) -> Subject {
        self.make(format_args!("dead.>"))
    }

    /// Where a message goes that this consumer of this stream is to handle once more.
    pub fn replay(&self, stream: &str, consumer: &str) -> Subject {
        self.make(format_args!("replay.{}.{}", Word(stream), Word(consumer)))
    }

    /// Everything that is to be handled once more.
    pub fn every_replay(&self) -> Subject {
        self.make(format_args!("replay.>"))
    }

    /// What a subject says; `None` when it is not one that this code makes.
    pub fn read(&self, subject: &str) -> Option<Meaning> {
        let rest = subject.strip_prefix(self.root.as_ref())?.strip_prefix('.')?;
        let tokens: Vec<&str> = rest.split('.').collect();
        if !tokens.iter().all(|token| is_token(token)) {
            return None;
        }
        match *tokens.as_slice() {
            ["req", area, name] => Some(Meaning::Request { area: area.to_owned(), name: name.to_owned() }),
            ["evt", area, name, account, entity] => Some(Meaning::Event {
                event_type: format!("{area}.{name}").parse().ok()?,
                account_id: if account == SYSTEM { None } else { Some(account.parse().ok()?) },
                entity_id: identifier(entity)?,
            }),
            ["live", area, name, account, entity] => Some(Meaning::Live {
                area: area.to_owned(),
                name: name.to_owned(),
                account_id: account.parse().ok()?,
                entity_id: identifier(entity)?,
            }),
            ["work", kind, id, dispatch_no] => Some(Meaning::Work {
                kind: WorkKind::from_token(kind)?,
                id: identifier(id)?,
                dispatch_no: dispatch_no.parse().ok()?,
            }),
            ["node", node, area, name] => {
                Some(Meaning::Node { node_id: node.parse().ok()?, area: area.to_owned(), name: name.to_owned() })
            }
            ["object", "bucket", "changed"] => Some(Meaning::Object),
            ["alarm", "at", second] => Some(Meaning::AlarmBucket { bucket: Bucket(second.parse().ok()?) }),
            ["alarm", "due", "bucket", second] => Some(Meaning::AlarmsDue { bucket: Bucket(second.parse().ok()?) }),
            ["alarm", "due", "again", kind, subject] => {
                Some(Meaning::AlarmAgain { kind: kind.to_owned(), subject_id: identifier(subject)? })
            }
            ["replay", stream, consumer] => Some(Meaning::Replay { stream: stream.to_owned(), consumer: consumer.to_owned() }),
            ["dead", stream, consumer] => Some(Meaning::Dead { stream: stream.to_owned(), consumer: consumer.to_owned() }),
            _ => None,
        }
    }

    fn make(&self, rest: fmt::Arguments<'_>) -> Subject {
        Subject(format!("{}.{rest}", self.root).into())
    }
}

/// What a NATS service is asked about itself (ADR-32).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Ping,
    Info,
    Stats,
}

impl Verb {
    pub(crate) const ALL: &'static [Verb] = &[Verb::Ping, Verb::Info, Verb::Stats];

    const fn token(self) -> &'static str {
        match self {
            Verb::Ping => "PING",
            Verb::Info => "INFO",
            Verb::Stats => "STATS",
        }
    }
}

/// Where a NATS service is asked: with all others, by its name, and by its id.
pub(crate) fn discovery(verb: Verb, name: &str, id: &str) -> [Subject; 3] {
    let verb = verb.token();
    let make = |subject: String| Subject(subject.into());
    [
        make(format!("$SRV.{verb}")),
        make(format!("$SRV.{verb}.{}", Word(name))),
        make(format!("$SRV.{verb}.{}.{}", Word(name), Word(id))),
    ]
}

/// Whether answers may go there: an inbox of a client, or what the server puts in place of one between accounts.
///
/// The server checks what somebody publishes, but not the reply subject that goes with it. Whoever answers lends the asker
/// its own permissions, and must not lend them for `$JS.API.STREAM.DELETE.EVENTS`.
pub(crate) fn is_inbox(reply: &str) -> bool {
    reply.starts_with("_INBOX.") || reply.starts_with("_INBOX_") || reply.starts_with("_R_.")
}

/// Where messages of a pull consumer are asked for.
pub(crate) fn pull(stream: &str, consumer: &str) -> Subject {
    Subject(format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", Word(stream), Word(consumer)).into())
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

fn identifier(token: &str) -> Option<Uuid> {
    // The hyphenated form only, so that each identifier has one spelling.
    (token.len() == 36).then(|| Uuid::parse_str(token).ok())?
}

/// A word as a token: whatever is no part of a token becomes `_`, and nothing becomes `_` as well.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_token(self.0) {
            return f.write_str(self.0);
        }
        if self.0.is_empty() {
            return f.write_str("_");
        }
        self.0.chars().try_for_each(|character| {
            let fits = character.is_ascii_alphanumeric() || character == '-' || character == '_';
            fmt::Write::write_char(f, if fits { character } else { '_' })
        })
    }
}

/// Whose, as a token.
struct Owner(Option<AccountId>);

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(account_id) => account_id.fmt(f),
            None => f.write_str(SYSTEM),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event;

    fn subjects() -> Subjects {
        Subjects::new("bowerbird").unwrap()
    }

    fn uuid() -> impl Strategy<Value = Uuid> {
        any::<u128>().prop_map(Uuid::from_u128)
    }

    #[test]
    fn subjects_are_written_as_documented() {
        let (subjects, id) = (subjects(), Uuid::from_u128(0x0198_c0de_7a2b_7c3d_8e4f_0123_4567_89ab));
        let account = AccountId(id);
        assert_eq!(subjects.request("download", "create").as_str(), "bowerbird.v1.req.download.create");
        assert_eq!(
            subjects.event(&event::DOWNLOAD_COMPLETED, Some(account), id).as_str(),
            format!("bowerbird.v1.evt.download.completed.{id}.{id}")
        );
        assert_eq!(subjects.event(&event::KEY_ROTATED, None, id).as_str(), format!("bowerbird.v1.evt.key.rotated.system.{id}"));
        assert_eq!(subjects.work(WorkKind::Downloads, id, 7).as_str(), format!("bowerbird.v1.work.download.{id}.7"));
        assert_eq!(subjects.object().as_str(), "bowerbird.v1.object.bucket.changed");
    }

    #[test]
    fn a_prefix_of_more_than_one_token_is_refused_with_a_sentence() {
        for prefix in ["", "a.b", "a b", "*", ">", "ä", "$SYS", &"x".repeat(33)] {
            assert!(Subjects::new(prefix).unwrap_err().to_string().contains("nats.prefix"), "{prefix}");
        }
    }

    #[test]
    fn what_is_not_of_this_scheme_is_not_read() {
        let id = Uuid::from_u128(1);
        for subject in [
            "bowerbird.v1".to_owned(),
            "bowerbird.v1.".to_owned(),
            "bowerbird.v2.req.download.create".to_owned(),
            "bowerbird.v1.req.download".to_owned(),
            "bowerbird.v1.req.*.create".to_owned(),
            "bowerbird.v1.req.download.>".to_owned(),
            "bowerbird.v1.req.download..create".to_owned(),
            format!("bowerbird.v1.work.download.{}.1", id.simple()),
            format!("bowerbird.v1.work.cakes.{id}.1"),
            format!("bowerbird.v1.work.download.{id}.one"),
            format!("bowerbird.v1.evt.download.completed.nobody.{id}"),
            format!("bowerbirds.v1.evt.download.completed.system.{id}"),
        ] {
            assert_eq!(subjects().read(&subject), None, "{subject}");
        }
    }

    proptest! {
        #[test]
        fn every_subject_reads_back_as_what_it_was_made_of(id in uuid(), account in uuid(), number in any::<i64>()) {
            let (subjects, account_id) = (subjects(), AccountId(account));
            let work = subjects.work(WorkKind::Downloads, id, number);
            prop_assert_eq!(
                subjects.read(work.as_str()),
                Some(Meaning::Work { kind: WorkKind::Downloads, id, dispatch_no: number })
            );
            for (event_type, _) in event::CATALOGUE {
                for account_id in [None, Some(account_id)] {
                    let subject = subjects.event(event_type, account_id, id);
                    let expected = Meaning::Event { event_type: event_type.clone(), account_id, entity_id: id };
                    prop_assert_eq!(subjects.read(subject.as_str()), Some(expected));
                }
            }
            let live = subjects.live("download", "progress", account_id, id);
            let expected =
                Meaning::Live { area: "download".into(), name: "progress".into(), account_id, entity_id: id };
            prop_assert_eq!(subjects.read(live.as_str()), Some(expected));
            let node = subjects.node(NodeId(id), "download", "stop");
            let expected = Meaning::Node { node_id: NodeId(id), area: "download".into(), name: "stop".into() };
            prop_assert_eq!(subjects.read(node.as_str()), Some(expected));
            let bucket = Bucket(number);
            prop_assert_eq!(subjects.read(subjects.alarm_bucket(bucket).as_str()), Some(Meaning::AlarmBucket { bucket }));
            prop_assert_eq!(subjects.read(subjects.alarms_due(bucket).as_str()), Some(Meaning::AlarmsDue { bucket }));
            let again = subjects.alarm_again("reminder", id);
            let expected = Meaning::AlarmAgain { kind: "reminder".into(), subject_id: id };
            prop_assert_eq!(subjects.read(again.as_str()), Some(expected));
        }

        #[test]
        fn no_text_adds_a_token_or_a_wildcard(stream in any::<String>(), consumer in any::<String>()) {
            let subject = subjects().dead(&stream, &consumer);
            prop_assert_eq!(subject.as_str().split('.').count(), 5);
            prop_assert!(subject.as_str().split('.').all(is_token));
        }

        #[test]
        fn no_text_becomes_an_event_type_that_breaks_a_subject(text in any::<String>(), id in uuid()) {
            if let Ok(event_type) = text.parse::<EventType>() {
                let subject = subjects().event(&event_type, None, id);
                prop_assert_eq!(subject.as_str().split('.').count(), 7);
                prop_assert!(subject.as_str().split('.').all(is_token));
            }
        }

        #[test]
        fn reading_never_panics(text in any::<String>(), tail in "[a-z.*>-]{0,60}") {
            let _ = subjects().read(&text);
            let _ = subjects().read(&format!("bowerbird.v1.{tail}"));
        }
    }
}
