//! Lists: every filter, every order, every page.

use std::collections::BTreeSet;

use bowerbird_nats::{
    Code, FileId,
    credential::Caller,
    file::{FileChanges, ListFiles, Order, Sort, UpdateFile},
};
use proptest::{prelude::*, test_runner::TestRunner};

use super::world::{World, call};
use crate::{
    downloads::check as texts,
    files::store::{
        folders,
        list::{self, Filters},
    },
};

async fn ids(world: &World, caller: Caller, list: &ListFiles, limit: u32) -> Vec<FileId> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let request = ListFiles { limit: Some(limit), cursor, ..list.clone() };
        let page = world.requests.clone().list(call(caller, request)).await.unwrap();
        assert!(page.items.len() <= limit as usize);
        found.extend(page.items.iter().map(|file| file.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return found;
        }
        assert!(!page.items.is_empty());
    }
}

/// The same list, worked off in pieces of seven files.
async fn in_pieces(world: &World, caller: Caller, list: &ListFiles, limit: u32) -> Vec<FileId> {
    let folder = match &list.folder {
        None => None,
        Some(path) => match folders::find_path(&world.pool, caller.account_id, path).await.unwrap() {
            Some(folder) => Some(folder.id),
            None => return Vec::new(),
        },
    };
    let pattern = list.q.as_deref().map(texts::containing);
    let filters = Filters {
        folder,
        pattern: pattern.as_deref(),
        content_type: list.content_type.as_deref(),
        tags: &list.tags,
        min_size_bytes: list.min_size_bytes,
        max_size_bytes: list.max_size_bytes,
        created_after: list.created_after,
        updated_before: list.updated_before,
        ..Filters::default()
    };
    let (sort, descending) = (list.sort.unwrap(), list.order == Some(Order::Desc));
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let order = list::Order { sort, descending, after: after.as_ref() };
        let (page, end) = list::pieces(&world.pool, caller.account_id, &filters, order, limit, 7).await.unwrap();
        assert!(page.len() <= limit as usize);
        let is_full = page.len() == limit as usize;
        let last = page.last().map(|(_, mark)| mark.clone()).filter(|_| is_full);
        found.extend(page.into_iter().map(|(file, _)| file.id));
        after = last.or(end);
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_combination_of_filters_orders_and_pages_finds_what_a_look_at_each_file_finds() {
    let world = World::new().await;
    let (caller, other) = (world.account().await, world.account().await);
    let mut files = Vec::new();
    for number in 0_usize..60 {
        let name = format!("{} {}{number}.bin", ["Report", "REPORT", "film_100%", "Über"][number % 4], number % 7);
        let folder = ["/", "/a", "/a/b"][number % 3];
        let file = world.file(caller, folder, &name, &"x".repeat(number % 5)).await;
        world.file(other, folder, &name, "x").await;
        let mut tags = Vec::new();
        if number % 2 == 0 {
            tags.push("even".to_owned());
        }
        if number % 5 == 0 {
            tags.push("five".to_owned());
        }
        let changes = FileChanges { tags: Some(tags), ..FileChanges::default() };
        let update = UpdateFile { id: file.id, if_version: Some(1), changes };
        sqlx::query("UPDATE files SET content_type = $2 WHERE id = $1")
            .bind(file.id.0)
            .bind(["image/png", "image/jpeg", "text/plain"][number % 3])
            .execute(&world.pool)
            .await
            .unwrap();
        files.push(world.requests.clone().update(call(caller, update)).await.unwrap());
    }
    let handle = tokio::runtime::Handle::current();
    let strategy = (
        prop::option::of(prop::sample::select(vec!["/", "/a", "/a/b", "/none"])),
        prop::option::of(prop::sample::select(vec!["report", "100%", "o", "0.b", "_", "zzz"])),
        prop::option::of(prop::sample::select(vec!["image/", "text/plain", "video/"])),
        prop::sample::subsequence(vec!["even".to_owned(), "five".to_owned()], 0..=2),
        (prop::option::of(0_i64..5), prop::option::of(0_i64..5), prop::option::of(0_usize..60), prop::option::of(0_usize..60)),
        (prop::sample::select(vec![Sort::Created, Sort::Updated, Sort::Name, Sort::Size]), any::<bool>()),
        1_u32..30,
    );
    tokio::task::spawn_blocking(move || {
        let mut runner = TestRunner::new(ProptestConfig { cases: 150, ..ProptestConfig::default() });
        let run = runner.run(&strategy, |(folder, q, content_type, tags, (least, most, after, before), (sort, desc), limit)| {
            let list = ListFiles {
                folder: folder.map(str::to_owned),
                q: q.map(str::to_owned),
                content_type: content_type.map(str::to_owned),
                tags: tags.clone(),
                min_size_bytes: least,
                max_size_bytes: most,
                created_after: after.map(|number| files[number].created_at),
                updated_before: before.map(|number| files[number].updated_at),
                sort: Some(sort),
                order: Some(if desc { Order::Desc } else { Order::Asc }),
                ..ListFiles::default()
            };
            let mut expected: Vec<_> = files
                .iter()
                .filter(|file| folder.is_none_or(|folder| file.folder == folder))
                .filter(|file| q.is_none_or(|q| file.name.to_lowercase().contains(&q.to_lowercase())))
                .filter(|file| content_type.is_none_or(|prefix| file.content_type.starts_with(prefix)))
                .filter(|file| tags.iter().all(|tag| file.tags.contains(tag)))
                .filter(|file| least.is_none_or(|least| file.size_bytes >= least))
                .filter(|file| most.is_none_or(|most| file.size_bytes <= most))
                .filter(|file| after.is_none_or(|number| file.created_at >= files[number].created_at))
                .filter(|file| before.is_none_or(|number| file.updated_at < files[number].updated_at))
                .collect();
            expected.sort_by(|left, right| {
                let by = match sort {
                    Sort::Created => left.created_at.cmp(&right.created_at),
                    Sort::Updated => left.updated_at.cmp(&right.updated_at),
                    Sort::Name => left.name.to_lowercase().cmp(&right.name.to_lowercase()),
                    Sort::Size => left.size_bytes.cmp(&right.size_bytes),
                };
                let order = by.then(left.id.cmp(&right.id));
                if desc { order.reverse() } else { order }
            });
            let expected: Vec<FileId> = expected.into_iter().map(|file| file.id).collect();
            let found = handle.block_on(ids(&world, caller, &list, limit));
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(handle.block_on(in_pieces(&world, caller, &list, limit)), expected);
            Ok(())
        });
        run.unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_cursor_of_another_order_or_filter_is_refused_and_a_large_page_is_cut_short() {
    let world = World::new().await;
    let caller = world.account().await;
    let mut all = BTreeSet::new();
    for number in 0..60 {
        let file = world.file(caller, "/", &format!("{number}"), "x").await;
        let changes = FileChanges {
            description: Some("\u{1f600}".repeat(2000)),
            tags: Some((0..50).map(|tag| format!("{tag:02}{}", "\u{1f600}".repeat(62))).collect()),
            ..FileChanges::default()
        };
        let update = UpdateFile { id: file.id, if_version: None, changes };
        world.requests.clone().update(call(caller, update)).await.unwrap();
        all.insert(file.id);
    }
    let page = world.requests.clone().list(call(caller, ListFiles { limit: Some(200), ..ListFiles::default() })).await.unwrap();
    assert!(page.items.len() < 60 && page.next_cursor.is_some(), "{}", page.items.len());
    assert!(serde_json::to_vec(&page).unwrap().len() < 500_000);
    assert_eq!(ids(&world, caller, &ListFiles::default(), 200).await.into_iter().collect::<BTreeSet<_>>(), all);
    for other in [
        ListFiles { sort: Some(Sort::Name), ..ListFiles::default() },
        ListFiles { order: Some(Order::Asc), ..ListFiles::default() },
        ListFiles { q: Some("a".to_owned()), ..ListFiles::default() },
    ] {
        let request = ListFiles { cursor: page.next_cursor.clone(), ..other };
        assert_eq!(world.requests.clone().list(call(caller, request)).await.unwrap_err().code, Code::InvalidCursor);
    }
    let bad = ListFiles { tags: vec![String::new()], min_size_bytes: Some(-1), ..ListFiles::default() };
    let problem = world.requests.clone().list(call(caller, bad)).await.unwrap_err();
    assert_eq!(problem.errors.len(), 2, "{problem:?}");
}
