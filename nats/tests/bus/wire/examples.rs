//! One example of everything that is said on the bus.

mod drive;
mod shares;
mod uploads;
mod webhooks;

use std::collections::BTreeMap;

use bowerbird_nats::{
    AccountId, DeadLetterId, DownloadId, EventId, FileId, Operation, Page, ReminderId, SessionId,
    account::{self, Account, GetAccount, GetUsage, Register, RequestEmailVerification, Role, UpdateAccount, Usage, VerifyEmail},
    dead_letter::{DeadLetter, DeleteDeadLetter, GetDeadLetter, Header, ListDeadLetters, OpenedDeadLetter, ReplayDeadLetter},
    download::{
        self, Algorithm, CancelDownload, Changed, Checksum, CreateDownload, DeleteDownload, Download, ErrorCode, Failure,
        GetDownload, ListDownloads, RetryDownload, Status, UpdateDownload, Verified, Work,
    },
    event::{self, EventType},
    id::NodeId,
    id::NotificationId,
    json,
    key::{KeySet, PublicKey, Rotated},
    notification::{
        self, ChangeSettings, EmailStatus, GetSettings, ListNotifications, Notification, QuietHours, ReadAllNotifications,
        ReadNotification, Unsubscribe, Weekday,
    },
    operation::Done,
    reminder::{
        self, About, AboutKind, CancelReason, CancelReminder, Canceled, Cause, Channel, Clearable, CompleteReminder,
        CreateReminder, Fired, GetReminder, ListReminders, Missed, Reminder, ReminderChanges, SkipReminder, SnoozeReminder,
        Trigger, UpdateReminder,
    },
    session::{self, Login, Logout, Refresh, TokenPair, Verify},
    statistics::{Counts, Day, GetStatistics, GetSystemStatistics, Statistics},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use time::{
    OffsetDateTime,
    macros::{date, datetime},
};
use uuid::Uuid;

use self::drive::a_file;

const AT: OffsetDateTime = datetime!(2026-02-03 04:05:06.789 UTC);

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(0x0198_c0de_7a2b_7c3d_8e4f_0000_0000_0000 + number)
}

/// Name and body of every example.
#[derive(Default)]
pub(crate) struct Examples(pub(crate) Vec<(String, Value)>);

impl Examples {
    /// A request with its reply. Both must read back as they were.
    fn operation<O>(&mut self, request: &O, reply: &O::Reply)
    where
        O: Operation + PartialEq + std::fmt::Debug,
        O::Reply: PartialEq + std::fmt::Debug,
    {
        let body = serde_json::to_vec(request).unwrap();
        assert_eq!(&json::parse::<O>(&body).unwrap(), request);
        self.add(format!("req.{}.{}", O::AREA, O::NAME), request);
        let name = format!("rep.{}.{}", O::AREA, O::NAME);
        self.add(name, reply);
        let body = serde_json::to_vec(reply).unwrap();
        assert_eq!(&serde_json::from_slice::<O::Reply>(&body).unwrap(), reply);
    }

    fn event<T>(&mut self, event_type: &EventType, data: &T)
    where
        T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let body = serde_json::to_vec(data).unwrap();
        assert_eq!(&serde_json::from_slice::<T>(&body).unwrap(), data);
        self.add(format!("evt.{event_type}"), data);
    }

    fn add(&mut self, name: String, body: &impl Serialize) {
        self.0.push((name, serde_json::to_value(body).unwrap()));
    }
}

fn account() -> Account {
    Account {
        id: AccountId(uuid(1)),
        account_name: "anna".into(),
        email: Some("anna@example.org".into()),
        email_verified: true,
        display_name: Some("Anna".into()),
        role: Role::User,
        quota_bytes: 107_374_182_400,
        created_at: AT,
    }
}

fn tokens() -> TokenPair {
    TokenPair {
        access_token: "eyJ0eXAiOiJhdCtqd3QifQ.e30.c2ln".into(),
        token_type: "Bearer".into(),
        expires_in: 300,
        refresh_token: "bwr_0198c0de".into(),
        refresh_expires_in: 604_800,
        session_id: SessionId(uuid(2)),
        account_id: AccountId(uuid(1)),
    }
}

fn checksum() -> Checksum {
    Checksum { algorithm: Algorithm::Sha256, value: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".into() }
}

fn waiting() -> Download {
    Download {
        id: DownloadId(uuid(3)),
        url: "https://example.org/film.mkv".into(),
        file_name: Some("film.mkv".into()),
        folder: "/films".into(),
        status: Status::Queued,
        size_bytes: None,
        received_bytes: 0,
        bytes_per_second: 0,
        connections: 0,
        content_type: None,
        sha256: None,
        checksum: Some(checksum()),
        priority: 5,
        attempt: 0,
        max_attempts: 8,
        start_at: None,
        next_attempt_at: None,
        file_id: None,
        verified: Verified::None,
        error: None,
        created_at: AT,
        started_at: None,
        finished_at: None,
    }
}

fn running() -> Download {
    Download {
        status: Status::Running,
        size_bytes: Some(734_003_200),
        received_bytes: 104_857_600,
        bytes_per_second: 52_428_800,
        connections: 8,
        content_type: Some("video/x-matroska".into()),
        attempt: 1,
        started_at: Some(AT),
        ..waiting()
    }
}

fn completed() -> Download {
    Download {
        status: Status::Completed,
        received_bytes: 734_003_200,
        bytes_per_second: 0,
        connections: 0,
        sha256: Some(checksum().value),
        file_id: Some(FileId(uuid(4))),
        verified: Verified::Digest,
        finished_at: Some(AT),
        ..running()
    }
}

fn failed() -> Download {
    Download {
        status: Status::Failed,
        bytes_per_second: 0,
        connections: 0,
        attempt: 8,
        error: Some(Failure {
            code: ErrorCode::HttpStatus,
            detail: "the server answered 404 Not Found".into(),
            retryable: false,
        }),
        finished_at: Some(AT),
        ..running()
    }
}

fn a_letter() -> DeadLetter {
    DeadLetter {
        id: DeadLetterId(uuid(6)),
        stream: "EVENTS".into(),
        consumer: "statistics".into(),
        subject: format!("bowerbird.v1.evt.file.purged.{}.{}", uuid(1), uuid(4)),
        reason: "the body is not that of file.purged: missing field `size_bytes`".into(),
        deliveries: 1,
        size_bytes: 2,
        refused_at: AT,
        replayed_at: Some(AT),
    }
}

fn statistics() -> Statistics {
    let counts =
        Counts { downloads_queued: 2, downloads_completed: 1, downloaded_bytes: 734_003_200, events: 4, ..Counts::default() };
    let (from, to) = (date!(2026 - 02 - 02), date!(2026 - 02 - 03));
    let days = vec![Day { day: from, counts: Counts::default() }, Day { day: to, counts }];
    Statistics { from, to, days, total: counts }
}

fn a_reminder() -> Reminder {
    Reminder {
        id: ReminderId(uuid(6)),
        title: "Watch the film".into(),
        note: Some("With the others.".into()),
        status: reminder::Status::Scheduled,
        due_at: None,
        local_time: Some("2026-02-06T20:00:00".into()),
        time_zone: Some("Europe/Berlin".into()),
        rrule: Some("FREQ=WEEKLY;BYDAY=FR".into()),
        exdates: vec!["2026-04-03".into()],
        ends_at: Some(AT + time::Duration::days(365)),
        channels: vec![Channel::Inbox, Channel::Email],
        about: Some(About { kind: AboutKind::File, id: uuid(4) }),
        on_event: None,
        unless_event: Some(Trigger { event_type: "file.purged".into(), id: uuid(4) }),
        next_fire_at: Some(datetime!(2026-02-06 19:00 UTC)),
        snoozed_until: None,
        last_fired_at: None,
        fired: 0,
        version: 1,
        created_at: AT,
        updated_at: AT,
        ended_at: None,
    }
}

fn reminders(examples: &mut Examples) {
    let id = ReminderId(uuid(6));
    let finished = Trigger { event_type: "download.completed".into(), id: uuid(3) };
    let create = CreateReminder {
        title: "Watch the film".into(),
        note: Some("With the others.".into()),
        due_at: None,
        local_time: Some("2026-02-06T20:00".into()),
        time_zone: Some("Europe/Berlin".into()),
        rrule: Some("FREQ=WEEKLY;BYDAY=FR".into()),
        exdates: vec!["2026-04-03".into()],
        ends_at: Some(AT + time::Duration::days(365)),
        channels: vec![Channel::Inbox, Channel::Email],
        about: Some(About { kind: AboutKind::File, id: uuid(4) }),
        on_event: None,
        unless_event: Some(Trigger { event_type: "file.purged".into(), id: uuid(4) }),
    };
    examples.operation(&create, &a_reminder());
    examples.operation(&GetReminder { id }, &a_reminder());
    let list = ListReminders {
        status: Some(reminder::Status::Scheduled),
        about: Some(uuid(4)),
        due_before: Some(AT + time::Duration::days(7)),
        due_after: Some(AT),
        q: Some("film".into()),
        limit: Some(50),
        cursor: Some("b3BhcXVl".into()),
    };
    examples.operation(&list, &Page { items: vec![a_reminder()], next_cursor: None });
    let changes = ReminderChanges {
        title: Some("Watch it when it is there, or at eight".into()),
        due_at: Some(datetime!(2026-02-06 20:00 UTC)),
        on_event: Some(finished.clone()),
        clear: vec![Clearable::Rrule, Clearable::About, Clearable::UnlessEvent],
        ..ReminderChanges::default()
    };
    let changed = Reminder {
        title: "Watch it when it is there, or at eight".into(),
        due_at: Some(datetime!(2026-02-06 20:00 UTC)),
        local_time: None,
        rrule: None,
        exdates: Vec::new(),
        ends_at: None,
        about: None,
        on_event: Some(finished),
        unless_event: None,
        next_fire_at: Some(datetime!(2026-02-06 20:00 UTC)),
        version: 2,
        ..a_reminder()
    };
    examples.operation(&UpdateReminder { id, if_version: Some(3), changes }, &changed);
    let snoozed = Reminder {
        next_fire_at: Some(AT + time::Duration::minutes(10)),
        snoozed_until: Some(AT + time::Duration::minutes(10)),
        version: 2,
        ..a_reminder()
    };
    examples.operation(&SnoozeReminder { id, until: None, seconds: Some(600) }, &snoozed);
    let skipped = Reminder { next_fire_at: Some(datetime!(2026-02-13 19:00 UTC)), version: 2, ..a_reminder() };
    examples.operation(&SkipReminder { id }, &skipped);
    let ended = |status| Reminder { status, next_fire_at: None, version: 2, ended_at: Some(AT), ..a_reminder() };
    examples.operation(&CompleteReminder { id }, &ended(reminder::Status::Completed));
    examples.operation(&CancelReminder { id }, &Done {});

    examples.event(&event::REMINDER_CREATED, &reminder::Changed { reminder: a_reminder() });
    examples.event(&event::REMINDER_UPDATED, &reminder::Changed { reminder: changed });
    examples.event(&event::REMINDER_SNOOZED, &reminder::Changed { reminder: snoozed });
    examples.event(&event::REMINDER_COMPLETED, &reminder::Changed { reminder: ended(reminder::Status::Completed) });
    let canceled = Canceled { reminder: ended(reminder::Status::Canceled), reason: CancelReason::Event };
    examples.event(&event::REMINDER_CANCELED, &canceled);
    let fired = Fired {
        reminder_id: id,
        title: "Watch the film".into(),
        note: Some("With the others.".into()),
        channels: vec![Channel::Inbox, Channel::Email],
        cause: Cause::Time,
        due_at: datetime!(2026-02-06 19:00 UTC),
        fired_at: datetime!(2026-02-06 19:00:00.041 UTC),
        late: false,
        occurrence: 1,
        next_fire_at: Some(datetime!(2026-02-13 19:00 UTC)),
        about: Some(About { kind: AboutKind::File, id: uuid(4) }),
    };
    examples.event(&event::REMINDER_FIRED, &fired);
    let missed = Missed {
        reminder_id: id,
        title: "Watch the film".into(),
        due_at: datetime!(2026-02-06 19:00 UTC),
        missed_at: datetime!(2026-02-09 06:30 UTC),
        occurrences: 1,
        reason: "it was due 2days 11h 30m ago, and reminders are made up for within 1day".into(),
        next_fire_at: Some(datetime!(2026-02-13 19:00 UTC)),
    };
    examples.event(&event::REMINDER_MISSED, &missed);
}

fn a_notification() -> Notification {
    Notification {
        id: NotificationId(uuid(6)),
        event_id: EventId(uuid(7)),
        event_type: "download.completed".into(),
        entity_id: uuid(3),
        title: "Downloaded: film.mkv".into(),
        body: Some("700.0 MiB in /films".into()),
        occurred_at: AT,
        created_at: AT,
        read_at: None,
    }
}

fn notifications(examples: &mut Examples) {
    let id = NotificationId(uuid(6));
    let list = ListNotifications { unread: Some(true), limit: Some(50), cursor: Some("b3BhcXVl".into()) };
    examples.operation(&list, &Page { items: vec![a_notification()], next_cursor: None });
    examples.operation(&ReadNotification { id }, &Notification { read_at: Some(AT), ..a_notification() });
    examples.operation(&ReadAllNotifications {}, &Done {});
    let events = BTreeMap::from([
        ("download.completed".to_owned(), vec![notification::Channel::Inbox]),
        ("download.failed".to_owned(), vec![notification::Channel::Inbox, notification::Channel::Email]),
    ]);
    let zone = || "Europe/Berlin".to_owned();
    let quiet_hours = Some(QuietHours { from: "22:00".into(), until: "07:00".into(), time_zone: zone() });
    let digest = Some(notification::Digest { at: "08:00".into(), weekdays: vec![Weekday::Monday], time_zone: zone() });
    let settings = notification::Settings {
        events: events.clone(),
        email: true,
        email_status: EmailStatus::On,
        quiet_hours: quiet_hours.clone(),
        digest: digest.clone(),
    };
    examples.operation(&GetSettings {}, &settings);
    examples.operation(&ChangeSettings { events, email: true, quiet_hours, digest }, &settings);
    examples.operation(&Unsubscribe { token: "AZjA3nosfD2OTwAAAAAAAQ".into() }, &Done {});
    let delivered = notification::Delivered { notification: a_notification(), channel: notification::Channel::Inbox };
    examples.event(&event::NOTIFICATION_DELIVERED, &delivered);
    let reason = "the mail server refused it: 550".into();
    examples.event(
        &event::NOTIFICATION_FAILED,
        &notification::Failed { notification_id: id, channel: notification::Channel::Email, reason },
    );
}

/// Every request with its reply, every event, and what else is said.
pub(crate) fn all() -> Examples {
    let mut examples = Examples::default();
    let download_id = DownloadId(uuid(3));

    let register = Register {
        account_name: "anna".into(),
        password: "correct horse battery staple".into(),
        email: Some("anna@example.org".into()),
        display_name: Some("Anna".into()),
    };
    examples.operation(&register, &account());
    examples.operation(&GetAccount {}, &account());
    let update = UpdateAccount {
        email: Some("anna@example.com".into()),
        display_name: None,
        clear: vec![account::Clearable::DisplayName],
        password: Some("correct horse battery staple".into()),
    };
    let updated = Account { email: Some("anna@example.com".into()), email_verified: false, display_name: None, ..account() };
    examples.operation(&update, &updated);
    let usage =
        Usage { stored_bytes: 734_003_200, reserved_bytes: 0, quota_bytes: 107_374_182_400, files: 1, unfinished_downloads: 0 };
    examples.operation(&GetUsage {}, &usage);
    examples.operation(&RequestEmailVerification {}, &Done {});
    examples.operation(&VerifyEmail { token: "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg".into() }, &Done {});

    let login =
        Login { login: "anna".into(), password: "correct horse battery staple".into(), device_name: Some("laptop".into()) };
    examples.operation(&login, &tokens());
    examples.operation(&Refresh { refresh_token: "bwr_0198c0de".into() }, &tokens());
    examples.operation(&Logout { refresh_token: "bwr_0198c0de".into() }, &Done {});
    let verified =
        session::Verified { account_id: AccountId(uuid(1)), session_id: SessionId(uuid(2)), role: Role::User, expires_at: AT };
    examples.operation(&Verify { access_token: tokens().access_token }, &verified);

    let create = CreateDownload {
        url: "https://example.org/film.mkv?token=secret".into(),
        file_name: Some("film.mkv".into()),
        folder: Some("/films".into()),
        headers: BTreeMap::from([("Referer".to_owned(), "https://example.org/".to_owned())]),
        checksum: Some(checksum()),
        max_connections: Some(8),
        priority: Some(5),
        start_at: Some(AT),
        max_attempts: Some(8),
    };
    examples.operation(&create, &waiting());
    examples.operation(&GetDownload { id: download_id }, &running());
    let list =
        ListDownloads { status: Some(Status::Running), q: Some("film".into()), limit: Some(50), cursor: Some("b3BhcXVl".into()) };
    examples.operation(&list, &Page { items: vec![running()], next_cursor: Some("b3BhcXVl".into()) });
    let update =
        UpdateDownload { id: download_id, url: Some("https://example.org/film.mkv?token=new".into()), priority: Some(9) };
    examples.operation(&update, &Download { priority: 9, ..waiting() });
    examples.operation(&CancelDownload { id: download_id }, &Download { status: Status::Canceled, ..waiting() });
    examples.operation(&RetryDownload { id: download_id }, &waiting());
    examples.operation(&DeleteDownload { id: download_id, with_file: true }, &Done {});

    let (from, to) = (Some(date!(2026 - 02 - 02)), Some(date!(2026 - 02 - 03)));
    examples.operation(&GetStatistics { from, to }, &statistics());
    examples.operation(&GetSystemStatistics { from, to: None }, &statistics());
    let letter_id = DeadLetterId(uuid(6));
    let list = ListDeadLetters {
        stream: Some("EVENTS".into()),
        consumer: Some("statistics".into()),
        limit: Some(50),
        cursor: Some("b3BhcXVl".into()),
    };
    examples.operation(&list, &Page { items: vec![a_letter()], next_cursor: None });
    let header = Header { name: "ce-type".into(), value: "file.purged".into() };
    let opened = OpenedDeadLetter { letter: a_letter(), headers: vec![header], body_base64: "e30=".into() };
    examples.operation(&GetDeadLetter { id: letter_id }, &opened);
    examples.operation(&ReplayDeadLetter { id: letter_id }, &a_letter());
    examples.operation(&DeleteDeadLetter { id: letter_id }, &Done {});

    let registered = account::Registered { account_id: AccountId(uuid(1)), account_name: "anna".into(), role: Role::User };
    examples.event(&event::ACCOUNT_REGISTERED, &registered);
    let changed = vec![account::Field::Email, account::Field::DisplayName];
    examples.event(&event::ACCOUNT_UPDATED, &account::Updated { account_id: AccountId(uuid(1)), changed });
    let opened =
        session::Opened { session_id: SessionId(uuid(2)), account_id: AccountId(uuid(1)), device_name: Some("laptop".into()) };
    examples.event(&event::SESSION_OPENED, &opened);
    let closed =
        |reason: &str| session::Closed { session_id: SessionId(uuid(2)), account_id: AccountId(uuid(1)), reason: reason.into() };
    examples.event(&event::SESSION_CLOSED, &closed("logout"));
    examples.event(&event::KEY_ROTATED, &Rotated { kid: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".into() });
    for (event_type, download) in [
        (&event::DOWNLOAD_QUEUED, waiting()),
        (&event::DOWNLOAD_STARTED, Download { received_bytes: 0, ..running() }),
        (&event::DOWNLOAD_COMPLETED, completed()),
        (&event::DOWNLOAD_FAILED, failed()),
        (&event::DOWNLOAD_CANCELED, Download { status: Status::Canceled, finished_at: Some(AT), ..waiting() }),
    ] {
        examples.event(event_type, &Changed { download });
    }
    drive::add(&mut examples);
    shares::add(&mut examples);

    reminders(&mut examples);
    uploads::add(&mut examples);
    webhooks::add(&mut examples);
    notifications(&mut examples);

    let progress = download::Progress {
        download_id,
        received_bytes: 104_857_600,
        size_bytes: Some(734_003_200),
        bytes_per_second: 52_428_800,
        connections: 8,
    };
    examples.add("live.download.progress".into(), &progress);
    examples.add("work.download".into(), &Work { download_id, dispatch_no: 1 });
    examples.add("node.download.stop".into(), &download::Stop { node_id: NodeId(uuid(5)), download_id });
    let key = PublicKey {
        kid: "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".into(),
        kty: "RSA".into(),
        usage: "sig".into(),
        alg: "RS256".into(),
        n: "0vx7agoebGcQSuu".into(),
        e: "AQAB".into(),
    };
    examples.add("kv.KEYS.current".into(), &KeySet { keys: vec![key] });
    examples.add("problem".into(), &bowerbird_nats::Problem::not_found("download").with_request_id("0198c0de"));
    examples
}
