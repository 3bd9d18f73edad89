//! Copies, versions, and many files at once.

use bowerbird_nats::{
    Code, FileId, Problem,
    credential::Caller,
    file::{
        BulkAction, BulkFiles, BulkResult, CopyFile, CopyTarget, DeleteFile, File, FileChanges, ListVersions, OnCollision,
        RestoreVersion, UpdateFile,
    },
    trash::PurgeTrashed,
};

use super::world::{QUOTA, World, call};
use crate::files::store::contents;

async fn copy(world: &World, caller: Caller, file: &File, target: CopyTarget) -> Result<File, Problem> {
    world.requests.clone().copy(call(caller, CopyFile { id: file.id, target })).await
}

async fn purge_for_good(world: &World, caller: Caller, id: FileId) {
    world.requests.clone().delete(call(caller, DeleteFile { id })).await.unwrap();
    world.requests.clone().purge(call(caller, PurgeTrashed { id: id.0 })).await.unwrap();
    world.purge().await;
}

#[tokio::test]
async fn a_copy_is_a_file_of_its_own_and_its_bytes_count() {
    let world = World::new().await;
    let (caller, stranger) = (world.account().await, world.account().await);
    let file = world.file(caller, "/a", "x.txt", "content").await;
    let copied = copy(&world, caller, &file, CopyTarget::default()).await.unwrap();
    assert_eq!((copied.name.as_str(), copied.folder.as_str(), copied.size_bytes), ("x (2).txt", "/a", 7));
    assert_eq!(copy(&world, stranger, &file, CopyTarget::default()).await.unwrap_err().code, Code::NotFound);
    let fail = CopyTarget { on_collision: Some(OnCollision::Fail), ..CopyTarget::default() };
    assert_eq!(copy(&world, caller, &file, fail).await.unwrap_err().code, Code::NameTaken);
    world.purge().await;
    assert_eq!((world.usage(caller).await, world.keys(caller).await.len()), ((14, 2), 2), "what failed left nothing");
    purge_for_good(&world, caller, file.id).await;
    assert_eq!(world.content(copied.id).await.unwrap(), "content");

    sqlx::query("UPDATE accounts SET quota_bytes = 13 WHERE id = $1")
        .bind(caller.account_id.0)
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(copy(&world, caller, &copied, CopyTarget::default()).await.unwrap_err().code, Code::QuotaExceeded);
    sqlx::query("UPDATE accounts SET quota_bytes = $2 WHERE id = $1")
        .bind(caller.account_id.0)
        .bind(QUOTA)
        .execute(&world.pool)
        .await
        .unwrap();
    let request = CopyFile { id: copied.id, target: CopyTarget::default() };
    let mut again = call(caller, request);
    again.idempotency_key = Some("once".to_owned());
    let mut repeat = call(caller, again.request.clone());
    repeat.idempotency_key.clone_from(&again.idempotency_key);
    let first = world.requests.clone().copy(again).await.unwrap();
    assert_eq!(world.requests.clone().copy(repeat).await.unwrap(), first);
    assert_eq!(world.usage(caller).await, (14, 2));
}

#[tokio::test]
async fn a_replaced_content_can_be_had_back_until_its_time_is_over_and_all_of_it_goes_with_the_file() {
    let world = World::new().await;
    let caller = world.account().await;
    let file = world.file(caller, "/", "a", "1").await;
    for content in ["22", "333"] {
        let next = world.file(caller, "/", "next", content).await;
        let changes =
            FileChanges { name: Some("a".to_owned()), on_collision: Some(OnCollision::Replace), ..FileChanges::default() };
        let update = UpdateFile { id: next.id, if_version: None, changes };
        assert_eq!(world.requests.clone().update(call(caller, update)).await.unwrap().id, file.id);
    }
    let versions = async || world.requests.clone().list_versions(call(caller, ListVersions { id: file.id })).await.unwrap().items;
    let sizes: Vec<i64> = versions().await.iter().map(|version| version.size_bytes).collect();
    assert_eq!((sizes, world.usage(caller).await), (vec![2, 1], (6, 1)));
    let restore = RestoreVersion { id: file.id, version_id: versions().await[1].id };
    world.requests.clone().restore_version(call(caller, restore.clone())).await.unwrap();
    assert_eq!(world.content(file.id).await.unwrap(), "1");
    assert_eq!(world.requests.clone().restore_version(call(caller, restore)).await.unwrap_err().code, Code::NotFound);
    let sizes: Vec<i64> = versions().await.iter().map(|version| version.size_bytes).collect();
    assert_eq!((sizes, world.usage(caller).await), (vec![3, 2], (6, 1)));

    // The older of the two is over.
    sqlx::query("UPDATE file_versions SET expires_at = now() WHERE size_bytes = 2").execute(&world.pool).await.unwrap();
    assert_eq!(contents::expire(&world.pool, 10).await.unwrap(), 1);
    assert_eq!(contents::expire(&world.pool, 10).await.unwrap(), 0);
    world.purge().await;
    assert_eq!((world.usage(caller).await, world.keys(caller).await.len()), ((4, 1), 2));
    purge_for_good(&world, caller, file.id).await;
    assert_eq!((world.usage(caller).await, world.keys(caller).await), ((0, 0), Vec::new()));
}

#[tokio::test]
async fn many_files_are_changed_at_once_and_each_says_how_it_went() {
    let world = World::new().await;
    let (caller, stranger) = (world.account().await, world.account().await);
    let mut ids = Vec::new();
    for number in 0..120 {
        ids.push(world.file(caller, "/", &format!("{number}"), "x").await.id);
    }
    let theirs = world.file(stranger, "/", "x", "x").await.id;
    world.file(caller, "/b", "7", "x").await;
    ids.insert(60, theirs);
    let bulk = async |action, folder: Option<&str>, tags: &[&str]| -> Result<BulkResult, Problem> {
        let request = BulkFiles {
            action,
            ids: ids.clone(),
            folder: folder.map(str::to_owned),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            on_collision: None,
        };
        world.requests.clone().bulk(call(caller, request)).await
    };
    let failed = |result: &BulkResult| -> Vec<(usize, Code)> {
        assert_eq!(result.items.iter().map(|item| item.id).collect::<Vec<_>>(), ids);
        let error = |(at, item): (usize, &bowerbird_nats::file::BulkItem)| Some((at, item.error.as_ref()?.code));
        result.items.iter().enumerate().filter_map(error).collect()
    };
    let moved = bulk(BulkAction::Move, Some("/b"), &[]).await.unwrap();
    assert_eq!(failed(&moved), [(7, Code::NameTaken), (60, Code::NotFound)]);
    assert_eq!(world.get(caller, ids[7]).await.unwrap().folder, "/");
    assert_eq!(world.get(caller, ids[119]).await.unwrap().folder, "/b");
    for (action, tags) in [(BulkAction::Tag, vec!["a", "b"]), (BulkAction::Untag, vec!["b", "c"]), (BulkAction::Tag, vec!["a"])] {
        assert_eq!(failed(&bulk(action, None, &tags).await.unwrap()), [(60, Code::NotFound)]);
    }
    let file = world.get(caller, ids[0]).await.unwrap();
    assert_eq!((file.tags, file.version), (vec!["a".to_owned()], 4));
    assert_eq!(failed(&bulk(BulkAction::Trash, None, &[]).await.unwrap()), [(60, Code::NotFound)]);
    assert_eq!(world.usage(caller).await, (121, 1));
    assert_eq!(failed(&bulk(BulkAction::Restore, None, &[]).await.unwrap()), [(60, Code::NotFound)]);
    assert_eq!(world.usage(caller).await, (121, 121));
    assert!(world.get(stranger, theirs).await.is_some());
    for (action, folder, tags) in
        [(BulkAction::Move, None, &[][..]), (BulkAction::Trash, Some("/b"), &[]), (BulkAction::Tag, None, &[])]
    {
        assert_eq!(bulk(action, folder, tags).await.unwrap_err().code, Code::InvalidValue);
    }
}
