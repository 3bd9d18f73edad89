//! Cursors of lists: where the next page begins, in a form that only we can make.
//!
//! A cursor names the last item of a page and carries a code over that item, the account, the list and its filters.
//! One that was altered, or taken from another account's or another filter's list, is refused, so a cursor can be
//! trusted when it comes back and a page never silently begins in the wrong list.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bowerbird_nats::{AccountId, page};
use bowerbird_nats::{Code, Problem};
use uuid::Uuid;

/// Bytes of the code that are kept: 128 bits.
const CODE_BYTES: usize = 16;

/// Makes and reads cursors. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cursors(hmac::Key);

/// Which list a cursor is of.
pub(crate) struct List<'a> {
    /// Its name: `downloads`.
    pub(crate) name: &'a str,
    /// Whose.
    pub(crate) account: AccountId,
    /// Its filters, in a fixed order.
    pub(crate) filters: &'a [Option<&'a str>],
}

impl Cursors {
    /// Cursors of this installation; all nodes have the same master key, so each can read what another gave out.
    pub(crate) fn new(master_key: &[u8; 32]) -> Self {
        Cursors(hmac::Key::new(hmac::HMAC_SHA256, derive(master_key, "bowerbird list cursors v1").as_ref()))
    }

    /// The cursor of what comes after this item.
    pub(crate) fn after(&self, list: &List<'_>, last: Uuid) -> String {
        self.after_value(list, last, "")
    }

    /// The cursor of what comes after this item in a list that is ordered by something else than ids: with that of this item.
    pub(crate) fn after_value(&self, list: &List<'_>, last: Uuid, value: &str) -> String {
        let mut bytes = last.as_bytes().to_vec();
        bytes.extend(self.code(list, last, value));
        bytes.extend(value.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The item that a cursor of this list names.
    pub(crate) fn read(&self, list: &List<'_>, cursor: &str) -> Result<Uuid, Problem> {
        match self.read_value(list, cursor)? {
            (id, value) if value.is_empty() => Ok(id),
            _ => Err(refused()),
        }
    }

    /// The item that a cursor of this list names, and what it is ordered by.
    pub(crate) fn read_value(&self, list: &List<'_>, cursor: &str) -> Result<(Uuid, String), Problem> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
        let (id, rest) = bytes.split_at_checked(16).ok_or_else(refused)?;
        let (code, value) = rest.split_at_checked(CODE_BYTES).ok_or_else(refused)?;
        let (id, value) = (Uuid::from_slice(id).map_err(|_| refused())?, std::str::from_utf8(value).map_err(|_| refused())?);
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.code(list, id, value), code).map_err(|_| refused())?;
        Ok((id, value.to_owned()))
    }

    fn code(&self, list: &List<'_>, id: Uuid, value: &str) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.0);
        let mut field = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        };
        field(list.name.as_bytes());
        field(list.account.0.as_bytes());
        field(id.as_bytes());
        field(value.as_bytes());
        for filter in list.filters {
            field(if filter.is_some() { b"1" } else { b"0" });
            field(filter.unwrap_or_default().as_bytes());
        }
        context.sign().as_ref()[..CODE_BYTES].to_vec()
    }
}

fn refused() -> Problem {
    Problem::new(Code::InvalidCursor, "use next_cursor of a page as it is, with the same filters, or leave it away to begin anew")
}

/// A key for one purpose, made of the master key.
pub(crate) fn derive(master_key: &[u8; 32], purpose: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, master_key), purpose.as_bytes())
}

/// Items of a page, as the caller asked or the default.
pub(crate) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(page::DEFAULT_LIMIT);
    if (1..=page::MAX_LIMIT).contains(&limit) {
        Ok(limit)
    } else {
        Err(Problem::invalid("limit", format!("must be from 1 to {}", page::MAX_LIMIT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_only_good_for_the_list_that_gave_it_out() {
        let cursors = Cursors::new(&[7; 32]);
        let (mine, other) = (AccountId(Uuid::from_u128(1)), AccountId(Uuid::from_u128(2)));
        let last = Uuid::from_u128(42);
        let list = |account, filters| List { name: "downloads", account, filters };
        let queued: &[Option<&str>] = &[Some("queued"), None];
        let cursor = cursors.after(&list(mine, queued), last);
        assert_eq!(cursors.read(&list(mine, queued), &cursor).unwrap(), last);

        for (account, filters) in
            [(other, queued), (mine, &[None, Some("queued")] as &[_]), (mine, &[Some("failed"), None] as &[_])]
        {
            assert_eq!(cursors.read(&list(account, filters), &cursor).unwrap_err().code, Code::InvalidCursor);
        }
        assert!(cursors.read(&List { name: "files", account: mine, filters: queued }, &cursor).is_err());
        assert!(Cursors::new(&[8; 32]).read(&list(mine, queued), &cursor).is_err());
    }

    #[test]
    fn an_altered_cursor_is_refused() {
        let cursors = Cursors::new(&[7; 32]);
        let list = List { name: "downloads", account: AccountId(Uuid::from_u128(1)), filters: &[] };
        let cursor = cursors.after(&list, Uuid::from_u128(42));
        for position in 0..cursor.len() {
            let mut altered = cursor.clone().into_bytes();
            altered[position] = if altered[position] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).unwrap();
            if altered != cursor {
                assert!(cursors.read(&list, &altered).is_err(), "{altered} was taken for {cursor}");
            }
        }
        for text in ["", "x", "AAAA", "%%%", &cursor[..22], &format!("{cursor}A")] {
            assert!(cursors.read(&list, text).is_err(), "{text:?} was taken");
        }
    }
}
