//! What may be announced: the fields of a request, every fault named at once.

use bowerbird_nats::{
    Problem,
    download::{Algorithm, Checksum},
    upload::CreateUpload,
};

use crate::downloads::check::{self, Faults};

/// Longest media type.
const TYPE_MAX_BYTES: usize = 255;

/// Everything about a new upload but its quota. Gives the digest that was announced, as bytes.
pub(super) fn create(request: &CreateUpload, max_size_bytes: u64) -> Result<Option<[u8; 32]>, Problem> {
    let mut faults = Faults::default();
    check::file_name(&mut faults, "file_name", &request.file_name);
    match u64::try_from(request.size_bytes) {
        Err(_) => faults.add("size_bytes", "must not be below zero"),
        Ok(size) if size > max_size_bytes => {
            faults.add("size_bytes", format!("must be at most {max_size_bytes}, the largest upload that this server takes"));
        }
        Ok(_) => {}
    }
    if let Some(content_type) = &request.content_type {
        let message =
            "must be a media type such as text/plain or video/mp4; codecs=avc1, in at most 255 visible ASCII characters";
        faults.unless(is_media_type(content_type), "content_type", message);
    }
    let digest = request.sha256.as_ref().map(|value| {
        let checksum = Checksum { algorithm: Algorithm::Sha256, value: value.clone() };
        check::digest(&checksum).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
    });
    faults.unless(digest != Some(None), "sha256", "must be the digest in hexadecimal: 64 digits");
    faults.into_result()?;
    Ok(digest.flatten())
}

/// `type/subtype`, and parameters of which only the characters are looked at: it becomes a header.
fn is_media_type(text: &str) -> bool {
    let is_token =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte));
    let essence = text.split(';').next().unwrap_or_default();
    text.len() <= TYPE_MAX_BYTES
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && text.trim() == text
        && essence.trim_end().split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// Which page of links: after which part, how many.
pub(super) fn page(after_part: Option<u32>, limit: Option<u32>) -> Result<(u32, usize), Problem> {
    let mut faults = Faults::default();
    faults.unless(limit.is_none_or(|limit| (1..=500).contains(&limit)), "limit", "must be from 1 to 500");
    faults.unless(after_part.is_none_or(|part| part <= 10_000), "after_part", "must be from 0 to 10000");
    faults.into_result()?;
    Ok((after_part.unwrap_or(0), limit.unwrap_or(100) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> CreateUpload {
        CreateUpload { file_name: "a.txt".to_owned(), size_bytes: 5, content_type: None, sha256: None }
    }

    #[test]
    fn every_field_at_fault_is_named_at_once() {
        let wrong = CreateUpload {
            file_name: "../passwd".to_owned(),
            size_bytes: -1,
            content_type: Some("text/plain\r\nx: y".to_owned()),
            sha256: Some("ab".to_owned()),
        };
        let problem = create(&wrong, 10).unwrap_err();
        let fields: Vec<&str> = problem.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["file_name", "size_bytes", "content_type", "sha256"]);
        assert!(create(&CreateUpload { size_bytes: 11, ..request() }, 10).is_err());
        assert_eq!(create(&request(), 10).unwrap(), None);
        let digest = CreateUpload { sha256: Some("aB".repeat(32)), ..request() };
        assert_eq!(create(&digest, 10).unwrap(), Some([0xab; 32]));
    }

    #[test]
    fn a_media_type_cannot_break_out_of_its_header() {
        assert!(["text/plain", "video/mp4; codecs=\"avc1\"", "application/vnd.ms-excel"].into_iter().all(is_media_type));
        let long = format!("a/{}", "b".repeat(254));
        assert!(
            !["", "text", "text/", "/plain", "te xt/plain", "text/plain\n", " text/plain", "t/ü", &long]
                .into_iter()
                .any(is_media_type)
        );
    }
}
