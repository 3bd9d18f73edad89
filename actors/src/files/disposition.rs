//! How content is handed out: as an attachment, always, and under a type that no browser runs.
//!
//! Names and types come from strangers. The name goes into `Content-Disposition` twice (RFC 6266): once in plain ASCII for
//! old clients, once whole (RFC 8187). The type is kept only if it is on a short list of types that cannot hold script.

use std::fmt::Write as _;

/// What everything else is handed out as.
const OPAQUE: &str = "application/octet-stream";

/// Types that browsers show or play without running anything.
const INERT: &[&str] = &[
    "application/gzip", "application/json", "application/octet-stream", "application/vnd.debian.binary-package",
    "application/x-7z-compressed", "application/x-bzip2", "application/x-tar", "application/x-xz", "application/zip",
    "application/zstd", "audio/aac", "audio/flac", "audio/mp4", "audio/mpeg", "audio/ogg", "audio/wav", "audio/webm",
    "image/avif", "image/gif", "image/jpeg", "image/png", "image/webp", "text/csv", "text/plain", "video/mp4", "video/mpeg",
    "video/ogg", "video/quicktime", "video/webm", "video/x-matroska",
];

/// The `Content-Type` to hand content out with that was declared as this.
pub(crate) fn content_type(declared: &str) -> &'static str {
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    INERT.iter().find(|inert| **inert == essence).copied().unwrap_or(OPAQUE)
}

/// The `Content-Disposition` to hand a file of this name out with.
pub(crate) fn attachment(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|character| match character {
            '"' | '\\' | '%' | '/' => '_',
            ' '..='~' => character,
            _ => '_',
        })
        .collect();
    let mut header = format!("attachment; filename=\"{plain}\"");
    if plain != name {
        header.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            // attr-char of RFC 8187 §3.2.1.
            if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                header.push(char::from(byte));
            } else {
                // Writing into a String cannot fail.
                let _ = write!(header, "%{byte:02X}");
            }
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_arrive_as_they_are_and_never_break_the_header() {
        assert_eq!(attachment("report 1.pdf"), "attachment; filename=\"report 1.pdf\"");
        assert_eq!(attachment("Füße.txt"), "attachment; filename=\"F__e.txt\"; filename*=UTF-8''F%C3%BC%C3%9Fe.txt");
        assert_eq!(attachment("a\"; x=\"b"), "attachment; filename=\"a_; x=_b\"; filename*=UTF-8''a%22%3B%20x%3D%22b");
        assert_eq!(attachment("a\r\nb"), "attachment; filename=\"a__b\"; filename*=UTF-8''a%0D%0Ab");
    }

    #[test]
    fn what_a_browser_could_run_is_handed_out_as_bytes() {
        for active in [
            "text/html", "TEXT/HTML; charset=utf-8", "image/svg+xml", "application/xml", "text/xml", "application/xhtml+xml",
            "application/pdf", "text/javascript", "application/javascript", "multipart/related", "message/rfc822", "",
            "text/plain, text/html", "image/png\r\nx: y", "application/x-shockwave-flash",
        ] {
            assert_eq!(content_type(active), OPAQUE, "{active}");
        }
        assert_eq!(content_type("Video/MP4; codecs=avc1"), "video/mp4");
        assert_eq!(content_type("text/plain; charset=utf-8"), "text/plain");
    }

    proptest! {
        #[test]
        fn any_name_makes_one_line_of_visible_ascii_with_two_quotes(name in "\\PC{1,60}") {
            let header = attachment(&name);
            prop_assert!(header.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{header}");
            prop_assert_eq!(header.matches('"').count(), 2);
        }
    }
}
