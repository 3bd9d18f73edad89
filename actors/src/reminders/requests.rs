//! What owners ask about their reminders. Each operation is one transaction with its events and its alarm.

use std::sync::Arc;

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    Code, Page, Problem, ReminderId,
    answer::Call,
    credential::Caller,
    operation::Done,
    reminder::{
        About, CancelReminder, Clearable, CompleteReminder, CreateReminder, GetReminder, ListReminders, Reminder, SkipReminder,
        SnoozeReminder, Status, Trigger, UpdateReminder,
    },
};
use sqlx::{PgConnection, PgPool};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    check::{self, Checked},
    life::{Happened, Impossible, MakeUp},
    row::{Corrupt, Row, Timing, Watch, Words},
    schedule::HORIZON,
    store::{self, Filters},
    things::{self, Found, problem},
};
use crate::{
    alarms::{self, AlarmsAddress, Kind},
    cursor::{self, Cursors, List},
    database,
    downloads::check as texts,
    events, idempotency,
};

/// What is due within this time is told to the alarms of this process at once.
const SOON: Duration = Duration::seconds(5);

/// What the operations work with. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Requests(Arc<Collaborators>);

/// See [`Requests`].
pub(crate) struct Collaborators {
    pub(crate) pool: PgPool,
    pub(crate) ids: IdSource,
    pub(crate) cursors: Cursors,
    /// To be told of what is due soon.
    pub(crate) alarms: AlarmsAddress,
    /// Reminders that an account may have ahead of it.
    pub(crate) max_scheduled_per_account: u32,
    /// What is missed longer than this is not made up for.
    pub(crate) catch_up: Duration,
}

/// Things that a request names, and that are looked up.
struct Named {
    about: Option<About>,
    on_event: Option<Trigger>,
    unless_event: Option<Trigger>,
}

/// A reminder that is being changed: its alarm and its row are held.
struct Held<'a> {
    connection: &'a mut PgConnection,
    now: OffsetDateTime,
    row: Row,
}

impl Requests {
    /// Operations over these.
    pub(crate) fn new(collaborators: Collaborators) -> Self {
        Requests(Arc::new(collaborators))
    }

    /// Ask to be reminded.
    pub(crate) async fn create(self, call: Call<CreateReminder>) -> Result<Reminder, Problem> {
        let caller = call.account()?;
        let key = idempotency::Request::new(Some(caller.account_id), "reminder.create", call.idempotency_key, &call.fingerprint)?;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let ticket = match idempotency::begin(&mut transaction, key).await? {
            idempotency::Begun::Done(before) => {
                // Not left to the drop, which comes later: the key stays locked until then.
                transaction.rollback().await.map_err(|error| database::problem(&error))?;
                return Ok(before);
            }
            idempotency::Begun::New(ticket) => ticket,
        };
        let now = store::now(&mut transaction).await.map_err(|error| problem(&error))?;
        let checked = check::reminder(call.request, now, true)?;
        if !store::is_enabled(&mut transaction, caller.account_id).await.map_err(|error| problem(&error))? {
            return Err(Problem::new(Code::Forbidden, "this account may do nothing; ask whoever runs this server"));
        }
        let Checked { words, timing, on_event, unless_event } = checked;
        let named = Named { about: words.about, on_event, unless_event };
        let mut row = self.blank(caller, now, words, timing);
        let mut happened = vec![Happened::Created];
        happened.extend(self.resolve(&mut transaction, caller, &mut row, named, true).await?);
        self.admit(&mut transaction, &row).await?;
        let row = store::insert(&mut transaction, &row).await.map_err(|error| problem(&error))?;
        self.tell_and_arm(&mut transaction, &row, &happened).await?;
        let reminder = row.to_reminder();
        idempotency::finish(&mut transaction, ticket, &reminder).await?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        self.look_soon(&row, now);
        Ok(reminder)
    }

    /// One reminder.
    pub(crate) async fn get(self, call: Call<GetReminder>) -> Result<Reminder, Problem> {
        let caller = call.account()?;
        let row = store::find(&self.0.pool, caller.account_id, call.request.id).await.map_err(|error| problem(&error))?;
        row.map(|row| row.to_reminder()).ok_or_else(unknown)
    }

    /// The caller's reminders, newest first.
    pub(crate) async fn list(self, call: Call<ListReminders>) -> Result<Page<Reminder>, Problem> {
        let caller = call.account()?;
        let ListReminders { status, about, due_before, due_after, q, limit, cursor } = call.request;
        let limit = cursor::limit(limit)?;
        texts::search(q.as_deref())?;
        let about_text = about.map(|about| about.to_string());
        let [due_before_text, due_after_text] =
            [due_before, due_after].map(|at| at.and_then(|at| at.to_utc().format(&Rfc3339).ok()));
        let filters = [
            status.map(Status::as_str),
            about_text.as_deref(),
            due_before_text.as_deref(),
            due_after_text.as_deref(),
            q.as_deref(),
        ];
        let list = List { name: "reminders", account: caller.account_id, filters: &filters };
        let before = cursor.map(|cursor| self.0.cursors.read(&list, &cursor)).transpose()?;
        let pattern = q.as_deref().filter(|q| !q.is_empty()).map(texts::containing);
        let filters = Filters { status, about, due_before, due_after, pattern: pattern.as_deref(), before };
        // One more than asked for says whether there is a next page.
        let (mut rows, beyond) =
            store::list(&self.0.pool, caller.account_id, &filters, limit + 1).await.map_err(|error| problem(&error))?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        // A page that is not full goes on behind what was looked at for it.
        let last = rows.last().filter(|_| more).map(|last| last.id.0).or(beyond);
        let next_cursor = last.map(|last| self.0.cursors.after(&list, last));
        Ok(Page { items: rows.iter().map(Row::to_reminder).collect(), next_cursor })
    }

    /// Change a reminder. When it fires can be changed as long as it has not ended.
    pub(crate) async fn update(self, call: Call<UpdateReminder>) -> Result<Reminder, Problem> {
        let caller = call.account()?;
        let UpdateReminder { id, if_version, changes } = call.request;
        if changes.channels.as_ref().is_some_and(Vec::is_empty) {
            return Err(Problem::invalid("channels", "must name at least one; leave it out to keep those that there are"));
        }
        let requests = self.clone();
        self.on(caller, id, async move |held| {
            if let Some(asked) = if_version.filter(|asked| *asked != held.row.version) {
                return Err(texts::changed(asked, held.row.version));
            }
            if held.row.status == Status::Canceled {
                return Err(impossible(Impossible::Ended(Status::Canceled)));
            }
            let given =
                Named { about: changes.about, on_event: changes.on_event.clone(), unless_event: changes.unless_event.clone() };
            let unwatched = changes.clear.contains(&Clearable::OnEvent);
            let (asked, timed) = check::merge(held.row.to_reminder(), changes);
            let anew = timed || given.on_event.is_some() || unwatched;
            let checked = check::reminder(asked, held.now, anew)?;
            // One that has fired stays so: whoever moves it must learn that it was too late.
            if anew && held.row.status != Status::Scheduled {
                return Err(impossible(Impossible::Ended(held.row.status)));
            }
            held.row.words = checked.words;
            held.row.timing = checked.timing;
            held.row.changed(held.now);
            let kept =
                |watch: Option<Watch>, wanted: Option<Trigger>| watch.filter(|watch| wanted.as_ref() == Some(&watch.trigger));
            held.row.on_event = kept(held.row.on_event.take(), checked.on_event);
            held.row.unless_event = kept(held.row.unless_event.take(), checked.unless_event);
            let mut happened = vec![Happened::Updated];
            happened.extend(requests.resolve(held.connection, caller, &mut held.row, given, anew).await?);
            Ok(happened)
        })
        .await
    }

    /// Put a reminder off.
    pub(crate) async fn snooze(self, call: Call<SnoozeReminder>) -> Result<Reminder, Problem> {
        let caller = call.account()?;
        let SnoozeReminder { id, until, seconds } = call.request;
        let requests = self.clone();
        self.on(caller, id, async move |held| {
            let (field, until) = match (until, seconds) {
                (Some(until), None) => ("until", until),
                (None, Some(0)) => return Err(Problem::invalid("seconds", "must be at least 1")),
                (None, Some(seconds)) => ("seconds", held.now + Duration::seconds(i64::from(seconds))),
                _ => return Err(Problem::invalid("until", "give either until or seconds")),
            };
            if until <= held.now {
                return Err(Problem::invalid(field, "is past"));
            }
            if until > held.now.saturating_add(HORIZON) {
                return Err(Problem::invalid(field, "must not be more than 100 years ahead"));
            }
            let was_scheduled = held.row.status == Status::Scheduled;
            let happened = held.row.snooze(held.now, until).map_err(impossible)?;
            if !was_scheduled {
                requests.admit(held.connection, &held.row).await?;
            }
            Ok(vec![happened])
        })
        .await
    }

    /// Let the next firing of a reminder that repeats pass.
    pub(crate) async fn skip(self, call: Call<SkipReminder>) -> Result<Reminder, Problem> {
        let caller = call.account()?;
        self.on(caller, call.request.id, async |held| {
            let skipped = held.row.skip(held.now).map_err(|error| corrupt(&error))?;
            Ok(vec![skipped.map_err(impossible)?])
        })
        .await
    }

    /// Be done with a reminder. Of one that was completed before, the answer is the same again.
    pub(crate) async fn complete(self, call: Call<CompleteReminder>) -> Result<Reminder, Problem> {
        let caller = call.account()?;
        self.on(caller, call.request.id, async |held| Ok(held.row.complete(held.now).map_err(impossible)?.into_iter().collect()))
            .await
    }

    /// Cancel a reminder. One that was canceled before stays so.
    pub(crate) async fn cancel(self, call: Call<CancelReminder>) -> Result<Done, Problem> {
        let caller = call.account()?;
        self.on(caller, call.request.id, async |held| Ok(held.row.give_up(held.now).map_err(impossible)?.into_iter().collect()))
            .await?;
        Ok(Done {})
    }

    /// Do something to a reminder of the caller: what it tells of is written with its row and its alarm; nothing is
    /// written when there is nothing to tell.
    async fn on(
        &self,
        caller: Caller,
        id: ReminderId,
        change: impl AsyncFnOnce(&mut Held<'_>) -> Result<Vec<Happened>, Problem>,
    ) -> Result<Reminder, Problem> {
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        alarms::hold(&mut transaction, Kind::Reminder, id.0).await.map_err(|error| database::problem(&error))?;
        let row = store::find_locked(&mut transaction, caller.account_id, id).await.map_err(|error| problem(&error))?;
        let row = row.ok_or_else(unknown)?;
        // Asked for after both are held: it may have taken a while.
        let now = store::clock(&mut transaction).await.map_err(|error| problem(&error))?;
        let mut held = Held { connection: &mut transaction, now, row };
        let happened = change(&mut held).await?;
        let row = held.row;
        if happened.is_empty() {
            return Ok(row.to_reminder());
        }
        let row = store::change(&mut transaction, &row).await.map_err(|error| problem(&error))?;
        self.tell_and_arm(&mut transaction, &row, &happened).await?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        self.look_soon(&row, now);
        Ok(row.to_reminder())
    }

    /// What is due before the alarms look by themselves.
    fn look_soon(&self, row: &Row, now: OffsetDateTime) {
        if row.next_fire_at.is_some_and(|next| next - now < SOON) {
            self.0.alarms.look();
        }
    }

    /// A row for a new reminder, not yet scheduled.
    fn blank(&self, caller: Caller, now: OffsetDateTime, words: Words, timing: Timing) -> Row {
        Row {
            id: ReminderId(self.0.ids.next()),
            account_id: caller.account_id,
            words,
            timing,
            on_event: None,
            unless_event: None,
            status: Status::Scheduled,
            next_fire_at: None,
            next_local: None,
            snoozed_until: None,
            floor_at: now,
            handled_local: None,
            zone_rules: None,
            last_fired_at: None,
            fired: 0,
            version: 1,
            created_at: now,
            updated_at: now,
            ended_at: None,
        }
    }

    /// Look at the things that are named, and schedule anew if that is asked for. What happens at once is told.
    async fn resolve(
        &self,
        connection: &mut PgConnection,
        caller: Caller,
        row: &mut Row,
        named: Named,
        anew: bool,
    ) -> Result<Option<Happened>, Problem> {
        if let Some(about) = &named.about {
            things::about(connection, caller.account_id, about).await?;
        }
        if let Some(trigger) = named.unless_event {
            match things::watch(connection, caller.account_id, "unless_event", trigger).await? {
                Found::Ahead(watch) => row.unless_event = Some(watch),
                Found::Happened(_) => return Err(Problem::invalid("unless_event.type", "has happened already")),
            }
        }
        let mut at_once = false;
        if let Some(trigger) = named.on_event {
            let found = things::watch(connection, caller.account_id, "on_event", trigger).await?;
            at_once = matches!(found, Found::Happened(_));
            let (Found::Ahead(watch) | Found::Happened(watch)) = found;
            row.on_event = Some(watch);
        }
        if anew && !row.start(row.updated_at).map_err(|error| corrupt(&error))? {
            return Err(Problem::invalid(
                "due_at",
                "the reminder has neither a time nor an event that is still ahead; give it one",
            ));
        }
        Ok(at_once
            .then(|| row.on_event(row.updated_at, row.updated_at, MakeUp::Within(self.0.catch_up)))
            .into_iter()
            .flatten()
            .next())
    }

    /// One more reminder that is ahead of its account, if it is one.
    async fn admit(&self, connection: &mut PgConnection, row: &Row) -> Result<(), Problem> {
        let most = self.0.max_scheduled_per_account;
        let admitted = row.status != Status::Scheduled
            || store::has_room(connection, row.account_id, row.id, most).await.map_err(|error| problem(&error))?;
        if admitted {
            return Ok(());
        }
        Err(Problem::new(
            Code::TooMany,
            format!("the account has {most} reminders ahead of it, as many as it may; cancel or complete some"),
        ))
    }

    /// After the row was written: its alarm as `next_fire_at` says, and what happened.
    async fn tell_and_arm(&self, connection: &mut PgConnection, row: &Row, happened: &[Happened]) -> Result<(), Problem> {
        let armed = match row.next_fire_at {
            Some(at) => alarms::arm(connection, Kind::Reminder, row.id.0, at).await,
            None => alarms::cancel(connection, Kind::Reminder, row.id.0).await.map(|_| ()),
        };
        armed.map_err(|error| database::problem(&error))?;
        let told = happened.iter().map(|happened| row.tell(self.0.ids, happened)).collect();
        events::record_many(connection, told).await.map_err(|error| database::problem(&error))
    }
}

fn unknown() -> Problem {
    Problem::not_found("reminder")
}

fn impossible(why: Impossible) -> Problem {
    Problem::new(Code::InvalidState, why.to_string())
}

fn corrupt(error: &Corrupt) -> Problem {
    problem(&store::Error::Corrupt(error.clone()))
}
