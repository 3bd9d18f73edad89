//! The e-mails themselves: a plain part and an HTML part that say the same, and the headers around them.
//!
//! What somebody else wrote is made one line before it comes here and is encoded here: in headers as RFC 2047 wants it, in
//! HTML by escaping. No text can add a header, a part or an element.

use std::{fmt::Write as _, time::SystemTime};

use bowerbird_nats::{AccountId, notification::Notification};
use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{Header, HeaderName, HeaderValue},
    },
};
use time::{OffsetDateTime, macros::format_description};
use url::Url;
use uuid::Uuid;

use super::tokens::Tokens;

/// Notifications that are written out in one e-mail; of more only the number is told.
pub(crate) const MOST_TOLD: usize = 50;

/// An e-mail cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The address is none that e-mail can be sent to.
    #[error("the address is none that e-mail can be sent to")]
    Address,
    /// The library refused it.
    #[error("the e-mail could not be made: {0}")]
    Message(#[from] lettre::error::Error),
}

/// Who writes, and where the links lead.
#[derive(Clone)]
pub(crate) struct Letterhead {
    pub(crate) from: Mailbox,
    /// What links are built from; never a header of a request.
    pub(crate) public_url: Url,
    pub(crate) tokens: Tokens,
}

/// Who is written to, in which e-mail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct To<'a> {
    pub(crate) email_id: Uuid,
    pub(crate) account_id: AccountId,
    pub(crate) address: &'a str,
    pub(crate) now: OffsetDateTime,
}

impl Letterhead {
    /// Tells of these notifications, and of how many there are besides.
    pub(crate) fn notifications(&self, to: To<'_>, told: &[Notification], more: usize) -> Result<Message, Error> {
        let subject = match told {
            [only] if more == 0 => only.title.clone(),
            _ => format!("{} notifications", told.len() + more),
        };
        let unsubscribe = self.link("unsubscribe", &self.tokens.unsubscribing(to.account_id));
        let (mut plain, mut html) = (String::new(), String::new());
        // Writing into a String cannot fail.
        for notification in told {
            let body = notification.body.as_deref().unwrap_or_default();
            let when = moment(notification.occurred_at);
            let _ = writeln!(plain, "{}\n{}{}{when}\n", notification.title, body, if body.is_empty() { "" } else { "\n" });
            let _ = writeln!(html, "<h2>{}</h2>", escape(&notification.title));
            for line in body.lines() {
                let _ = writeln!(html, "<p>{}</p>", escape(line));
            }
            let _ = writeln!(html, "<p><small>{when}</small></p>");
        }
        if more > 0 {
            let _ = writeln!(plain, "… and {more} more.\n");
            let _ = writeln!(html, "<p>… and {more} more.</p>");
        }
        let _ = writeln!(plain, "-- \nYou get this because you chose to. No more e-mail: {unsubscribe}");
        let _ = writeln!(
            html,
            "<hr>\n<p><small>You get this because you chose to. <a href=\"{}\">No more e-mail</a></small></p>",
            escape(unsubscribe.as_str())
        );
        let message = self
            .begin(to, &subject)?
            .header(ListUnsubscribe(format!("<{unsubscribe}>")))
            .header(ListUnsubscribePost)
            .multipart(MultiPart::alternative_plain_html(plain, page(&html)))?;
        Ok(message)
    }

    /// Asks whoever reads this address to prove it.
    pub(crate) fn verification(&self, to: To<'_>, account_name: &str) -> Result<Message, Error> {
        let link = self.link("verify-email", &self.tokens.verification(to.email_id, to.account_id, to.address));
        let plain = format!(
            "Somebody, you probably, gave this address to the account {account_name}. To confirm that you read it, open this within a \
             day:\n\n{link}\n\nIf it was not you, do nothing; nothing more will be sent here.\n"
        );
        let html = format!(
            "<p>Somebody, you probably, gave this address to the account {}. To confirm that you read it, open this within a day:</p>\n\
             <p><a href=\"{link}\">{link}</a></p>\n<p>If it was not you, do nothing; nothing more will be sent here.</p>\n",
            escape(account_name),
            link = escape(link.as_str()),
        );
        Ok(self.begin(to, "Confirm your e-mail address")?.multipart(MultiPart::alternative_plain_html(plain, page(&html)))?)
    }

    /// Tells whoever read this address that the account has another, or none, from now on.
    pub(crate) fn address_changed(&self, to: To<'_>, account_name: &str) -> Result<Message, Error> {
        let plain = format!(
            "This address is no longer that of the account {account_name}: somebody who knows its password has changed it. Nothing more \
             will be sent here.\n\nIf it was not you, ask whoever runs {} at once.\n",
            self.public_url
        );
        let html = format!(
            "<p>This address is no longer that of the account {}: somebody who knows its password has changed it. Nothing more will be \
             sent here.</p>\n<p>If it was not you, ask whoever runs {} at once.</p>\n",
            escape(account_name),
            escape(self.public_url.as_str()),
        );
        Ok(self.begin(to, "Your e-mail address was changed")?.multipart(MultiPart::alternative_plain_html(plain, page(&html)))?)
    }

    fn begin(&self, to: To<'_>, subject: &str) -> Result<lettre::message::MessageBuilder, Error> {
        let address: Address = to.address.parse().map_err(|_| Error::Address)?;
        // One that was sent twice is seen to be the same.
        let message_id = format!("<{}@{}>", to.email_id, self.from.email.domain());
        Ok(Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, address))
            .subject(subject)
            .date(SystemTime::from(to.now))
            .message_id(Some(message_id))
            .header(AutoSubmitted))
    }

    fn link(&self, page: &str, token: &str) -> Url {
        let mut url = self.public_url.clone();
        let path = format!("{}/{page}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url.query_pairs_mut().clear().append_pair("token", token);
        url
    }
}

/// Whether e-mail can be sent there.
pub(crate) fn is_address(text: &str) -> bool {
    text.parse::<Address>().is_ok()
}

fn page(body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>Bowerbird</title></head>\n<body>\n{body}</body>\n</html>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

/// As people read it: `2026-11-20 12:00 UTC`.
pub(crate) fn moment(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC).format(format_description!("[year]-[month]-[day] [hour]:[minute] UTC")).unwrap_or_default()
}

/// RFC 8058: the link, which only this server makes.
#[derive(Clone)]
struct ListUnsubscribe(String);

/// RFC 8058: that one POST to it is enough.
#[derive(Clone)]
struct ListUnsubscribePost;

/// RFC 3834: nobody is to answer this automatically.
#[derive(Clone)]
struct AutoSubmitted;

macro_rules! header {
    ($type:ty, $name:literal, |$of:ident| $value:expr, |$text:ident| $parsed:expr) => {
        impl Header for $type {
            fn name() -> HeaderName {
                HeaderName::new_from_ascii_str($name)
            }

            fn parse($text: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
                Ok($parsed)
            }

            fn display(&self) -> HeaderValue {
                let $of = self;
                HeaderValue::new(Self::name(), $value)
            }
        }
    };
}

header!(ListUnsubscribe, "List-Unsubscribe", |link| link.0.clone(), |text| ListUnsubscribe(text.to_owned()));
header!(ListUnsubscribePost, "List-Unsubscribe-Post", |_post| "List-Unsubscribe=One-Click".to_owned(), |_text| {
    ListUnsubscribePost
});
header!(AutoSubmitted, "Auto-Submitted", |_yes| "auto-generated".to_owned(), |_text| AutoSubmitted);

#[cfg(test)]
mod tests {
    use bowerbird_nats::{EventId, NotificationId};
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);

    fn letterhead() -> Letterhead {
        Letterhead {
            from: "Bowerbird <drop@example.org>".parse().unwrap(),
            public_url: "https://drop.example.org/bird/".parse().unwrap(),
            tokens: Tokens::new(&[7; 32]),
        }
    }

    fn to(address: &str) -> To<'_> {
        To { email_id: Uuid::from_u128(1), account_id: AccountId(Uuid::from_u128(2)), address, now: NOW }
    }

    fn notification(title: &str, body: Option<&str>) -> Notification {
        Notification {
            id: NotificationId(Uuid::from_u128(3)),
            event_id: EventId(Uuid::from_u128(4)),
            event_type: "reminder.fired".into(),
            entity_id: Uuid::from_u128(5),
            title: title.into(),
            body: body.map(str::to_owned),
            occurred_at: NOW,
            created_at: NOW,
            read_at: None,
        }
    }

    /// Names of the headers before the first empty line, in their order. A line that begins with a space belongs to the
    /// header before it.
    fn headers(message: &[u8]) -> Vec<String> {
        let text = String::from_utf8(message.to_vec()).unwrap();
        let (head, _) = text.split_once("\r\n\r\n").unwrap();
        head.split("\r\n")
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split_once(':').unwrap_or_else(|| panic!("{line:?}")).0.to_owned())
            .collect()
    }

    const HEADERS: [&str; 10] = [
        "From",
        "To",
        "Subject",
        "Date",
        "Message-ID",
        "Auto-Submitted",
        "List-Unsubscribe",
        "List-Unsubscribe-Post",
        "MIME-Version",
        "Content-Type",
    ];

    #[test]
    fn it_has_both_parts_and_the_headers_of_its_kind() {
        let message =
            letterhead().notifications(to("ada@example.org"), &[notification("Milk", Some("two <litres>"))], 0).unwrap();
        let text = String::from_utf8(message.formatted()).unwrap();
        assert_eq!(headers(text.as_bytes()), HEADERS);
        for expected in [
            "From: Bowerbird <drop@example.org>\r\n",
            "To: ada@example.org\r\n",
            "Subject: Milk\r\n",
            "Date: Fri, 20 Nov 2026 12:00:00 +0000\r\n",
            "Message-ID: <00000000-0000-0000-0000-000000000001@example.org>\r\n",
            "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
            "List-Unsubscribe: <https://drop.example.org/bird/unsubscribe?token=",
            "Content-Type: multipart/alternative;",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Type: text/html; charset=utf-8",
            "two &lt;litres&gt;",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        let many =
            letterhead().notifications(to("ada@example.org"), &[notification("a", None), notification("b", None)], 3).unwrap();
        let text = String::from_utf8(many.formatted()).unwrap();
        assert!(text.contains("Subject: 5 notifications\r\n") && text.contains("and 3 more."));
    }

    #[test]
    fn a_verification_carries_its_token_and_no_way_to_unsubscribe() {
        let message = letterhead().verification(to("ada@example.org"), "ada").unwrap();
        let token = letterhead().tokens.verification(Uuid::from_u128(1), AccountId(Uuid::from_u128(2)), "ada@example.org");
        let text = String::from_utf8(message.formatted()).unwrap().replace("=\r\n", "").replace("=3D", "=");
        assert!(text.contains(&format!("https://drop.example.org/bird/verify-email?token={}", *token)), "{text}");
        assert!(!headers(&message.formatted()).iter().any(|name| name.starts_with("List-")));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for wrong in [
            "",
            "ada",
            "ada@",
            "@example.org",
            "a@b\r\nBcc: c@d",
            "a b@example.org",
            "<a@example.org>",
            "a@example.org, b@example.org",
        ] {
            assert!(!is_address(wrong), "{wrong:?}");
            assert!(matches!(letterhead().verification(to(wrong), "ada"), Err(Error::Address)), "{wrong:?}");
        }
        assert!(is_address("ada+bird@example.org") && is_address("übung@exämple.org"));
    }

    fn nasty() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[a-z\\r\\n: ]{0,200}",
            "(\\r\\n|\\n|\\r)(Bcc|To|Content-Type): [a-z@.]{1,20}(\\r\\n){0,2}",
            "[\\u{80}-\\u{2fff}\\r\\n\\u{2028}]{0,300}",
            "(=\\?utf-8\\?b\\?[A-Za-z0-9]{0,20}\\?=|\\r\\n\\.\\r\\n){0,5}",
        ]
    }

    proptest! {
        #[test]
        fn no_text_adds_a_header_a_part_or_an_element(title in nasty(), body in nasty(), name in nasty()) {
            let told = [notification(&title, Some(&body))];
            let formatted = letterhead().notifications(to("ada@example.org"), &told, 0).unwrap().formatted();
            prop_assert_eq!(headers(&formatted), HEADERS);
            let text = String::from_utf8(formatted).unwrap();
            let boundary = text.split("boundary=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
            prop_assert_eq!(text.matches(&format!("\r\n--{boundary}\r\n")).count(), 2);
            prop_assert_eq!(text.matches(&format!("\r\n--{boundary}--")).count(), 1);
            prop_assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])));
            for letter in [letterhead().verification(to("ada@example.org"), &name), letterhead().address_changed(to("ada@example.org"), &name)] {
                prop_assert_eq!(headers(&letter.unwrap().formatted()).len(), HEADERS.len() - 2);
            }
        }

        #[test]
        fn no_address_adds_a_header(address in nasty(), local in "[!-~]{1,30}") {
            for address in [address, format!("{local}@example.org")] {
                if let Ok(message) = letterhead().verification(to(&address), "ada") {
                    prop_assert_eq!(headers(&message.formatted()).len(), HEADERS.len() - 2);
                    prop_assert_eq!(message.envelope().to().len(), 1);
                }
            }
        }
    }
}
