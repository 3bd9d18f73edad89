//! The checksums of S3: which ones a client sent, computing them in one pass, and comparing.
//!
//! CRC-64/NVME is always computed, as it is nearly free and the checksum of a whole can be had from those of its parts.
//! The others are computed when the client sent one, announced one, or the upload was begun with one.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use bowerbird_checksum::crc64_nvme_combined;
use crc_fast::{CrcAlgorithm, Digest};
use http::HeaderMap;
use s3s::crypto::{Checksum as _, Md5};
use serde::{Deserialize, Serialize};

use super::error::StoreError;

/// One of the algorithms that S3 knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    pub(super) const ALL: [Algorithm; 5] =
        [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme, Algorithm::Sha1, Algorithm::Sha256];

    /// As S3 spells it in `x-amz-checksum-algorithm`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "CRC32",
            Algorithm::Crc32c => "CRC32C",
            Algorithm::Crc64Nvme => "CRC64NVME",
            Algorithm::Sha1 => "SHA1",
            Algorithm::Sha256 => "SHA256",
        }
    }

    /// The header that carries it.
    const fn header(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "x-amz-checksum-crc32",
            Algorithm::Crc32c => "x-amz-checksum-crc32c",
            Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
            Algorithm::Sha1 => "x-amz-checksum-sha1",
            Algorithm::Sha256 => "x-amz-checksum-sha256",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
    }

    fn of_header(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.header().eq_ignore_ascii_case(name))
    }

    const fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Algorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Algorithm::Sha1 | Algorithm::Sha256 => None,
        }
    }
}

/// Checksums as they travel: base64, each where it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksums {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) crc32: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) crc32c: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) crc64nvme: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha1: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<String>,
    /// Whether a checksum other than CRC-64 is one of the parts' checksums (`…-N`) rather than of the whole.
    #[serde(default)]
    pub(super) composite: bool,
}

impl Checksums {
    pub(super) fn get(&self, algorithm: Algorithm) -> Option<&str> {
        match algorithm {
            Algorithm::Crc32 => self.crc32.as_deref(),
            Algorithm::Crc32c => self.crc32c.as_deref(),
            Algorithm::Crc64Nvme => self.crc64nvme.as_deref(),
            Algorithm::Sha1 => self.sha1.as_deref(),
            Algorithm::Sha256 => self.sha256.as_deref(),
        }
    }

    pub(super) fn set(&mut self, algorithm: Algorithm, value: String) {
        let slot = match algorithm {
            Algorithm::Crc32 => &mut self.crc32,
            Algorithm::Crc32c => &mut self.crc32c,
            Algorithm::Crc64Nvme => &mut self.crc64nvme,
            Algorithm::Sha1 => &mut self.sha1,
            Algorithm::Sha256 => &mut self.sha256,
        };
        *slot = Some(value);
    }

    /// Refuse where one of `expected` differs from ours, or is missing here.
    pub(super) fn verify(&self, expected: &Checksums) -> Result<(), StoreError> {
        for algorithm in Algorithm::ALL {
            let Some(wanted) = expected.get(algorithm) else { continue };
            let computed = self.get(algorithm).unwrap_or("unknown");
            if wanted != computed {
                return Err(StoreError::BadDigest {
                    algorithm: algorithm.name(),
                    expected: wanted.to_owned(),
                    computed: computed.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// What the client said its content hashes to.
#[derive(Clone, Debug, Default)]
pub(super) struct Expectation {
    pub(super) checksums: Checksums,
    /// `Content-MD5`, base64.
    pub(super) md5: Option<String>,
    /// What else to compute: announced for the trailer, or asked for by the upload.
    pub(super) announced: Vec<Algorithm>,
}

impl Expectation {
    /// Read from the headers of a request: the checksums themselves, and those that `x-amz-trailer` announces.
    pub(super) fn of_headers(headers: &HeaderMap) -> Result<Self, StoreError> {
        let mut expectation = Expectation::default();
        for algorithm in Algorithm::ALL {
            if let Some(value) = headers.get(algorithm.header()) {
                let value = value.to_str().unwrap_or_default();
                let length = STANDARD.decode(value).map(|bytes| bytes.len());
                let wanted = match algorithm {
                    Algorithm::Crc32 | Algorithm::Crc32c => 4,
                    Algorithm::Crc64Nvme => 8,
                    Algorithm::Sha1 => 20,
                    Algorithm::Sha256 => 32,
                };
                if length != Ok(wanted) {
                    return Err(StoreError::Invalid(format!(
                        "the value of {} is not the base64 of {wanted} bytes",
                        algorithm.header()
                    )));
                }
                expectation.checksums.set(algorithm, value.to_owned());
            }
        }
        for name in headers.get_all("x-amz-trailer").iter().filter_map(|value| value.to_str().ok()) {
            expectation.announced.extend(name.split(',').filter_map(|name| Algorithm::of_header(name.trim())));
        }
        if let Some(md5) = headers.get("content-md5") {
            let md5 = md5.to_str().unwrap_or_default().to_owned();
            if STANDARD.decode(&md5).map(|bytes| bytes.len()) != Ok(16) {
                return Err(StoreError::InvalidDigest("Content-MD5 is not the base64 of 16 bytes".to_owned()));
            }
            expectation.md5 = Some(md5);
        }
        Ok(expectation)
    }

    /// Add what the trailer said, once the body was read.
    pub(super) fn add_trailer(&mut self, trailer: &HeaderMap) {
        for algorithm in Algorithm::ALL {
            if let Some(value) = trailer.get(algorithm.header()).and_then(|value| value.to_str().ok()) {
                self.checksums.set(algorithm, value.to_owned());
            }
        }
    }
}

/// Computes everything that an [`Expectation`] needs, in one pass.
pub(super) struct Hashers {
    crcs: Vec<(Algorithm, Digest)>,
    digests: Vec<(Algorithm, digest::Context)>,
    md5: Option<Md5>,
}

impl Hashers {
    pub(super) fn new(expectation: &Expectation) -> Self {
        let mut hashers = Hashers { crcs: Vec::new(), digests: Vec::new(), md5: None };
        for algorithm in Algorithm::ALL {
            let wanted = algorithm == Algorithm::Crc64Nvme
                || expectation.checksums.get(algorithm).is_some()
                || expectation.announced.contains(&algorithm);
            match (wanted, algorithm.crc()) {
                (false, _) => {}
                (true, Some(crc)) => hashers.crcs.push((algorithm, Digest::new(crc))),
                (true, None) => hashers.digests.push((algorithm, digest::Context::new(sha(algorithm)))),
            }
        }
        if expectation.md5.is_some() {
            hashers.md5 = Some(Md5::new());
        }
        hashers
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        for (_, crc) in &mut self.crcs {
            crc.update(data);
        }
        for (_, digest) in &mut self.digests {
            digest.update(data);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(data);
        }
    }

    /// The checksums of what passed, if they are the expected ones.
    pub(super) fn finish(self, expectation: &Expectation) -> Result<Checksums, StoreError> {
        let mut checksums = Checksums::default();
        for (algorithm, crc) in self.crcs {
            checksums.set(algorithm, encode_crc(algorithm, crc.finalize()));
        }
        for (algorithm, digest) in self.digests {
            checksums.set(algorithm, STANDARD.encode(digest.finish()));
        }
        checksums.verify(&expectation.checksums)?;
        if let (Some(md5), Some(expected)) = (self.md5, &expectation.md5) {
            let computed = STANDARD.encode(md5.finalize());
            if computed != *expected {
                return Err(StoreError::BadDigest { algorithm: "Content-MD5", expected: expected.clone(), computed });
            }
        }
        Ok(checksums)
    }
}

fn sha(algorithm: Algorithm) -> &'static digest::Algorithm {
    if algorithm == Algorithm::Sha1 { &digest::SHA1_FOR_LEGACY_USE_ONLY } else { &digest::SHA256 }
}

fn encode_crc(algorithm: Algorithm, crc: u64) -> String {
    let bytes = crc.to_be_bytes();
    STANDARD.encode(if algorithm == Algorithm::Crc64Nvme { &bytes[..] } else { &bytes[4..] })
}

fn decode_crc(value: &str) -> Option<u64> {
    let bytes = STANDARD.decode(value).ok()?;
    Some(bytes.iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte)))
}

/// The checksum of a whole from those of its parts: for the CRCs, whose parts can be joined.
pub(super) fn join<'a>(algorithm: Algorithm, parts: impl Iterator<Item = (Option<&'a str>, u64)>) -> Option<String> {
    let crc = algorithm.crc()?;
    let mut whole: Option<u64> = None;
    for (part, size_bytes) in parts {
        let part = decode_crc(part?)?;
        whole = Some(match whole {
            None => part,
            Some(before) if algorithm == Algorithm::Crc64Nvme => crc64_nvme_combined(before, part, size_bytes),
            Some(before) => crc_fast::checksum_combine(crc, before, part, size_bytes),
        });
    }
    Some(encode_crc(algorithm, whole?))
}

/// The checksum of the parts' checksums, with their number: what S3 calls composite.
pub(super) fn compose<'a>(algorithm: Algorithm, parts: impl Iterator<Item = Option<&'a str>>) -> Option<String> {
    let mut joined = Vec::new();
    let mut count = 0_u32;
    for part in parts {
        joined.extend(STANDARD.decode(part?).ok()?);
        count += 1;
    }
    let value = match algorithm.crc() {
        Some(crc) => encode_crc(algorithm, crc_fast::checksum(crc, &joined)),
        None => STANDARD.encode(digest::digest(sha(algorithm), &joined)),
    };
    Some(format!("{value}-{count}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksums(data: &[u8]) -> Checksums {
        let expectation = Expectation { announced: Algorithm::ALL.to_vec(), ..Expectation::default() };
        let mut hashers = Hashers::new(&expectation);
        hashers.update(data);
        hashers.finish(&Expectation::default()).unwrap()
    }

    #[test]
    fn checksums_are_those_of_the_published_check_values() {
        let computed = checksums(b"123456789");
        assert_eq!(computed.crc32, Some(STANDARD.encode(0xCBF4_3926_u32.to_be_bytes())));
        assert_eq!(computed.crc32c, Some(STANDARD.encode(0xE306_9283_u32.to_be_bytes())));
        assert_eq!(computed.crc64nvme, Some(STANDARD.encode(0xAE8B_1486_0A79_9888_u64.to_be_bytes())));
        assert_eq!(computed.sha1.as_deref(), Some("98O8HYCOBHMq32eZZczDTKeuNEE="));
        assert_eq!(computed.sha256.as_deref(), Some("FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="));
    }

    #[test]
    fn the_checksum_of_a_whole_follows_from_those_of_its_parts() {
        let (first, second, whole) = (checksums(b"one and "), checksums(b"two"), checksums(b"one and two"));
        for algorithm in [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme] {
            let parts = [(first.get(algorithm), 8), (second.get(algorithm), 3)];
            assert_eq!(join(algorithm, parts.into_iter()).as_deref(), whole.get(algorithm), "{algorithm:?}");
        }
        assert_eq!(join(Algorithm::Sha256, [(first.get(Algorithm::Sha256), 8)].into_iter()), None);
        assert!(compose(Algorithm::Sha256, [first.sha256.as_deref()].into_iter()).unwrap().ends_with("=-1"));
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        let mut expectation = Expectation::default();
        expectation.checksums.set(Algorithm::Crc32, STANDARD.encode([0; 4]));
        let mut hashers = Hashers::new(&expectation);
        hashers.update(b"123456789");
        assert!(matches!(hashers.finish(&expectation), Err(StoreError::BadDigest { algorithm: "CRC32", .. })));
    }
}
