//! Links that let their bearer do one thing to one object for a while, without keys.

use std::time::Duration;

use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;
use url::Url;

use super::{Bucket, Error, ErrorKind};

/// Who follows the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// A client, by the public address.
    Public,
    /// A process of ours, by the internal address.
    Internal,
}

/// Whether a browser shows or saves what it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disposition {
    /// Save it.
    #[default]
    Attachment,
    /// Show it, if it can.
    Inline,
}

/// What a link to read says about the answer. It is signed, so the bearer cannot change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresignGet {
    /// The name to save it under.
    pub file_name: Option<String>,
    /// The media type to send instead of the stored one.
    pub content_type: Option<String>,
    /// Whether to show or to save it.
    pub disposition: Disposition,
}

/// What a link to write demands. All of it is signed: a request that differs is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresignPut {
    /// The exact length of the body.
    pub content_length: u64,
    /// The exact media type.
    pub content_type: Option<String>,
    /// SHA-256 of the body, which the server checks.
    pub sha256: Option<[u8; 32]>,
    /// Refuse if there is an object already: the link can be used once.
    pub if_none_match: bool,
}

/// A link. Whoever has it can use it, so it is not to be logged.
#[derive(Clone, PartialEq, Eq)]
pub struct PresignedLink {
    /// Where to.
    pub url: Url,
    /// `GET` or `PUT`.
    pub method: String,
    /// Headers that the request must carry exactly so, beside `host`.
    pub headers: Vec<(String, String)>,
    /// Until when, in UTC, to the second as it is signed.
    pub expires_at: OffsetDateTime,
}

impl std::fmt::Debug for PresignedLink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PresignedLink")
            .field("path", &self.url.path())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    /// A link to read one object.
    pub async fn presign_get(
        &self,
        key: &str,
        expires_in: Duration,
        get: &PresignGet,
        audience: Audience,
    ) -> Result<PresignedLink, Error> {
        let signed_at = self.signing_time();
        let request = self
            .signer(audience)
            .get_object()
            .bucket(self.name())
            .key(key)
            .response_content_disposition(disposition(get.disposition, get.file_name.as_deref()))
            .set_response_content_type(get.content_type.clone())
            .presigned(lifetime(signed_at, expires_in)?)
            .await
            .map_err(|error| Error::of("sign a link", error))?;
        link(&request, signed_at + expires_in)
    }

    /// A link to write one object, once.
    pub async fn presign_put(
        &self,
        key: &str,
        expires_in: Duration,
        put: &PresignPut,
        audience: Audience,
    ) -> Result<PresignedLink, Error> {
        let signed_at = self.signing_time();
        let request = self
            .signer(audience)
            .put_object()
            .bucket(self.name())
            .key(key)
            .content_length(i64::try_from(put.content_length).unwrap_or(i64::MAX))
            .set_content_type(put.content_type.clone())
            .set_checksum_sha256(put.sha256.map(|sha256| STANDARD.encode(sha256)))
            .set_if_none_match(put.if_none_match.then(|| "*".to_owned()))
            .presigned(lifetime(signed_at, expires_in)?)
            .await
            .map_err(|error| Error::of("sign a link", error))?;
        link(&request, signed_at + expires_in)
    }

    /// A link to write one part of an upload, of exactly this length; again, as long as the upload is neither completed nor
    /// aborted.
    pub async fn presign_part(
        &self,
        key: &str,
        upload_id: &str,
        number: u32,
        content_length: u64,
        expires_in: Duration,
        audience: Audience,
    ) -> Result<PresignedLink, Error> {
        let signed_at = self.signing_time();
        let request = self
            .signer(audience)
            .upload_part()
            .bucket(self.name())
            .key(key)
            .upload_id(upload_id)
            .part_number(i32::try_from(number).unwrap_or(i32::MAX))
            .content_length(i64::try_from(content_length).unwrap_or(i64::MAX))
            .presigned(lifetime(signed_at, expires_in)?)
            .await
            .map_err(|error| Error::of("sign a link", error))?;
        link(&request, signed_at + expires_in)
    }

    fn signer(&self, audience: Audience) -> &aws_sdk_s3::Client {
        match audience {
            Audience::Public => &self.public,
            Audience::Internal => &self.client,
        }
    }

    /// A signature's date has no fractions of a second.
    fn signing_time(&self) -> OffsetDateTime {
        self.options.clock.now().truncate_to_second()
    }
}

fn lifetime(signed_at: OffsetDateTime, expires_in: Duration) -> Result<PresigningConfig, Error> {
    PresigningConfig::builder()
        .start_time(signed_at.into())
        .expires_in(expires_in)
        .build()
        .map_err(|error| Error::new(ErrorKind::Other, "sign a link", error.to_string()))
}

fn link(request: &PresignedRequest, expires_at: OffsetDateTime) -> Result<PresignedLink, Error> {
    let url = Url::parse(request.uri()).map_err(|error| Error::new(ErrorKind::Other, "sign a link", error.to_string()))?;
    let headers = request
        .headers()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(PresignedLink { url, method: request.method().to_owned(), headers: headers.collect(), expires_at })
}

/// What RFC 8187 leaves as it is in a parameter.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A `Content-Disposition` (RFC 6266) with the name for old and for new clients.
fn disposition(disposition: Disposition, file_name: Option<&str>) -> String {
    let kind = match disposition {
        Disposition::Attachment => "attachment",
        Disposition::Inline => "inline",
    };
    let Some(name) = file_name else { return kind.to_owned() };
    let plain: String = name
        .chars()
        .map(|character| match character {
            '"' | '\\' | '%' => '_',
            ' '..='~' => character,
            _ => '_',
        })
        .collect();
    let mut value = format!("{kind}; filename=\"{plain}\"");
    if plain != name {
        value.push_str("; filename*=UTF-8''");
        value.extend(utf8_percent_encode(name, KEPT));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_break_out_of_its_header() {
        assert_eq!(disposition(Disposition::Attachment, None), "attachment");
        assert_eq!(disposition(Disposition::Inline, Some("a b.txt")), "inline; filename=\"a b.txt\"");
        assert_eq!(
            disposition(Disposition::Attachment, Some("ü\"; x=\r\n.txt")),
            "attachment; filename=\"__; x=__.txt\"; filename*=UTF-8''%C3%BC%22%3B%20x%3D%0D%0A.txt"
        );
    }
}
