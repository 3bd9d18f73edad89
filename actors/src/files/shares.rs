//! Shares: links for whoever has them. Who has none of a thing, an ended one, or one to what is not there any more, is told
//! the same: there is no such link.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{digest, hmac};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use bowerbird_lifecycle::IdSource;
use bowerbird_nats::{
    Code, Page, Problem, ShareId,
    answer::Call,
    archive::Archive,
    event,
    file::FileStatus,
    operation::Done,
    share::{
        Changed, CreateShare, FetchShare, Fetched, ListShares, OpenShare, RevokeShare, Share, Shared, Streamed, UnlockShare,
        Unlocked,
    },
};
use bowerbird_storage::Audience;
use futures_util::future::BoxFuture;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    archive::Grant,
    content_type,
    requests::{Requests, problem},
    store::{
        self, change, list,
        shares::{self, NewShare, Opened},
    },
    trash::failed,
};
use crate::{
    alarms::{self, Due, Kind, WakeError, Wakes},
    cursor::{self, List, derive},
    database,
    downloads::{check::Faults, row::hexadecimal},
    idempotency,
};

/// Random bytes of a token: 192 bits.
const TOKEN_BYTES: usize = 24;
/// Longest text that can be a token.
const TOKEN_MAX_BYTES: usize = 64;
/// How long a right password is remembered for whoever gave it.
const TICKET_LIFE: Duration = Duration::from_mins(10);
/// Life of a link that somebody is sent to.
const REDIRECT_LIFE: Duration = Duration::from_mins(1);
/// Shares of one account that have not ended.
const MOST: i64 = 1000;
/// Bytes of a code: 128 bits.
const CODE_BYTES: usize = 16;

/// Makes tickets and grants, and knows them again.
#[derive(Clone)]
pub(crate) struct Seals {
    tickets: hmac::Key,
    pub(super) grants: hmac::Key,
    fingerprints: hmac::Key,
}

impl Seals {
    /// All nodes have the same master key, so each knows what another gave out.
    pub(crate) fn new(master_key: &[u8; 32]) -> Self {
        let key = |purpose| hmac::Key::new(hmac::HMAC_SHA256, derive(master_key, purpose).as_ref());
        Seals {
            tickets: key("bowerbird share tickets v1"),
            grants: key("bowerbird archive grants v1"),
            fingerprints: key("bowerbird share fingerprints v1"),
        }
    }

    /// The body holds a password, so what is stored must not be a plain digest of it: that could be guessed at leisure.
    fn fingerprint(&self, plain: &str) -> String {
        hexadecimal(hmac::sign(&self.fingerprints, plain.as_bytes()).as_ref())
    }

    fn ticket(&self, share: &Opened, until: OffsetDateTime) -> String {
        let mut bytes = share.id.0.as_bytes().to_vec();
        bytes.extend(until.unix_timestamp().to_be_bytes());
        let code = hmac::sign(&self.tickets, &Self::signed(&bytes, share));
        bytes.extend(&code.as_ref()[..CODE_BYTES]);
        BASE64.encode(bytes)
    }

    fn is_good(&self, ticket: &str, share: &Opened, now: OffsetDateTime) -> bool {
        let Ok(bytes) = BASE64.decode(ticket) else { return false };
        let Some((said, code)) = bytes.split_at_checked(24) else { return false };
        let expected = hmac::sign(&self.tickets, &Self::signed(said, share));
        let good = aws_lc_rs::constant_time::verify_slices_are_equal(&expected.as_ref()[..CODE_BYTES], code).is_ok();
        let until = said.get(16..24).and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes);
        good && said.get(..16) == Some(share.id.0.as_bytes()) && now.unix_timestamp() < until
    }

    /// Also the password, so that another one makes tickets void.
    fn signed(said: &[u8], share: &Opened) -> Vec<u8> {
        [said, share.password_hash.as_deref().unwrap_or_default().as_bytes()].concat()
    }
}

fn hash(token: &str) -> digest::Digest {
    digest::digest(&digest::SHA256, token.as_bytes())
}

impl Requests {
    /// Share a file or a folder.
    pub(crate) async fn create_share(self, call: Call<CreateShare>) -> Result<Share, Problem> {
        let account = call.account()?.account_id;
        let fingerprint = self.0.seals.fingerprint(&call.fingerprint);
        let key = idempotency::Request::new(Some(account), "share.create", call.idempotency_key, &fingerprint)?;
        let CreateShare { file_id, folder_id, password, expires_at, max_downloads } = call.request;
        let password = password.map(Zeroizing::new);
        let mut faults = Faults::default();
        faults.unless(file_id.is_some() != folder_id.is_some(), "file_id", "give either file_id or folder_id");
        let fits = |password: &Zeroizing<String>| (8..=200).contains(&password.chars().count()) && !password.contains('\0');
        faults.unless(password.as_ref().is_none_or(fits), "password", "must be from 8 to 200 characters");
        faults.unless(max_downloads.is_none_or(|most| most >= 1), "max_downloads", "must be at least 1");
        faults.into_result()?;
        let password_hash = match password {
            Some(password) => Some(self.0.hashing.place()?.hash(password).await?),
            None => None,
        };
        let mut random = [0; TOKEN_BYTES];
        aws_lc_rs::rand::fill(&mut random).map_err(|_| Problem::internal())?;
        let token = BASE64.encode(random);
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let ticket = match idempotency::begin::<Share>(&mut transaction, key).await? {
            idempotency::Begun::Done(before) => {
                transaction.rollback().await.map_err(|error| database::problem(&error))?;
                return Ok(before);
            }
            idempotency::Begun::New(ticket) => ticket,
        };
        let now = store::now(&mut transaction).await.map_err(problem)?;
        if expires_at.is_some_and(|at| at <= now) {
            return Err(Problem::invalid("expires_at", "is past"));
        }
        if shares::alive(&mut transaction, account).await.map_err(problem)? >= MOST {
            return Err(Problem::new(Code::TooMany, format!("the account has {MOST} shares, as many as it may; revoke some")));
        }
        let token_hash = hash(&token);
        let new = NewShare {
            id: ShareId(IdSource.next()),
            account_id: account,
            file_id,
            folder_id,
            token_hash: token_hash.as_ref(),
            password_hash: password_hash.as_deref(),
            expires_at,
            max_downloads,
        };
        let thing = if file_id.is_some() { "file" } else { "folder" };
        let made = shares::insert(&mut transaction, &new).await.map_err(problem)?;
        let mut share = made.ok_or_else(|| Problem::not_found(thing))?;
        if let Some(at) = expires_at {
            alarms::arm(&mut transaction, Kind::ShareExpiry, share.id.0, at).await.map_err(|error| database::problem(&error))?;
        }
        let data = Changed { share: share.clone() };
        change::tell(&mut transaction, event::SHARE_CREATED, account, share.id.0, &data).await.map_err(problem)?;
        share.url = Some(format!("{}/s/{token}", self.0.public_url));
        // A repeat of the request gets it without its link: the token is kept nowhere.
        let mut kept = share.clone();
        kept.url = None;
        idempotency::finish(&mut transaction, ticket, &kept).await?;
        share.token = Some(token);
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        if expires_at.is_some() {
            self.0.alarms.look();
        }
        Ok(share)
    }

    /// The caller's shares.
    pub(crate) async fn list_shares(self, call: Call<ListShares>) -> Result<Page<Share>, Problem> {
        let account = call.account()?.account_id;
        let ListShares { file_id, folder_id, limit, cursor } = call.request;
        let limit = cursor::limit(limit)?;
        let of = [file_id.map(|id| id.to_string()), folder_id.map(|id| id.to_string())];
        let of = List { name: "shares", account, filters: &[of[0].as_deref(), of[1].as_deref()] };
        let before = cursor.map(|cursor| self.0.cursors.read(&of, &cursor)).transpose()?;
        let mut items = shares::list(&self.0.pool, account, (file_id, folder_id), before, limit + 1).await.map_err(problem)?;
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let next_cursor = items.last().filter(|_| more).map(|last| self.0.cursors.after(&of, last.id.0));
        Ok(Page { items, next_cursor })
    }

    /// End a share. One that has ended before stays so.
    pub(crate) async fn revoke_share(self, call: Call<RevokeShare>) -> Result<Done, Problem> {
        let account = call.account()?.account_id;
        let id = call.request.id;
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        alarms::cancel(&mut transaction, Kind::ShareExpiry, id.0).await.map_err(|error| database::problem(&error))?;
        let ended = shares::end(&mut transaction, Some(account), &[id.0]).await.map_err(problem)?;
        if ended.is_empty() && !shares::exists(&mut transaction, account, id).await.map_err(problem)? {
            return Err(unknown());
        }
        for (account, share) in ended {
            let data = Changed { share };
            change::tell(&mut transaction, event::SHARE_REVOKED, account, id.0, &data).await.map_err(problem)?;
        }
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        Ok(Done {})
    }

    async fn opened(&self, token: &str) -> Result<Opened, Problem> {
        if token.len() > TOKEN_MAX_BYTES {
            return Err(unknown());
        }
        shares::open(&self.0.pool, hash(token).as_ref()).await.map_err(problem)?.ok_or_else(unknown)
    }

    /// What a link leads to; of one with a password only that it has one.
    pub(crate) async fn open_share(self, call: Call<OpenShare>) -> Result<Shared, Problem> {
        let opened = self.opened(&call.request.token).await?;
        let locked = opened.password_hash.is_some();
        Ok(shared(&opened, !locked))
    }

    /// Give the password of a link.
    pub(crate) async fn unlock_share(self, call: Call<UnlockShare>) -> Result<Unlocked, Problem> {
        let UnlockShare { token, password } = call.request;
        let password = Zeroizing::new(password);
        let opened = self.opened(&token).await?;
        let Some(stored) = opened.password_hash.clone() else {
            return Err(Problem::new(Code::InvalidState, "this link asks for no password"));
        };
        let place = self.0.hashing.place()?;
        if let Err(seconds) = shares::try_password(&self.0.pool, opened.id).await.map_err(problem)? {
            let mut problem = Problem::new(Code::TooMany, "there were too many wrong passwords; wait before the next try");
            problem.retry_after = Some(seconds);
            return Err(problem);
        }
        if !place.verify(password, Some(stored)).await?.matches {
            return Err(Problem::new(Code::InvalidCredentials, "this is not the password of the link"));
        }
        shares::right_password(&self.0.pool, opened.id).await.map_err(problem)?;
        let expires_at = self.0.clock.now() + TICKET_LIFE;
        Ok(Unlocked { ticket: self.0.seals.ticket(&opened, expires_at), expires_at, shared: shared(&opened, true) })
    }

    /// Fetch the content behind a link.
    pub(crate) async fn fetch_share(self, call: Call<FetchShare>) -> Result<Fetched, Problem> {
        let FetchShare { token, ticket } = call.request;
        let opened = self.opened(&token).await?;
        let now = self.0.clock.now();
        let unlocked = ticket.is_some_and(|ticket| self.0.seals.is_good(&ticket, &opened, now));
        if opened.password_hash.is_some() && !unlocked {
            return Err(Problem::new(Code::Forbidden, "this link asks for a password; unlock it first"));
        }
        // Whatever can fail without counting comes first.
        let mut fetched = Fetched { redirect: None, streamed: None, archive: None };
        if let Some(folder_id) = opened.folder_id {
            let grant = Grant { account: opened.account_id, folder: folder_id, share: Some(opened.id), until: Grant::until(now) };
            fetched.archive = Some(Archive { name: opened.name.clone(), grant: grant.seal(&self.0.seals.grants) });
        } else {
            let file_id = opened.file_id.ok_or_else(unknown)?;
            let stored = list::find(&self.0.pool, opened.account_id, file_id).await.map_err(problem)?.ok_or_else(unknown)?;
            if stored.file.status != FileStatus::Available {
                return Err(unknown());
            }
            if opened.max_downloads.is_some() {
                let link = self.link(&stored.object_key, &stored.file, self.0.link_ttl, Audience::Internal).await?;
                let content_type = content_type::inert(&stored.file.content_type).to_owned();
                let file = stored.file;
                fetched.streamed = Some(Streamed { link, name: file.name, size_bytes: file.size_bytes, content_type });
            } else {
                let life = REDIRECT_LIFE.min(self.0.link_ttl);
                fetched.redirect = Some(self.link(&stored.object_key, &stored.file, life, Audience::Public).await?);
            }
        }
        let mut transaction = self.0.pool.begin().await.map_err(|error| database::problem(&error))?;
        let downloads = shares::count(&mut transaction, opened.id).await.map_err(problem)?.ok_or_else(unknown)?;
        let data = bowerbird_nats::share::Opened { share_id: opened.id, downloads };
        change::tell(&mut transaction, event::SHARE_OPENED, opened.account_id, opened.id.0, &data).await.map_err(problem)?;
        transaction.commit().await.map_err(|error| database::problem(&error))?;
        Ok(fetched)
    }
}

fn shared(opened: &Opened, told: bool) -> Shared {
    Shared {
        has_password: opened.password_hash.is_some(),
        name: told.then(|| opened.name.clone()),
        is_folder: opened.folder_id.is_some(),
        size_bytes: opened.size_bytes.filter(|_| told),
        expires_at: opened.expires_at.filter(|_| told),
        downloads_left: opened.max_downloads.filter(|_| told).map(|most| most - opened.downloads),
    }
}

fn unknown() -> Problem {
    Problem::not_found("share")
}

/// Wakes shares whose time is over.
pub(super) struct Over;

impl Over {
    /// As one of those that are woken.
    pub(super) fn wakes() -> Arc<dyn Wakes> {
        Arc::new(Over)
    }
}

impl Wakes for Over {
    fn kind(&self) -> Kind {
        Kind::ShareExpiry
    }

    fn wake<'a>(&'a self, connection: &'a mut PgConnection, due: &'a [Due]) -> BoxFuture<'a, Result<(), WakeError>> {
        Box::pin(async move {
            let ids: Vec<Uuid> = due.iter().map(|due| due.subject_id).collect();
            for (account, share) in shares::end(connection, None, &ids).await.map_err(failed)? {
                let id = share.id.0;
                change::tell(connection, event::SHARE_EXPIRED, account, id, &Changed { share }).await.map_err(failed)?;
            }
            let later = shares::not_over(connection, &ids).await.map_err(failed)?;
            alarms::arm_many(connection, Kind::ShareExpiry, &later).await?;
            Ok(())
        })
    }
}
