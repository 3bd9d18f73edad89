//! What the first bytes of a content look like. Only types that content may be handed out under are told apart: everything
//! else is handed out as bytes whatever it is, so knowing it would change nothing.

/// How many of the first bytes are looked at.
pub(super) const NEEDED_BYTES: u64 = 512;

/// Where, which bytes, and what that is. The first that fits counts.
const SIGNATURES: &[(usize, &[u8], &str)] = &[
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (0, b"\x1f\x8b\x08", "application/gzip"),
    (0, b"BZh", "application/x-bzip2"),
    (0, b"\xfd7zXZ\0", "application/x-xz"),
    (0, b"\x28\xb5\x2f\xfd", "application/zstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (0, b"PK\x03\x04", "application/zip"),
    (0, b"PK\x05\x06", "application/zip"),
    (0, b"!<arch>\ndebian", "application/vnd.debian.binary-package"),
    (257, b"ustar", "application/x-tar"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypM4A ", "audio/mp4"),
    (4, b"ftypqt  ", "video/quicktime"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\0\0\x01\xba", "video/mpeg"),
    (0, b"\0\0\x01\xb3", "video/mpeg"),
];

/// The media type of a content that begins so; nothing if it looks like none that matters.
pub(super) fn media_type(head: &[u8]) -> Option<&'static str> {
    let at = |offset: usize, wanted: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(wanted));
    if let Some((_, _, found)) = SIGNATURES.iter().find(|(offset, wanted, _)| at(*offset, wanted)) {
        return Some(found);
    }
    if at(0, b"RIFF") {
        return match head.get(8..12)? {
            b"WEBP" => Some("image/webp"),
            b"WAVE" => Some("audio/wav"),
            _ => None,
        };
    }
    if at(0, b"\x1a\x45\xdf\xa3") {
        let names_webm = head.windows(4).take(64).any(|window| window == b"webm");
        return Some(if names_webm { "video/webm" } else { "video/x-matroska" });
    }
    // MPEG audio: eleven set bits, then layer III.
    if head.len() > 2 && head[0] == 0xff && head[1] & 0xe6 == 0xe2 {
        return Some("audio/mpeg");
    }
    is_text(head).then_some("text/plain")
}

/// Valid UTF-8 without control characters, up to a character that was cut at the end.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
        Err(_) => return false,
    };
    !text.is_empty()
        && !text.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\r' | '\t' | '\u{c}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::inert;

    #[test]
    fn whatever_is_detected_may_be_handed_out_as_that() {
        for (_, _, found) in SIGNATURES {
            assert_eq!(inert(found), *found);
        }
    }

    #[test]
    fn contents_are_told_by_their_first_bytes() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        for (head, expected) in [
            (b"\x89PNG\r\n\x1a\n rest".as_slice(), Some("image/png")),
            (b"RIFF\x10\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"RIFF\x10\0\0\0AVI ", None),
            (b"\x1a\x45\xdf\xa3\x01\0\0\0\0\0\0\x1f\x42\x82\x84webm", Some("video/webm")),
            (b"\x1a\x45\xdf\xa3 matroska", Some("video/x-matroska")),
            (b"\0\0\0\x20ftypisom", Some("video/mp4")),
            (b"\xff\xfb\x90\x44", Some("audio/mpeg")),
            (b"<html><script>alert(1)</script>", Some("text/plain")),
            ("Grüße\n".as_bytes(), Some("text/plain")),
            (&"ü".as_bytes()[..1], None),
            (b"a\0b", None),
            (b"\x7fELF", None),
            (b"", None),
            (&tar, Some("application/x-tar")),
        ] {
            assert_eq!(media_type(head), expected, "{head:?}");
        }
    }
}
