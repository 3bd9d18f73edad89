//! Every operation of this version, for documents and tools.

use std::any::type_name;

use crate::{
    account, archive, dead_letter, download, file, folder, notification,
    operation::{Access, Operation},
    reconciliation, reminder, session, share, statistics, sweep, trash, upload, webhook,
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
        entry::<account::UpdateAccount>(),
        entry::<account::GetUsage>(),
        entry::<account::RequestEmailVerification>(),
        entry::<account::VerifyEmail>(),
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
        entry::<file::UpdateFile>(),
        entry::<file::DeleteFile>(),
        entry::<file::CopyFile>(),
        entry::<file::BulkFiles>(),
        entry::<file::ListVersions>(),
        entry::<file::RestoreVersion>(),
        entry::<file::PresignFile>(),
        entry::<upload::CreateUpload>(),
        entry::<upload::GetUpload>(),
        entry::<upload::ListUploads>(),
        entry::<upload::LinkUpload>(),
        entry::<upload::CompleteUpload>(),
        entry::<upload::AbortUpload>(),
        entry::<reconciliation::Reconcile>(),
        entry::<folder::CreateFolder>(),
        entry::<folder::GetFolder>(),
        entry::<folder::ListFolder>(),
        entry::<folder::UpdateFolder>(),
        entry::<folder::DeleteFolder>(),
        entry::<archive::BeginArchive>(),
        entry::<archive::ListArchive>(),
        entry::<archive::LinkArchived>(),
        entry::<share::CreateShare>(),
        entry::<share::ListShares>(),
        entry::<share::RevokeShare>(),
        entry::<share::OpenShare>(),
        entry::<share::UnlockShare>(),
        entry::<share::FetchShare>(),
        entry::<trash::ListTrash>(),
        entry::<trash::RestoreTrashed>(),
        entry::<trash::PurgeTrashed>(),
        entry::<statistics::GetStatistics>(),
        entry::<statistics::GetSystemStatistics>(),
        entry::<sweep::ListSweeps>(),
        entry::<sweep::RunSweep>(),
        entry::<dead_letter::ListDeadLetters>(),
        entry::<dead_letter::GetDeadLetter>(),
        entry::<dead_letter::ReplayDeadLetter>(),
        entry::<dead_letter::DeleteDeadLetter>(),
        entry::<reminder::CreateReminder>(),
        entry::<reminder::GetReminder>(),
        entry::<reminder::ListReminders>(),
        entry::<reminder::UpdateReminder>(),
        entry::<reminder::SnoozeReminder>(),
        entry::<reminder::SkipReminder>(),
        entry::<reminder::CompleteReminder>(),
        entry::<reminder::CancelReminder>(),
        entry::<webhook::CreateWebhook>(),
        entry::<webhook::GetWebhook>(),
        entry::<webhook::ListWebhooks>(),
        entry::<webhook::UpdateWebhook>(),
        entry::<webhook::DeleteWebhook>(),
        entry::<webhook::TestWebhook>(),
        entry::<webhook::RotateWebhookSecret>(),
        entry::<webhook::ListWebhookDeliveries>(),
        entry::<webhook::GetWebhookDelivery>(),
        entry::<webhook::RetryWebhookDelivery>(),
        entry::<notification::ListNotifications>(),
        entry::<notification::ReadNotification>(),
        entry::<notification::ReadAllNotifications>(),
        entry::<notification::GetSettings>(),
        entry::<notification::ChangeSettings>(),
        entry::<notification::Unsubscribe>(),
    ]
}
