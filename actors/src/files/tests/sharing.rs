//! Shares: counted exactly, ended at once, throttled; archives.

use std::sync::Arc;

use bowerbird_nats::{
    Call, Code, Problem,
    archive::{BeginArchive, LinkArchived, ListArchive},
    credential::Caller,
    file::DeleteFile,
    folder::{CreateFolder, DeleteFolder},
    share::{CreateShare, EndedBy, FetchShare, Fetched, ListShares, OpenShare, RevokeShare, Share, UnlockShare},
    trash::RestoreTrashed,
};
use tokio::task::JoinSet;

use super::world::{World, call};

/// Fetches that a counted share allows here.
const MOST: i64 = 20;

fn public<O: serde::Serialize>(caller: Caller, request: O) -> Call<O> {
    Call { caller: None, ..call(caller, request) }
}

async fn share(world: &World, caller: Caller, create: CreateShare) -> Share {
    world.requests.clone().create_share(call(caller, create)).await.unwrap()
}

async fn fetch(world: &World, caller: Caller, share: &Share, ticket: Option<String>) -> Result<Fetched, Problem> {
    let request = FetchShare { token: share.token.clone().unwrap(), ticket };
    world.requests.clone().fetch_share(public(caller, request)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_for_so_many_fetches_gives_exactly_so_many_whoever_races() {
    let world = Arc::new(World::new().await);
    let caller = world.account().await;
    let file = world.file(caller, "/", "x", "content").await;
    let create = CreateShare { file_id: Some(file.id), max_downloads: Some(MOST), ..CreateShare::default() };
    let made = share(&world, caller, create).await;
    let mut racing = JoinSet::new();
    for _ in 0..MOST + 16 {
        let (world, made) = (Arc::clone(&world), made.clone());
        racing.spawn(async move { fetch(&world, caller, &made, None).await });
    }
    let outcomes = racing.join_all().await;
    let good: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    assert_eq!(good.len(), usize::try_from(MOST).unwrap());
    assert!(good.iter().all(|fetched| fetched.streamed.is_some() && fetched.redirect.is_none()), "streamed, so that it is exact");
    assert!(outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).all(|problem| problem.code == Code::NotFound));
    let listed = world.requests.clone().list_shares(call(caller, ListShares::default())).await.unwrap().items;
    assert_eq!((listed[0].downloads, &listed[0].token, &listed[0].url), (MOST, &None, &None));
}

#[tokio::test]
async fn a_share_ends_at_once_with_its_right_its_time_its_file_or_its_owner() {
    let world = World::new().await;
    let (caller, stranger) = (world.account().await, world.account().await);
    let file = world.file(caller, "/a", "x", "content").await;
    let theirs = CreateShare { file_id: Some(file.id), ..CreateShare::default() };
    let problem = world.requests.clone().create_share(call(stranger, theirs.clone())).await.unwrap_err();
    assert_eq!(problem.code, Code::NotFound);
    let nothing = world.requests.clone().create_share(call(caller, CreateShare::default())).await.unwrap_err();
    assert_eq!(nothing.errors[0].field, "file_id");

    let made = share(&world, caller, theirs.clone()).await;
    let token = made.token.clone().unwrap();
    assert!(token.len() == 32 && made.url.as_ref().unwrap().ends_with(&format!("/s/{token}")));
    let dump: i64 = sqlx::query_scalar("SELECT count(*) FROM shares AS s WHERE s::text LIKE '%' || $1 || '%'")
        .bind(&token)
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(dump, 0, "the token is not stored");
    let fetched = fetch(&world, caller, &made, None).await.unwrap();
    let link = fetched.redirect.unwrap();
    let lives: time::Duration = link.expires_at - file.created_at;
    assert!(lives <= time::Duration::seconds(90) && link.url.contains("X-Amz-Expires=60"), "{lives}");

    let gone = async |made: &Share| {
        let open = OpenShare { token: made.token.clone().unwrap() };
        let opened = world.requests.clone().open_share(public(caller, open)).await;
        let fetched = fetch(&world, caller, made, None).await;
        assert_eq!(opened.is_err(), fetched.is_err());
        fetched.is_err_and(|problem| problem.code == Code::NotFound)
    };
    assert!(!gone(&made).await);
    let revoke = RevokeShare { id: made.id };
    assert_eq!(world.requests.clone().revoke_share(call(stranger, revoke.clone())).await.unwrap_err().code, Code::NotFound);
    world.requests.clone().revoke_share(call(caller, revoke.clone())).await.unwrap();
    world.requests.clone().revoke_share(call(caller, revoke)).await.unwrap();
    assert!(gone(&made).await);
    assert_eq!(world.events(made.id.0).await, ["share.created", "share.opened", "share.opened", "share.revoked"]);

    let soon = Some(file.created_at + time::Duration::hours(1));
    let expiring = share(&world, caller, CreateShare { expires_at: soon, ..theirs.clone() }).await;
    sqlx::query("UPDATE alarms SET wake_at = now() WHERE kind = 'share_expiry'").execute(&world.pool).await.unwrap();
    world.wake().await;
    assert!(!gone(&expiring).await, "an alarm that comes too soon ends nothing");
    sqlx::query("UPDATE shares SET expires_at = now() WHERE id = $1").bind(expiring.id.0).execute(&world.pool).await.unwrap();
    assert!(gone(&expiring).await, "before its alarm");
    sqlx::query("UPDATE alarms SET wake_at = now() WHERE kind = 'share_expiry'").execute(&world.pool).await.unwrap();
    world.wake().await;
    let listed = world.requests.clone().list_shares(call(caller, ListShares::default())).await.unwrap().items;
    assert_eq!((listed[0].id, listed[0].ended_by), (expiring.id, Some(EndedBy::Expired)));

    let of_file = share(&world, caller, theirs.clone()).await;
    let of_folder = share(&world, caller, CreateShare { folder_id: file.folder_id, ..CreateShare::default() }).await;
    assert!(fetch(&world, caller, &of_folder, None).await.unwrap().archive.is_some());
    sqlx::query("UPDATE accounts SET disabled_at = now() WHERE id = $1")
        .bind(caller.account_id.0)
        .execute(&world.pool)
        .await
        .unwrap();
    assert!(gone(&of_file).await && gone(&of_folder).await, "its owner may do nothing");
    sqlx::query("UPDATE accounts SET disabled_at = NULL WHERE id = $1")
        .bind(caller.account_id.0)
        .execute(&world.pool)
        .await
        .unwrap();
    assert!(!gone(&of_file).await);
    world.requests.clone().delete(call(caller, DeleteFile { id: file.id })).await.unwrap();
    assert!(gone(&of_file).await);
    world.requests.clone().restore(call(caller, RestoreTrashed { id: file.id.0, on_collision: None })).await.unwrap();
    assert!(gone(&of_file).await, "what ended does not come back");
    world.requests.clone().delete_folder(call(caller, DeleteFolder { id: file.folder_id.unwrap() })).await.unwrap();
    assert!(gone(&of_folder).await);
}

#[tokio::test]
async fn a_password_is_asked_for_and_guesses_are_slowed_down() {
    let world = World::with("auth.argon2_memory_kib = 64").await;
    let caller = world.account().await;
    let file = world.file(caller, "/", "secret.txt", "content").await;
    let create = CreateShare { file_id: Some(file.id), password: Some("correct horse".to_owned()), ..CreateShare::default() };
    let made = share(&world, caller, create).await;
    let other = share(
        &world,
        caller,
        CreateShare { file_id: Some(file.id), password: Some("another one".to_owned()), ..CreateShare::default() },
    )
    .await;
    let token = made.token.clone().unwrap();
    let told = world.requests.clone().open_share(public(caller, OpenShare { token: token.clone() })).await.unwrap();
    assert_eq!((told.has_password, told.name, told.size_bytes), (true, None, None));
    assert_eq!(fetch(&world, caller, &made, None).await.unwrap_err().code, Code::Forbidden);

    let unlock = async |share: &Share, password: &str| {
        let request = UnlockShare { token: share.token.clone().unwrap(), password: password.to_owned() };
        world.requests.clone().unlock_share(public(caller, request)).await
    };
    let unlocked = unlock(&made, "correct horse").await.unwrap();
    assert_eq!(unlocked.shared.name.as_deref(), Some("secret.txt"));
    assert!(fetch(&world, caller, &made, Some(unlocked.ticket.clone())).await.is_ok());
    assert_eq!(fetch(&world, caller, &other, Some(unlocked.ticket.clone())).await.unwrap_err().code, Code::Forbidden);
    let mut altered = unlocked.ticket.clone();
    altered.replace_range(30..31, if &altered[30..31] == "A" { "B" } else { "A" });
    assert_eq!(fetch(&world, caller, &made, Some(altered)).await.unwrap_err().code, Code::Forbidden);

    // Five wrong ones, however many at once, then a pause in which not even the right one is looked at.
    let tries = futures_util::future::join_all((0..12).map(|_| unlock(&made, "wrong wrong"))).await;
    let codes: Vec<Code> = tries.iter().map(|outcome| outcome.as_ref().unwrap_err().code).collect();
    assert_eq!(codes.iter().filter(|code| **code == Code::InvalidCredentials).count(), 5, "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Code::InvalidCredentials | Code::TooMany)), "{codes:?}");
    let paused = unlock(&made, "correct horse").await.unwrap_err();
    assert!(paused.code == Code::TooMany && (1..=8).contains(&paused.retry_after.unwrap()), "{paused:?}");
    assert!(unlock(&other, "another one").await.is_ok(), "other links are not held up");
    sqlx::query("UPDATE shares SET locked_until = now() WHERE id = $1").bind(made.id.0).execute(&world.pool).await.unwrap();
    assert_eq!(unlock(&made, "wrong wrong").await.unwrap_err().code, Code::InvalidCredentials);
    let longer = unlock(&made, "correct horse").await.unwrap_err().retry_after.unwrap();
    assert!((9..=16).contains(&longer), "{longer}");
    sqlx::query("UPDATE shares SET locked_until = now() WHERE id = $1").bind(made.id.0).execute(&world.pool).await.unwrap();
    assert!(unlock(&made, "correct horse").await.is_ok());
}

#[tokio::test]
async fn an_archive_holds_everything_below_a_folder_once_and_its_grant_nothing_else() {
    let world = World::new().await;
    let caller = world.account().await;
    let create = CreateFolder { path: "/a/empty".to_owned(), on_collision: None };
    let empty = world.requests.clone().create_folder(call(caller, create)).await.unwrap();
    let mut expected = vec!["empty/".to_owned(), "b/".to_owned()];
    for number in 0..230 {
        let folder = if number % 2 == 0 { "/a" } else { "/a/b" };
        world.file(caller, folder, &format!("{number}"), "x").await;
        expected.push(if number % 2 == 0 { format!("{number}") } else { format!("b/{number}") });
    }
    let outside = world.file(caller, "/ab", "x", "x").await;
    let begin = BeginArchive { folder_id: empty.parent_id.unwrap() };
    let archive = world.requests.clone().begin_archive(call(caller, begin)).await.unwrap();
    assert_eq!(archive.name, "a");
    let (mut found, mut after, mut some) = (Vec::new(), None, None);
    loop {
        let list = ListArchive { grant: archive.grant.clone(), after };
        let page = world.requests.clone().list_archive(public(caller, list)).await.unwrap();
        some = some.or_else(|| page.entries.iter().find_map(|entry| entry.file_id));
        found.extend(page.entries.into_iter().map(|entry| entry.path));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    let link = async |grant: &str, file_id| {
        let request = LinkArchived { grant: grant.to_owned(), file_id };
        world.requests.clone().link_archived(public(caller, request)).await
    };
    assert!(link(&archive.grant, some.unwrap()).await.is_ok());
    assert_eq!(link(&archive.grant, outside.id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(link("nonsense", some.unwrap()).await.unwrap_err().code, Code::Forbidden);

    // One that came by a share ends with it.
    let made = share(&world, caller, CreateShare { folder_id: empty.parent_id, ..CreateShare::default() }).await;
    let archive = fetch(&world, caller, &made, None).await.unwrap().archive.unwrap();
    assert!(link(&archive.grant, some.unwrap()).await.is_ok());
    world.requests.clone().revoke_share(call(caller, RevokeShare { id: made.id })).await.unwrap();
    assert_eq!(link(&archive.grant, some.unwrap()).await.unwrap_err().code, Code::NotFound);
}
