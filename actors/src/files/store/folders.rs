//! The table of folders. The path is stored with each, so that one is found, and everything below it, without climbing.
//!
//! **Order of locks.** Whoever chooses a name in a folder holds that folder ([`hold`], [`hold_path`]), so that names cannot
//! be chosen twice. Whoever changes which folders there are holds the account's root before ([`hold_root`]): one at a time,
//! so that no two moves make a circle together. Folders are held before files, both before events and usage.

use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{AccountId, FileId, FolderId, folder::Folder};
use sqlx::{PgConnection, PgPool, Row as _};
use uuid::Uuid;

use super::{
    Error,
    row::{self, folder_columns},
};
use crate::files::names::numbered;

/// How deep folders may lie.
pub(crate) const MAX_DEPTH: usize = 32;
/// Longest path.
pub(crate) const MAX_PATH_BYTES: usize = 1024;

/// Names tried one after another before a random one is taken.
const NUMBERS: [std::ops::Range<u32>; 3] = [2..20, 20..200, 200..1000];

/// A path in its parent: `/films/2026` is `2026` in `/films`.
pub(crate) fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((parent, name)) => (parent, name),
        None => ("/", path),
    }
}

/// A name in a folder, as a path.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

/// One folder of this account.
pub(crate) async fn find(pool: &PgPool, account: AccountId, id: FolderId) -> Result<Option<Folder>, Error> {
    let row = sqlx::query(concat!(
        "SELECT ",
        folder_columns!(),
        " FROM folders WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL"
    ))
    .bind(id.0)
    .bind(account.0)
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(row::folder).transpose()
}

/// The folder at this path.
pub(crate) async fn find_path(pool: &PgPool, account: AccountId, path: &str) -> Result<Option<Folder>, Error> {
    let row = sqlx::query(concat!(
        "SELECT ",
        folder_columns!(),
        " FROM folders WHERE account_id = $1 AND path = $2 AND deleted_at IS NULL"
    ))
    .bind(account.0)
    .bind(path)
    .fetch_optional(pool)
    .await?;
    row.as_ref().map(row::folder).transpose()
}

/// A folder of this account, held until the transaction ends: names in it can be chosen, and it goes nowhere.
pub(crate) async fn hold(connection: &mut PgConnection, account: AccountId, id: FolderId) -> Result<Option<Folder>, Error> {
    let row = sqlx::query(concat!(
        "SELECT ",
        folder_columns!(),
        " FROM folders WHERE id = $1 AND account_id = $2 AND deleted_at IS NULL FOR NO KEY UPDATE"
    ))
    .bind(id.0)
    .bind(account.0)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(row::folder).transpose()
}

async fn hold_at(connection: &mut PgConnection, account: AccountId, path: &str) -> Result<Option<Folder>, Error> {
    let row = sqlx::query(concat!(
        "SELECT ",
        folder_columns!(),
        " FROM folders WHERE account_id = $1 AND path = $2 AND deleted_at IS NULL FOR NO KEY UPDATE"
    ))
    .bind(account.0)
    .bind(path)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(row::folder).transpose()
}

/// The account's root, held: nobody else changes which folders there are.
pub(crate) async fn hold_root(connection: &mut PgConnection, account: AccountId) -> Result<Folder, Error> {
    if let Some(root) = hold_at(connection, account, "/").await? {
        return Ok(root);
    }
    sqlx::query(
        "INSERT INTO folders (id, account_id, name, path) VALUES ($1, $2, '', '/') \
         ON CONFLICT (account_id, path) WHERE deleted_at IS NULL DO NOTHING",
    )
    .bind(IdSource.next())
    .bind(account.0)
    .execute(&mut *connection)
    .await?;
    hold_at(connection, account, "/").await?.ok_or(Error::Corrupt("root"))
}

/// The folder at this path, held; made, with those above it, if it is not there.
pub(crate) async fn hold_path(connection: &mut PgConnection, account: AccountId, path: &str) -> Result<Folder, Error> {
    if let Some(folder) = hold_at(connection, account, path).await? {
        return Ok(folder);
    }
    let mut folder = hold_root(connection, account).await?;
    for (end, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
        let below = &path[..end];
        if below.len() > 1 {
            folder = match hold_at(connection, account, below).await? {
                Some(there) => there,
                None => insert(connection, account, &folder, split(below).1).await?,
            };
        }
    }
    Ok(folder)
}

/// Make a folder in another, which is held, as is the root.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    account: AccountId,
    parent: &Folder,
    name: &str,
) -> Result<Folder, Error> {
    let row = sqlx::query(concat!(
        "INSERT INTO folders (id, account_id, parent_id, name, path) VALUES ($1, $2, $3, $4, $5) RETURNING ",
        folder_columns!()
    ))
    .bind(IdSource.next())
    .bind(account.0)
    .bind(parent.id.0)
    .bind(name)
    .bind(join(&parent.path, name))
    .fetch_one(connection)
    .await?;
    row::folder(&row)
}

/// The file that has this name in this folder.
pub(crate) async fn named(connection: &mut PgConnection, folder: FolderId, name: &str) -> Result<Option<FileId>, Error> {
    let id: Option<Uuid> =
        sqlx::query_scalar("SELECT id FROM files WHERE folder_id = $1 AND name COLLATE \"C\" = $2 AND deleted_at IS NULL")
            .bind(folder.0)
            .bind(name)
            .fetch_optional(connection)
            .await?;
    Ok(id.map(FileId))
}

/// This name, or the next one that is free for a file in a folder that is held.
pub(crate) async fn free_name(connection: &mut PgConnection, folder: FolderId, wanted: &str) -> Result<String, Error> {
    if named(connection, folder, wanted).await?.is_none() {
        return Ok(wanted.to_owned());
    }
    for numbers in NUMBERS {
        let candidates: Vec<String> = numbers.map(|number| numbered(wanted, number)).collect();
        let taken: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM files WHERE folder_id = $1 AND name COLLATE \"C\" = ANY ($2) AND deleted_at IS NULL",
        )
        .bind(folder.0)
        .bind(&candidates)
        .fetch_all(&mut *connection)
        .await?;
        if let Some(free) = candidates.into_iter().find(|candidate| !taken.contains(candidate)) {
            return Ok(free);
        }
    }
    Ok(numbered(wanted, rand::random_range(1_000_000..u32::MAX)))
}

/// This name, or the next one that is free for a folder. Root and parent are held.
pub(crate) async fn free_path(
    connection: &mut PgConnection,
    account: AccountId,
    parent: &str,
    wanted: &str,
) -> Result<String, Error> {
    let mut candidates: Vec<String> = vec![wanted.to_owned()];
    candidates.extend((2..1000).map(|number| numbered(wanted, number)));
    let paths: Vec<String> = candidates.iter().map(|name| join(parent, name)).collect();
    let taken: Vec<String> =
        sqlx::query_scalar("SELECT path FROM folders WHERE account_id = $1 AND path = ANY ($2) AND deleted_at IS NULL")
            .bind(account.0)
            .bind(&paths)
            .fetch_all(connection)
            .await?;
    let free = candidates.into_iter().zip(paths).find(|(_, path)| !taken.contains(path)).map(|(name, _)| name);
    Ok(free.unwrap_or_else(|| numbered(wanted, rand::random_range(1_000_000..u32::MAX))))
}

/// Give a folder another place. It, its root and its new parent are held. Everything below goes along.
pub(crate) async fn relocate(
    connection: &mut PgConnection,
    account: AccountId,
    folder: &Folder,
    parent: &Folder,
    name: &str,
) -> Result<Folder, Error> {
    let path = join(&parent.path, name);
    sqlx::query(
        "UPDATE folders SET path = $4 || substr(path, char_length($3) + 1) \
         WHERE account_id = $1 AND deleted_at IS NULL AND path >= $3 || '/' AND path < $3 || '0' AND id <> $2",
    )
    .bind(account.0)
    .bind(folder.id.0)
    .bind(&folder.path)
    .bind(&path)
    .execute(&mut *connection)
    .await?;
    let row = sqlx::query(concat!(
        "UPDATE folders SET name = $2, path = $3, parent_id = $4, version = version + 1, updated_at = now() WHERE id = $1 RETURNING ",
        folder_columns!()
    ))
    .bind(folder.id.0)
    .bind(name)
    .bind(&path)
    .bind(parent.id.0)
    .fetch_one(connection)
    .await?;
    row::folder(&row)
}

/// How deep the deepest folder below this path lies, and how long its path is, beyond the folder itself.
pub(crate) async fn extent(connection: &mut PgConnection, account: AccountId, path: &str) -> Result<(i64, i64), Error> {
    let row = sqlx::query(
        "SELECT coalesce(max(octet_length(path)), octet_length($2)) - octet_length($2) AS bytes, \
         coalesce(max(char_length(path) - char_length(replace(path, '/', ''))), 0) AS depth \
         FROM folders WHERE account_id = $1 AND deleted_at IS NULL AND path >= $2 || '/' AND path < $2 || '0'",
    )
    .bind(account.0)
    .bind(path)
    .fetch_one(connection)
    .await?;
    let own = i32::try_from(path.matches('/').count()).unwrap_or(i32::MAX);
    let (bytes, depth): (i32, i32) = (row.try_get("bytes")?, row.try_get("depth")?);
    Ok((i64::from((depth - own).max(0)), i64::from(bytes)))
}

/// Whether a folder may have this path when what is in it lies so much deeper and has paths so many bytes longer.
pub(crate) fn fits(path: &str, deeper: i64, longer: i64) -> bool {
    let depth = path.matches('/').count().saturating_add(usize::try_from(deeper).unwrap_or(0));
    let bytes = path.len().saturating_add(usize::try_from(longer).unwrap_or(0));
    depth <= MAX_DEPTH && bytes <= MAX_PATH_BYTES
}

/// Folders in a folder, by name: those after this name.
pub(crate) async fn children(pool: &PgPool, folder: FolderId, after: Option<&str>, limit: u32) -> Result<Vec<Folder>, Error> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        folder_columns!(),
        " FROM folders WHERE parent_id = $1 AND deleted_at IS NULL AND ($2::text IS NULL OR name COLLATE \"C\" > $2) \
         ORDER BY name COLLATE \"C\" LIMIT $3"
    ))
    .bind(folder.0)
    .bind(after)
    .bind(i64::from(limit))
    .fetch_all(pool)
    .await?;
    rows.iter().map(row::folder).collect()
}
