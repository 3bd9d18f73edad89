//! What the head of an answer says about content: ranges, validators, digests, waits. Strict where a wrong guess would
//! splice two versions, forgiving where it would only cost a little.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, header};
use time::OffsetDateTime;

use crate::transfer::Checksum;

/// Longest wait that a server is believed to want.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);
/// Longest entity tag that is kept.
const MAX_ETAG_BYTES: usize = 1024;

/// A `Content-Range` (RFC 9110 §14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContentRange {
    /// `bytes first-last/total`, with the end behind the last byte.
    Part { first: u64, end: u64, total: Option<u64> },
    /// `bytes */total`.
    Unsatisfied { total: u64 },
}

/// The range of an answer; `None` if there is none, more than one, or one that makes no sense.
pub(crate) fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let (range, total) = only(headers, &header::CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    if range == "*" {
        return Some(ContentRange::Unsatisfied { total: number(total)? });
    }
    let (first, last) = range.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    if last < first || last == u64::MAX || total.is_some_and(|total| total <= last) {
        return None;
    }
    Some(ContentRange::Part { first, end: last + 1, total })
}

/// Digits and nothing else: no sign, no space.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    std::str::from_utf8(value.as_bytes()).ok().map(str::trim)
}

/// What tells this version of the content from every other, to be put into `If-Range`: a strong entity tag, else a date
/// of modification that is strong by RFC 9110 §8.8.2.2, which it is when the answer was made at least a second later.
pub(crate) fn validator(headers: &HeaderMap) -> Option<String> {
    if headers.contains_key(header::ETAG) {
        return strong_etag(headers);
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return None;
    }
    let modified = only(headers, &header::LAST_MODIFIED)?;
    let made = httpdate::parse_http_date(only(headers, &header::DATE)?).ok()?;
    let age = made.duration_since(httpdate::parse_http_date(modified).ok()?).ok()?;
    (age >= Duration::from_secs(1)).then(|| modified.to_owned())
}

/// Whether an answer is of the version that the validator was taken from.
pub(crate) fn is_of_version(headers: &HeaderMap, validator: &str) -> bool {
    if validator.starts_with('"') {
        strong_etag(headers).as_deref() == Some(validator)
    } else {
        // A tag that was not there before may tell versions apart that the date does not.
        !headers.contains_key(header::ETAG) && only(headers, &header::LAST_MODIFIED) == Some(validator)
    }
}

fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let tag = only(headers, &header::ETAG)?;
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let fits = tag.len() <= MAX_ETAG_BYTES && inner.bytes().all(|byte| byte > b' ' && byte != b'"' && byte != 0x7f);
    fits.then(|| tag.to_owned())
}

/// How long the server wants to be left alone. What makes no sense is as if it were not there.
pub(crate) fn retry_after(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let value = only(headers, &header::RETRY_AFTER)?;
    let wait = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let until = OffsetDateTime::from(httpdate::parse_http_date(value).ok()?);
        Duration::try_from(until - now).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// The digest of the whole content, whatever part of it the answer carries (RFC 9530). The stronger one if there are two;
/// algorithms that can be forged are not looked at.
pub(crate) fn repr_digest(headers: &HeaderMap) -> Option<Checksum> {
    let mut sha256 = None;
    let lines = headers.get_all("repr-digest").iter().filter_map(|value| value.to_str().ok());
    for (algorithm, value) in lines.flat_map(|line| line.split(',')).filter_map(|item| item.trim().split_once('=')) {
        let bytes =
            value.split(';').next().and_then(|value| STANDARD.decode(value.trim().strip_prefix(':')?.strip_suffix(':')?).ok());
        match (algorithm, bytes) {
            ("sha-512", Some(bytes)) => {
                if let Ok(sum) = bytes.try_into() {
                    return Some(Checksum::Sha512(sum));
                }
            }
            ("sha-256", Some(bytes)) => sha256 = bytes.try_into().ok().map(Checksum::Sha256),
            _ => {}
        }
    }
    sha256
}

/// The media type as it was declared, if it is one.
pub(crate) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = only(headers, &header::CONTENT_TYPE)?;
    let printable = value.bytes().all(|byte| (b' '..0x7f).contains(&byte));
    (value.len() <= 255 && printable && value.contains('/')).then(|| value.to_owned())
}

/// Whether the server says that it takes ranges of bytes.
pub(crate) fn accepts_ranges(headers: &HeaderMap) -> bool {
    only(headers, &header::ACCEPT_RANGES).is_some_and(|unit| unit.eq_ignore_ascii_case("bytes"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use time::macros::datetime;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_content_range_that_makes_no_sense_is_none() {
        let range = |value| content_range(&headers(&[("content-range", value)]));
        assert_eq!(range("bytes 0-9/10"), Some(ContentRange::Part { first: 0, end: 10, total: Some(10) }));
        assert_eq!(range("bytes 5-9/*"), Some(ContentRange::Part { first: 5, end: 10, total: None }));
        assert_eq!(range("bytes */10"), Some(ContentRange::Unsatisfied { total: 10 }));
        for value in [
            "bytes 0-",
            "bytes=0-9/10",
            "bytes 0-9",
            "bytes 9-0/10",
            "bytes 0-10/10",
            "bytes 0-9/",
            "bytes /10",
            "bytes -9/10",
            "bytes +0-9/10",
            "bytes 0-9/18446744073709551616",
            "bytes 0-18446744073709551615/*",
            "bytes */*",
            "items 0-9/10",
            "bytes  0-9/10",
            "0-9/10",
            "",
        ] {
            assert_eq!(range(value), None, "{value:?}");
        }
        let mut twice = headers(&[("content-range", "bytes 0-9/10")]);
        twice.append("content-range", HeaderValue::from_static("bytes 0-9/10"));
        assert_eq!(content_range(&twice), None);
    }

    #[test]
    fn only_what_is_strong_validates() {
        let tag = |value| validator(&headers(&[("etag", value)]));
        assert_eq!(tag("\"abc\"").as_deref(), Some("\"abc\""));
        for weak in ["W/\"abc\"", "abc", "\"a\"b\"", "\"", "", "\"a b\""] {
            assert_eq!(tag(weak), None, "{weak:?}");
        }
        let (modified, later, same) =
            ("Fri, 20 Nov 2026 10:00:00 GMT", "Fri, 20 Nov 2026 10:00:01 GMT", "Fri, 20 Nov 2026 10:00:00 GMT");
        let dated = |pairs: &[_]| validator(&headers(pairs));
        assert_eq!(dated(&[("last-modified", modified), ("date", later)]).as_deref(), Some(modified));
        assert_eq!(dated(&[("last-modified", modified), ("date", same)]), None);
        assert_eq!(dated(&[("last-modified", modified)]), None);
        assert_eq!(dated(&[("last-modified", modified), ("date", later), ("etag", "W/\"x\"")]), None);
        assert_eq!(dated(&[("last-modified", modified), ("date", later), ("content-encoding", "gzip")]), None);
    }

    #[test]
    fn a_version_is_told_by_its_validator() {
        assert!(is_of_version(&headers(&[("etag", "\"a\"")]), "\"a\""));
        assert!(!is_of_version(&headers(&[("etag", "\"b\"")]), "\"a\""));
        assert!(!is_of_version(&headers(&[("etag", "W/\"a\"")]), "\"a\""));
        assert!(!is_of_version(&headers(&[]), "\"a\""));
        let modified = "Fri, 20 Nov 2026 10:00:00 GMT";
        assert!(is_of_version(&headers(&[("last-modified", modified)]), modified));
        assert!(!is_of_version(&headers(&[("last-modified", modified), ("etag", "\"a\"")]), modified));
    }

    #[test]
    fn a_wait_is_clamped_and_garbage_ignored() {
        let now = datetime!(2026-11-20 10:00 UTC);
        let wait = |value| retry_after(&headers(&[("retry-after", value)]), now);
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Fri, 20 Nov 2026 10:01:00 GMT"), Some(Duration::from_mins(1)));
        assert_eq!(wait("Fri, 20 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("1000000000"), Some(MAX_RETRY_AFTER));
        assert_eq!(wait("99999999999999999999999"), Some(MAX_RETRY_AFTER));
        for garbage in ["-1", "soon", "1.5", "+3"] {
            assert_eq!(wait(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn the_stronger_digest_is_taken_and_a_malformed_one_ignored() {
        let digest = |value| repr_digest(&headers(&[("repr-digest", value)]));
        let sha256 = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:";
        assert!(matches!(digest(sha256), Some(Checksum::Sha256(_))));
        for bad in ["sha-256=:AAAA:", "sha-256=RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=", "md5=:AAAA:", "sha-256=:%%%:", ""] {
            assert_eq!(digest(bad), None, "{bad}");
        }
        let both = "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:, sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:";
        assert!(matches!(digest(both), Some(Checksum::Sha512(_))));
    }
}
