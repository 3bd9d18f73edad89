//! A folder as one file: a zip that is made while it is sent. Contents are stored as they are, since most are compressed
//! already; what is in memory is one block of content, and the directory at the end of the archive, some hundred bytes a file.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use bowerbird_nats::{
    Code,
    archive::{Archive, Entry, LinkArchived, ListArchive},
};
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderValue, header};
use poem::{Body, Response};
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions, write::StreamWriter};

use super::content::{Content, Running, attachment};
use crate::{actors::Origin, refused::Refused};

/// Files and folders of one archive: its directory is kept in memory.
const MOST: usize = 100_000;
/// Their names together, in bytes, for the same reason.
const MOST_NAME_BYTES: usize = 16 << 20;
/// From this length on an entry is written with 64 bits; some way below what 32 bits hold.
const LARGE_BYTES: i64 = 0xf000_0000;

impl Content {
    /// A folder with everything in it, as a zip.
    pub(crate) async fn archive(
        &self,
        archive: Archive,
        origin: &Origin,
        place: OwnedSemaphorePermit,
    ) -> Result<Response, Refused> {
        // The first page before the answer begins, so that what is wrong can still be said.
        let mut packing = Packing::new(self.clone(), origin.clone(), archive.grant, place);
        packing.next_page().await?;
        let name = if archive.name.is_empty() { "files".to_owned() } else { archive.name };
        let mut response = Response::builder().content_type("application/zip").finish();
        let headers = response.headers_mut();
        let disposition = HeaderValue::from_str(&attachment(&format!("{name}.zip")));
        headers.insert(
            header::CONTENT_DISPOSITION,
            disposition.unwrap_or_else(|_| HeaderValue::from_static("attachment; filename=\"files.zip\"")),
        );
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        response.set_body(Body::from_bytes_stream(packing.into_stream()));
        Ok(response)
    }
}

/// What the zip is written into, and taken out of again.
#[derive(Clone, Default)]
struct Out(Arc<Mutex<BytesMut>>);

impl Out {
    fn take(&self) -> Bytes {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).split().freeze()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An archive on its way.
struct Packing {
    content: Content,
    origin: Origin,
    grant: String,
    entries: VecDeque<Entry>,
    /// Where the last page ended, unless it was the last of all.
    next: Option<String>,
    packed: usize,
    name_bytes: usize,
    out: Out,
    /// None once the archive is whole.
    zip: Option<ZipWriter<StreamWriter<Out>>>,
    /// The content that is being packed, and how much of it is to come.
    body: Option<(bowerbird_outbound::Body, u64)>,
    _place: OwnedSemaphorePermit,
    _running: Running,
}

impl Packing {
    fn new(content: Content, origin: Origin, grant: String, place: OwnedSemaphorePermit) -> Self {
        let out = Out::default();
        let running = Running::begin(&content.running);
        Packing {
            content,
            origin,
            grant,
            entries: VecDeque::new(),
            next: None,
            packed: 0,
            name_bytes: 0,
            zip: Some(ZipWriter::new_stream(out.clone())),
            out,
            body: None,
            _place: place,
            _running: running,
        }
    }

    async fn next_page(&mut self) -> Result<(), Refused> {
        let list = ListArchive { grant: self.grant.clone(), after: self.next.take() };
        let page = self.content.actors.ask(&list, &self.origin).await?;
        self.packed += page.entries.len();
        self.name_bytes += page.entries.iter().map(|entry| entry.path.len()).sum::<usize>();
        if self.packed > MOST || self.name_bytes > MOST_NAME_BYTES {
            return Err(Refused::new(
                Code::TooMany,
                format!(
                    "the folder holds more than {MOST} files and folders, or their names are too long together; fetch it folder by folder"
                ),
            ));
        }
        self.entries = page.entries.into();
        self.next = page.next;
        Ok(())
    }

    fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures_util::stream::try_unfold(self, |mut packing| async move {
            match packing.step().await {
                Ok(Some(bytes)) => Ok(Some((bytes, packing))),
                Ok(None) => Ok(None),
                Err(error) => {
                    // The answer breaks off, so nobody takes the half for the whole.
                    tracing::warn!(%error, "an archive could not be sent whole");
                    Err(error)
                }
            }
        })
    }

    /// The next bytes of the archive. None: it is whole.
    async fn step(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            let bytes = self.out.take();
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
            if let Some((body, left)) = &mut self.body {
                match body.chunk().await.map_err(io::Error::other)? {
                    Some(block) => {
                        *left = left
                            .checked_sub(block.len() as u64)
                            .ok_or_else(|| io::Error::other("an object is longer than its file"))?;
                        writer(&mut self.zip)?.write_all(&block)?;
                    }
                    None if *left > 0 => return Err(io::Error::other("an object is shorter than its file")),
                    None => self.body = None,
                }
            } else if let Some(entry) = self.entries.pop_front() {
                self.begin(&entry).await?;
            } else if self.next.is_some() {
                self.next_page().await.map_err(io::Error::other)?;
            } else if let Some(zip) = self.zip.take() {
                zip.finish().map_err(io::Error::other)?;
            } else {
                return Ok(None);
            }
        }
    }

    async fn begin(&mut self, entry: &Entry) -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(stamp(entry.updated_at))
            .large_file(entry.size_bytes >= LARGE_BYTES);
        let Some(file_id) = entry.file_id else {
            return writer(&mut self.zip)?.add_directory(entry.path.as_str(), options).map_err(io::Error::other);
        };
        let size = u64::try_from(entry.size_bytes).map_err(io::Error::other)?;
        let link = self.content.actors.ask(&LinkArchived { grant: self.grant.clone(), file_id }, &self.origin).await;
        let link = link.map_err(io::Error::other)?;
        let (body, _) = self.content.fetch(&link.url, None, size, None).await.map_err(io::Error::other)?;
        writer(&mut self.zip)?.start_file(entry.path.as_str(), options).map_err(io::Error::other)?;
        self.body = Some((body, size));
        Ok(())
    }
}

fn writer(zip: &mut Option<ZipWriter<StreamWriter<Out>>>) -> io::Result<&mut ZipWriter<StreamWriter<Out>>> {
    zip.as_mut().ok_or_else(|| io::Error::other("the archive is whole already"))
}

/// As a zip has it: in steps of two seconds, from 1980 to 2107.
fn stamp(time: OffsetDateTime) -> DateTime {
    let year = u16::try_from(time.year()).unwrap_or(1980);
    DateTime::from_date_and_time(year, time.month().into(), time.day(), time.hour(), time.minute(), time.second())
        .unwrap_or_default()
}
