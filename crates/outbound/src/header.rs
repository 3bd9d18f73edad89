//! Which request headers somebody may add to a fetch.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Most headers of one request.
pub const MAX_HEADERS: usize = 20;
/// Most bytes of all names and values together.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// A header that is refused, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct Error {
    /// The name as it was given.
    pub name: String,
    /// What is wrong, in words for whoever gave it.
    pub reason: String,
}

/// Turn what a user gave into headers, or say which of them cannot be taken.
pub fn check<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<HeaderMap, Error> {
    let mut checked = HeaderMap::new();
    let mut bytes = 0;
    for (name, value) in headers {
        let refuse = |reason: &str| Error { name: name.chars().take(100).collect(), reason: reason.to_owned() };
        bytes += name.len() + value.len();
        if checked.len() == MAX_HEADERS {
            return Err(refuse("there are more than 20 headers"));
        }
        if bytes > MAX_HEADER_BYTES {
            return Err(refuse("the headers are larger than 16 KiB together"));
        }
        let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| refuse("not a header name"))?;
        if is_ours(&parsed) {
            return Err(refuse("this header is set by the download itself"));
        }
        let printable = value.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f);
        let mut value = HeaderValue::from_bytes(value.as_bytes())
            .ok()
            .filter(|_| printable && value.trim() == value)
            .ok_or_else(|| refuse("the value has characters that a header cannot hold"))?;
        value.set_sensitive(true);
        if checked.insert(parsed, value).is_some() {
            return Err(refuse("given twice"));
        }
    }
    Ok(checked)
}

/// Headers that frame the message, choose the range or name the host: they would break a transfer or smuggle a request.
fn is_ours(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 18] = [
        header::HOST,
        header::RANGE,
        header::IF_RANGE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
        header::TE,
        header::TRAILER,
        header::CONNECTION,
        header::UPGRADE,
        header::EXPECT,
        header::ACCEPT_ENCODING,
        header::PROXY_AUTHORIZATION,
        header::FORWARDED,
    ];
    OURS.contains(name) || ["keep-alive", "proxy-connection", "http2-settings", "x-forwarded-for", "via"].contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_frame_or_route_a_request_are_refused_in_any_case() {
        for name in [
            "Host",
            "range",
            "If-Range",
            "CONTENT-LENGTH",
            "Transfer-Encoding",
            "Connection",
            "Accept-Encoding",
            "TE",
            "Upgrade",
            "Expect",
            "Keep-Alive",
            "Proxy-Connection",
            "If-None-Match",
        ] {
            assert!(check([(name, "x")]).is_err(), "{name}");
        }
    }

    #[test]
    fn a_value_cannot_smuggle_another_header() {
        for value in ["a\r\nHost: evil", "a\nb", "a\0b", "a\u{7f}", " padded "] {
            assert!(check([("X-Note", value)]).is_err(), "{value:?}");
        }
        for name in ["", "X Note", "X-Note:", "X\r\n", ":authority", "Ü"] {
            assert!(check([(name, "x")]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_a_source_needs_can_be_given() {
        let headers =
            check([("Authorization", "Bearer x"), ("Cookie", "a=b"), ("User-Agent", "me"), ("Referer", "https://example.com/")]);
        assert_eq!(headers.expect("harmless headers").len(), 4);
    }

    #[test]
    fn there_is_a_limit_to_number_and_size() {
        let names: Vec<String> = (0..21).map(|number| format!("x-{number}")).collect();
        assert!(check(names.iter().map(|name| (name.as_str(), "v"))).is_err());
        assert!(check(names.iter().take(20).map(|name| (name.as_str(), "v"))).is_ok());
        assert!(check([("x-large", "v".repeat(17 * 1024).as_str())]).is_err());
    }
}
