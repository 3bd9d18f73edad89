//! The trash: into it, out of it, and on to the purge.
//!
//! What is in the trash has `deleted_at`; `trashed_with` names what was moved there, a file or a folder, and everything that
//! went along with it. Only what also has `purging_at` is purged, and nothing takes that away again: restoring and purging
//! meet at the row, and whichever is first has won. `purge_after` is the row's, so the alarm may come whenever it likes.

use std::{collections::BTreeMap, time::Duration};

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    AccountId, FileId, FolderId, event,
    file::{Changed, File, OnCollision},
    folder::{self, Folder},
    trash::{Kind, Restored, Trashed},
};
use sqlx::{PgConnection, PgPool, Row as _};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Error, change, folders,
    row::{self, file_columns, folder_columns},
};
use crate::{
    alarms,
    events::{self, NewEvent},
};

/// Files that are moved to the trash, restored or purged with a folder, at most.
pub(crate) const SUBTREE_MAX: i64 = 100_000;

/// Move files to the trash; those that are not there, or are there already, are left out. `expired`: only those whose time is
/// over.
pub(crate) async fn trash_files(
    connection: &mut PgConnection,
    account: Option<AccountId>,
    ids: &[Uuid],
    grace: Duration,
    expired: bool,
) -> Result<Vec<(AccountId, File)>, Error> {
    let rows = sqlx::query(concat!(
        "UPDATE files AS f SET deleted_at = now(), trashed_with = f.id, purge_after = now() + make_interval(secs => $3), \
         version = f.version + 1, updated_at = now() FROM folders AS d \
         WHERE f.id IN (SELECT id FROM files WHERE id = ANY ($1) AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE) \
         AND f.deleted_at IS NULL AND ($2::uuid IS NULL OR f.account_id = $2) AND (NOT $4 OR f.expires_at <= now()) \
         AND d.id = f.folder_id RETURNING ",
        file_columns!(),
        ", f.purge_after"
    ))
    .bind(ids)
    .bind(account.map(|account| account.0))
    .bind(grace.as_secs_f64())
    .bind(expired)
    .fetch_all(&mut *connection)
    .await?;
    let mut trashed = Vec::with_capacity(rows.len());
    let mut purges = Vec::with_capacity(rows.len());
    for row in &rows {
        let file = row::file(row)?;
        purges.push((file.id.0, row.try_get::<OffsetDateTime, _>("purge_after")?));
        trashed.push((AccountId(row.try_get("account_id")?), file));
    }
    let gone: Vec<Uuid> = purges.iter().map(|(id, _)| *id).collect();
    end_shares(connection, &gone, &[]).await?;
    alarms::arm_many(connection, alarms::Kind::Trash, &purges).await?;
    let mut told = Vec::new();
    let mut fewer: BTreeMap<AccountId, i64> = BTreeMap::new();
    for (account, file) in &trashed {
        let data = Changed { file: file.clone() };
        if expired {
            told.push(NewEvent::new(IdSource, event::FILE_EXPIRED, Some(*account), file.id.0, &data));
        }
        told.push(NewEvent::new(IdSource, event::FILE_TRASHED, Some(*account), file.id.0, &data));
        *fewer.entry(*account).or_default() += 1;
    }
    events::record_many(connection, told).await?;
    for (account, files) in fewer {
        count(connection, account, -files).await?;
    }
    Ok(trashed)
}

/// Move one file of this account to the trash. False if there is no such file.
pub(crate) async fn trash_file(
    connection: &mut PgConnection,
    account: AccountId,
    id: FileId,
    grace: Duration,
) -> Result<bool, Error> {
    Ok(!trash_files(connection, Some(account), &[id.0], grace, false).await?.is_empty())
}

/// Shares of these files and folders lead nowhere from now on.
async fn end_shares(connection: &mut PgConnection, files: &[Uuid], folders: &[Uuid]) -> Result<(), Error> {
    sqlx::query(
        "UPDATE shares SET ended_at = now(), ended_by = 'trashed' WHERE ended_at IS NULL AND (file_id = ANY ($1) OR folder_id = ANY ($2))",
    )
    .bind(files)
    .bind(folders)
    .execute(connection)
    .await?;
    Ok(())
}

async fn count(connection: &mut PgConnection, account: AccountId, files: i64) -> Result<(), Error> {
    sqlx::query("UPDATE account_usage SET files = files + $2 WHERE account_id = $1")
        .bind(account.0)
        .bind(files)
        .execute(connection)
        .await?;
    Ok(())
}

/// Move a folder with everything in it to the trash. Root and folder are held.
pub(crate) async fn trash_folder(
    connection: &mut PgConnection,
    account: AccountId,
    folder: &Folder,
    grace: Duration,
) -> Result<(), Error> {
    let below: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE folders SET deleted_at = now(), trashed_with = $2, purge_after = now() + make_interval(secs => $4), \
         version = version + 1, updated_at = now() \
         WHERE account_id = $1 AND deleted_at IS NULL AND (id = $2 OR (path >= $3 || '/' AND path < $3 || '0')) RETURNING id",
    )
    .bind(account.0)
    .bind(folder.id.0)
    .bind(&folder.path)
    .bind(grace.as_secs_f64())
    .fetch_all(&mut *connection)
    .await?;
    let many: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT FROM files WHERE folder_id = ANY ($1) AND deleted_at IS NULL LIMIT $2 + 1) AS counted",
    )
    .bind(&below)
    .bind(SUBTREE_MAX)
    .fetch_one(&mut *connection)
    .await?;
    if many > SUBTREE_MAX {
        return Err(Error::TooLarge);
    }
    let files: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE files SET deleted_at = now(), trashed_with = $2, purge_after = now() + make_interval(secs => $3), \
         version = version + 1, updated_at = now() \
         WHERE id IN (SELECT id FROM files WHERE folder_id = ANY ($1) AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE) \
         AND deleted_at IS NULL RETURNING id",
    )
    .bind(&below)
    .bind(folder.id.0)
    .bind(grace.as_secs_f64())
    .fetch_all(&mut *connection)
    .await?;
    end_shares(connection, &files, &below).await?;
    alarms::arm_after(connection, alarms::Kind::Trash, folder.id.0, grace).await?;
    let (files, others) = (number(files.len()), number(below.len()) - 1);
    let data = folder::Trashed { folder: folder.clone(), folders: others, files };
    change::tell(connection, event::FOLDER_TRASHED, account, folder.id.0, &data).await?;
    count(connection, account, -files).await
}

fn slashes(path: &str) -> i32 {
    i32::try_from(path.matches('/').count()).unwrap_or(i32::MAX)
}

fn number(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// What is in the trash of this account: what was moved there before this moment and id.
pub(crate) async fn list(
    pool: &PgPool,
    account: AccountId,
    before: Option<(OffsetDateTime, Uuid)>,
    limit: u32,
) -> Result<Vec<Trashed>, Error> {
    let rows = sqlx::query(
        "SELECT * FROM (
             (SELECT 'file' AS kind, f.id, f.name, d.path AS folder, f.size_bytes, 1::bigint AS files, f.deleted_at, f.purge_after
              FROM files AS f JOIN folders AS d ON d.id = f.folder_id
              WHERE f.account_id = $1 AND f.trashed_with = f.id AND f.purging_at IS NULL
              AND ($2::timestamptz IS NULL OR (f.deleted_at, f.id) < ($2, $3)) ORDER BY f.deleted_at DESC, f.id DESC LIMIT $4)
             UNION ALL
             (SELECT 'folder', o.id, o.name, coalesce(nullif(regexp_replace(o.path, '/[^/]*$', ''), ''), '/'),
                     (SELECT coalesce(sum(size_bytes), 0)::bigint FROM files WHERE trashed_with = o.id),
                     (SELECT count(*) FROM files WHERE trashed_with = o.id), o.deleted_at, o.purge_after
              FROM folders AS o WHERE o.account_id = $1 AND o.trashed_with = o.id AND o.purging_at IS NULL
              AND ($2::timestamptz IS NULL OR (o.deleted_at, o.id) < ($2, $3)) ORDER BY o.deleted_at DESC, o.id DESC LIMIT $4)
         ) AS t ORDER BY deleted_at DESC, id DESC LIMIT $4",
    )
    .bind(account.0)
    .bind(before.map(|(at, _)| at))
    .bind(before.map(|(_, id)| id))
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Trashed {
                kind: if row.try_get::<&str, _>("kind")? == "file" { Kind::File } else { Kind::Folder },
                id: row.try_get("id")?,
                name: row.try_get("name")?,
                folder: row.try_get("folder")?,
                size_bytes: row.try_get("size_bytes")?,
                files: row.try_get("files")?,
                deleted_at: row.try_get("deleted_at")?,
                purge_after: row.try_get("purge_after")?,
            })
        })
        .collect()
}

/// Take something out of the trash. None: it is not there, or given up already. Its alarm is held.
pub(crate) async fn restore(
    connection: &mut PgConnection,
    account: AccountId,
    id: Uuid,
    on_collision: OnCollision,
) -> Result<Option<Restored>, Error> {
    let restored = match restore_file(connection, account, id, on_collision).await? {
        Some(restored) => Some(restored),
        None => restore_folder(connection, account, id, on_collision).await?,
    };
    if restored.is_some() {
        alarms::cancel(connection, alarms::Kind::Trash, id).await?;
    }
    Ok(restored)
}

async fn restore_file(
    connection: &mut PgConnection,
    account: AccountId,
    id: Uuid,
    on_collision: OnCollision,
) -> Result<Option<Restored>, Error> {
    let there = "SELECT d.id, d.path, f.name FROM files AS f JOIN folders AS d ON d.id = f.folder_id \
                 WHERE f.id = $1 AND f.account_id = $2 AND f.trashed_with = f.id AND f.purging_at IS NULL";
    let found = sqlx::query(there).bind(id).bind(account.0).fetch_optional(&mut *connection).await?;
    let Some(found) = found else { return Ok(None) };
    let (name, path): (String, String) = (found.try_get("name")?, found.try_get("path")?);
    // The folder that it was in, wherever that is now; if that is gone, one at the same path.
    let folder = match folders::hold(connection, account, FolderId(found.try_get("id")?)).await? {
        Some(folder) => folder,
        None => folders::hold_path(connection, account, &path).await?,
    };
    let name = match on_collision {
        OnCollision::Rename => folders::free_name(connection, folder.id, &name).await?,
        OnCollision::Fail | OnCollision::Replace if folders::named(connection, folder.id, &name).await?.is_some() => {
            return Err(Error::NameTaken);
        }
        OnCollision::Fail | OnCollision::Replace => name,
    };
    let row = sqlx::query(concat!(
        "UPDATE files AS f SET deleted_at = NULL, trashed_with = NULL, purge_after = NULL, name = $3, folder_id = $4, \
         expires_at = CASE WHEN f.expires_at > now() THEN f.expires_at END, version = f.version + 1, updated_at = now() \
         FROM folders AS d WHERE f.id = $1 AND f.account_id = $2 AND f.trashed_with = f.id AND f.purging_at IS NULL AND d.id = $4 \
         RETURNING ",
        file_columns!()
    ))
    .bind(id)
    .bind(account.0)
    .bind(&name)
    .bind(folder.id.0)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let file = row::file(&row)?;
    change::tell(connection, event::FILE_RESTORED, account, id, &Changed { file }).await?;
    count(connection, account, 1).await?;
    Ok(Some(Restored { kind: Kind::File, id, name, folder: folder.path }))
}

async fn restore_folder(
    connection: &mut PgConnection,
    account: AccountId,
    id: Uuid,
    on_collision: OnCollision,
) -> Result<Option<Restored>, Error> {
    folders::hold_root(connection, account).await?;
    let row = sqlx::query(concat!(
        "SELECT ",
        folder_columns!(),
        " FROM folders WHERE id = $1 AND account_id = $2 AND trashed_with = id AND purging_at IS NULL FOR NO KEY UPDATE"
    ))
    .bind(id)
    .bind(account.0)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let folder = row::folder(&row)?;
    let parent = match folder.parent_id {
        Some(parent) => folders::hold(connection, account, parent).await?,
        None => None,
    };
    let parent = match parent {
        Some(parent) => parent,
        None => folders::hold_path(connection, account, folders::split(&folder.path).0).await?,
    };
    let name = folders::free_path(connection, account, &parent.path, &folder.name).await?;
    if name != folder.name && on_collision != OnCollision::Rename {
        return Err(Error::NameTaken);
    }
    let path = folders::join(&parent.path, &name);
    let (depth, bytes): (i32, i32) = sqlx::query_as(
        "SELECT coalesce(max(char_length(path) - char_length(replace(path, '/', ''))), 0) - $3, \
         coalesce(max(octet_length(path)), 0) - octet_length($2) FROM folders WHERE trashed_with = $1",
    )
    .bind(id)
    .bind(&folder.path)
    .bind(slashes(&folder.path))
    .fetch_one(&mut *connection)
    .await?;
    if !folders::fits(&path, i64::from(depth), i64::from(bytes)) {
        return Err(Error::DoesNotFit);
    }
    sqlx::query(
        "UPDATE folders SET deleted_at = NULL, trashed_with = NULL, purge_after = NULL, version = version + 1, updated_at = now(), \
         path = $3 || substr(path, char_length($2) + 1), parent_id = CASE WHEN id = $1 THEN $4 ELSE parent_id END, \
         name = CASE WHEN id = $1 THEN $5 ELSE name END WHERE trashed_with = $1",
    )
    .bind(id)
    .bind(&folder.path)
    .bind(&path)
    .bind(parent.id.0)
    .bind(&name)
    .execute(&mut *connection)
    .await?;
    let files = sqlx::query(
        "UPDATE files SET deleted_at = NULL, trashed_with = NULL, purge_after = NULL, version = version + 1, updated_at = now(), \
         expires_at = CASE WHEN expires_at > now() THEN expires_at END WHERE trashed_with = $1",
    )
    .bind(id)
    .execute(&mut *connection)
    .await?;
    let now = folders::hold(connection, account, folder.id).await?.ok_or(Error::Corrupt("folder"))?;
    change::tell(connection, event::FOLDER_RESTORED, account, id, &folder::Changed { folder: now }).await?;
    count(connection, account, i64::try_from(files.rows_affected()).unwrap_or(i64::MAX)).await?;
    Ok(Some(Restored { kind: Kind::Folder, id, name, folder: parent.path }))
}

/// Give up for good what these alarms are about: it cannot be restored from now on, and the purger deletes it. `account`: only
/// of this one, and whatever the time is, as its owner wants it; else only what is over. Answers how many things were given up.
pub(crate) async fn give_up(connection: &mut PgConnection, account: Option<AccountId>, ids: &[Uuid]) -> Result<u64, Error> {
    let folders = sqlx::query(
        "UPDATE folders SET purging_at = now() WHERE trashed_with = ANY ($1) AND purging_at IS NULL \
         AND CASE WHEN $2::uuid IS NULL THEN purge_after <= now() ELSE account_id = $2 END",
    )
    .bind(ids)
    .bind(account.map(|account| account.0))
    .execute(&mut *connection)
    .await?;
    // A file that was in the trash before the folder was is not part of it: its place is the root from now on.
    sqlx::query(
        "UPDATE files AS f SET folder_id = r.id FROM folders AS d JOIN folders AS r ON r.account_id = d.account_id AND r.path = '/' \
         WHERE d.trashed_with = ANY ($1) AND d.purging_at IS NOT NULL AND f.folder_id = d.id AND f.trashed_with <> d.trashed_with",
    )
    .bind(ids)
    .execute(&mut *connection)
    .await?;
    let files = sqlx::query(
        "WITH gone AS (
             UPDATE files SET purging_at = now() WHERE trashed_with = ANY ($1) AND purging_at IS NULL
             AND CASE WHEN $2::uuid IS NULL THEN purge_after <= now() ELSE account_id = $2 END
             RETURNING id, account_id, size_bytes, object_key
         ), kept AS (
             -- Gone here, so that nobody frees their bytes once more.
             DELETE FROM file_versions AS v USING gone WHERE v.file_id = gone.id RETURNING v.file_id, v.size_bytes, v.object_key
         ), elsewhere AS (
             -- What lies below the prefix of a file that this one took the content of.
             INSERT INTO object_purges (prefix, object_key)
             SELECT regexp_replace(k.object_key, '[^/]*$', ''), k.object_key
             FROM (SELECT id, object_key FROM gone UNION ALL SELECT file_id, object_key FROM kept) AS k JOIN gone AS g ON g.id = k.id
             WHERE NOT starts_with(k.object_key, g.account_id || '/' || g.id || '/')
         )
         INSERT INTO object_purges (prefix, file_id, account_id, freed_stored_bytes)
         SELECT g.account_id || '/' || g.id || '/', g.id, g.account_id,
                g.size_bytes + (SELECT coalesce(sum(k.size_bytes), 0)::bigint FROM kept AS k WHERE k.file_id = g.id)
         FROM gone AS g",
    )
    .bind(ids)
    .bind(account.map(|account| account.0))
    .execute(&mut *connection)
    .await?;
    Ok(folders.rows_affected() + files.rows_affected())
}

/// Of these, those that are in the trash and not over: whose alarm came too soon, and when it is to come.
pub(crate) async fn not_over(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<(Uuid, OffsetDateTime)>, Error> {
    Ok(sqlx::query_as(
        "SELECT id, purge_after FROM files WHERE id = ANY ($1) AND trashed_with = id AND purging_at IS NULL \
         UNION ALL SELECT id, purge_after FROM folders WHERE id = ANY ($1) AND trashed_with = id AND purging_at IS NULL",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?)
}

/// Of these, those that expire later than now: whose alarm came too soon, and when it is to come.
pub(crate) async fn not_expired(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<(Uuid, OffsetDateTime)>, Error> {
    Ok(sqlx::query_as("SELECT id, expires_at FROM files WHERE id = ANY ($1) AND deleted_at IS NULL AND expires_at > now()")
        .bind(ids)
        .fetch_all(connection)
        .await?)
}

/// Remove rows of folders that were given up and are empty, the deepest first; how many.
pub(crate) async fn remove_empty(pool: &PgPool, limit: i64) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query(
        "DELETE FROM folders WHERE id IN (SELECT id FROM folders AS d WHERE purging_at IS NOT NULL \
         AND NOT EXISTS (SELECT FROM files AS f WHERE f.folder_id = d.id) \
         AND NOT EXISTS (SELECT FROM folders AS c WHERE c.parent_id = d.id) LIMIT $1)",
    )
    .bind(limit)
    .execute(pool)
    .await?;
    Ok(removed.rows_affected())
}
