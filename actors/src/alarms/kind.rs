//! The kinds of alarms: whose they are. The text is in the table, so it never changes.

use std::fmt;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        /// Whose an alarm is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[doc = $doc])* $name,)*
        }

        impl Kind {
            /// Every kind of this version.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// As it is in the table.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Kind::$name => $text,)*
                }
            }
        }
    };
}

kinds! {
    /// A download may run: it was for later, or its next try is. Subject: the download.
    Download = "download";
    /// Something is to be deleted in the bucket. Subject: the number of the purge.
    Purge = "purge";
    /// Something has been in the trash for long enough. Subject: the file or folder.
    Trash = "trash";
    /// The time of a file is over. Subject: the file.
    FileExpiry = "file_expiry";
    /// The time of a share is over. Subject: the share.
    ShareExpiry = "share_expiry";
    /// What was kept for a time goes. Subject: the sweep.
    Sweep = "sweep";
    /// An upload is over, or is to be looked at again. Subject: the upload.
    Upload = "upload";
    /// A signing key is made, begins to sign, or is forgotten. Subject: none, the nil UUID.
    KeyRotation = "key_rotation";
    /// A reminder fires. Subject: the reminder.
    Reminder = "reminder";
    /// An e-mail that gathered, or that the mail server put off, is sent. Subject: the e-mail.
    Email = "email";
    /// A message for a webhook is tried again. Subject: its row of `webhook_deliveries`.
    WebhookDelivery = "webhook_delivery";
    /// A receiver was left alone as long as it wanted. Subject: the webhook.
    WebhookPause = "webhook_pause";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_has_a_text_of_its_own_that_the_table_takes() {
        let texts: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(texts.len(), Kind::ALL.len());
        for text in texts {
            let fits = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!((1..=32).contains(&text.len()) && text.bytes().all(fits), "{text}");
        }
    }
}
