//! Under which type content is handed out: types come from strangers, so one is kept only if it is on a short list of types
//! that cannot hold script. Whatever the type, content is an attachment.

/// What everything else is handed out as.
const OPAQUE: &str = "application/octet-stream";

/// Types that browsers show or play without running anything.
const INERT: &[&str] = &[
    "application/gzip",
    "application/json",
    "application/octet-stream",
    "application/vnd.debian.binary-package",
    "application/x-7z-compressed",
    "application/x-bzip2",
    "application/x-tar",
    "application/x-xz",
    "application/zip",
    "application/zstd",
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "audio/webm",
    "image/avif",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/csv",
    "text/plain",
    "video/mp4",
    "video/mpeg",
    "video/ogg",
    "video/quicktime",
    "video/webm",
    "video/x-matroska",
];

/// The `Content-Type` to hand content out with that was declared as this.
pub(crate) fn inert(declared: &str) -> &'static str {
    let essence = declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    INERT.iter().find(|inert| **inert == essence).copied().unwrap_or(OPAQUE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_could_run_is_handed_out_as_bytes() {
        for active in [
            "text/html",
            "TEXT/HTML; charset=utf-8",
            "image/svg+xml",
            "application/xml",
            "text/xml",
            "application/xhtml+xml",
            "application/pdf",
            "text/javascript",
            "application/javascript",
            "multipart/related",
            "message/rfc822",
            "",
            "text/plain, text/html",
            "image/png\r\nx: y",
            "application/x-shockwave-flash",
        ] {
            assert_eq!(inert(active), OPAQUE, "{active}");
        }
        assert_eq!(inert("Video/MP4; codecs=avc1"), "video/mp4");
        assert_eq!(inert("text/plain; charset=utf-8"), "text/plain");
    }
}
