//! The trash: nothing restored is gone, nothing is gone before its time, whoever races whom.

use std::sync::Arc;

use bowerbird_nats::{
    Code, FolderId,
    file::{BulkAction, BulkFiles, DeleteFile, FileChanges, UpdateFile},
    folder::{CreateFolder, DeleteFolder, FolderChanges, UpdateFolder},
    trash::{Kind, ListTrash, PurgeTrashed, RestoreTrashed},
};
use proptest::{prelude::*, test_runner::TestRunner};
use uuid::Uuid;

use super::world::{World, call};

fn restore(id: Uuid) -> RestoreTrashed {
    RestoreTrashed { id, on_collision: None }
}

#[tokio::test]
async fn what_is_deleted_can_be_had_back_and_counts_until_it_is_purged() {
    let world = World::new().await;
    let (caller, stranger) = (world.account().await, world.account().await);
    let file = world.file(caller, "/a", "x.txt", "content").await;
    let id = file.id.0;
    assert_eq!(world.requests.clone().delete(call(stranger, DeleteFile { id: file.id })).await.unwrap_err().code, Code::NotFound);
    world.requests.clone().delete(call(caller, DeleteFile { id: file.id })).await.unwrap();
    assert_eq!(world.requests.clone().delete(call(caller, DeleteFile { id: file.id })).await.unwrap_err().code, Code::NotFound);
    assert_eq!(world.get(caller, file.id).await, None);
    assert_eq!(world.usage(caller).await, (7, 0));
    let trash = world.requests.clone().list_trash(call(caller, ListTrash::default())).await.unwrap().items;
    assert_eq!((trash.len(), trash[0].kind, trash[0].id, trash[0].folder.as_str()), (1, Kind::File, id, "/a"));
    assert_eq!(trash[0].purge_after - trash[0].deleted_at, time::Duration::days(30));

    // Somebody takes the name meanwhile.
    world.file(caller, "/a", "x.txt", "other").await;
    assert_eq!(world.requests.clone().restore(call(stranger, restore(id))).await.unwrap_err().code, Code::NotFound);
    let restored = world.requests.clone().restore(call(caller, restore(id))).await.unwrap();
    assert_eq!((restored.name.as_str(), restored.folder.as_str()), ("x (2).txt", "/a"));
    assert_eq!(world.content(file.id).await.unwrap(), "content");
    world.wake().await;
    world.purge().await;
    assert_eq!(world.usage(caller).await, (12, 2));

    world.requests.clone().delete(call(caller, DeleteFile { id: file.id })).await.unwrap();
    assert_eq!(world.requests.clone().purge(call(stranger, PurgeTrashed { id })).await.unwrap_err().code, Code::NotFound);
    world.requests.clone().purge(call(caller, PurgeTrashed { id })).await.unwrap();
    assert_eq!(world.requests.clone().restore(call(caller, restore(id))).await.unwrap_err().code, Code::NotFound);
    world.purge().await;
    assert_eq!((world.usage(caller).await, world.keys(caller).await.len()), ((5, 1), 1));
    assert_eq!(world.events(id).await, ["file.available", "file.trashed", "file.restored", "file.trashed", "file.purged"]);
}

#[tokio::test]
async fn a_folder_goes_with_everything_in_it_and_comes_back_with_it_and_with_nothing_else() {
    let world = World::new().await;
    let caller = world.account().await;
    let create = CreateFolder { path: "/a/b".to_owned(), on_collision: None };
    let b = world.requests.clone().create_folder(call(caller, create)).await.unwrap();
    let a = b.parent_id.unwrap();
    let inner = world.file(caller, "/a/b", "x", "1").await;
    let earlier = world.file(caller, "/a/b", "y", "22").await;
    world.requests.clone().delete(call(caller, DeleteFile { id: earlier.id })).await.unwrap();
    world.requests.clone().delete_folder(call(caller, DeleteFolder { id: a })).await.unwrap();
    assert_eq!((world.get(caller, inner.id).await, world.usage(caller).await), (None, (3, 0)));
    let trash = world.requests.clone().list_trash(call(caller, ListTrash::default())).await.unwrap().items;
    let seen: Vec<_> = trash.iter().map(|item| (item.kind, item.id, item.files, item.size_bytes)).collect();
    assert_eq!(seen, [(Kind::Folder, a.0, 1, 1), (Kind::File, earlier.id.0, 1, 2)]);
    for limit in [1, 2] {
        let mut cursor = None;
        for item in trash.chunks(limit) {
            let list = ListTrash { limit: Some(u32::try_from(limit).unwrap()), cursor };
            let page = world.requests.clone().list_trash(call(caller, list)).await.unwrap();
            assert_eq!(page.items, item);
            cursor = page.next_cursor;
        }
        assert_eq!(cursor, None);
    }

    // A new folder has the path by then; the file that was deleted on its own follows the folder that it was in.
    world.file(caller, "/a", "z", "").await;
    let restored = world.requests.clone().restore(call(caller, restore(a.0))).await.unwrap();
    assert_eq!((restored.kind, restored.name.as_str(), restored.folder.as_str()), (Kind::Folder, "a (2)", "/"));
    assert_eq!(world.get(caller, inner.id).await.unwrap().folder, "/a (2)/b");
    world.requests.clone().restore(call(caller, restore(earlier.id.0))).await.unwrap();
    assert_eq!(world.get(caller, earlier.id).await.unwrap().folder, "/a (2)/b");
    assert_eq!(world.usage(caller).await, (3, 3));

    // For good: rows of folders go too, and what was deleted on its own before stays to be had back.
    world.requests.clone().delete(call(caller, DeleteFile { id: earlier.id })).await.unwrap();
    world.requests.clone().delete_folder(call(caller, DeleteFolder { id: a })).await.unwrap();
    world.requests.clone().purge(call(caller, PurgeTrashed { id: a.0 })).await.unwrap();
    world.purge().await;
    while crate::files::store::trash::remove_empty(&world.pool, 10).await.unwrap() > 0 {}
    let left: Vec<String> = sqlx::query_scalar("SELECT path FROM folders ORDER BY path").fetch_all(&world.pool).await.unwrap();
    assert_eq!(left, ["/", "/a"]);
    assert_eq!((world.usage(caller).await, world.keys(caller).await.len()), ((2, 1), 2));
    let back = world.requests.clone().restore(call(caller, restore(earlier.id.0))).await.unwrap();
    assert_eq!(back.folder, "/");
    assert_eq!(world.content(earlier.id).await.unwrap(), "22");
}

#[tokio::test]
async fn a_file_whose_time_is_over_moves_to_the_trash_and_comes_back_without_one() {
    let world = World::new().await;
    let caller = world.account().await;
    let file = world.file(caller, "/", "x", "x").await;
    let changes = FileChanges { expires_at: Some(file.created_at + time::Duration::hours(1)), ..FileChanges::default() };
    world.requests.clone().update(call(caller, UpdateFile { id: file.id, if_version: None, changes })).await.unwrap();
    // The alarm comes too soon: the row decides, and the alarm is armed again.
    sqlx::query("UPDATE alarms SET wake_at = now() WHERE kind = 'file_expiry'").execute(&world.pool).await.unwrap();
    world.wake().await;
    assert!(world.get(caller, file.id).await.is_some());
    sqlx::query("UPDATE files SET expires_at = now() WHERE id = $1").bind(file.id.0).execute(&world.pool).await.unwrap();
    assert_eq!(
        sqlx::query("UPDATE alarms SET wake_at = now() WHERE kind = 'file_expiry'")
            .execute(&world.pool)
            .await
            .unwrap()
            .rows_affected(),
        1
    );
    world.wake().await;
    assert_eq!(world.get(caller, file.id).await, None);
    world.requests.clone().restore(call(caller, restore(file.id.0))).await.unwrap();
    assert_eq!(world.get(caller, file.id).await.unwrap().expires_at, None);
    assert_eq!(
        world.events(file.id.0).await,
        ["file.available", "file.updated", "file.expired", "file.trashed", "file.restored"]
    );
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Step {
    Trash,
    Restore,
    PurgeNow,
    /// Its time in the trash is over, by the database's clock.
    Over,
    /// The alarm comes, rightly or too soon, while its owner restores it.
    WakeAndRestore,
    /// The alarm comes, rightly or too soon.
    Wake,
    Purge,
}

/// Random histories of one file, with the alarm, the purger and its owner racing. Restored but gone: never. Gone before its
/// time: never.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_restored_is_gone_and_nothing_is_gone_before_its_time() {
    #[expect(clippy::disallowed_methods, reason = "`make prove` chooses the size of the proof")]
    let cases = if std::env::var("BOWERBIRD_PROVE").is_ok() { 10_000 } else { 60 };
    let world = Arc::new(World::new().await);
    let caller = world.account().await;
    let handle = tokio::runtime::Handle::current();
    let steps = prop::collection::vec(
        prop::sample::select(vec![
            Step::Trash,
            Step::Trash,
            Step::Restore,
            Step::PurgeNow,
            Step::Over,
            Step::Over,
            Step::WakeAndRestore,
            Step::WakeAndRestore,
            Step::Wake,
            Step::Purge,
        ]),
        1..14,
    );
    let (shared, owner) = (Arc::clone(&world), caller);
    tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(ProptestConfig { cases, max_shrink_iters: 0, ..ProptestConfig::default() });
        runner.run(&steps, |steps| handle.block_on(history(&shared, owner, &steps))).unwrap();
    })
    .await
    .unwrap();
    world.purge().await;
    let stored: i64 =
        sqlx::query_scalar("SELECT coalesce(sum(size_bytes), 0)::bigint FROM files").fetch_one(&world.pool).await.unwrap();
    assert_eq!(world.usage(caller).await.0, stored, "the account's bytes are those of its rows");
}

async fn history(world: &Arc<World>, caller: bowerbird_nats::credential::Caller, steps: &[Step]) -> Result<(), TestCaseError> {
    let file = world.file(caller, "/", "x", "content").await;
    let id = file.id.0;
    // Whether it may be purged, by what was done to it.
    let mut over = false;
    let mut trashed = false;
    let mut gone = false;
    for step in steps {
        match step {
            Step::Trash => {
                let done = world.requests.clone().delete(call(caller, DeleteFile { id: file.id })).await.is_ok();
                prop_assert_eq!(done, !trashed && !gone);
                if done {
                    (trashed, over) = (true, false);
                }
            }
            Step::Restore => {
                let done = world.requests.clone().restore(call(caller, restore(id))).await.is_ok();
                prop_assert_eq!(done, trashed && !gone);
                trashed = trashed && !done;
            }
            Step::PurgeNow => {
                let done = world.requests.clone().purge(call(caller, PurgeTrashed { id })).await.is_ok();
                prop_assert_eq!(done, trashed && !gone);
                gone = gone || done;
            }
            Step::Over => {
                over = sqlx::query("UPDATE files SET purge_after = now() WHERE id = $1 AND deleted_at IS NOT NULL")
                    .bind(id)
                    .execute(&world.pool)
                    .await
                    .unwrap()
                    .rows_affected()
                    == 1;
            }
            Step::Wake | Step::WakeAndRestore => {
                sqlx::query("UPDATE alarms SET wake_at = now() WHERE kind = 'trash' AND subject_id = $1")
                    .bind(id)
                    .execute(&world.pool)
                    .await
                    .unwrap();
                let racing = matches!(step, Step::WakeAndRestore);
                let owner = Arc::clone(world);
                let purging = Arc::clone(world);
                let (restored, ()) = tokio::join!(
                    async move { racing && owner.requests.clone().restore(call(caller, restore(id))).await.is_ok() },
                    async move {
                        purging.wake().await;
                        purging.purge().await;
                    },
                );
                if restored {
                    prop_assert!(trashed && !gone, "restored what was not to be had");
                    trashed = false;
                } else {
                    prop_assert!(!racing || !trashed || gone || over, "could not be restored in time");
                    gone = gone || (trashed && over);
                }
            }
            Step::Purge => world.purge().await,
        }
        if !gone {
            let content = world.content(file.id).await;
            prop_assert_eq!(content.as_deref(), Some("content"), "gone after {:?} of {:?}", step, steps);
            prop_assert_eq!(world.get(caller, file.id).await.is_some(), !trashed);
        }
    }
    if gone {
        world.purge().await;
        prop_assert_eq!(world.content(file.id).await, None);
        let row: i64 =
            sqlx::query_scalar("SELECT count(*) FROM files WHERE id = $1").bind(id).fetch_one(&world.pool).await.unwrap();
        prop_assert_eq!(row, 0);
    } else if !trashed {
        // Out of the way of the next history's name.
        world.requests.clone().delete(call(caller, DeleteFile { id: file.id })).await.unwrap();
    }
    Ok(())
}

#[tokio::test]
async fn a_folder_that_no_longer_fits_where_it_was_stays_in_the_trash_and_says_why() {
    let world = World::new().await;
    let caller = world.account().await;
    let create = |path: String| CreateFolder { path, on_collision: None };
    let requests = || world.requests.clone();
    // As deep as may be.
    let deepest = format!("/{}", (0..32).map(|number| format!("f{number}")).collect::<Vec<_>>().join("/"));
    requests().create_folder(call(caller, create(deepest))).await.unwrap();
    let [outer, inner] = [("/", "f0"), ("/f0", "f1")].map(|(parent, name)| (parent.to_owned(), name));
    let of = async |(parent, name): &(String, &str)| -> FolderId {
        let id: Uuid = sqlx::query_scalar("SELECT id FROM folders WHERE account_id = $1 AND path = $2")
            .bind(caller.account_id.0)
            .bind(format!("{}/{name}", parent.trim_end_matches('/')))
            .fetch_one(&world.pool)
            .await
            .unwrap();
        FolderId(id)
    };
    let (outer, inner) = (of(&outer).await, of(&inner).await);
    requests().delete_folder(call(caller, DeleteFolder { id: inner })).await.unwrap();
    requests().create_folder(call(caller, create("/z".to_owned()))).await.unwrap();
    let changes = FolderChanges { parent: Some("/z".to_owned()), ..FolderChanges::default() };
    requests().update_folder(call(caller, UpdateFolder { id: outer, if_version: None, changes })).await.unwrap();
    let refused = requests().restore(call(caller, restore(inner.0))).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidState);
    assert!(refused.detail.contains("deeper than 32 folders"), "{}", refused.detail);
    let trash = requests().list_trash(call(caller, ListTrash::default())).await.unwrap().items;
    assert_eq!((trash.len(), trash[0].id), (1, inner.0));
    // Back where it came from there is room.
    let changes = FolderChanges { parent: Some("/".to_owned()), ..FolderChanges::default() };
    requests().update_folder(call(caller, UpdateFolder { id: outer, if_version: None, changes })).await.unwrap();
    requests().restore(call(caller, restore(inner.0))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tree_moves_to_the_trash_and_back_beside_changes_of_its_files_and_nobody_is_turned_away() {
    let world = Arc::new(World::new().await);
    let caller = world.account().await;
    let mut ids = Vec::new();
    for number in 0..60 {
        ids.push(world.file(caller, "/a", &format!("{number}"), "x").await.id);
    }
    ids.reverse();
    let folder = world.get(caller, ids[0]).await.unwrap().folder_id.unwrap();
    let (tagging, moving) = (Arc::clone(&world), Arc::clone(&world));
    let tags = |round: usize| if round.is_multiple_of(2) { BulkAction::Tag } else { BulkAction::Untag };
    tokio::join!(
        async move {
            for round in 0..40 {
                let bulk = BulkFiles {
                    action: tags(round),
                    ids: ids.clone(),
                    folder: None,
                    tags: vec!["t".to_owned()],
                    on_collision: None,
                };
                let result = tagging.requests.clone().bulk(call(caller, bulk)).await.unwrap();
                for item in result.items {
                    assert!(item.error.as_ref().is_none_or(|error| error.code == Code::NotFound), "{item:?}");
                }
            }
        },
        async move {
            for _ in 0..40 {
                moving.requests.clone().delete_folder(call(caller, DeleteFolder { id: folder })).await.unwrap();
                moving.requests.clone().restore(call(caller, restore(folder.0))).await.unwrap();
            }
        },
    );
    assert_eq!(world.usage(caller).await, (60, 60));
}
