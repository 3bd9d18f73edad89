//! Examples of shares and archives.

use bowerbird_nats::{
    FileId, FolderId, Page, ShareId,
    archive::{Archive, BeginArchive, Entries, Entry, LinkArchived, ListArchive},
    event,
    file::Link,
    operation::Done,
    share::{
        self, CreateShare, EndedBy, FetchShare, Fetched, ListShares, OpenShare, RevokeShare, Share, Shared, UnlockShare, Unlocked,
    },
    sweep::{ListSweeps, RunSweep, Sweep, Sweeps, Swept},
};

use super::{AT, Examples, uuid};

fn a_share() -> Share {
    Share {
        id: ShareId(uuid(30)),
        file_id: Some(FileId(uuid(4))),
        folder_id: None,
        name: "film.mkv".into(),
        url: None,
        token: None,
        has_password: true,
        expires_at: Some(AT),
        max_downloads: Some(3),
        downloads: 1,
        created_at: AT,
        ended_at: None,
        ended_by: None,
    }
}

fn a_link() -> Link {
    Link { url: "https://objects.example.org/bowerbird/o/0198?X-Amz-Signature=…".into(), expires_at: AT }
}

pub(super) fn add(examples: &mut Examples) {
    let token = "b1n6sT2nS0v8bFvHq3C4m9wKxY5zA7dE".to_owned();
    let create = CreateShare {
        file_id: Some(FileId(uuid(4))),
        folder_id: None,
        password: Some("correct horse".into()),
        expires_at: Some(AT),
        max_downloads: Some(3),
    };
    let made =
        Share { url: Some(format!("https://drop.example.org/s/{token}")), token: Some(token.clone()), downloads: 0, ..a_share() };
    examples.operation(&create, &made);
    let list = ListShares { file_id: Some(FileId(uuid(4))), folder_id: None, limit: Some(50), cursor: None };
    let ended = Share { ended_at: Some(AT), ended_by: Some(EndedBy::Expired), ..a_share() };
    examples.operation(&list, &Page { items: vec![ended.clone()], next_cursor: None });
    examples.operation(&RevokeShare { id: ShareId(uuid(30)) }, &Done {});
    let shared = Shared {
        has_password: true,
        name: Some("film.mkv".into()),
        is_folder: false,
        size_bytes: Some(734_003_200),
        expires_at: Some(AT),
        downloads_left: Some(2),
    };
    examples.operation(&OpenShare { token: token.clone() }, &shared);
    let unlocked = Unlocked { ticket: "b3BhcXVl".into(), expires_at: AT, shared };
    examples.operation(&UnlockShare { token: token.clone(), password: "correct horse".into() }, &unlocked);
    let fetched = Fetched { redirect: Some(a_link()), streamed: None, archive: None };
    examples.operation(&FetchShare { token, ticket: Some("b3BhcXVl".into()) }, &fetched);
    examples.event(&event::SHARE_CREATED, &share::Changed { share: a_share() });
    examples.event(&event::SHARE_OPENED, &share::Opened { share_id: ShareId(uuid(30)), downloads: 1 });
    examples.event(&event::SHARE_REVOKED, &share::Changed { share: a_share() });
    examples.event(&event::SHARE_EXPIRED, &share::Changed { share: ended });

    let grant = "b3BhcXVl".to_owned();
    let archive = Archive { name: "films".into(), grant: grant.clone() };
    examples.operation(&BeginArchive { folder_id: FolderId(uuid(20)) }, &archive);
    let entry = Entry { file_id: Some(FileId(uuid(4))), path: "old/film.mkv".into(), size_bytes: 734_003_200, updated_at: AT };
    let folder = Entry { file_id: None, path: "old/".into(), size_bytes: 0, updated_at: AT };
    let entries = Entries { entries: vec![folder, entry], next: Some("/films/old\nfilm.mkv".into()) };
    examples.operation(&ListArchive { grant: grant.clone(), after: Some("/films\n".into()) }, &entries);
    let sweep = Sweep { name: "shares-that-ended".into(), every_seconds: 600 };
    examples.operation(&ListSweeps {}, &Sweeps { items: vec![sweep] });
    let swept = Swept { name: "shares-that-ended".into(), rows: 12 };
    examples.operation(&RunSweep { name: "shares-that-ended".into() }, &swept);
    examples.operation(&LinkArchived { grant, file_id: FileId(uuid(4)) }, &a_link());
}
