//! What owners and operators ask about statistics.

use bowerbird_nats::{
    AccountId, Problem,
    answer::Call,
    event::{self, EventType},
    statistics::{Counts, DAYS_DEFAULT, DAYS_MAX, Day, GetStatistics, GetSystemStatistics, Statistics},
};
use sqlx::PgPool;
use time::{Date, Duration};

use super::{counted::Count, store};
use crate::database;

/// What the operations work with. Cheap to clone.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) pool: PgPool,
}

impl Requests {
    /// What happened to the caller's things.
    pub(super) async fn get(self, call: Call<GetStatistics>) -> Result<Statistics, Problem> {
        let caller = call.account()?;
        self.read(Some(caller.account_id), call.request.from, call.request.to).await
    }

    /// What happened to everybody's things.
    pub(super) async fn system(self, call: Call<GetSystemStatistics>) -> Result<Statistics, Problem> {
        self.read(None, call.request.from, call.request.to).await
    }

    async fn read(&self, account: Option<AccountId>, from: Option<Date>, to: Option<Date>) -> Result<Statistics, Problem> {
        let today = store::today(&self.pool).await.map_err(|error| database::problem(&error))?;
        let (from, to) = span(from, to, today)?;
        let rows = store::read(&self.pool, account, from, to).await.map_err(|error| database::problem(&error))?;
        let (mut days, mut total) = (Vec::new(), Counts::default());
        let mut day = Some(from);
        while let Some(current) = day.filter(|day| *day <= to) {
            days.push(Day { day: current, counts: Counts::default() });
            day = current.next_day();
        }
        for (day, event_type, count) in rows {
            if let Ok(index) = usize::try_from((day - from).whole_days())
                && let Some(of_day) = days.get_mut(index)
            {
                add(&mut of_day.counts, &event_type, count);
                add(&mut total, &event_type, count);
            }
        }
        Ok(Statistics { from, to, days, total })
    }
}

/// The days that are asked for.
fn span(from: Option<Date>, to: Option<Date>, today: Date) -> Result<(Date, Date), Problem> {
    let to = to.unwrap_or(today);
    let from = from.unwrap_or_else(|| to.saturating_sub(Duration::days(i64::from(DAYS_DEFAULT) - 1)));
    if from > to {
        return Err(Problem::invalid("from", "the first day must not come after the last"));
    }
    if (to - from).whole_days() >= i64::from(DAYS_MAX) {
        return Err(Problem::invalid("from", format!("at most {DAYS_MAX} days are answered at once")));
    }
    Ok((from, to))
}

/// Which count of an answer a type belongs to. Each has its own; all belong to `events`.
fn add(counts: &mut Counts, event_type: &str, count: Count) {
    const REMINDER_FIRED: &str = "reminder.fired";
    const NOTIFICATION_DELIVERED: &str = "notification.delivered";
    const NOTIFICATION_FAILED: &str = "notification.failed";
    let is = |known: &EventType| known.as_str() == event_type;
    counts.events += count.events;
    if is(&event::DOWNLOAD_QUEUED) {
        counts.downloads_queued += count.events;
    } else if is(&event::DOWNLOAD_COMPLETED) {
        counts.downloads_completed += count.events;
        counts.downloaded_bytes += count.bytes;
    } else if is(&event::DOWNLOAD_FAILED) {
        counts.downloads_failed += count.events;
    } else if is(&event::DOWNLOAD_CANCELED) {
        counts.downloads_canceled += count.events;
    } else if is(&event::FILE_AVAILABLE) {
        counts.files_made += count.events;
        counts.files_made_bytes += count.bytes;
    } else if is(&event::FILE_PURGED) {
        counts.files_purged += count.events;
        counts.files_purged_bytes += count.bytes;
    } else if is(&event::SESSION_OPENED) {
        counts.sessions_opened += count.events;
    } else if is(&event::ACCOUNT_REGISTERED) {
        counts.accounts_registered += count.events;
    } else if event_type == REMINDER_FIRED {
        counts.reminders_fired += count.events;
    } else if event_type == NOTIFICATION_DELIVERED {
        counts.notifications_delivered += count.events;
    } else if event_type == NOTIFICATION_FAILED {
        counts.notifications_failed += count.events;
    }
}

#[cfg(test)]
mod tests {
    use bowerbird_nats::Code;
    use time::macros::date;

    use super::*;

    #[test]
    fn the_days_are_the_last_thirty_unless_others_are_asked_for_and_at_most_a_year() {
        let today = date!(2026 - 03 - 01);
        assert_eq!(span(None, None, today).unwrap(), (date!(2026 - 01 - 31), today));
        let to = date!(2025 - 12 - 31);
        assert_eq!(span(None, Some(to), today).unwrap(), (date!(2025 - 12 - 02), to));
        assert_eq!(span(Some(date!(2025 - 03 - 01)), None, today).unwrap().0, date!(2025 - 03 - 01));
        for (from, to) in [(date!(2025 - 02 - 28), today), (date!(2026 - 03 - 02), today), (Date::MIN, Date::MAX)] {
            assert_eq!(span(Some(from), Some(to), today).unwrap_err().code, Code::InvalidValue, "{from} {to}");
        }
    }

    #[test]
    fn each_type_is_counted_where_it_belongs_and_all_are_events() {
        let mut counts = Counts::default();
        let one = Count { events: 1, bytes: 5 };
        for (event_type, _) in event::CATALOGUE {
            add(&mut counts, event_type.as_str(), one);
        }
        add(&mut counts, "future.happened", one);
        assert_eq!(counts.events, i64::try_from(event::CATALOGUE.len()).unwrap() + 1);
        assert_eq!((counts.downloads_completed, counts.downloaded_bytes), (1, 5));
        assert_eq!((counts.files_made_bytes, counts.files_purged_bytes), (5, 5));
        assert_eq!((counts.downloads_queued, counts.sessions_opened, counts.accounts_registered), (1, 1, 1));
    }
}
