//! What is in a folder and everything below it, in the order of paths.

use bowerbird_nats::{AccountId, FileId, FolderId, archive::Entry, file::File};
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

use super::{Error, Stored, list};

/// An entry, and where a page ends that ends with it.
pub(crate) struct Listed {
    pub(crate) entry: Entry,
    pub(crate) path: String,
    pub(crate) name: String,
}

/// Where the folder is, if it is there and its owner may still do something.
async fn root(pool: &PgPool, account: AccountId, folder: FolderId) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT d.path FROM folders AS d JOIN accounts AS a ON a.id = d.account_id AND a.disabled_at IS NULL
         WHERE d.id = $1 AND d.account_id = $2 AND d.deleted_at IS NULL",
    )
    .bind(folder.0)
    .bind(account.0)
    .fetch_optional(pool)
    .await
}

/// Entries after a path and a name: folders, with no name, before the files in them. None: the folder is not there any more.
pub(crate) async fn entries(
    pool: &PgPool,
    account: AccountId,
    folder: FolderId,
    after: Option<(&str, &str)>,
    limit: i64,
) -> Result<Option<Vec<Listed>>, Error> {
    let Some(root) = root(pool, account, folder).await? else { return Ok(None) };
    let (path, name) = after.unwrap_or(("", ""));
    let below = if root == "/" { root.clone() } else { format!("{root}/") };
    let rows = sqlx::query(
        "SELECT * FROM (
             (SELECT NULL::uuid AS id, path, '' COLLATE \"C\" AS name, 0::bigint AS size_bytes, updated_at FROM folders
              WHERE account_id = $1 AND deleted_at IS NULL AND path >= $3 AND starts_with(path, $3) AND path <> '/'
              AND (path, '' COLLATE \"C\") > ($4 COLLATE \"C\", $5 COLLATE \"C\") ORDER BY path LIMIT $6)
             UNION ALL
             (SELECT f.id, d.path, f.name COLLATE \"C\", f.size_bytes, f.updated_at FROM folders AS d JOIN files AS f ON f.folder_id = d.id
              WHERE d.account_id = $1 AND d.deleted_at IS NULL AND (d.path = $2 OR (d.path >= $3 AND starts_with(d.path, $3)))
              AND f.deleted_at IS NULL AND f.status = 'available' AND d.path >= $4 COLLATE \"C\"
              AND (d.path, f.name COLLATE \"C\") > ($4 COLLATE \"C\", $5 COLLATE \"C\")
              ORDER BY d.path, f.name COLLATE \"C\" LIMIT $6)
         ) AS t ORDER BY path, name LIMIT $6",
    )
    .bind(account.0)
    .bind(&root)
    .bind(&below)
    .bind(path)
    .bind(name)
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let listed = rows.iter().map(|row| {
        let (path, name): (String, String) = (row.try_get("path")?, row.try_get("name")?);
        let inside = path.strip_prefix(&root).unwrap_or(&path).trim_start_matches('/');
        let entry = Entry {
            file_id: row.try_get::<Option<Uuid>, _>("id")?.map(FileId),
            path: if inside.is_empty() { name.clone() } else { format!("{inside}/{name}") },
            size_bytes: row.try_get("size_bytes")?,
            updated_at: row.try_get("updated_at")?,
        };
        Ok(Listed { entry, path, name })
    });
    listed.collect::<Result<_, Error>>().map(Some)
}

/// A file that lies in this folder or below it.
pub(crate) async fn file(pool: &PgPool, account: AccountId, folder: FolderId, id: FileId) -> Result<Option<Stored>, Error> {
    let Some(root) = root(pool, account, folder).await? else { return Ok(None) };
    let inside = |file: &File| root == "/" || file.folder == root || file.folder.starts_with(&format!("{root}/"));
    Ok(list::find(pool, account, id).await?.filter(|stored| inside(&stored.file)))
}
