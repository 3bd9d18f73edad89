//! Names and places: files and folders renamed and moved, collisions, circles, versions.

use bowerbird_nats::{
    Code, FolderId, Problem,
    credential::Caller,
    file::{Clearable, File, FileChanges, OnCollision, UpdateFile},
    folder::{CreateFolder, Folder, FolderChanges, ListFolder, UpdateFolder},
};
use tokio::task::JoinSet;

use super::world::{World, call};

async fn update(world: &World, caller: Caller, file: &File, changes: FileChanges) -> Result<File, Problem> {
    world.requests.clone().update(call(caller, UpdateFile { id: file.id, if_version: None, changes })).await
}

fn named(name: &str, on_collision: OnCollision) -> FileChanges {
    FileChanges { name: Some(name.to_owned()), on_collision: Some(on_collision), ..FileChanges::default() }
}

async fn folder(world: &World, caller: Caller, path: &str) -> Folder {
    let create = CreateFolder { path: path.to_owned(), on_collision: None };
    world.requests.clone().create_folder(call(caller, create)).await.unwrap()
}

async fn move_to(world: &World, caller: Caller, id: FolderId, parent: &str) -> Result<Folder, Problem> {
    let changes = FolderChanges { parent: Some(parent.to_owned()), ..FolderChanges::default() };
    world.requests.clone().update_folder(call(caller, UpdateFolder { id, if_version: None, changes })).await
}

#[tokio::test]
async fn a_file_is_renamed_moved_tagged_described_and_keeps_the_rest() {
    let world = World::new().await;
    let caller = world.account().await;
    let file = world.file(caller, "/in", "a.txt", "a").await;
    let changes = FileChanges {
        name: Some("b.txt".to_owned()),
        folder: Some("/out/2026".to_owned()),
        tags: Some(vec!["z".to_owned(), "a".to_owned(), "z".to_owned()]),
        description: Some("first line\nsecond".to_owned()),
        expires_at: Some(file.created_at + time::Duration::days(1)),
        ..FileChanges::default()
    };
    let changed = update(&world, caller, &file, changes).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.folder.as_str(), changed.version), ("b.txt", "/out/2026", 2));
    assert_eq!(changed.tags, ["a", "z"]);
    assert!(changed.expires_at.is_some());
    assert_eq!(world.events(file.id.0).await, ["file.available", "file.renamed", "file.updated"]);

    let stale = UpdateFile { id: file.id, if_version: Some(1), changes: named("c", OnCollision::Fail) };
    assert_eq!(world.requests.clone().update(call(caller, stale)).await.unwrap_err().code, Code::VersionMismatch);
    let clear = FileChanges { clear: vec![Clearable::Description, Clearable::ExpiresAt], ..FileChanges::default() };
    let cleared = update(&world, caller, &file, clear).await.unwrap();
    assert_eq!((cleared.description, cleared.expires_at, cleared.tags.len()), (None, None, 2));
    let alarms: i64 =
        sqlx::query_scalar("SELECT count(*) FROM alarms WHERE kind = 'file_expiry'").fetch_one(&world.pool).await.unwrap();
    assert_eq!(alarms, 0);
    let wrong = FileChanges {
        name: Some("a/b".to_owned()),
        folder: Some(format!("/{}", ["a"; 33].join("/"))),
        tags: Some(vec!["a,b".to_owned()]),
        expires_at: Some(file.created_at - time::Duration::days(1)),
        ..FileChanges::default()
    };
    assert_eq!(update(&world, caller, &file, wrong).await.unwrap_err().errors.len(), 4);
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_numbered_or_replaced_with_a_version_kept() {
    let world = World::new().await;
    let caller = world.account().await;
    let old = world.file(caller, "/", "report.pdf", "old").await;
    let new = world.file(caller, "/", "draft.pdf", "newer").await;
    let problem = update(&world, caller, &new, named("report.pdf", OnCollision::Fail)).await.unwrap_err();
    assert_eq!(problem.code, Code::NameTaken);
    let numbered = update(&world, caller, &new, named("report.pdf", OnCollision::Rename)).await.unwrap();
    assert_eq!(numbered.name, "report (2).pdf");
    let replaced = update(&world, caller, &new, named("report.pdf", OnCollision::Replace)).await.unwrap();
    assert_eq!((replaced.id, replaced.size_bytes, replaced.name.as_str()), (old.id, 5, "report.pdf"));
    assert_eq!(world.content(old.id).await.unwrap(), "newer");
    assert_eq!(world.get(caller, new.id).await, None);
    assert_eq!(world.usage(caller).await, (8, 1), "what was replaced still takes its place");
    let kept: i64 = sqlx::query_scalar("SELECT size_bytes FROM file_versions WHERE file_id = $1")
        .bind(old.id.0)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(kept, 3);
    assert_eq!(world.events(new.id.0).await.last().unwrap(), "file.purged");
}

#[tokio::test]
async fn downloads_of_one_name_that_end_together_get_names_of_their_own() {
    let world = World::new().await;
    let caller = world.account().await;
    let (world, mut racing) = (std::sync::Arc::new(world), JoinSet::new());
    for _ in 0..16 {
        let world = std::sync::Arc::clone(&world);
        racing.spawn(async move { world.file(caller, "/new/deep", "film.mkv", "x").await.name });
    }
    let mut names = racing.join_all().await;
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 16, "{names:?}");
    assert!(names.contains(&"film.mkv".to_owned()) && names.contains(&"film (16).mkv".to_owned()), "{names:?}");
}

#[tokio::test]
async fn a_folder_moves_with_everything_in_it_and_never_into_itself() {
    let world = World::new().await;
    let (caller, stranger) = (world.account().await, world.account().await);
    let (a, b) = (folder(&world, caller, "/a").await, folder(&world, caller, "/a/b").await);
    let file = world.file(caller, "/a/b/c", "x", "x").await;
    folder(&world, caller, "/a%b/c").await;
    for into in ["/a", "/a/b", "/a/b/c", "/a/new"] {
        assert_eq!(move_to(&world, caller, a.id, into).await.unwrap_err().errors[0].field, "parent", "{into}");
    }
    assert_eq!(move_to(&world, stranger, a.id, "/").await.unwrap_err().code, Code::NotFound);
    let moved = move_to(&world, caller, b.id, "/z/y").await.unwrap();
    assert_eq!((moved.path.as_str(), moved.version), ("/z/y/b", 2));
    assert_eq!(world.get(caller, file.id).await.unwrap().folder, "/z/y/b/c");
    let rename = FolderChanges { name: Some("z".to_owned()), ..FolderChanges::default() };
    let update = |changes| UpdateFolder { id: a.id, if_version: Some(1), changes };
    let problem = world.requests.clone().update_folder(call(caller, update(rename.clone()))).await.unwrap_err();
    assert_eq!(problem.code, Code::NameTaken);
    let renamed = FolderChanges { on_collision: Some(OnCollision::Rename), ..rename };
    let renamed = world.requests.clone().update_folder(call(caller, update(renamed))).await.unwrap();
    assert_eq!(renamed.path, "/z (2)");
    // 31 deep: the folder fits, what is below it does not.
    let deep = format!("/{}", ["d"; 31].join("/"));
    folder(&world, caller, &deep).await;
    let problem = move_to(&world, caller, moved.id, &deep).await.unwrap_err();
    assert!(problem.detail.contains("deeper"), "{problem}");
}

#[tokio::test]
async fn moves_that_race_make_no_circle() {
    let world = std::sync::Arc::new(World::new().await);
    let caller = world.account().await;
    for round in 0..10 {
        let (a, b) = (folder(&world, caller, &format!("/a{round}")).await, folder(&world, caller, &format!("/b{round}")).await);
        let mut racing = JoinSet::new();
        for (id, into) in [(a.id, format!("/b{round}")), (b.id, format!("/a{round}"))] {
            let world = std::sync::Arc::clone(&world);
            racing.spawn(async move { move_to(&world, caller, id, &into).await });
        }
        racing.join_all().await;
        let lost: i64 = sqlx::query_scalar(
            "WITH RECURSIVE reached AS (SELECT id FROM folders WHERE path = '/' UNION SELECT f.id FROM folders f JOIN reached r ON f.parent_id = r.id) \
             SELECT count(*) FROM folders WHERE id NOT IN (SELECT id FROM reached)",
        )
        .fetch_one(&world.pool)
        .await
        .unwrap();
        assert_eq!(lost, 0);
    }
}

#[tokio::test]
async fn a_folder_lists_folders_first_and_pages_go_on_where_they_ended() {
    let world = World::new().await;
    let caller = world.account().await;
    assert!(world.requests.clone().list_folder(call(caller, ListFolder::default())).await.unwrap().items.is_empty());
    let mut expected = Vec::new();
    for number in 0..7 {
        folder(&world, caller, &format!("/f{number}")).await;
        expected.push(format!("f{number}"));
    }
    for number in 0..8 {
        world.file(caller, "/", &format!("a{number}"), "").await;
        world.file(caller, "/f0", &format!("a{number}"), "").await;
        expected.push(format!("a{number}"));
    }
    for limit in 1..=16 {
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let list = ListFolder { id: None, path: Some("/".to_owned()), limit: Some(limit), cursor };
            let page = world.requests.clone().list_folder(call(caller, list)).await.unwrap();
            assert!(!page.items.is_empty() && page.items.len() <= limit as usize);
            found.extend(page.items.into_iter().map(|item| match (item.folder, item.file) {
                (Some(folder), None) => folder.name,
                (None, Some(file)) => file.name,
                _ => unreachable!(),
            }));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{limit} at a time");
    }
    let both = ListFolder { id: Some(FolderId(uuid::Uuid::nil())), path: Some("/".to_owned()), ..ListFolder::default() };
    assert_eq!(world.requests.clone().list_folder(call(caller, both)).await.unwrap_err().code, Code::InvalidValue);
    let none = ListFolder { path: Some("/nowhere".to_owned()), ..ListFolder::default() };
    assert_eq!(world.requests.clone().list_folder(call(caller, none)).await.unwrap_err().code, Code::NotFound);
}
