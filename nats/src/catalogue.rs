//! Every operation of this version, for documents and tools.

use std::any::type_name;

use crate::{
    account, download, file,
    operation::{Access, Operation},
    session,
};

/// What is told of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `download`
    pub area: &'static str,
    /// `create`
    pub name: &'static str,
    /// Who may ask.
    pub access: Access,
    /// One sentence.
    pub summary: &'static str,
    /// Type of the request: `CreateDownload`.
    pub request: &'static str,
    /// Type of the reply: `Download`, `Page<Download>`.
    pub reply: &'static str,
}

fn entry<O: Operation>() -> Entry {
    Entry {
        area: O::AREA,
        name: O::NAME,
        access: O::ACCESS,
        summary: O::SUMMARY,
        request: type_name::<O>(),
        reply: type_name::<O::Reply>(),
    }
}

/// Every operation.
pub fn operations() -> Vec<Entry> {
    vec![
        entry::<account::Register>(),
        entry::<account::GetAccount>(),
        entry::<account::GetUsage>(),
        entry::<session::Login>(),
        entry::<session::Refresh>(),
        entry::<session::Logout>(),
        entry::<session::Verify>(),
        entry::<download::CreateDownload>(),
        entry::<download::GetDownload>(),
        entry::<download::ListDownloads>(),
        entry::<download::UpdateDownload>(),
        entry::<download::CancelDownload>(),
        entry::<download::RetryDownload>(),
        entry::<download::DeleteDownload>(),
        entry::<file::GetFile>(),
        entry::<file::ListFiles>(),
        entry::<file::DeleteFile>(),
        entry::<file::PresignFile>(),
    ]
}
